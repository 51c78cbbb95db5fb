"""Time-resolved particle image velocimetry: a folder with one text file per frame, on a regular grid.

* OpenPIV (openpiv.tools.save): columns x, y, u, v, flags (0 valid, 1 invalid, 2 interpolated), mask (not 0: no flow);
  the last one or two may be left out. Whatever writes x, y, u, v under a line of words is read alike.
* PIVlab, text with columns x, y, u, v, vector type (0 masked, 1 valid, 2 interpolated), separated by commas; what it
  derives from them may follow.
* MODULO (github.com/mendezVKI/MODULO): ``Res00001.dat`` ... with columns u and v, and ``Mesh.dat`` with x and y.

Values are separated by blanks, tabs or commas. Rows are sorted by y, columns by x, whatever the order in the files;
where the line above the numbers names x, y, u and v, these columns are found by their names.
"""

import re
from pathlib import Path

import numpy as np

from flows.source import even_step, existing, grid_source
from utils import InputError, progress

SUFFIXES = (".dat", ".txt", ".csv", ".vec")
INVALID, FLAGS = 1, (0, 1, 2)  # interpolated vectors count
PIVLAB = ["x", "y", "u", "v", "vector type"]


def read_table(path):
    """The numbers in a text file below its header, ``(rows, columns)``: first those of x, y, u and v, if it names them.

    Of a file of PIVlab x, y, u, v and flags, which are those of OpenPIV.

    Raises:
        InputError: there is no such table.
    """
    try:
        text = existing(path).read_text().splitlines()
        lines = [line.replace(",", " ") for line in text]
        words = [line.split()[:1] for line in lines]
        begin = next(i for i, word in enumerate(words) if word and re.fullmatch(r"[-+]?[\d.][\d.eE+-]*|nan", word[0]))
        table = np.loadtxt(lines[begin:], ndmin=2)
    except (ValueError, StopIteration) as error:  # what is no text raises a ValueError, too
        reason = str(error).splitlines()[0] if str(error) else "it holds no numbers"
        raise InputError(f"{path} is no table of numbers: {reason}") from error
    header = re.sub(r"\[.*?\]|\(.*?\)", " ", text[begin - 1] if begin else "").lower()  # without units
    names = [name.strip(" #") for name in header.split(",")] if "," in header else re.findall(r"\w+", header)
    if len(names) == table.shape[1] and set(PIVLAB) <= set(names):
        *vectors, kind = (table[:, names.index(name)] for name in PIVLAB)
        table = np.stack([*vectors, np.where(kind < 2, 1 - kind, kind)], 1)
    elif len(names) == table.shape[1] and len(set(names)) == len(names):
        known = [names.index(name) for name in ("x", "y", "u", "v") if name in names]
        table = table[:, [*known, *(column for column in range(len(names)) if column not in known)]]
    return table


