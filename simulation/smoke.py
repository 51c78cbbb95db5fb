"""Smoke plumes in a closed square box: the simulated flows of the second paper, made here instead of downloaded.

Buoyant smoke flows in through a disc and drives a flow without viscosity (Wang, Walters and Yu, Approximately
equivariant networks for imperfectly symmetric dynamics, ICML 2022). One step:

    smoke <- MacCormack(smoke, w, dt) + 1 inside the disc           dt = 1
    w     <- semi-Lagrangian(w, w, velocity_dt) + b smoke           velocity_dt = 1/2 or 1, as the paper's code has it
    w     <- w - grad p  with  div w = 0,  no flow through the walls

Space: staggered grid of square cells (Harlow and Welch, Phys. Fluids 8, 2182, 1965), u on left faces, v on lower faces,
smoke in centres; row = y upwards, column = x. MacCormack's scheme with the limiter of Selle et al. (J. Sci. Comput. 35,
350, 2008). All in float64, any number of plumes at a time, the same to the last bit on every x86 CPU.

Where the numbers come from: plumes and data sets from the authors' notebook (data_gen.ipynb of
Rose-STL-Lab/Approximately-Equivariant-Nets), splits from its run_model.py; the numerics are those of PhiFlow 2.0.1
(github.com/tum-pbs/PhiFlow), which the notebook calls, but for the pressure, which is exact here. If PhiFlow solves for
it to 1e-11, its flows are these to 1e-9 over 45 steps; with the notebook's 1e-5 they are to 1e-5 over 20 steps and to a
percent over 60, then chaos parts them. As in PhiFlow smoke is not conserved: where the flow leaves a wall or spreads,
the scheme makes some (a tenth is lost in 20 steps, a half gained in 100).

How much each symmetry is broken, a dial, is an argument of its data set. There is none for uniform motion: walls stop
every wind, and a uniform force in a closed box moves nothing, for the pressure balances it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from models.rotation import Rotation
from simulation.portable import Poisson, between
from utils import InputError, progress

BOX = 64  # side of the box, in units of length: the paper's cells
SIZES = {"paper": (64, 1), "small": (32, 3)}  # cells to a side of the frames; every how many-th plume is simulated
LEVELS = tuple((1, 1 + step, 1 + 2 * step, 1 + 3 * step) for step in range(10))  # plumes of equivariance_test
LEVEL_FRAMES = slice(10, 49)  # the stored frames that the published errors are means over


@dataclass(frozen=True)
class Plume:
    """One simulation. The box is 64 units of length wide; times are in steps, ``dt`` apart.

    Attributes:
        center: x and y of the inflow, in units.
        radius: of the inflow, in units; the cells whose centres are inside gain 1 of smoke per step.
        buoyancy: (bx, by), the velocity in units per step that smoke of density 1 gains in a step.
        right: the buoyancy where x > 32, if it is another than where x < 32.
        at_walls: the share of the buoyancy's x component in the cells along the left and right wall, and of its y
            component in those along the lower and upper one.
        dt, velocity_dt: how many steps' way smoke and velocity are carried.
        resolution: cells to a unit. The box has int(64 resolution)^2 cells; where 64 resolution is no whole number, its
            right and upper walls are nearer by part of a cell, as the release has it.

    Raises:
        InputError: a value is out of range.
    """

    center: tuple[float, float] = (32, 5)
    radius: float = 5
    buoyancy: tuple[float, float] = (0, 0.1)
    right: tuple[float, float] | None = None
    at_walls: float = 1
    dt: float = 1
    velocity_dt: float = 0.5
    resolution: float = 1

    def __post_init__(self):
        for name in ("radius", "dt", "velocity_dt", "resolution"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a positive number")
        if not 0 <= self.at_walls < math.inf:
            raise InputError(f"at_walls is {self.at_walls}; it must be 0 or more")
        for name in ("center", "buoyancy", "right"):
            value = getattr(self, name)
            if not (name == "right" and value is None) and not (len(value) == 2 and all(map(math.isfinite, value))):
                raise InputError(f"{name} is {value}; it must be two finite numbers")
        if self.cells < 4:
            raise InputError(f"resolution {self.resolution} makes a box of {self.cells} cells; it takes 4 or more")

    @property
    def cells(self):
        """Cells to a side of the box."""
        return int(BOX * self.resolution)

    def turned(self, turns):
        """The same plume in a box turned by ``turns`` times 90 degrees anticlockwise; one buoyancy only."""
        if turns % 4 == 0:
            return self
        if self.right is not None:
            raise InputError("a plume with another buoyancy on the right cannot be turned")
        (x, y), (bx, by) = self.center, self.buoyancy
        return replace(self, center=(BOX - y, x), buoyancy=(-by, bx)).turned(turns - 1)


class Smoke:
    """Plumes of one resolution, stepped together. Start: no smoke, no flow.

    Args:
        plumes: :class:`Plume`, n of them.
        device: where they are computed.

    Attributes: float64, S cells to a side; velocities in cells per step.
        smoke: ``(n, S, S)``, in cell centres.
        u: ``(n, S, S + 1)``, on left faces; the first and last column are walls, 0.
        v: ``(n, S + 1, S)``, on lower faces; the first and last row are walls, 0.
        inflow: ``(n, S, S)``, what each cell gains of smoke per step.
        buoyancy: ``(n, 2, S, S)``, in cell centres, in cells per step; may be set to any field.

    Raises:
        InputError: the resolutions differ, or an inflow covers no cell.
    """

    def __init__(self, plumes, device="cpu"):
        resolutions = {plume.resolution for plume in plumes}
        if len(resolutions) != 1:
            raise InputError(f"plumes of resolutions {sorted(resolutions)} cannot be stepped together; wanted one")
        (resolution,), n, size = resolutions, len(plumes), plumes[0].cells
        options = {"dtype": torch.float64, "device": device}

        def values(name):
            return torch.tensor([getattr(plume, name) for plume in plumes], **options).view(n, -1, 1, 1)

        self.dt, self.velocity_dt = values("dt")[:, 0], values("velocity_dt")[:, 0]  # (n, 1, 1)
        self.column = torch.arange(size + 1, **options)
        self.row = self.column[:, None]

        center, radius = values("center") * resolution, values("radius")[:, 0] * resolution
        distance2 = (self.column[:-1] + 0.5 - center[:, 0]) ** 2 + (self.row[:-1] + 0.5 - center[:, 1]) ** 2
        self.inflow = (distance2 <= radius**2).double()
        if not self.inflow.any((1, 2)).all():
            raise InputError("an inflow covers no cell: its center is outside the box or its radius too small")

        left = values("buoyancy")
        right = torch.tensor([plume.right or plume.buoyancy for plume in plumes], **options).view(n, 2, 1, 1)
        side = (self.column[:-1] + 0.5 - BOX / 2 * resolution).sign()  # -1, 1; 0 in the middle of an odd number
        self.buoyancy = resolution * torch.lerp(left, right, (side + 1) / 2).expand(n, 2, size, size).clone()
        for along in self.buoyancy[:, 0].mT, self.buoyancy[:, 1]:
            along[:, [0, -1]] *= values("at_walls")[:, 0]

        self.smoke = torch.zeros(n, size, size, **options)
        self.u, self.v = torch.zeros(n, size, size + 1, **options), torch.zeros(n, size + 1, size, **options)
        self.poisson = Poisson(size, size, periodic=False, **options)

    def step(self):
        """One step of all plumes."""
        u, v = between(self.u, 2), between(self.v, 1)  # in cell centres
        self.smoke = self._carried_smoke(u * self.dt, v * self.dt) + self.inflow

        carried_u = look_up(
            self.u,
            self.row[:-1] - self.velocity_dt * between(v, 2),
            self.column[1:-1] - self.velocity_dt * self.u[:, :, 1:-1],
            "zeros",
        )
        carried_v = look_up(
            self.v,
            self.row[1:-1] - self.velocity_dt * self.v[:, 1:-1],
            self.column[:-1] - self.velocity_dt * between(u, 1),
            "zeros",
        )
        force_x, force_y = (self.buoyancy * self.smoke[:, None]).unbind(1)
        self.u[:, :, 1:-1] = carried_u + between(force_x, 2)
        self.v[:, 1:-1] = carried_v + between(force_y, 1)
        self._project()

    def _carried_smoke(self, way_x, way_y):
        """The smoke one step on, ``(n, S, S)``, if it is carried by ``way_x, way_y`` (in cells, at the centres).

        Half of the error of going back and forth is taken off, within the range of the four cells around the point
        that the smoke came from; of a point beyond the outermost centres only the cells on that edge count.
        """
        row, column = self.row[:-1] - way_y, self.column[:-1] - way_x
        carried = look_up(self.smoke, row, column, "border")
        returned = look_up(carried, self.row[:-1] + way_y, self.column[:-1] + way_x, "border")
        corrected = carried + (self.smoke - returned) / 2

        size = self.smoke.shape[-1]
        padded = F.pad(self.smoke[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        corner = (row.floor().clamp(-1, size - 1) + 1) * (size + 1) + column.floor().clamp(-1, size - 1) + 1
        corner = corner.long().flatten(1)

        def extreme(of_two):
            of_rows = of_two(padded[:, :-1], padded[:, 1:])
            of_four = of_two(of_rows[:, :, :-1], of_rows[:, :, 1:])
            return of_four.flatten(1).gather(1, corner).view_as(row)

        return corrected.maximum(extreme(torch.minimum)).minimum(extreme(torch.maximum))

    def _project(self):
        """Subtract the pressure gradient that leaves no divergence."""
        pressure = self.poisson.pressure(self.divergence())
        self.u[:, :, 1:-1] -= pressure.diff(dim=2)
        self.v[:, 1:-1] -= pressure.diff(dim=1)

    def divergence(self):
        """Outflow of each cell, ``(n, S, S)``, per step."""
        return self.u.diff(dim=2) + self.v.diff(dim=1)

    def velocity(self, faces=False):
        """u and v, ``(n, 2, S, S)``, in cells per step: the means in cell centres.

        Args:
            faces: instead of the means those on the left and lower face of each cell, as the release stores them.
        """
        if faces:
            return torch.stack((self.u[:, :, :-1], self.v[:, :-1]), 1)
        return torch.stack((between(self.u, 2), between(self.v, 1)), 1)


def look_up(field, row, column, outside):
    """Bilinear values of ``field`` ``(n, H, W)`` at fractional indices ``(n, h, w)``: ``(n, h, w)``.

    Args:
        outside: "border": beyond the edge the nearest value. "zeros": 0 from one cell beyond the edge on, and linear
            before.
    """
    reach = int(outside == "zeros")  # how far beyond the edge there are values to look at
    height, width = field.shape[-2:]
    row, column = row.clamp(-reach, height - 1 + reach) + 1, column.clamp(-reach, width - 1 + reach) + 1
    upper, left = row.floor().clamp(max=height), column.floor().clamp(max=width)
    down, across = row - upper, column - left
    corner = (upper * (width + 2) + left).long().flatten(1)
    values = F.pad(field, (1, 1, 1, 1)).flatten(1)
    a, b, c, d = (values.gather(1, corner + step).view_as(row) for step in (0, 1, width + 2, width + 3))
    return (a * (1 - across) + b * across) * (1 - down) + (c * (1 - across) + d * across) * down


# ---------------------------------------------------------------- data sets


@dataclass(frozen=True)
class Dataset:
    """Plumes and what is stored of them.

    Attributes:
        plumes: :class:`Plume`.
        held_out: the indices of the plumes that only the domain test sees.
        steps: of each plume.
        skip: so many steps from the start are not stored.
        size: cells to a side of the stored frames; finer boxes are averaged.
    """

    plumes: tuple[Plume, ...]
    held_out: tuple[int, ...] = ()
    steps: int = 310
    skip: int = 0
    size: int = BOX

    @property
    def shape(self):
        """Of the stored array: plumes, frames, components (u, v, smoke), rows from the bottom up, columns."""
        return len(self.plumes), self.steps - self.skip, 3, self.size, self.size


def translation(size="paper", ratio=2.0):
    """35 places of the inflow, ``ratio`` times the buoyancy on the right: 310 frames; 10 places are held out.

    In the cells along floor and ceiling the buoyancy is half: PhiFlow averages the release's masks of left and right
    from faces to cells, and they are 0 on the walls. It changes plumes that start at the floor by 1 to 4 percent in 20
    steps.

    Args:
        size: "paper", 64 x 64, or "small": every third plume, at half the resolution (12 plumes, 5 held out). Values
            are in the same units.
        ratio: the dial; 2 in the paper. At 1 only the walls tell one place from another.
    """
    places = [(x, y) for x in range(8, 64, 8) for y in range(5, 30, 5)]
    unseen = {(32, 20), (32, 5), (24, 20), (16, 25), (24, 5), (16, 10), (40, 20), (8, 25), (24, 25), (40, 10)}
    plumes = [Plume(center=place, buoyancy=(0, 0.1), right=(0, 0.1 * ratio), at_walls=0.5) for place in places]
    return _dataset(size, plumes, [place in unseen for place in places])


def rotation(size="paper", factors=(1, 1, 1.1, 1)):
    """35 buoyancies, .01 to .385, from the wall below, right, above, left in turn: 309 frames; 10 are held out.

    The k-th plume has the buoyancy .01 k times the factor of its wall. The release's 32nd is in neither split and left
    out.

    Args:
        size: "paper" or, see :func:`translation`, "small" (12 plumes, 2 held out).
        factors: the dial, one for each wall; those of the paper by default. All equal: the walls are equivalent.
    """
    numbers = [k for k in range(1, 37) if k != 32]
    unseen = {5, 6, 10, 13, 14, 15, 18, 20, 21, 24}
    plumes = [Plume(buoyancy=(0, 0.01 * k * factors[(k - 1) % 4]), velocity_dt=1).turned((k - 1) % 4) for k in numbers]
    return _dataset(size, plumes, [k in unseen for k in numbers], skip=1)


def scale(size="paper", refinement=1.0):
    """One plume at 38 resolutions, 1 to 4.7 cells to a unit: 309 frames; 10 resolutions are held out.

    A box f times as wide, an inflow of f times the radius and f times the buoyancy make f times the velocity, but for
    the errors of the grid. The paper divides by f and resizes to 64 x 64, which leaves a plume at f times the
    resolution. The release does so by interpolating between points and does not remove what is too small for the
    frames; here they are means over areas.

    Args:
        size: "paper" or, see :func:`translation`, "small" (13 plumes, 4 held out).
        refinement: the dial, a factor on all resolutions; 1 in the paper. The larger, the less do the scales differ.
            Frames of a grid coarser than they are repeat its cells.
    """
    unseen = {5, 6, 16, 17, 21, 22, 23, 30, 32, 33}
    plumes = [Plume(resolution=(1 + i / 10) * refinement) for i in range(38)]
    return _dataset(size, plumes, [i in unseen for i in range(38)], skip=1)


def magnitude(size="paper", fixed=0.0):
    """5 magnitudes, 1/2 to 2, at 7 places of the inflow: 310 frames; two of the magnitudes are held out.

    Not in the paper. Magnitude m: m times the buoyancy and steps 1/m as long, which makes the frames of magnitude 1, m
    times as fast.

    Args:
        size: "paper" or, see :func:`translation`, "small" (12 plumes, 5 held out).
        fixed: the dial: the share of the buoyancy that does not scale with m. At 0 the symmetry is exact.

    Raises:
        InputError: such a share cannot be.
    """
    if not 0 <= fixed <= 1:
        raise InputError(f"the share of the buoyancy that does not scale is {fixed}; it must be in 0 to 1")
    exponents, xs = (-1, -0.5, 0, 0.5, 1), range(8, 64, 8)
    plumes = [
        Plume((x, 5), buoyancy=(0, 0.1 * ((1 - fixed) * m + fixed)), dt=1 / m, velocity_dt=0.5 / m)
        for m in (2**exponent for exponent in exponents)
        for x in xs
    ]
    return _dataset(size, plumes, [abs(exponent) == 0.5 for exponent in exponents for _ in xs])


def equivariance_test(size="paper"):
    """50 buoyancies, .005 to .25, from below: 50 frames, after 11 to 60 steps. The paper mixes its levels from them.

    Args:
        size: "paper" or "small", half the resolution (all 50 plumes).
    """
    return _dataset(size, [_upright(i) for i in range(50)], steps=60, skip=10, every=1)


def levels(level, size="paper"):
    """Plumes from below, right, above and left whose buoyancies differ the more, the higher the level: 50 frames.

    The release turns the frames of plumes from below instead, and their vectors to the wrong side. It has four plumes;
    eight more, held out, have their inflow beside the middle of the same walls.

    Args:
        level: the dial, 0 to 9; at 0 the four are turned copies of each other. Buoyancies: :data:`LEVELS`.
        size: "paper" or "small", half the resolution.
    """
    plumes = [
        replace(_upright(i), center=(x, 5)).turned(turns) for x in (32, 24, 40) for turns, i in enumerate(LEVELS[level])
    ]
    return _dataset(size, plumes, [plume not in plumes[:4] for plume in plumes], steps=60, skip=10, every=1)


def twins(level, size="paper"):
    """The four plumes of :func:`levels` that are turned copies of each other at level 0."""
    dataset = levels(level, size)
    return replace(dataset, plumes=dataset.plumes[:4], held_out=())


def _upright(i):
    return Plume(buoyancy=(0, 0.005 * (i + 1)))


def _dataset(size, plumes, unseen=(), every=None, **options):
    """The data set of that size: ``unseen`` says of every plume if it is held out."""
    if size not in SIZES:
        raise InputError(f"size is {size}; it must be one of {', '.join(SIZES)}")
    cells, stride = SIZES[size]
    kept = [replace(plume, resolution=plume.resolution * cells / BOX) for plume in plumes[:: every or stride]]
    held_out = np.flatnonzero(unseen[:: every or stride]).tolist()
    return Dataset(tuple(kept), tuple(held_out), size=cells, **options)


def simulate(dataset, device="cpu", faces=False, out=None):
    """Frames of a data set, float32 of shape ``dataset.shape``: u and v in units per step, smoke; row 0 at the bottom.

    Args:
        dataset: :class:`Dataset`.
        device: where they are computed. On the CPU one thread is used; more are slower.
        faces: u on the left and v on the lower face of each cell, as the release stores them, instead of the means in
            cell centres; not where frames are averaged.
        out: the array to fill, such as a mapped ``.npy`` file; by default a new tensor on the CPU.

    Returns:
        ``out``.

    Raises:
        InputError: ``out`` has another shape, or faces would have to be averaged.
    """
    out = torch.empty(dataset.shape) if out is None else out
    if tuple(out.shape) != dataset.shape:
        raise InputError(f"out has the shape {tuple(out.shape)}; the frames have {dataset.shape}")
    groups = {}
    for i, plume in enumerate(dataset.plumes):
        groups.setdefault(plume.resolution, []).append(i)
        if faces and plume.cells != dataset.size:
            raise InputError(f"frames of {dataset.size} cells have no faces of a box of {plume.cells} cells")
    steps = ((members, step) for members in groups.values() for step in range(dataset.steps))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for members, step in progress(steps, len(groups) * dataset.steps, "simulation"):
            if step == 0:
                plume = dataset.plumes[members[0]]
                flow = Smoke([dataset.plumes[i] for i in members], device)
            flow.step()
            if step >= dataset.skip:
                velocity = flow.velocity(faces) / plume.resolution
                frames = torch.cat((velocity, flow.smoke[:, None]), 1)
                frames = averaged(averaged(frames, dataset.size).mT, dataset.size).mT
                out[members, step - dataset.skip] = frames.float().cpu()
    finally:
        torch.set_num_threads(threads)
    return out


def averaged(field, size):
    """Means of ``field``, float64 of any shape, over ``size`` equal lengths of its last axis."""
    cells, total = field.shape[-1], 0
    edges = torch.arange(size + 1, dtype=field.dtype, device=field.device) * (cells / size)
    for ahead in range(math.ceil(cells / size) + 1):
        cell = edges[:-1].floor() + ahead
        overlap = torch.minimum(edges[1:], cell + 1) - torch.maximum(edges[:-1], cell)
        total = total + field[..., cell.long().clamp(max=cells - 1)] * overlap.clamp(min=0)
    return total * (size / cells)


# ---------------------------------------------------------------- how equivariant data are

TURN = Rotation(fields=("vector", "scalar"))


def mean_difference(frames):
    """How far flows are from being the same: mean of ``|frames[0] - frames[k]|`` over k, time, u and v, and cells.

    Args:
        frames: ``(flows, T, 2 or more, S, S)``, turned back to one side if they came from several.

    Returns:
        a number, in units per step.
    """
    velocity = frames[:, :, :2].double()
    return (velocity[1:] - velocity[0]).abs().mean().item()


def level_errors(size="paper", device="cpu"):
    """:func:`mean_difference` of the ten levels over the stored frames 10 to 48, twice.

    Returns:
        published: as the release computes it: of flows that all come from below and whose faces stand for cells.
        true: of the flows of :func:`twins` in cell centres, turned back.
    """
    upright = simulate(equivariance_test(size), device, faces=True)[:, LEVEL_FRAMES]
    published = [mean_difference(upright[list(level)]) for level in LEVELS]
    true = []
    for level in range(len(LEVELS)):
        frames = simulate(twins(level, size), device)[:, LEVEL_FRAMES]
        true.append(mean_difference(torch.stack([TURN.quarter(-turns, flow) for turns, flow in enumerate(frames)])))
    return published, true
