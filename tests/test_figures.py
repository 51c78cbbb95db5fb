"""The figures: the mathematics behind them, the files they leave, what they refuse."""

import json
import math
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from PIL import Image

import run_model
from evaluation import convection, figures, report, summary
from evaluation.baselines import persistence
from evaluation.convection import autocorrelation, rocking_period, roll_shares, spectrum_along_x, vorticity
from evaluation.figures import SWEEPS, TEST_STEPS, main
from evaluation.rmse import rmse
from evaluation.runs import Group
from evaluation.spectrum import power_law, velocity_spectrum
from evaluation.style import COLOURS, LINES, STYLE, curves, labels, new_figure, save
from flows.store import identity
from models import ARCHITECTURES, SYMMETRIES, build_model
from models.fields import components
from simulation.rayleigh_benard import PRESETS, simulate
from utils import InputError, exit_code


def pictures(folder):
    return sorted(path.name for path in folder.iterdir())


def failure(capsys, *command):
    """The one line that a refused command prints."""
    assert exit_code(lambda: main([str(word) for word in command])) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


# ---------------------------------------------------------------- mathematics


def test_vorticity_of_a_solid_body_vortex():
    """Exactly 2 everywhere, the border included, also on points that are not evenly spaced."""
    x, y = np.linspace(-1, 2, 9), np.array([0, 0.1, 0.3, 0.7, 1.3, 1.5])
    u, v = -(y[:, None] - 0.4) + 0 * x, (x - 0.7) + 0 * y[:, None]
    assert vorticity(u, v, x, y) == pytest.approx(2 * np.ones((6, 9)))
    assert vorticity(v, -u, x, y) == pytest.approx(np.zeros((6, 9)))  # a strain


def test_autocorrelation_of_a_travelling_wave():
    """cos(x - 2 pi t / 20) over whole periods: cos(2 pi lag / 20)."""
    time, x = np.arange(400)[:, None], 2 * np.pi * np.arange(16) / 16
    found = autocorrelation(3 + np.cos(x - 2 * np.pi * time / 20))
    assert found == pytest.approx(np.cos(2 * np.pi * np.arange(201) / 20), abs=1e-12)


def rolls(period, frames=120, rows=6, columns=32):
    """Two pairs of rolls whose wind at half height rocks with a period in frames."""
    time, x = np.arange(frames)[:, None, None], 2 * np.pi * np.arange(columns) / columns
    flow = np.zeros((frames, 2, rows, columns))
    flow[:, 0] = np.cos(2 * np.pi * time / period) * np.sin(2 * x)
    flow[:, 1] = np.cos(2 * x) + 0.5 * np.cos(3 * x)
    return flow


@pytest.mark.parametrize("period", [8, 25])
def test_rocking_period(period):
    assert rocking_period(rolls(period)) == period


def test_what_drifts_does_not_rock():
    flow = rolls(25)
    flow[:, 0] = np.linspace(0, 1, len(flow))[:, None, None]
    assert rocking_period(flow) is None


def test_roll_shares():
    assert roll_shares(rolls(25)) == pytest.approx(np.eye(17)[2] * 0.8 + np.eye(17)[3] * 0.2)


def test_walls_and_period_are_on_the_grid():
    settings = PRESETS["medium"]
    x, z = convection.convection_grid(settings)
    assert x[[0, 1, 2, -2]] == pytest.approx([-1.5 / 128, 0.5 / 128, 2.5 / 128, 7 + 0.5 / 128])
    assert z[[0, 1, 2, -2, -1]] == pytest.approx([0, 0.5 / 128, 2.5 / 128, 126.5 / 128, 1])
    field = convection.between_walls(np.arange(6).reshape(2, 3), 0.5, -0.5)
    assert field.tolist() == [[0.5] * 6, [2, 0, 1, 2, 0, 1], [5, 3, 4, 5, 3, 4], [-0.5] * 6]


@pytest.mark.parametrize(("number", "text"), [(1e7, "$10^{7}$"), (2.5e8, r"$2.5 \times 10^{8}$")])
def test_scientific(number, text):
    assert convection.scientific(number) == text


