"""The promise of the models: f(g x) = g f(x), to rounding, for whole nets; the plain nets break it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad
from torch.nn.utils import parametrize

from models import SKELETONS, SYMMETRIES, build_model
from models.backbone import convolve_repeated, pool_repeated, repeat_pixels
from models.fields import Features
from models.magnitude import EPSILON, MagnitudeConv2d, extremes_of_channels
from models.uniform_motion import UniformMotionConv2d

# Group elements, near and far, for batches of two, under which whole nets are exact; of scale see tests/test_scale.py.
ELEMENTS = {
    "UM": ([[1.0, -1.0], [0.5, 2.0]], [[100.0, -100.0], [1e-3, 0.0]]),
    "Mag": ([0.5, 1.8], [1e-3, 1e3]),
    "Rot": ([90.0, 270.0], [180.0, 360.0]),
}
EXACT = list(ELEMENTS)
LAYERWISE = ["UM", "Mag"]  # patch by patch as the paper writes it
BOTH = Features("hidden", 3), Features("hidden", 4)


def make(architecture, symmetry, input_length=5, kernel_size=3, width=0.125, dtype=torch.float64, seed=0, **options):
    """A small net whose biases and running statistics are large and random: no symmetry holds by their accident."""
    torch.manual_seed(seed)
    model = build_model(architecture, symmetry, input_length, kernel_size, width, **options).to(dtype)
    for name, tensor in model.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            nn.init.normal_(tensor)
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
    return model.eval()


def error(model, symmetry, g, x):
    """max |f(g x) - g f(x)| / max |g f(x)|, element by element; 0 where both are 0, as of a net without live layers."""
    g = torch.tensor(g, dtype=x.dtype)
    with torch.no_grad():
        expected = symmetry.act(g, model(x)[:, None])[:, 0]
        difference = (model(symmetry.act(g, x)) - expected).flatten(1).abs().amax(1)
        return torch.where(difference == 0, 0, difference / expected.flatten(1).abs().amax(1)).max().item()


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize("symmetry", EXACT)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([(16, 16), (32, 48), (64, 16)]),
    input_length=st.sampled_from([1, 2, 5]),
    kernel_size=st.sampled_from([3, 5]),
    far=st.booleans(),
    training=st.booleans(),
)
def test_nets_are_equivariant(architecture, symmetry, seed, size, input_length, kernel_size, far, training):
    model = make(architecture, symmetry, input_length, kernel_size, seed=seed, width=0.0625).train(training)
    x = torch.randn(2, input_length, 2, *size, dtype=torch.float64)
    assert error(model, SYMMETRIES[symmetry], ELEMENTS[symmetry][far], x) < 1e-10


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize(("symmetry", "far"), [("Mag", True), ("Rot", False)])
def test_single_precision(architecture, symmetry, far):
    model, x = make(architecture, symmetry, dtype=torch.float32), torch.randn(2, 5, 2, 32, 32)
    assert error(model, SYMMETRIES[symmetry], ELEMENTS[symmetry][far], x) < 1e-4


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 0.02)])
def test_low_precision(architecture, bfloat16, tolerance):
    """A fast frame of reference takes no digits: its mean never enters the net (else 2e-5, and .2 in bfloat16)."""
    x = (torch.randn(2, 10, 2, 16, 32) * 2**10).round() / 2**10
    far = torch.tensor([[128.0, -128.0], [-64.0, 32.0]])  # added without rounding
    model = make(architecture, "UM", 10, width=0.125, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        forecast = model(x)
        moved = model(SYMMETRIES["UM"].act(far, x)) - far[:, :, None, None]
    assert (moved - forecast).abs().max() < tolerance * forecast.abs().max()


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_land_and_flow_at_rest(architecture, symmetry):
    """Patches without any variation give numbers, and gradients that are numbers; the symmetry stays exact."""
    x = torch.randn(3, 5, 2, 32, 32, dtype=torch.float64)
    x[0, :, :, :12] = 0  # land
    x[1, :, 0] = 0.7  # u does not vary anywhere, v does
    x[2] = 0  # nothing moves at all
    x.requires_grad_()
    model = make(architecture, symmetry)
    forecast = model(x)
    forecast.square().sum().backward()
    assert forecast.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    if symmetry in EXACT:
        for pair in (x[:2], x[1:] + 0.1):  # of nothing at all there is no relative error
            assert error(model, SYMMETRIES[symmetry], ELEMENTS[symmetry][0], pair.detach()) < 1e-10


@pytest.mark.parametrize("strength", [1e-8, 1e-20, 1e-30, 1e-38, 1e-44])
def test_a_component_that_is_nearly_still(strength):
    """Its range divides in the magnitude layers: no overflow, in single precision, neither forward nor backward."""
    torch.manual_seed(0)
    layer = MagnitudeConv2d(3, 4, 3)
    x = torch.randn(1, 3, 2, 8, 8)
    x[:, :, 1] *= strength
    x.requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    offset = torch.tensor([0.0, 1.0])[:, None, None]  # nor does an offset blow up, however little varies about it
    largest = torch.stack(layer.conv.weight).abs().sum((2, 3, 4)).max() * (x + offset).abs().max()
    assert layer(x + offset).abs().max() < largest * 2 / EPSILON


# Where v varies this share of u, the layer's u may differ from the release's by so much.
@pytest.mark.parametrize(("share", "difference"), [(1, 1e-5), (1e-2, 2e-3), (1e-3, 0.02), (1e-4, 0.2)])
def test_magnitude_follows_the_release(share, difference):
    torch.manual_seed(0)
    layer = MagnitudeConv2d(6, 8, 3).double()
    x = torch.randn(2, 6, 2, 8, 9, dtype=torch.float64) * torch.tensor([1, share])[:, None, None]
    u, released = (y[:, :, 0] for y in (layer(x), papers_layer("Mag", layer.conv, x, release=True)))
    assert (u - released).norm() < difference * released.norm()


@pytest.mark.parametrize("noise", [0, 1e-12])
def test_magnitude_of_a_uniform_flow(noise):
    """Nothing varies but rounding: both components count alike, whatever the rounding."""
    torch.manual_seed(0)
    layer = MagnitudeConv2d(3, 4, 3).double()
    flow = torch.tensor([1.0, 2.0]).double()[:, None, None].expand(1, 3, 2, 5, 7)
    weight = next(layer.conv.parametrizations.weight.parameters())
    expected = torch.einsum("oicyx,c->o", weight.unflatten(1, (3, 2)), flow[0, 0, :, 0, 0]).relu()
    y = layer(flow + noise * torch.randn_like(flow)).flatten(1, 2)
    assert (y - expected[:, None, None]).abs().max() < 1e-4


def test_magnitude_of_a_still_flow_is_still():
    model = make("ResNet", "Mag")
    assert torch.equal(model(torch.zeros(1, 5, 2, 16, 16).double()), torch.zeros(1, 2, 16, 16).double())


def test_a_field_that_is_still_stays_so_in_a_frame():
    """Beside one that flows; a net that gave it a strength of its own would not multiply it with its field."""
    fields = ("vector", "scalar")
    model = build_model("ConvNet", "None", 3, 3, 0.05, fields, ["Mag"]).double().eval()
    x = torch.randn(1, 3, 3, 8, 8, dtype=torch.float64)
    x[:, :, 2] = 0
    forecast, factors = model(x), torch.tensor([2.0, 3.0]).double()[[0, 0, 1], None, None]
    torch.testing.assert_close(model(factors * x), factors * forecast, rtol=1e-12, atol=0)
    assert not forecast[:, 2].any()


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_every_parameter_learns(architecture, symmetry):
    model = make(architecture, symmetry, width=0.25).train()
    model(torch.randn(2, 5, 2, 16, 32, dtype=torch.float64)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    if architecture == "Unet":  # in the ResNet batch norm takes the biases before it away
        assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0] == []


@pytest.mark.parametrize("symmetry", LAYERWISE)
def test_derivatives(symmetry):
    """Automatic differentiation through a layer agrees with finite differences, float64."""
    torch.manual_seed(0)
    layer = {"UM": UniformMotionConv2d, "Mag": MagnitudeConv2d}[symmetry](2, 2, 3, stride=2).double()
    x = torch.randn(1, 2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


# Millions of parameters at full width, and the release's: it has one convolution less in the Mag U-Net, 2.8 M that are
# never used in the rotation ResNet, other upsampling in the rotation, other upsampling and lifting in the scale nets.
@pytest.mark.parametrize(
    ("architecture", "symmetry", "ours", "released"),
    [("ResNet", symmetry, 12.57, 12.57) for symmetry in ("None", "UM", "Mag")]
    + [("Unet", "None", 6.24, 6.24), ("Unet", "UM", 6.24, 6.24), ("Unet", "Mag", 6.28, 6.24)]
    + [("ResNet", "Rot", 11.81, 14.61 - 2.8), ("Unet", "Rot", 7.37, 7.12)]
    + [("ResNet", "Scale", 4.08, 4.14), ("Unet", "Scale", 4.15, 4.70)],
)
def test_full_width(architecture, symmetry, ours, released):
    with torch.device("meta"):
        model = build_model(architecture, symmetry, 24)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(ours, abs=0.01)
    assert millions == pytest.approx(released, rel=0.12)


def test_the_layers_of_a_convnet_have_no_norms():
    """Whatever the symmetry, so that nets differ by it alone; the second paper's have (test_approximate)."""
    for symmetry in SYMMETRIES:
        norms = [layer for layer in build_model("ConvNet", symmetry, 4).modules() if "Norm" in type(layer).__name__]
        assert not norms
    assert any("Norm" in type(layer).__name__ for layer in build_model("ResNet", "Rot", 4, width=0.1).modules())


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_repeated_pixels(height, width, seed):
    """A 4 x 4 convolution of repeated pixels = a transposed one of the pixels, and sums of 2 x 2."""
    torch.manual_seed(seed)
    kernel, bias = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    repeated = pad(interpolate(x, scale_factor=2, mode="nearest"), (1, 2, 1, 2), mode="replicate")
    slow = nn.functional.conv2d(repeated, kernel, bias)
    torch.testing.assert_close(convolve_repeated(x, kernel, bias), slow)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 2**32))
