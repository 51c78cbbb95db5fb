"""Writes ``data/<name>/``, all or nothing, and reads what describes it."""

import contextlib
import hashlib
import itertools
import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch

from flows.source import frame_blocks
from flows.splits import plan, shared_frames
from models import SYMMETRIES
from models.fields import SIZES, components, of_component, parts
from models.rotation import Rotation
from models.scale import Scale
from utils import TEST_STEPS, InputError, progress, write_json

SCHEMA = 2  # of meta.json; raised when its meaning changes
# Ratio of the two divergences from which on a flow is said to look upside down. It is 0.1 to 0.7 in files of currents,
# so 1.5 to 8 if they are turned over; of 16 x 16 points on a single day, that is by chance, up to 1.2.
UPSIDE_DOWN = 1.3
LEAST_SIDE = 4  # points of the longer side: fewer have no ring of wavenumbers between the innermost and the outermost


def checksum(data):
    """sha256 of bytes or of a contiguous array, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_checksum(path):
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(meta):
    """The id of a data set: 16 hexadecimal digits over all that gives its numbers their meaning, but no file's name.

    Frames, masks and group elements enter by the checksums that ``meta`` records.
    """
    keys = ("schema", "fields", "history", "horizon", "mean", "std", "tile", "units", "time_step", "table_sha256")
    of_split = ("sha256", "mask_sha256", "shape", "segments", "first", "count")
    content = {key: meta[key] for key in keys} | {key: meta[key] for key in ("spacing", "periodic") if key in meta}
    content["splits"] = {
        name: {key: split[key] for key in (*of_split, *(split.keys() & {"parameters"}))}
        for name, split in meta["splits"].items()
    }
    return checksum(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())[:16]


# ---------------------------------------------------------------- reading


def load_meta(folder):
    """Read ``meta.json`` of a prepared data set.

    Raises:
        InputError: no data there, written by another version, or not what its id says.
    """
    path = Path(folder) / "meta.json"
    try:
        meta = json.loads(path.read_text())
        schema = meta["schema"]
    except FileNotFoundError:
        raise InputError(f"no prepared data in {folder}; make them with data_prep.py (see README.md)") from None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} is not a description of prepared data; run data_prep.py again") from None
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema}, this version reads {SCHEMA}; run data_prep.py again")
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        if meta["id"] == identity(meta):
            return meta
    raise InputError(f"{path} does not match its id: it was changed since; run data_prep.py again")


def refuse_changed(path, found, recorded):
    """InputError if the checksum of what is in a file is not the one in meta.json."""
    if found != recorded:
        raise InputError(f"{path} does not match its sha256 in meta.json: it was changed since; run data_prep.py again")


def read_elements(folder, meta, name):
    """Group elements of the test set transformed by a symmetry, one per window, as data_prep.py drew them.

    Raises:
        InputError: the file is missing, broken or not what ``meta`` says.
    """
    path = Path(folder) / meta["tables"]["test"][name]
    try:
        with np.load(path) as file:
            elements = file["elements"]
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path} is missing or broken; run data_prep.py again") from None
    refuse_changed(path, checksum(elements), meta["table_sha256"]["test"][name])
    return torch.from_numpy(elements)


# ---------------------------------------------------------------- writing


def allocate(path, shape):
    """Create a float32 ``.npy`` of zeros with all its room on the disk, and map it."""
    try:
        frames = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here; on writing to the map it would be a crash
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        megabytes = 4 * np.prod(shape, dtype=float) / 1e6
        raise InputError(f"cannot write {path.name} ({megabytes:.1f} MB): {error.strerror}; make room first") from error
    return frames


def write_frames(path, source, split):
    """Write the raw frames of a split; return their map ``(tiles, time, C, h, w)``."""
    total = sum(end - begin for begin, end in split.ranges)
    frames = allocate(path, (source.tiles, total, components(source.fields), *source.size))
    blocks, at = frame_blocks(split.ranges, source.frame_bytes), 0
    for begin, end in progress(blocks, len(blocks), path.stem):
        frames[:, at : at + end - begin] = source.read(begin, end)
        at += end - begin
    return frames


def tile_blocks(frames, mask):
    """Views ``(some frames, C, h, w)`` that make up ``(tiles, time, C, h, w)``, with their tile's mask ``(h, w)``."""
    for tile, tile_frames in enumerate(frames):
        valid = np.ones(frames.shape[-2:], bool) if mask is None else mask[tile]
        for begin, end in frame_blocks([(0, len(tile_frames))], 4 * tile_frames[0].nbytes):
            yield tile_frames[begin:end], valid


