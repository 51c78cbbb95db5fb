"""HDF5 files of The Well, PDEArena and PDEBench, written here in their layouts: every value, axis and sign."""

import hashlib
import itertools
import os
import re
import subprocess
import tracemalloc

import h5py
import numpy as np
import pytest
from prepared import prepare, raw_windows, read_meta, refused

from flows import download

X, Y, T = np.arange(11) * 0.5 + 1, np.arange(7) * 0.25 - 3, np.arange(5) * 0.125
SMALL = ["--history", 3, "--horizon", 1]


def rotating(b, t, x, y):
    """u and v of a solid body that turns with 1 + t, besides a drift that tells trajectories apart: no divergence."""
    return -(1 + t) * y + 0.3 * b + 0 * x, (1 + t) * x - 0.2 * b + 0 * y


def heat(b, t, x, y):
    return 5 * b + 3 * t + x - 0.1 * y**2


def stored(function, trajectories):
    """Values in the files' order: ``(trajectory, time, x, y)``."""
    return np.asarray(function(*np.meshgrid(trajectories, T, X, Y, indexing="ij")))


def frames_of(b, *functions):
    """What one trajectory should become: ``(time, component, y, x)``."""
    t, y, x = np.meshgrid(T, Y, X, indexing="ij")
    return np.stack(
        list(itertools.chain(*(np.atleast_2d([*f(b, t, x, y)]).reshape(-1, *t.shape) for f in functions))), 1
    )


def windows_of(trajectories, *functions):
    frames = [frames_of(b, *functions) for b in trajectories]
    return np.stack([flow[start : start + 4] for flow in frames for start in (0, 1)])


def write_well(path, trajectories=(0, 1, 2), **changes):
    """A file of The Well; ``changes`` are made to what is written."""
    spec = {
        "dims": 2,
        "grid": "cartesian",
        "x": X,
        "y": Y,
        "time": T,
        "velocity": np.moveaxis(stored(rotating, trajectories), 0, -1),
        "heat": stored(heat, trajectories),
        "wall": (X[:, None] * Y, False, False, [True, True]),
        "profile": (np.moveaxis([X, X**2], 0, -1)[None].repeat(len(T), 0), False, True, [True, False]),
        "rayleigh": (1e6, False, False),
        "prandtl": (0.5 + np.asarray(trajectories), True, False),
        "clock": (T, False, True),
        "conditions": {"sides": (["x"], "PERIODIC"), "plates": (["y"], "wall")},
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"n_spatial_dims": spec["dims"], "grid_type": spec["grid"], "dataset_name": "mine"})
        file.attrs["n_trajectories"] = len(trajectories)
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        dimensions.update({"time": spec["time"], "x": spec["x"], "y": spec["y"]})
        for group, names in (
            ("t0_fields", ["heat", "wall"]),
            ("t1_fields", ["velocity", "profile"]),
            ("t2_fields", ["D"]),
        ):
            file.create_group(group).attrs["field_names"] = names
            for name in set(names) - {"D"}:
                value = spec[name] if isinstance(spec[name], tuple) else (spec[name], True, True, [True, True])
                file[group][name] = np.asarray(value[0], np.float32)
                file[group][name].attrs.update(
                    zip(("sample_varying", "time_varying", "dim_varying"), value[1:], strict=True)
                )
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["rayleigh", "prandtl", "clock"]
        for name in scalars.attrs["field_names"]:
            scalars[name] = spec[name][0]
            scalars[name].attrs.update(zip(("sample_varying", "time_varying"), spec[name][1:], strict=True))
        for name, (associated, kind) in spec["conditions"].items():
            condition = file.create_group(f"boundary_conditions/{name}")
            condition.attrs.update({"associated_dims": associated, "bc_type": kind})
    return path


