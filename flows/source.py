"""What a source of frames is."""

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
        periodic: which of "y" and "x" (rows and columns) end in a tile where they begin.
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
