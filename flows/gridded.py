"""Fields of NetCDF files on any regular grid: winds and temperatures, layers of a model. Currents: see ``ocean``."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.classic import refuse_damaged_classic
from flows.netcdf import decode, iso_dates, opened, read_times, role, unbroken, units_of, unpack
from flows.source import descends, even_step, existing, frame_blocks, grid_source
from utils import InputError, progress

KINDS = {"latitude": "y", "longitude": "x", "time": "time", "depth": "depth"}  # of axes, by what their coordinate is


@dataclass(frozen=True)
class Piece:
    """The frames of a variable in one file.

    Attributes:
        path: of the file.
        order: brings its axes to time, y, x and those of one entry.
        shape: frames, rows, columns.
        times: of the frames, in seconds since 1970 if they are dates; their numbers if the file says nothing.
        calendar: of the dates, or None.
        y, x: coordinates, or None.
    """

    path: str
    order: tuple[int, ...]
    shape: tuple[int, int, int]
    times: np.ndarray
    calendar: str | None
    y: np.ndarray | None
    x: np.ndarray | None


def find_axes(dataset, variable):
    """Which axes of a variable are time, y, x and, after these, others.

    They are known by their coordinate variables, or by the names time, y and x; else y and x are the last, as CF has
    it, and time is the longest that is left.

    Raises:
        InputError: one of the three is not there, or another axis has several entries.
    """
    found, unknown = {}, []
    for axis, dimension in enumerate(variable.dimensions):
        coordinate = dataset.variables.get(dimension)
        kind = KINDS.get(coordinate is not None and role(coordinate), dimension.lower())
        if kind in ("time", "y", "x") and kind not in found:
            found[kind] = axis
        elif kind != "depth":
            unknown.append(axis)
    for kind in ("x", "y"):
        if kind not in found and unknown:
            found[kind] = unknown.pop()
    if "time" not in found and unknown:
        found["time"] = max(unknown, key=lambda axis: variable.shape[axis])
    if len(found) < 3:
        raise InputError(
            f"{variable.name} has the axes {', '.join(variable.dimensions) or 'none'}, wanted time, y and x"
        )
    others = [axis for axis in range(variable.ndim) if axis not in found.values()]
    for axis in others:
        if variable.shape[axis] > 1:
            entries = f"{variable.shape[axis]} entries along {variable.dimensions[axis]}"
            raise InputError(f"{variable.name} has {entries} besides time, y and x; choose one first")
    return found["time"], found["y"], found["x"], *others


def coordinate(dataset, dimension):
    """The values along a dimension, degrees of longitude without a jump; None where it has no coordinate variable."""
    variable = dataset.variables.get(dimension)
    if variable is None or variable.dimensions != (dimension,):
        return None
    values = decode(variable)
    if role(variable) == "longitude":
        values = np.unwrap(values, period=360)
    steps = np.diff(values)
    if not (np.all(steps > 0) or np.all(steps < 0)):  # NaN is neither
        raise InputError(f"{dimension} is not monotonic; sort the grid first")
    return values


def describe(dataset, path, variable):
    """Piece of a variable."""
    order = find_axes(dataset, variable)
    clock, y, x = (variable.dimensions[axis] for axis in order[:3])
    shape = tuple(variable.shape[axis] for axis in order[:3])
    times, calendar = np.arange(shape[0]), None
    if clock in dataset.variables:
        clock = dataset.variables[clock]
        times, calendar = read_times(clock) if " since " in units_of(clock) else (decode(clock), None)
    if not shape[0]:
        raise InputError(f"{variable.name} has no frames")
    if 0 in shape:
        raise InputError(f"{variable.name} has no points: its grid is {shape[1]} x {shape[2]}")
    if not np.all(np.diff(times) > 0):
        raise InputError(f"the times of {variable.name} do not ascend; sort the frames first")
    return Piece(str(path), order, shape, times, calendar, coordinate(dataset, y), coordinate(dataset, x))


def same_grid(a, b):
    """Whether two Pieces have the same rows and columns, and count time alike."""
    if a.shape[1:] != b.shape[1:]:
        return False
    pairs = ((a.y, b.y), (a.x, b.x))
    alike = all((one is None) == (other is None) and (one is None or np.allclose(one, other)) for one, other in pairs)
    return alike and a.calendar == b.calendar


class Series:
    """A variable over all the files that hold it, in the order of time.

    Raises:
        InputError: the files have different grids, or frames of one time.
    """

    def __init__(self, name, pieces):
        self.name, self.pieces = name, sorted(pieces, key=lambda piece: piece.times[0])
        first = self.pieces[0]
        for a, b in itertools.pairwise(self.pieces):
            if not same_grid(a, b):
                raise InputError(f"{a.path} and {b.path} have different grids or calendars; bring them to one first")
            if not a.times[-1] < b.times[0]:
                raise InputError(f"{a.path} and {b.path} both hold {name} of one time, or do not say when theirs is")
        self.times = np.concatenate([piece.times for piece in self.pieces])
        self.ends = np.cumsum([0, *(piece.shape[0] for piece in self.pieces)])
        self.flip = tuple(slice(None, None, -1 if descends(values) else 1) for values in (first.y, first.x))

    def read(self, begin, end):
        """Frames ``[begin, end)``: ``(end - begin, H, W)`` float32, NaN where missing."""
        blocks = []
        for piece, start, stop in zip(self.pieces, self.ends, self.ends[1:], strict=False):
            low, high = max(begin, start) - start, min(end, stop) - start
            if low < high:
                blocks.append(self.read_piece(piece, low, high))
        return np.concatenate(blocks)[(..., *self.flip)]

    def read_piece(self, piece, begin, end):
        with opened(piece.path) as dataset, np.errstate(over="ignore"):  # found as an infinity
            variable = dataset[self.name]
            index = tuple(slice(begin, end) if axis == piece.order[0] else slice(None) for axis in range(variable.ndim))
            stored = np.asarray(variable[index]).transpose(piece.order).reshape(end - begin, *piece.shape[1:])
            values = unpack(variable, stored).astype(np.float32)
            if np.isinf(values).any():
                raise InputError(f"{self.name} has an infinite value, which is not declared as its fill; mend the file")
        return values


def survey(read, shape, frame_bytes):
    """Read every frame once.

    Returns:
        ``empty``: bool per frame, True where there is no value at all;
        ``ever``, ``always``: bool ``(H, W)``, where a value is missing in some, and in all, of the other frames.
    """
    empty, ever, always = np.zeros(shape[0], bool), np.zeros(shape[1:], bool), np.ones(shape[1:], bool)
    blocks = frame_blocks([(0, shape[0])], frame_bytes)
    for begin, end in progress(blocks, len(blocks), "survey"):
        missing = np.isnan(read(begin, end)).any(1)
        empty[begin:end] = missing.all((1, 2))
        ever |= missing[~empty[begin:end]].any(0)
        always &= missing.all(0)
    return empty, ever, always


def filled(segments, empty):
    """The parts of frame ranges in which no frame is empty."""
    ranges = []
    for begin, end in segments:
        edges = np.flatnonzero(np.diff(empty[begin:end], prepend=True, append=True)) + begin
        ranges += [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
    return ranges


def gridded_sources(args):
    """The record of the wanted variables, as ``{"train": Source}``.

    Points where a value is missing in any frame are masked; frames without any value are gaps in time.

    Args:
        args: ``raw``, the files, each with some of the variables and some of the times; ``fields``, pairs of the names
            of a field's components and its kind; ``tile`` and ``max_land``, see :func:`flows.source.grid_source`.

    Raises:
        InputError: files that cannot be read, lack a variable or do not go together.
    """
    wanted = [name for names, _ in args.fields for name in names]
    pieces, seen = {name: [] for name in wanted}, set()
    for path in progress(args.raw, len(args.raw), "files"):
        refuse_damaged_classic(existing(path))
        with opened(path) as dataset:
            seen |= set(dataset.variables)
            for name in pieces.keys() & dataset.variables.keys():
                pieces[name].append(describe(dataset, path, dataset[name]))
    for name in wanted:
        if not pieces[name]:
            raise InputError(f"no file has a variable {name}; there are {', '.join(sorted(seen)) or 'none'}")
    series = [Series(name, pieces[name]) for name in wanted]
    first, grid = series[0], series[0].pieces[0]
    for other in series[1:]:
        if not (same_grid(other.pieces[0], grid) and np.array_equal(other.times, first.times)):
            raise InputError(f"{other.name} and {first.name} have different grids or times; bring them to one first")
    height, width = grid.shape[1:]
    frame_bytes = 16 * len(series) * height * width  # of float64, while it is decoded

    def read(begin, end):
        return np.stack([variable.read(begin, end) for variable in series], 1)

    empty, ever, always = survey(read, (len(first.times), height, width), frame_bytes)
    if empty.all() or ever.all():
        raise InputError(
            f"no point has {', '.join(wanted)} in all frames; leave out the variable or the frames without"
        )
    time_step, gapless = unbroken(first.times)
    segments = filled(gapless, empty)
    steps = [values is not None and even_step(values) for values in (grid.y, grid.x)]
    notes = [
        f"{len(args.raw)} files, {len(first.times)} frames of {height} x {width} points",
        "fields: " + ", ".join(f"{' '.join(names)} ({kind})" for names, kind in args.fields),
        f"masked: {always.mean():.1%} of the points are missing in all frames, {ever.mean():.1%} in some",
        f"missing frames: {empty.sum()} without a value, {len(gapless) - 1} gaps in time",
    ]
    if None in steps:
        notes.append("warning: points are not evenly spaced")
    source = grid_source(
        read,
        (height, width),
        args.tile,
        valid=~ever if ever.any() else None,
        max_land=args.max_land,
        spacing=[abs(step) for step in steps] if all(steps) else None,
        segments=segments,
        frame_bytes=frame_bytes,
        fields=tuple(kind for _, kind in args.fields),
        files=[Path(path).name for path in sorted(args.raw)],
        dates=iso_dates(first.times, grid.calendar) if grid.calendar else None,
        time_step=time_step,
        notes=notes,
    )
    return {"train": source}
