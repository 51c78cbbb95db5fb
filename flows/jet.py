"""The second paper's jet, measured velocities in 24 files, in its splits; any other folder is read by ``flows.piv``.

``raw_data_A_B.pt``, A from 1 to 3 and B from 1 to 8, are tensors (T, 2, 62, 23) of the parts of a jet (Rose-STL-Lab/
Approximately-Equivariant-Nets, run_model.py): their names and splits are known, but neither units nor intervals, nor
which way rows run. Six parts are the domain. Windows start where those of the plumes do.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flows.arrays import load_array
from flows.download import JET_FILES
from flows.piv import piv_sources
from flows.source import grid_source, refuse_not_finite
from flows.splits import STARTS, frames_of, segments_by_start
from utils import InputError

HELD_OUT = {f"raw_data_{part}.pt" for part in ("1_5", "2_3", "2_5", "2_7", "3_2", "3_7")}


def jet_sources(args):
    """Sources of the splits of the paper's jet; of other velocities as :func:`flows.piv.piv_sources`.

    Args:
        args: ``raw``, the folder; ``history``, ``horizon``; ``gap``, which must be 0 with the paper's files; ``tile``.

    Raises:
        InputError: a file is missing, short, of another size or no such tensor, or has a value that is not finite.
    """
    paths = [Path(args.raw, name) for name in JET_FILES]
    missing = [path.name for path in paths if not path.exists()]
    if len(missing) == len(paths):
        return piv_sources(args)
    if missing:
        raise InputError(f"{args.raw}: {missing[0]} is missing; the second paper's jet has {len(paths)} files")
    if args.gap:
        raise InputError("the second paper's jet has its own splits, which share frames; leave out --gap, --protocol")
    window = args.history + args.horizon
    length, frames = frames_of(STARTS, window), []
    for path in paths:
        part = load_array(path)
        height, width = frames[0].shape[2:] if frames else part.shape[-2:]
        if part.ndim != 4 or part.shape[1:] != (2, height, width) or len(part) < length:
            raise InputError(f"{path} has shape {part.shape}, wanted ({length} or more, 2, {height}, {width})")
        with np.errstate(over="ignore"):  # found as an infinity
            frames.append(part[:length].astype(np.float32))
        refuse_not_finite(frames[-1], path, 0)
    frames = np.concatenate(frames)
    source = grid_source(
        lambda begin, end: frames[begin:end],
        frames.shape[2:],
        args.tile,
        segments=[],
        frame_bytes=frames[:1].nbytes,
        files=[paths[0].name, paths[-1].name],
        notes=[f"the second paper's jet: {len(paths)} parts, {len(HELD_OUT)} for domain only"],
    )
    held_out = [i for i, name in enumerate(JET_FILES) if name in HELD_OUT]
    splits = segments_by_start(STARTS, len(paths), held_out, window)
    return {split: replace(source, segments=segments) for split, _, segments in splits}
