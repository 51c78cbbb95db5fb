"""Windows, roll-outs and the training loop."""

import csv
import json
import math
import multiprocessing
import platform
import runpy
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import entry_of
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import utils
from evaluation.equivariance import equivariance_error
from evaluation.rmse import rmse
from evaluation.score import TestSet, score, validation_rmse
from evaluation.spectrum import energy_spectrum_error
from flows.store import load_meta
from flows.windows import Windows
from models import SYMMETRIES, build_model
from utils import (
    InputError,
    MeanSquare,
    Training,
    load_checkpoint,
    make_optimizer,
    roll_out,
    train,
)

ROOT = Path(__file__).parents[1]

SETTINGS = Training(
    input_length=4, output_length=2, batch_size=8, num_epoch=3, learning_rate=0.003, decay_rate=0.95, seed=0
)


def small(symmetry="None", architecture="Unet", seed=0):
    torch.manual_seed(seed)
    return build_model(architecture, symmetry, input_length=4, width=0.125)


def fit(data_dir, meta, folder, symmetry="None", seed=0, validate=validation_rmse, **changes):
    """Train a small net in ``folder``; returns its history without the seconds."""
    folder.mkdir(exist_ok=True)
    train_windows, valid_windows = (Windows(data_dir / "rbc", meta, split) for split in ("train", "valid"))
    chosen = Training(**{**vars(SETTINGS), "seed": seed, **changes})
    model = small(symmetry, seed=seed)
    history = train(model, train_windows, partial(validate, model, valid_windows, chosen), chosen, folder)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


