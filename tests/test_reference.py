"""Training and testing against independent references: NumPy, from the equations, fed by the files themselves."""

import csv
import json
from functools import partial

import netCDF4
import numpy as np
import pytest
import torch
from prepared import entry_of
from torch import nn

import data_prep
import run_model
import utils
from evaluation.score import validation_rmse
from flows.windows import Windows
from models import build_model
from utils import Training, exit_code, load_checkpoint

# ---------------------------------------------------------------- training


class Affine(nn.Module):
    """The next frame is a x + b, a and b per component, of the last frame x."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.9, 1.1], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))

    def forward(self, frames):
        return self.a[:, None, None] * frames[:, -1] + self.b[:, None, None]


def split_with_land(folder, name, count, seed):
    """Windows of 3 + 2 frames over 2 tiles of 3 x 5 points, a fifth of them land, in float64."""
    rng = np.random.default_rng(seed)
    frames, mask = rng.normal(size=(2, 20, 2, 3, 5)), rng.random((2, 3, 5)) < 0.8
    np.save(folder / f"{name}.npy", frames)
    np.save(folder / f"{name}_mask.npy", mask)
    entry = entry_of(folder, name, [[0, 20]], first=0, count=count)
    windows = Windows(folder, {"fields": ["vector"], "history": 3, "horizon": 2, "splits": {name: entry}}, name)
    return windows, [(frames[i % 2, i // 2 : i // 2 + 5], mask[i % 2]) for i in range(count)]


def loss_and_gradient(a, b, batch):
    """Sum over two steps of the mean squared error over valid points, its gradient by hand, the errors' sums."""
    loss, gradient, squares, points = 0.0, np.zeros((2, 2)), 0.0, 0
    valid = sum(2 * mask.sum() for _, mask in batch)
    for window, mask in batch:
        x, dx_da, dx_db = window[2], np.zeros_like(window[2]), np.zeros_like(window[2])
        for target in window[3:]:
            scale = a[:, None, None]
            x, dx_da, dx_db = scale * x + b[:, None, None], x + scale * dx_da, 1 + scale * dx_db
            x = np.where(mask, x, window[2])  # land stays as it is
            error = (x - target) * mask
            loss += (error**2).sum() / valid
            gradient += 2 / valid * np.stack([(error * d).sum((1, 2)) for d in (dx_da, dx_db)])
            squares, points = squares + (error**2).sum(), points + 2 * mask.sum()
    return loss, gradient, squares, points


@pytest.mark.parametrize("decay", [4e-4, 0.3])
def test_training_is_adam_on_the_masked_loss(decay, tmp_path):
    """Two epochs of three batches: weights, learning rates, RMSE of training and validation."""
    (train, samples), (valid, held_out) = (
        split_with_land(tmp_path, name, count, seed) for name, count, seed in (("train", 11, 0), ("valid", 7, 1))
    )
    model, settings = Affine(), Training(3, 2, 4, 2, 0.05, 0.5, seed=3, weight_decay=decay)
    history = utils.train(model, train, partial(validation_rmse, model, valid, settings), settings, tmp_path)

    weights = np.array([[0.9, 1.1], [0.3, -0.2]])
    first, second = np.zeros((2, 2)), np.zeros((2, 2))
    generator, step = torch.Generator().manual_seed(3), 0
    for epoch, row in enumerate(history):
        order, squares, points = torch.randperm(11, generator=generator).tolist(), 0.0, 0
        for batch in (order[:4], order[4:8], order[8:]):
            _, gradient, batch_squares, batch_points = loss_and_gradient(*weights, [samples[i] for i in batch])
            squares, points = squares + batch_squares, points + batch_points
            gradient = gradient + decay * weights  # Adam's weight decay is an L2 term
            step += 1
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
            weights = weights - 0.05 * 0.5**epoch * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        assert row["learning_rate"] == pytest.approx(0.05 * 0.5**epoch)
        assert row["train_rmse"] == pytest.approx(np.sqrt(squares / points), rel=1e-12)
        _, _, squares, points = loss_and_gradient(*weights, held_out)
        assert row["valid_rmse"] == pytest.approx(np.sqrt(squares / points), rel=1e-12)
    state = load_checkpoint(tmp_path / "last.pt", "cpu")["model"]
    np.testing.assert_allclose(np.stack([state["a"], state["b"]]), weights, rtol=1e-10)


