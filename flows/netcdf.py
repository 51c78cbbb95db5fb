"""NetCDF files: opening, attributes, coordinates, dates, values."""

import contextlib
import itertools
import re

import numpy as np

from flows.arguments import degrees_east
from utils import InputError

try:
    import netCDF4
except ImportError:
    netCDF4 = None  # only the ocean needs it

COORDINATES = {  # names that need no attribute; the dimension they stand for
    **{name: name for name in ("time", "depth", "latitude", "longitude")},
    **{"t": "time", "time_counter": "time"},
    **dict.fromkeys(("z", "lev", "level", "z_t", "st_ocean", "deptht", "depthu", "depthv"), "depth"),
    **{"lat": "latitude", "nav_lat": "latitude", "lon": "longitude", "nav_lon": "longitude"},
}
AXES = {"T": "time", "Z": "depth", "Y": "latitude", "X": "longitude"}  # the CF attribute `axis`
EPOCH = "seconds since 1970-01-01"
CALENDARS = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}  # two names of one
GREGORIAN = -12_219_292_800  # 1582-10-15 in seconds since 1970; from then on standard is proleptic_gregorian


@contextlib.contextmanager
def opened(path):
    """Open a NetCDF file with automatic masking off; every error names the file and is an InputError."""
    if netCDF4 is None:
        raise InputError("NetCDF files need the package netCDF4; pip install netCDF4")
    try:
        with netCDF4.Dataset(path) as dataset:
            dataset.set_auto_maskandscale(False)
            yield dataset
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # on a file that it does not understand the library raises almost anything
        raise InputError(f"{path} is no readable NetCDF file: {getattr(error, 'strerror', None) or error}") from error


def text(variable, *names):
    """The first of the attributes ``names`` (lower case) that a variable has in any case of letters, or ""."""
    attributes = {name.lower(): name for name in variable.ncattrs()}
    return next((str(variable.getncattr(attributes[name])).strip() for name in names if name in attributes), "")


def units_of(variable):
    return text(variable, "units", "unit")  # some files misspell it


# ---------------------------------------------------------------- coordinates


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
    # an X or Y axis in metres, or with a standard name of its own, is that of a projection; without units, an index
    if axis in ("time", "depth") or (axis and not standard and units in ("degree", "degrees")):
        return axis
    if text(variable, "positive").lower() in ("up", "down"):
        return "depth"
    return COORDINATES.get(variable.name.lower())


def locate(dataset, variable):
    """Which axis of a variable is what: ``{"latitude": (axis, coordinate variable), ...}``."""
    axes, unknown = {}, []
    for axis, dimension in enumerate(variable.dimensions):
        candidates = [v for v in dataset.variables.values() if v.dimensions == (dimension,) and role(v)]
        candidates.sort(key=lambda v: v.name != dimension)
        kind = role(candidates[0]) if candidates else None
        if kind and kind not in axes:
            axes[kind] = axis, candidates[0]
        elif variable.shape[axis] != 1:
            unknown.append(f"dimension {dimension} of {variable.name} has {variable.shape[axis]} entries")
    for kind, units in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
        if kind not in axes:
            raise InputError(
                f"{variable.name} has no {kind}: none of its dimensions ({', '.join(variable.dimensions)}) has a 1-D "
                f"coordinate variable in {units}; add it, or interpolate to such a grid first"
            )
    if unknown:
        raise InputError(
            f"{unknown[0]} and no coordinate variable of its own that makes it time or depth; give it one, such as "
            "times in 'days since 2000-01-01', or choose one entry"
        )
    return axes


def grid_names(axes):
    """Names of the coordinate variables that u and v must share."""
    return {kind: coordinate.name for kind, (_, coordinate) in axes.items() if kind != "depth"}


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


