"""Where The Well, PDEArena and PDEBench put what in their HDF5 files: trajectories of two-dimensional flows.

All three store axes as (x, y), so that row = x. Component 0 of a vector is along their first axis.

* The Well (polymathic-ai.org/the_well, version 1.2.0): any number of files, each of several trajectories, in folders
  train, valid and test. Axes along which a field does not vary are left out.
* PDEArena (pdearena.github.io): ``NavierStokes2D_*.h5``, smoke in a closed box, in a group train, valid or test.
  Velocities are those on the left and lower faces of the cells; the last faces, which are walls, are left out.
* PDEBench (doi 10.18419/darus-2986): ``ns_incom_inhom_2d_512-*.h5`` and ``2D_CFD_*.hdf5``; no splits.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils import InputError

SPLITS = ("train", "valid", "test")


class Field(NamedTuple):
    """How a file stores a field.

    Attributes:
        kind: "vector" or "scalar".
        datasets: names of the data sets: one for each component, or one whose last axis they are.
        varies: whether the data sets have the axes trajectory, time, x and y.
        staggered: whether components are values on the lower face of each cell along their own axis.
    """

    kind: str
    datasets: tuple[str, ...]
    varies: tuple[bool, bool, bool, bool] = (True, True, True, True)
    staggered: bool = False


@dataclass
class Layout:
    """What a file holds.

    Attributes:
        fields: ``{name: Field}``.
        trajectories, frames: their numbers; all trajectories of a file have as many frames.
        shape: points along x and y.
        split: "train", "valid", "test" or None.
        time, x, y: coordinates along the axes, ``(n,)`` or ``(trajectories, n)``, or None.
        boundaries: what is at the ends of "x" and "y" where it is known: "periodic", "wall", "open".
        parameters: ``{name: [one value per trajectory]}``.
        notes: lines for the summary.
    """

    fields: dict[str, Field]
    trajectories: int
    frames: int
    shape: tuple[int, int]
    split: str | None = None
    time: np.ndarray | None = None
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    boundaries: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, list] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def texts(value):
    """A list of strings from an attribute that holds one or several."""
    return [item.decode() if isinstance(item, bytes) else str(item) for item in np.atleast_1d(value)]


def well(file, path):
    """Layout of a file of The Well."""
    dimensions = file.attrs["n_spatial_dims"]
    grid = texts(file.attrs["grid_type"])[0].lower()
    if dimensions != 2 or grid != "cartesian":
        raise InputError(f"the grid is {grid} with {dimensions} dimensions, wanted cartesian with 2")
    first, second = texts(file["dimensions"].attrs["spatial_dims"])
    time, x, y = (file["dimensions"][name][()] for name in ("time", first, second))
    count, fields = int(file.attrs["n_trajectories"]), {}
    for group, kind in (("t1_fields", "vector"), ("t0_fields", "scalar")):
        for name in texts(file[group].attrs["field_names"]):
            attributes = file[group][name].attrs
            varies = (attributes["sample_varying"], attributes["time_varying"], *attributes["dim_varying"])
            fields[name] = Field(kind, (f"{group}/{name}",), tuple(map(bool, varies)))
    tensors = texts(file["t2_fields"].attrs["field_names"]) if "t2_fields" in file else []
    boundaries = {"x": set(), "y": set()}
    for condition in file.get("boundary_conditions", {}).values():
        for dimension in texts(condition.attrs["associated_dims"]):
            boundaries[{first: "x", second: "y"}[dimension]].add(texts(condition.attrs["bc_type"])[0].lower())
    parameters = {}
    for name in texts(file["scalars"].attrs["field_names"]) if "scalars" in file else []:
        scalar = file["scalars"][name]
        if not scalar.attrs["time_varying"]:
            parameters[name] = np.broadcast_to(np.float64(scalar[()]), count).tolist()
    return Layout(
        fields=fields,
        trajectories=count,
        frames=time.shape[-1],
        shape=(x.shape[-1], y.shape[-1]),
        split=next((name for name in SPLITS if name == Path(path).parent.name), None),
        time=time,
        x=x,
        y=y,
        boundaries={axis: " and ".join(sorted(kinds)) for axis, kinds in boundaries.items() if kinds},
        parameters=parameters,
        notes=[f"tensors are not read: {', '.join(tensors)}"] if tensors else [],
    )


def pdearena(file, path):
    """Layout of a file of PDEArena's Navier-Stokes data."""
    splits = [name for name in SPLITS if name in file]
    if len(splits) != 1:
        raise InputError(f"has the groups {', '.join(file)}, wanted one of {', '.join(SPLITS)}")
    group = file[splits[0]]
    count, frames, *shape = group["vx"].shape

    def axis(step, size):
        """Its steps are right; the coordinates beside them divide the box by one point less than it has."""
        return np.outer(group[step][()], np.arange(size)) if step in group else None

    return Layout(
        fields={
            "velocity": Field("vector", (f"{splits[0]}/vx", f"{splits[0]}/vy"), staggered=True),
            "smoke": Field("scalar", (f"{splits[0]}/u",)),
        },
        trajectories=count,
        frames=frames,
        shape=tuple(shape),
        split=splits[0],
        time=axis("dt", frames),
        x=axis("dx", shape[0]),
        y=axis("dy", shape[1]),
        boundaries={"x": "wall", "y": "wall"},
        parameters={"buoyancy": np.broadcast_to(group["buo_y"][()], count).tolist()} if "buo_y" in group else {},
        notes=["velocities are stored on the faces of cells: the means in their centres are taken"],
    )