# ---------------------------------------------------------------- a run on currents


def write_currents(path, frames, seed):
    """Waves that travel and noise, with an island and a coast, as a NetCDF file of daily currents."""
    rng = np.random.default_rng(seed)
    time, y, x = np.meshgrid(np.arange(frames), np.arange(16), np.arange(32), indexing="ij")
    flow = [
        0.5 * np.cos(2 * np.pi * (x + k * y) / 16 - 0.4 * time + rng.uniform(0, 6)) + 0.1 * rng.normal(size=x.shape)
        for k in (1, -1)
    ]
    land = (x < 2) | (np.hypot(x - 22, y - 8) < 2.5)
    with netCDF4.Dataset(path, "w") as file:
        for name, values, units in (
            ("time", np.arange(frames), "days since 2000-01-01"),
            ("latitude", -30 + np.arange(16) / 4, "degrees_north"),
            ("longitude", 10 + np.arange(32) / 4, "degrees_east"),
        ):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
            file[name].units = units
        for name, word, values in zip(("uo", "vo"), ("east", "north"), flow, strict=True):
            variable = file.createVariable(name, "f4", ("time", "latitude", "longitude"), fill_value=1e20)
            variable.standard_name, variable.units = f"{word}ward_sea_water_velocity", "m s-1"
            variable[:] = np.where(land, 1e20, values)


@pytest.fixture(scope="module")
def ocean_run(tmp_path_factory):
    """Prepared currents, and a ResNet (it has batch norms) that went astray in its last epoch: data, run, flags."""
    folder = tmp_path_factory.mktemp("ocean")
    write_currents(folder / "train.nc", 66, seed=0)
    write_currents(folder / "test.nc", 24, seed=1)
    command = "ocean --tile 16 --max_land 0.3 --history 4 --horizon 10 --gap 2 --splits 54 18 24 --data_dir".split()
    files = ["--train", str(folder / "train.nc"), "--test", str(folder / "test.nc")]
    data_prep.main([*command, str(folder), *files])
    flags = "--dataset Ocean --architecture ResNet --symmetry None --input_length 4 --output_length 2 --batch_size 8"
    flags += f" --width 0.03125 --num_epoch 2 --learning_rate 0.003 --decay_rate 300 --data_dir {folder} --device cpu"
    assert exit_code(lambda: run_model.main([*flags.split(), "--results", str(folder / "results")])) == 0
    (run,) = (folder / "results").iterdir()
    return folder / "ocean", run


