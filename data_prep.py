"""Prepare raw flows for training: cut them into tiles, split them in time, standardise them, store every frame once.

    python data_prep.py rbc --raw rbc_data.pt
    python data_prep.py rbc --simulate small       convection made here instead of downloaded, in half a minute
    python data_prep.py ocean --train atlantic.nc indian.nc north_pacific.nc --test south_pacific_test.nc
    python data_prep.py ocean --train currents/*.nc --tile 32 --max_land 0.2 --gap 50
    python data_prep.py ocean --train currents/*.nc --train_box -44 -23 25 46 --test_box -180 -159 -59 -40
    python data_prep.py ocean --print_download     the commands that fetch the ocean files
    python data_prep.py                            whatever of these files lies in this folder

Writes, all or nothing, into <data_dir>/<dataset>/:

    meta.json          source, splits, standardisation, orientation (for utils.window_starts)
    <split>.npy        train, valid, test, domain: float32 (tiles, time, 2, h, w), standardised, 0 on land,
                       row 0 south, u before v
    <split>_mask.npy   bool (tiles, h, w), True on water; only where there is land
    test_<name>.npz    one group element per test window, for the transformed test sets

A window is history + horizon consecutive frames. Windows are never files: they are numbered by first frame, then by
tile, and a split owns a range of these numbers.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import re
import shutil
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
import torch

from models import SYMMETRIES
from models.rotation import Rotation
from models.scale import Scale
from simulation.rayleigh_benard import PRESETS, simulate
from utils import SCHEMA, InputError, choose_device, exit_code, progress, write_json

try:
    import netCDF4
except ImportError:
    netCDF4 = None  # only the ocean needs it

BLOCK_BYTES = 2**25  # of frames in memory at a time


@dataclass
class Source:
    """Tiles of a flow, read a block of frames at a time: all that the writing knows of where they come from.

    Attributes:
        read: ``read(begin, end)`` returns raw values ``(tiles, end - begin, 2, h, w)``, 0 on land.
        tiles: number of tiles.
        size: ``(h, w)`` of a tile.
        segments: frame ranges ``[begin, end)`` without a gap in time.
        frame_bytes: memory that reading one frame takes.
        files: names of the files.
        box: west, east, south and north of the part of them that was read, in degrees; None for all.
        mask: bool ``(tiles, h, w)``, True on water; None if all is water.
        dates: ISO date of every frame, or None.
        time_step: seconds between frames, or None.
        units: units of the raw values, or None.
        notes: lines for the summary.
    """

    read: Callable[[int, int], np.ndarray]
    tiles: int
    size: tuple[int, int]
    segments: list[tuple[int, int]]
    frame_bytes: int
    files: list[str]
    box: list[float] | None = None
    mask: np.ndarray | None = None
    dates: list[str] | None = None
    time_step: int | None = None
    units: str | None = None
    notes: list[str] = field(default_factory=list)


def frame_blocks(ranges, frame_bytes):
    """Cut frame ranges ``[begin, end)`` into blocks of at most ``BLOCK_BYTES``, at least one frame each."""
    step = max(1, BLOCK_BYTES // frame_bytes)
    return [(at, min(at + step, end)) for begin, end in ranges for at in range(begin, end, step)]


# ---------------------------------------------------------------- regular arrays: convection


def load_array(path):
    """Open a ``.pt`` tensor or a ``.npy`` array as a numpy array, memory-mapped where the format allows it.

    Raises:
        InputError: what is there is no floating-point array, or holds Python objects (which are never loaded).
    """
    raw = {".pt": load_tensor, ".npy": load_npy}.get(existing(path).suffix, refuse_suffix)(path)
    if raw.dtype.kind != "f":
        raise InputError(f"{path} holds {raw.dtype} values, wanted floating-point velocities; convert it first")
    return raw


def existing(path):
    """The path, if it is a file that may be read."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not there'}, wanted a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read; change its permissions")
    return path


def refuse_suffix(path):
    """Stands for the loader of a format there is none for."""
    raise InputError(f"{path} is neither .pt nor .npy; save the tensor or array in one of these formats")