def test_spectrum_along_x():
    """A mode of amplitude a has the variance a^2 / 2; with the spacing of wavenumbers the density adds up to it."""
    x = 7 * np.arange(28) / 28
    fields = np.zeros((3, 2, 8, 28))
    fields[:, 0] = 5 + 3 * np.cos(2 * np.pi * 4 / 7 * x)
    fields[:, 1] = 2 * np.sin(2 * np.pi * 6 / 7 * x)
    fields[:, :, :2] = fields[:, :, 6:] = 100 * np.random.default_rng(0).standard_normal((2, 28))  # outside
    k, spectrum = spectrum_along_x(fields, 7)
    assert k == pytest.approx(np.arange(1, 15) / 7)
    assert spectrum / 7 == pytest.approx(4.5 * np.eye(14)[3] + 2 * np.eye(14)[5])


def test_inertial_range():
    settings = PRESETS["medium"]
    low, high = convection.inertial_range({"settings": settings, "nusselt": 26})
    dissipation = (26 - 1) / (settings.ra * settings.pr) ** 0.5  # in U^3 / H, exact
    viscosity = (settings.pr / settings.ra) ** 0.5
    assert low == 1
    assert convection.inertial_range({"settings": PRESETS["small"], "nusselt": 14.3}) is None  # 1 to 2 waves per height
    assert 2 * math.pi * high * (viscosity**3 / dissipation) ** 0.25 == pytest.approx(0.1)


def test_velocity_spectrum_adds_up_to_the_energy():
    flow = torch.randn(2, 3, 2, 12, 20, dtype=torch.float64) + 7
    across, down = (torch.sin(math.pi * (torch.arange(n) + 0.5) / n) ** 2 for n in (20, 12))
    window = down[:, None] * across
    energy = (flow - flow.mean((-2, -1), keepdim=True)).square().sum(2).mean(1) / 2
    weighted = (energy * window.square()).sum((1, 2)) / window.square().sum()
    assert velocity_spectrum(flow).sum(1) == pytest.approx(weighted)
    assert velocity_spectrum(2 * flow - 30) == pytest.approx(4 * velocity_spectrum(flow))


def test_velocity_spectrum_of_one_wave():
    """A Hann window spreads a mode over its neighbours only; it stands still where it is land."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    flow = torch.zeros(1, 1, 2, 32, 32, dtype=torch.float64)
    flow[:, :, 0] = torch.cos(2 * math.pi * (6 * x + 8 * y) / 32)
    spectrum = velocity_spectrum(flow)[0]
    assert spectrum[8:13].sum() == pytest.approx(spectrum.sum())
    assert spectrum.argmax() == 10
    land = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    land[..., :16] = True
    spoilt = torch.where(land[:, None], flow, 1e3)
    assert torch.equal(velocity_spectrum(spoilt, land), velocity_spectrum(flow, land))


def test_power_law():
    k = np.arange(1, 100)
    energy = np.where((k >= 4) & (k <= 40), 7.0 * k ** (-11 / 5), 1)
    assert power_law(k, energy, 4, 40) == pytest.approx(-11 / 5)
    with pytest.raises(ValueError, match="a slope needs two wavenumbers, there are 1 from 4.5 to 5.5"):
        power_law(k, energy, 4.5, 5.5)


# ---------------------------------------------------------------- convection


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A short simulation with its two files beside it."""
    path = tmp_path_factory.mktemp("convection") / "rbc_tiny.npy"
    simulate(PRESETS["tiny"], path)
    return path


def test_convection(tmp_path, simulated, capsys):
    np.save(tmp_path / "rolls.npy", rolls(25).astype(np.float32))
    command = ["convection", str(simulated), str(tmp_path / "rolls.npy"), "--figures", str(tmp_path / "figures")]
    main(command)
    assert pictures(tmp_path / "figures") == ["rbc_tiny.png", "rbc_tiny_spectrum.png"]
    capsys.readouterr()
    main([*command, "--pdf", "--animate"])
    assert pictures(tmp_path / "figures") == [
        *("rbc_tiny.gif", "rbc_tiny.pdf", "rbc_tiny.png", "rbc_tiny_spectrum.pdf", "rbc_tiny_spectrum.png")
    ]
    with Image.open(tmp_path / "figures" / "rbc_tiny.gif") as animation:
        assert animation.n_frames == PRESETS["tiny"].frames
    rows = {line[:44].strip(): line[44:].split() for line in capsys.readouterr().out.splitlines()}
    report = json.loads(simulated.with_suffix(".json").read_text())
    assert rows["Nusselt number"] == [f"{report['nusselt']:.2f}", "-"]
    assert rows["frames in which they rock to and fro"][-1] == "25"
    assert rows["strongest wavenumber of the rolls"][-2:] == ["2", "(80%)"]
    wave = [math.cos(2 * math.pi * lag / 25) for lag in (1, 2, 5, 10)]
    found = [float(word) for word in rows["correlation of u, 1, 2, 5, 10 frames apart"][-4:]]
    assert found == pytest.approx(wave, abs=0.02)