def write_pdearena(path, trajectories=(0, 1, 2), split="train", **changes):
    """A file of PDEArena: velocities on left and lower faces, without those on the far walls."""
    n, m = len(X), len(Y)
    t = (1 + T)[:, None, None]
    along_x, along_y = np.sin(np.pi * np.arange(n) / n)[:, None], np.sin(np.pi * np.arange(m) / m)
    amplitude = (1 + np.asarray(trajectories))[:, None, None, None]
    content = {
        "vx": amplitude * t * along_x * (1 + Y),
        "vy": amplitude * t * X[:, None] * along_y,
        "u": stored(heat, trajectories),
        # as PDEArena writes them: the box and the time divided by one point less
        "t": np.broadcast_to(np.linspace(0, 0.125 * len(T), len(T)), (len(trajectories), len(T))),
        "x": np.broadcast_to(np.linspace(0, 0.5 * n, n), (len(trajectories), n)),
        "y": np.broadcast_to(np.linspace(0, 0.25 * m, m), (len(trajectories), m)),
        **{name: np.full(len(trajectories), step) for name, step in (("dt", 0.125), ("dx", 0.5), ("dy", 0.25))},
        "buo_y": 0.2 + np.asarray(trajectories),
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_group(split).update({name: value for name, value in content.items() if value is not None})
    return path


SETTINGS = (
    "sim_name: ns_incom_inhom_2d_512\nNU: 0.01\nDT: 5.0e-05\nvelocity_extrapolation: ZERO\n"  # as OmegaConf writes
)


def write_incompressible(path, trajectories=(0, 1, 2, 3), index=4, **changes):
    """A file of PDEBench's incompressible flows."""
    content = {
        "velocity": np.moveaxis(stored(rotating, trajectories), 0, -1),
        "particles": stored(heat, trajectories)[..., None],
        "force": np.moveaxis(stored(rotating, trajectories)[:, :, 0], 0, -1),
        "t": np.broadcast_to(T, (len(trajectories), len(T))),
        **changes,
    }
    with h5py.File(path, "w") as file:
        file.update({name: value for name, value in content.items() if value is not None})
        file.attrs.update({"latestIndex": index, "config": SETTINGS})
    return path


def write_compressible(path, trajectories=(0, 1, 2, 3), **changes):
    """A file of PDEBench's compressible flows."""
    u, v = stored(rotating, trajectories)
    content = {"Vx": u, "Vy": v, "density": stored(heat, trajectories), "pressure": stored(heat, trajectories) ** 2}
    axes = {"x-coordinate": X, "y-coordinate": Y, "t-coordinate": np.append(T, 0.625)}
    with h5py.File(path, "w") as file:
        file.update({**content, **axes, **changes})
    return path


@pytest.fixture
def lines(capsys):
    """What a command printed, as one text."""
    return lambda: capsys.readouterr().out


# ---------------------------------------------------------------- The Well


def write_splits(folder, **changes):
    for split, trajectories in (("train", (0, 1)), ("train", (2,)), ("valid", (3,)), ("test", (4,))):
        write_well(folder / "data" / split / f"{trajectories[0]}.hdf5", trajectories, **changes)
    return folder


def test_well_in_its_own_splits(tmp_path, lines):
    folder = write_splits(tmp_path / "raw")
    assert prepare("well", "--raw", folder, "--fields", "velocity", "heat", "--data_dir", tmp_path, *SMALL) == 0
    meta = read_meta(tmp_path / "well")
    assert (meta["fields"], meta["tile"]) == (["vector", "scalar"], [7, 11])
    assert (meta["spacing"], meta["time_step"], meta["periodic"]) == ([0.25, 0.5], 0.125, ["x"])
    assert meta["boundaries"] == {"x": "periodic", "y": "wall"}
    assert meta["source"] == {"train": ["0.hdf5", "2.hdf5"], "valid": ["3.hdf5"], "test": ["4.hdf5"]}
    # the first trajectories of all files come before the second ones
    for split, trajectories in (("train", (0, 2, 1)), ("valid", (3,)), ("test", (4,))):
        expected = windows_of(trajectories, rotating, lambda *point: [heat(*point)])
        np.testing.assert_allclose(raw_windows(tmp_path / "well", split), expected, atol=2e-5)
        prandtl = [0.5 + b for b in trajectories]
        assert meta["splits"][split]["parameters"] == {"prandtl": prandtl, "rayleigh": [1e6] * len(trajectories)}
    out = lines()
    assert "2 files, 3 trajectories of 5 frames of 7 x 11 points" in out
    assert "fields: velocity (vector), heat (scalar); left out: profile, wall" in out
    assert "tensors are not read: D" in out
    assert "points 0.25 apart along y, 0.5 along x, periodic in x; frames 0.125 apart" in out
    assert "warning" not in out


def test_well_turns_as_it_did(tmp_path):
    """From the prepared frames alone: the divergence is 0, the rotation of frame t twice 1 + t."""
    folder = write_splits(tmp_path / "raw")
    assert prepare("well", "--raw", folder, "--fields", "velocity", "--data_dir", tmp_path, *SMALL) == 0
    u, v = np.moveaxis(raw_windows(tmp_path / "well", "test")[0], 1, 0)
    dy, dx = read_meta(tmp_path / "well")["spacing"]
    divergence = np.diff(u, axis=2)[:, 1:] / dx + np.diff(v, axis=1)[:, :, 1:] / dy
    rotation = np.diff(v, axis=2)[:, 1:] / dx - np.diff(u, axis=1)[:, :, 1:] / dy
    np.testing.assert_allclose(divergence, 0, atol=1e-4)
    np.testing.assert_allclose(rotation, np.broadcast_to(2 * (1 + T[:4, None, None]), rotation.shape), atol=1e-4)


def test_well_fields_that_do_not_vary_along_an_axis(tmp_path):
    """By default all that vary in time, vectors first; on request also what is steady."""
    folder = write_splits(tmp_path / "raw")
    assert prepare("well", "--raw", folder, "--data_dir", tmp_path, *SMALL) == 0
    profile = lambda b, t, x, y: (x, x**2)  # noqa: E731
    expected = windows_of((4,), rotating, profile, lambda *point: [heat(*point)])
    assert read_meta(tmp_path / "well")["fields"] == ["vector", "vector", "scalar"]
    np.testing.assert_allclose(raw_windows(tmp_path / "well", "test"), expected, atol=2e-5)
    command = ["well", "--raw", folder, "--fields", "wall", "velocity", "--name", "steady"]
    assert prepare(*command, "--data_dir", tmp_path, *SMALL) == 0
    expected = windows_of((4,), lambda b, t, x, y: [x * y], rotating)
    np.testing.assert_allclose(raw_windows(tmp_path / "steady", "test"), expected, atol=2e-5)


def test_well_one_file_shares_out_its_trajectories(tmp_path):
    path = write_well(tmp_path / "raw.h5", range(6))
    command = ["well", "--raw", path, "--fields", "velocity", "--data_dir", tmp_path, *SMALL]
    assert prepare(*command) == 0
    for split, trajectories in (("train", (0, 1, 2, 3)), ("valid", (4,)), ("test", (5,))):
        np.testing.assert_allclose(raw_windows(tmp_path / "well", split), windows_of(trajectories, rotating), atol=2e-5)
    assert prepare(*command, "--splits", 2, 2, 2) == 0
    for split, trajectories in (("train", (0, 1)), ("valid", (2, 3)), ("test", (4, 5))):
        windows = windows_of(trajectories, rotating)[:2]  # of those, as many as wanted
        np.testing.assert_allclose(raw_windows(tmp_path / "well", split), windows, atol=2e-5)


def test_well_two_trajectories_are_cut_in_time(tmp_path):
    path = write_well(tmp_path / "raw.h5", (0, 1))
    command = ["well", "--raw", path, "--fields", "velocity", "--gap", 0, "--data_dir", tmp_path, *SMALL]
    assert prepare(*command) == 0
    counts = [split["count"] for split in read_meta(tmp_path / "well")["splits"].values()]
    assert counts == [2, 1, 1]


def test_well_tiles_stride_and_what_is_periodic(tmp_path, lines):
    folder = write_splits(tmp_path / "raw")
    command = ["well", "--raw", folder, "--fields", "velocity", "--data_dir", tmp_path, *SMALL]
    assert prepare(*command, "--tile", 4) == 0
    assert "1 x 2 tiles of 4 x 4; left over: 3 rows and 3 columns" in lines()
    meta = read_meta(tmp_path / "well")
    assert "periodic" not in meta  # a tile ends elsewhere than the grid
    tile = np.load(tmp_path / "well" / "test.npy")[1] * meta["std"][0]  # the second column of tiles
    np.testing.assert_allclose(tile, frames_of(4, rotating)[:, :, :4, 4:8], atol=2e-5)
    assert prepare(*command, "--stride", 2) == 0
    meta = read_meta(tmp_path / "well")
    assert (meta["spacing"], meta["tile"]) == ([0.5, 1.0], [4, 6])
    assert "periodic" not in meta  # the last of 11 points is next to the first
    np.testing.assert_allclose(
        raw_windows(tmp_path / "well", "test"), windows_of((4,), rotating)[..., ::2, ::2], atol=2e-5
    )


def test_well_descending_axes_are_turned_over(tmp_path):
    values = {"velocity": np.moveaxis(stored(rotating, (0, 1, 2)), 0, -1)[..., ::-1, ::-1, :]}
    path = write_well(tmp_path / "raw.h5", x=X[::-1], y=Y[::-1], **values)
    assert prepare("well", "--raw", path, "--fields", "velocity", "--data_dir", tmp_path, *SMALL) == 0
    assert read_meta(tmp_path / "well")["spacing"] == [0.25, 0.5]
    np.testing.assert_allclose(raw_windows(tmp_path / "well", "train"), windows_of((0,), rotating), atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "key", "warning"),
    [
        ({"y": Y**3}, "spacing", "points are not evenly spaced"),
        ({"time": T**2}, "time_step", "frames are not evenly spaced in time"),
    ],
)
def test_well_uneven_axes_are_warned_of(changes, key, warning, tmp_path, lines):
    path = write_well(tmp_path / "raw.h5", **changes)
    assert prepare("well", "--raw", path, "--fields", "velocity", "--data_dir", tmp_path, *SMALL) == 0
    assert f"warning: {warning}" in lines()
    assert read_meta(tmp_path / "well").get(key) is None