class OneDevice(TorchDispatchMode):
    """Refuse operations on tensors of several devices; only indices may come from another."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        tensors = (leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, torch.Tensor))
        devices = {tensor.device for tensor in tensors if tensor.dim()}
        assert len(devices) <= 1 or operation == torch.ops.aten.index.Tensor, f"{operation} on {devices}"
        return operation(*arguments, **options or {})


PARTS = {
    "": {},
    "relaxed": {"relaxed": "gains"},
    "free": {"relaxed": "free"},
    "frame": {"frame": ("UM", "Mag", "Rot")},
    "vector and scalar": {"fields": ("vector", "scalar")},
    "scalar": {"fields": ("scalar",)},
    "periodic": {"periodic": ("x", "y")},
}
NETS = [
    pytest.param(architecture, symmetry, part, marks=[pytest.mark.slow] * (part != "" and symmetry != "UM"))
    for architecture in ("ResNet", "Unet", "ConvNet", "FNO")
    for symmetry in (SYMMETRIES if architecture != "FNO" else ["None"])
    for part in (PARTS if architecture == "Unet" else ["", "frame"])
    if (symmetry, part) != ("None", "free")  # there is no such net
]


@pytest.mark.parametrize(("architecture", "symmetry", "part"), NETS)
def test_a_step_stays_on_its_device(architecture, symmetry, part):
    """Augmentation, roll-out, loss, gradients and measures: no tensor elsewhere, and nothing that waits for a value.

    The device is torch's "meta", which has shapes but no values, so that reading one is an error.
    """
    options = PARTS[part]
    group = SYMMETRIES[symmetry].on(options.get("fields", ("vector",)), options.get("periodic", ()))
    model = build_model(architecture, symmetry, 4, width=0.1, **options).to("meta")
    g = torch.full((2,), 1.25) if symmetry == "Scale" else group.sample(2)
    past, future = group.source_window(g, 4, 3)
    with OneDevice():
        frames = torch.randn(2, past + future, group.components, 32, 32, device="meta")
        mask = torch.ones(2, 1, 32, 32, dtype=torch.bool, device="meta")
        frames, mask = group.transform(g, frames, mask, past - 1, 4, 3)
        prediction = roll_out(model, frames[:, :4], 3, mask)
        MeanSquare().add(prediction, frames[:, 4:], mask).sum().backward()
        assert all(parameter.grad.is_meta for parameter in model.parameters())
        errors = equivariance_error(lambda x, land: roll_out(model, x, 3, land), group, g, frames[:, :4], mask)
        measures = *errors.values(), energy_spectrum_error(prediction, frames[:, 4:], mask)
        assert all(measure.is_meta for measure in measures)


# ---------------------------------------------------------------- windows


@pytest.fixture
def with_land(tmp_path):
    """A split written by hand: 2 tiles of 3 x 5 points, a gap in time, land, a split that begins in mid-start."""
    frames = np.arange(2 * 20 * 2 * 3 * 5, dtype=np.float32).reshape(2, 20, 2, 3, 5)
    mask = np.ones((2, 3, 5), bool)
    mask[1, 0] = False
    np.save(tmp_path / "train.npy", frames)
    np.save(tmp_path / "train_mask.npy", mask)
    split = entry_of(tmp_path, "train", [[0, 8], [10, 20]], first=1, count=12)
    return tmp_path, {"fields": ["vector"], "history": 4, "horizon": 2, "splits": {"train": split}}, frames, mask


def test_windows_are_slices_of_the_frames(with_land):
    folder, meta, frames, mask = with_land
    windows = Windows(folder, meta, "train")
    starts = [start for begin, end in ((0, 8), (10, 20)) for start in range(begin, end - 5)]
    expected = [(tile, start) for start in starts for tile in range(2)][1:13]
    assert len(windows) == 12
    for i, (tile, start) in enumerate(expected):
        window, valid = windows.read(torch.tensor([i]), past=3, future=2)
        np.testing.assert_array_equal(window[0], frames[tile, start + 1 : start + 6])
        np.testing.assert_array_equal(valid[0, 0], mask[tile])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order(with_land, workers):
    folder, meta, *_ = with_land
    windows = Windows(folder, meta, "train")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    batches = list(windows.batches(order, 5, 4, 2, workers))
    assert [len(index) for index, *_ in batches] == [5, 5, 2]
    assert torch.equal(torch.cat([index for index, *_ in batches]), order)
    for index, frames, mask in batches:
        expected_frames, expected_mask = windows.read(index, 4, 2)
        assert torch.equal(frames, expected_frames)
        assert torch.equal(mask, expected_mask)


def test_frames_are_mapped_not_read(with_land):
    folder, meta, frames, _ = with_land
    windows = Windows(folder, meta, "train")
    changed = np.load(folder / "train.npy", mmap_mode="r+")
    changed[:] = -frames
    changed.flush()
    assert torch.equal(windows.read(torch.tensor([0]), 1, 0)[0], torch.from_numpy(-frames[1:2, 3:4]))


def high_water():
    """Most resident memory of this process so far, in KiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