def measure(frames, mask, fields, centre):
    """Mean and standard deviation of every field over its components and the valid points of all frames, in float64.

    The mean of a vector is 0 by decree unless ``centre`` (magnitude and rotation need zero to stay zero); the deviation
    is then the rms of a component.
    """
    points = frames.shape[1] * (frames[:, 0, 0].size if mask is None else mask.sum())
    means, deviations = [], []
    for kind, part in zip(fields, parts(fields), strict=True):
        blocks = [(block[:, part], valid) for block, valid in tile_blocks(frames, mask)]
        count = points * SIZES[kind]
        mean = sum(block.sum(dtype=np.float64) for block, _ in blocks) / count if centre or kind == "scalar" else 0.0
        square = sum(((block - np.float64(mean))[..., valid] ** 2).sum() for block, valid in blocks)
        std = float(np.sqrt(square / count))
        if not std > 1e-12 * abs(mean):
            raise InputError(
                f"the flow is still: the training frames have standard deviation {std:g}; give moving frames"
            )
        means.append(float(mean))
        deviations.append(std)
    return means, deviations


def standardise(frames, mask, fields, mean, std):
    """Replace raw by standardised values in place."""
    mean, std = (np.array(of_component(fields, values))[:, None, None] for values in (mean, std))
    for block, valid in tile_blocks(frames, mask):
        block[:] = np.where(valid, (block - mean) / std, 0)


