"""Which variables of a NetCDF file are the surface currents, where they lie, and reading them."""

import itertools
import re
from dataclasses import dataclass

import numpy as np

from flows.classic import refuse_damaged_classic
from flows.geostrophy import geostrophic, refuse_equator
from flows.netcdf import (
    ascending,
    between,
    decode,
    grid_names,
    iso_dates,
    locate,
    opened,
    read_times,
    role,
    scalar_time,
    text,
    units_of,
    unpack,
)
from flows.source import existing
from utils import InputError

EASTWARD = re.compile(r"(surface_)?(geostrophic_)?eastward_sea_water_velocity")  # CF standard names
PAIRS = (("uo", "vo"), ("utotal", "vtotal"), ("ugos", "vgos"), ("water_u", "water_v"), ("u", "v"))
SEA_LEVELS = ("adt", "zos", "ssh", "sla")  # where there are no currents; those above the geoid before the anomaly
WIND = re.compile(r"(^|_)wind(?!_driven)|(^|_)[uv](10(m|n)?|wnd|as)(_|$)")
ALONG_GRID = re.compile(
    r"(^|_)([xyij]_((sea|water|surface|ocean)_)*(velocity|current|component|axis|direction)|velocity_[xyij](_|$)|grid_)"
    r"|along_(\w+_)?grid"
)
REASONS = (  # what a name may say, and what its variable then is
    (WIND, "is a wind, wanted a current of the sea"),
    (re.compile(r"(^|_)ice(_|$)"), "is a drift of sea ice, wanted a current of the sea"),
    (re.compile(r"^(?!.*(total|includ|eulerian)).*stokes"), "is the Stokes drift of waves, wanted the current"),
    (
        re.compile(r"due_to_|(^|(?<!non)_)(tidal|tides?)_(current|velocity)"),
        "is a part of the current, wanted all of it",
    ),
    (re.compile(r"(^|_)(standard_error|error|uncertainty|standard_deviation)(_|$)"), "is an error, wanted the current"),
    (re.compile(r"(^|_)(flux|transport|stress)(_|$)"), "is a flux, wanted a velocity"),
    (ALONG_GRID, "runs along the grid's x or y; turn the components east and north first"),
)
MOTION = re.compile(rf"veloc|current|drift|{WIND.pattern}")  # names of what may be meant for a current
LISTED = 10  # variables in a message
SECONDS = r"(s|secs?|seconds?)"
METRES = r"(?P<centi>c|centi)?(m|met(er|re)s?)"
SPEED_UNITS = re.compile(rf"{METRES}\s*((/|per)\s*{SECONDS}|[.*·]?\s*{SECONDS}(\^|\*\*)?-1)")
FASTEST = 20.0  # m/s; no ocean current comes near
KEPT_BYTES = 2**28  # of a component's chunks in memory at a time


@dataclass(frozen=True)
class Component:
    """How a file stores u, v or a sea level.

    Attributes:
        name: of the variable.
        pieces: indices that pick the surface, of one part or of two that join along the columns.
        time_axis: the axis that is sliced, None if there is none.
        order: brings what is left to (time, row, column).
        layer: frames that share their chunks, to be read at once as far as ``KEPT_BYTES`` allow.
        unit: number of its units in 1 m/s, or 1 m.
    """

    name: str
    pieces: tuple[tuple, ...]
    time_axis: int | None
    order: tuple
    layer: int
    unit: float


@dataclass(frozen=True)
class OceanFile:
    """What is needed to read currents from a file.

    Attributes:
        path: of the file.
        components: u and v, or the sea level whose slope they follow from.
        latitude, longitude: of the currents' rows, running north, and columns, running east; in degrees.
        flip: the slices that make what is stored run so.
        times: of the frames, in seconds since 1970.
        calendar: of the times.
        grid: latitude and longitude of the sea level, which has points around the currents'; else None.
    """

    path: str
    components: tuple[Component, ...]
    latitude: np.ndarray
    longitude: np.ndarray
    flip: tuple[slice, slice]
    times: np.ndarray
    calendar: str
    grid: tuple[np.ndarray, np.ndarray] | None

    @property
    def sea_level(self):
        """Name of the sea level that the currents follow from, or None."""
        return self.grid and self.components[0].name


