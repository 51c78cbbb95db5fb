"""The second paper's own layers: the release's functions, the symmetry where weights are equal, and where it is not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn
from torch.nn.functional import conv2d

import data_prep
import run_model
from evaluation.ablation import variant_of
from evaluation.report import main as report
from flows.windows import Windows
from models import SYMMETRIES, build_model
from models.approximate import (
    ORDERS,
    PUBLISHED,
    SIDE,
    SIGMAS,
    RConv2d,
    RGroupConv2d,
    RPPConv2d,
    RScaleConv2d,
    RSteerConv2d,
    hermite_gaussians,
    penalised,
    penalty,
)
from models.fields import Features, components
from models.rotation import Rotation, kernel_basis, turn
from utils import Training, exit_code, roll_out, train

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden" / "relaxed"
ALL = [(symmetry, name) for symmetry, variants in PUBLISHED.items() for name in variants]
FIELDS = [("vector",), ("scalar",), ("vector", "scalar")]
C4 = Rotation(rotation_order=4)
DATA, REGULAR = Features("data", 2), Features("regular", 2)
EXACT = 1e-10


def make(symmetry, name, fields=("vector",), width=1 / 16, tile=(12, 10), input_length=3, dtype=torch.float64):
    """A variant of a ConvNet; its tile where it needs one."""
    group = PUBLISHED[symmetry][name]
    options = {"tile": tile} if "tile" in group.options() else {}
    torch.manual_seed(0)
    kernel_size = SIDE if symmetry == "Scale" else 3
    return build_model("ConvNet", group, input_length, kernel_size, width, fields, **options).to(dtype)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@torch.no_grad()
def fill(layer, **values):
    """Give a layer, or every layer of a net, these weights, or what functions make of those that it has."""
    for path, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        name = path.removesuffix(".original").rpartition(".")[2]
        if name in values:
            tensor.copy_(values[name](tensor) if callable(values[name]) else values[name])
    return layer


# ---------------------------------------------------------------- each layer is its equation
#
# Arrays of a layer have the names and axes of the golden files. References are in NumPy, patch by patch.


def patches(x, side=3):
    """``(..., H, W)`` to ``(..., H, W, side, side)``, zeros beyond the border."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(side // 2,) * 2] * 2)
    return sliding_window_view(padded, (side, side), (-2, -1))


def translation(a):
    banks = a["combination_weights"].shape[-1]
    weight, bias = (np.concatenate([a[f"convs.{r}.{name}"] for r in range(banks)]) for name in ("weight", "bias"))
    layer = RConv2d(*a["convs.0.weight"].shape[1::-1], 3, a["combination_weights"].shape[:2], banks).double()
    combination = torch.from_numpy(a["combination_weights"]).permute(2, 0, 1)[:, None]
    return fill(layer, combination=combination, weight=torch.from_numpy(weight), bias=torch.from_numpy(bias))


def translation_reference(a):
    seen, c, y = patches(a["input"]), a["combination_weights"], 0
    for r in range(c.shape[-1]):
        bank = np.einsum("nihwyx,oiyx->nohw", seen, a[f"convs.{r}.weight"]) + a[f"convs.{r}.bias"][:, None, None]
        y = y + c[:, :, r] * bank
    return y


def group(a):
    c, psi = a["combination_weights"], a["weight"]
    if psi.ndim == 5:  # the lifting: no axis of what is read, and the other order of c's axes
        c, psi = c.T, psi[:, :, :, None]
    banks, out, read, elements = psi.shape[:4]
    layer = RGroupConv2d(read, out, 3, banks, elements).double()
    return fill(layer, combination=torch.from_numpy(np.ascontiguousarray(c)), weight=torch.from_numpy(psi.copy()))


def lifting_reference(a):
    seen, y = patches(a["input"]), []
    for g in range(4):
        kernel = np.einsum("l,loiyx->oiyx", a["combination_weights"][:, g], np.rot90(a["weight"], -g, (-2, -1)))
        y.append(np.einsum("nihwyx,oiyx->nohw", seen, kernel))
    return np.stack(y, 2)