def test_convection_axes_are_labelled(simulated):
    flow = convection.load_convection(simulated)
    with rc_context(STYLE):
        figure = convection.draw_convection(flow, convection.load_temperature(simulated, flow), -1)
    *_, lowest = panels = [axes for axes in figure.axes if axes.get_title("left")]
    assert [axes.get_ylabel() for axes in panels] == ["z / H"] * 3
    assert lowest.get_xlabel() == "x / H"
    assert lowest.get_xlim() == (0, 2)
    bars = [axes.child_axes[0].get_ylabel() for axes in panels]
    assert bars == [r"$\Delta$", "$U$", "$U/H$"]


def test_no_slope_is_fitted_without_an_inertial_range(simulated):
    flow = convection.load_convection(simulated)
    with rc_context(STYLE):
        left, _ = convection.draw_spectrum(flow, convection.load_temperature(simulated, flow)).axes
    assert left.get_title("left") == "kinetic energy, no inertial range"


def test_convection_without_its_files(tmp_path, simulated, capsys):
    raw = tmp_path / "rbc.npy"
    command = ("convection", raw, "--figures", tmp_path / "figures")
    assert "rbc.npy is not there, wanted a file" in failure(capsys, *command)
    raw.write_bytes(simulated.read_bytes())
    raw.with_suffix(".json").write_bytes(simulated.with_suffix(".json").read_bytes())
    assert "rbc_temperature.npy is not there; remove rbc.npy and simulate again" in failure(capsys, *command)
    raw.with_suffix(".json").write_text("{}")
    assert "rbc.json is broken; remove" in failure(capsys, *command)
    np.save(raw, np.zeros((5, 3, 4, 4)))
    assert "has shape (5, 3, 4, 4), wanted (T, 2, H, W)" in failure(capsys, *command)
    assert not (tmp_path / "figures").exists()


def test_nothing_half_written(tmp_path, monkeypatch):
    def disk_full(file, format):
        file.write_text("half")
        raise OSError("disk full")

    figure = new_figure(1)
    monkeypatch.setattr(figure, "savefig", disk_full)
    with pytest.raises(OSError, match="disk full"):
        save(figure, tmp_path / "figure", pdf=True)
    assert pictures(tmp_path) == []


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def results(data_dir, tmp_path_factory):
    """A plain net and one with uniform motion, hardly trained."""
    folder = tmp_path_factory.mktemp("results")
    for symmetry in ("None", "UM"):
        command = f"--architecture Unet --input_length {5 if symmetry == 'UM' else 4} --output_length 1 --width 0.125"
        command += f" --num_epoch 1 --device cpu --symmetry {symmetry} --data_dir {data_dir} --results {folder}"
        run_model.main(command.split())
    for file in folder.glob("*/metrics.json"):  # as if they had not been tested by upscaling factor
        metrics = json.loads(file.read_text())
        metrics["scores"].pop("Scale", None)
        file.write_text(json.dumps(metrics))
    return folder


@pytest.fixture(scope="module")
def runs(results, data_dir):
    loaded = [figures.open_run(folder, [data_dir], torch.device("cpu")) for folder in sorted(results.iterdir())]
    assert [run.symmetry for run in loaded] == ["None", "UM"]
    return loaded


def test_runs(tmp_path, results, data_dir):
    command = ["runs", *map(str, results.iterdir()), "--data_dir", str(tmp_path), str(data_dir)]
    main([*command, "--figures", str(tmp_path / "figures"), "--device", "cpu"])
    names = ["RBC_errors", "RBC_learning"]
    names += [f"RBC_Unet_{kind}" for kind in ("UM", "original", "spectra", "transformed_UM")]
    assert pictures(tmp_path / "figures") == [f"{name}.png" for name in sorted(names)]
    main([*command, "--only", "original", "sweeps", "--pdf", "--animate", "--figures", str(tmp_path / "some")])
    names, endings = ("RBC_Unet_UM", "RBC_Unet_original"), ("gif", "pdf", "png")
    assert pictures(tmp_path / "some") == [f"{name}.{ending}" for name in names for ending in endings]


