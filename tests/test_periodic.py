"""Periodic frames: exact shifts, the same forecast as of a flow repeated beside itself, and no symmetry lost."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from prepared import prepare, read_meta
from torch import nn
from torch.nn.functional import pad

import run_model
from evaluation.ablation import variant_of
from evaluation.runs import net_of, read_config
from flows.store import identity
from models import SKELETONS, SYMMETRIES, build_model
from models.backbone import deviations, extend
from models.options import DEVIATIONS
from utils import exit_code, load_checkpoint

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


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def heat(tmp_path_factory):
    """Makes a folder with heat in a box of 16 x 16 points, which says that these axes are periodic."""
    folder = tmp_path_factory.mktemp("heat")
    flags = "heat --points 16 --history 2 --horizon 10"
    assert prepare(*flags.split(), "--data_dir", folder / "yx") == 0

    def make(axes):
        copy = folder / (axes or "none")
        if not copy.exists():
            shutil.copytree(folder / "yx", copy)
            meta = read_meta(copy / "heat") | {"periodic": list(axes)}
            if not axes:
                del meta["periodic"]
            (copy / "heat" / "meta.json").write_text(json.dumps(meta | {"id": identity(meta)}))
        return copy

    return make


QUICK = "--dataset heat --architecture ConvNet --symmetry None --input_length 2 --output_length 1 --batch_size 8"
QUICK += " --width 0.03 --num_epoch 1 --train_fraction 0.05 --test_sets UM --device cpu"


def run(data, results, *flags):
    command = [*QUICK.split(), "--data_dir", data, "--results", results, *flags]
    return exit_code(lambda: run_model.main(list(map(str, command))))


def command(*flags):
    return exit_code(lambda: run_model.main(list(map(str, flags))))


@pytest.fixture(scope="module")
def finished(heat, tmp_path_factory):
    """The folders of a run with periodic frames and of one without."""
    results = tmp_path_factory.mktemp("finished")
    for flags in (["--padding=circular"], []):
        assert run(heat("yx"), results, *flags) == 0
    circular, plain = sorted(results.iterdir(), key=lambda folder: "circular" not in folder.name)
    return circular, plain


def test_a_run_says_what_is_periodic(finished, heat, capsys):
    circular, plain = finished
    assert circular.name == plain.name.replace("_train", "_circular_train")
    assert (read_config(circular)["padding"], read_config(circular)["periodic"]) == ("circular", ["y", "x"])
    assert read_config(plain)["padding"] == ""
    assert run(heat("yx"), circular.parent, "--padding=CIRCULAR") == 0
    assert f"{circular} is finished" in capsys.readouterr().out


def test_its_forecasts_shift_with_the_frames(finished, tmp_path):
    """Those of the command line: of its weights on frames of one's own, on another grid."""
    frames = np.random.default_rng(0).normal(size=(2, 1, 24, 40)).astype(np.float32)
    np.save(tmp_path / "still.npy", frames)
    np.save(tmp_path / "moved.npy", np.roll(frames, (7, -9), (2, 3)))
    errors = []
    for number, folder in enumerate(finished):
        forecasts = []
        for name in ("still", "moved"):
            output = tmp_path / f"{name}{number}.npy"
            files = f"--frames={tmp_path / name}.npy", f"--output={output}"
            assert command(f"--predict={folder}", *files, "--steps=3", "--device=cpu") == 0
            forecasts.append(np.load(output))
        still, moved = forecasts
        errors.append(np.abs(moved - np.roll(still, (7, -9), (2, 3))).max() / np.abs(still).max())
    assert errors[0] < 1e-5 < 1e-3 < errors[1]


def test_an_exported_net_is_periodic(finished, tmp_path):
    circular, _ = finished
    assert command(f"--predict={circular}", f"--export={tmp_path / 'net.pt2'}") == 0
    net, frames = torch.export.load(tmp_path / "net.pt2").module(), torch.randn(2, 2, 1, 24, 40)
    shifts = (7, -9), (-2, -1)
    with torch.no_grad():
        torch.testing.assert_close(net(frames.roll(*shifts)), net(frames).roll(*shifts))


def test_scores_again(finished, heat, tmp_path, capsys):
    circular, plain = finished
    scores = tmp_path / "scores.json"
    assert command(f"--evaluate={circular}", f"--data_dir={heat('yx')}", f"--output={scores}", "--test_sets=UM") == 0
    assert json.loads(scores.read_text())["scores"] == json.loads((circular / "metrics.json").read_text())["scores"]
    capsys.readouterr()
    for folder, axes, flags, message in (
        (circular, "x", [], "continues frames along y and x, the tiles of {} are periodic in x"),
        (circular, "", [], "--padding circular: the tiles of {} are not periodic"),
        (plain, "yx", ["--padding=circular"], "has padding ; --evaluate cannot change it to circular"),
    ):
        assert command(f"--evaluate={folder}", f"--data_dir={heat(axes)}", *flags) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message.format(heat(axes) / "heat") in line


@pytest.mark.parametrize(
    ("axes", "flags", "message"),
    [
        ("", "", "error: --padding circular: the tiles of {} are not periodic"),
        ("x", "--augment Rot", "error: --augment Rot: turned frames are periodic along another axis than x"),
        ("x", "--frame Rot", "error: a quarter turn exchanges the axes: both may be periodic, not x alone"),
        ("y", "--symmetry Rot", "error: a quarter turn exchanges the axes: both may be periodic, not y alone"),
        ("y", "--architecture FNO", "error: FNO takes both axes as periodic, not y alone"),
        ("yx", "--variant RConv", "error: RConv pads with zeros, it does not continue frames periodically"),
        ("yx", "--symmetry Scale --variant release", "error: variant release blurs up to the border"),
    ],
)
def test_refused_in_a_line(heat, tmp_path, capsys, axes, flags, message):
    data = heat(axes)
    assert run(data, tmp_path, "--padding=circular", *flags.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message.format(data / "heat"))
    assert not list(tmp_path.iterdir())


def test_one_axis(heat, tmp_path):
    assert run(heat("x"), tmp_path, "--padding=circular", "--symmetry=UM") == 0
    (folder,) = tmp_path.iterdir()
    net = net_of(read_config(folder), ["scalar"])
    net.load_state_dict(load_checkpoint(folder / "best.pt", "cpu")["model"])
    frames = torch.randn(1, 2, 1, 16, 16)
    with torch.no_grad():
        assert difference(net.eval()(frames.roll(5, -1)), net(frames).roll(5, -1)) < 1e-5
        assert difference(net(frames.roll(5, -2)), net(frames).roll(5, -2)) > 1e-3


def test_runs_from_before_there_was_the_setting(finished, heat, tmp_path, capsys):
    """They had their own border: they load, are finished, and are no run with periodic frames."""
    circular, plain = finished
    old = tmp_path / plain.name
    shutil.copytree(plain, old)
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in ("padding", "periodic")}))
    assert read_config(old)["padding"] == ""
    assert run(heat("yx"), tmp_path) == 0
    assert "is finished" in capsys.readouterr().out
    assert command(f"--evaluate={old}", f"--data_dir={heat('yx')}", "--test_sets=UM") == 0
    old.rename(tmp_path / circular.name)
    assert run(heat("yx"), tmp_path, "--padding=circular") == 2
    assert "holds a run with padding ;" in capsys.readouterr().err
