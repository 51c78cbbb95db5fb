"""Preparation of regular arrays: the release's protocol, splits, standardisation, bad inputs, what is on the disk."""

import functools
import hashlib
import itertools
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import digest, prepare, read_meta, read_windows, refused, vortices

import data_prep
from evaluation.runs import data_folder
from flows import store
from flows.arguments import SIMULATIONS
from flows.arrays import array_source
from flows.convection import SETTINGS, other_simulation, simulation, tile_of
from flows.flags import COMMANDS, parse_args
from flows.folder import locked, new_folder, wait_for
from flows.splits import first_windows, plan_splits, shared_frames
from flows.windows import window_starts
from models import SYMMETRIES
from simulation.rayleigh_benard import temperature_file
from utils import InputError

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT.parent / "shared" / "data" / "ocean" / "ocean_current_sample.pt"
SMALL = ["--stride", "2", "--tile", "4", "--history", "3", "--horizon", "2", "--splits", "13", "8", "9", "--gap", "0"]


@pytest.fixture(scope="module")
def raw():
    """23 frames that thin to 8 x 12 points, that is 2 x 3 tiles of 4; no two values alike."""
    return np.random.default_rng(0).normal(0.3, 2, (23, 2, 16, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rbc")
    torch.save(torch.from_numpy(raw), folder / "raw.pt")
    assert prepare("rbc", "--raw", folder / "raw.pt", "--data_dir", folder, *SMALL) == 0
    return folder / "rbc"


def cut_by_hand(raw, window):
    """Windows in the release's order: first frame, then tile."""
    thin = raw[:, :, ::2, ::2]
    tiles = [thin[:, :, y : y + 4, x : x + 4] for y in range(0, 8, 4) for x in range(0, 12, 4)]
    return np.stack([tile[j : j + window] for j in range(len(raw) - window + 1) for tile in tiles])


# ---------------------------------------------------------------- the protocol


def test_windows_are_the_releases(raw, prepared):
    meta, windows = read_meta(prepared), cut_by_hand(raw, 5)
    for name, begin, end in (("train", 0, 13), ("valid", 13, 21), ("test", 21, 30)):
        expected = (windows[begin:end] - meta["mean"]) / meta["std"]
        np.testing.assert_allclose(read_windows(prepared, name), expected, rtol=0, atol=1e-6)


def test_splits_hold_only_the_frames_of_their_windows(prepared):
    splits = read_meta(prepared)["splits"]
    # 6 windows per start: train owns the starts 0, 1 and one window of 2; valid begins with the second window of 2
    assert splits["train"]["segments"] == [[0, 7]]
    assert splits["train"]["first"] == 0
    assert splits["valid"]["segments"] == [[0, 6]]
    assert splits["valid"]["first"] == 1
    assert splits["test"]["segments"] == [[0, 6]]
    assert splits["test"]["first"] == 3
    assert [split["shape"] for split in splits.values()] == [[6, n, 2, 4, 4] for n in (7, 6, 6)]


def test_standardised_by_the_frames_of_training_only(raw, prepared):
    train, meta = raw[:7, :, ::2, ::2].astype(np.float64), read_meta(prepared)
    np.testing.assert_allclose([*meta["mean"], *meta["std"]], [train.mean(), train.std()], rtol=1e-12)
    frames = np.load(prepared / "train.npy").astype(np.float64)
    assert abs(frames.mean()) < 1e-6
    assert abs(frames.std() - 1) < 1e-6
    assert abs(np.load(prepared / "test.npy").std() - 1) > 1e-4


def test_meta_describes_the_files(prepared):
    meta = read_meta(prepared)
    assert meta["source"] == {"train": ["raw.pt"], "train_box": None, "test": [], "test_box": None}
    expected = {"dataset": "rbc", "tile": [4, 4], "history": 3, "horizon": 2, "gap": 0, "seed": 0}
    assert {key: meta[key] for key in expected} == expected
    assert meta["units"] is None
    assert meta["time_step"] is None
    for split in meta["splits"].values():
        frames = np.load(prepared / split["frames"], mmap_mode="r")
        assert list(frames.shape) == split["shape"]
        assert frames.dtype == np.float32
        assert hashlib.sha256((prepared / split["frames"]).read_bytes()).hexdigest() == split["sha256"]
        assert (split["mask"], split["land"], split["begin"], split["end"]) == (None, 0, None, None)


def test_every_format_gives_the_same_data(raw, prepared, tmp_path):
    np.save(tmp_path / "double.npy", raw.astype(np.float64))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(raw))
    np.save(tmp_path / "foreign.npy", raw.astype(">f4"))
    torch.save(torch.from_numpy(raw), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for file in ("double.npy", "fortran.npy", "foreign.npy", "legacy.pt"):
        folder = tmp_path / Path(file).stem
        assert prepare("rbc", "--raw", tmp_path / file, "--data_dir", folder, *SMALL) == 0
        for name in ("train", "valid", "test"):
            np.testing.assert_array_equal(np.load(folder / "rbc" / f"{name}.npy"), np.load(prepared / f"{name}.npy"))


def test_default_splits_of_the_release(tmp_path):
    """2000 frames, 7 regions: train 0-5999, valid 6000-7999, test 8000-9999 of the windows j * 7 + region."""
    raw = np.random.default_rng(1).normal(size=(2000, 2, 13, 109)).astype(np.float32)
    np.save(tmp_path / "raw.npy", raw)
    release = ("--tile", 4, "--protocol", "release")
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", *release, "--data_dir", tmp_path) == 0
    meta = read_meta(tmp_path / "rbc")
    for name, begin, count in (("train", 0, 6000), ("valid", 6000, 2000), ("test", 8000, 2000)):
        windows = read_windows(tmp_path / "rbc", name)
        assert windows.shape == (count, 50, 2, 4, 4)
        for k in (0, 1, count // 2, count - 1):
            j, region = divmod(begin + k, 7)
            expected = (raw[j : j + 50, :, ::4, 16 * region : 16 * region + 16 : 4] - meta["mean"]) / meta["std"]
            np.testing.assert_allclose(windows[k], expected, atol=1e-6)


def test_blocks_of_time_do_not_show(raw, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 1)
    np.save(tmp_path / "raw.npy", raw)
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path, *SMALL) == 0
    assert np.load(tmp_path / "rbc" / "train.npy").tobytes() == np.load(prepared / "train.npy").tobytes()


def test_memory_is_bounded_by_the_block_not_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 2**19)
    raw = np.lib.format.open_memmap(tmp_path / "raw.npy", "w+", np.float32, (150, 2, 128, 256))  # 39 MB
    raw[:] = np.random.default_rng(0).normal(size=(150, 1, 1, 256))
    del raw
    tracemalloc.start()
    command = ("rbc", "--raw", tmp_path / "raw.npy", "--stride", 1, "--gap", 0, "--data_dir", tmp_path)
    assert prepare(*command) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


# ---------------------------------------------------------------- splits


@st.composite
def flows(draw):
    """Segments of frames, possibly too short for a window, with tiles, window, gap and wanted numbers of windows."""
    lengths = draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    edges = [0, *itertools.accumulate(lengths)]
    sizes = draw(st.tuples(*[st.integers(1, 60)] * 3))
    return (
        list(itertools.pairwise(edges)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 8)),
        draw(st.integers(0, 9)),
        sizes,
    )


