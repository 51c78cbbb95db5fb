"""Layer by layer, ours and the released code's are the same functions (golden values, float64)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import SYMMETRIES
from models.fields import Features
from models.magnitude import MagnitudeConv2d
from models.uniform_motion import UniformMotionConv2d, UniformMotionUpsampling

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden values of the release not at hand")

IN, OUT = 6, 4  # vectors: 12 and 8 channels


def load(name):
    """Input, output (as vectors) and the weights of one golden layer; the release's kernels act transposed."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    weights = {key.removeprefix("weight."): value for key, value in arrays.items() if key.startswith("weight.")}
    weights = {key: value.transpose(-1, -2) if value.dim() == 4 else value for key, value in weights.items()}
    return arrays["input"].unflatten(1, (-1, 2)), arrays["output"].unflatten(1, (-1, 2)), weights


def fill(layer, weights, prefix):
    """Copy golden weights into one of our layers."""
    layer.double()
    with torch.no_grad():
        layer.conv.parametrizations.weight.original.copy_(weights[f"{prefix}.weight"])
        layer.conv.bias.copy_(weights[f"{prefix}.bias"])


def difference(ours, golden):
    return ((ours - golden).abs().max() / golden.abs().max()).item()


CASES = [(kernel_size, stride, True) for kernel_size in (3, 5) for stride in (1, 2)] + [(3, 1, False)]


@pytest.mark.parametrize(("kernel_size", "stride", "activation"), CASES)
@pytest.mark.parametrize(
    ("symmetry", "layer", "tolerance"),
    # The release adds 1e-6 to every range, we add EPSILON = 3e-5 of the largest value.
    [("um", UniformMotionConv2d, 1e-10), ("mag", MagnitudeConv2d, 3e-5)],
)
def test_convolution(symmetry, layer, tolerance, kernel_size, stride, activation):
    name = f"{symmetry}_conv_k{kernel_size}_s{stride}" if activation else f"{symmetry}_conv_k{kernel_size}_linear"
    x, golden, weights = load(name)
    conv = layer(IN, OUT, kernel_size, stride=stride, activation=activation)
    fill(conv, weights, "conv2d")
    assert difference(conv(x), golden) < tolerance


@pytest.mark.parametrize(("name", "out"), [("identity", IN), ("project", 8)])
@pytest.mark.parametrize(("symmetry", "tolerance"), [("UM", 1e-10), ("Mag", 1e-4)])  # two guarded layers
def test_residual_block(symmetry, tolerance, name, out):
    x, golden, weights = load(f"{symmetry.lower()}_resblock_{name}")
    block = SYMMETRIES[symmetry].residual_block(Features("hidden", IN), Features("hidden", out), 3)
    fill(block.first, weights, "layer1.conv2d")
    fill(block.second, weights, "layer2.conv2d")
    if out != IN:
        fill(block.skip, weights, "upscale.conv2d")
    assert difference(block(x), golden) < tolerance


def test_uniform_motion_upsampling():
    x, golden, weights = load("um_up")
    up = UniformMotionUpsampling(IN, OUT)
    fill(up, weights, "conv2d.conv2d")
    assert difference(up(x), golden) < 1e-10
