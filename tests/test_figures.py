"""The figures: the mathematics behind them, the files they leave, what they refuse."""

import json
import math

import numpy as np
import pytest
from matplotlib import rc_context
from PIL import Image

from evaluation import figures
from evaluation.figures import STYLE, autocorrelation, main, rocking_period, roll_shares, vorticity
from simulation.rayleigh_benard import PRESETS, simulate
from utils import exit_code


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
    x, z = figures.convection_grid(settings)
    assert x[[0, 1, 2, -2]] == pytest.approx([-1.5 / 128, 0.5 / 128, 2.5 / 128, 7 + 0.5 / 128])
    assert z[[0, 1, 2, -2, -1]] == pytest.approx([0, 0.5 / 128, 2.5 / 128, 126.5 / 128, 1])
    field = figures.between_walls(np.arange(6).reshape(2, 3), 0.5, -0.5)
    assert field.tolist() == [[0.5] * 6, [2, 0, 1, 2, 0, 1], [5, 3, 4, 5, 3, 4], [-0.5] * 6]


@pytest.mark.parametrize(("number", "text"), [(1e7, "$10^{7}$"), (2.5e8, r"$2.5 \times 10^{8}$")])
def test_scientific(number, text):
    assert figures.scientific(number) == text


# ---------------------------------------------------------------- convection


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A short simulation with its two files beside it."""
    path = tmp_path_factory.mktemp("convection") / "rbc_tiny.npy"
    simulate(PRESETS["tiny"], path)
    return path


def test_convection(tmp_path, simulated, capsys):
    np.save(tmp_path / "rolls.npy", rolls(25).astype(np.float32))
    main(["convection", str(simulated), str(tmp_path / "rolls.npy"), "--figures", str(tmp_path / "figures")])
    assert pictures(tmp_path / "figures") == ["rbc_tiny.gif", "rbc_tiny.pdf", "rbc_tiny.png"]
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
    flow = figures.load_convection(simulated)
    with rc_context(STYLE):
        figure = figures.draw_convection(flow, figures.load_temperature(simulated, flow), -1)
    *_, lowest = panels = [axes for axes in figure.axes if axes.get_title("left")]
    assert [axes.get_ylabel() for axes in panels] == ["z / H"] * 3
    assert lowest.get_xlabel() == "x / H"
    assert lowest.get_xlim() == (0, 2)
    bars = [axes.child_axes[0].get_ylabel() for axes in panels]
    assert bars == [r"$\Delta$", "$U$", "$U/H$"]


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


def test_nothing_half_written(tmp_path, simulated, monkeypatch):
    monkeypatch.setattr(figures.Image.Image, "save", lambda *a, **b: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        main(["convection", str(simulated), "--figures", str(tmp_path)])
    assert pictures(tmp_path) == []