def windows_of(split, tiles, window):
    """The ``(first frame in the source, tile)`` of a Split's windows, through what meta.json says of it."""
    frames = np.concatenate([np.arange(begin, end) for begin, end in split.ranges])
    ends = np.cumsum([end - begin for begin, end in split.ranges])
    entry = {
        "segments": list(itertools.pairwise([0, *ends.tolist()])),
        "first": split.first,
        "count": split.count,
        "shape": [tiles],
    }
    tile, start = (index.tolist() for index in window_starts(entry, window))
    for s in start:
        assert frames[s + window - 1] - frames[s] == window - 1
    touched = {frame for s in start for frame in frames[s : s + window]}
    assert touched == set(frames.tolist())
    assert len(frames) == len(touched)
    return [(int(frames[s]), t) for s, t in zip(start, tile, strict=True)]


@settings(deadline=None, max_examples=300)
@given(flows())
def test_splits_are_consecutive_windows_of_the_source(flow):
    segments, tiles, window, gap, wanted = flow
    everything = [
        (start, tile) for begin, end in segments for start in range(begin, end - window + 1) for tile in range(tiles)
    ]
    starts = len(everything) // tiles
    if starts < 3 + 2 * gap:
        with pytest.raises(InputError, match=f"wanted {window + 2 + 2 * gap}"):
            plan_splits(segments, tiles, window, gap, wanted)
        return
    splits = plan_splits(segments, tiles, window, gap, wanted)
    begin, found = 0, {}
    for name, split in splits.items():
        found[name] = windows_of(split, tiles, window)
        assert found[name] == everything[begin : begin + split.count]
        begin += split.count + gap * tiles
    counts = [split.count for split in splits.values()]
    room = (starts - 2 * gap) * tiles
    if sum(wanted) <= room:
        assert counts == list(wanted)
    else:
        assert sum(counts) == room
        assert min(counts) >= 1
        assert all(abs(count - room * n / sum(wanted)) < 5 for count, n in zip(counts, wanted, strict=True))
    if gap >= window:
        frames = [{start + k for start, _ in found[name] for k in range(window)} for name in found]
        assert all(a.isdisjoint(b) for a, b in itertools.combinations(frames, 2))