def test_what_files_do_not_share_is_not_known(tmp_path, lines):
    write_well(tmp_path / "raw" / "a.h5")
    write_well(tmp_path / "raw" / "b.h5", time=2 * T, conditions={})
    assert prepare("well", "--raw", tmp_path / "raw", "--fields", "velocity", "--data_dir", tmp_path, *SMALL) == 0
    meta = read_meta(tmp_path / "well")
    assert meta["time_step"] is None
    assert not {"boundaries", "periodic"} & set(meta)
    assert "not evenly spaced in time, or not alike" in lines()
    assert [len(split["segments"]) for split in meta["splits"].values()] == [4, 1, 1]
    paths = [write_compressible(tmp_path / name) for name in ("2D_CFD_M1.0_periodic_a.hdf5", "2D_CFD_trans_b.hdf5")]
    assert prepare("pdebench", "--raw", *paths, "--data_dir", tmp_path, *SMALL) == 0
    meta = read_meta(tmp_path / "pdebench")
    assert "periodic" not in meta
    assert "parameters" not in meta["splits"]["train"]
    assert prepare("pdebench", "--raw", paths[1], "--data_dir", tmp_path, *SMALL) == 0
    meta = read_meta(tmp_path / "pdebench")
    assert "periodic" not in meta
    assert meta["boundaries"] == {"x": "open", "y": "open"}