class PlusBias(nn.Module):
    """The last frame plus a number per component."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2, 1, 1))

    def forward(self, frames):
        return frames[:, -1] + self.bias


def memory_of_an_epoch(folder, frames):
    """MiB by which training on 400 windows, spread over ``frames`` frames of zeros, raises this process's peak."""
    (folder / "train.npy").unlink(missing_ok=True)
    array = np.lib.format.open_memmap(folder / "train.npy", "w+", np.float32, (2, frames // 2, 2, 128, 128))
    split = {"frames": "train.npy", "mask": None, "shape": list(array.shape), "segments": [[0, frames // 2]]}
    split |= {"first": 0, "count": 2 * (frames // 2 - 29), "sha256": None}
    meta = {"fields": ["vector"], "history": 24, "horizon": 6, "splits": {"train": split}}
    del array  # nothing was written: a file of holes
    windows = Windows(folder, meta, "train")
    chosen = torch.linspace(0, len(windows) - 1, 400).long()
    order = torch.randperm(len(windows))  # as an epoch draws it
    assert len(order) == len(windows) > 400
    windows.tile, windows.start = windows.tile[chosen], windows.start[chosen]
    model, settings = PlusBias(), Training(24, 6, 4, 1, 0.1, 1.0, num_workers=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    del order
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    utils.train_epoch(utils.RollOut(model), optimizer, windows, settings, torch.Generator().manual_seed(0), 1)
    return (high_water() - before) / 2**10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts this")
def test_data_past_memory(tmp_path):
    """A file of 200 GB (holes, nothing on disk) trains in the memory of one a thousand times smaller."""
    peaks = []
    for frames in (1_600, 1_600_000):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(memory_of_an_epoch, (tmp_path, frames)))
    assert (tmp_path / "train.npy").stat().st_size > 2e11
    assert peaks[1] < peaks[0] + 100  # a few batches of 16 MiB more or fewer wait at the peak, whatever the file


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "train.npy").unlink(), "train.npy is missing or broken"),
        (lambda folder: (folder / "train.npy").write_bytes(b""), "train.npy is missing or broken"),
        (lambda folder: (folder / "train.npy").write_bytes(b"\x93NUMPY\x01\x00 cut"), "train.npy is missing or broken"),
        (lambda folder: np.save(folder / "train_mask.npy", np.ones((2, 5, 3), bool)), "has shape"),
        (lambda folder: np.save(folder / "train_mask.npy", np.ones((2, 3, 5), bool)), "train_mask.npy does not match"),
        (
            lambda folder: np.save(folder / "train.npy", np.nextafter(np.load(folder / "train.npy"), np.float32(1))),
            "train.npy does not match its sha256",
        ),
    ],
)
def test_broken_arrays(with_land, damage, message):
    folder, meta, *_ = with_land
    damage(folder)
    with pytest.raises(InputError, match=message):
        Windows(folder, meta, "train")


def test_large_files_are_not_compared(with_land, monkeypatch):
    folder, meta, frames, _ = with_land
    np.save(folder / "train.npy", -frames)
    monkeypatch.setattr("flows.windows.CHECKED_BYTES", frames.nbytes)  # the file has a header, too
    assert len(Windows(folder, meta, "train")) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no prepared data in"),
        ("", "not a description of prepared data"),
        ("[]", "not a description of prepared data"),
        ('{"schema": 1}', "has schema 1, this version reads 2"),
    ],
)
def test_broken_meta(tmp_path, text, message):
    if text is not None:
        (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_meta(tmp_path)


# ---------------------------------------------------------------- roll-out


class Sum(nn.Module):
    """The next frame is the sum of all frames it sees: 1, 2, 4, 8 ... from 1, 0, 0, ..."""

    def forward(self, frames):
        return frames.sum(1)


def test_forecasts_feed_back():
    frames = torch.zeros(1, 3, 2, 1, 1)
    frames[0, -1] = 1
    assert roll_out(Sum(), frames, 6)[0, :, 0, 0, 0].tolist() == [1, 2, 4, 7, 13, 24]  # each the sum of three


def test_land_keeps_its_last_value():
    frames = torch.randn(2, 3, 2, 4, 4)
    mask = torch.rand(2, 1, 4, 4) < 0.5
    forecast = roll_out(Sum(), frames, 5, mask)
    land = ~mask[:, None].expand_as(forecast)
    assert torch.equal(forecast[land], frames[:, -1:].expand_as(forecast)[land])
    assert not torch.equal(forecast[~land], frames[:, -1:].expand_as(forecast)[~land])


def test_land_may_hold_no_number():
    mask = torch.rand(2, 1, 16, 16) < 0.8
    frames = torch.randn(2, 4, 2, 16, 16) * mask[:, None]
    holes = torch.where(mask[:, None], frames, torch.nan)
    assert torch.equal(roll_out(small(), holes, 3, mask), roll_out(small(), frames, 3, mask))


@pytest.mark.parametrize("architecture", ["ResNet", "Unet"])
@pytest.mark.parametrize("symmetry", ["UM", "Mag"])
def test_roll_outs_are_equivariant_land_included(symmetry, architecture):
    torch.manual_seed(0)
    model = small(symmetry, architecture).double().eval()
    frames = torch.randn(3, 4, 2, 16, 32, dtype=torch.float64)
    mask = torch.rand(3, 1, 16, 32) < 0.8
    frames = frames * mask[:, None]
    g = SYMMETRIES[symmetry].sample(3).double()
    with torch.no_grad():
        expected = SYMMETRIES[symmetry].act(g, roll_out(model, frames, 10, mask))
        forecast = roll_out(model, SYMMETRIES[symmetry].act(g, frames), 10, mask)
    torch.testing.assert_close(forecast, expected, rtol=1e-8, atol=1e-10 * expected.abs().max().item())


def test_gradients_flow_through_all_steps():
    frames = torch.randn(1, 4, 2, 16, 16, requires_grad=True)
    model = small("UM").train()
    for _ in range(2):  # a kernel kept from the first graph would fail in the second backward pass
        roll_out(model, frames, 3)[:, -1].square().sum().backward()
    assert frames.grad[:, 0].abs().max() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("architecture", ["ResNet", "Unet"])
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_steps_computed_twice(symmetry, architecture):
    """Same forecasts, gradients and running statistics as when all features are kept; kernels are derived once."""
    frames = torch.randn(2, 4 + 3, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results, derived, calls = [], [], []
    for recompute in (False, True):
        model = small(symmetry, architecture).double().train()
        model.register_forward_pre_hook(lambda *_: calls.append(1))
        for module in model.modules():
            if isinstance(module, parametrize.ParametrizationList):
                module[0].register_forward_hook(lambda *_: derived.append(1))
        derived.clear(), calls.clear()
        with parametrize.cached():
            forecast = roll_out(model, frames[:, :4], 3, recompute=recompute)
            (forecast - frames[:, 4:]).square().mean().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append((len(derived), forecast.detach(), gradients, list(model.buffers())))
        assert len(calls) == (6 if recompute else 3)
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


def test_features_of_one_step_at_a_time():
    """Forecasting 6 steps keeps about as much for the backward pass as one, not six times as much."""

    def kept(steps, recompute):
        """Most elements that the graph of a training step holds at once, before its backward pass."""
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.numel()) or x, lambda x: x):
            roll_out(small("UM", "ResNet"), torch.zeros(1, 4, 2, 16, 16), steps, recompute=recompute)
        return sum(held)

    assert kept(6, recompute=False) > 5 * kept(1, recompute=False)
    assert kept(6, recompute=True) < kept(1, recompute=False)


# ---------------------------------------------------------------- measures over batches


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_a_short_last_batch_weighs_what_it_should(sizes, seed):
    torch.manual_seed(seed)
    prediction, target = torch.randn(2, sum(sizes), 3, 2, 4, 5)
    mask = torch.rand(sum(sizes), 1, 4, 5) < 0.6
    mask[..., 0, 0] = True
    error = MeanSquare()
    for parts in zip(*(tensor.split(sizes) for tensor in (prediction, target, mask)), strict=True):
        error.add(*parts)
    assert error.rmse() == pytest.approx(rmse(prediction, target, mask).item(), rel=1e-6)


def test_scores_have_a_square_root(data_dir, meta):
    windows = Windows(data_dir / "rbc", meta, "test")

    def nothing(frames, steps, mask):
        return torch.zeros_like(frames[:, :1]).expand(-1, steps, -1, -1, -1)

    scores = score({"nothing": nothing}, TestSet(windows), 4, 10, 7)["nothing"]
    frames, _ = windows.read(torch.arange(len(windows)), 0, 10)
    assert scores["rmse"] == pytest.approx(frames.double().square().mean().sqrt().item(), rel=1e-6)
    per_step = frames.double().square().mean((0, 2, 3, 4)).sqrt()
    assert scores["rmse_per_step"] == pytest.approx(per_step.tolist(), rel=1e-6)


def test_scores_of_a_perfect_forecast_of_transformed_flows(data_dir, meta):
    windows = Windows(data_dir / "rbc", meta, "test")
    symmetry = SYMMETRIES["UM"]
    elements = symmetry.sample(len(windows), torch.Generator().manual_seed(0))
    truth, _ = windows.read(torch.arange(len(windows)), 0, 10)
    queue = list(symmetry.act(elements, truth).split(7))
    tests = TestSet(windows, symmetry, elements)
    scores = score({"truth": lambda *_: queue.pop(0)}, tests, 4, 10, 7, spectra=["truth"])["truth"]
    assert scores["rmse"] == 0
    assert scores["ese"] == 0


# ---------------------------------------------------------------- training


DEAR = [pytest.param(name, marks=pytest.mark.slow) for name in ("Mag", "Rot", "Scale")]


@pytest.mark.parametrize("symmetry", ["None", "UM", *DEAR])
def test_the_loss_falls(data_dir, meta, tmp_path, symmetry):
    history = fit(data_dir, meta, tmp_path, symmetry, num_epoch=8)
    assert history[-1]["train_rmse"] < 0.7 * history[0]["train_rmse"]
    assert history[-1]["valid_rmse"] < 0.7 * history[0]["valid_rmse"]


def test_seeds(data_dir, meta, tmp_path):
    first = fit(data_dir, meta, tmp_path / "a")
    assert fit(data_dir, meta, tmp_path / "b") == first
    assert fit(data_dir, meta, tmp_path / "c", seed=1) != first
    assert fit(data_dir, meta, tmp_path / "d", num_workers=2) == first


def test_learning_rate_decays_every_epoch(data_dir, meta, tmp_path):
    rates = [row["learning_rate"] for row in fit(data_dir, meta, tmp_path)]
    assert rates == pytest.approx([0.003, 0.003 * 0.95, 0.003 * 0.95**2])


def test_files_of_a_run(data_dir, meta, tmp_path):
    history = fit(data_dir, meta, tmp_path)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["valid_rmse"]) for row in rows] == [row["valid_rmse"] for row in history]
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["epoch"] == 1 + min(range(3), key=lambda i: history[i]["valid_rmse"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "log.csv"]


def test_best_weights_are_those_of_the_best_epoch(data_dir, meta, tmp_path):
    """The release keeps an alias of the model and so tests the last epoch."""
    values = iter([0.5, 0.2, 0.9])
    weights = []

    def validate(model, *_):
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(values)

    fit(data_dir, meta, tmp_path, validate=validate)
    best = load_checkpoint(tmp_path / "best.pt", "cpu")
    assert best["epoch"] == 2
    assert all(torch.equal(best["model"][name], tensor) for name, tensor in weights[1].items())
    assert any(not torch.equal(best["model"][name], tensor) for name, tensor in weights[2].items())


class Killed(BaseException):
    pass


def test_a_checkpoint_knows_deviations_by_their_places():
    """In the order of the layers, the same in every process: another order would give each the moments of another."""
    model = build_model("ConvNet", "Rot", 3, width=0.0625, relaxed="gains")
    groups = make_optimizer(model, Namespace(learning_rate=0.1, weight_decay=0.0)).param_groups
    for group, wanted in zip(groups, (False, True), strict=True):
        found = [name for of in group["params"] for name, weight in model.named_parameters() if weight is of]
        assert found == [name for name, _ in model.named_parameters() if ("deviation" in name) == wanted]


@pytest.mark.parametrize(("symmetry", "batch"), [("None", 2), ("Mag", 9), ("None", 15)])
def test_resume(data_dir, meta, tmp_path, monkeypatch, symmetry, batch):
    """Cut off in the middle of an epoch and resumed: the numbers and weights of an uninterrupted run."""
    changes = {"num_epoch": 3, "augment": (SYMMETRIES["UM"], SYMMETRIES["Mag"])}
    whole = fit(data_dir, meta, tmp_path / "whole", symmetry, **changes)

    calls = iter(range(1000))

    def roll_out_or_die(*args):
        if next(calls) == batch:
            raise Killed
        return roll_out(*args)

    with monkeypatch.context() as patch:
        patch.setattr(utils, "roll_out", roll_out_or_die)
        with pytest.raises(Killed):
            fit(data_dir, meta, tmp_path / "cut", symmetry, **changes)
    assert fit(data_dir, meta, tmp_path / "cut", symmetry, **changes) == whole
    for file in ("best.pt", "last.pt"):
        one, other = (load_checkpoint(tmp_path / name / file, "cpu")["model"] for name in ("whole", "cut"))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_more_epochs_go_on(data_dir, meta, tmp_path):
    whole = fit(data_dir, meta, tmp_path / "whole", num_epoch=3)
    fit(data_dir, meta, tmp_path / "parts", num_epoch=1)
    assert fit(data_dir, meta, tmp_path / "parts", num_epoch=3) == whole


def test_a_diverging_run_stops_and_keeps_its_last_good_epoch(data_dir, meta, tmp_path):
    good = fit(data_dir, meta, tmp_path, num_epoch=1)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(InputError, match=r"the error became (nan|inf) in epoch 2.*lower --learning_rate"):
        fit(data_dir, meta, tmp_path, num_epoch=2, learning_rate=1e30)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert load_checkpoint(tmp_path / "last.pt", "cpu")["history"][0]["valid_rmse"] == good[0]["valid_rmse"]


def test_a_run_that_diverges_at_once_is_told_of_no_checkpoint(data_dir, meta, tmp_path):
    with pytest.raises(InputError, match=r"in epoch 1; lower --learning_rate"):
        fit(data_dir, meta, tmp_path, num_epoch=1, learning_rate=1e30)
    assert not list(tmp_path.iterdir())


def test_a_broken_checkpoint(data_dir, meta, tmp_path):
    for content in (b"", b"not a checkpoint", b"broken", b"PK\x03\x04 cut"):
        (tmp_path / "last.pt").write_bytes(content)
        with pytest.raises(InputError, match="is no checkpoint of this program"):
            fit(data_dir, meta, tmp_path)
    torch.save({"model": {}}, tmp_path / "last.pt")  # from before rotation's basis was unique
    with pytest.raises(InputError, match="has schema 1, this version reads 2: its weights would be another net here"):
        fit(data_dir, meta, tmp_path)


def test_an_epoch_is_told_when_it_is_safe(data_dir, meta, tmp_path, monkeypatch, capsys):
    def die(*_):
        raise Killed

    monkeypatch.setattr(utils, "write_log", die)
    with pytest.raises(Killed):
        fit(data_dir, meta, tmp_path)
    assert "epoch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([1.0] * 50, False),  # not before more than 50 epochs
        ([1.0] * 51, True),
        ([1.0 - i / 100 for i in range(60)], False),
        ([1.0] * 50 + [0.9, 1.1, 1.0, 1.0, 1.0], True),  # equal means are no progress
        ([1.0] * 55 + [0.9] * 5, False),
        ([1.0] * 55 + [1.1] * 5, True),
    ],
)
def test_early_stopping(values, stops):
    assert utils.stops_early([{"valid_rmse": value} for value in values]) == stops


