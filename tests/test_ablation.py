"""Variants change one part and nothing else."""

import pytest
import torch
from prepared import vortices
from torch import nn
from torch.nn.functional import interpolate, pad

from evaluation.ablation import VARIANTS, Replicated, Shift, variant_of
from evaluation.flags import WEIGHT_DECAY
from models import SKELETONS, SYMMETRIES, build_model
from models.fields import Features
from models.magnitude import MagnitudeConv2d
from models.uniform_motion import UniformMotionConv2d
from utils import roll_out

ALL = [(symmetry, name) for symmetry, names in VARIANTS.items() for name in names]


def make(symmetry, name, architecture="Unet", fields=("vector",)):
    torch.manual_seed(0)
    return build_model(architecture, variant_of(symmetry, name), 4, width=0.125, fields=fields).double().eval()


def shapes(net):
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize(
    ("symmetry", "name", "architecture"),
    [(*each, net) for each in ALL for net in SKELETONS if (each[1], net) != ("normless", "ConvNet")],
)
def test_variants_are_nets_that_differ(symmetry, name, architecture):
    """They forecast any fields and learn everywhere; what they compute is not what the net itself computes."""
    for fields in (("vector",), ("vector", "scalar")):
        x = torch.randn(2, 4, 2 + len(fields) - 1, 16, 16).double()
        net, own = (make(symmetry, of, architecture, fields).train(name == "normless") for of in (name, ""))
        forecast = net(x)
        forecast.square().sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        assert forecast.shape == own(x).shape
        assert (forecast - own(x)).abs().max() > 1e-6


@pytest.mark.parametrize("symmetry", ["UM", "Mag"])
@pytest.mark.parametrize("architecture", SKELETONS)
def test_free_nets_have_the_weights_of_the_constrained_and_not_their_symmetry(symmetry, architecture):
    net, own = make(symmetry, "free", architecture), make(symmetry, "", architecture)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in own.parameters())
    for name in ("UM", "Mag"):
        g = {"UM": torch.tensor([[1.0, -1.0]]), "Mag": torch.tensor([1.7])}[name].double()
        x, group = torch.randn(1, 4, 2, 16, 16).double(), SYMMETRIES[name]
        with torch.no_grad():
            error = (net(group.act(g, x)) - group.act(g, net(x)[:, None])[:, 0]).abs().max()
        assert error > 1e-3