def describe_file(path, names=None, box=None):
    """Find out how a file stores surface currents.

    Args:
        path: a NetCDF file on a latitude-longitude grid.
        names: the variables of u and v; None to choose by CF standard name, then by known names.
        box: west, east, south and north of the part to read, in degrees; None for the whole grid.

    Returns:
        OceanFile

    Raises:
        InputError: the file is broken, or holds no eastward and northward current on one such grid, nor a sea level, or
            not in the box.
    """
    west, east, south, north = box or (None,) * 4
    refuse_damaged_classic(existing(path))
    with opened(path) as dataset:
        refuse_curvilinear(dataset)
        variables = [dataset[name] for name in choose_variables(dataset, names)]
        axes, *of_v = (locate(dataset, variable) for variable in variables)
        if of_v and grid_names(axes) != grid_names(of_v[0]):
            both = " and ".join(variable.name for variable in variables)
            raise InputError(f"{both} lie on different points (a C-grid); interpolate them first")
        latitude, rows = ascending(axes["latitude"][1])
        longitude, columns = ascending(axes["longitude"][1])
        latitude, parts_of_rows = between(south, north, latitude, rows)
        longitude, parts_of_columns = between(west, east, longitude, columns)
        times, calendar = read_times(axes["time"][1] if "time" in axes else scalar_time(dataset))
        parts = [{"time": slice(None), "latitude": parts_of_rows[0], "longitude": part} for part in parts_of_columns]
        points = len(latitude) * len(longitude)
        units = SPEED_UNITS if of_v else re.compile(METRES)
        components = tuple(
            component(variable, of_variable, parts, points, units)
            for variable, of_variable in zip(variables, (axes, *of_v), strict=True)
        )
        grid = None
        if not of_v:
            grid, latitude, longitude = (latitude, longitude), latitude[1:-1], longitude[1:-1]
            refuse_equator(latitude)
    return OceanFile(str(path), components, latitude, longitude, (rows, columns), times, calendar, grid)


# ---------------------------------------------------------------- what a file says of itself


def refuse_curvilinear(dataset):
    """Refuse a file whose only latitudes are 2-D."""
    found = {v.ndim: v.name for v in dataset.variables.values() if role(v) == "latitude"}
    if 2 in found and 1 not in found:
        raise InputError(f"the grid is curvilinear ({found[2]} is 2-D); interpolate it to latitude and longitude first")


def list_variables(dataset):
    """The first variables by name, how many more there are, and what is not looked at."""
    names = [name for name, variable in dataset.variables.items() if variable.ndim]
    listing = ", ".join(names[:LISTED]) or "no variables"
    if len(names) > LISTED:
        listing += f" and {len(names) - LISTED} more"
    if dataset.groups:
        groups = ", ".join(list(dataset.groups)[:LISTED])
        listing += f"; groups ({groups}) are not read, bring them to the top: ncks -G : FILE flat.nc"
    return listing


def choose_variables(dataset, names=None):
    """Names of the eastward and the northward current: the user's, else by standard name, else by known names.

    Where there is none of these, the name of a sea level.
    """
    variables = {name: v for name, v in dataset.variables.items() if v.ndim}
    listing = list_variables(dataset)
    standard = {name: text(v, "standard_name").lower() for name, v in variables.items() if is_current(v)}
    by_standard_name = [
        (u, v)
        for u, v in itertools.permutations(standard, 2)
        if EASTWARD.fullmatch(standard[u]) and standard[v] == standard[u].replace("eastward", "northward")
    ]
    by_name = [pair for pair in known_pairs(variables) if set(pair) <= set(variables)]
    pairs = [tuple(names)] if names else by_standard_name or by_name
    if len(pairs) > 1:
        raise InputError(f"several currents ({listing}); choose one with --u_var and --v_var")
    if not pairs:
        return [sea_level(variables, listing)]
    for name in pairs[0]:
        if name not in variables:
            raise InputError(f"no variable {name}; there are {listing}")
        if why_not(variables[name]):
            raise InputError(why_not(variables[name]))
    for name, wanted, other in zip(pairs[0], ("eastward", "northward"), ("northward", "eastward"), strict=True):
        label = text(variables[name], "standard_name", "long_name").lower()
        if other in label and wanted not in label:
            raise InputError(f"{name} is {label!r}, wanted the {wanted} component; exchange --u_var and --v_var")
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


def labels_of(variable):
    """What names a variable, as words in lower case with underscores between them."""
    labels = (text(variable, "standard_name"), text(variable, "long_name"), variable.name)
    return [re.sub(r"\W+", "_", label.lower()) for label in labels]


def why_not(variable):
    """Why a variable is no eastward or northward current, as far as its names tell; else None."""
    if is_current(variable):
        return None
    labels = labels_of(variable)
    return next((f"{variable.name} {why}" for pattern, why in REASONS if any(map(pattern.search, labels))), None)


