"""The second paper's data sets of smoke plumes: which frames of which plumes are in which split."""

import numpy as np
import pytest
import torch
from prepared import prepare, raw_windows, read_meta, refused

from flows.store import load_meta
from flows.windows import Windows
from simulation import smoke


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Every sixth plume on 16 x 16 cells: a second's work."""
    monkeypatch.setitem(smoke.SIZES, "small", (16, 6))


def stored(path):
    (found,) = path.glob("smoke_*.npy")
    return np.load(found)


@pytest.mark.parametrize("name", ["translation", "rotation", "scale"])
def test_windows_of_the_release(name, tmp_path):
    """Windows start at s in the ranges of the release; nets that read 10 frames read s + 2 to s + 11."""
    assert prepare("smoke", "--set", name, "--data_dir", tmp_path) == 0
    folder, dataset = tmp_path / f"smoke_{name}", getattr(smoke, name)("small")
    meta, frames = load_meta(folder), stored(tmp_path)
    assert (meta["fields"], meta["tile"], meta["history"], meta["horizon"]) == (["vector", "scalar"], [16, 16], 12, 20)
    assert (meta["spacing"], meta["time_step"]) == ([4, 4], 1)
    assert frames.shape == (len(dataset.plumes), 281, 3, 16, 16)
    seen = [i for i in range(len(dataset.plumes)) if i not in dataset.held_out]
    assert len(seen) < len(dataset.plumes)
    scale = np.array([[meta[key][0], meta[key][0], meta[key][1]] for key in ("mean", "std")])[:, :, None, None]
    for split, plumes, first, last in (
        ("train", seen, 0, 159),
        ("valid", seen, 160, 199),
        ("test", seen, 200, 249),
        ("domain", dataset.held_out, 0, 99),
    ):
        windows = Windows(folder, meta, split)
        starts = [(i, s) for i in plumes for s in range(first, last + 1)]
        assert len(windows) == len(starts)
        for k in (0, 1, len(starts) // 2, len(starts) - 1):
            i, s = starts[k]
            read = windows.read(torch.tensor([k]), 10, 20)[0][0].numpy() * scale[1] + scale[0]
            np.testing.assert_allclose(read, frames[i, s + 2 : s + 32], atol=1e-4)
        assert meta["splits"][split]["parameters"]["center"] == [list(dataset.plumes[i].center) for i in plumes]
    assert meta["mean"][0] == 0
    assert meta["orientation"]["divergence"] < 0.6 * meta["orientation"]["reversed"]


def test_frames_are_those_of_the_simulation(tmp_path):
    """Frames 0 to 280 of it, the first dropped where the release drops it; u and v before the smoke."""
    assert prepare("smoke", "--set", "rotation", "--data_dir", tmp_path) == 0
    dataset = smoke.rotation("small")
    assert dataset.skip == 1
    expected = smoke.simulate(smoke.replace(dataset, plumes=dataset.plumes[:2], steps=41)).numpy()
    np.testing.assert_array_equal(stored(tmp_path)[:2, :40], expected)
    np.testing.assert_allclose(raw_windows(tmp_path / "smoke_rotation", "train")[0], expected[0, :32], atol=1e-5)


@pytest.mark.parametrize(("fields", "chosen"), [("vector", [0, 1]), ("scalar", [2]), ("scalar vector", [2, 0, 1])])
def test_fields(fields, chosen, tmp_path):
    command = ["smoke", "--set", "translation", "--fields", *fields.split(), "--data_dir", tmp_path]
    assert prepare(*command) == 0
    assert read_meta(tmp_path / "smoke_translation")["fields"] == fields.split()
    windows = raw_windows(tmp_path / "smoke_translation", "test")
    np.testing.assert_allclose(windows[0], stored(tmp_path)[0, 200:232, chosen].swapaxes(0, 1), atol=1e-4)


def test_simulated_once(tmp_path, monkeypatch):
    command = ["smoke", "--set", "translation", "--data_dir", tmp_path]
    assert prepare(*command) == 0
    before = read_meta(tmp_path / "smoke_translation")["id"]
    with monkeypatch.context() as patched:
        patched.setattr("flows.plumes.simulate", None)
        assert prepare(*command) == 0
    assert read_meta(tmp_path / "smoke_translation")["id"] == before
    assert prepare(*command, "--horizon", 10, "--name", "short") == 0  # other frames, another file
    assert sorted(stored.shape[1] for stored in map(np.load, tmp_path.glob("*.npy"))) == [271, 281]
    assert prepare("smoke", "--set", "levels", "--level", 1, "--data_dir", tmp_path) == 0
    assert len(list(tmp_path.glob("smoke_levels_*.npy"))) == 1


def test_levels(tmp_path, capsys):
    """Four plumes and eight held out; nets that read one frame read s + 2."""
    assert prepare("smoke", "--set", "levels", "--level", 3, "--data_dir", tmp_path) == 0
    assert "frames shared: train and valid 88, train and test 48, valid and test 88" in capsys.readouterr().out
    folder = tmp_path / "smoke_levels_3"
    meta, frames = load_meta(folder), stored(tmp_path)
    assert meta["history"] == 3
    assert frames.shape == (12, 72, 3, 16, 16)
    for split, first, last in (("train", 0, 29), ("valid", 30, 39), ("test", 40, 49), ("domain", 0, 29)):
        windows = raw_windows(folder, split)
        plumes = frames[4:] if split == "domain" else frames[:4]
        expected = np.stack([plume[s : s + 23] for plume in plumes for s in range(first, last + 1)])
        assert meta["splits"][split]["parameters"]["turns"] == [0, 1, 2, 3] * (len(plumes) // 4)
        np.testing.assert_allclose(windows, expected, atol=1e-5)
    buoyancy = meta["splits"]["train"]["parameters"]["buoyancy"]
    np.testing.assert_allclose(buoyancy, [[0, 0.01], [-0.025, 0], [0, -0.04], [0.055, 0]], atol=1e-12)  # 1, 4, 7, 10


@pytest.mark.parametrize(
    ("dial", "folder", "flow"),
    [
        ("translation --dial 3", "translation_3", lambda: smoke.translation("small", 3)),
        ("rotation --dial 1 1.2 1 .8", "rotation_1_1.2_1_0.8", lambda: smoke.rotation("small", (1, 1.2, 1, 0.8))),
        ("scale --dial 1.5", "scale_1.5", lambda: smoke.scale("small", 1.5)),
        ("magnitude --dial .3", "magnitude_0.3", lambda: smoke.magnitude("small", 0.3)),
    ],
)
def test_dials(dial, folder, flow, tmp_path, monkeypatch):
    """Those of the simulation; parameters say what was made, of magnitude the time between frames, too."""
    made = []

    def record(dataset, *_, out):
        made.extend(dataset.plumes)
        out[:] = np.random.default_rng(0).normal(size=out.shape)

    monkeypatch.setattr("flows.plumes.simulate", record)
    assert prepare("smoke", "--set", *dial.split(), "--data_dir", tmp_path) == 0
    assert tuple(made) == flow().plumes
    meta = load_meta(tmp_path / f"smoke_{folder}")
    parameters = meta["splits"]["train"]["parameters"]
    seen = [plume for i, plume in enumerate(made) if i not in flow().held_out]
    assert parameters["buoyancy"] == [list(plume.buoyancy) for plume in seen]
    assert parameters.get("dt", len(seen) * [meta["time_step"]]) == [plume.dt for plume in seen]


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        ("translation --dial nan", "right is (0, nan)"),
        ("rotation --dial 1 1 inf 1", "buoyancy is"),
        ("scale --dial 0", "resolution is 0"),
        ("magnitude --dial 1.1", "the share of the buoyancy that does not scale is 1.1; it must be in 0 to 1"),
    ],
)
def test_dials_that_cannot_be(dial, message, tmp_path, capsys):
    assert message in refused(capsys, tmp_path, "smoke", "--set", *dial.split())