def test_own_data_and_runs_beyond_one_per_symmetry(tmp_path, results, data_dir, capsys):
    """Data of any name are drawn; nets that the maps have no room for are named."""
    shutil.copytree(data_dir / "rbc", tmp_path / "mine")
    folders = [shutil.copytree(sorted(results.iterdir())[0], tmp_path / name) for name in ("first", "second")]
    for seed, folder in enumerate(folders):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "dataset": "mine", "seed": seed}))
    command = ["runs", *map(str, folders), "--data_dir", str(tmp_path), "--device", "cpu", "--only", "learning"]
    main([*command, "--figures", str(tmp_path / "figures")])
    assert pictures(tmp_path / "figures") == ["mine_learning.png"]
    assert f"show one net per symmetry, without {folders[1]}\n" in capsys.readouterr().out


def test_labels_say_how_nets_differ():
    """Nothing that they share, the architecture included; a symmetry's options where its own nets differ."""

    def config(symmetry, **settings):
        return {**group(symmetry).runs[0], **settings}

    assert labels([config("None"), config("UM"), config("Rot")]) == ["plain", "UM", "Rot"]
    assert labels([config("None", width=1), config("Scale")]) == ["plain, width 1", "Scale, width 0.25"]
    nets = [config("None", num_epoch=4), config("None", architecture="ResNet", frame=["UM", "Mag"])]
    assert labels(nets) == ["plain Unet, epochs 4", "plain ResNet, epochs 2, frame UM+Mag"]
    nets = [config("Scale", variant="drift"), config("None", augment=["UM"], train_fraction=0.1)]
    assert labels(nets) == ["Scale, variant drift", "plain, augmented UM, fraction 0.1"]
    assert labels([config("UM", padding="circular"), config("UM")]) == ["UM, padding circular", "UM"]
    nets = [config("Scale"), config("Scale", num_scales=3), config("Rot")]
    assert labels(nets) == ["Scale, num_scales 5", "Scale, num_scales 3", "Rot"]
    first, second, third = curves(nets)
    assert first["linestyle"] == third["linestyle"] == "-" != second["linestyle"]
    first, second, third = curves([config("UM"), config("UM", width=1), config("UM", architecture="ResNet")])
    assert first["linestyle"] == second["linestyle"] == "-" != third["linestyle"]
    assert first["alpha"] == third["alpha"] == 1 > second["alpha"]
    assert LINES.keys() == ARCHITECTURES.keys()
    assert COLOURS.keys() == SYMMETRIES.keys()


def test_what_is_drawn_of_a_vortex_and_a_temperature():
    """Solid-body rotation has the speed |x| and the vorticity 2 on every cell whose neighbours count."""
    y, x = np.mgrid[:7.0, :9.0]
    flow, mask = torch.tensor(np.stack([-y, x, x + 10 * y]))[None, None], torch.ones(1, 1, 7, 9, dtype=torch.bool)
    mask[..., 3, 4] = False
    drawn = figures.quantities(("vector", "scalar"))
    speed, vorticity, scalar = (quantity.values(figures.numbers(flow, mask)[0]) for quantity in drawn)
    land, beside = np.zeros((2, 7, 9), bool)
    land[3, 4] = True
    beside[[2, 3, 3, 3, 4], [4, 3, 4, 5, 4]] = True
    np.testing.assert_allclose(speed, np.where(land, np.nan, np.hypot(x, y)))
    np.testing.assert_allclose(vorticity, np.where(beside, np.nan, 2))
    np.testing.assert_allclose(scalar, np.where(land, np.nan, x + 10 * y))
    low, high = drawn[1].limits(vorticity)
    assert (low, high) == (-2, 2)


class Growing:
    """Windows of a pattern that gets stronger in time."""

    def __init__(self, fields):
        self.fields = fields
        self.frames = torch.randn(4, 1, components(fields), 16, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.frames)

    def read(self, index, past, future):
        strength = torch.linspace(1, 2, past + future)[:, None, None, None]
        return self.frames[index] * strength, None