def load_tensor(path):
    """A saved tensor as a numpy array; code in its pickle is not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file draws warnings before its error
            # torch maps its present format, which is a zip archive, and not the one before
            raw = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except Exception as error:  # a damaged or malicious pickle raises almost anything
        raise InputError(
            f"{path} cannot be loaded ({type(error).__name__}): it is damaged or holds more than a tensor; "
            "save the tensor alone with torch.save"
        ) from error
    if not isinstance(raw, torch.Tensor):
        raise InputError(f"{path} holds a {type(raw).__name__}, wanted one tensor; save the tensor alone")
    try:
        return raw.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{path} holds a {raw.dtype} tensor that numpy cannot read; save it as float32") from error


def load_npy(path):
    """A saved array as a memory map; pickled objects are not loaded."""
    try:
        raw = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises almost anything
        raise InputError(f"{path} is no readable .npy array ({error}); save it with numpy.save") from error
    if not isinstance(raw, np.ndarray):
        raise InputError(f"{path} holds several arrays, wanted one; save it with numpy.save")
    return raw


def array_source(raw, file, stride, tile):
    """Tiles of a regular array, row by row, as in the release's preparation of the convection data.

    Args:
        raw: ``(T, 2, H, W)`` floating; a memory map is never read as a whole.
        file: its name.
        stride: every ``stride``-th point is kept in both directions, without averaging.
        tile: side of the square tiles; they must fill the field.

    Raises:
        InputError: sizes that do not fit; on reading, a frame with NaN or infinity.
    """
    if raw.ndim != 4 or raw.shape[1] != 2 or 0 in raw.shape:
        raise InputError(f"{file} has shape {raw.shape}, wanted (T, 2, H, W): frames of u and v")
    thinned = raw[:, :, ::stride, ::stride]
    rows, columns = (n // tile for n in thinned.shape[2:])
    if thinned.shape[2:] != (rows * tile, columns * tile):
        height, width = thinned.shape[2:]
        raise InputError(f"{file} is {height} x {width} after --stride {stride}, wanted multiples of --tile {tile}")

    def read(begin, end):
        with np.errstate(over="ignore"):  # found as an infinity
            block = np.asarray(thinned[begin:end], np.float32)
        finite = np.isfinite(block).all(axis=(1, 2, 3))
        if not finite.all():
            raise InputError(f"{file} has a value that is not finite in frame {begin + finite.argmin()}; mend the file")
        block = block.reshape(-1, 2, rows, tile, columns, tile)
        return block.transpose(2, 4, 0, 1, 3, 5).reshape(rows * columns, -1, 2, tile, tile)

    return Source(
        read=read,
        tiles=rows * columns,
        size=(tile, tile),
        segments=[(0, len(raw))],
        frame_bytes=raw[:1].nbytes,
        files=[Path(file).name],
        notes=[
            f"{file}: {len(raw)} frames of {raw.shape[2]} x {raw.shape[3]} points, stride {stride}",
            f"{rows} x {columns} tiles of {tile} x {tile}, none dropped",
        ],
    )


# ---------------------------------------------------------------- NetCDF: what a file says of itself

EASTWARD = re.compile(r"(surface_)?(geostrophic_)?eastward_sea_water_velocity")  # CF standard names
PAIRS = (("uo", "vo"), ("utotal", "vtotal"), ("ugos", "vgos"), ("water_u", "water_v"), ("u", "v"))
WIND = re.compile(r"(^|_)wind(?!_driven)|(^|_)[uv](10(m|n)?|wnd|as)(_|$)")
ALONG_GRID = re.compile(r"(^|_)([xyij]_((sea|water|surface|ocean)_)*(velocity|current|component|axis|direction)|grid_)")
COORDINATES = {  # names that need no attribute; the dimension they stand for
    **{name: name for name in ("time", "depth", "latitude", "longitude")},
    **{"t": "time", "time_counter": "time", "lev": "depth", "level": "depth", "z": "depth"},
    **{"lat": "latitude", "nav_lat": "latitude", "lon": "longitude", "nav_lon": "longitude"},
}
AXES = {"T": "time", "Z": "depth", "Y": "latitude", "X": "longitude"}  # the CF attribute `axis`
SECONDS = r"(s|secs?|seconds?)"
SPEED_UNITS = re.compile(rf"(?P<centi>c|centi)?(m|met(er|re)s?)\s*((/|per)\s*{SECONDS}|[.*·]?\s*{SECONDS}(\^|\*\*)?-1)")
EPOCH = "seconds since 1970-01-01"
FASTEST = 20.0  # m/s; no ocean current comes near
SUDDEN = 4.0  # times the usual change of a day; weather reaches 3.5 in the GlobCurrent sample, its copied day 5


@dataclass(frozen=True)
class Component:
    """How a file stores u or v: ``index`` picks the surface (``time_axis`` is sliced, None if there is none),
    ``order`` brings what is left to (time, row, column), ``unit`` is the number of its units in 1 m/s."""

    name: str
    index: tuple
    time_axis: int | None
    order: tuple
    unit: float


@dataclass(frozen=True)
class OceanFile:
    """What is needed to read currents from a file: ``flip`` are the slices that make its rows run north and its
    columns east, as ``latitude`` and ``longitude`` (degrees) do; ``times`` are seconds since 1970."""

    path: str
    components: tuple[Component, Component]
    latitude: np.ndarray
    longitude: np.ndarray
    flip: tuple[slice, slice]
    times: np.ndarray
    calendar: str


@contextlib.contextmanager
def opened(path):
    """Open a NetCDF file with automatic masking off; every error names the file and is an InputError."""
    try:
        with netCDF4.Dataset(path) as dataset:
            dataset.set_auto_maskandscale(False)
            yield dataset
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable NetCDF file: {getattr(error, 'strerror', None) or error}") from error


def describe_file(path, names=None, box=None):
    """Find out how a file stores surface currents.

    Args:
        path: a NetCDF file on a latitude-longitude grid.
        names: the variables of u and v; None to choose by CF standard name, then by known names.
        box: west, east, south and north of the part to read, in degrees; None for the whole grid.

    Returns:
        OceanFile

    Raises:
        InputError: the file is broken, or holds no eastward and northward current on one such grid, or not in the box.
    """
    west, east, south, north = box or (None,) * 4
    refuse_damaged_classic(existing(path))
    with opened(path) as dataset:
        refuse_curvilinear(dataset)
        u, v = (dataset[name] for name in choose_variables(dataset, names))
        axes, v_axes = locate(dataset, u), locate(dataset, v)
        if grid_names(axes) != grid_names(v_axes):
            raise InputError(f"{u.name} and {v.name} lie on different points (a C-grid); interpolate them first")
        latitude, rows = ascending(axes["latitude"][1])
        longitude, columns = ascending(axes["longitude"][1])
        latitude, part_of_rows = between(south, north, latitude, rows)
        longitude, part_of_columns = between(west, east, longitude, columns)
        times, calendar = read_times(axes["time"][1] if "time" in axes else scalar_time(dataset))
        parts = {"time": slice(None), "latitude": part_of_rows, "longitude": part_of_columns}
        components = component(u, axes, parts), component(v, v_axes, parts)
    return OceanFile(str(path), components, latitude, longitude, (rows, columns), times, calendar)


def refuse_damaged_classic(path):
    """Refuse a broken NetCDF 3 file: netCDF4 reads a missing end as zeros and may crash on a damaged header."""
    with open(path, "rb") as file:
        if file.read(4) not in (b"CDF\x01", b"CDF\x02"):
            return
        file.seek(0)
        try:
            scipy.io.netcdf_file(file, mmap=True).close()
        except Exception as error:  # scipy's parser raises almost anything on a damaged header
            raise InputError(f"{path} is truncated or damaged; fetch it again") from error


def refuse_curvilinear(dataset):
    """Refuse a file whose only latitudes are 2-D."""
    found = {v.ndim: v.name for v in dataset.variables.values() if role(v) == "latitude"}
    if 2 in found and 1 not in found:
        raise InputError(f"the grid is curvilinear ({found[2]} is 2-D); interpolate it to latitude and longitude first")


def text(variable, *names):
    """The first of the attributes ``names`` (lower case) that a variable has in any case of letters, or ""."""
    attributes = {name.lower(): name for name in variable.ncattrs()}
    return next((str(variable.getncattr(attributes[name])).strip() for name in names if name in attributes), "")


def units_of(variable):
    return text(variable, "units", "unit")  # some files misspell it


def role(variable):
    """What a coordinate variable holds: "time", "depth", "latitude", "longitude" or None."""
    standard, units = text(variable, "standard_name").lower(), units_of(variable).lower()
    if standard in AXES.values():
        return standard
    if " since " in units and not standard:  # the date of a forecast has another standard name
        return "time"
    if re.fullmatch(r"degrees?_?(n|north|e|east)", units):
        return "latitude" if units.endswith(("n", "north")) else "longitude"
    axis = AXES.get(text(variable, "axis").upper())
    # an X or Y axis in metres, or with a standard name of its own, is that of a projection
    if axis in ("time", "depth") or (axis and not standard and units in ("", "degree", "degrees")):
        return axis
    return COORDINATES.get(variable.name.lower())


def choose_variables(dataset, names=None):
    """Names of the eastward and the northward current: the user's, else by standard name, else by known names."""
    variables = {name: v for name, v in dataset.variables.items() if v.ndim}
    listing = ", ".join(variables)
    standard = {name: text(v, "standard_name").lower() for name, v in variables.items()}
    by_standard_name = [
        (u, v)
        for u, v in itertools.permutations(variables, 2)
        if EASTWARD.fullmatch(standard[u]) and standard[v] == standard[u].replace("eastward", "northward")
    ]
    by_name = [pair for pair in known_pairs(variables) if set(pair) <= set(variables)]
    pairs = [tuple(names)] if names else by_standard_name or by_name
    if len(pairs) > 1:
        raise InputError(f"several currents ({listing}); choose one with --u_var and --v_var")
    if not pairs:
        refuse_without_pair(variables, listing)
    for name in pairs[0]:
        if name not in variables:
            raise InputError(f"no variable {name}; there are {listing}")
        if why_not(variables[name]):
            raise InputError(why_not(variables[name]))
    return pairs[0]


