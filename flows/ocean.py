"""Surface currents of one or several regions as tiles."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.currents import describe_file, read_file
from flows.netcdf import iso_dates, unbroken
from flows.source import Source, choose_tiles, frame_blocks, tile_corners
from utils import InputError, progress

SUDDEN = 4.0  # times the usual change of a day; weather reaches 3.5 in the GlobCurrent sample, its copied day 5


class Region:
    """The frames of one grid, gathered from all the files that hold some, in the order of time.

    Attributes:
        files: OceanFiles of one grid.
        times: int64 seconds since 1970, ascending, each once.
        duplicates: number of frames left out because their time was there already.
        shape: ``(H, W)`` of the grid.
    """

    def __init__(self, files):
        self.files, self.kept = files, {}
        self.shape = len(files[0].latitude), len(files[0].longitude)
        times = np.concatenate([file.times for file in files])
        self.times, first = np.unique(times, return_index=True)
        self.duplicates = len(times) - len(first)
        self.which = np.repeat(np.arange(len(files)), [len(file.times) for file in files])[first]
        self.frame = np.concatenate([np.arange(len(file.times)) for file in files])[first]

    def keep(self, chosen):
        """Keep the frames of a bool array only."""
        self.times, self.which, self.frame = self.times[chosen], self.which[chosen], self.frame[chosen]

    def read(self, begin, end):
        """Frames ``[begin, end)``: ``(end - begin, 2, H, W)`` float64 in m/s, NaN where missing."""
        which, frame = self.which[begin:end], self.frame[begin:end]
        breaks = np.flatnonzero((np.diff(which) != 0) | (np.diff(frame) != 1)) + 1
        runs = zip(np.split(which, breaks), np.split(frame, breaks), strict=True)
        return np.concatenate([read_file(self.files[w[0]], f[0], f[-1] + 1, self.kept) for w, f in runs])


def same_grid(a, b):
    """Whether two OceanFiles share a grid, to a hundredth of its step and whole turns of longitude."""
    if a.latitude.shape != b.latitude.shape or a.longitude.shape != b.longitude.shape:
        return False
    north = np.abs(a.latitude - b.latitude)
    east = np.abs((a.longitude - b.longitude + 180) % 360 - 180)
    steps = np.concatenate([np.diff(a.latitude), np.diff(a.longitude), [1.0]])
    return max(north.max(), east.max()) < 0.01 * steps.min()


@dataclass
class Record:
    """What is known of ocean files before any current is read.

    Attributes:
        files: names of the files.
        box: west, east, south and north of the part to read, in degrees; None for all.
        tile: side of the square tiles.
        regions: Regions that share their times.
        corners: ``(region, row, column)`` of the tiles, see :func:`flows.source.tile_corners`.
        notes: lines for the summary.
    """

    files: list[str]
    box: list[float] | None
    tile: int
    regions: list[Region]
    corners: list[tuple[int, int, int]]
    notes: list[str]


def open_record(paths, tile, names=None, box=None):
    """Sort files into Regions that share their times, and say in notes what was left out.

    Args:
        paths: NetCDF files in any order.
        tile: side of the square tiles.
        names: the variables of u and v; None to choose them by what the files say.
        box: west, east, south and north of the part to read, in degrees; None for all.

    Returns:
        Record

    Raises:
        InputError: a file that cannot be used, or files that do not go together or are smaller than a tile.
    """
    files = [describe_file(path, names, box) for path in progress(sorted(paths), len(paths), "files")]
    groups = []
    for file in files:
        if file.calendar != files[0].calendar:
            raise InputError(
                f"{files[0].path} counts days in the calendar {files[0].calendar}, {file.path} in {file.calendar}; "
                "convert them to one"
            )
        if file.sea_level != files[0].sea_level:
            what = " and ".join(name or "currents" for name in (files[0].sea_level, file.sea_level))
            raise InputError(f"{files[0].path} and {file.path} hold different things, {what}; prepare them one by one")
        group = next((group for group in groups if same_grid(group[0], file)), None)
        if group is None:
            groups.append(group := [])
        group.append(file)
    regions = [Region(group) for group in groups]
    common = functools.reduce(np.intersect1d, [region.times for region in regions])
    if not common.size:
        spans = [" to ".join(iso_dates(region.times[[0, -1]], files[0].calendar)) for region in regions]
        raise InputError(
            f"the {len(regions)} regions (grids) have no time in common: {'; '.join(spans)}; give files of one period"
        )
    lonely = sum(len(region.times) - len(common) for region in regions)
    for region in regions:
        region.keep(np.isin(region.times, common))
    shapes = [region.shape for region in regions]
    sizes = ", ".join(f"{height} x {width}" for height, width in shapes)
    notes = [
        f"{len(files)} files, {len(regions)} region(s) of {sizes} points, {len(common)} common frames",
        f"frames dropped: {sum(region.duplicates for region in regions)} duplicates, {lonely} not in every region",
    ]
    if files[0].sea_level:
        notes.append(f"no currents in the files: geostrophic ones, from the slope of {files[0].sea_level}")
    return Record(
        [Path(path).name for path in sorted(paths)], box, tile, regions, tile_corners(shapes, (tile, tile)), notes
    )


def ocean_sources(args):
    """Currents of one ocean, and perhaps of another for the test: ``{"train": Source, "domain": Source}``."""
    names = args.u_var and (args.u_var, args.v_var)
    train = open_record(args.train, args.tile, names, args.train_box)
    test = open_record(args.test, args.tile, names, args.test_box) if args.test else None
    sources = {"train": ocean_source(train, args.max_land, args.keep_zeros)}
    if test:
        sources["domain"] = ocean_source(test, args.max_land, args.keep_zeros, "survey of test")
        step, wanted = (sources[name].time_step for name in ("domain", "train"))
        if step not in (wanted, None):
            raise InputError(f"the test files step by {step} s, wanted {wanted} s as in the train files")
    return sources


def survey(regions, label):
    """Read every frame once.

    Returns:
        ``empty``: bool per frame, True where a region has no value at all (a missing day);
        ``land``: for each region a bool ``(H, W)``, True where a value is missing in any other frame;
        ``zero``: for each region a bool ``(H, W)``, True where u and v are 0 in all other frames;
        ``change``: per frame, the rms change from the frame before in m/s.
    """
    count = len(regions[0].times)
    empty, change = np.zeros(count, bool), np.full(count, np.nan)
    land, zero = ([np.full(region.shape, start) for region in regions] for start in (False, True))
    before = [np.full((1, 2, *region.shape), np.nan) for region in regions]
    blocks = frame_blocks([(0, count)], bytes_per_frame(regions))
    for begin, end in progress(blocks, len(blocks), label):
        fields = [region.read(begin, end) for region in regions]
        for values in fields:
            empty[begin:end] |= np.isnan(values).all((1, 2, 3))
        for hidden, still, values in zip(land, zero, fields, strict=True):
            filled = values[~empty[begin:end]]
            hidden |= np.isnan(filled[:, 0]).any(0)
            still &= (filled == 0).all((0, 1))
        change[begin:end] = rms_change(before, fields)
        before = [values[-1:] for values in fields]
    return empty, land, zero, change


def bytes_per_frame(regions):
    """Bytes of one frame of all regions in float64."""
    return sum(2 * 8 * height * width for height, width in (region.shape for region in regions))


def rms_change(before, fields):
    """rms difference of each frame from the one before over all regions, NaN where one of them is empty."""
    total = points = 0
    for last, values in zip(before, fields, strict=True):
        step = np.diff(values, axis=0, prepend=last)
        total = total + np.nansum(step**2, axis=(1, 2, 3))
        points = points + np.isfinite(step).sum(axis=(1, 2, 3))
    with np.errstate(invalid="ignore"):
        return np.sqrt(total / points)


def ocean_source(record, max_land, keep_zeros=False, label="survey"):
    """Tiles of surface currents on one or several latitude-longitude grids, from any number of NetCDF files.

    Files of one grid make a region; regions are read at their common times. Tiles start in the south-west corner of
    each region; they are ordered by place, then region. The files are read twice, a block of frames at a time.

    Args:
        record: Record of the files.
        max_land: tiles with a larger fraction of land are dropped. Land is what is missing in any frame.
        keep_zeros: points where u and v are 0 in all frames are valid; by default they are land without a fill.
        label: of the progress bar.

    Raises:
        InputError: values that are no currents, or no tile that can be used.
    """
    regions, tile, notes = record.regions, record.tile, list(record.notes)
    empty, land, zero, change = survey(regions, label)
    times, calendar = regions[0].times, regions[0].files[0].calendar
    notes += sudden_changes(times, change, calendar)
    if empty.all():
        raise InputError("every frame is without any value in some region (grid): no point is valid; give other files")
    share = sum(still.sum() for still in zero) / sum(still.size for still in zero)
    if share and not keep_zeros:
        land = [hidden | still for hidden, still in zip(land, zero, strict=True)]
        notes.append(f"warning: u and v are 0 in all frames at {share:.1%} of the points: land, unless --keep_zeros")
    kept, mask, note = choose_tiles(record.corners, land, (tile, tile), max_land)
    for region in regions:
        region.keep(~empty)
    times = regions[0].times
    time_step, segments = unbroken(times)
    notes.append(f"missing days: {empty.sum()} without a value, {len(segments) - 1} gaps in time")

    def read(begin, end):
        fields = [region.read(begin, end) for region in regions]
        block = np.stack([fields[r][:, :, y : y + tile, x : x + tile] for r, y, x in kept])
        return np.where(mask[:, None, None], block, 0)

    return Source(
        read=read,
        tiles=len(kept),
        size=(tile, tile),
        segments=segments,
        frame_bytes=bytes_per_frame(regions),
        files=record.files,
        box=record.box,
        mask=None if mask.all() else mask,
        dates=iso_dates(times, calendar),
        time_step=time_step,
        units="m/s",
        notes=[*notes, note],
    )


def sudden_changes(times, change, calendar):
    """Warnings of frames that differ from the frame before far more than is usual: wrong or copied ones."""
    usual, _ = unbroken(times)
    known = np.isfinite(change) & (np.diff(times, prepend=times[0]) == usual)
    limit = (SUDDEN * np.median(change[known]) if known.any() else 0) or np.inf
    jumps = np.flatnonzero(known & (change > limit))
    return [
        f"warning: the flow changes {SUDDEN * change[jump] / limit:.1f} times as much as usual to {date}; a wrong day?"
        for jump, date in zip(jumps, iso_dates(times[jumps], calendar), strict=True)
    ]