@pytest.mark.parametrize("architecture", ["ResNet", "Unet"])
def test_a_rotation_net_without_norms(architecture):
    """A shift per field for the two numbers of a norm; exact under quarter turns whatever the shifts."""
    net, own = make("Rot", "normless", architecture), make("Rot", "", architecture)
    norms = [layer for layer in own.modules() if isinstance(layer, nn.BatchNorm3d)]
    shifts = [layer.shift for layer in net.modules() if isinstance(layer, Shift)]
    assert [shift.numel() for shift in shifts] == [norm.num_features for norm in norms]
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in net.modules())
    assert sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in net.parameters()) == sum(
        map(torch.numel, shifts)
    )
    with torch.no_grad():
        for shift in shifts:
            shift.normal_()
        g, x, group = torch.tensor([90.0]), torch.randn(1, 4, 2, 16, 16).double(), SYMMETRIES["Rot"]
        expected = group.act(g, net(x)[:, None])[:, 0]
        assert (net(group.act(g, x)) - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("symmetry", ["UM", "Mag"])
def test_free_layers_are_ordinary_convolutions(symmetry):
    layers = VARIANTS[symmetry]["free"]
    torch.manual_seed(0)
    reads, writes = Features("hidden", 3), Features("hidden", 4)
    layer, x = layers.convolution(reads, writes, 3).double(), torch.randn(2, 3, 2, 6, 7).double()
    weight = next(layer.conv.parametrizations.weight.parameters())
    padded = pad(x.flatten(1, 2), (1, 1, 1, 1), mode="replicate")
    expected = nn.functional.conv2d(padded, weight, layer.conv.bias).relu().unflatten(1, (4, 2))
    if symmetry == "UM":
        expected = expected + nn.functional.avg_pool2d(pad(x.mean(1), (1,) * 4, mode="replicate"), 3, 1)[:, None]
    torch.testing.assert_close(layer(x), expected)
    assert isinstance(layer, UniformMotionConv2d)
    assert not isinstance(layer, MagnitudeConv2d)


def test_upsampling_without_mean():
    torch.manual_seed(0)
    layer = VARIANTS["Mag"]["free"].upsampling(Features("hidden", 3), Features("hidden", 4)).double()
    x = torch.randn(2, 3, 2, 5, 6).double()
    weight = next(layer.conv.parametrizations.weight.parameters())
    repeated = pad(interpolate(x.flatten(1, 2), scale_factor=2, mode="nearest"), (1, 2, 1, 2), mode="replicate")
    expected = nn.functional.conv2d(repeated, weight, layer.conv.bias).relu().unflatten(1, (4, 2))
    torch.testing.assert_close(layer(x), expected)


def test_residual_forecasts_are_last_frame_plus_net():
    x = torch.randn(2, 4, 2, 16, 16).double()
    with torch.no_grad():
        torch.testing.assert_close(make("None", "residual")(x), x[:, -1] + make("None", "")(x))


def test_replicated_nets_keep_a_uniform_flow_uniform():
    """No zero beyond the border, none between the pixels: what no plain net does."""
    x = torch.full((1, 4, 2, 32, 32), 0.7).double()
    with torch.no_grad():
        assert make("None", "replicate")(x).flatten(2).std(2).max() < 1e-12
        assert make("None", "")(x).flatten(2).std(2).max() > 1e-3
    torch.manual_seed(0)
    layer, y = Replicated().upsampling(Features("hidden", 3), Features("hidden", 4)).double(), torch.randn(1, 3, 5, 6)
    repeated = pad(interpolate(y.double(), scale_factor=2, mode="nearest"), (1, 2, 1, 2), mode="replicate")
    torch.testing.assert_close(layer(y.double()), layer.conv(repeated).relu())


def squares(name):
    """Mean squares of what every layer of a plain U-Net of full width makes of noise, whose own is 1."""
    torch.manual_seed(0)
    net, found = build_model("Unet", variant_of("None", name), 8), []
    for layer in net.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda _, __, y: found.append(y.square().mean().item()))
    net.output.register_forward_hook(lambda _, __, y: found.append(y.square().mean().item()))
    with torch.no_grad():
        net(torch.randn(4, 8, 2, 64, 64))
    return found


def test_the_start_of_he_keeps_the_size_of_features():
    """But for what zeros take beyond the border; torch's start leaves a sixth of it at every layer."""
    assert all(0.25 < square < 1.5 for square in squares("he"))
    assert min(squares("")) < 1e-4


def decay_over_loss(symmetry, name):
    """Norms of what decay adds to the gradient of the loss, at the two coarsest levels of a U-Net of full width."""
    torch.manual_seed(0)
    net = build_model("Unet", variant_of(symmetry, name), 8)
    frames = torch.tensor(vortices(64, 64))[None]
    frames = frames / frames.std()
    (roll_out(net, frames[:, :8], 4) - frames[:, 8:]).square().mean((0, 2, 3, 4)).sum().backward()
    weights = [weight for level in net.down[2:] for weight in level.parameters() if weight.dim() > 1]
    return [(WEIGHT_DECAY * weight.norm() / weight.grad.norm()).item() for weight in weights]


def test_decay_outweighs_the_loss_where_the_start_loses_the_features():
    """docs/what-the-layers-are-worth.md: in the first step, at the coarsest levels of the plain U-Net."""
    plain = decay_over_loss("None", "")
    assert min(plain) > 2
    assert max(plain) > 50
    assert max(decay_over_loss("UM", "")) < 10
    assert max(decay_over_loss("None", "he")) < 0.1


def test_unknown_variants():
    with pytest.raises(ValueError, match="symmetry Rot has no variant 'free'; it has normless, norm, RGroup"):
        variant_of("Rot", "free")
    with pytest.raises(ValueError, match="symmetry UM has no variant 'drift'; it has free"):
        variant_of("UM", "drift")
    assert variant_of("UM", "") is SYMMETRIES["UM"]
