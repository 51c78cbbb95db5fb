"""Relaxed nets: at the start they are the strict net, any of their numbers leads away from it, decay leads back."""

import itertools
import json

import numpy as np
import pytest
import torch

import run_model
from evaluation.equivariance import equivariance_error
from evaluation.relaxation import make_strict, relative_deviations
from flows.windows import Windows
from models import FRAMES, SKELETONS, SYMMETRIES, build_model
from models.backbone import deviations
from models.options import DEVIATIONS
from models.translation import MODES, by_place
from utils import Training, exit_code, roll_out, train

PAIRS = [pair for pair in itertools.product(DEVIATIONS, SYMMETRIES) if pair != ("free", "None")]
FIELDS = [("vector",), ("scalar",), ("vector", "scalar")]


def nets(architecture, symmetry, kind, fields=("vector",), width=1 / 32):
    """A strict net and a relaxed one with its weights, in float64."""
    torch.manual_seed(0)
    strict = build_model(architecture, symmetry, 3, 3, width, fields).double().eval()
    relaxed = build_model(architecture, symmetry, 3, 3, width, fields, relaxed=kind).double().eval()
    missing, unexpected = relaxed.load_state_dict(strict.state_dict(), strict=False)
    assert unexpected == []
    assert set(missing) == set(deviations(relaxed))
    return strict, relaxed


