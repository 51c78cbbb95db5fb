"""What a source of frames is, and the tiles of a grid."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils import InputError

BLOCK_BYTES = 2**25  # of frames in memory at a time


@dataclass
class Source:
    """Tiles of a flow, read a block of frames at a time: all that the writing knows of where they come from.

    Attributes:
        read: ``read(begin, end)`` returns raw values ``(tiles, end - begin, C, h, w)``, 0 on land.
        fields: what the C components are, see ``models.fields``.
        tiles: number of tiles.
        size: ``(h, w)`` of a tile.
        segments: frame ranges ``[begin, end)`` without a gap in time: the pieces of a record, or trajectories.
        frame_bytes: memory that reading one frame takes.
        files: names of the files.
        box: west, east, south and north of the part of them that was read, in degrees; None for all.
        mask: bool ``(tiles, h, w)``, True where there is flow; None if there is everywhere.
        dates: ISO date of every frame, or None.
        time_step: time between frames, in seconds where frames have dates, else in the data's own units; or None.
        units: units of the raw values, or None.
        spacing: distances between points, ``[along y, along x]``, or None.
        boundaries: what is at the ends of "x" and "y" (columns and rows) of the flow: "periodic", "wall", "open".
        periodic: which of "y" and "x" end in a tile where they begin.
        parameters: of the flow, such as a Rayleigh number: ``{name: [one value per segment]}``.
        notes: lines for the summary.
    """

    read: Callable[[int, int], np.ndarray]
    tiles: int
    size: tuple[int, int]
    segments: list[tuple[int, int]]
    frame_bytes: int
    files: list[str]
    fields: tuple[str, ...] = ("vector",)
    box: list[float] | None = None
    mask: np.ndarray | None = None
    dates: list[str] | None = None
    time_step: float | None = None
    units: str | None = None
    spacing: list[float] | None = None
    boundaries: dict[str, str] = field(default_factory=dict)
    periodic: list[str] = field(default_factory=list)
    parameters: dict[str, list] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def part(self, begin, end):
        """The Source of the segments ``[begin, end)`` only."""
        parameters = {name: values[begin:end] for name, values in self.parameters.items()}
        return replace(self, segments=self.segments[begin:end], parameters=parameters)


def frame_blocks(ranges, frame_bytes):
    """Cut frame ranges ``[begin, end)`` into blocks of at most ``BLOCK_BYTES``, at least one frame each."""
    step = max(1, BLOCK_BYTES // frame_bytes)
    return [(at, min(at + step, end)) for begin, end in ranges for at in range(begin, end, step)]


def existing(path):
    """The path, if it is a file that may be read."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not there'}, wanted a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read; change its permissions")
    return path


def refuse_not_finite(block, file, first, trajectory=""):
    """InputError if a value of the frames ``first ...`` of a file, ``(n, C, H, W)``, is NaN or infinite."""
    finite = np.isfinite(block).all(axis=(1, 2, 3))
    if not finite.all():
        frame = f"frame {first + int(finite.argmin())}{trajectory}"
        raise InputError(f"{file} has a value that is not finite in {frame}; mend the file")


def even_step(values):
    """Step between evenly spaced values ``(..., n)`` to six digits; None if it varies by a hundredth, or is unknown."""
    steps = np.diff(np.float64(values)) if values is not None else np.empty(0)
    mean = steps.mean() if steps.size else 0.0
    even = mean and np.all(np.abs(steps - mean) <= 0.01 * abs(mean))  # NaN is not
    return float(f"{mean:.6g}") if even else None


def descends(values):
    """Whether coordinates run down."""
    return values is not None and values.flat[0] > values.flat[-1]


# ---------------------------------------------------------------- tiles