def known_pairs(variables):
    """Pairs of names that usually are eastward and northward currents, in the case of letters of the file."""
    actual = {name.lower(): name for name in variables}
    eulerian = [name for name in actual if re.fullmatch(r"eastward_(\w+_)?eulerian_current_velocity", name)]
    pairs = PAIRS + tuple((name, name.replace("eastward", "northward")) for name in eulerian)
    return [tuple(actual.get(name, name) for name in pair) for pair in pairs]


def is_current(variable):
    """Whether the standard name says eastward or northward current."""
    return bool(EASTWARD.fullmatch(text(variable, "standard_name").lower().replace("northward", "eastward")))


def why_not(variable):
    """Why a variable is no eastward or northward current, as far as its names tell; else None."""
    if is_current(variable):
        return None
    labels = (text(variable, "standard_name"), text(variable, "long_name"), variable.name)
    labels = [re.sub(r"\W+", "_", label.lower()) for label in labels]
    if any(WIND.search(label) for label in labels):
        return f"{variable.name} is a wind, wanted a current of the sea"
    if any(ALONG_GRID.search(label) for label in labels):
        return f"{variable.name} runs along the grid's x or y; turn the components east and north first"
    return None


def refuse_without_pair(variables, listing):
    """Raise the InputError that says best why there is no pair of currents."""
    for pair in known_pairs(variables):
        half = [name for name in pair if name in variables]
        if half:
            missing = next(name for name in pair if name not in variables)
            raise InputError(f"{half[0]} without {missing}; both components must be in one file")
    for variable in variables.values():
        if is_current(variable):
            raise InputError(f"{variable.name} without its other component; both must be in one file")
        if why_not(variable):
            raise InputError(why_not(variable))
    raise InputError(f"no eastward and northward current among {listing or 'no variables'}; use --u_var and --v_var")


def locate(dataset, variable):
    """Which axis of a variable is what: ``{"latitude": (axis, coordinate variable), ...}``."""
    axes = {}
    for axis, dimension in enumerate(variable.dimensions):
        candidates = [v for v in dataset.variables.values() if v.dimensions == (dimension,) and role(v)]
        candidates.sort(key=lambda v: v.name != dimension)
        kind = role(candidates[0]) if candidates else None
        if kind and kind not in axes:
            axes[kind] = axis, candidates[0]
        elif variable.shape[axis] != 1:
            raise InputError(
                f"dimension {dimension} of {variable.name} has {variable.shape[axis]} entries and no coordinate "
                "variable of its own that makes it time, depth, latitude or longitude; choose one entry first"
            )
    for kind in ("latitude", "longitude"):
        if kind not in axes:
            raise InputError(f"{variable.name} has no {kind} among its dimensions ({', '.join(variable.dimensions)})")
    return axes


def grid_names(axes):
    """Names of the coordinate variables that u and v must share."""
    return {kind: coordinate.name for kind, (_, coordinate) in axes.items() if kind != "depth"}


def component(variable, axes, parts):
    """How ``variable``, with the axes that ``locate`` found, stores its component in ``parts``, slices of the axes."""
    index = [0] * variable.ndim
    if "depth" in axes:
        axis, depth = axes["depth"]
        index[axis] = int(np.argmin(np.nan_to_num(np.abs(decode(depth)), nan=np.inf)))
    kept = {axes[kind][0]: part for kind, part in parts.items() if kind in axes}
    for axis, part in kept.items():
        index[axis] = part
    order = tuple(sorted(kept).index(axis) for axis in kept)
    time_axis = axes["time"][0] if "time" in axes else None
    return Component(variable.name, tuple(index), time_axis, order, speed_unit(variable))


def ascending(coordinate):
    """Latitudes or longitudes in ascending order (degrees, unwrapped at 180 or 360), and the slice that orders them."""
    values = decode(coordinate)
    if not np.all(np.abs(values) <= (90 if role(coordinate) == "latitude" else 720)):  # NaN is not either
        raise InputError(f"{coordinate.name} has missing or impossible values; mend the file")
    if role(coordinate) == "longitude":
        values = np.unwrap(values, period=360)
    steps = np.diff(values)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise InputError(f"{coordinate.name} is not monotonic; sort the grid first")
    order = slice(None, None, -1 if np.any(steps < 0) else 1)
    return values[order], order


def turn(west, east):
    """Degrees from west to east, a whole turn where they are the same meridian."""
    return (east - west) % 360 or 360


def between(low, high, values, order):
    """The ascending ``values`` from ``low`` to ``high``, and the slice of the file that holds them; None is no limit.

    Degrees of longitude count modulo 360, which does no harm to latitude.

    Raises:
        InputError: nothing lies there, or it is in two pieces at the edges of the grid.
    """
    if low is None:
        return values, slice(None)
    chosen = np.flatnonzero((values - low) % 360 <= turn(low, high))
    if not chosen.size or np.ptp(chosen) >= chosen.size:
        raise InputError(f"{low:g} to {high:g} is not one piece of the grid, which is {values[0]:g} to {values[-1]:g}")
    begin, end = chosen[0], chosen[-1] + 1
    forward = order.step > 0
    return values[begin:end], slice(begin, end) if forward else slice(len(values) - end, len(values) - begin)