def flow(fields=("vector",)):
    size = sum(2 if field == "vector" else 1 for field in fields)
    return torch.randn(2, 3, size, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_kernel_of_its_own_as_large_as_the_exact_one():
    """Whatever a layer of magnitude makes of its kernel, it deviates by what is beside the weights."""
    _, relaxed = nets("Unet", "Mag", "free")
    for name, number in deviations(relaxed).items():
        if name.endswith(".free.deviation"):
            layer = relaxed.get_submodule(name.removesuffix(".free.deviation"))
            number.data.copy_(layer.conv.parametrizations.weight.original)
    found = {name: size for name, size in relative_deviations(relaxed).items() if "bias" not in name}
    assert len(found) == 13
    assert found == pytest.approx(dict.fromkeys(found, 1.0))


@pytest.mark.parametrize("fields", FIELDS, ids="+".join)
@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize(("kind", "symmetry"), PAIRS)
def test_starts_as_the_strict_net(architecture, kind, symmetry, fields):
    strict, relaxed = nets(architecture, symmetry, kind, fields)
    expected = roll_out(strict, flow(fields), 2).detach()
    assert (roll_out(relaxed, flow(fields), 2) - expected).abs().max() <= 1e-12 * expected.abs().max()
    found = relative_deviations(relaxed)
    assert set(found.values()) == {0.0}
    assert not any("parametrizations" in name for name in found)
    assert relative_deviations(strict) == {}


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize(("kind", "symmetry"), PAIRS)
def test_every_deviation_has_a_gradient(architecture, kind, symmetry):
    _, relaxed = nets(architecture, symmetry, kind, width=1 / 8)  # too narrow a net has dead layers
    with torch.no_grad():  # biases that start at 0 hide those that are multiplied by them
        for name, weight in relaxed.named_parameters():
            if name.endswith("bias"):
                weight += 0.1
    roll_out(relaxed, flow(), 2).square().sum().backward()
    for name, number in deviations(relaxed).items():
        assert number.grad is not None, name
        assert number.grad.abs().max() > 0, name


@pytest.mark.parametrize(("kind", "symmetry"), [pair for pair in PAIRS if pair[1] in FRAMES])
def test_breaks_the_symmetry_in_proportion(kind, symmetry):
    """The equivariance error is that of the strict net at 0, and doubles with small deviations."""
    _, relaxed = nets("Unet", symmetry, kind)
    group = SYMMETRIES[symmetry]
    g = group.sample(2, torch.Generator().manual_seed(2))

    def error(size):
        draw = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for number in deviations(relaxed).values():
                number.copy_(size * torch.randn(number.shape, generator=draw))
        return equivariance_error(lambda f, m: roll_out(relaxed, f, 1), group, g, flow(), None)["relative"].item()

    assert error(0) < 1e-10
    small, double = error(1e-5), error(2e-5)
    assert small > 1e-9
    assert double / small == pytest.approx(2, rel=0.05)
    make_strict(relaxed)
    assert error(0) < 1e-10


def test_waves_over_the_grid():
    """Each of the nine, by its formula: cosines of half waves, divided by the wavenumber."""
    y, x = np.mgrid[:5, :7]
    for number, (i, j) in enumerate(MODES):
        ones, weights = torch.ones(1, 1, 5, 7).double(), torch.eye(9).double()[number]
        found = by_place(ones, weights, torch.tensor(MODES).T.double())
        wave = np.cos(np.pi * i * (y + 0.5) / 5) * np.cos(np.pi * j * (x + 0.5) / 7) / np.sqrt(i**2 + j**2)
        np.testing.assert_allclose(found[0, 0].numpy(), 1 + wave, atol=1e-14)


def test_translation_deviates_by_place():
    """A plain net on periodic flows away from the border, against its relaxed one."""
    _, relaxed = nets("ConvNet", "None", "gains")
    frames = flow().repeat(1, 1, 1, 2, 2)  # (64 x 64), the same again after 32 cells
    middle = lambda f, row: f[..., row : row + 4, 10:14]  # noqa: E731

    def difference():
        with torch.no_grad():
            forecast = relaxed(frames)
        return (middle(forecast, 14) - middle(forecast, 46)).abs().max().item()

    assert difference() < 1e-12
    with torch.no_grad():
        deviations(relaxed).popitem()[1].fill_(0.1)
    assert difference() > 1e-3


@pytest.mark.parametrize(("strength", "least", "most"), [(0.0, 0.003, 0.1), (1.0, 0.002, 0.1), (1e9, 0.0, 1e-8)])
def test_decay_leads_back(data_dir, meta, tmp_path, strength, least, most):
    """The strict net is where a large LAMBDA ends; without decay the deviations have gone somewhere."""
    windows = Windows(data_dir / "rbc", meta, "train")
    settings = Training(4, 2, 8, 2, 0.003, 1.0, relaxed=strength)
    torch.manual_seed(0)
    model = build_model("Unet", "UM", 4, 3, 1 / 8, relaxed="gains")
    train(model, windows, lambda: 1.0, settings, tmp_path)
    largest = max(relative_deviations(model).values())
    assert least <= largest <= most
    if strength == 1e9:
        frames = windows.read(torch.arange(4), 4, 0)[0]
        with torch.no_grad():
            forecast = model(frames)
            make_strict(model)
            assert (model(frames) - forecast).norm() <= 1e-3 * forecast.norm()


def test_implicit_step(data_dir, meta, tmp_path):
    """Adam's first step is the learning rate against the gradient's sign; decay divides it by 1 + rate x LAMBDA."""
    windows = Windows(data_dir / "rbc", meta, "train")
    torch.manual_seed(0)
    model = build_model("ConvNet", "UM", 4, 3, 1 / 8, relaxed="gains")
    settings = Training(4, 2, len(windows), 1, 0.01, 1.0, relaxed=50.0)
    train(model, windows, lambda: 1.0, settings, tmp_path)
    for number in deviations(model).values():
        assert number.abs().item() == pytest.approx(0.01 / (1 + 0.01 * 50), rel=1e-3)


def test_flags(data_dir, tmp_path, capsys):
    common = "--dataset=RBC --architecture=ConvNet --symmetry=Rot --width=0.05 --input_length=4 --output_length=2"
    common = [*common.split(), "--num_epoch=1", f"--data_dir={data_dir}", f"--results={tmp_path}"]
    run_model.main([*common, "--relaxed=0.5", "--deviation=free"])
    assert "layers deviate by" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    assert folder.name.endswith("_relaxed0.5_free")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(metrics["deviations"]) == 5
    assert min(metrics["deviations"].values()) > 0

    outputs = [tmp_path / f"{name}.json" for name in ("relaxed", "strict")]
    evaluate = [f"--evaluate={folder}", f"--data_dir={data_dir}"]
    run_model.main([*evaluate, f"--output={outputs[0]}"])
    run_model.main([*evaluate, f"--output={outputs[1]}", "--strict"])
    relaxed, strict = (json.loads(output.read_text()) for output in outputs)
    assert relaxed["scores"] == metrics["scores"]
    assert strict["scores"]["test"]["rmse"] != relaxed["scores"]["test"]["rmse"]
    error = {name: of["equivariance_error"]["Rot"]["relative"] for name, of in (("r", relaxed), ("s", strict))}
    assert error["s"] < 1e-5 < 1e-3 < error["r"]
    assert set(strict["deviations"].values()) == {0.0}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--relaxed=-1", "--relaxed must be a number from 0 on"),
        ("--relaxed=nan", "--relaxed must be a number from 0 on"),
        ("--relaxed=inf", "--relaxed must be a number from 0 on"),
        ("--relaxed=1 --deviation=bananas", "unknown deviation 'bananas'"),
        ("--deviation=free", "--deviation goes with --relaxed"),
        ("--relaxed=1 --deviation=free --symmetry=None", "translation relaxes by gains alone"),
        ("--strict", "--strict goes with --evaluate"),
        ("--relaxed=1 --frame=UM,Rot --symmetry=Rot", "--frame Rot would keep the symmetry that --relaxed relaxes"),
    ],
)
def test_bad_input(flags, said, capsys):
    assert exit_code(lambda: run_model.main(flags.split())) == 2
    assert said in capsys.readouterr().err