@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
@pytest.mark.parametrize("periodic", [(), ("x",), ("x", "y")])
def test_pooled_repeated_pixels(pool, periodic, height, width, seed):
    torch.manual_seed(seed)
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    torch.testing.assert_close(pool_repeated(pool, x, periodic), pool(repeat_pixels(x, periodic), 4, stride=1))


@settings(deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=24, max_size=24))
def test_the_gradient_of_extremes(values):
    """That of amax and amin, which equal values share: the layers' own is written out."""
    x = torch.tensor(values, dtype=torch.float64).reshape(1, 6, 2, 1, 2)
    own, torchs = x.clone().requires_grad_(), x.clone().requires_grad_()
    extremes = torch.cat([torchs.amax(1), -torchs.amin(1)], 1)
    weights = torch.arange(1.0, 9).reshape(extremes.shape)
    (extremes_of_channels(own) * weights).sum().backward()
    (extremes * weights).sum().backward()
    assert extremes_of_channels(x).equal(extremes)
    torch.testing.assert_close(own.grad, torchs.grad)


def papers_layer(symmetry, conv, x, pads=None, activation=True, restore=True, release=False):
    """A layer as the paper writes it, patch by patch: ``(n, in, 2, H, W)`` -> ``(n, out, 2, H', W')``.

    Of every patch UM takes out the mean and Mag the range, per component over frames and taps; then the patch is
    convolved, goes through ReLU and gets back what was taken out. The release adds 1e-6 to the range.
    """
    weight = next(conv.parametrizations.weight.parameters())
    side = weight.shape[-1]
    padded = pad(x.flatten(1, 2), pads or (side // 2,) * 4, mode="replicate")
    rows, columns = ((n - side) // conv.stride[0] + 1 for n in padded.shape[-2:])
    patches = nn.functional.unfold(padded, side, stride=conv.stride)
    patches = patches.unflatten(1, (x.shape[1], 2, side**2))  # (n, in, 2, taps, patches)
    if symmetry == "UM":
        mean = patches.mean((1, 3), keepdim=True)
        read = patches - mean
    else:
        guard = 1e-6 if release else EPSILON * patches.abs().amax((1, 2, 3), keepdim=True)
        span = patches.amax((1, 3), keepdim=True) - patches.amin((1, 3), keepdim=True) + guard
        read = patches / span
    y = torch.einsum("oi,nip->nop", weight.flatten(1), read.flatten(1, 3)) + conv.bias[:, None]
    y = (y.relu() if activation else y).unflatten(1, (-1, 2))
    if symmetry == "Mag":
        y = y * span[:, :, :, 0]
    elif restore:
        y = y + mean[:, :, :, 0]
    return y.unflatten(-1, (rows, columns))


@pytest.mark.parametrize("symmetry", LAYERWISE)
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_convolutions_are_the_papers(symmetry, kernel_size, stride):
    torch.manual_seed(0)
    layer = SYMMETRIES[symmetry].convolution(*BOTH, kernel_size, stride).double()
    x = torch.randn(2, 3, 2, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), papers_layer(symmetry, layer.conv, x))


@pytest.mark.parametrize("symmetry", LAYERWISE)
@pytest.mark.parametrize("channels", [3, 4])
def test_residual_blocks_are_the_papers(symmetry, channels):
    """The second layer of uniform motion does not add the mean: it is there once, in the skip."""
    torch.manual_seed(0)
    block = SYMMETRIES[symmetry].residual_block(Features("hidden", 3), Features("hidden", channels), 3).double()
    x = torch.randn(2, 3, 2, 5, 7, dtype=torch.float64)
    skip = x
    if channels != 3:
        skip = papers_layer(symmetry, block.skip.conv, x, activation=symmetry == "UM")
    second = papers_layer(symmetry, block.second.conv, papers_layer(symmetry, block.first.conv, x), restore=False)
    torch.testing.assert_close(block(x), second + skip)


@pytest.mark.parametrize("symmetry", LAYERWISE)
def test_upsampling_reads_repeated_pixels(symmetry):
    torch.manual_seed(0)
    layer = SYMMETRIES[symmetry].upsampling(*BOTH).double()
    x = torch.randn(2, 3, 2, 5, 7, dtype=torch.float64)
    repeated = x.repeat_interleave(2, -2).repeat_interleave(2, -1)
    torch.testing.assert_close(layer(x), papers_layer(symmetry, layer.conv, repeated, pads=(1, 2, 1, 2)))


@pytest.mark.parametrize("symmetry", LAYERWISE)
def test_output_is_the_papers(symmetry):
    """One vector, without ReLU."""
    torch.manual_seed(0)
    layer = SYMMETRIES[symmetry].output(BOTH[0], 3).double()
    x = torch.randn(2, 3, 2, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), papers_layer(symmetry, layer[0].conv, x, activation=False)[:, 0])


def test_plain_convolutions_commute_with_shifts_in_the_interior():
    model, symmetry = make("ResNet", "None"), SYMMETRIES["None"]
    x = torch.randn(2, 5, 2, 64, 72, dtype=torch.float64)
    g = torch.tensor([[3, -2], [-5, 4]])
    margin = 17 + 5  # one cell per convolution of the deepest path, and the shift
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    with torch.no_grad():
        expected = symmetry.act(g, model(x)[:, None])[:, 0]
        torch.testing.assert_close(model(symmetry.act(g, x))[inside], expected[inside])


def test_translation_moves_the_flow_by_c():
    w = torch.zeros(1, 1, 2, 5, 7)
    w[..., 1, 2] = 1
    moved = SYMMETRIES["None"].act(torch.tensor([[3, 2]]), w)  # 3 to the east, 2 to the north
    assert moved[0, 0, 0].nonzero().tolist() == [[3, 5]]


@pytest.mark.parametrize("symmetry", ["None", "UM", "Mag"])
def test_actions_are_seeded_and_pure(symmetry):
    action = SYMMETRIES[symmetry]
    g = action.sample(4, torch.Generator().manual_seed(1))
    assert torch.equal(g, action.sample(4, torch.Generator().manual_seed(1)))
    assert not torch.equal(g, action.sample(4, torch.Generator().manual_seed(2)))
    x = torch.randn(4, 3, 2, 5, 7)
    before = x.clone()
    assert action.act(g, x).shape == x.shape
    assert torch.equal(x, before)


def test_paper_distributions():
    generator = torch.Generator().manual_seed(0)
    velocity = SYMMETRIES["UM"].sample(20000, generator)
    assert velocity.shape == (20000, 2)
    assert -2 <= velocity.min() < -1.99
    assert 1.99 < velocity.max() <= 2
    assert velocity.mean(0).abs().max() < 0.05
    factor = SYMMETRIES["Mag"].sample(20000, generator)
    assert 0 <= factor.min() < 0.01
    assert 1.99 < factor.max() <= 2


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("training", [True, False])
def test_state_dict_round_trip(symmetry, training):
    one, other = make("Unet", symmetry, seed=0).train(training), make("Unet", symmetry, seed=1)
    x = torch.randn(1, 5, 2, 16, 32, dtype=torch.float64)
    state = one.state_dict()
    learnt = {name for name, _ in one.named_parameters()}
    assert all(name in learnt or "running" in name or "batches" in name for name in state)  # nothing derived
    assert not torch.equal(one.eval()(x), other(x))
    other.load_state_dict(state)
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("symmetry", [*EXACT, "Scale"])
def test_kernels_are_derived_once_per_roll_out(symmetry):
    model = make("ResNet", symmetry)
    derived = []
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            module[0].register_forward_hook(lambda *_: derived.append(1))
    x = torch.randn(1, 5, 2, 16, 16, dtype=torch.float64)
    with parametrize.cached():
        model(x), model(x), model(x)
    once = len(derived)
    model(x)
    assert len(derived) == 2 * once  # outside they are fresh, or a second backward pass would find a freed graph


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "VGG"}, "unknown architecture 'VGG'; choose from ResNet, Unet, ConvNet, FNO"),
        ({"symmetry": "Color"}, "unknown symmetry 'Color'"),
        ({"kernel_size": 4}, "kernel_size must be odd and positive, got 4"),
        ({"input_length": 0}, "input_length must be at least 1, got 0"),
        ({"width": 0}, "width must be positive, got 0"),
        ({"symmetry": "UM", "order": 8}, "symmetry UM has no option order"),
        ({"symmetry": "UM", "relaxed": "gains", "frame": ["um"]}, "a frame for UM would keep the symmetry"),
    ],
)
def test_build_model_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)


def test_names_in_any_case():
    assert isinstance(build_model("unet", "um", 2, width=0.1), SKELETONS["Unet"])


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_sizes_that_cannot_be_halved(symmetry):
    model = make("Unet", symmetry)
    with pytest.raises(ValueError, match="multiples of 16, got 40 x 64"):
        model(torch.zeros(1, 5, 2, 40, 64, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expected frames \(n, 5, 2, H, W\), got \(1, 4, 2, 16, 16\)"):
        model(torch.zeros(1, 4, 2, 16, 16, dtype=torch.float64))