def scalar_time(dataset):
    """The coordinate that dates a file whose currents have no time dimension."""
    for variable in dataset.variables.values():
        if variable.size == 1 and role(variable) == "time":
            return variable
    raise InputError("the currents have no time axis and the file no time; windows need dated frames")


def read_times(coordinate):
    """Whole seconds since 1970 in the calendar of the file (int64), and that calendar."""
    values = np.atleast_1d(decode(coordinate)).ravel()
    calendar = text(coordinate, "calendar").lower() or "standard"
    if not values.size:
        raise InputError(f"{coordinate.name} is empty: the file holds no frames")
    if not np.isfinite(values).all():
        raise InputError(f"{coordinate.name} has missing values; mend the file")
    try:
        dates = netCDF4.num2date(values, units_of(coordinate), calendar)
        return np.rint(netCDF4.date2num(dates, EPOCH, calendar)).astype(np.int64), calendar
    except (ValueError, OverflowError, TypeError) as error:  # cftime's parser raises them all
        raise InputError(f"{coordinate.name} in {units_of(coordinate)!r} is no date: {error}") from error


def speed_unit(variable):
    """How many of a variable's units are 1 m/s."""
    units = units_of(variable)
    match = SPEED_UNITS.fullmatch(units.lower())
    if units and not match:
        raise InputError(f"{variable.name} is in {units!r}, wanted m/s or cm/s; convert it first")
    return 100.0 if match and match["centi"] else 1.0


def decode(variable, index=...):
    """Values of a variable in float64, NaN where missing.

    Missing is what equals ``_FillValue``, ``missing_value`` or, without the former, NetCDF's default fill, all compared
    before unpacking. ``valid_min`` and ``valid_max`` are not used: half the packed files state them unpacked.
    """
    if not isinstance(variable.dtype, np.dtype) or variable.dtype.kind not in "fiu":
        raise InputError(f"{variable.name} holds {variable.dtype}, wanted numbers")
    raw = np.asarray(variable[index])
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float64) * number(variable, "scale_factor", 1) + number(variable, "add_offset", 0)
    return np.where(np.isin(raw, fill_values(variable)), np.nan, values)


def number(variable, name, default):
    """A numeric attribute, or ``default`` where there is none."""
    return float(numbers(variable, name)[0]) if name in variable.ncattrs() else default


def numbers(variable, name):
    """A numeric attribute as a float64 array."""
    value = variable.getncattr(name)
    with contextlib.suppress(ValueError):
        if np.size(value):
            return np.asarray(value, np.float64).ravel()
    raise InputError(f"attribute {name} of {variable.name} is {value!r}, wanted a number")


def fill_values(variable):
    """The raw values that stand for missing, in the type of the variable."""
    dtype = variable.dtype
    fills = [numbers(variable, name) for name in ("_FillValue", "missing_value") if name in variable.ncattrs()]
    if "_FillValue" not in variable.ncattrs():
        fills.append([netCDF4.default_fillvals[dtype.str[1:]]])
    fills = np.concatenate(fills)
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        fills = fills[(fills >= limits.min) & (fills <= limits.max)]
    return fills.astype(dtype)


# ---------------------------------------------------------------- NetCDF: reading


def read_file(file, begin, end):
    """Currents of the frames ``[begin, end)`` of an OceanFile.

    Returns:
        ``(end - begin, 2, H, W)`` float64 in m/s, NaN where u or v is missing, rows running north, columns east.

    Raises:
        InputError: the file cannot be read, or a speed is none of the sea's.
    """
    with opened(file.path) as dataset:
        block = np.stack([read_component(dataset, part, begin, end) for part in file.components], 1)
        speed = np.hypot(block[:, 0], block[:, 1])
        if np.any(speed > FASTEST):
            frame = begin + int(np.argmax((speed > FASTEST).any((1, 2))))
            raise InputError(
                f"a speed of {np.nanmax(speed):g} m/s on {iso_dates(file.times[[frame]], file.calendar)[0]}, wanted at "
                f"most {FASTEST:g}; is it a fill value that is not declared, or another unit?"
            )
    return np.where(np.isnan(speed)[:, None], np.nan, block)[(..., *file.flip)]


def read_component(dataset, part, begin, end):
    """One component of some frames, ``(end - begin, rows, columns)`` in m/s, rows and columns as in the file."""
    index = list(part.index)
    if part.time_axis is not None:
        index[part.time_axis] = slice(begin, end)
    values = decode(dataset[part.name], tuple(index)).transpose(part.order) / part.unit
    return values if part.time_axis is not None else values[None]


def iso_dates(times, calendar):
    """ISO dates of seconds since 1970, without the time of day at midnight."""
    return [date.isoformat().removesuffix("T00:00:00") for date in netCDF4.num2date(times, EPOCH, calendar)]


class Region:
    """The frames of one grid, gathered from all the files that hold some, in the order of time.

    Attributes:
        files: OceanFiles of one grid.
        times: int64 seconds since 1970, ascending, each once.
        duplicates: number of frames left out because their time was there already.
        shape: ``(H, W)`` of the grid.
    """

    def __init__(self, files):
        self.files = files
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
        return np.concatenate([read_file(self.files[w[0]], f[0], f[-1] + 1) for w, f in runs])


def same_grid(a, b):
    """Whether two OceanFiles share a grid, to a hundredth of its step and whole turns of longitude."""
    if a.latitude.shape != b.latitude.shape or a.longitude.shape != b.longitude.shape:
        return False
    north = np.abs(a.latitude - b.latitude)
    east = np.abs((a.longitude - b.longitude + 180) % 360 - 180)
    steps = np.concatenate([np.diff(a.latitude), np.diff(a.longitude), [1.0]])
    return max(north.max(), east.max()) < 0.01 * steps.min()


def gather_regions(paths, names, box):
    """Sort files into Regions that share their times, and say in notes what was left out."""
    files = [describe_file(path, names, box) for path in progress(sorted(paths), len(paths), "files")]
    groups = []
    for file in files:
        group = next((group for group in groups if same_grid(group[0], file)), None)
        if group is None:
            groups.append(group := [])
        group.append(file)
    regions = [Region(group) for group in groups]
    common = functools.reduce(np.intersect1d, [region.times for region in regions])
    calendar = files[0].calendar
    if not common.size:
        spans = [" to ".join(iso_dates(region.times[[0, -1]], calendar)) for region in regions]
        raise InputError(
            f"the {len(regions)} regions (grids) have no time in common: {'; '.join(spans)}; give files of one period"
        )
    lonely = sum(len(region.times) - len(common) for region in regions)
    for region in regions:
        region.keep(np.isin(region.times, common))
    shapes = ", ".join(f"{height} x {width}" for height, width in (region.shape for region in regions))
    notes = [
        f"{len(files)} files, {len(regions)} region(s) of {shapes} points, {len(common)} common frames",
        f"frames dropped: {sum(region.duplicates for region in regions)} duplicates, {lonely} not in every region",
    ]
    return regions, notes