@pytest.mark.parametrize(
    ("fields", "symmetries", "drawn"),
    [
        (("vector",), ["Rot"], ["speed", "vorticity", "error"]),
        (("scalar",), ["UM"], ["scalar", "error"]),
        (("vector", "scalar"), ["UM", "Mag"], ["speed", "vorticity", "scalar", "error"]),
    ],
)
def test_data_of_any_fields(fields, symmetries, drawn):
    """Maps on one scale for the target and all nets; spectra; along a sweep only the plain net's error changes."""
    nets, windows = [], Growing(fields)
    for name in ("None", *symmetries):
        config = {**group(name).runs[0], "input_length": 3, "batch_size": 4}
        torch.manual_seed(0)
        model = build_model("Unet", name, 3, width=0.125, fields=fields).eval()
        nets.append(figures.Run(None, config, {}, [], windows, {}, model))
    with rc_context(STYLE):
        axes = figures.draw_original(nets, 1).axes
        _, spectra = figures.draw_spectra(nets).axes
    panels, bars = axes[: len(drawn)], axes[len(drawn) :]
    assert [bar.get_xlabel().split(" / ")[0] for bar in bars] == drawn
    assert [row.get_text() for row in panels[0].get_yticklabels()] == ["target", "persistence", "plain", *symmetries]
    assert all(len({image.get_clim() for image in panel.images}) == 1 for panel in panels)
    frames, _ = windows.read([1], 3, TEST_STEPS)
    for image, step in zip(panels[-1].images, figures.STEPS_SHOWN, strict=False):  # first those of persistence
        np.testing.assert_allclose(image.get_array(), (frames[0, 2 + step] - frames[0, 2]).norm(dim=0), rtol=1e-5)
    target = windows.read(torch.arange(4), 3, TEST_STEPS)[0][:, 3:, :2]  # scalars beside a velocity have no energy
    energy = velocity_spectrum(target).mean(0)[1:9]
    np.testing.assert_allclose(spectra.lines[0].get_ydata(), energy)
    for name in symmetries:
        exact = slice(None, None, 4 if name == "Rot" else 1)
        (plain, *_), (errors, _, returned) = (figures.sweep(net, name) for net in figures.own_and_plain(nets, name))
        assert errors[exact] == pytest.approx(errors[0], rel=1e-3)
        assert returned[exact][-1] == pytest.approx(returned[0], abs=1e-3)
        assert np.ptp(plain[exact]) > 100 * np.ptp(errors[exact])
        figures.draw_sweep(figures.own_and_plain(nets, name), name)


def test_sweep(runs):
    plain, equivariant = runs
    frames, _ = figures.read(runs, figures.evenly_spread(plain.windows, figures.SWEEP_SAMPLES))
    assert frames.shape[1:] == (5 + TEST_STEPS, 2, 16, 16)
    target, forecast = frames[:, 5:], figures.forecast(plain, frames, None)
    still = persistence(frames[:, :5], TEST_STEPS)
    errors, inputs, returned = figures.sweep(plain, "UM")
    assert errors[0] == pytest.approx((rmse(forecast, target) / rmse(still, target)).item())
    assert returned[0] == pytest.approx(forecast[0, -1].norm(dim=0))
    assert inputs[0] == pytest.approx(frames[0, 4].norm(dim=0))
    errors, _, returned = figures.sweep(equivariant, "UM")
    assert errors == pytest.approx(len(errors) * [errors[0]], rel=1e-4)
    assert returned[-1] == pytest.approx(returned[0], abs=1e-4)


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("fields", [("vector",), ("scalar",), ("vector", "scalar")])
def test_sweeps_are_paths_with_inverses(name, fields):
    path, symmetry = SWEEPS[name], SYMMETRIES[name].on(fields)
    assert set(path.shown) <= set(path.strengths)
    g = figures.elements(symmetry, path.strengths[4], 5).double()
    frames = torch.randn(5, 2, components(fields), 16, 16, dtype=torch.float64)
    assert symmetry.act(path.inverse(g), symmetry.act(g, frames)) == pytest.approx(frames)
    size = g.norm(dim=1) if name == "UM" else g
    assert size == pytest.approx(torch.full_like(size, path.strengths[4]))
    assert path.at(path.strengths[4]) == {"UM": "|c| = 2", "Mag": r"$\lambda$ = 2", "Rot": r"$\theta$ = 90°"}[name]


def test_a_transformed_window_is_one_that_changes(runs, monkeypatch):
    """The first from the middle on; the title says by what, angles with their unit."""
    plain, _ = runs
    middle, titles = len(plain.windows) // 2, []
    monkeypatch.setattr(figures, "draw_forecasts", lambda runs, frames, mask, title: titles.append(title))
    angles = torch.full((len(plain.windows),), 360.0)
    angles[[0, middle + 1, middle + 2]] = torch.tensor([180.0, 90, 270])
    figures.draw_transformed([figures.Run(**{**vars(plain), "elements": {"Rot": angles}})], "Rot")
    assert titles == [f"test window {middle + 1}, turned by 90°"]
    angles[:] = 360
    assert figures.draw_transformed([figures.Run(**{**vars(plain), "elements": {"Rot": angles}})], "Rot") is None


