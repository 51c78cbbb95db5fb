"""Prepared data as data_prep.py writes them: how the tests make them, and read them back."""

import hashlib
import json

import numpy as np

import data_prep
from flows.store import checksum, file_checksum
from flows.windows import window_starts
from models.fields import of_component
from utils import exit_code


def prepare(*argv):
    """Run the command line in this process; returns the exit code."""
    try:
        return exit_code(lambda: data_prep.main([str(word) for word in argv]))
    except SystemExit as stop:  # argparse
        return stop.code


def refused(capsys, folder, *argv):
    """Run a command that must end in one line and exit code 2 and leave nothing; returns that line."""
    data = folder / "data"
    assert prepare(*argv, "--data_dir", data) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert not data.exists()
    return lines[0]


def read_meta(folder):
    return json.loads((folder / "meta.json").read_text())


def read_windows(folder, name):
    """All windows of a split, ``(count, window, 2, h, w)``, cut as the training does."""
    meta = read_meta(folder)
    length = meta["history"] + meta["horizon"]
    frames = np.load(folder / f"{name}.npy")
    tiles, starts = window_starts(meta["splits"][name], length)
    return np.stack([frames[tile, start : start + length] for tile, start in zip(tiles, starts, strict=True)])


def raw_windows(folder, split):
    """Windows of a split in the units of the raw data."""
    meta = read_meta(folder)
    mean, std = (np.array(of_component(meta["fields"], meta[key]))[:, None, None] for key in ("mean", "std"))
    return read_windows(folder, split) * std + mean


def entry_of(folder, name, segments, first, count):
    """A split's entry in meta.json, of frames and maybe a mask that were written by hand."""
    mask = folder / f"{name}_mask.npy"
    return {
        "frames": f"{name}.npy",
        "mask": mask.name if mask.exists() else None,
        "shape": list(np.load(folder / f"{name}.npy", mmap_mode="r").shape),
        "segments": segments,
        "first": first,
        "count": count,
        "sha256": file_checksum(folder / f"{name}.npy"),
        "mask_sha256": checksum(np.load(mask)) if mask.exists() else None,
    }


def digest(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def vortices(rows=16, columns=24, frames=12):
    """A divergence-free flow on the grid with v along increasing rows, ``(frames, 2, rows, columns)``."""
    y, x = np.mgrid[: rows + 2, : columns + 2]
    t = np.arange(frames)[:, None, None]
    stream = np.sin(0.5 * x + 0.1 * t) * np.cos(0.4 * y) + 0.5 * np.cos(0.3 * x - 0.6 * y + 0.2 * t)
    u = -(stream[:, 2:, 1:-1] - stream[:, :-2, 1:-1])
    v = stream[:, 1:-1, 2:] - stream[:, 1:-1, :-2]
    return np.stack([u, v], 1).astype(np.float32)