def orientation(frames, mask):
    """rms of du/dx + dv/dy with v along increasing rows and along decreasing rows, over at most about 100 frames.

    Differences are taken over two cells, between valid points, and not divided by the distance. An incompressible flow
    has the smaller value in the right orientation. Returns None where no point has valid ones on all sides.

    Args:
        frames: of a velocity, ``(tiles, time, 2, h, w)``.
    """
    sums, points = np.zeros(2), 0
    for block, valid in tile_blocks(frames[:, :: -(-frames.shape[1] // 100)], mask):
        inner = valid[1:-1, 1:-1] & valid[1:-1, 2:] & valid[1:-1, :-2] & valid[2:, 1:-1] & valid[:-2, 1:-1]
        u, v = np.float64(block[:, 0]), np.float64(block[:, 1])
        du, dv = u[:, 1:-1, 2:] - u[:, 1:-1, :-2], v[:, 2:, 1:-1] - v[:, :-2, 1:-1]
        sums += [np.sum((du + dv)[:, inner] ** 2), np.sum((du - dv)[:, inner] ** 2)]
        points += len(block) * inner.sum()
    return np.sqrt(sums / points).tolist() if points else None


def describe_split(folder, name, source, split, frames):
    """A split's entry in meta.json; writes its mask."""
    if source.mask is not None:
        np.save(folder / f"{name}_mask.npy", source.mask)
    ends = list(itertools.accumulate(end - begin for begin, end in split.ranges))
    of_range = [next(i for i, s in enumerate(source.segments) if s[0] <= begin < s[1]) for begin, _ in split.ranges]
    parameters = {key: [values[i] for i in of_range] for key, values in source.parameters.items()}
    return {
        "frames": f"{name}.npy",
        "mask": None if source.mask is None else f"{name}_mask.npy",
        "shape": list(frames.shape),
        "segments": [list(segment) for segment in itertools.pairwise([0, *ends])],
        "first": split.first,
        "count": split.count,
        "begin": source.dates and source.dates[split.ranges[0][0]],
        "end": source.dates and source.dates[split.ranges[-1][1] - 1],
        "land": 0.0 if source.mask is None else 1 - float(source.mask.mean()),
        "sha256": file_checksum(folder / f"{name}.npy"),
        "mask_sha256": None if source.mask is None else checksum(np.ascontiguousarray(source.mask)),
        **({"parameters": parameters} if parameters else {}),
    }


def draw_elements(count, source, args):
    """One group element per test window for every symmetry: ``{name: (count, ...) float32}``.

    Tiles that are not square get half turns only, which keep their shape.

    Raises:
        InputError: no window of the test set Scale has the frames that its factor wants.
    """
    symmetries = {
        **SYMMETRIES,
        "Rot": Rotation(angle_step=args.angle_step).fitting(*source.size),
        "Scale": Scale(release_factors=args.scale_factors == "release"),
    }
    del symmetries["None"]
    elements = {}
    for name, symmetry in symmetries.items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{args.seed} {name}".encode()))
        elements[name] = symmetry.on(source.fields).sample(count, generator)
    factors, steps = elements["Scale"].unique(), min(TEST_STEPS, args.horizon)
    wanted = [symmetries["Scale"].source_window(factor[None], args.history, steps) for factor in factors]
    if all(before > args.history or after > args.horizon for before, after in wanted):
        drawn = ", ".join(f"{factor:g}" for factor in factors)
        raise InputError(
            f"--scale_factors {args.scale_factors} drew {drawn} for the test windows, which want more than the "
            f"{args.history} + {args.horizon} prepared frames; raise the third of --splits or take another --seed"
        )
    return {name: drawn.numpy() for name, drawn in elements.items()}


def write_dataset(folder, dataset, sources, args, centre=False):
    """Write splits, masks, group elements and meta.json of a data set.

    Args:
        folder: an empty folder.
        dataset: its name.
        sources: ``{split: Source}``, either of train, which is cut into train, valid and test, or of each of these; and
            perhaps of domain, the test elsewhere.
        args: ``history``, ``horizon``, ``gap``, ``splits``, ``seed``, ``angle_step``, ``scale_factors``.
        centre: subtract the mean of a vector, too.

    Returns:
        The summary's lines.

    Raises:
        InputError: tiles too small for the measures, too few windows, a flow at rest.
    """
    window, given, source = args.history + args.horizon, sources, sources["train"]
    if max(source.size) < LEAST_SIDE:
        raise InputError(
            f"tiles of {' x '.join(map(str, source.size))} points have no energy spectrum, wanted {LEAST_SIDE} a side"
        )
    sources, plans = plan(given, window, args.gap, args.splits)
    elements = draw_elements(plans["test"].count, source, args)
    frames = {name: write_frames(folder / f"{name}.npy", sources[name], split) for name, split in plans.items()}
    mean, std = measure(frames["train"], source.mask, source.fields, centre)
    for name in plans:
        standardise(frames[name], sources[name].mask, source.fields, mean, std)
    velocity = next(
        (part for kind, part in zip(source.fields, parts(source.fields), strict=True) if kind == "vector"), None
    )
    divergence = None if velocity is None else orientation(frames["train"][:, :, velocity], source.mask)
    splits = {name: describe_split(folder, name, sources[name], split, frames[name]) for name, split in plans.items()}
    files = {name: f"test_{name.lower()}.npz" for name in elements}
    for name, drawn in elements.items():
        np.savez(folder / files[name], elements=drawn)
    meta = {
        "schema": SCHEMA,
        "dataset": dataset,
        "source": origin(given),
        "fields": list(source.fields),
        "tile": list(source.size),
        "history": args.history,
        "horizon": args.horizon,
        "gap": args.gap,
        "seed": args.seed,
        "standardisation": "(value - mean) / std of each field over the valid points of the training frames, 0 on land",
        "mean": mean,
        "std": std,
        "units": source.units,
        "time_step": source.time_step,
        **({"boundaries": source.boundaries} if source.boundaries else {}),
        **({"spacing": source.spacing} if source.spacing else {}),
        **({"periodic": source.periodic} if source.periodic else {}),
        "orientation": divergence and dict(zip(("divergence", "reversed"), divergence, strict=True)),
        "splits": splits,
        "tables": {"test": files},
        "table_sha256": {"test": {name: checksum(drawn) for name, drawn in elements.items()}},
    }
    meta["id"] = identity(meta)
    write_json(folder / "meta.json", meta)
    return [*notes_on(given, plans, window, args), *summary(meta)]


def origin(sources):
    """Names of the files that the splits come from; of a record that was cut, as schema 2 has had it, with its box."""
    if "valid" in sources:
        return {name: source.files for name, source in sources.items()}
    train, domain = sources["train"], sources.get("domain")
    return {
        "train": train.files,
        "train_box": train.box,
        "test": domain.files if domain else [],
        "test_box": domain and domain.box,
    }


def notes_on(sources, plans, window, args):
    """Lines about where the frames come from and how they were split."""
    train = sources["train"]
    yield from train.notes
    for name, source in sources.items():
        if source.notes is not train.notes:
            yield from (f"{'test' if name == 'domain' else name} files: {note}" for note in source.notes)
    own = "valid" in sources
    if not own and args.splits and [plans[name].count for name in ("train", "valid", "test")] != list(args.splits):
        yield f"fewer windows than {' + '.join(map(str, args.splits))}: all, cut in these proportions"
    # splits that are not read alike have no frame in common, whatever their numbers
    shared = shared_frames(
        {name: split for name, split in plans.items() if sources.get(name, train).read is train.read}
    )
    if shared:
        counts = ", ".join(f"{a} and {b} {count}" for (a, b), count in shared.items())
        yield f"frames shared: {counts}" + ("" if own else f"; --gap {window} keeps the splits apart")


def summary(meta):
    """Lines that say what was prepared."""
    yield f"data {meta['id']}"
    for name, split in meta["splits"].items():
        dates = f", {split['begin']} to {split['end']}" if split["begin"] else ""
        tiles, frames = split["shape"][:2]
        yield f"{name:6} {split['count']:6} windows in {tiles} x {frames} frames{dates}, land {split['land']:.1%}"
    if "spacing" in meta:
        along_y, along_x = meta["spacing"]
        ends = f", periodic in {' and '.join(meta['periodic'])}" if "periodic" in meta else ""
        step = f"; frames {meta['time_step']} apart" if meta["time_step"] else ""
        yield f"points {along_y:.4g} apart along y, {along_x:.4g} along x{ends}{step}"
    for kind, mean, std in zip(meta["fields"], meta["mean"], meta["std"], strict=True):
        yield f"{kind}: mean {mean:.4g}, std {std:.4g} (training frames), units {meta['units'] or 'unknown'}"
    if meta["orientation"]:
        right, wrong = meta["orientation"].values()
        yield f"rms divergence {right:.3f} with v along increasing rows, {wrong:.3f} along decreasing rows"
        if right > UPSIDE_DOWN * wrong:
            yield "warning: the flow looks upside down; row 0 must be south, or bottom, and v northward, or upward"