@given(flows())
def test_a_source_of_its_own_gives_the_first_windows(flow):
    segments, tiles, window, _, (wanted, _, _) = flow
    available = tiles * sum(max(0, end - begin - window + 1) for begin, end in segments)
    if available:
        split = first_windows(segments, tiles, window, wanted)
        assert split.count == len(windows_of(split, tiles, window)) == min(wanted, available)
        assert split.first == 0
    else:
        with pytest.raises(InputError, match="frames"):
            first_windows(segments, tiles, window, wanted)


@pytest.mark.parametrize(
    ("name", "flags", "shared"),
    [
        ("mine.pt", "", {}),
        ("rbc_data.pt", "", {("train", "valid"): 4, ("valid", "test"): 4}),
        ("rbc_data.pt", "--protocol disjoint", {}),
        ("mine.pt", "--protocol release", {("train", "valid"): 4, ("valid", "test"): 4}),
        ("mine.pt", "--gap 3 --splits 3 1 1", {("train", "valid"): 1, ("valid", "test"): 1}),
        ("rbc_data.pt", "--gap 5", {}),
        ("rbc_data.pt", "--splits 30 1 2", {("train", "valid"): 4, ("train", "test"): 3, ("valid", "test"): 4}),
    ],
)
def test_splits_share_the_frames_that_are_said(name, flags, shared, tmp_path, capsys):
    torch.save(torch.arange(1.0, 61)[:, None, None, None].expand(60, 2, 4, 4).contiguous(), tmp_path / name)
    command = ["--stride", "1", "--tile", "4", "--history", "3", "--horizon", "2", *flags.split()]
    assert prepare("rbc", "--raw", tmp_path / name, "--data_dir", tmp_path, *command) == 0
    meta, frames = read_meta(tmp_path / "rbc"), {}
    for split in meta["splits"]:
        flow = np.load(tmp_path / "rbc" / f"{split}.npy") * meta["std"] + meta["mean"]
        frames[split] = set(np.rint(flow).ravel().tolist())
    found = {(a, b): len(frames[a] & frames[b]) for a, b in itertools.combinations(frames, 2)}
    assert {pair: count for pair, count in found.items() if count} == shared
    said = re.findall("(train|valid) and (valid|test) ([0-9]+)", capsys.readouterr().out)
    assert {(a, b): int(count) for a, b, count in said} == shared


@pytest.mark.parametrize(
    ("files", "gap"),
    [
        ("--train sea/atlantic.nc indian.nc north_pacific.nc --test south_pacific_test.nc", 0),
        ("--train atlantic.nc indian.nc north_pacific.nc", 0),
        ("--train atlantic.nc --test mine.nc", 50),
        ("--train mine.nc --test south_pacific_test.nc", 50),
    ],
)
def test_protocol_of_ocean_files(files, gap):
    assert parse_args(["ocean", *files.split()]).gap == gap


# ---------------------------------------------------------------- orientation, group elements, summary


def test_orientation_of_the_authors_sample():
    if not SAMPLE.exists():
        pytest.skip("no ../shared")
    frames = torch.load(SAMPLE, weights_only=True).numpy()[None]
    np.testing.assert_allclose(store.orientation(frames, None), [0.076, 0.348], atol=5e-4)


@pytest.mark.parametrize(("right", "turned", "warned"), [(1, 0, False), (1, 1.15, False), (1, 1.6, True), (0, 1, True)])
def test_orientation_is_printed_and_warned_of(tmp_path, capsys, right, turned, warned):
    """Of a flow and another one turned over the divergence is the latter's; a little more of it is no proof."""
    np.save(tmp_path / "raw.npy", right * vortices() + turned * vortices()[:, :, ::-1])
    command = ["--stride", "1", "--tile", "8", "--history", "2", "--horizon", "1"]
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path, *command) == 0
    orientation = read_meta(tmp_path / "rbc")["orientation"]
    assert orientation["divergence"] * right == pytest.approx(orientation["reversed"] * turned, rel=0.1, abs=0.01)
    assert ("upside down" in capsys.readouterr().out) == warned


def test_orientation_looks_at_valid_points_only():
    flow = vortices()[None]
    land = flow.copy()
    land[..., 4:7, 5:9] = 0
    mask = np.ones((1, 16, 24), bool)
    mask[:, 4:7, 5:9] = False
    assert store.orientation(land, mask)[0] < 1e-6 < store.orientation(land, None)[0]
    assert store.orientation(flow[..., :2, :], None) is None