# ---------------------------------------------------------------- PDEArena


def centres(b):
    """The means of neighbouring faces, the far walls included."""
    n, m = len(X), len(Y)
    faces_x, faces_y = (np.sin(np.pi * np.arange(k + 1) / k) for k in (n, m))
    t = (1 + T)[:, None, None] * (1 + b)
    u = t * (1 + Y)[:, None] * (faces_x[1:] + faces_x[:-1]) / 2
    v = t * ((faces_y[1:] + faces_y[:-1]) / 2)[:, None] * X
    return np.stack([u, v], 1)


def test_pdearena_in_its_own_splits(tmp_path, lines):
    for split, trajectories in (("train", (0, 1)), ("valid", (2,)), ("test", (3,))):
        write_pdearena(tmp_path / "raw" / f"NavierStokes2D_{split}_0_0.50000.h5", trajectories, split)
    assert prepare("pdearena", "--raw", tmp_path / "raw", "--data_dir", tmp_path, *SMALL) == 0
    meta, out = read_meta(tmp_path / "pdearena"), lines()
    assert (meta["fields"], meta["time_step"], meta["spacing"]) == (["vector", "scalar"], 0.125, [0.25, 0.5])
    assert "periodic" not in meta
    assert meta["boundaries"] == {"x": "wall", "y": "wall"}
    for split, trajectories in (("train", (0, 1)), ("valid", (2,)), ("test", (3,))):
        windows = raw_windows(tmp_path / "pdearena", split)
        flows = [centres(b)[start : start + 4] for b in trajectories for start in (0, 1)]
        np.testing.assert_allclose(windows[:, :, :2], flows, atol=2e-5)
        smoke = windows_of(trajectories, lambda *point: [heat(*point)])
        np.testing.assert_allclose(windows[:, :, 2:], smoke, atol=2e-5)
        assert meta["splits"][split]["parameters"] == {"buoyancy": [0.2 + b for b in trajectories]}
    assert "velocities are stored on the faces of cells: the means in their centres are taken" in out


