"""Smoke plumes of the second paper, simulated here, in its splits.

A window starts at frame s of a simulation; all later frames are forecast in turn. Train, valid and test follow each
other in the same simulations, and share frames; domain is the beginning of simulations that the others never see.
Levels, flows for measuring how a broken symmetry is learned, have a test of windows later than those that choose the
best epoch, when the plumes are faster than any before, and a domain; the release measures on those that choose it.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flows.arguments import PLUMES
from flows.folder import locked
from flows.source import grid_source
from flows.splits import STARTS, frames_of, segments_by_start
from flows.store import allocate, checksum
from simulation.smoke import BOX, levels, magnitude, rotation, scale, simulate, translation
from utils import InputError, choose_device, replacing

SETS = dict(zip(PLUMES, (translation, rotation, scale, magnitude, levels), strict=True))
LEVEL_STARTS = {"train": (0, 30), "valid": (30, 40), "test": (40, 50), "domain": (0, 30)}


def plume_sources(args):
    """Sources of the splits of a set of plumes.

    Args:
        args: ``set``, ``size``, ``level`` of the set levels, ``dial`` of the others, ``fields``, ``history``,
            ``horizon``, ``device``; ``data_dir``, where frames are kept once they are simulated.
    """
    of_levels, window = args.set == "levels", args.history + args.horizon
    starts = LEVEL_STARTS if of_levels else STARTS
    dial = [args.dial] if len(args.dial) > 1 else args.dial
    dataset = levels(args.level, args.size) if of_levels else SETS[args.set](args.size, *dial)
    dataset = replace(dataset, steps=dataset.skip + frames_of(starts, window))
    path, frames = simulated(dataset, args)
    uneven = len({plume.dt for plume in dataset.plumes}) > 1
    names = ["center", "buoyancy", "right", "resolution", *(["dt"] if uneven else [])]
    chosen = np.concatenate([{"vector": [0, 1], "scalar": [2]}[kind] for kind in args.fields])
    source = grid_source(
        lambda begin, end: frames[begin:end][:, chosen],
        frames.shape[2:],
        segments=[],
        frame_bytes=frames[:1].nbytes,
        fields=tuple(args.fields),
        files=[path.name],
        time_step=None if uneven else 1,
        spacing=[BOX / dataset.size] * 2,
        units="box/64 and step",
        boundaries={"x": "wall", "y": "wall"},
        notes=[
            f"simulated {len(dataset.plumes)} plumes of the set {args.set}, {len(dataset.held_out)} for domain only"
        ],
    )
    sources = {}
    for split, members, segments in segments_by_start(starts, len(dataset.plumes), dataset.held_out, window):
        parameters = {name: [getattr(dataset.plumes[i], name) for i in members] for name in names}
        sources[split] = replace(
            source,
            segments=segments,
            parameters=parameters | ({"turns": [i % 4 for i in members]} if of_levels else {}),
        )
    return sources


def simulated(dataset, args):
    """The file in which a data set's frames are kept, whose name has a hash of the plumes, and its map.

    Raises:
        InputError: the file is damaged.
    """
    code = checksum(repr(dataset).encode())[:8]
    path = Path(args.data_dir, f"smoke_{args.set}_{args.size}_{code}.npy")
    if not path.exists():
        device = choose_device(args.device)
        with locked(path), replacing(path) as temporary:
            frames = allocate(temporary, dataset.shape)
            simulate(dataset, device, out=frames)
            frames.flush()
    try:
        return path, np.load(path, mmap_mode="r").reshape(-1, 3, dataset.size, dataset.size)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged; remove it, and it will be made again") from error