def test_group_elements_are_seeded_and_one_per_test_window(raw, prepared, tmp_path):
    np.save(tmp_path / "raw.npy", raw)
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", folder, "--seed", seed, *SMALL) == 0
    meta = read_meta(prepared)
    assert set(meta["tables"]["test"]) == set(SYMMETRIES) - {"None"}
    for file in meta["tables"]["test"].values():
        first, again, other = (
            np.load(folder / file)["elements"] for folder in (prepared, tmp_path / "0" / "rbc", tmp_path / "1" / "rbc")
        )
        assert len(first) == meta["splits"]["test"]["count"] == 9
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
    assert np.load(prepared / meta["tables"]["test"]["UM"])["elements"].shape == (9, 2)


def test_a_test_set_of_factors_that_need_more_frames_is_refused(tmp_path, capsys):
    """Seed 12 draws 0.75 for one window, which wants 53 frames of history; a second window draws a factor that fits."""
    np.save(tmp_path / "raw.npy", np.random.default_rng(0).normal(size=(75, 2, 32, 32)).astype(np.float32))
    command = ["rbc", "--raw", tmp_path / "raw.npy", "--stride", 1, "--tile", 32, "--gap", 0, "--seed", 12]
    command += ["--scale_factors", "release"]
    line = refused(capsys, tmp_path, *command, "--splits", 20, 5, 1)
    assert "--scale_factors release drew 0.75 for the test windows" in line
    assert "raise the third of --splits" in line
    assert prepare(*command, "--splits", 20, 4, 2, "--data_dir", tmp_path) == 0
    assert np.load(tmp_path / "rbc" / "test_scale.npz")["elements"].max() >= 1


def test_id_says_what_the_numbers_mean(tmp_path):
    """Whatever gives a number another meaning gives the data another id; names and places of files do not."""
    raw = np.random.default_rng(0).normal(size=(40, 2, 32, 32)).astype(np.float32)
    others = ["--history 5 --horizon 11", "--seed 1", "--angle_step 45", "--scale_factors release", "--gap 2"]
    others += ["--splits 5 2 2", "--tile 16", "--stride 2 --tile 16"]
    ids = []
    for number, flags in enumerate(["", "", *others]):
        file, folder = tmp_path / f"{number}.npy", tmp_path / str(number)
        np.save(file, raw)
        common = "--history 6 --horizon 10 --gap 0 --stride 1 --tile 32".split()
        assert prepare("rbc", "--raw", file, "--data_dir", folder, *common, *flags.split()) == 0
        ids.append(store.load_meta(folder / "rbc")["id"])
    assert re.fullmatch("[0-9a-f]{16}", ids[0])
    assert ids[0] == ids[1]
    assert len(set(ids)) == 1 + len(others)


PLACES = ["id", "history", "horizon", "mean", "std", "tile", "units", "time_step", "table_sha256 test UM"]
PLACES += [f"splits test {key}" for key in ("sha256", "mask_sha256", "shape", "segments", "first", "count")]


@pytest.mark.parametrize("place", PLACES)
def test_a_description_that_was_changed(place, prepared, tmp_path):
    meta = store.load_meta(prepared)
    *parents, key = place.split()
    functools.reduce(dict.__getitem__, parents, meta)[key] = "0"
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="does not match its id"):
        store.load_meta(tmp_path)


def test_summary(prepared, raw, tmp_path, capsys):
    np.save(tmp_path / "raw.npy", raw)
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path, *SMALL) == 0
    out, meta = capsys.readouterr().out, read_meta(tmp_path / "rbc")
    numbers = (f"data {meta['id']}", "13 windows", "8 windows", "9 windows", f"std {meta['std'][0]:.4g}")
    for text in (*numbers, "2 x 3 tiles", "land 0.0%", "rms divergence", "MB to"):
        assert text in out


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    assert prepare(command, "--help") == 0
    assert "--data_dir DATA_DIR" in capsys.readouterr().out


def test_print_download(capsys):
    assert prepare("ocean", "--print_download") == 0
    out = capsys.readouterr().out
    commands = [line for line in out.splitlines() if line.startswith("copernicusmarine subset")]
    assert len(commands) == 4
    assert "reanalysis" in out
    assert commands[3] == (
        "copernicusmarine subset --dataset-id cmems_mod_glo_phy_my_0.083deg_P1D-m --variable uo --variable vo "
        "--minimum-longitude -180 --maximum-longitude -159 --minimum-latitude -59 --maximum-latitude -40 "
        "--minimum-depth 0 --maximum-depth 1 --start-datetime 2016-01-01 --end-datetime 2017-12-31 --skip-existing "
        "--output-filename south_pacific_test.nc"
    )