def sea_level(variables, listing):
    """Name of the sea level of a file without a pair of currents.

    Raises:
        InputError: there is none, or half a pair; it says best why there is no pair.
    """
    for pair in known_pairs(variables):
        half = [name for name in pair if name in variables]
        if half:
            missing = next(name for name in pair if name not in variables)
            raise InputError(f"{half[0]} without {missing}; both components must be in one file")
    for variable in variables.values():
        if is_current(variable):
            raise InputError(f"{variable.name} without its other component; both must be in one file")
    actual = {name.lower(): name for name in variables}
    if actual.keys() & set(SEA_LEVELS):
        return next(actual[name] for name in SEA_LEVELS if name in actual)
    for variable in variables.values():
        if why_not(variable) and any(map(MOTION.search, labels_of(variable))):
            raise InputError(why_not(variable))
    raise InputError(f"no eastward and northward current by its names; choose --u_var and --v_var from {listing}")


def component(variable, axes, parts, points, units=SPEED_UNITS):
    """How ``variable`` stores its component.

    Args:
        variable: of the file.
        axes: what ``locate`` found.
        parts: one or two of ``{"time": slice, "latitude": slice, "longitude": slice}``.
        points: of the grid in all parts.
        units: a pattern of its units.
    """
    surface = [0] * variable.ndim
    if "depth" in axes:
        axis, depth = axes["depth"]
        surface[axis] = int(np.argmin(np.nan_to_num(np.abs(decode(depth)), nan=np.inf)))
    pieces = []
    for part in parts:
        index = list(surface)
        for kind in part.keys() & axes.keys():
            index[axes[kind][0]] = part[kind]
        pieces.append(tuple(index))
    kept = [axes[kind][0] for kind in ("time", "latitude", "longitude") if kind in axes]
    order = tuple(sorted(kept).index(axis) for axis in kept)
    time_axis, layer = axes["time"][0] if "time" in axes else None, 1
    chunks = variable.chunking()
    if time_axis is not None and isinstance(chunks, list):  # else None, or "contiguous"
        frame_bytes = points * max(1, np.dtype(variable.dtype).itemsize)
        layer = max(1, min(chunks[time_axis], KEPT_BYTES // frame_bytes))
    return Component(variable.name, tuple(pieces), time_axis, order, layer, unit_of(variable, units))


def unit_of(variable, pattern):
    """How many of a variable's units are 1 m/s by ``SPEED_UNITS``, 1 m by ``METRES``."""
    units = units_of(variable)
    match = pattern.fullmatch(units.lower())
    if units and not match:
        wanted = "m/s or cm/s" if pattern is SPEED_UNITS else "m or cm"
        raise InputError(f"{variable.name} is in {units!r}, wanted {wanted}; convert it first")
    return 100.0 if match and match["centi"] else 1.0


# ---------------------------------------------------------------- reading


def read_file(file, begin, end, kept):
    """Currents of the frames ``[begin, end)`` of an OceanFile.

    Args:
        file: the OceanFile.
        begin, end: frames.
        kept: a dict that holds the chunks read last, from call to call.

    Returns:
        ``(end - begin, 2, H, W)`` float64 in m/s, NaN where u or v is missing, rows running north, columns east.

    Raises:
        InputError: the file cannot be read, or a speed is none of the sea's.
    """
    with opened(file.path) as dataset:
        block = np.stack([read_component(dataset, file.path, part, begin, end, kept) for part in file.components], 1)
        block = block[(..., *file.flip)]
        if file.grid:
            block = geostrophic(block[:, 0], *file.grid)
        speed = np.hypot(block[:, 0], block[:, 1])
        if np.any(speed > FASTEST):
            frame = begin + int(np.argmax((speed > FASTEST).any((1, 2))))
            raise InputError(
                f"a speed of {np.nanmax(speed):g} m/s on {iso_dates(file.times[[frame]], file.calendar)[0]}, wanted at "
                f"most {FASTEST:g}; is it a fill value that is not declared, or another unit?"
            )
    return np.where(np.isnan(speed)[:, None], np.nan, block)


def read_component(dataset, path, part, begin, end, kept):
    """One component of some frames, ``(end - begin, rows, columns)`` in m/s, rows and columns as in the file."""
    variable, layers = dataset[part.name], []
    if part.layer == 1:
        layers.append(read_stored(variable, part, begin, end))
    else:
        for first in range(begin - begin % part.layer, end, part.layer):
            place = path, first
            if part.name not in kept or kept[part.name][0] != place:
                kept[part.name] = place, read_stored(variable, part, first, first + part.layer)
            layers.append(kept[part.name][1][max(begin - first, 0) : end - first])
    return unpack(variable, np.concatenate(layers)) / part.unit


def read_stored(variable, part, begin, end):
    """What a variable stores of the frames ``[begin, end)``: ``(time, rows, columns)``, as packed as in the file."""
    pieces = []
    for piece in part.pieces:
        index = tuple(slice(begin, end) if axis == part.time_axis else entry for axis, entry in enumerate(piece))
        stored = np.asarray(variable[index]).transpose(part.order)
        pieces.append(stored if part.time_axis is not None else stored[None])
    return np.concatenate(pieces, -1)