def survey(regions, label):
    """Read every frame once.

    Returns:
        ``empty``: bool per frame, True where a region has no value at all (a missing day);
        ``land``: for each region a bool ``(H, W)``, True where a value is missing in any other frame;
        ``change``: per frame, the rms change from the frame before in m/s.
    """
    count = len(regions[0].times)
    empty, change = np.zeros(count, bool), np.full(count, np.nan)
    land = [np.zeros(region.shape, bool) for region in regions]
    before = [np.full((1, 2, *region.shape), np.nan) for region in regions]
    blocks = frame_blocks([(0, count)], frame_bytes(regions))
    for begin, end in progress(blocks, len(blocks), label):
        fields = [region.read(begin, end) for region in regions]
        for values in fields:
            empty[begin:end] |= np.isnan(values).all((1, 2, 3))
        for hidden, values in zip(land, fields, strict=True):
            hidden |= np.isnan(values[~empty[begin:end], 0]).any(0)
        change[begin:end] = rms_change(before, fields)
        before = [values[-1:] for values in fields]
    return empty, land, change


def frame_bytes(regions):
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


def ocean_source(paths, tile, max_land, names=None, box=None, label="survey"):
    """Tiles of surface currents on one or several latitude-longitude grids, from any number of NetCDF files.

    Files of one grid make a region; regions are read at their common times. Tiles start in the south-west corner of
    each region; they are ordered by place, then region. The files are read twice, a block of frames at a time.

    Args:
        paths: NetCDF files in any order.
        tile: side of the square tiles.
        max_land: tiles with a larger fraction of land are dropped. Land is what is missing in any frame.
        names: the variables of u and v; None to choose them by what the files say.
        box: west, east, south and north of the part to read, in degrees; None for all.
        label: of the progress bar.

    Raises:
        InputError: a file that cannot be used, or no tile that can.
    """
    regions, notes = gather_regions(paths, names, box)
    corners = tile_corners([region.shape for region in regions], tile)
    empty, land, change = survey(regions, label)
    times, calendar = regions[0].times, regions[0].files[0].calendar
    notes += sudden_changes(times, change, calendar)
    if empty.all():
        raise InputError("every frame is without any value in some region (grid): there is no water; give other files")
    kept, mask, note = choose_tiles(corners, land, tile, max_land)
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
        frame_bytes=frame_bytes(regions),
        files=[Path(path).name for path in sorted(paths)],
        box=box,
        mask=None if mask.all() else mask,
        dates=iso_dates(times, calendar),
        time_step=time_step,
        units="m/s",
        notes=[*notes, note],
    )


def tile_corners(shapes, tile):
    """``(region, row, column)`` of all whole tiles, ordered by place, then region."""
    places = [
        [(region, y, x) for y in range(0, height - tile + 1, tile) for x in range(0, width - tile + 1, tile)]
        for region, (height, width) in enumerate(shapes)
    ]
    corners = [corner for group in itertools.zip_longest(*places) for corner in group if corner]
    if not corners:
        largest = max(shapes, key=min)
        raise InputError(f"the grid is {largest[0]} x {largest[1]}, smaller than --tile {tile}; choose a smaller tile")
    return corners


def choose_tiles(corners, land, tile, max_land):
    """The tiles with little land: their corners, their masks ``(tiles, tile, tile)``, and a line about the others."""
    masks = np.stack([~land[r][y : y + tile, x : x + tile] for r, y, x in corners])
    dry = 1 - masks.mean((1, 2))
    kept = np.flatnonzero((dry <= max_land) & (dry < 1))
    if not kept.size:
        least = np.ceil(1000 * dry.min()) / 1000
        advice = f"--max_land {least:.3f} would keep {(dry <= least).sum()}" if dry.min() < 1 else "there is no water"
        raise InputError(
            f"all {len(dry)} tiles have more land than --max_land {max_land:g}, the least {dry.min():.3f}; {advice}"
        )
    note = f"tiles of {tile} x {tile}: {len(kept)} kept, {len(dry) - len(kept)} dropped with land above {max_land:g}"
    return [corners[k] for k in kept], masks[kept], note


def unbroken(times):
    """The usual time step in seconds (None of a single frame), and the frame ranges in which every step is usual."""
    if len(times) < 2:
        return None, [(0, len(times))]
    steps = np.diff(times)
    values, counts = np.unique(steps, return_counts=True)
    usual = values[counts.argmax()]
    breaks = np.flatnonzero(np.abs(steps - usual) > 0.1 * usual) + 1
    edges = [0, *breaks.tolist(), len(times)]
    return int(usual), list(itertools.pairwise(edges))


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


# ---------------------------------------------------------------- splits


@dataclass(frozen=True)
class Split:
    """Windows ``[first, first + count)`` of those in the source's frame ``ranges``, which hold no frame but theirs."""

    ranges: list[tuple[int, int]]
    first: int
    count: int


def count_starts(segments, window):
    """Number of frames at which a window can start."""
    return sum(max(0, end - begin - window + 1) for begin, end in segments)


def cut(segments, tiles, window, begin, count):
    """The Split that owns the windows ``[begin, begin + count)``, numbered by first frame, then tile."""
    first_start, last_start = begin // tiles, (begin + count - 1) // tiles
    ranges, seen = [], 0
    for start, stop in segments:
        starts = count_starts([(start, stop)], window)
        low, high = max(first_start - seen, 0), min(last_start - seen, starts - 1)
        if low <= high:
            ranges.append((start + low, start + high + window))
        seen += starts
    return Split(ranges, begin % tiles, count)