def test_without_a_command_prepares_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert prepare() == 2
    out, err = capsys.readouterr()
    assert "found no raw file" in err
    assert err.count("\n") == 1
    assert out.count("not here; get it from") == 5
    assert data_prep.RBC_ADDRESS in out
    assert "--print_download" in out
    flow = np.tile(vortices(256, 256, 8), (7, 1, 1, 1))[:54].astype(np.float16)
    torch.save(torch.from_numpy(flow), "rbc_data.pt")
    assert prepare() == 0
    out = capsys.readouterr().out
    assert "rbc_data.pt: found" in out
    assert "fewer windows than 6000 + 2000 + 2000" in out
    assert "atlantic.nc: not here" in out
    assert [split["count"] for split in read_meta(tmp_path / "data" / "rbc")["splits"].values()] == [3, 1, 1]
    assert not (tmp_path / "data" / "ocean").exists()


# ---------------------------------------------------------------- what is on the disk


def test_without_netcdf4(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flows.netcdf.netCDF4", None)
    (tmp_path / "a.nc").touch()
    assert "need the package netCDF4; pip install" in refused(capsys, tmp_path, "ocean", "--train", tmp_path / "a.nc")


def test_what_flags_know_of_simulations():
    assert tuple(SETTINGS) == SIMULATIONS


@pytest.mark.parametrize("preset", SIMULATIONS)
def test_presets_make_windows_by_default(preset):
    """Tiles fit the grid and the frames hold all three splits."""
    args = parse_args(["rbc", "--simulate", preset])
    frames = np.broadcast_to(np.float32(0), simulation(args).stored_shape)
    flow = array_source([frames], preset, args.stride, tile_of(args))
    splits = plan_splits(flow.segments, flow.tiles, args.history + args.horizon, args.gap, args.splits)
    assert min(split.count for split in splits.values()) >= 20
    assert shared_frames(splits) == {}


def test_simulated_convection(tmp_path, capsys):
    command = ["rbc", "--simulate", "tiny", "--frames", "40", "--tile", "32", "--history", "3", "--horizon", "4"]
    assert prepare(*command, "--data_dir", tmp_path) == 0
    assert "Nusselt number" in capsys.readouterr().out
    meta = read_meta(tmp_path / "rbc")
    assert meta["gap"] == 7  # no frame in two splits
    assert meta["tile"] == [32, 32]
    raw = np.load(tmp_path / "rbc_tiny.npy")
    assert raw.shape == (40, 2, 32, 64)
    train = np.load(tmp_path / "rbc" / "train.npy")
    ours = (raw[:, :, :, :32].astype(np.float64) - meta["mean"]) / meta["std"]
    np.testing.assert_allclose(train[0], ours[: train.shape[1]], rtol=1e-4, atol=1e-5)

    simulated = (tmp_path / "rbc_tiny.npy").stat().st_mtime_ns
    assert prepare(*command, "--gap", "0", "--data_dir", tmp_path) == 0
    assert (tmp_path / "rbc_tiny.npy").stat().st_mtime_ns == simulated  # not simulated again
    capsys.readouterr()
    assert prepare(*command, "--ra", "5e5", "--data_dir", tmp_path) == 2
    assert "is not the simulation with ra 500000.0" in capsys.readouterr().err


@pytest.mark.parametrize(("units", "faster"), [("free_fall", 1), ("cell", 2)])
def test_a_flow_of_another_rayleigh_number(tmp_path, units, faster):
    """In units of the cell, heated four times as much, speeds are twice as high and frames twice as far apart."""
    size = "--frames 40 --tile 16 --stride 2 --history 3 --horizon 4 --ra 3e5".split()
    other = ["--test_ra", "1.2e6", "--test_units", units, "--name", "hotter", "--fields", "vector", "scalar"]
    assert prepare("rbc", "--simulate", "tiny", *size, *other, "--data_dir", tmp_path) == 0
    (path,) = (path for path in tmp_path.glob("rbc_tiny_test_*.npy") if "temperature" not in path.name)
    settings = json.loads(path.with_suffix(".json").read_text())["settings"]
    assert (settings["ra"], settings["seed"], settings["frames"]) == (1.2e6, 1, 10)
    assert settings["interval"] == pytest.approx(0.4 * faster)
    meta = read_meta(tmp_path / "hotter")
    speeds, temperatures = np.load(path), np.load(temperature_file(path))
    domain = np.load(tmp_path / "hotter" / "domain.npy")[0]
    raw = np.concatenate([faster * speeds, faster**2 * temperatures[:, None]], 1)[: len(domain), :, ::2, ::2]
    mean, std = (np.repeat(meta[name], (2, 1))[:, None, None] for name in ("mean", "std"))  # of the flow trained on
    np.testing.assert_allclose(domain * std + mean, raw[..., :16, :16], rtol=1e-4, atol=1e-5)
    assert np.load(tmp_path / "rbc_tiny.npy").shape == (40, 2, 32, 64)


def test_a_finer_grid_where_the_rayleigh_number_wants_it():
    """As many points are stored."""
    args = parse_args(["rbc", "--simulate", "small", "--test_ra", "1e8"])
    settings = simulation(args)
    other, faster = other_simulation(args, settings)
    assert (other.nz, other.nx, other.store_every, faster) == (128, 896, 2, 1)
    assert other.stored_shape[1:] == settings.stored_shape[1:]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--simulate tiny --ra -1", "ra is -1.0; it must be a positive number"),
        ("--simulate tiny --ra 1e9", "need 203 rows: raise nz"),
        ("--simulate huge", "invalid choice: 'huge'"),
        ("--simulate tiny --raw x.npy", "not allowed with argument"),
        ("--raw x.npy --ra 1e6", "--ra goes with --simulate"),
        ("--raw x.npy --test_ra 1e6", "--test_ra goes with --simulate"),
        ("--simulate tiny --test_ra 1e40", "rows, more than 8 times 32: raise --nz"),
        ("--simulate tiny --test_ra 0", "'0' is not a number above 0"),
        ("--simulate tiny --device mars", "--device must be cpu, cuda or cuda:N, got mars"),
        ("", "one of the arguments --raw --simulate --print_download is required"),
    ],
)
def test_simulations_that_cannot_be(tmp_path, capsys, flags, message):
    assert prepare("rbc", *flags.split(), "--data_dir", tmp_path / "data") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_failure_leaves_the_old_data(raw, tmp_path, capsys):
    np.save(tmp_path / "raw.npy", raw)
    command = ("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path, *SMALL)
    assert prepare(*command) == 0
    before = digest(tmp_path / "rbc")
    broken = raw.copy()
    broken[8, 1, 2, 2] = np.nan  # in the last split only, when the others have been written
    np.save(tmp_path / "raw.npy", broken)
    assert prepare(*command) == 2
    assert "frame 8" in capsys.readouterr().err
    assert digest(tmp_path / "rbc") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["raw.npy", "rbc"]


def test_success_replaces_the_old_data(raw, prepared, tmp_path, capsys):
    (tmp_path / "rbc").mkdir()
    for name in ("old.npy", "meta.json"):
        (tmp_path / "rbc" / name).touch()
    (tmp_path / ".rbc.partial").mkdir()  # of a run that was killed
    (tmp_path / ".rbc.partial" / "stale.npy").touch()
    np.save(tmp_path / "raw.npy", raw)
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path, *SMALL) == 0
    assert "replacing the earlier" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "rbc").iterdir()} == {file.name for file in prepared.iterdir()}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["raw.npy", "rbc"]


