"""The benchmark compares like with like: the naive nets are the same functions as ours. No timing here."""

import pytest
import torch
from torch.nn.utils import parametrize

from evaluation import speed
from models import build_model
from models.scale import ScaleConv2d
from utils import exit_code


@pytest.mark.parametrize("architecture", ["ResNet", "Unet"])
@pytest.mark.parametrize(("symmetry", "tolerance"), [("UM", 1e-12), ("Mag", 1e-5)])
def test_naive_nets_are_the_same_functions(architecture, symmetry, tolerance):
    torch.manual_seed(0)
    frames = torch.randn(2, 6, 2, 16, 32, dtype=torch.float64)
    model = build_model(architecture, symmetry, 6, width=0.25).double()
    gradients = []
    for net in (model, speed.naive(model)):
        net.zero_grad()
        forecast = net(frames)
        forecast.square().sum().backward()
        gradients.append([forecast.detach(), *(parameter.grad.clone() for parameter in net.parameters())])
    # the ratio of ranges in our magnitude layers is regularised
    for ours, naive in zip(*gradients, strict=True):
        assert (ours - naive).abs().max() < 100 * tolerance * naive.abs().max()
    assert (gradients[0][0] - gradients[1][0]).abs().max() < tolerance * gradients[1][0].abs().max()


@pytest.mark.parametrize("architecture", ["ResNet", "Unet"])
@pytest.mark.parametrize("symmetry", ["Rot", "Scale"])
def test_expanded_nets_are_the_same_functions(architecture, symmetry):
    torch.manual_seed(0)
    frames = torch.randn(1, 10, 2, 16, 32, dtype=torch.float64, requires_grad=True)
    model = build_model(architecture, symmetry, 10, width=0.125).double().eval()
    results = []
    for net in (model, speed.expanded(model)):
        forecast = net(frames)
        results.append((forecast.detach(), *torch.autograd.grad(forecast.square().sum(), frames)))
    assert not any(isinstance(m, ScaleConv2d) or parametrize.is_parametrized(m) for m in model.modules())
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


def test_the_command(capsys):
    arguments = "--architecture unet --symmetry um --batch 1 --width 0.0625 --repeats 1 --device cpu".split()
    assert exit_code(lambda: speed.main(arguments)) == 0
    out = capsys.readouterr().out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("naive")] == [["naive", "Unet", "UM"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--symmetry Color", "unknown symmetry"),
        ("--batch 0", "must be positive"),
        ("--device mars", "--device must be"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert exit_code(lambda: speed.main(arguments.split())) == 2
    assert message in capsys.readouterr().err