@pytest.mark.parametrize(("values", "stops"), [([], False), ([3, 2, 1, 1.5, 1.2], False), ([3, 1, 1.5, 1.2, 1], True)])
def test_patience(values, stops):
    """Three epochs that were no better end the training, an equal one being no better."""
    assert utils.stops_early([{"valid_rmse": value} for value in values], patience=3) == stops


def test_a_part_of_the_windows_takes_as_many_steps(data_dir, meta, tmp_path):
    """Every window as often as any other, up to one: an epoch is worth the same whatever the part."""
    seen = []

    class Watched(Windows):
        def batches(self, order, *rest, **options):
            seen.append(order)
            return super().batches(order, *rest, **options)

    windows = Watched(data_dir / "rbc", meta, "train")
    whole = len(windows)
    windows.keep_last(0.3)
    settings = Training(**{**vars(SETTINGS), "epoch_windows": whole, "num_epoch": 2})
    train(small(), windows, lambda: 1.0, settings, tmp_path)
    assert len(seen) == 2
    for order in seen:
        assert len(order) == whole
        counts = torch.bincount(order, minlength=len(windows))
        assert counts.max() - counts.min() <= 1
    assert not torch.equal(*seen)


def test_validation_may_be_longer_than_training(data_dir, meta):
    windows, model = Windows(data_dir / "rbc", meta, "valid"), small()
    values = [
        validation_rmse(model, windows, Training(**{**vars(SETTINGS), "output_length": o, "valid_length": v}))
        for o, v in ((2, 0), (2, 7), (7, 0))
    ]
    assert values[1] == values[2] != values[0]