@pytest.mark.parametrize("name", SWEEPS)
def test_axes_of_sweeps_are_labelled(runs, name):
    path, figure = SWEEPS[name], new_figure(2)
    with rc_context(STYLE):
        figures.draw_sweep_errors(figure, runs, path, [range(len(path.strengths))] * 2)
    (axes,) = figure.axes
    assert axes.get_xlabel().startswith(path.symbol)
    assert axes.name == ("polar" if name == "Rot" else "rectilinear")


def test_axes_of_runs_are_labelled(runs):
    with rc_context(STYLE):
        drawn = [figures.draw_errors(runs), figures.draw_learning(runs), figures.draw_spectra(runs)]
        drawn += [figures.draw_original(runs, 0), figures.draw_transformed(runs, "UM")]
    labels = [
        {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes} for figure in drawn
    ]
    assert labels[0] == {"step", "RMSE / standard deviation", ""}
    assert labels[1] == {"epoch", "RMSE / standard deviation", ""}
    assert {"wavenumber / waves per side of the tile", "sum over a ring, $E(k)$ / variance"} < labels[2]
    for maps in labels[3:]:
        assert maps == {"", "speed / standard deviation", "vorticity / (std / cell)", "error / standard deviation"}


def group(symmetry, seeds=(0, 1), width=0.25, **values):
    """Runs of one U-Net, as evaluation.runs has them; ``values`` are functions of the seed."""
    settings = {"dataset": "RBC", "architecture": "Unet", "symmetry": symmetry, "width": width, "amp": False}
    settings |= {
        "input_length": 4,
        "output_length": 2,
        "kernel_size": 3,
        "batch_size": 8,
        "num_epoch": 2,
        "train_fraction": 1.0,
        "augment": [],
        "frame": [],
        "variant": "",
        "relaxed": None,
        "deviation": "gains",
        "padding": "",
        "weight_decay": 4e-4,
        "penalty": 0.0,
        "scale_windows": 0,
        "data": "a",
        **SYMMETRIES[symmetry].options(),
    }
    return Group(
        [{**settings, "seed": seed, **{name: value(seed) for name, value in values.items()}} for seed in seeds]
    )


def test_skill_by_upscaling_factor():
    """Means over the seeds, in the order of the factors, of the scale net and of the plain net of its width."""
    errors = {"2": 0.3, "1.25": 0.2, "10": 0.9}

    def scores(seed):
        return {"Scale": {"by_factor": {f: {"rmse": e + seed, "ese": e + seed} for f, e in errors.items()}}}

    def twice(seed):
        return {
            "persistence": {"Scale": {"by_factor": {f: {"rmse": 2} for f in errors}}},
            "climatology": {"Scale": {"by_factor": {f: {"rmse": 4} for f in errors}}},
        }

    values = {"scores": scores, "baselines": twice}
    assert summary.draw_factors([group("UM", scores=lambda seed: {"test": {}})]) is None
    nets = [group("None", **values), group("None", (1, 2), width=0.5, **values), group("Scale", **values)]
    left, right = summary.draw_factors(nets).axes
    plain, scale, still = left.lines
    assert [line.get_label() for line in left.lines] == ["plain", "Scale", "best forecast without a net"]
    np.testing.assert_allclose(scale.get_xydata(), [[1.25, 0.65], [2, 0.6], [10, 0.3]])
    np.testing.assert_allclose(plain.get_ydata(), scale.get_ydata())
    np.testing.assert_allclose(still.get_ydata(), [0, 0])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.7, 0.8, 1.4])
    lines = summary.draw_factors(nets[:2]).axes[0].lines  # no scale net: all
    assert [line.get_label() for line in lines] == [
        "plain, width 0.25",
        "plain, width 0.5",
        "best forecast without a net",
    ]


def test_error_by_number_of_samples():
    def net(symmetry, count):
        score = {"test": {"rmse": 1 / count}}
        return group(
            symmetry, train_fraction=lambda _: count / 100, train_windows=lambda _: count, scores=lambda _: score
        )

    assert summary.draw_samples([net("UM", 100), net("None", 100)]) is None
    figure = summary.draw_samples([net("UM", 100), net("UM", 10), net("None", 100), net("UM", 30)])
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[10, 0.1], [30, 1 / 30], [100, 0.01]])
    assert figure.axes[0].get_xlabel() == "training windows"