def windows_of(data, meta, split):
    """All windows ``(n, history + horizon, 2, h, w)`` of a split and their masks, from its files."""
    entry = meta["splits"][split]
    frames, mask = np.load(data / entry["frames"]), np.load(data / entry["mask"])
    length = meta["history"] + meta["horizon"]
    starts = [s for begin, end in entry["segments"] for s in range(begin, end - length + 1)]
    numbers = range(entry["first"], entry["first"] + entry["count"])
    chosen = [(number % len(frames), starts[number // len(frames)]) for number in numbers]
    return np.stack([frames[t, s : s + length] for t, s in chosen]), np.stack([mask[t] for t, _ in chosen])


def forecasts_of(net, past, mask, steps):
    """Frame after frame; land keeps its last value."""
    frames = list(past.swapaxes(0, 1))
    for _ in range(steps):
        with torch.no_grad():
            frame = net(torch.from_numpy(np.stack(frames[-4:], 1))).numpy()
        frames.append(np.where(mask[:, None], frame, past[:, -1]))
    return np.stack(frames[4:], 1)


def rmse_of(forecast, truth, mask):
    valid = np.broadcast_to(mask[:, None, None], truth.shape)
    return np.sqrt(np.mean((forecast - truth)[valid].astype(float) ** 2))


def ese_of(forecast, truth, mask):
    """RMS over rings of the difference of mean log10 spectra of the fluctuating kinetic energy; full plane, by hand."""
    k = np.fft.fftfreq(16) * 16
    ring = np.floor(np.hypot(k[:, None], k) + 1e-9).astype(int)

    def log_power(frames):
        energy = (frames.astype(float).var(axis=1).sum(axis=1) / 2) * mask
        power = np.abs(np.fft.fft2(energy)) ** 2
        return np.log10([[plane[ring == r].mean() for r in range(1, ring.max())] for plane in power])

    return np.sqrt(np.mean((log_power(forecast) - log_power(truth)).mean(0) ** 2))


def turned(frames, mask, quarters):
    """Flows and masks turned anticlockwise, row 0 in the south: places by ``rot90``, vectors by their components."""
    for i, k in enumerate(np.asarray(quarters) % 4):
        for _ in range(k):
            u, v = np.rot90(frames[i], axes=(-1, -2)).swapaxes(0, 1)
            frames[i], mask[i] = np.stack([-v, u], 1), np.rot90(mask[i], axes=(-1, -2))
    return frames, mask


def test_a_run_on_currents_recomputed_from_its_files(ocean_run, tmp_path):
    """Every score of metrics.json, by way of best.pt, the frames, masks and group elements as they lie on the disk."""
    data, run = ocean_run
    meta, metrics = (json.loads(path.read_text()) for path in (data / "meta.json", run / "metrics.json"))
    windows = json.loads((run / "windows.json").read_text())
    with open(run / "log.csv") as file:
        valid = [float(row["valid_rmse"]) for row in csv.DictReader(file)]
    assert metrics["best_epoch"] == 1
    assert valid[0] < valid[1]
    net = build_model("ResNet", "None", 4, width=0.03125).eval()
    net.load_state_dict(torch.load(run / "best.pt", weights_only=True)["model"])

    frames, mask = windows_of(data, meta, "valid")
    assert (~mask).mean() > 0.1  # there is land
    expected = rmse_of(forecasts_of(net, frames[:, :4], mask, 2), frames[:, 4:6], mask)
    assert metrics["valid_rmse"] == pytest.approx(valid[0])
    assert metrics["valid_rmse"] == pytest.approx(expected, rel=1e-5)

    sets = {name: windows_of(data, meta, name) for name in ("test", "domain")}
    frames, mask = sets["test"]
    elements = {name: np.load(data / f"test_{name.lower()}.npz")["elements"] for name in ("UM", "Mag", "Rot", "Scale")}
    sets["UM"] = frames + elements["UM"][:, None, :, None, None], mask
    sets["Mag"] = frames * elements["Mag"][:, None, None, None, None], mask
    sets["Rot"] = turned(frames.copy(), mask.copy(), np.rint(elements["Rot"] / 90).astype(int))
    assert set(metrics["scores"]) == {*sets, "Scale"}
    for name, (frames, mask) in sets.items():
        forecast, truth = forecasts_of(net, frames[:, :4], mask, 10), frames[:, 4:]
        still = np.broadcast_to(frames[:, 3:4], truth.shape)
        assert metrics["scores"][name]["rmse"] == pytest.approx(rmse_of(forecast, truth, mask), rel=1e-4), name
        assert metrics["scores"][name]["ese"] == pytest.approx(ese_of(forecast, truth, mask), rel=1e-3), name
        baselines = metrics["baselines"]
        assert baselines["persistence"][name]["rmse"] == pytest.approx(rmse_of(still, truth, mask), rel=1e-5), name
        damping, steps = metrics["damping"], np.arange(1, 11)[:, None, None, None]
        damped = damping["damped persistence"] ** steps * frames[:, 3:4]
        assert baselines["damped persistence"][name]["rmse"] == pytest.approx(rmse_of(damped, truth, mask), rel=1e-5)
        trend = frames[:, 3:4] + (frames[:, 3:4] - frames[:, 2:3]) * (damping["damped trend"] ** steps).cumsum(0)
        assert baselines["damped trend"][name]["rmse"] == pytest.approx(rmse_of(trend, truth, mask), rel=1e-5)
        per_window = [rmse_of(f[None], t[None], m[None]) ** 2 for f, t, m in zip(forecast, truth, mask, strict=True)]
        np.testing.assert_allclose(windows[name], per_window, rtol=1e-3)

    # climatology: the mean of the training frames at the window's place
    mean = np.load(data / "train.npy").mean(1)
    entry, (frames, mask) = meta["splits"]["test"], sets["test"]
    tiles = (entry["first"] + np.arange(entry["count"])) % len(mean)
    expected = rmse_of(np.broadcast_to(mean[tiles][:, None], frames[:, 4:].shape), frames[:, 4:], mask)
    assert metrics["baselines"]["climatology"]["test"]["rmse"] == pytest.approx(expected, rel=1e-5)
    turned_mean, _ = turned(mean[tiles][:, None].copy(), mask.copy(), np.rint(elements["Rot"] / 90).astype(int))
    frames, mask = sets["Rot"]
    expected = rmse_of(np.broadcast_to(turned_mean, frames[:, 4:].shape), frames[:, 4:], mask)
    assert metrics["baselines"]["climatology"]["Rot"]["rmse"] == pytest.approx(expected, rel=1e-5)
    assert not {"domain", "Scale"} & metrics["baselines"]["climatology"].keys()

    # equivariance: what the net makes of the turned flow, and the turned forecast of the flow
    frames, mask = sets["test"]
    quarters = np.rint(elements["Rot"] / 90).astype(int)
    expected, _ = turned(forecasts_of(net, frames[:, :4], mask, 10), mask.copy(), quarters)
    frames, mask = sets["Rot"]
    difference = rmse_of(forecasts_of(net, frames[:, :4], mask, 10), expected, mask)
    found = metrics["equivariance_error"]["Rot"]
    assert found["absolute"] == pytest.approx(difference, rel=1e-4)
    assert found["relative"] == pytest.approx(difference / rmse_of(expected, 0 * expected, mask), rel=1e-4)

    # scale: a mean over windows, of which the factors have different numbers; factor 1 leaves its windows as they are
    rows = metrics["scores"]["Scale"]["by_factor"]
    counts = {f"{f:g}": int((elements["Scale"] == f).sum()) for f in np.unique(elements["Scale"])}
    assert {f: row["windows"] for f, row in rows.items()} == counts
    assert len(set(counts.values())) > 1
    mean_square = sum(counts[f] * row["rmse"] ** 2 for f, row in rows.items()) / sum(counts.values())
    assert metrics["scores"]["Scale"]["rmse"] == pytest.approx(np.sqrt(mean_square))
    mean_ese = sum(counts[f] * row["ese"] for f, row in rows.items()) / sum(counts.values())
    assert metrics["scores"]["Scale"]["ese"] == pytest.approx(mean_ese)
    ones = elements["Scale"] == 1
    frames, mask = (part[ones] for part in sets["test"])
    expected = rmse_of(forecasts_of(net, frames[:, :4], mask, 10), frames[:, 4:], mask)
    assert rows["1"]["rmse"] == pytest.approx(expected, rel=1e-4)

    # scored again, batch norms and all
    arguments = ["--evaluate", str(run), "--data_dir", str(data.parent), "--output", str(tmp_path / "again.json")]
    assert exit_code(lambda: run_model.main([*arguments, "--device", "cpu"])) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    for name in ("scores", "baselines", "equivariance_error"):
        assert again[name] == metrics[name]
