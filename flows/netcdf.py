"""NetCDF files: opening, attributes, coordinates, dates, values."""

import contextlib
import re

import numpy as np
import scipy.io

from utils import InputError

try:
    import netCDF4
except ImportError:
    netCDF4 = None  # only the ocean needs it

COORDINATES = {  # names that need no attribute; the dimension they stand for
    **{name: name for name in ("time", "depth", "latitude", "longitude")},
    **{"t": "time", "time_counter": "time", "lev": "depth", "level": "depth", "z": "depth"},
    **{"lat": "latitude", "nav_lat": "latitude", "lon": "longitude", "nav_lon": "longitude"},
}
AXES = {"T": "time", "Z": "depth", "Y": "latitude", "X": "longitude"}  # the CF attribute `axis`
EPOCH = "seconds since 1970-01-01"


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
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable NetCDF file: {getattr(error, 'strerror', None) or error}") from error


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
    # an X or Y axis in metres, or with a standard name of its own, is that of a projection
    if axis in ("time", "depth") or (axis and not standard and units in ("", "degree", "degrees")):
        return axis
    return COORDINATES.get(variable.name.lower())


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


def iso_dates(times, calendar):
    """ISO dates of seconds since 1970, without the time of day at midnight."""
    return [date.isoformat().removesuffix("T00:00:00") for date in netCDF4.num2date(times, EPOCH, calendar)]


# ---------------------------------------------------------------- values


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