def loss_and_gradients(model, frames, past=4):
    """The training loss of a batch (the sum over steps of the mean squared error) and its gradients, float64."""
    model.zero_grad()
    prediction = roll_out(model, frames[:, :past], frames.shape[1] - past)
    loss = MeanSquare().add(prediction, frames[:, past:]).sum()
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def sample_weight(symmetry, g):
    """What the loss on g(x) is to the loss on x: squared errors grow by lambda^2 and do not change otherwise."""
    return g.item() ** 2 if symmetry == "Mag" else 1.0


EXACT = ["UM", "Mag", "Rot"]  # symmetries that whole nets keep to rounding


@pytest.mark.parametrize("architecture", ["ResNet", "Unet"])
@pytest.mark.parametrize("symmetry", EXACT)
def test_loss_and_gradients_on_transforms_of_a_batch(symmetry, architecture):
    """Claim 4 of the paper: an equivariant net learns the same from g(x) as from x. The plain net does not."""
    group = SYMMETRIES[symmetry]
    elements = group.sample(3, torch.Generator().manual_seed(1)).double()
    frames = torch.randn(2, 4 + 3, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def largest_difference(name):
        model, worst = small(name, architecture).double().train(), 0.0
        loss, gradients = loss_and_gradients(model, frames)
        for g in elements:
            moved = group.act(g.expand(2, *g.shape), frames)
            moved_loss, moved_gradients = loss_and_gradients(model, moved)
            weight = sample_weight(symmetry, g)
            worst = max(
                worst,
                abs(moved_loss - weight * loss) / (weight * loss),
                (moved_gradients - weight * gradients).norm() / (weight * gradients).norm(),
            )
        return worst

    assert largest_difference(symmetry) < 1e-9
    assert largest_difference("None") > 1e-2


class Recorder:
    """A symmetry that keeps what it was asked to draw and to do, and changes nothing."""

    def __init__(self):
        self.drawn, self.applied = [], []

    def sample(self, n, generator):
        self.drawn.append(torch.rand(n, generator=generator))
        return self.drawn[-1]

    def act(self, g, frames):
        assert len(g) == len(frames)
        self.applied.append(g)
        return frames

    def transform(self, g, frames, mask, present, past, future):
        return self.act(g, frames), mask


def test_augmentation_is_drawn_per_sample_in_every_epoch_and_seeded(data_dir, meta, tmp_path):
    def elements(name, seed):
        recorder = Recorder()
        fit(data_dir, meta, tmp_path / name, num_epoch=2, seed=seed, augment=(recorder,))
        assert all(torch.equal(*both) for both in zip(recorder.drawn, recorder.applied, strict=True))
        return torch.cat(recorder.drawn)

    first = elements("a", 0)
    assert len(first) == 2 * len(Windows(data_dir / "rbc", meta, "train"))
    assert len(first.unique()) == len(first)
    assert torch.equal(elements("b", 0), first)
    assert not torch.equal(elements("c", 1), first)


def test_augmentation_transforms_input_and_target_alike(data_dir, meta, tmp_path, monkeypatch):
    """Seen by the net and by the loss: one factor per sample for all of its frames."""
    seen = []

    def watch(model, frames, *rest):
        seen.append(frames)
        return roll_out(model, frames, *rest)

    class Doubled(Recorder):
        def act(self, g, frames):
            seen.append(frames)
            return 2 * frames

    monkeypatch.setattr(utils, "roll_out", watch)
    targets = []
    add = MeanSquare.add
    monkeypatch.setattr(
        MeanSquare,
        "add",
        lambda self, prediction, target, mask: targets.append(target) or add(self, prediction, target),
    )
    windows = Windows(data_dir / "rbc", meta, "train")
    model, training = small(), Training(**{**vars(SETTINGS), "augment": (Doubled(),)})
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    utils.train_epoch(utils.RollOut(model), optimizer, windows, training, torch.Generator().manual_seed(0), 1)
    originals, inputs = seen[::2], seen[1::2]
    assert len(originals) == len(inputs) == len(targets) == -(-len(windows) // 8)
    for original, past, target in zip(originals, inputs, targets, strict=True):
        assert torch.equal(past, 2 * original[:, :4])
        assert torch.equal(target, 2 * original[:, 4:])


def test_uniform_motion_nets_gain_nothing_from_augmentation(data_dir, meta, tmp_path):
    """Claim 4 of the paper: loss and gradients are the same on any transform of a sample; not so for plain nets."""
    um = [SYMMETRIES["UM"]]
    plain, augmented = (
        fit(data_dir, meta, tmp_path / f"None{augment}", "None", augment=tuple(um[:augment])) for augment in (0, 1)
    )
    assert abs(plain[0]["train_rmse"] / augmented[0]["train_rmse"] - 1) > 0.05
    plain, augmented = (
        fit(data_dir, meta, tmp_path / f"UM{augment}", "UM", augment=tuple(um[:augment]), num_epoch=1)
        for augment in (0, 1)
    )
    # the order of samples differs, since augmentation draws from the same generator, but the first epoch has one order
    assert plain[0]["train_rmse"] == pytest.approx(augmented[0]["train_rmse"], rel=1e-3)


# ---------------------------------------------------------------- small helpers


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "value.json"
    utils.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        utils.write_json(path, {"a": object()})

    def write_half():
        with utils.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    pytest.raises(KeyboardInterrupt, write_half)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_progress_says_nothing_where_nobody_looks(capsys):
    assert list(utils.progress(range(3), 3, "frames", note=lambda: 1 / 0)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("tile 7\nis odd"), 2, "error: tile 7 is odd"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device"),
        (torch.OutOfMemoryError(), 2, "error: out of memory"),
        (MemoryError(), 2, "error: out of memory; lower --batch_size, --width or --rotation_order"),
        (KeyboardInterrupt(), 130, "stopped"),
        (None, 0, ""),
    ],
)
def test_exit_codes(capsys, error, code, line):
    def main():
        if error is not None:
            raise error

    assert utils.exit_code(main) == code
    assert capsys.readouterr().err.startswith(line)


def test_defects_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        utils.exit_code(lambda: 1 // 0)


def test_infinite_is_not_finite():
    assert utils.check_finite(1.5, 1) == 1.5
    for value in (math.nan, math.inf):
        with pytest.raises(InputError, match="in epoch 7"):
            utils.check_finite(value, 7)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="a CPU that cannot")
def test_tiny_numbers_are_zero_on_every_thread():
    program = """
import torch
from utils import tune_cpu
tune_cpu()
torch.set_num_threads(2)
print((torch.full((1_000_000,), 1e-38) / 100).count_nonzero().item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "0\n"  # 1,000,000 otherwise


@pytest.mark.parametrize(
    ("program", "flags"), [("run_model.py", "--data_dir=nowhere"), ("evaluation/speed.py", "--batch=0")]
)
def test_programs_tune_the_cpu(program, flags, monkeypatch):
    """Not their functions, whose callers may want tiny numbers."""
    calls = []
    monkeypatch.setattr(utils, "tune_cpu", lambda: calls.append(program))
    monkeypatch.setattr(sys, "argv", [program, flags])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    assert (end.value.code, calls) == (2, [program])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_is_kept():
    """In the end large tensors take the pages of those before; the system counts the pages that it has to provide."""
    program = """
import torch
from resource import RUSAGE_SELF, getrusage
from utils import tune_cpu
tune_cpu()
for _ in range(10):
    torch.ones(50_000_000)
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(50_000_000)
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 100  # 48,828 for every tensor otherwise