def between(low, high, values, order):
    """The ascending ``values`` from ``low`` to ``high``; None is no limit.

    Degrees of longitude count modulo 360, which does no harm to latitude. Of a grid more than once round the globe the
    first turn is taken; the edges of one that is round it are no edges.

    Returns:
        The values, and the slices of the file that hold them, in the order of the file: two where they lie across the
        edges of a grid round the globe.

    Raises:
        InputError: nothing lies there, or it is in two pieces at the edges of the grid.
    """
    size, step = len(values), np.ptp(values) / max(len(values) - 1, 1)
    values = values[: np.searchsorted(values, values[0] + 360 - step / 2)]
    inside = np.ones(len(values), bool) if low is None else (values - low) % 360 <= degrees_east(low, high)
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    pieces = list(zip(edges[::2], edges[1::2], strict=True))
    if len(pieces) == 2 and values[0] + 360 - values[-1] < 1.5 * step:
        pieces.reverse()
        values = np.where(np.arange(len(values)) < pieces[0][0], values, values - 360)
    elif len(pieces) != 1:
        parts = " and ".join(f"{values[begin]:g} to {values[end - 1]:g}" for begin, end in pieces) or "nothing"
        grid = f"{values[0]:g} to {values[-1]:g}"
        raise InputError(f"{low:g} to {high:g} is not one piece of the grid, which is {grid} and has {parts} of it")
    values = np.concatenate([values[begin:end] for begin, end in pieces])
    if order.step > 0:
        return values, [slice(begin, end) for begin, end in pieces]
    return values, [slice(size - end, size - begin) for begin, end in reversed(pieces)]


def scalar_time(dataset):
    """The coordinate that dates a file whose currents have no time dimension."""
    for variable in dataset.variables.values():
        if variable.size == 1 and role(variable) == "time":
            return variable
    raise InputError("the currents have no time axis and the file no time; windows need dated frames")


def read_times(coordinate):
    """Whole seconds since 1970 in the calendar of the file (int64), and that calendar, by one name for each."""
    values = np.atleast_1d(decode(coordinate)).ravel()
    calendar = text(coordinate, "calendar").lower() or "standard"
    calendar = CALENDARS.get(calendar, calendar)
    if not values.size:
        raise InputError(f"{coordinate.name} is empty: the file holds no frames")
    if not np.isfinite(values).all():
        raise InputError(f"{coordinate.name} has missing values; mend the file")
    try:
        dates = netCDF4.num2date(values, units_of(coordinate), calendar)
        times = np.rint(netCDF4.date2num(dates, EPOCH, calendar)).astype(np.int64)
    except (ValueError, OverflowError, TypeError) as error:  # cftime's parser raises them all
        raise InputError(f"{coordinate.name} in {units_of(coordinate)!r} is no date: {error}") from error
    return times, "standard" if calendar == "proleptic_gregorian" and times.min() >= GREGORIAN else calendar


def iso_dates(times, calendar):
    """ISO dates of seconds since 1970, without the time of day at midnight."""
    return [date.isoformat().removesuffix("T00:00:00") for date in netCDF4.num2date(times, EPOCH, calendar)]


def unbroken(times):
    """The usual time step (None of a single frame), and the frame ranges in which every step is usual."""
    if len(times) < 2:
        return None, [(0, len(times))]
    steps = np.diff(times)
    values, counts = np.unique(steps, return_counts=True)
    usual = values[counts.argmax()]
    breaks = np.flatnonzero(np.abs(steps - usual) > 0.1 * usual) + 1
    edges = [0, *breaks.tolist(), len(times)]
    return usual.item(), list(itertools.pairwise(edges))


# ---------------------------------------------------------------- values


def decode(variable):
    """All values of a variable, see :func:`unpack`."""
    return unpack(variable, np.asarray(variable[...]))


def unpack(variable, raw):
    """Values in float64 from some that ``variable`` stores, NaN where missing.

    Missing is what equals ``_FillValue``, ``missing_value`` or, without the former, NetCDF's default fill, all compared
    before unpacking. ``valid_min`` and ``valid_max`` are not used: half the packed files state them unpacked.
    """
    if not isinstance(variable.dtype, np.dtype) or variable.dtype.kind not in "fiu":
        raise InputError(f"{variable.name} holds {variable.dtype}, wanted numbers")
    missing = np.isin(raw, fill_values(variable))
    if is_unsigned(variable):
        raw = raw.view(raw.dtype.str.replace("i", "u"))
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float64) * number(variable, "scale_factor", 1) + number(variable, "add_offset", 0)
    return np.where(missing, np.nan, values)


def is_unsigned(variable):
    """Whether integers that are stored as signed, since NetCDF 3 has no others, are meant to be unsigned."""
    return variable.dtype.kind == "i" and text(variable, "_unsigned").lower() == "true"


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
        fills.append([netCDF4.default_fillvals[dtype.str[1:]]] if dtype.itemsize > 1 else [])  # bytes have no default
    fills = np.concatenate(fills)
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        if is_unsigned(variable):
            fills = np.where(fills > limits.max, fills - 2.0 ** (8 * dtype.itemsize), fills)
        fills = fills[(fills >= limits.min) & (fills <= limits.max)]
    return fills.astype(dtype)
