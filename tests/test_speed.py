"""The benchmark compares like with like: the naive nets are the same functions as ours. No timing here."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from evaluation import speed
from evaluation.document import rewritten
from models import SKELETONS, SYMMETRIES, build_model
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


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_operations_of_a_convolution(transposed, groups):
    """Two per tap, channel pair within a group, sample and point; as many for each gradient; none for the bias."""
    net = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, (3, 5), groups=groups)
    image = torch.randn(2, 4, 9, 11, requires_grad=True)
    output = net(image)
    points = 9 * 11 if transposed else 7 * 7  # the kernel is laid over every input or every output
    once = 2 * (3 * 5) * (4 * 6 // groups) * 2 * points
    assert speed.operations(net, image) == once
    assert speed.operations(lambda: net(image).sum().backward()) == 3 * once
    assert speed.operations(lambda: net(image.detach()).sum().backward()) == 2 * once
    assert output.shape[2:] == ((11, 15) if transposed else (7, 7))


def test_operations_of_a_matrix_product():
    assert speed.operations(torch.mm, torch.randn(3, 5), torch.randn(5, 7)) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_operations_of_a_step(symmetry):
    """Three forward passes and twice as much backward, less the first layer's input; once more with checkpoints."""
    counts = []
    for checkpoint in (False, True):
        setting = speed.Setting(1, 0.0625, torch.device("cpu"), checkpoint=checkpoint)
        model = setting.build("ResNet", symmetry, "")
        frames = setting.random_frames()
        counts.append([speed.operations(f, model, frames, setting) for f in (speed.forward, speed.training_step)])
    (forward, step), (same, more) = counts
    assert same == forward
    assert 0.8 < step / (3 * 3 * forward) <= 1
    assert 0.8 < (more - step) / (3 * forward) <= 1


UM_NETS = [("None", ""), ("UM", ""), ("UM", "naive"), ("UM", "relaxed")]


@pytest.mark.parametrize(
    ("symmetry", "nets"),
    # every net is built once more in a process of its own, for its memory
    [("none", [("None", ""), ("None", "relaxed")]), pytest.param("um", UM_NETS, marks=pytest.mark.slow)],
)
def test_the_command(capsys, tmp_path, monkeypatch, symmetry, nets):
    monkeypatch.setitem(speed.PEAK, "cpu", (64, 1, 8))  # bfloat16 takes minutes where a CPU has no instructions for it
    arguments = "--architecture unet --batch 1 --width 0.0625 --repeats 1 --device cpu --symmetry".split()
    arguments += [symmetry, "--amp", "--channels_last", "--checkpoint", "--json", str(tmp_path / "numbers.json")]
    assert exit_code(lambda: speed.main(arguments)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    names = [line.split("|")[1].split() for line in lines]
    assert names[0] == ["Unet,", "batch", "1"]
    assert names[2:] == [[*variant.split(), symmetry] for symmetry, variant in nets]
    assert lines[2].count("1.00") == 2  # the plain net beside itself, by time and by operations
    assert len({len(line) for line in lines}) == 1

    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["amp"]
    assert min(numbers["peak_operations_per_second"].values()) > 0
    (table,) = numbers["tables"]
    assert set(table["loader_seconds"]) == {"1000", "1000000"}
    assert min(min(times) for times in table["loader_seconds"].values()) > 0
    assert [(net["symmetry"], net["variant"]) for net in table["nets"]] == nets
    for net in table["nets"]:
        assert set(net["seconds"]) == set(speed.MEASURED)
        assert min(net["seconds"].values()) > 0
        assert 0 < net["operations"]["fwd+bwd"] < net["operations"]["step of 3"]
        assert 1e-5 < net["amp_error"] < 0.05
        assert 0 < sum(net["operators"].values()) <= 1


def test_other_groups_and_relaxed_nets():
    setting = speed.Setting(1, 0.0625, torch.device("cpu"))
    assert setting.build("Unet", "Rot", "").symmetry.rotation_order == 8
    assert setting.build("Unet", "Rot", "C_4").symmetry.rotation_order == 4
    assert setting.build("Unet", "UM", "relaxed").symmetry.relaxed == "gains"


def test_what_takes_long_is_timed_once(monkeypatch):
    """A first time that is short warms up; the median of the others counts. A long one counts itself."""
    durations = {"kernels": [9.0, 3.0, 1.0, 2.0], "forward": [11.0], "fwd+bwd": [1.0] * 4, speed.STEP: [12.0]}
    times = {name: iter(values) for name, values in durations.items()}
    monkeypatch.setattr(speed, "MEASURED", {name: name for name in durations})
    monkeypatch.setattr(speed, "seconds", lambda device, name, *arguments: next(times[name]))
    monkeypatch.setattr(speed, "operations", lambda *arguments: 1)
    monkeypatch.setattr(speed, "busiest_operators", lambda *arguments: {})
    (row,) = speed.measure([("Unet", "None", "")], speed.Setting(1, 0.0625, torch.device("cpu")), 3)
    assert row["seconds"] == {"kernels": 2.0, "forward": 11.0, "fwd+bwd": 1.0, speed.STEP: 12.0}


def test_tables_of_a_document(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "parts_of", lambda args: iter([f"batch {args.batch}", "a table"]))
    document = tmp_path / "speed.md"
    document.write_text("a\n<!-- speed: --batch 2 8 -->\nold\n<!-- end -->\n<!-- report: b -->\n<!-- end -->\n")
    assert exit_code(lambda: speed.main(["--readme", str(document)])) == 0
    written = "a\n<!-- speed: --batch 2 8 -->\n\nbatch [2, 8]\n\na table\n\n<!-- end -->\n"
    assert document.read_text() == written + "<!-- report: b -->\n<!-- end -->\n"
    assert capsys.readouterr().out == "batch [2, 8]\n\na table\n\n"
    assert exit_code(lambda: speed.main(["--readme", str(tmp_path / "none.md")])) == 2
    assert "none.md" in capsys.readouterr().err


def test_the_page_can_be_measured_again():
    asked = []
    page = Path(__file__).parents[1] / "docs" / "speed.md"
    rewritten(page.read_text(), "speed", lambda arguments: str(asked.append(speed.parse_args(arguments))))
    assert {name for args in asked for name in args.architecture} == set(SKELETONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--symmetry Color", "unknown symmetry"),
        ("--batch 0", "must be positive"),
        ("--device mars", "--device must be"),
        ("--json nowhere/numbers.json", "--json nowhere/numbers.json must be a file in a folder that exists"),
        ("--json .", "must be a file"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert exit_code(lambda: speed.main(arguments.split())) == 2
    assert message in capsys.readouterr().err