def test_a_folder_of_other_files_is_not_replaced(raw, tmp_path, capsys):
    """Raw data may well lie where prepared ones go by default."""
    (tmp_path / "rbc").mkdir()
    np.save(tmp_path / "rbc" / "raw.npy", raw)
    assert prepare("rbc", "--raw", tmp_path / "rbc" / "raw.npy", "--data_dir", tmp_path, *SMALL) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds other files than prepared data" in line
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["rbc", "rbc/raw.npy"]


def test_a_second_process_is_refused_and_the_first_finishes(tmp_path):
    with new_folder(tmp_path / "rbc") as folder:
        (folder / "meta.json").touch()
        with pytest.raises(InputError, match="another process is at"), new_folder(tmp_path / "rbc"):
            pass
        assert (folder / "meta.json").exists()
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*")] == ["rbc", "rbc/meta.json"]


@pytest.mark.parametrize(
    ("module", "command"), [("convection", "rbc --simulate tiny"), ("plumes", "smoke --set rotation")]
)
def test_a_simulation_is_of_one_process(module, command, tmp_path, monkeypatch, capsys):
    """Two data sets may be cut from one simulation: its file is not that of either."""

    def simulate(*_, **__):
        (lock,) = tmp_path.glob(".*.npy.lock")
        with pytest.raises(InputError, match="another process is at"), locked(lock.with_name(lock.stem[1:])):
            pass
        raise InputError("refused")

    monkeypatch.setattr(f"flows.{module}.simulate", simulate)
    assert prepare(*command.split(), "--name", "other", "--data_dir", tmp_path) == 2
    assert capsys.readouterr().err == "error: refused\n"
    assert not [*tmp_path.iterdir()]


def test_waiting_for_another_process(tmp_path, capsys):
    wait_for(tmp_path / "run")  # there is none
    waits = threading.Thread(target=wait_for, args=[tmp_path / "run"])
    with locked(tmp_path / "run"):
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
    waits.join()
    assert capsys.readouterr().out == f"waiting for another process, which is at {tmp_path}/run\n"
    assert not [*tmp_path.iterdir()]


