"""Sources of trajectories, splits that sources bring, and what meta.json says of grid and parameters."""

import itertools
import json
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prepared import prepare, raw_windows, read_meta

from flows.source import Source
from flows.splits import share_trajectories
from flows.store import load_meta, write_dataset
from flows.windows import Windows
from utils import InputError

LENGTHS = (7, 3, 9, 6, 8)  # frames of the trajectories; the second is shorter than a window
ARGS = Namespace(history=3, horizon=1, gap=0, splits=None, seed=0, angle_step=90, scale_factors="grid")


def ensemble(seed=0, **changes):
    """A Source of trajectories of ``LENGTHS`` frames of 5 x 11 points, no two values alike, and its frames."""
    frames = np.random.default_rng(seed).normal(size=(1, sum(LENGTHS), 3, 5, 11)).astype(np.float32)
    ends = [0, *itertools.accumulate(LENGTHS)]
    source = Source(
        read=lambda begin, end: frames[:, begin:end],
        tiles=1,
        size=(5, 11),
        segments=list(itertools.pairwise(ends)),
        frame_bytes=frames[:, :1].nbytes,
        files=[f"{seed}.h5"],
        fields=("vector", "scalar"),
        time_step=0.25,
        spacing=[0.5, 0.125],
        periodic=["x"],
        parameters={"Rayleigh": [1e4, 2e4, 3e4, 4e4, 5e4]},
        notes=[f"from {seed}.h5"],
    )
    return replace(source, **changes), frames[0]


def write(folder, sources, **changes):
    folder.mkdir()
    return write_dataset(folder, "mine", sources, Namespace(**{**vars(ARGS), **changes}))


def windows_of(frames, trajectories):
    begins = [0, *itertools.accumulate(LENGTHS)]
    starts = [range(begins[i], begins[i] + LENGTHS[i] - 3) for i in trajectories]
    return np.stack([frames[s : s + 4] for s in itertools.chain(*starts)])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "mine"
    sources, frames = {}, {}
    for seed, split in enumerate(("train", "valid", "test")):
        sources[split], frames[split] = ensemble(seed)
    return folder, frames, write(folder, sources)


def test_every_split_is_its_own_source_and_no_window_leaves_its_trajectory(prepared):
    folder, frames, _ = prepared
    for split in frames:
        np.testing.assert_allclose(raw_windows(folder, split), windows_of(frames[split], [0, 2, 3, 4]), atol=1e-5)
    train = np.concatenate([frames["train"][:7], frames["train"][10:]]).astype(np.float64)  # those that hold a window
    std = [train[:, :2].std(), train[:, 2].std()]
    meta = load_meta(folder)
    np.testing.assert_allclose(meta["std"], [np.sqrt((train[:, :2] ** 2).mean()), std[1]], rtol=1e-6)
    np.testing.assert_allclose(meta["mean"], [0, train[:, 2].mean()], atol=1e-9)


def test_grid_and_parameters_are_said(prepared):
    folder, _, lines = prepared
    meta = load_meta(folder)
    assert (meta["time_step"], meta["spacing"], meta["periodic"]) == (0.25, [0.5, 0.125], ["x"])
    for split in meta["splits"].values():
        assert split["parameters"] == {"Rayleigh": [1e4, 3e4, 4e4, 5e4]}  # of the segments that are there
        assert len(split["segments"]) == 4
    assert meta["source"] == {"train": ["0.h5"], "valid": ["1.h5"], "test": ["2.h5"]}
    assert lines[:3] == ["from 0.h5", "valid files: from 1.h5", "test files: from 2.h5"]
    assert "points 0.5 apart along y, 0.125 along x, periodic in x; frames 0.25 apart" in lines
    assert not any("shared" in line or "fewer windows" in line for line in lines)


def test_windows_read_such_data(prepared):
    folder, frames, _ = prepared
    windows = Windows(folder, load_meta(folder), "test")
    assert len(windows) == 4 + 6 + 3 + 5
    read, mask = windows.read(torch.tensor([4]), 3, 1)  # the first of the third trajectory
    scale = np.array([load_meta(folder)[key] for key in ("mean", "std")]).repeat([2, 1], 1)[:, :, None, None]
    np.testing.assert_allclose(read[0].numpy() * scale[1] + scale[0], frames["test"][10:14], atol=1e-5)
    assert mask is None


def test_wanted_windows_are_the_most_that_are_taken(tmp_path):
    sources = {split: ensemble(seed)[0] for seed, split in enumerate(("train", "valid", "test", "domain"))}
    write(tmp_path / "mine", sources, splits=[5, 100, 1])
    splits = load_meta(tmp_path / "mine")["splits"]
    assert {name: split["count"] for name, split in splits.items()} == {"train": 5, "valid": 18, "test": 1, "domain": 1}
    assert splits["train"]["segments"] == [[0, 7], [7, 11]]  # only frames of these windows
    assert splits["train"]["parameters"] == {"Rayleigh": [1e4, 3e4]}