def test_pdearena_without_what_is_not_needed(tmp_path):
    nothing = dict.fromkeys(("dt", "dx", "dy", "buo_y"))
    path = write_pdearena(tmp_path / "a.h5", **nothing)
    assert prepare("pdearena", "--raw", path, "--fields", "velocity", "--data_dir", tmp_path, *SMALL) == 0
    meta = read_meta(tmp_path / "pdearena")
    assert not {"spacing", "periodic"} & set(meta)
    assert meta["time_step"] is None
    assert "parameters" not in meta["splits"]["train"]


def test_pdearena_one_buoyancy_of_all(tmp_path):
    path = write_pdearena(tmp_path / "a.h5", buo_y=0.5)
    assert prepare("pdearena", "--raw", path, "--data_dir", tmp_path, *SMALL) == 0
    assert read_meta(tmp_path / "pdearena")["splits"]["valid"]["parameters"] == {"buoyancy": [0.5]}


def test_pdearena_steps_that_vary_are_not_known(tmp_path, lines):
    path = write_pdearena(tmp_path / "a.h5", dt=np.array([1.5, 1.5, 0.375]), dx=np.array([0.5, 0.25, 0.5]))
    assert prepare("pdearena", "--raw", path, "--fields", "velocity", "--data_dir", tmp_path, *SMALL) == 0
    meta, out = read_meta(tmp_path / "pdearena"), lines()
    assert meta["time_step"] is None
    assert "spacing" not in meta
    assert "frames are not evenly spaced" in out
    assert "points are not evenly spaced" in out


# ---------------------------------------------------------------- PDEBench


def test_pdebench_incompressible(tmp_path, lines):
    write_incompressible(tmp_path / "ns_incom_inhom_2d_512-0.h5", (0, 1, 2, 3))
    write_incompressible(tmp_path / "ns_incom_inhom_2d_512-1.h5", (4, 5, 6, 7))
    assert prepare("pdebench", "--raw", tmp_path, "--data_dir", tmp_path, *SMALL) == 0
    for split, trajectories in (("train", (0, 4, 1, 5, 2, 6)), ("valid", (3,)), ("test", (7,))):
        expected = windows_of(trajectories, rotating, lambda *point: [heat(*point)])
        np.testing.assert_allclose(raw_windows(tmp_path / "pdebench", split), expected, atol=4e-5)
    meta = read_meta(tmp_path / "pdebench")
    assert (meta["time_step"], meta["boundaries"]) == (0.125, {"x": "wall", "y": "wall"})
    assert meta["splits"]["test"]["parameters"] == {"NU": [0.01]}
    out = lines()
    assert "left out: force" in out
    assert "ends of the grid: x wall, y wall" in out
    command = ["pdebench", "--raw", tmp_path / "ns_incom_inhom_2d_512-0.h5", "--fields", "force", "velocity"]
    assert prepare(*command, "--data_dir", tmp_path, *SMALL) == 0
    expected = windows_of((3,), lambda b, t, x, y: rotating(b, 0 * t, x, y), rotating)
    np.testing.assert_allclose(raw_windows(tmp_path / "pdebench", "test"), expected, atol=4e-5)