def test_tiles_without_a_spectrum_are_refused(tmp_path, capsys):
    np.save(tmp_path / "raw.npy", np.random.default_rng(0).normal(size=(40, 2, 12, 12)))
    command = ["rbc", "--raw", tmp_path / "raw.npy", *SMALL, "--stride", 1, "--tile"]
    assert "tiles of 3 x 3 points have no energy spectrum" in refused(capsys, tmp_path, *command, 3)
    assert prepare(*command, 4, "--data_dir", tmp_path) == 0


def test_killed_between_the_two_steps_of_a_replacement(tmp_path):
    (tmp_path / ".rbc.old").mkdir()
    with pytest.raises(InputError), new_folder(tmp_path / "rbc"):
        raise InputError
    assert [file.name for file in tmp_path.iterdir()] == ["rbc"]


@pytest.mark.parametrize(("name", "folder"), [("RBC", "rbc"), ("ocean", "ocean"), ("Mine", "Mine")])
def test_data_lie_where_run_model_looks(name, folder):
    assert parse_args(["array", "--raw", "x.npy", "--name", name]).name == folder
    assert data_folder(Path("data"), name) == Path("data", folder)


def test_data_folder_may_be_a_link(raw, tmp_path):
    np.save(tmp_path / "raw.npy", raw)
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rbc").symlink_to(tmp_path / "disk" / "rbc")
    for _ in range(2):
        assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path / "data", *SMALL) == 0
    assert (tmp_path / "data" / "rbc").is_symlink()
    assert (tmp_path / "disk" / "rbc" / "meta.json").exists()


def test_interrupt_leaves_nothing(raw, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "orientation", interrupt)
    np.save(tmp_path / "raw.npy", raw)
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path / "data", *SMALL) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert not (tmp_path / "data").exists()


def run(tmp_path, *argv, **options):
    """Run the command line as its own process."""
    command = [sys.executable, ROOT / "data_prep.py", *argv, "--data_dir", tmp_path / "data"]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, **options)


def test_full_disk(raw, tmp_path):
    """A limit on the size of files stands for it; the real one meets the same allocation."""
    np.save(tmp_path / "raw.npy", raw)
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))}
    done = run(tmp_path, "rbc", "--raw", tmp_path / "raw.npy", *SMALL, **limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot write train.npy")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room")
def test_full_disk_is_met_before_the_map(raw, tmp_path, monkeypatch, capsys):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    np.save(tmp_path / "raw.npy", raw)
    assert "No space left" in refused(capsys, tmp_path, "rbc", "--raw", tmp_path / "raw.npy", *SMALL)


# ---------------------------------------------------------------- bad inputs


class Malicious:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_pickle(path):
    torch.save({"frames": torch.zeros(3), "code": Malicious(path.with_name("executed"))}, path)


def write_objects(path):
    np.save(path, np.array([Malicious(path.with_name("executed"))], object), allow_pickle=True)


def write_plain_pickle(path):
    path.write_bytes(pickle.dumps(Malicious(path.with_name("executed"))))


def write_truncated(path):
    torch.save(torch.randn(40, 2, 16, 24), path)
    path.write_bytes(path.read_bytes()[:20000])


def write_archive(path):
    np.savez(path.with_suffix(".npz"), a=np.zeros(3), b=np.zeros(3))
    path.with_suffix(".npz").rename(path)


def write_truncated_array(path):
    np.save(path, np.zeros((40, 2, 16, 24)))
    path.write_bytes(path.read_bytes()[:20000])


def tensor(*shape, **kind):
    return lambda path: torch.save(torch.ones(shape, **kind), path)


def array(frames):
    return lambda path: np.save(path, frames)


def spoiled(value):
    frames = np.random.default_rng(0).normal(size=(23, 2, 16, 24))
    frames[3, 0, 4, 6] = value
    return array(frames)


