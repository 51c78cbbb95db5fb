"""The second paper's jet, measured velocities in 24 files, in its splits; any other folder is read by ``flows.piv``.

``raw_data_A_B.pt``, A from 1 to 3 and B from 1 to 8, are tensors (T, 2, 62, 23) of the parts of a jet (Rose-STL-Lab/
Approximately-Equivariant-Nets, run_model.py): their names and splits are known, but neither units nor intervals, nor
which way rows run. Six parts are the domain. Windows start where those of the plumes do.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from flows.arrays import load_array
from flows.piv import piv_sources
from flows.plumes import STARTS, segments_by_split
from flows.source import grid_source, refuse_not_finite
from utils import InputError

PARTS = tuple(product(range(1, 4), range(1, 9)))
HELD_OUT = {(1, 5), (2, 3), (2, 5), (2, 7), (3, 2), (3, 7)}


def jet_sources(args):
    """Sources of the splits of the paper's jet; of other velocities as :func:`flows.piv.piv_sources`.

    Args:
        args: ``raw``, the folder; ``history``, ``horizon``; ``gap``, which must be 0 with the paper's files; ``tile``.

    Raises:
        InputError: a file is missing, short, of another size or no such tensor, or has NaN.
    """
    paths = [Path(args.raw, f"raw_data_{a}_{b}.pt") for a, b in PARTS]
    missing = [path.name for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return piv_sources(args)
    if missing:
        raise InputError(f"{args.raw}: {missing[0]} is missing; the second paper's jet has {len(paths)} files")
    if args.gap:
        raise InputError("the second paper's jet has its own splits, which share frames; leave out --gap, --protocol")
    window = args.history + args.horizon
    stored, parts = max(end for _, end in STARTS.values()) - 1 + window, [load_array(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.ndim != 4 or part.shape[1:] != (2, *parts[0].shape[-2:]) or len(part) < stored:
            size = f"({stored} or more, 2, {', '.join(map(str, parts[0].shape[-2:]))})"
            raise InputError(f"{path} has shape {part.shape}, wanted {size}")
        refuse_not_finite(part[:stored], path, 0)
    frames = np.concatenate([part[:stored] for part in parts]).astype(np.float32)
    source = grid_source(
        lambda begin, end: frames[begin:end],
        frames.shape[2:],
        args.tile,
        segments=[],
        frame_bytes=frames[:1].nbytes,
        files=[paths[0].name, paths[-1].name],
        notes=[f"the second paper's jet: {len(parts)} parts, {len(HELD_OUT)} for domain only"],
    )
    held_out = [i for i, part in enumerate(PARTS) if part in HELD_OUT]
    splits = segments_by_split(STARTS, len(parts), held_out, stored, window)
    return {split: replace(source, segments=segments) for split, _, segments in splits}