def test_pdebench_compressible(tmp_path):
    path = write_compressible(tmp_path / "2D_CFD_Rand_M0.1_Eta1e-08_Zeta0.01_periodic_128_Train.hdf5")
    assert prepare("pdebench", "--raw", path, "--data_dir", tmp_path, *SMALL) == 0
    meta = read_meta(tmp_path / "pdebench")
    assert (meta["fields"], meta["periodic"]) == (["vector", "scalar", "scalar"], ["x", "y"])
    assert (meta["spacing"], meta["time_step"]) == ([0.25, 0.5], 0.125)
    assert meta["splits"]["train"]["parameters"] == {"Eta": [1e-8] * 2, "M": [0.1] * 2, "Zeta": [0.01] * 2}
    expected = windows_of((3,), rotating, lambda *point: [heat(*point)], lambda *point: [heat(*point) ** 2])
    np.testing.assert_allclose(raw_windows(tmp_path / "pdebench", "test"), expected, rtol=1e-5, atol=4e-5)


def test_pdebench_mach_number_without_its_point(tmp_path):
    """As the files of Kelvin-Helmholtz flows write it: M01 is 0.1, and M1 is 1."""
    for name, mach in (("KH_M01_dk1_Re1e3", 0.1), ("KH_M1_dk1_Re1e3", 1.0)):
        path = write_compressible(tmp_path / f"{name}.hdf5")
        assert prepare("pdebench", "--raw", path, "--data_dir", tmp_path, *SMALL) == 0
        assert read_meta(tmp_path / "pdebench")["splits"]["valid"]["parameters"] == {"M": [mach], "Re": [1000.0]}


def test_well_several_conditions_at_an_axis(tmp_path):
    conditions = {"left": (["x"], "WALL"), "right": (["x"], "OPEN"), "rest": (["y"], "OPEN")}
    path = write_well(tmp_path / "a.h5", conditions=conditions)
    assert prepare("well", "--raw", path, "--fields", "velocity", "--data_dir", tmp_path, *SMALL) == 0
    assert read_meta(tmp_path / "well")["boundaries"] == {"x": "open and wall", "y": "open"}


# ---------------------------------------------------------------- blocks, memory, downloads


def test_blocks_of_time_do_not_show(tmp_path, monkeypatch):
    command = ["well", "--raw", write_splits(tmp_path / "raw"), "--data_dir", tmp_path, *SMALL]
    assert prepare(*command) == 0
    before = raw_windows(tmp_path / "well", "train")
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 1)
    assert prepare(*command) == 0
    np.testing.assert_allclose(raw_windows(tmp_path / "well", "train"), before, atol=1e-5)


def test_memory_is_bounded_by_the_block_not_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 2**19)
    with h5py.File(tmp_path / "a.h5", "w") as file:  # 52 MB
        velocity = file.create_dataset("velocity", (4, 100, 128, 64, 2), np.float32)
        for b, t in itertools.product(range(4), range(100)):
            velocity[b, t] = np.sin(np.arange(128 * 64 * 2) + t + b).reshape(128, 64, 2)
    tracemalloc.start()
    assert prepare("pdebench", "--raw", tmp_path / "a.h5", "--data_dir", tmp_path) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("command", download.HOW)
def test_print_download_needs_no_file(command, lines):
    """Every line is a comment, or a command that may be run again."""
    curl = r"test -f \S+ \|\| \(curl --fail .*--continue-at -.* && mv "
    again = rf"{curl}|unzip -n|copernicusmarine .*--skip-existing|git (lfs|clone)"
    assert prepare(command, "--print_download") == 0
    for line in lines().splitlines():
        assert re.match(rf"# |{again}", line), line