def test_damaged_frames(tmp_path, capsys):
    flags = ("smoke", "--set", "levels", "--level", 1, "--data_dir", tmp_path)
    assert prepare(*flags) == 0
    (path,) = tmp_path.glob("smoke_*.npy")
    for size in (path.stat().st_size // 2, 0):
        with path.open("r+b") as file:
            file.truncate(size)
        assert prepare(*flags) == 2
        assert capsys.readouterr().err == f"error: {path} is damaged; remove it, and it will be made again\n"


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.plumes.simulate", interrupt)
    assert prepare("smoke", "--set", "scale", "--data_dir", tmp_path / "data") == 130
    assert capsys.readouterr().err == "stopped\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--set levels", "--level goes with --set levels"),
        ("--set scale --level 2", "--level goes with --set levels"),
        ("--set levels --level 10", "invalid choice: 10"),
        ("--set motion", "invalid choice: 'motion'"),
        ("--set rotation --dial 1.1", "--dial takes 4 numbers with --set rotation, got 1"),
        ("--set levels --level 1 --dial 2", "--dial takes 0 numbers with --set levels, got 1"),
        ("--set scale --dial x", "invalid float value: 'x'"),
        ("--set scale --fields scalar scalar", "each at most once"),
        ("--set scale --gap 3", "unrecognized arguments: --gap 3"),
        ("", "one of the arguments --set is required"),
    ],
)
def test_wrong_flags(flags, message, tmp_path, capsys):
    assert message in refused(capsys, tmp_path, "smoke", *flags.split())