def group_reference(a):
    seen, y = patches(a["input"]), [0] * 4
    for g in range(4):
        for h in range(4):
            psi = np.rot90(a["weight"][:, :, :, (h - g) % 4], -g, (-2, -1))
            kernel = np.einsum("l,loiyx->oiyx", a["combination_weights"][g], psi)
            y[g] = y[g] + np.einsum("nihwyx,oiyx->nohw", seen[:, :, h], kernel)
    return np.stack(y, 2)


def steerable(a):
    basis, weight = (torch.from_numpy(a[name]).unflatten(-1, (3, 3)) for name in ("basis_kernels", "relaxed_weights"))
    features = {2: "data", 4: "regular"}  # vectors, or one number per quarter turn
    reads, writes = Features(features[basis.shape[2]], weight.shape[2]), Features(features[basis.shape[1]], len(weight))
    layer = RSteerConv2d(C4, reads, writes, 3).double()
    return fill(layer, basis=basis, weight=weight.transpose(1, 2), bias=torch.from_numpy(a["bias"]))


def steerable_reference(a):
    basis = a["basis_kernels"]
    seen = patches(a["input"]).reshape(len(a["input"]), -1, basis.shape[2], *a["input"].shape[2:], 9)
    y = np.einsum("niqhwt,obit,bpqt->nophw", seen, a["relaxed_weights"], basis, optimize=True)
    return y.reshape(len(y), -1, *y.shape[3:]) + a["bias"][:, None, None]


def scale(a):
    weight = a["weight"].squeeze(2) if a["weight"].ndim == 6 else a["weight"]
    layer = RScaleConv2d(weight.shape[1], weight.shape[0], 4).double()
    basis = hermite_gaussians()[:, :, None]  # to the last digit
    return fill(layer, basis=basis, weight=torch.from_numpy(weight), bias=torch.from_numpy(a["bias"]))


def hermite_reference(m, n, sigma, y, x):
    """By the recursion He_(n+1)(z) = z He_n(z) - n He_(n-1)(z)."""
    product = np.exp(-(x**2 + y**2) / 2 / sigma**2) / sigma**2
    for order, z in ((m, y / sigma), (n, x / sigma)):
        before, now = 0, 1
        for k in range(order):
            before, now = now, z * now - k * before
        product = product * now
    return product