def test_a_download_goes_on_and_is_not_done_twice(tmp_path):
    """The shell's own words, with a curl that appends half of the file a call, and fails after the first."""
    curl = tmp_path / "curl"
    curl.write_text(
        '#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\nprintf half >>"$2"\n[ "$(cat "$2")" = halfhalf ]\n'
    )
    curl.chmod(0o755)
    command = download.curl("https://example.org/a.h5", "a.h5", hashlib.md5(b"halfhalf").hexdigest())
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def call():
        return subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True).returncode

    assert call() != 0
    assert not (tmp_path / "a.h5").exists()
    for _ in range(2):
        assert call() == 0
        assert (tmp_path / "a.h5").read_text() == "halfhalf"
    (tmp_path / "a.h5").write_text("spoiled")
    assert call() != 0


def test_print_download_names_every_file(lines):
    assert prepare("well", "--print_download") == 0
    out = lines()
    assert out.count("curl") == 3 * 5 * 7
    address = "https://huggingface.co/datasets/polymathic-ai/rayleigh_benard/resolve/main/data/test/"
    assert f'"{address}rayleigh_benard_Rayleigh_1e10_Prandtl_5e-1.hdf5"' in out
    assert prepare("pdebench", "--print_download") == 0
    assert len(re.findall(r"[0-9a-f]{32}  \S+\.(h5|hdf5)\" \| md5sum -c", lines())) == 11


# ---------------------------------------------------------------- bad files


def cut_short(write):
    def shorter(path):
        write(path)
        path.write_bytes(path.read_bytes()[:-3000])

    return shorter


def spoiled(write, name):
    """A file with one value that is not finite, in the last frame of a trajectory."""

    def spoil(path):
        write(path)
        with h5py.File(path, "r+") as file:
            values = file[name][()]
            values[1, 4, 3, 2] = np.nan
            file[name][...] = values

    return spoil


def damaged(path):
    """Compressed values that cannot be uncompressed."""
    write_compressible(path)
    with h5py.File(path, "r+") as file:
        values = file["Vx"][()]
        del file["Vx"]
        file.create_dataset("Vx", data=values, compression="gzip", chunks=values.shape)
        place = file["Vx"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + 200] = b"x" * 200
    path.write_bytes(content)