def pdebench(file, path):
    """Layout of a two-dimensional flow of PDEBench.

    Incompressible flows bring their generator's settings as YAML, and ``latestIndex``, the last frame that it wrote;
    compressible ones say theirs in their name, where M01 is a Mach number of 0.1 (``2D_KH_M01_dk1.yaml``).
    """
    time = next((file[name][()] for name in ("t", "t-coordinate") if name in file), None)
    if "velocity" in file:
        count, frames, *shape = file["velocity"].shape[:4]
        fields = {
            "velocity": Field("vector", ("velocity",)),
            "particles": Field("scalar", ("particles",)),
            "force": Field("vector", ("force",), (True, False, True, True)),
        }
    elif "Vx" in file:
        count, frames, *shape = file["Vx"].shape
        fields = {"velocity": Field("vector", ("Vx", "Vy"))}
        fields |= {name: Field("scalar", (name,)) for name in ("density", "pressure")}
    else:
        raise InputError(f"has {', '.join(file)}, wanted velocity, or Vx and Vy")
    written = file.attrs.get("latestIndex", frames - 1) + 1
    if written < frames:
        raise InputError(f"only {written} of its {frames} frames were ever written (latestIndex); fetch it again")
    x, y = (file[name][()] if name in file else None for name in ("x-coordinate", "y-coordinate"))
    name, settings = Path(path).stem, texts(file.attrs.get("config", ""))[0]
    said = re.findall(r"_(M|Eta|Zeta|Re)(\d[\d.]*(?:e[+-]?\d+)?)", name)
    said += re.findall(r"^(NU): (\S+)", settings, re.MULTILINE)
    ends = [
        ("_periodic_", name, "periodic"),
        ("_trans_", name, "open"),
        ("velocity_extrapolation: ZERO", settings, "wall"),
    ]
    kind = next((kind for sign, text, kind in ends if sign in text), None)
    return Layout(
        fields={name: stored for name, stored in fields.items() if set(stored.datasets) <= set(file)},
        trajectories=count,
        frames=frames,
        shape=tuple(shape),
        time=time,
        x=x,
        y=y,
        boundaries={"x": kind, "y": kind} if kind else {},
        parameters={key: count * [float(re.sub(r"^0(?=\d)", "0.", value))] for key, value in said},
    )


LAYOUTS = {"well": well, "pdearena": pdearena, "pdebench": pdebench}