BAD_FILES = {
    "zero bytes": ("raw.pt", lambda path: path.touch(), "cannot be loaded"),
    "text": ("raw.pt", lambda path: path.write_text("u, v\n1, 2\n"), "cannot be loaded"),
    "truncated": ("raw.pt", write_truncated, "cannot be loaded"),
    "code in a pickle": ("raw.pt", write_pickle, "cannot be loaded"),
    "a plain pickle": ("raw.pt", write_plain_pickle, "cannot be loaded"),
    "a dictionary": ("raw.pt", lambda path: torch.save({"x": torch.zeros(2)}, path), "holds a dict"),
    "three dimensions": ("raw.pt", tensor(23, 16, 24), r"shape \(23, 16, 24\), wanted \(T, 2, H, W\)"),
    "three components": ("raw.pt", tensor(23, 3, 16, 24), "wanted \\(T, 2, H, W\\)"),
    "no frames": ("raw.pt", tensor(0, 2, 16, 24), "shape \\(0, 2, 16, 24\\)"),
    "whole numbers": ("raw.pt", tensor(23, 2, 16, 24, dtype=torch.int32), "int32"),
    "bfloat16": ("raw.pt", tensor(23, 2, 16, 24, dtype=torch.bfloat16), "save it as float32"),
    "sparse": ("raw.pt", lambda path: torch.save(torch.eye(3).to_sparse(), path), "numpy cannot read"),
    "still": ("raw.pt", tensor(23, 2, 16, 24), "flow is still"),
    "width": ("raw.pt", tensor(23, 2, 16, 26), "8 x 13 after --stride 2, wanted multiples of --tile 4"),
    "no rows": ("raw.npy", array(np.zeros((23, 2, 0, 24))), "shape \\(23, 2, 0, 24\\)"),
    "smaller than a tile": ("raw.pt", tensor(23, 2, 4, 4), "2 x 2 after --stride 2"),
    "too few frames": ("raw.pt", tensor(6, 2, 16, 24), "found 6 frames.*wanted 7.*--history"),
    "not an array": ("raw.npy", lambda path: path.write_text("u v"), "no readable .npy"),
    "a pickle for an array": ("raw.npy", write_plain_pickle, "no readable .npy"),
    "empty array file": ("raw.npy", lambda path: path.touch(), "no readable .npy"),
    "truncated array": ("raw.npy", write_truncated_array, "no readable .npy"),
    "pickled objects": ("raw.npy", write_objects, "no readable .npy"),
    "several arrays": ("raw.npy", write_archive, "several arrays"),
    "complex": ("raw.npy", array(np.ones((23, 2, 16, 24), complex)), "complex128"),
    "NaN": ("raw.npy", spoiled(np.nan), "not finite in frame 3"),
    "infinity": ("raw.npy", spoiled(-np.inf), "not finite in frame 3"),
    "beyond float32": ("raw.npy", spoiled(1e300), "not finite in frame 3"),
    "suffix": ("raw.csv", lambda path: path.write_text("1,2"), "neither .pt nor .npy"),
    "a folder": ("raw.pt", lambda path: path.mkdir(), "is a folder"),
    "nothing": ("raw.pt", lambda path: None, "is not there"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case, tmp_path, capsys):
    name, write, message = BAD_FILES[case]
    write(tmp_path / name)
    assert re.search(message, refused(capsys, tmp_path, "rbc", "--raw", tmp_path / name, *SMALL))
    assert not (tmp_path / "executed").exists()


FLAGS = {
    "no file": ["rbc"],
    "unknown command": ["sea"],
    "unknown flag": ["rbc", "--raw", "raw.npy", "--regions", "7"],
    "negative tile": ["rbc", "--raw", "raw.npy", "--tile", "-4"],
    "zero stride": ["rbc", "--raw", "raw.npy", "--stride", "0"],
    "negative gap": ["rbc", "--raw", "raw.npy", "--gap", "-1"],
    "zero history": ["rbc", "--raw", "raw.npy", "--history", "0"],
    "half a horizon": ["rbc", "--raw", "raw.npy", "--horizon", "2.5"],
    "two splits": ["rbc", "--raw", "raw.npy", "--splits", "10", "10"],
    "an empty split": ["rbc", "--raw", "raw.npy", "--splits", "10", "0", "10"],
    "too much land": ["ocean", "--train", "a.nc", "--max_land", "1.2"],
    "negative land": ["ocean", "--train", "a.nc", "--max_land", "-0.1"],
    "no training files": ["ocean", "--test", "a.nc"],
    "u alone": ["ocean", "--train", "a.nc", "--u_var", "uo"],
}


@pytest.mark.parametrize("case", FLAGS)
def test_wrong_flag(case, tmp_path, capsys):
    refused(capsys, tmp_path, *FLAGS[case])


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_no_place_to_write(place, raw, tmp_path, capsys):
    (tmp_path / "file").touch()
    np.save(tmp_path / "raw.npy", raw)
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path / place, *SMALL) == 2
    err = capsys.readouterr().err
    assert "cannot write into" in err
    assert err.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "raw.npy"]


def test_file_in_the_place_of_the_folder(raw, tmp_path, capsys):
    np.save(tmp_path / "raw.npy", raw)
    (tmp_path / "rbc").write_text("mine")
    assert prepare("rbc", "--raw", tmp_path / "raw.npy", "--data_dir", tmp_path, *SMALL) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "rbc").read_text() == "mine"


def test_bad_file_as_a_process(tmp_path):
    name, write, message = BAD_FILES["code in a pickle"]
    write(tmp_path / name)
    done = run(tmp_path, "rbc", "--raw", tmp_path / name, *SMALL)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "executed").exists()
