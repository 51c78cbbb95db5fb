"""How far data are from a symmetry: by their turned twins, or bounded by the errors of strict nets."""

import numpy as np
import pytest
from made import write_run
from prepared import prepare

from evaluation import breaking, summary
from evaluation.runs import group_runs, load_runs
from flows.store import load_meta
from flows.windows import Windows
from simulation import smoke
from utils import exit_code


@pytest.fixture
def levels(tmp_path, monkeypatch):
    """The prepared levels 0 and 3, on 16 x 16 cells."""
    monkeypatch.setitem(smoke.SIZES, "small", (16, 6))
    for level in (0, 3):
        assert prepare("smoke", "--set", "levels", "--level", level, "--data_dir", tmp_path) == 0
    return [tmp_path / f"smoke_levels_{level}" for level in (0, 3)]


def error_of(folder):
    meta = load_meta(folder)
    return breaking.data_error(Windows(folder, meta, "train"), meta).get("Rot")


def test_error_of_turned_twins(levels):
    """By NumPy, from the stored frames: u, v and the grid turned as often as it takes to turn a plume back."""
    zero, three = map(error_of, levels)
    assert zero["relative"] < 1e-5  # float32 frames of one flow, four times
    frames = np.load(levels[1] / "train.npy")[0].astype(float)
    first, *others = frames.reshape(4, -1, *frames.shape[1:])
    std = np.array(load_meta(levels[1])["std"])[[0, 0, 1], None, None]
    differences, sizes, squares = [], [], [np.mean(first**2)]
    for turns, flow in enumerate(others, 1):
        flow = np.rot90(flow, turns, (-2, -1))  # rows count upwards, so this is clockwise
        for _ in range(turns):
            flow = np.stack([flow[:, 1], -flow[:, 0], *flow[:, 2:].swapaxes(0, 1)], 1)
        differences.append(np.mean((flow - first) ** 2))
        sizes.append(np.mean((np.abs(flow - first) * std)[:, :2]))  # of u and v
        squares.append(np.mean(flow**2))
    assert three["absolute"] == pytest.approx(np.mean(sizes), rel=1e-6)
    assert three["relative"] == pytest.approx(np.sqrt(np.mean(differences) / np.mean(squares)), rel=1e-6)
    assert three["relative"] > 0.3


def test_no_twins(levels):
    meta = load_meta(levels[1])
    windows = Windows(levels[1], meta, "train")
    del meta["splits"]["train"]["parameters"]["turns"]
    assert breaking.data_error(windows, meta) == {}


def test_the_command(levels, tmp_path, capsys):
    data = load_meta(levels[1])["id"]
    results = tmp_path / "results"
    for symmetry, rmse, other in (
        ("Rot", 0.3, {}),
        ("Rot", 0.2, {"width": 0.5}),
        ("Rot", 0.1, {"relaxed": 1}),  # not strict
        ("None", 0.1, {}),
        ("UM", 0.4, {}),
        ("Mag", 0.4, {}),
        ("Scale", 0.1, {}),  # not exact
    ):
        write_run(results, {"test": (rmse, 1)}, data=data, symmetry=symmetry, **other)
    assert exit_code(lambda: breaking.main([str(levels[1]), "--results", str(results)])) == 0
    out = capsys.readouterr().out
    parting, *bounds = out.splitlines()[1:]
    assert f"{error_of(levels[1])['relative']:.4f} of the flow" in parting
    words = "their futures differ by at most {} standard deviations, by RBC_ResNet_{}"
    for name, bound in (("Rot", "0.4000"), ("UM", "0.8000"), ("Mag", "1.2000")):
        assert any(line.strip().startswith(name) and words.format(bound, name) in line for line in bounds)
    assert len(bounds) == 3
    assert exit_code(lambda: breaking.main([str(tmp_path / "smoke_levels_0"), "--results", str(results)])) == 0
    assert "differ" not in capsys.readouterr().out  # runs on other data
    assert exit_code(lambda: breaking.main([str(tmp_path / "nothing")])) == 2
    assert "no prepared data in" in capsys.readouterr().err


def test_figure(tmp_path):
    """A curve per net over the data sets, in the order of their errors, whatever that of their names."""
    for level, error in (("a", 0.4), ("b", 0.0), ("c", 0.2)):
        settings = {"dataset": level, "data": level, "data_error": {"Rot": {"absolute": error}}}
        settings["architecture"] = "ConvNet"
        scores = {"test": (error + 1, 1), "Rot": (error + 1, 1), "domain": (error + 3, 1)}
        settings["persistence"] = 2
        write_run(tmp_path, scores, symmetry="Rot", **settings)
        write_run(tmp_path, scores, symmetry="Rot", relaxed=1, **settings)
    write_run(tmp_path, {"test": (1, 1)}, symmetry="Rot")  # of unknown error
    groups = group_runs(load_runs(tmp_path))
    left, middle, right = summary.draw_breaking(groups).axes
    strict, relaxed = left.lines
    assert (strict.get_label(), relaxed.get_label()) == ("Rot", "Rot, relaxed 1.0")
    np.testing.assert_array_equal(strict.get_xdata(), [0, 0.2, 0.4])
    np.testing.assert_array_equal(strict.get_ydata(), [0.5, 0.6, 0.7])
    np.testing.assert_array_equal(middle.lines[0].get_ydata(), [1.5, 1.6, 1.7])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [0.25] * 3)
    assert (strict.get_color(), relaxed.get_color()) == (summary.LEAVES["not"], summary.LEAVES["gains"])
    assert summary.draw_breaking(groups[:1]) is None


def test_figure_of_deviations(tmp_path):
    for seed, size in enumerate((0.1, 0.3)):
        deviations = {"first": size, "first_bias": 7, "second": 2 * size}
        write_run(tmp_path, {"test": (1, 1)}, symmetry="Rot", relaxed=1, seed=seed, deviations=deviations)
    write_run(tmp_path, {"test": (1, 1)}, symmetry="Rot")
    groups = group_runs(load_runs(tmp_path))
    (line,) = summary.draw_deviations(groups).axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2])
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.4])
    assert summary.draw_deviations(groups[:1]) is None