HTML = "<!DOCTYPE html><html><title>503 Service Unavailable</title></html>"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
BAD_FILES = {
    "nothing": ("well", lambda path: None, "is not there"),
    "an empty folder": ("well", lambda path: path.mkdir(), "holds no file that ends with .h5 or .hdf5"),
    "zero bytes": ("well", lambda path: path.touch(), "is no HDF5 file; fetch it again"),
    "a web page": ("pdebench", lambda path: path.write_text(HTML), "is a web page"),
    "a pointer of Git LFS": ("pdearena", lambda path: path.write_text(LFS), "is a pointer of Git LFS"),
    "truncated": ("well", cut_short(write_well), "is truncated or damaged"),
    "damaged": ("pdebench", damaged, "is truncated or damaged"),
    "another layout": ("well", write_compressible, "is not laid out as it should be"),
    "yet another layout": ("pdearena", write_well, "wanted one of train, valid, test"),
    "no velocity": ("pdebench", write_well, "wanted velocity, or Vx and Vy"),
    "NaN": ("well", spoiled(write_well, "t0_fields/heat"), "not finite in frame 4 of trajectory 1"),
    "NaN on a face": ("pdearena", spoiled(write_pdearena, "train/vx"), "not finite in frame 4 of trajectory 1"),
    "three dimensions": ("well", lambda path: write_well(path, dims=3), "cartesian with 3 dimensions, wanted"),
    "a sphere": ("well", lambda path: write_well(path, grid="spherical"), "the grid is spherical with 2"),
    "vectors of three": (
        "well",
        lambda path: write_well(path, velocity=np.ones((3, 5, 11, 7, 3))),
        re.escape("velocity has shape (3, 5, 11, 7, 3), wanted (3, 5, 11, 7, 2)"),
    ),
    "axes in another order": (
        "well",
        lambda path: write_well(path, heat=np.ones((3, 5, 7, 11))),
        re.escape("heat has shape (3, 5, 7, 11), wanted (3, 5, 11, 7)"),
    ),
    "v of another size": (
        "pdebench",
        lambda path: write_compressible(path, Vy=np.ones((4, 5, 11, 8))),
        re.escape("velocity has shape (4, 5, 11, 8), wanted (4, 5, 11, 7)"),
    ),
    "never written": (
        "pdebench",
        lambda path: write_incompressible(path, index=-1),
        "only 0 of its 5 frames were ever",
    ),
    "half written": ("pdebench", lambda path: write_incompressible(path, index=3), "only 4 of its 5 frames were ever"),
    "a parameter that is none": (
        "well",
        lambda path: write_well(path, prandtl=([1, np.nan, 2], True, False)),
        "the parameter prandtl is not finite in trajectory 1",
    ),
    "time runs back": ("well", lambda path: write_well(path, time=T[::-1]), "its times do not ascend"),
    "a time that is none": (
        "pdebench",
        lambda path: write_incompressible(path, t=np.full((4, 5), np.nan)),
        "not ascend",
    ),
    "complex values": (
        "pdebench",
        lambda path: write_compressible(path, Vx=np.ones((4, 5, 11, 7), complex)),
        "velocity has values of type complex128, wanted real numbers",
    ),
    "a word for a number": (
        "well",
        lambda path: write_well(path, rayleigh=("much", False, False)),
        "could not convert string to float",
    ),
    "no trajectory": ("pdearena", lambda path: write_pdearena(path, ()), "holds no trajectory"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 1)  # frames are read one by one, and named right all the same
    layout, write, message = BAD_FILES[case]
    path = tmp_path / "raw.h5"
    write(path)
    line = refused(capsys, tmp_path, layout, "--raw", path, *SMALL)
    assert re.search(message, line)
    assert str(path) in line


@pytest.mark.parametrize("way", ["twice", "folder", "link"])
def test_a_file_given_twice_is_refused(way, tmp_path, capsys):
    """It would be in two splits."""
    folder = tmp_path / "raw"
    folder.mkdir()
    write_well(folder / "a.h5")
    if way == "link":
        (folder / "b.h5").symlink_to(folder / "a.h5")
    raw = {"twice": [folder / "a.h5"] * 2, "folder": [folder, folder / "a.h5"], "link": [folder]}[way]
    assert "is given twice" in refused(capsys, tmp_path, "well", "--raw", *raw, *SMALL)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--fields velocity speed", "has no field speed; it has velocity, profile, heat, wall"),
        ("--tile 8", "the grid is 7 x 11, smaller than --tile 8"),
        ("--history 5", "found 5 frames, at most 5 without a gap in time, wanted 6: 1 split(s)"),
    ],
)
def test_wrong_flag(flags, message, tmp_path, capsys):
    path = write_well(tmp_path / "raw.h5")
    assert message in refused(capsys, tmp_path, "well", "--raw", path, *SMALL, *flags.split())


def test_files_that_do_not_go_together(tmp_path, capsys):
    for split in ("train", "test"):
        write_well(tmp_path / "two" / split / "a.h5")
    line = refused(capsys, tmp_path, "well", "--raw", tmp_path / "two", *SMALL)
    assert "found files of test, train; wanted those of train, valid, test, or of one split" in line
    write_compressible(tmp_path / "a.h5")
    wide = {name: np.ones((4, 5, 12, 7)) for name in ("Vx", "Vy", "density", "pressure")}
    write_compressible(tmp_path / "b.h5", **wide)
    line = refused(capsys, tmp_path, "pdebench", "--raw", tmp_path / "a.h5", tmp_path / "b.h5", *SMALL)
    assert "have different grids, 12 x 7 and 11 x 7" in line


def test_without_h5py(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").touch()
    line = refused(capsys, tmp_path, "well", "--raw", tmp_path / "a.h5")
    assert "HDF5 files need the package h5py; pip install h5py" in line