def plan_splits(segments, tiles, window, gap, wanted):
    """Cut the windows of a source into train, valid and test, in the order of time.

    Args:
        segments: frame ranges without a gap in time.
        tiles: windows per first frame.
        window: frames of a window.
        gap: window starts (times ``tiles`` windows) left out between two splits.
        wanted: three numbers of windows; where there are fewer, all windows are cut in these proportions.

    Returns:
        ``{"train": Split, "valid": Split, "test": Split}``

    Raises:
        InputError: fewer than three window starts besides the gaps.
    """
    available = count_windows(segments, tiles, window, gap, 3) - 2 * gap * tiles
    counts = list(wanted)
    if sum(counts) > available:
        counts = [1 + (available - 3) * count // sum(wanted) for count in wanted]
        counts[0] += available - sum(counts)
    splits, begin = {}, 0
    for name, count in zip(("train", "valid", "test"), counts, strict=True):
        splits[name] = cut(segments, tiles, window, begin, count)
        begin += count + gap * tiles
    return splits


def plan_domain(segments, tiles, window, wanted):
    """The first ``wanted`` windows of another ocean, or all if there are fewer."""
    return cut(segments, tiles, window, 0, min(wanted, count_windows(segments, tiles, window, 0, 1)))


def count_windows(segments, tiles, window, gap, parts):
    """Number of windows; InputError if they do not make ``parts`` splits with ``gap`` starts between them."""
    starts, needed = count_starts(segments, window), parts + (parts - 1) * gap
    if starts < needed:
        frames = [end - begin for begin, end in segments]
        raise InputError(
            f"found {sum(frames)} frames, at most {max(frames)} without a gap in time, wanted {window + needed - 1}: "
            f"{parts} split(s) of windows of {window}; give more frames or lower --history, --horizon or --gap"
        )
    return starts * tiles


# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def new_folder(target):
    """Yield a hidden folder beside ``target`` that takes its place only if the block succeeds."""
    target = Path(target).resolve()  # a link to another disk stays one
    partial, old = (target.with_name(f".{target.name}.{state}") for state in ("partial", "old"))
    created = not target.parent.exists()
    if target.is_file():
        raise InputError(f"{target} is a file, wanted a folder or nothing; choose another --data_dir")
    try:
        put_back(old, target)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write into {target.parent}: {error.strerror}; choose another --data_dir") from error
    try:
        yield partial
        if target.exists():
            print(f"replacing the earlier {target}")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        put_back(old, target)
        shutil.rmtree(partial, ignore_errors=True)
        if created and not any(target.parent.iterdir()):
            target.parent.rmdir()


def put_back(old, target):
    """Undo a replacement that was cut short between its two steps."""
    if old.exists() and not target.exists():
        old.rename(target)


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
    """Write the raw frames of a split; return their map ``(tiles, time, 2, h, w)``."""
    total = sum(end - begin for begin, end in split.ranges)
    frames = allocate(path, (source.tiles, total, 2, *source.size))
    blocks, at = frame_blocks(split.ranges, source.frame_bytes), 0
    for begin, end in progress(blocks, len(blocks), path.stem):
        frames[:, at : at + end - begin] = source.read(begin, end)
        at += end - begin
    return frames


def tile_blocks(frames, mask):
    """Views ``(some frames, 2, h, w)`` that make up ``(tiles, time, 2, h, w)``, with their tile's water ``(h, w)``."""
    for tile, tile_frames in enumerate(frames):
        water = np.ones(frames.shape[-2:], bool) if mask is None else mask[tile]
        for begin, end in frame_blocks([(0, len(tile_frames))], 4 * tile_frames[0].nbytes):
            yield tile_frames[begin:end], water


def measure(frames, mask, centre):
    """Mean and standard deviation over the water of all frames and both components, in float64.

    With ``centre`` False the mean is 0 by decree (magnitude and rotation need zero to stay zero), and the deviation is
    the rms of a component.
    """
    points = 2 * frames.shape[1] * (frames[:, 0, 0].size if mask is None else mask.sum())
    mean = sum(block.sum(dtype=np.float64) for block, _ in tile_blocks(frames, mask)) / points if centre else 0.0
    square = sum(((block - np.float64(mean))[..., water] ** 2).sum() for block, water in tile_blocks(frames, mask))
    std = float(np.sqrt(square / points))
    if not std > 1e-12 * abs(mean):
        raise InputError(f"the flow is still: the training frames have standard deviation {std:g}; give moving frames")
    return float(mean), std


def standardise(frames, mask, mean, std):
    """Replace raw by standardised values in place."""
    for block, water in tile_blocks(frames, mask):
        block[:] = np.where(water, (block - np.float64(mean)) / std, 0)


def orientation(frames, mask):
    """rms of du/dx + dv/dy with v along increasing rows and along decreasing rows, over at most about 100 frames.

    Differences are taken over two cells, between water points, and not divided by the distance. An incompressible flow
    has the smaller value in the right orientation. Returns None where no point has water on all sides.
    """
    sums, points = np.zeros(2), 0
    for block, water in tile_blocks(frames[:, :: -(-frames.shape[1] // 100)], mask):
        inner = water[1:-1, 1:-1] & water[1:-1, 2:] & water[1:-1, :-2] & water[2:, 1:-1] & water[:-2, 1:-1]
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
        "sha256": hashlib.sha256(np.memmap(folder / f"{name}.npy", np.uint8, "r")).hexdigest(),
    }


def write_tables(folder, count, args):
    """Draw one group element per test window for every symmetry; return the names of the files."""
    symmetries = {
        **SYMMETRIES,
        "Rot": Rotation(angle_step=args.angle_step),
        "Scale": Scale(release_factors=args.scale_factors == "release"),
    }
    names = {name: f"test_{name.lower()}.npz" for name in symmetries if name != "None"}
    for name, file in names.items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{args.seed} {name}".encode()))
        np.savez(folder / file, elements=symmetries[name].sample(count, generator).numpy())
    return names


def write_dataset(folder, dataset, source, args, domain=None, centre=False):
    """Write splits, masks, tables and meta.json of a data set.

    Args:
        folder: an empty folder.
        dataset: its name.
        source: Source of train, valid and test.
        args: ``history``, ``horizon``, ``gap``, ``splits``, ``seed``.
        domain: Source of the test on another ocean, or None.
        centre: subtract the mean.

    Returns:
        The summary's lines.
    """
    window = args.history + args.horizon
    plans = plan_splits(source.segments, source.tiles, window, args.gap, args.splits)
    sources = dict.fromkeys(plans, source)
    if domain is not None:
        plans["domain"] = plan_domain(domain.segments, domain.tiles, window, args.splits[2])
        sources["domain"] = domain
    frames = {name: write_frames(folder / f"{name}.npy", sources[name], plan) for name, plan in plans.items()}
    mean, std = measure(frames["train"], source.mask, centre)
    for name in plans:
        standardise(frames[name], sources[name].mask, mean, std)
    divergence = orientation(frames["train"], source.mask)
    splits = {name: describe_split(folder, name, sources[name], plan, frames[name]) for name, plan in plans.items()}
    meta = {
        "schema": SCHEMA,
        "dataset": dataset,
        "source": {
            "train": source.files,
            "train_box": source.box,
            "test": domain.files if domain else [],
            "test_box": domain and domain.box,
        },
        "tile": list(source.size),
        "history": args.history,
        "horizon": args.horizon,
        "gap": args.gap,
        "seed": args.seed,
        "standardisation": "(value - mean) / std over the water of the training frames, 0 on land",
        "mean": mean,
        "std": std,
        "units": source.units,
        "time_step": source.time_step,
        "orientation": divergence and dict(zip(("divergence", "reversed"), divergence, strict=True)),
        "splits": splits,
        "tables": {"test": write_tables(folder, plans["test"].count, args)},
    }
    write_json(folder / "meta.json", meta)
    notes = [*source.notes, *(f"test files: {note}" for note in (domain.notes if domain else ()))]
    if [plans[name].count for name in ("train", "valid", "test")] != list(args.splits):
        notes.append(f"fewer windows than {' + '.join(map(str, args.splits))}: all, cut in these proportions")
    return [*notes, *summary(meta)]


def summary(meta):
    """Lines that say what was prepared."""
    for name, split in meta["splits"].items():
        dates = f", {split['begin']} to {split['end']}" if split["begin"] else ""
        tiles, frames = split["shape"][:2]
        yield f"{name:6} {split['count']:6} windows in {tiles} x {frames} frames{dates}, land {split['land']:.1%}"
    yield f"mean {meta['mean']:.4g}, std {meta['std']:.4g}, units {meta['units'] or 'unknown'} (training frames, water)"
    if meta["orientation"]:
        right, wrong = meta["orientation"].values()
        yield f"rms divergence {right:.3f} with v along increasing rows, {wrong:.3f} along decreasing rows"
        if wrong < right:
            yield "warning: the flow looks upside down; row 0 must be south, or bottom, and v northward, or upward"


# ---------------------------------------------------------------- commands

RBC_FILE = "rbc_data.pt"
SIMULATION = {  # what may be changed of a preset
    "ra": (float, "Rayleigh number"),
    "pr": (float, "Prandtl number"),
    "nz": (int, "rows of the grid"),
    "nx": (int, "columns of the grid"),
    "frames": (int, "frames to store"),
    "interval": (float, "free-fall times between frames"),
}
RBC_ADDRESS = "https://s3-west.nrp-nautilus.io/tfnet/rbc_data.pt"
OCEAN_TRAIN = {  # file: west, east, south, north in degrees
    "atlantic.nc": (-44, -23, 25, 46),
    "indian.nc": (55, 76, -39, -18),
    "north_pacific.nc": (-174, -153, 5, 26),
}
OCEAN_TEST = {"south_pacific_test.nc": (-180, -159, -59, -40)}


def prepare_rbc(args):
    """The command ``rbc``."""
    target = Path(args.data_dir, "rbc")
    raw, notes = simulated(args) if args.simulate else (args.raw, [])
    with new_folder(target) as folder:
        source = array_source(load_array(raw), raw, args.stride, args.tile)
        source.notes += notes
        source.units = "free-fall velocities" if args.simulate else None
        lines = write_dataset(folder, "rbc", source, args, centre=True)
    report(lines, target)


def simulated(args):
    """Simulate convection, or find it already simulated, in the data folder.

    Returns:
        The file of frames, and lines for the summary.
    """
    changes = {name: getattr(args, name) for name in SIMULATION if getattr(args, name) is not None}
    settings = dataclasses.replace(PRESETS[args.simulate], seed=args.seed, **changes)
    device = choose_device(args.device)
    path = Path(args.data_dir, f"rbc_{args.simulate}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    result = simulate(settings, path, device)
    correlation = ", ".join(f"{lag}: {u:.3f} {w:.3f}" for lag, (u, w) in result["correlation"].items())
    return path, [
        f"simulated Ra {settings.ra:g}, Pr {settings.pr:g}, grid {settings.nz} x {settings.nx}: "
        f"Nusselt number {result['nusselt']:.2f}, rms speed {result['rms_speed']:.3f}",
        f"correlation of u and w at lags in frames: {correlation}",
    ]


def prepare_ocean(args):
    """The command ``ocean``."""
    if args.print_download:
        return print_download()
    if netCDF4 is None:
        raise InputError("NetCDF files need the package netCDF4; pip install netCDF4")
    target = Path(args.data_dir, "ocean")
    names = args.u_var and (args.u_var, args.v_var)
    with new_folder(target) as folder:
        source = ocean_source(args.train, args.tile, args.max_land, names, args.train_box)
        domain = None
        if args.test:
            domain = ocean_source(args.test, args.tile, args.max_land, names, args.test_box, "survey of test")
        if domain and domain.time_step not in (source.time_step, None):
            raise InputError(
                f"the test files step by {domain.time_step} s, wanted {source.time_step} s as in the train files"
            )
        lines = write_dataset(folder, "ocean", source, args, domain)
    report(lines, target)


def report(lines, target):
    """Print the summary of what is now in ``target``."""
    size = sum(file.stat().st_size for file in target.iterdir())
    print(*lines, f"wrote {size / 1e6:.1f} MB to {target}", sep="\n")


def prepare_found():
    """Without a command: prepare the release's raw files that lie in the current folder, with the defaults."""
    found = {name for name in (RBC_FILE, *OCEAN_TRAIN, *OCEAN_TEST) if Path(name).is_file()}
    for name in (RBC_FILE, *OCEAN_TRAIN, *OCEAN_TEST):
        source = RBC_ADDRESS if name == RBC_FILE else "python data_prep.py ocean --print_download"
        print(f"{name}: found" if name in found else f"{name}: not here; get it from {source}")
    train, test = sorted(found & set(OCEAN_TRAIN)), sorted(found & set(OCEAN_TEST))
    if RBC_FILE not in found and not train:
        raise InputError(
            f"found no raw file to train on, wanted {RBC_FILE} or {', '.join(OCEAN_TRAIN)} in this folder; "
            "or make convection here: python data_prep.py rbc --simulate small"
        )
    if RBC_FILE in found:
        main(["rbc", "--raw", RBC_FILE])
    if train:
        main(["ocean", "--train", *train, *(["--test", *test] if test else [])])


def print_download():
    """Print the commands that fetch the four boxes of the ocean data."""
    print("# pip install copernicusmarine, then copernicusmarine login (free account), then:")
    for file, (west, east, south, north) in (OCEAN_TRAIN | OCEAN_TEST).items():
        print(
            "copernicusmarine subset --dataset-id cmems_mod_glo_phy_my_0.083deg_P1D-m --variable uo --variable vo"
            f" --minimum-longitude {west} --maximum-longitude {east}"
            f" --minimum-latitude {south} --maximum-latitude {north} --minimum-depth 0 --maximum-depth 1"
            f" --start-datetime 2016-01-01 --end-datetime 2017-12-31 --output-filename {file}"
        )
    print("# This reanalysis replaces the paper's forecast archive (same grid), which no longer reaches back to 2016.")


def whole(least):
    """An argparse type: whole numbers from ``least`` on."""

    def parse(word):
        if not re.fullmatch(r"-?\d+", word) or int(word) < least:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least {least}")
        return int(word)

    return parse


def fraction(word):
    """An argparse type: 0 <= number < 1."""
    with contextlib.suppress(ValueError):
        if 0 <= float(word) < 1:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not in 0 <= fraction < 1")


def degrees(word):
    """An argparse type: an angle in degrees."""
    with contextlib.suppress(ValueError):
        if abs(float(word)) <= 360:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not an angle in degrees, -360 to 360")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", title="commands")

    rbc = commands.add_parser("rbc", help="Rayleigh-Benard convection")
    origin = rbc.add_mutually_exclusive_group(required=True)
    origin.add_argument("--raw", metavar="FILE", help=".pt tensor or .npy array (T, 2, H, W)")
    origin.add_argument("--simulate", choices=PRESETS, help="make the flow here")
    rbc.add_argument("--stride", type=whole(1), help="keep every n-th point (default: 4 of a file, 1 of a simulation)")
    for name, (kind, text) in SIMULATION.items():
        rbc.add_argument(f"--{name}", type=kind, help=f"{text} (with --simulate; default: the preset's)")
    rbc.add_argument(
        "--device", default="", help="where to simulate: cpu, cuda or cuda:N (default: cuda if there is one)"
    )
    rbc.set_defaults(prepare=prepare_rbc, splits=[6000, 2000, 2000])

    ocean = commands.add_parser("ocean", help="surface currents from NetCDF files")
    ocean.add_argument("--train", nargs="+", metavar="FILE", help="NetCDF files of train, valid and test, any order")
    ocean.add_argument("--test", nargs="+", metavar="FILE", help="NetCDF files of another ocean (split domain)")
    for split, text in (("train", "in"), ("test", "in --test or, without it, --train, for split domain")):
        ocean.add_argument(
            f"--{split}_box",
            nargs=4,
            type=degrees,
            metavar=("WEST", "EAST", "SOUTH", "NORTH"),
            help=f"the part of the grid to read in {text}, in degrees (default: all)",
        )
    ocean.add_argument("--max_land", type=fraction, default=0.0, help="drop tiles with more land (default %(default)s)")
    ocean.add_argument("--u_var", help="variable of the eastward current (default: found by its attributes)")
    ocean.add_argument("--v_var", help="variable of the northward current")
    ocean.add_argument("--print_download", action="store_true", help="print how to get the files, and stop")
    ocean.set_defaults(prepare=prepare_ocean, splits=[8000, 2000, 2000])

    for command in (rbc, ocean):
        command.add_argument("--data_dir", default="data", help="where to put the result (default %(default)s)")
        command.add_argument("--tile", type=whole(1), default=64, help="side of a tile (default %(default)s)")
        command.add_argument("--history", type=whole(1), default=30, help="frames to read (default %(default)s)")
        command.add_argument("--horizon", type=whole(1), default=20, help="frames to predict (default %(default)s)")
        command.add_argument(
            "--gap",
            type=whole(0),
            help="window starts left out between splits (default: 0 as in the release, a window of a simulation)",
        )
        command.add_argument(
            "--splits",
            nargs=3,
            type=whole(1),
            metavar=("TRAIN", "VALID", "TEST"),
            help="numbers of windows, or proportions where there are fewer (default: the release's)",
        )
        command.add_argument(
            "--angle_step",
            type=int,
            choices=(90, 45, 30, 15),
            default=90,
            help="of the test set Rot: multiples of this angle in degrees (default %(default)s; exact on the grid)",
        )
        command.add_argument(
            "--scale_factors",
            choices=("grid", "release"),
            default="grid",
            help="of the test set Scale: 1, 1.25, 1.5, 2 or 3, or from 0.5 to 5 by quarters (default %(default)s)",
        )
        command.add_argument(
            "--seed", type=whole(0), default=0, help="of transforms and simulation (default %(default)s)"
        )

    args = parser.parse_args(argv)
    if args.command:
        resolve(args, rbc)
    if args.command and args.scale_factors == "release" and args.tile < 32:
        parser.error(f"--scale_factors release shrinks to a half: --tile must be at least 32, got {args.tile}")
    if args.command == "ocean" and not (args.train or args.print_download):
        ocean.error("--train is needed: the NetCDF files of train, valid and test")
    if args.command == "ocean" and bool(args.u_var) != bool(args.v_var):
        ocean.error("--u_var and --v_var are needed together")
    if args.command == "ocean":
        resolve_boxes(args, ocean)
    return args


def resolve(args, rbc):
    """Fill in the defaults that depend on where the data come from."""
    here = getattr(args, "simulate", None)
    if args.gap is None:
        args.gap = args.history + args.horizon if here else 0
    if args.command == "rbc":
        given = [name for name in SIMULATION if getattr(args, name) is not None]
        if given and not here:
            rbc.error(f"--{given[0]} goes with --simulate")
        args.stride = args.stride or (1 if here else 4)


def resolve_boxes(args, ocean):
    """Refuse boxes that are none; a test box alone is another part of the files to train on."""
    for name in ("train_box", "test_box"):
        box = getattr(args, name)
        if box and (box[0] == box[1] or box[2] >= box[3]):
            ocean.error(f"--{name} is WEST EAST SOUTH NORTH, got {' '.join(f'{degree:g}' for degree in box)}")
    if args.test_box and not args.test:
        if not args.train_box or overlap(args.train_box, args.test_box):
            ocean.error("--test_box has places to train on; give --test files, or a --train_box beside it")
        args.test = args.train


def overlap(a, b):
    """Whether two boxes (west, east, south, north) have a point in common."""
    meet = (b[0] - a[0]) % 360 <= turn(*a[:2]) or (a[0] - b[0]) % 360 <= turn(*b[:2])
    return meet and b[2] <= a[3] and a[2] <= b[3]


def main(argv=None):
    args = parse_args(argv)
    if args.command:
        args.prepare(args)
    else:
        prepare_found()


if __name__ == "__main__":
    sys.exit(exit_code(main))