def tile_corners(shapes, size):
    """``(region, row, column)`` of all whole tiles of regions (grids) ``(H, W)``, ordered by place, then region."""
    height, width = size
    places = [
        [(region, y, x) for y in range(0, rows - height + 1, height) for x in range(0, columns - width + 1, width)]
        for region, (rows, columns) in enumerate(shapes)
    ]
    corners = [corner for group in itertools.zip_longest(*places) for corner in group if corner]
    if not corners:
        largest = max(shapes, key=min)
        raise InputError(
            f"the grid is {largest[0]} x {largest[1]}, smaller than --tile {max(size)}; choose a smaller tile"
        )
    return corners


def choose_tiles(corners, land, size, max_land):
    """The tiles with little land: their corners, their masks ``(tiles, h, w)``, and a line about the others."""
    height, width = size
    masks = np.stack([~land[r][y : y + height, x : x + width] for r, y, x in corners])
    dry = 1 - masks.mean((1, 2))
    kept = np.flatnonzero((dry <= max_land) & (dry < 1))
    if not kept.size:
        least = np.ceil(1000 * dry.min()) / 1000
        advice = "no point is valid: all are missing or 0"
        if dry.min() < 1:
            advice = f"--max_land {least:.3f} would keep {(dry <= least).sum()}"
        raise InputError(
            f"all {len(dry)} tiles have more land than --max_land {max_land:g}, the least {dry.min():.3f}; {advice}"
        )
    note = f"tiles of {height} x {width}: {len(kept)} kept, {len(dry) - len(kept)} dropped with land above {max_land:g}"
    return [corners[k] for k in kept], masks[kept], note


def grid_source(read, shape, tile=None, stride=1, valid=None, max_land=None, spacing=None, boundaries=None, **known):
    """Source of the tiles of one grid, row by row from the corner of row 0 and column 0.

    Args:
        read: ``read(begin, end)`` returns ``(end - begin, C, H, W)``; what is not ``valid`` may be anything.
        shape: ``(H, W)``.
        tile: side of the square tiles; points that fill none are left over. None for the whole grid.
        stride: every ``stride``-th point is kept in both directions, without averaging.
        valid: bool ``(H, W)``, or None where all is.
        max_land: tiles of which a larger fraction is not valid are dropped; None: 0 of tiles, any of the whole grid.
        spacing, boundaries: of the grid, as of :class:`Source`.
        known: other attributes of the Source.

    Raises:
        InputError: no tile fits, or none is valid enough.
    """
    rows, columns = (-(-side // stride) for side in shape)
    size = (tile, tile) if tile else (rows, columns)
    height, width = size
    land = np.zeros(shape, bool) if valid is None else ~valid
    corners = tile_corners([(rows, columns)], size)
    if max_land is None:
        max_land = 0.0 if tile else 1.0
    kept, mask, note = choose_tiles(corners, [land[::stride, ::stride]], size, max_land)
    if tile is None:
        note = f"one tile, the whole grid of {height} x {width}"
    elif valid is None:
        note = f"{rows // height} x {columns // width} tiles of {height} x {width}"
    left_over = [f"{side % part} {name}" for side, part, name in ((rows, height, "rows"), (columns, width, "columns"))]
    left_over = " and ".join(text for text in left_over if not text.startswith("0 "))

    def read_tiles(begin, end):
        block = read(begin, end)[:, :, ::stride, ::stride]
        tiles = np.stack([block[:, :, y : y + height, x : x + width] for _, y, x in kept])
        return tiles if mask.all() else np.where(mask[:, None, None], tiles, 0)

    whole = {"y": height == rows and shape[0] % stride == 0, "x": width == columns and shape[1] % stride == 0}
    boundaries = boundaries or {}
    notes = [*known.pop("notes"), note + (f"; left over: {left_over}" if left_over else "")]
    return Source(
        read=read_tiles,
        tiles=len(kept),
        size=size,
        mask=None if mask.all() else mask,
        spacing=spacing and [stride * step for step in spacing],
        boundaries=boundaries,
        periodic=[axis for axis, kind in boundaries.items() if kind == "periodic" and whole[axis]],
        notes=notes,
        **known,
    )