def test_splits_of_one_source_say_what_they_share(tmp_path):
    source, _ = ensemble()
    sources = {
        "train": replace(source, segments=[(0, 5), (10, 15)], parameters={}),
        "valid": replace(source, segments=[(4, 8)], parameters={}),
        "test": replace(source, segments=[(19, 24)], parameters={}),
        "domain": replace(source, read=lambda begin, end: source.read(begin, end), segments=[(0, 5)], parameters={}),
    }
    lines = write(tmp_path / "mine", sources)
    assert "frames shared: train and valid 1" in lines
    assert sum("from 0.h5" in line for line in lines) == 1  # said once of all


def test_every_split_has_its_own_mask(tmp_path):
    sources = {}
    for seed, split in enumerate(("train", "valid", "test")):
        mask = np.ones((1, 5, 11), bool)
        mask[0, seed, 2 * seed] = False
        sources[split] = ensemble(seed, mask=mask)[0]
    write(tmp_path / "mine", sources)
    for split, source in sources.items():
        frames = np.load(tmp_path / "mine" / f"{split}.npy")
        np.testing.assert_array_equal((frames == 0).all((1, 2)), ~source.mask)
        np.testing.assert_array_equal(np.load(tmp_path / "mine" / f"{split}_mask.npy"), source.mask)


CHANGES = {
    "periodic": {"periodic": ["x", "y"]},
    "not periodic": {"periodic": []},
    "spacing": {"spacing": [0.5, 0.25]},
    "no spacing": {"spacing": None},
    "time step": {"time_step": 0.5},
    "parameters": {"parameters": {"Rayleigh": [1e4, 2e4, 3e4, 4e4, 6e4]}},
    "no parameters": {"parameters": {}},
}


def test_id_says_what_the_grid_and_the_parameters_are(prepared, tmp_path):
    ids = [load_meta(prepared[0])["id"]]
    for name, changes in CHANGES.items():
        sources = {split: ensemble(seed, **changes)[0] for seed, split in enumerate(("train", "valid", "test"))}
        write(tmp_path / name, sources)
        ids.append(load_meta(tmp_path / name)["id"])
    assert len(set(ids)) == 1 + len(CHANGES)


@pytest.mark.parametrize("key", ["spacing", "periodic", "parameters"])
@pytest.mark.parametrize("change", ["changed", "removed"])
def test_a_description_of_the_grid_that_was_changed(key, change, prepared, tmp_path):
    meta = load_meta(prepared[0])
    place = meta["splits"]["test"] if key == "parameters" else meta
    place[key] = "0"
    if change == "removed":
        del place[key]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="does not match its id"):
        load_meta(tmp_path)


def test_id_of_data_that_say_nothing_new_is_what_it_was(tmp_path):
    """Runs know their data by it. All sums of these whole numbers are exact, so it is the same on every machine."""
    np.save(tmp_path / "raw.npy", (np.arange(24 * 2 * 8 * 12) % 97).reshape(24, 2, 8, 12).astype(np.float32))
    command = "--name golden --tile 4 --history 3 --horizon 2".split()
    assert prepare("array", "--raw", tmp_path / "raw.npy", *command, "--data_dir", tmp_path) == 0
    assert read_meta(tmp_path / "golden")["id"] == "346ab23a0ec22281"


def test_tiles_that_are_not_square_get_half_turns(prepared):
    angles = np.load(prepared[0] / "test_rot.npz")["elements"]
    assert set(angles.tolist()) == {180, 360}


@given(st.integers(3, 40), st.tuples(*[st.integers(1, 9)] * 3))
def test_trajectories_are_shared_out_whole(count, wanted):
    segments = [(10 * i, 10 * i + 7) for i in range(count)]
    source = replace(ensemble()[0], segments=segments, parameters={"number": list(range(count))})
    parts = share_trajectories(source, wanted)
    assert list(parts) == ["train", "valid", "test"]
    assert [segment for part in parts.values() for segment in part.segments] == segments
    assert [number for part in parts.values() for number in part.parameters["number"]] == list(range(count))
    sizes = [len(part.segments) for part in parts.values()]
    assert min(sizes) >= 1
    assert all(abs(size - count * share / sum(wanted)) < 3.5 for size, share in zip(sizes, wanted, strict=True))


def test_two_trajectories_are_left_to_be_cut_in_time():
    source = replace(ensemble()[0], segments=[(0, 7), (7, 10)])
    assert share_trajectories(source, (8, 1, 1)) == {"train": source}
