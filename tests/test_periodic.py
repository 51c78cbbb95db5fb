"""Periodic frames: exact shifts, the same forecast as of a flow repeated beside itself, and no symmetry lost."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from evaluation.ablation import variant_of
from models import SKELETONS, SYMMETRIES, build_model
from models.backbone import deviations, extend
from models.options import DEVIATIONS

EXACT, BROKEN = 1e-10, 1e-6
BOTH = ("x", "y")
NETS = list(itertools.product(SKELETONS, SYMMETRIES))
RELAXED = [(*net, relaxed) for net in NETS for relaxed in DEVIATIONS if (net[1], relaxed) != ("None", "free")]
SHIFTS = {"ResNet": (3, -5), "ConvNet": (3, -5), "Unet": (16, 32)}  # along rows and columns, of 32 x 48 points
DIM = {"x": -1, "y": -2}


def make(architecture, symmetry, periodic=(), variant="", **options):
    """A tiny net in which nothing is 0 or 1 by accident, deviations included; the same weights whatever is periodic."""
    torch.manual_seed(0)
    net = build_model(architecture, variant_of(symmetry, variant), 3, width=0.06, periodic=periodic, **options).double()
    left = deviations(net)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if name.endswith(("bias", "running_mean")) or name in left:
            nn.init.normal_(tensor, std=0.1 if name in left else 1)
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
    return net.eval()


def flow(height, width):
    return torch.randn(1, 3, 2, height, width, generator=torch.Generator().manual_seed(7)).double()


@torch.no_grad()
def difference(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@torch.no_grad()
def shift_error(net, axes, architecture):
    """|f(roll x) - roll f(x)| / |f(x)| of a shift along the axes."""
    shift = dict(zip("yx", SHIFTS[architecture], strict=True))
    roll = lambda maps: maps.roll([shift[axis] for axis in axes], [DIM[axis] for axis in axes])  # noqa: E731
    x = flow(32, 48)
    return difference(net(roll(x)), roll(net(x)))


# ---------------------------------------------------------------- the continuation


@pytest.mark.parametrize("mode", ["constant", "replicate"])
@pytest.mark.parametrize("periodic", [(), ("x",), ("y",), BOTH], ids="".join)
@pytest.mark.parametrize("sides", [(0, 0), (1, 1), (1, 2), (3, 3), (8, 8), (7, 11)])
def test_frames_go_on(sides, periodic, mode):
    """Around as often as it takes, where the grid is smaller than the kernel; other axes as torch pads them."""
    maps = torch.randn(2, 3, 3, 4)
    expected = pad(
        maps, (*(sides if "x" not in periodic else (0, 0)), *(sides if "y" not in periodic else (0, 0))), mode
    )
    for axis in periodic:
        cells = torch.arange(-sides[0], maps.shape[DIM[axis]] + sides[1]) % maps.shape[DIM[axis]]
        expected = expected.index_select(DIM[axis], cells)
    assert torch.equal(extend(maps, sides[0], periodic, mode, after=sides[1]), expected)
    if not periodic:
        assert torch.equal(extend(maps, sides[0], (), mode), pad(maps, (sides[0],) * 4, mode))


# ---------------------------------------------------------------- translation


@pytest.mark.parametrize(("architecture", "symmetry"), NETS)
def test_shifts_of_a_periodic_box_are_exact(architecture, symmetry):
    for axes in (BOTH,) if symmetry == "Rot" else (BOTH, ("x",), ("y",)):
        net = make(architecture, symmetry, axes)
        assert shift_error(net, axes, architecture) < EXACT
        for other in {"x", "y"} - set(axes):
            assert shift_error(net, (other,), architecture) > BROKEN
    for axis in BOTH:
        assert shift_error(make(architecture, symmetry), (axis,), architecture) > BROKEN


@pytest.mark.parametrize(("architecture", "symmetry", "relaxed"), RELAXED)
def test_relaxed_nets_too_but_those_of_translation(architecture, symmetry, relaxed):
    error = shift_error(make(architecture, symmetry, BOTH, relaxed=relaxed), BOTH, architecture)
    assert error > BROKEN if symmetry == "None" else error < EXACT
    assert shift_error(make(architecture, symmetry, relaxed=relaxed), BOTH, architecture) > BROKEN


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize(
    ("symmetry", "variant"),
    [("None", "residual"), ("None", "replicate"), ("UM", "free"), ("Mag", "free"), ("Scale", "one")],
)
def test_variants_too(architecture, symmetry, variant):
    assert shift_error(make(architecture, symmetry, BOTH, variant), BOTH, architecture) < EXACT
    assert shift_error(make(architecture, symmetry, (), variant), BOTH, architecture) > BROKEN


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_kernels_of_five_points(symmetry):
    """On the coarsest grid of the U-Net, here of one row, they go around several times."""
    net = make("Unet", symmetry, BOTH, kernel_size=5)
    x = flow(16, 32)
    with torch.no_grad():
        assert difference(net(x.roll(16, -1)), net(x).roll(16, -1)) < EXACT
        other = make("Unet", symmetry, kernel_size=5)
        assert difference(other(x.roll(16, -1)), other(x).roll(16, -1)) > BROKEN


COPIES = {"ResNet": 5, "ConvNet": 3, "Unet": 9}  # odd, of 16 points: the middle one sees none of the border


@pytest.mark.parametrize(("architecture", "symmetry"), [net for net in NETS if net[1] != "Rot"])
@pytest.mark.parametrize("axis", BOTH)
def test_a_periodic_axis_is_a_flow_repeated_beside_itself(architecture, symmetry, axis):
    """And nothing else: the other axis keeps the net's own border."""
    copies = 33 if (architecture, symmetry) == ("Unet", "Scale") else COPIES[architecture]  # its kernels reach farther
    x = flow(16, 16)
    repeated = torch.cat([x] * copies, DIM[axis])
    with torch.no_grad():
        middle = make(architecture, symmetry)(repeated).narrow(DIM[axis], copies // 2 * 16, 16)
        assert difference(make(architecture, symmetry, (axis,))(x), middle) < EXACT
        assert difference(make(architecture, symmetry)(x), middle) > BROKEN
        assert difference(make(architecture, symmetry, BOTH)(x), middle) > BROKEN


@pytest.mark.parametrize("architecture", SKELETONS)
def test_both_axes_of_the_rotation_net(architecture):
    copies = COPIES[architecture]
    x = flow(16, 16)
    with torch.no_grad():
        middle = make(architecture, "Rot")(x.tile(copies, copies))
        middle = middle[..., copies // 2 * 16 :, copies // 2 * 16 :][..., :16, :16]
        assert difference(make(architecture, "Rot", BOTH)(x), middle) < EXACT
        assert difference(make(architecture, "Rot")(x), middle) > BROKEN


# ---------------------------------------------------------------- no symmetry is lost


ELEMENTS = {"UM": torch.tensor([[3.0, -4.0]]), "Mag": torch.tensor([1.7]), "Rot": torch.tensor([90.0])}


@pytest.mark.parametrize(("architecture", "symmetry"), NETS)
def test_nets_keep_their_symmetry_and_no_other(architecture, symmetry):
    x = flow(16, 32)
    for axes in (BOTH,) if symmetry == "Rot" else (BOTH, ("x",), ("y",)):
        net = make(architecture, symmetry, axes)
        for name, g in ELEMENTS.items():
            action = SYMMETRIES[name]
            with torch.no_grad():
                error = difference(net(action.act(g, x)), action.act(g, net(x)[:, None])[:, 0])
            exact = name == symmetry or (symmetry, name) == ("Scale", "Mag")
            assert error < EXACT if exact else error > BROKEN, name


def test_a_frame_of_quarter_turns():
    net, x = make("ConvNet", "None", BOTH, frame=["Rot"]), flow(16, 32)
    turn = lambda frames: SYMMETRIES["Rot"].act(ELEMENTS["Rot"], frames)  # noqa: E731
    with torch.no_grad():
        assert difference(net(turn(x)), turn(net(x)[:, None])[:, 0]) < EXACT
    assert shift_error(net, BOTH, "ConvNet") < EXACT
    assert shift_error(make("ConvNet", "None", frame=["Rot"]), BOTH, "ConvNet") > BROKEN


# ---------------------------------------------------------------- what there is not


@pytest.mark.parametrize(
    ("architecture", "symmetry", "variant", "options", "message"),
    [
        ("Unet", "UM", "", {"periodic": ["z"]}, "unknown axis 'z'; choose from x, y"),
        (
            "Unet",
            "Rot",
            "",
            {"periodic": ["y"]},
            "a quarter turn exchanges the axes: both may be periodic, not y alone",
        ),
        ("Unet", "None", "", {"periodic": ["x"], "frame": ["Rot"]}, "both may be periodic, not x alone"),
        ("FNO", "None", "", {"periodic": ["x"]}, "FNO takes both axes as periodic, not x alone"),
        ("ConvNet", "None", "RConv", {"periodic": BOTH, "tile": (16, 16)}, "RConv pads with zeros"),
        ("ConvNet", "Rot", "RGroup", {"periodic": BOTH}, "RGroup pads with zeros"),
        ("ConvNet", "Rot", "RSteer", {"periodic": BOTH}, "RSteer pads with zeros"),
        ("ConvNet", "Scale", "RScale", {"periodic": BOTH, "kernel_size": 5}, "RScale pads with zeros"),
        ("Unet", "Scale", "release", {"periodic": BOTH}, "variant release blurs up to the border"),
    ],
)
def test_what_is_refused(architecture, symmetry, variant, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(architecture, variant_of(symmetry, variant), 3, **options)


def test_an_fno_is_periodic_as_it_is():
    torch.manual_seed(0)
    net = build_model("FNO", "None", 3, width=0.25)
    other = build_model("FNO", "None", 3, width=0.25, periodic=("y", "x"))
    other.load_state_dict(net.state_dict())
    x = flow(16, 32).float()
    with torch.no_grad():
        assert torch.equal(net(x), other(x))