def find_frames(folder):
    """The frames of a folder in the order of their numbers, and the file of the mesh, or None.

    Raises:
        InputError: a frame is missing, or there are none, or several series of them.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is not a folder; wanted one with a text file for every frame")
    files = [path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES]
    mesh = next((path for path in files if path.stem.lower() == "mesh"), None)
    series = {}
    for path in files:
        match = re.fullmatch(r"(.*?)(\d+)", path.stem)
        if match:
            series.setdefault(match[1], {})[int(match[2])] = path
    if len(series) != 1:
        found = f"several series of frames ({', '.join(sorted(series))})" if series else "no numbered frames"
        raise InputError(f"{folder} holds {found}, wanted one such as Res00001.dat, Res00002.dat ...")
    ((name, frames),) = series.items()
    numbers = sorted(frames)
    steps = np.diff(numbers)
    if steps.size and steps.max() > steps.min():
        missing = numbers[int(np.argmax(steps > steps.min()))] + steps.min()
        raise InputError(f"{folder}: frame {missing} of {name} is missing; windows need frames at equal intervals")
    return [frames[number] for number in numbers], mesh


class Grid:
    """The regular grid of points in any order.

    Args:
        table: whose first columns are x and y, ``(n, 2 or more)``.
        path: of the file.

    Attributes:
        points: ``(n, 2)``.
        shape: ``(H, W)``.
        spacing: ``[along y, along x]``.

    Raises:
        InputError: the points are no regular grid.
    """

    def __init__(self, table, path):
        if table.shape[1] < 2:
            raise InputError(f"{path} has 1 column, wanted x and y")
        self.points, self.path = table[:, :2], path
        x, y = self.points.T
        columns, rows = np.unique(x), np.unique(y)
        self.shape = len(rows), len(columns)
        self.order = np.lexsort((x, y))  # by rows, and within a row by columns
        self.spacing = [even_step(values) for values in (rows, columns)]
        regular = np.stack([np.tile(columns, len(rows)), np.repeat(rows, len(columns))], 1)
        if not np.array_equal(self.points[self.order], regular) or None in self.spacing:
            found = f"{len(x)} points, {len(columns)} values of x, {len(rows)} of y"
            raise InputError(f"{path} has no regular grid ({found}); interpolate to one first")

    def sort(self, values):
        """Values of the points, ``(n, C)``, as ``(C, H, W)``."""
        return values[self.order].T.reshape(-1, *self.shape)


def read_frame(path, grid, columns):
    """A frame: velocities ``(2, H, W)`` float32, and where they are valid, bool ``(H, W)``.

    Args:
        path: of the file.
        grid: Grid of its points.
        columns: of the file: 2, u and v, beside a mesh; else 4 to 6, x, y, u, v, flags and mask.

    Raises:
        InputError: there are more or fewer numbers, other points than in the grid, an unknown flag, or NaN that no flag
            explains.
    """
    table, wanted = read_table(path), (len(grid.points), columns)
    if table.shape != wanted:
        raise InputError(f"{path} has {table.shape} numbers, wanted {wanted} as in the first frame or the mesh")
    if columns > 2:
        if not np.array_equal(table[:, :2], grid.points):
            raise InputError(f"{path} has other points than {grid.path.name}; interpolate them to one grid first")
        table = table[:, 2:]
    values = grid.sort(table)
    flags, mask = np.concatenate([values[2:], np.zeros((4 - len(values), *grid.shape))])
    if not np.isin(flags, FLAGS).all():
        other = np.setdiff1d(flags, FLAGS)[0]
        known = "0 (valid), 1 (invalid) or 2 (interpolated); of PIVlab 0 (masked), 1 (valid) or 2"
        raise InputError(f"{path} has a flag {other:g}; wanted {known}")
    valid = (flags != INVALID) & (mask == 0)
    with np.errstate(over="ignore"):  # found as an infinity
        velocity = values[:2].astype(np.float32)
    if not np.isfinite(velocity[:, valid]).all():
        raise InputError(f"{path} has vectors that are not finite and not flagged; flag or replace them")
    return velocity, valid


def piv_sources(args):
    """The record of velocities, as ``{"train": Source}``; points that are invalid in any frame are masked.

    Args:
        args: ``raw``, the folder; ``tile`` and ``max_land``, see :func:`flows.source.grid_source`.

    Raises:
        InputError: files that cannot be read, or do not go together.
    """
    paths, mesh = find_frames(args.raw)
    first = read_table(paths[0])
    columns = first.shape[1]
    if columns not in ((2,) if mesh else (4, 5, 6)):
        wanted = "u and v" if mesh else "x, y, u, v, perhaps flags and mask"
        raise InputError(f"{paths[0]} has {columns} columns, wanted {wanted}")
    grid = Grid(read_table(mesh), mesh) if mesh else Grid(first, paths[0])
    valid, invalid = np.ones(grid.shape, bool), 0
    notes = [f"{len(paths)} frames of {' x '.join(map(str, grid.shape))} vectors, {paths[0].name} to {paths[-1].name}"]
    if columns > 4:
        for path in progress(paths, len(paths), "survey"):
            _, good = read_frame(path, grid, columns)
            valid, invalid = valid & good, invalid + (~good).mean() / len(paths)
        share = f"{1 - valid.mean():.1%} of the points are invalid in some frame"
        notes.append(f"masked: {share}, {invalid:.1%} of all vectors")
    if not valid.any():
        raise InputError(f"{args.raw}: every point is invalid in some frame; replace such vectors, with the flag 2")
    source = grid_source(
        lambda begin, end: np.stack([read_frame(path, grid, columns)[0] for path in paths[begin:end]]),
        grid.shape,
        args.tile,
        valid=None if valid.all() else valid,
        max_land=args.max_land,
        spacing=grid.spacing,
        segments=[(0, len(paths))],
        frame_bytes=8 * 6 * valid.size,
        files=[paths[0].name, paths[-1].name],
        notes=notes,
    )
    return {"train": source}