def test_learning_by_steps_and_operations():
    """The best so far, mean over the seeds; a run that has ended keeps its best."""

    def net(symmetry, *logs, **settings):
        values = {"validations": lambda seed: logs[seed], "scores": lambda _: {"UM": {}}}
        return group(symmetry, range(len(logs)), train_windows=lambda _: 20, **values, **settings)

    plain, moving = net("None", [4, 6, 1], [2]), net("UM", [3, 2], [1, 5])
    framed = net("None", [7], frame=lambda _: ["UM"])
    assert summary.draw_learning([plain, moving]) is None  # a study has rivals
    assert summary.draw_learning([plain, net("UM", [1]), framed]) is None
    left, right = summary.draw_learning([moving, framed, plain]).axes
    steps = [math.ceil(20 / plain["batch_size"]) * epoch for epoch in (1, 2, 3)]
    np.testing.assert_allclose(left.lines[0].get_xydata(), list(zip(steps, [3, 3, 1.5], strict=True)))
    np.testing.assert_allclose(left.lines[1].get_xydata(), list(zip(steps, [2, 1.5], strict=False)))
    cost = summary.operations_per_step(moving) / summary.operations_per_step(plain)
    assert 1.1 < cost < 1.6  # kernels are derived once a step: of one window and one frame it would be 1.9
    bound = group("None", variant=lambda _: "RConv", architecture=lambda _: "ConvNet", tile=lambda _: [24, 20])
    assert summary.operations_per_step(bound) > 0  # on its own grid: it refuses every other
    np.testing.assert_allclose(right.lines[0].get_xdata(), steps)
    np.testing.assert_allclose(right.lines[1].get_xdata(), np.multiply(steps[:2], cost))
    assert len(left.lines) == len(right.lines) == 2  # one seed draws no line
    left.set_xlim(130, 5000)
    left.get_figure(root=True).draw_without_rendering()
    shown = [label for label in left.get_xticklabels(which="both") if label.get_text()]
    ends = [label.get_window_extent().intervalx for label in shown if 130 <= label.get_position()[0] <= 5000]
    assert all(one[1] < other[0] for one, other in pairwise(sorted(map(tuple, ends))))  # numbers do not overlap
    assert len(ends) >= 3


def test_panels_of_learning_are_as_high_as_each_other():
    """However many nets a legend names."""

    def net(symmetry, **settings):
        values = {"validations": lambda _: [2, 1], "scores": lambda _: {"UM": {}, "Rot": {}}}
        return group(symmetry, range(2), train_windows=lambda _: 20, **values, **settings)

    framed = [net("None", frame=lambda _, name=name: [name]) for name in ("UM", "Rot")]
    turning = [net("Rot", width=eighths / 8) for eighths in range(1, 9)]
    figure = summary.draw_learning([net("None"), *framed, net("UM"), *turning])
    figure.draw_without_rendering()
    heights = [axes.get_window_extent().height for axes in figure.axes]
    assert len(heights) == 4
    assert max(heights) < 1.15 * min(heights)


def test_what_a_layer_is_worth():
    """Dots per seed in units of persistence, a panel for a symmetry that has rivals, the plain net first."""

    def net(symmetry, error, **settings):
        scores = {"test": {"rmse": error}, symmetry if symmetry != "None" else "UM": {"rmse": 2 * error}}
        still = {"persistence": {"test": {"rmse": 0.5}, "UM": {"rmse": 1.0}}}
        values = {"scores": lambda seed: scores, "baselines": lambda seed: still}
        return group(symmetry, **values, **{name: lambda _, value=value: value for name, value in settings.items()})

    nets = [net("UM", 0.1), net("None", 0.3, augment=["UM"]), net("Mag", 0.2), net("None", 0.2, frame=["Mag"])]
    plain = net("None", 0.4)
    assert summary.draw_worth([nets[0], plain, net("UM", 0.3, relaxed=1.0)]) is None
    (axes,) = summary.draw_worth([*nets, plain]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["plain", "plain, augmented UM", "UM"]
    found = [dots.get_offsets().tolist() for dots in axes.collections]
    errors = [0.8, 0.6, 0.2]  # the same on both sets, of which persistence is twice as large on one
    expected = [[[error, height]] * 2 for height, error in enumerate(errors) for _ in range(2)]
    np.testing.assert_allclose(found, expected)
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata(), 0.8)
    (axes,) = summary.draw_worth([*nets, plain, net("None", 0.3, width=0.5)]).axes
    (line,) = axes.lines  # of the first plain net
    np.testing.assert_allclose(line.get_xdata(), 0.8)
    (axes,) = summary.draw_worth(nets[:2]).axes
    assert not axes.lines