def scale_reference(a):
    y, x = np.mgrid[-2:3, -2:3]
    basis = np.zeros((49, 4, 5, 5))
    for c in range(49):
        for s, (sigma, reach) in enumerate([(1, 1), (1.5, 1), (2, 2), (2.5, 2)]):
            basis[c, s] = hermite_reference(c % 7, c // 7, sigma, y, x) * (np.maximum(abs(x), abs(y)) <= reach)
        basis[c] /= np.linalg.norm(basis[c, 0])
    seen = patches(a["input"], 5)
    weight = a["weight"].squeeze(2) if a["weight"].ndim == 6 else a["weight"]
    if seen.ndim == 6:  # the lifting: all levels read the same
        seen = np.repeat(seen[:, :, None], 4, 2)
    return np.einsum("nishwyx,oicyx,csyx->noshw", seen, weight, basis, optimize=True) + a["bias"][:, None, None, None]


# file: layer, reference, axes of the input, whether ReLU follows in the golden file, arrays and their shapes
LAYERS = {
    "translation": (
        translation,
        translation_reference,
        (2, 4, 7, 5),
        True,
        {"combination_weights": (7, 5, 2)}
        | {f"convs.{r}.{name}": shape for r in (0, 1) for name, shape in (("weight", (3, 4, 3, 3)), ("bias", (3,)))},
    ),
    "rotation_lifting": (
        group,
        lifting_reference,
        (2, 3, 7, 5),
        True,
        {"combination_weights": (2, 4), "weight": (2, 5, 3, 3, 3)},
    ),
    "rotation_group": (
        group,
        group_reference,
        (2, 3, 4, 7, 5),
        False,
        {"combination_weights": (4, 2), "weight": (2, 5, 3, 4, 3, 3)},
    ),
    "rotation_steerable_first": (
        steerable,
        steerable_reference,
        (2, 6, 7, 5),
        True,
        {"relaxed_weights": (2, 12, 3, 9), "basis_kernels": (12, 4, 2, 9), "bias": (8,)},
    ),
    "rotation_steerable_hidden": (
        steerable,
        steerable_reference,
        (2, 12, 7, 5),
        True,
        {"relaxed_weights": (2, 24, 3, 9), "basis_kernels": (24, 4, 4, 9), "bias": (8,)},
    ),
    "rotation_steerable_last": (
        steerable,
        steerable_reference,
        (2, 12, 7, 5),
        False,
        {"relaxed_weights": (1, 12, 3, 9), "basis_kernels": (12, 2, 4, 9), "bias": (2,)},
    ),
    "scale_steerable_lift": (scale, scale_reference, (2, 3, 7, 5), True, {"weight": (2, 3, 49, 5, 5), "bias": (2,)}),
    "scale_steerable_hidden": (
        scale,
        scale_reference,
        (2, 3, 4, 7, 5),
        True,
        {"weight": (2, 3, 1, 49, 5, 5), "bias": (2,)},
    ),
}


def apply(name, layer, arrays):
    """Our layer on the input of the arrays, whose axes are the release's."""
    x = torch.from_numpy(arrays["input"])
    if name.startswith("rotation_steerable"):
        x = x.unflatten(1, (-1, arrays["basis_kernels"].shape[2]))
    elif x.dim() == 4 and name != "translation":
        x = x[:, :, None]
    y = layer(x).detach()
    return y.flatten(1, 2).numpy() if name.startswith("rotation_steerable") else y.numpy()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_their_equations(name):
    layer, reference, size, _, shapes = LAYERS[name]
    draw = np.random.default_rng(1)
    arrays = {key: draw.standard_normal(shape) for key, shape in {"input": size, **shapes}.items()}
    found, expected = apply(name, layer(arrays), arrays), reference(arrays)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * abs(expected).max())


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden values of the release not at hand")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_the_releases(name):
    layer, _, _, activated, _ = LAYERS[name]
    with np.load(GOLDEN / f"golden_relaxed_{name}.npz") as file:
        arrays = dict(file)
    found = apply(name, layer(arrays), arrays)
    found = np.maximum(found, 0) if activated else found
    np.testing.assert_allclose(found, arrays["output"], rtol=0, atol=1e-10 * abs(arrays["output"]).max())


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden values of the release not at hand")
@pytest.mark.parametrize(
    ("name", "reads", "writes"),
    [("first", "vector", "regular"), ("hidden", "regular", "regular"), ("last", "regular", "vector")],
)
def test_our_basis_is_the_releases_the_right_way_up(name, reads, writes):
    """Upside down, the release's kernels span the space of ours; as they are, they span another: v would point down."""
    with np.load(GOLDEN / f"golden_relaxed_rotation_steerable_{name}.npz") as file:
        theirs = file["basis_kernels"].reshape(*file["basis_kernels"].shape[:3], 3, 3)
    ours = kernel_basis(4, False, 3, (reads,), (writes,)).numpy()
    together = [np.concatenate([ours, basis]).reshape(2 * len(ours), -1) for basis in (theirs[..., ::-1, :], theirs)]
    ranks = [np.linalg.matrix_rank(both, tol=1e-5) for both in together]
    assert ranks[0] == len(ours) == len(theirs)
    assert ranks[1] > ranks[0]


# ---------------------------------------------------------------- where weights are equal, and where they are not