def test_figures_of_a_report(tmp_path, results, capsys):
    report.main([str(results), "--figures", str(tmp_path / "figures")])
    assert "nothing to draw" in capsys.readouterr().out  # neither factors nor fractions
    for folder in results.iterdir():
        shutil.copytree(folder, tmp_path / "results" / folder.name)
        path = tmp_path / "results" / folder.name / "metrics.json"
        metrics = json.loads(path.read_text())
        for of in (metrics["scores"], metrics["baselines"]["persistence"]):
            test = of["test"]
            of["Scale"] = {**test, "by_factor": {"1": test, "2": test}}
        path.write_text(json.dumps(metrics))
    report.main([str(tmp_path / "results"), "--figures", str(tmp_path / "figures")])
    assert pictures(tmp_path / "figures") == ["RBC_factors.pdf", "RBC_factors.png"]


def test_one_run_per_symmetry(runs):
    plain, equivariant = runs
    assert figures.one_per_symmetry([equivariant, plain, equivariant, plain]) == [plain, equivariant]


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "log.csv", "best.pt"])
def test_run_that_is_not_finished(tmp_path, results, data_dir, capsys, name):
    folder = shutil.copytree(next(results.iterdir()), tmp_path / "run")
    (folder / name).unlink()
    line = failure(capsys, "runs", folder, "--data_dir", data_dir, "--figures", tmp_path / "figures")
    if name == "metrics.json":  # it may be on its way
        assert "none of these runs is finished" in line
    else:
        assert f"run has no {name}, so it is no finished run; run_model.py makes them" in line
    assert not (tmp_path / "figures").exists()


def test_runs_on_their_way_are_left_out(tmp_path, results, data_dir, capsys, monkeypatch):
    """A sweep that is not over can be drawn: what is finished is, what is not is named."""
    monkeypatch.setattr(figures, "jobs_of_architecture", lambda *a: [])
    shutil.copytree(results, tmp_path / "runs")
    first, second = sorted((tmp_path / "runs").iterdir())
    (first / "metrics.json").unlink()
    main(["runs", str(first), str(second), "--data_dir", str(data_dir), "--figures", str(tmp_path / "figures")])
    assert f"left out, because not finished: {first}\n" in capsys.readouterr().out
    assert (tmp_path / "figures" / "RBC_errors.png").exists()


@pytest.mark.parametrize("change", [{"symmetry": "Galilei"}, {"width": 0.25}, {"kernel_size": 2}])
def test_run_of_another_net(tmp_path, results, data_dir, capsys, change):
    folder = shutil.copytree(next(results.iterdir()), tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    line = failure(capsys, "runs", folder, "--data_dir", data_dir, "--figures", tmp_path / "figures")
    words = {
        "symmetry": "has the unknown symmetry 'Galilei'",
        "width": "best.pt has the weights of another net than this version makes",
        "kernel_size": "run is not a run of this program: ",
    }
    assert words[next(iter(change))] in line
    assert not (tmp_path / "figures").exists()


def test_run_whose_data_are_not_there(tmp_path, results, data_dir, capsys):
    folder = next(results.iterdir())
    line = failure(capsys, "runs", folder, "--data_dir", tmp_path, "--figures", tmp_path / "figures")
    assert f"was trained on data that are not in {tmp_path / 'rbc'}; name their folder with --data_dir" in line
    shutil.copytree(data_dir / "rbc", tmp_path / "rbc")
    meta = json.loads((tmp_path / "rbc" / "meta.json").read_text())
    meta["splits"]["train"]["sha256"] = "0"
    meta["id"] = identity(meta)
    (tmp_path / "rbc" / "meta.json").write_text(json.dumps(meta))
    line = failure(capsys, "runs", folder, "--data_dir", tmp_path, "--figures", tmp_path / "figures")
    assert "was trained on other data than those in" in line
    assert not (tmp_path / "figures").exists()


def test_runs_on_different_data_are_not_mixed(runs, tmp_path, monkeypatch):
    plain, equivariant = runs
    other = figures.Run(**{**vars(plain), "config": {**plain.config, "data": "b"}})
    loaded = iter([equivariant, other])
    monkeypatch.setattr(figures, "open_run", lambda *a: next(loaded))
    with pytest.raises(InputError, match="trained on different RBC data; draw them apart"):
        main(["runs", "a", "b", "--figures", str(tmp_path / "figures"), "--device", "cpu"])
    assert not (tmp_path / "figures").exists()