def shift_error(net):
    """|f(shift x) - shift f(x)| away from what a border reaches in five layers, relative."""
    x = torch.randn(2, 3, 2, 24, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved, expected = net(x.roll((1, 2), (-2, -1))), net(x).roll((1, 2), (-2, -1))
    return relative(*(f[..., 7:-7, 8:-8] for f in (moved, expected)))


def turn_error(net, fields):
    """|f(R x) - R f(x)|, relative, the larger of turns by one and by three quarters."""
    rotation = SYMMETRIES["Rot"].on(fields)
    x = torch.randn(2, 3, rotation.components, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return max(relative(net(rotation.quarter(k, x)), rotation.quarter(k, net(x))) for k in (1, 3))


def test_rconv_with_equal_weights_commutes_with_shifts():
    net = make("None", "RConv", tile=(24, 22))
    assert shift_error(net) < EXACT
    uneven = torch.tensor([0.7, -1.2])[:, None, None, None]
    assert shift_error(fill(net, combination=lambda w: uneven.expand_as(w))) < EXACT  # the banks may differ
    assert shift_error(fill(net, combination=torch.randn_like)) > 0.1


@pytest.mark.parametrize("fields", FIELDS, ids="+".join)
def test_rgroup_with_equal_weights_commutes_with_turns(fields):
    net = make("Rot", "RGroup", fields)
    assert turn_error(net, fields) < EXACT
    assert turn_error(fill(net, combination=lambda w: torch.randn_like(w[:1]).expand_as(w)), fields) < EXACT
    assert turn_error(fill(net, combination=torch.randn_like), fields) > 0.1


def test_rgroup_starts_like_an_ordinary_convolution():
    """The variance of a first output; the release divides it by 4 banks in every layer."""
    torch.manual_seed(0)
    x = torch.randn(8, 64, 4, 16, 16)
    with torch.no_grad():
        ours, ordinary = RGroupConv2d(64, 64, 3, 2)(x), nn.Conv2d(256, 256, 3, bias=False)(x.flatten(1, 2))
    assert ours.var().item() == pytest.approx(ordinary.var().item(), rel=0.1)


@pytest.mark.parametrize("fields", FIELDS, ids="+".join)
def test_rsteer_is_equivariant_without_what_makes_it_relaxed(fields):
    """Published: not at the start, and with equal weights only without its biases of every component."""
    net = make("Rot", "RSteer", fields)
    assert turn_error(net, fields) > 0.5
    tie = lambda w: w[..., :1, :1].expand_as(w)  # noqa: E731
    assert turn_error(fill(net, weight=tie, bias=torch.randn_like), fields) > 0.1
    assert turn_error(fill(net, weight=tie, bias=torch.zeros_like), fields) < EXACT


@pytest.mark.parametrize(("reads", "writes"), [(DATA, REGULAR), (REGULAR, REGULAR), (REGULAR, DATA)])
def test_errors_of_the_published_rsteer(reads, writes):
    """One layer: 1 to 1.4 at its start, half of that with equal weights, 0 with biases that a field shares."""
    torch.manual_seed(0)
    layer = RSteerConv2d(C4, reads, writes, 3).double()
    x = torch.randn(4, reads.channels, 2 if reads.kind == "data" else 4, 12, 12, dtype=torch.float64)

    def turned(features, kind):
        return C4.quarter(1, features) if kind == "data" else turn(features.roll(1, 2), 90)

    def error():
        with torch.no_grad():
            return relative(layer(turned(x, reads.kind)), turned(layer(x), writes.kind))

    assert 0.9 < error() < 1.6
    fill(layer, weight=lambda w: w[..., :1, :1].expand_as(w))
    assert 0.1 < error() < 0.9
    shared = torch.zeros if writes.kind == "data" else torch.randn  # no vector is the same in all directions
    fill(layer, bias=lambda b: shared(writes.channels, 1, dtype=b.dtype).expand(-1, layer.size).flatten())
    assert error() < EXACT


def test_what_weights_by_tap_reach():
    """The weights of a kernel are more than the numbers it has, and reach nearly all of them, whatever the symmetry."""
    basis = kernel_basis(4, False, 3, ("regular",), ("regular",)).flatten(1, 2).flatten(2)  # (24, 16, 9)
    assert sum(np.linalg.matrix_rank(basis[..., tap]) for tap in range(9)) == 132  # of 144, with 216 weights
    basis = hermite_gaussians().flatten(2)
    assert sum(np.linalg.matrix_rank(basis[..., tap]) for tap in range(25)) == 65  # with 1225 weights, of
    assert (basis != 0).any(0).sum() == 68


@pytest.mark.parametrize(("fine", "coarse", "least", "most"), [(0, 1, 0.5, 0.8), (0, 2, 0.2, 0.5), (2, 3, 0.1, 0.45)])
def test_rscale_with_equal_weights_is_not_equivariant(fine, coarse, least, most):
    """A level on a flow and a coarser level on the flow stretched by the ratio of the sigmas should see the same.

    Flows are waves of 8 to 16 cells, read at 2000 places on both grids.
    """
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(8, ORDERS**2, dtype=torch.float64, generator=generator) @ hermite_gaussians().flatten(1)
    kernels = kernels.unflatten(1, (len(SIGMAS), SIDE**2))
    places, phases = 100 * torch.rand(2000, 2, 1, generator=generator), 7 * torch.rand(2000, 1, generator=generator)
    angles, lengths = 7 * torch.rand(2000, 1, generator=generator), 8 + 8 * torch.rand(2000, 1, generator=generator)
    taps = torch.stack(torch.meshgrid(*[torch.arange(-2.0, 3)] * 2, indexing="ij")).flatten(1)

    def seen(level, stretch):
        y, x = (places * stretch + taps).unbind(1)
        flow = torch.cos(2 * torch.pi / lengths / stretch * (x * angles.cos() + y * angles.sin()) + phases)
        return flow.double() @ kernels[:, level].t()

    assert least < relative(seen(coarse, SIGMAS[coarse] / SIGMAS[fine]), seen(fine, 1.0)) < most


def test_rscale_reads_one_level():
    """Published: levels never mix and the last layer reads the first. Four of them forecast what one does."""
    four = make("Scale", "RScale")
    one = build_model("ConvNet", PUBLISHED["Scale"]["RScale"], 3, SIDE, 1 / 16, num_scales=1).double()
    one.load_state_dict(four.state_dict())
    x, hidden = torch.randn(2, 3, 2, 12, 10).double(), torch.randn(2, 4, 4, 12, 10).double()
    with torch.no_grad():
        torch.testing.assert_close(one(x), four(x), rtol=1e-12, atol=0)
        levels = four.layers[1](hidden)
        hidden[:, :, 1:] += 10 * torch.randn_like(hidden[:, :, 1:])
        change = (four.layers[1](hidden) - levels).abs().amax((0, 1, 3, 4))
    assert change[0] == 0
    assert change[1:].min() > 1e-3


def test_rpp_is_a_convolution_and_a_dense_layer_of_low_rank():
    layer, x = RPPConv2d(2, 3, 3, (6, 5), 4).double(), torch.randn(2, 2, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        assert 1e-5 < relative(layer(x), conv2d(x, layer.weight, layer.bias, padding=1)) < 1e-2  # at its start
        layer.dense_writes.mul_(1e3)
        free = layer(x) - conv2d(x, layer.weight, layer.bias, padding=1)
        units = torch.eye(60, dtype=torch.float64).view(60, 2, 6, 5)  # the dense layer, column by column
        matrix = (layer(units) - conv2d(units, layer.weight, layer.bias, padding=1)).flatten(1).T
    assert torch.linalg.matrix_rank(matrix) == 4
    torch.testing.assert_close(free.flatten(1), x.flatten(1) @ matrix.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("symmetry", ["None", "Rot", "Scale"])
def test_lift_adds_channels_that_are_constant_over_the_grid(symmetry):
    net, seen, x = make(symmetry, "Lift"), [], torch.randn(2, 3, 2, 12, 10, dtype=torch.float64)
    for layer in (net.layers[0], net.layers[2]):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(x)
        lifted, third = seen
        said, y = net.perceptron(lifted), net.layers[:2](lifted)
    added = third[:, y.shape[1] :].flatten(1, -3)
    torch.testing.assert_close(added, said[:, :, None, None].expand_as(added))
    torch.testing.assert_close(third[:, : y.shape[1]], y)


@pytest.mark.parametrize("symmetry", ["None", "Rot"])
def test_lift_has_the_symmetry_while_its_perceptron_is_silent(symmetry):
    side = (24, 22) if symmetry == "None" else (12, 12)
    net = make(symmetry, "Lift", tile=side).eval()  # the statistics of a batch norm see the border
    error = shift_error if symmetry == "None" else lambda f: turn_error(f, ("vector",))
    assert error(net) > 1e-3
    for weight in net.perceptron[-1].parameters():
        nn.init.zeros_(weight)
    assert error(net) < EXACT


def test_lift_is_the_strict_scale_net_while_its_perceptron_is_silent():
    net = make("Scale", "Lift")
    strict = build_model("ConvNet", "Scale", 3, SIDE, 1 / 16).double()
    weights = net.state_dict()
    strict.load_state_dict(
        {name: weights[name][(*map(slice, tensor.shape),)] for name, tensor in strict.state_dict().items()}
    )
    x = torch.randn(2, 3, 2, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        assert relative(net(x), strict(x)) > 1e-3
        for weight in net.perceptron[-1].parameters():
            nn.init.zeros_(weight)
        assert relative(net(x), strict(x)) < EXACT


# ---------------------------------------------------------------- nets


@pytest.mark.parametrize("fields", FIELDS, ids="+".join)
@pytest.mark.parametrize(("symmetry", "name"), ALL)
def test_nets_read_all_fields_and_learn_everywhere(symmetry, name, fields):
    net = make(symmetry, name, fields)
    x = torch.randn(2, 3, components(fields), 12, 10, dtype=torch.float64)
    forecast = roll_out(net, x, 2)
    assert forecast.shape == (2, 2, *x.shape[2:])
    forecast.square().sum().backward()
    assert [key for key, weight in net.named_parameters() if not weight.grad.abs().max() > 0] == []
    assert net(x[:0]).shape == (0, *x.shape[2:])


@pytest.mark.parametrize(("symmetry", "name"), ALL)
def test_the_output_is_the_next_frame(symmetry, name):
    """A silent net forecasts 0, not the last frame, and no frame of reference makes it homogeneous; but that on our
    scale layers, which forecast a change."""
    net, x = make(symmetry, name), torch.randn(2, 3, 2, 12, 10, dtype=torch.float64)
    if name == "RScale":
        fill(net, bias=torch.randn_like)
        with torch.no_grad():
            assert relative(net(2 * x), 2 * net(x)) > 0.01
    fill(net.output, weight=torch.zeros_like, bias=torch.zeros_like, dense_writes=torch.zeros_like)
    if (symmetry, name) == ("Scale", "Lift"):
        torch.testing.assert_close(net(x), x[:, -1], rtol=0, atol=1e-12)
    else:
        assert net(x).abs().max() == 0


@pytest.mark.parametrize(
    ("symmetry", "name", "width", "options", "published"),
    [
        ("None", "RConv", 1, {"tile": (64, 64)}, 977_412),
        ("None", "RConv", 1, {"tile": (62, 23), "banks": 3}, 1_426_068),
        ("Rot", "RSteer", 1, {}, 5_596_178 - 4 * 2 * 92),  # less batch norms that are never used
        ("Rot", "RSteer", 16 / 92, {}, 185_282 - 4 * 2 * 16),
        ("Scale", "RScale", 1, {}, 16_777_858),
        ("Scale", "RScale", 0.5, {}, 4_625_730),
        ("None", "norm", 1, {}, 469_250),
        ("Rot", "norm", 1, {"rotation_order": 4}, 304_128 - 4 * 64),  # less biases that batch norms undo
    ],
)
def test_as_many_parameters_as_the_published_nets(symmetry, name, width, options, published):
    layers = replace(variant_of(symmetry, name), **options)
    with torch.device("meta"):
        net = build_model("ConvNet", layers, 10, SIDE if symmetry == "Scale" else 3, width)
    assert sum(weight.numel() for weight in net.parameters()) == published


def test_weights_of_a_grid_refuse_another():
    net = make("None", "RConv")
    with pytest.raises(ValueError, match="those of a grid of 12 x 10, got 10 x 12"):
        net(torch.zeros(1, 3, 2, 10, 12).double())
    with pytest.raises(ValueError, match="RConv has weights of a grid: say its tile"):
        build_model("ConvNet", PUBLISHED["None"]["RConv"], 3)
    with pytest.raises(ValueError, match="a grid that is not square"):
        build_model("ConvNet", PUBLISHED["None"]["RConv"], 3, frame=["Rot"], tile=(12, 10))


# ---------------------------------------------------------------- the penalty


@pytest.mark.parametrize(
    ("symmetry", "name", "width", "alpha"),
    [
        ("None", "RConv", 1, 1e-5),
        ("Rot", "RSteer", 1, 1e-5),
        ("Rot", "RSteer", 16 / 92, 1e-4),
        ("Scale", "RScale", 0.5, 1e-6),
    ],
)
def test_the_published_penalty_is_inert(symmetry, name, width, alpha):
    """Squared, with the weights of run.sh: nothing beside the 4e-4 |w| by which weight decay pulls."""
    net = make(symmetry, name, width=width, tile=(62, 23), input_length=10, dtype=torch.float32)
    if name == "RConv":
        fill(net, combination=lambda w: w + 0.1 * torch.randn_like(w))  # equal at the start
    penalty(net, alpha).square().backward()
    pulled = [weight for weight in net.parameters() if weight.grad is not None]
    assert len(pulled) == len(penalised(net)) == 5
    assert 0 < max(weight.grad.abs().max().item() for weight in pulled) < 1e-9
    assert min(4e-4 * weight.abs().mean().item() for weight in pulled) > 1e-7


@pytest.mark.parametrize(("symmetry", "name"), [("None", "RConv"), ("Rot", "RSteer"), ("Scale", "RScale")])
def test_the_penalty_is_zero_where_weights_are_equal(symmetry, name):
    """And else the mean difference of neighbours, in NumPy."""
    net, neighbours = make(symmetry, name), []
    fill(net, combination=torch.randn_like)
    for layer in penalised(net):
        w = (layer.combination if name == "RConv" else layer.parametrizations.weight.original).detach().numpy()
        if name == "RConv":
            neighbours += [abs(w[:, :, 1:] - w[:, :, :-1]).mean() + abs(w[..., 1:] - w[..., :-1]).mean()]
        if name == "RSteer":
            raster = w.reshape(*w.shape[:3], 9)
            neighbours += [abs(raster[..., 1:] - raster[..., :-1]).mean()]
        if name == "RScale":
            neighbours += [abs(np.roll(w, (1, 1), (-2, -1)) - w).mean()]
    assert len(neighbours) == 5
    assert penalty(net, 0.5).item() == pytest.approx(0.5 * sum(neighbours), rel=1e-12)
    fill(net, combination=torch.ones_like, weight=lambda w: w[..., :1, :1].expand_as(w))
    assert penalty(net, 1.0).item() == 0
    assert penalty(net, 0.0) == penalty(make("Rot", "RGroup"), 1.0) == 0


def test_training_with_a_penalty_makes_weights_equal(data_dir, meta, tmp_path):
    windows, left = Windows(data_dir / "rbc", meta, "train"), []
    for alpha in (0.0, 100.0):
        net = make("None", "RConv", tile=(16, 16), input_length=4, dtype=torch.float32)
        fill(net, combination=lambda w: w + 0.03 * torch.randn_like(w))
        (tmp_path / f"{alpha}").mkdir()
        train(net, windows, lambda: 1.0, Training(4, 2, 8, 1, 0.003, 1.0, penalty=alpha), tmp_path / f"{alpha}")
        left.append(penalty(net, 1.0).item())
    assert left[1] < 0.7 * left[0]


# ---------------------------------------------------------------- as a program

FLAGS = {
    "RGroup": ["--rotation_order=4", "--width=0.05"],
    "RSteer": ["--rotation_order=4"],
    "RScale": ["--num_scales=1", "--scale_interaction=1", "--kernel_size=5"],
}


def run(data_dir, results, symmetry, name, *flags):
    settings = "--dataset=RBC --architecture=ConvNet --width=0.03 --input_length=4 --output_length=2 --batch_size=64"
    flags = [*settings.split(), "--num_epoch=1", f"--symmetry={symmetry}", f"--variant={name}", *flags]
    return exit_code(lambda: run_model.main([*flags, f"--data_dir={data_dir}", f"--results={results}"]))


@pytest.mark.slow
@pytest.mark.parametrize(("symmetry", "name"), ALL)
def test_runs(data_dir, tmp_path, symmetry, name, capsys):
    assert run(data_dir, tmp_path, symmetry, name, *FLAGS.get(name, ())) == 0
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    bound = "tile" in variant_of(symmetry, name).options()
    assert ("Scale" in metrics["scores"]) != bound
    assert ("not tested on Scale" in capsys.readouterr().out) == bound
    assert metrics["equivariance_error"].keys() == metrics["scores"].keys() - {"test"}


def test_a_run_on_a_grid_of_its_own(data_dir, tmp_path, capsys):
    """Trained, scored again, reported; refused where frames have another size."""
    assert run(data_dir, tmp_path / "runs", "None", "RConv", "--penalty=0.1") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_RConv_penalty0.1")
    metrics = json.loads((folder / "metrics.json").read_text())
    evaluate = [f"--evaluate={folder}", f"--output={tmp_path / 'again.json'}"]
    run_model.main([*evaluate, f"--data_dir={data_dir}"])
    assert json.loads((tmp_path / "again.json").read_text())["scores"] == metrics["scores"]
    report([str(tmp_path / "runs")])
    assert "ConvNet width 0.03 variant RConv penalty 0.1" in capsys.readouterr().out

    np.save(tmp_path / "flow.npy", np.load(data_dir / "waves.npy")[:, :, :12, :12])
    other = "rbc --stride 1 --tile 12 --history 6 --horizon 10".split()
    data_prep.main([*other, f"--raw={tmp_path / 'flow.npy'}", f"--data_dir={tmp_path}"])
    (tmp_path / "again.json").unlink()
    predict = [f"--predict={folder}", f"--frames={tmp_path / 'flow.npy'}", f"--output={tmp_path / 'y.npy'}"]
    capsys.readouterr()
    for flags, message in (
        ([*evaluate, f"--data_dir={tmp_path}"], "reads frames of [16, 16] points alone"),
        (predict, "this net reads frames of [16, 16] alone"),
    ):
        assert exit_code(lambda flags=flags: run_model.main(flags)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "again.json").exists()
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(
    ("symmetry", "name", "flags", "message"),
    [
        ("None", "RConv", ["--architecture=Unet"], "RConv makes a ConvNet, no UNet"),
        ("None", "RConv", ["--relaxed=1"], "RConv is relaxed by itself"),
        ("None", "RConv", ["--penalty=-1"], "--penalty must be a number from 0 on"),
        ("None", "Lift", ["--penalty=1"], "--penalty goes with the variants RConv, RSteer and RScale"),
        ("Rot", "RGroup", [], "RGroup turns kernels by quarters: rotation_order 4"),
        ("Scale", "RScale", [], "four at most: num_scales 1 to 4, scale_interaction 1"),
        ("Scale", "RScale", FLAGS["RScale"][:2], "RScale has kernels of 5 x 5 taps: kernel_size 5, got 3"),
    ],
)
def test_what_cannot_be_built(data_dir, tmp_path, capsys, symmetry, name, flags, message):
    assert run(data_dir, tmp_path, symmetry, name, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []
