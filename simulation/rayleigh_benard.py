"""Rayleigh-Benard convection between two walls: velocity frames made here instead of downloaded.

The Boussinesq equations in free-fall units (lengths in the height H, velocities in U = sqrt(g beta Delta H), times in
H/U, temperatures in the difference Delta of the walls), periodic in x, z up:

    du/dt + div(u u) = -grad p + sqrt(Pr/Ra) lap u + T e_z,    div u = 0,
    dT/dt + div(u T) = 1/sqrt(Pr Ra) lap T,
    u = 0 at both walls, T = 1/2 at z = 0 (hot), T = -1/2 at z = 1 (cold).

Space: staggered grid of square cells (Harlow and Welch, Phys. Fluids 8, 2182, 1965), central fluxes of second order;
u lives on the left face of its cell, w on the bottom face, T in the centre.
Time: the three-stage, third-order Runge-Kutta scheme of Wray (Spalart, Moser and Rogers, J. Comput. Phys. 96, 297,
1991), explicit throughout. Every stage ends with the exact projection onto div u = 0
(:class:`simulation.portable.Poisson`). A flow is the same, to the last bit, on every x86 CPU.
"""

import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from simulation.portable import Poisson, between, cosine
from utils import InputError, load_checkpoint, progress, save_checkpoint, write_json

RK3 = ((8 / 15, 0), (5 / 12, -17 / 60), (3 / 4, -5 / 12))  # weights of this stage's and the last stage's rates
MAX_SPEED = 100  # in free-fall velocities, which no flow exceeds by much: beyond it the simulation has blown up
CHECKPOINT_EVERY = 10  # seconds
LAGS = (1, 2, 5, 10)  # frames


@dataclass(frozen=True)
class Settings:
    """One simulation. Times are in free-fall units; every ``store_every``-th point in x and z is stored.

    Raises:
        InputError: a value is out of range, or the grid cannot carry the flow (:func:`rows_needed`).
    """

    nz: int
    nx: int
    ra: float
    spin_up: float
    interval: float
    frames: int
    store_every: int = 1
    pr: float = 0.71
    seed: int = 0

    def __post_init__(self):
        for name in ("nz", "nx", "ra", "pr", "interval", "frames", "store_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a positive number")
        if not 0 <= self.spin_up < math.inf:
            raise InputError(f"spin_up is {self.spin_up}; it must be 0 or more free-fall times")
        for name in ("nz", "nx"):
            if getattr(self, name) % self.store_every:
                raise InputError(f"{name} is {getattr(self, name)}, no multiple of store_every, {self.store_every}")
        needed = rows_needed(self.ra, self.pr)
        if self.nz < needed:
            raise InputError(
                f"nz is {self.nz}; Ra {self.ra:g} and Pr {self.pr:g} need {needed} rows: raise nz (and nx) or lower ra"
            )

    @property
    def stored_shape(self):
        """Shape of the stored array: frames, components (u, w), rows from the hot wall up, columns."""
        return self.frames, 2, self.nz // self.store_every, self.nx // self.store_every


def rows_needed(ra, pr):
    """Rows of cells that carry a Rayleigh number: the larger of two rules.

    - The thermal boundary layers, H/(2 Nu) thick, hold 2 cells; Nu = 0.138 Ra^0.285 (Johnston and Doering, Phys. Rev.
      Lett. 102, 064501, 2009). At Ra 1e7 this solver finds Nu 16.8 with 1.2 cells, 14.3 with 2.3 (preset small) and
      13.6 with 3.5: for a reference solution take twice as many as the rule (Shishkina et al., New J. Phys. 12,
      075022, 2010).
    - A cell is no larger than pi times the smallest eddy, Pr^(1/2) / (Ra (Nu - 1))^(1/4), or the smallest thermal
      structure, which is finer if Pr > 1 (Groetzbach, J. Comput. Phys. 49, 241, 1983).
    """
    nusselt = max(0.138 * ra**0.285, 1)
    smallest_scales_per_height = (ra * (nusselt - 1)) ** 0.25 / min(pr, 1) ** 0.5
    return math.ceil(max(2 * 2 * nusselt, smallest_scales_per_height / math.pi))


PRESETS = {  # 1 s, 45 s, 5 minutes, about 2 hours of one CPU thread
    "tiny": Settings(nz=32, nx=64, ra=1e6, spin_up=40, interval=0.4, frames=20),
    "small": Settings(nz=64, nx=448, ra=1e7, spin_up=100, interval=0.4, frames=400),
    "medium": Settings(nz=128, nx=896, ra=1e8, spin_up=100, interval=0.25, frames=400, store_every=2),
    "paper": Settings(nz=256, nx=1792, ra=2.5e8, spin_up=150, interval=0.25, frames=2000, store_every=4),
}


class RayleighBenard:
    """The flow and its solver.

    Args:
        settings: :class:`Settings`.
        device, dtype: where and in which precision it is computed. The initial state is the same everywhere.

    Attributes:
        state: ``(3, nz + 2, nx + 2)``: u, w, T, with one ring of ghost cells that carry the boundary conditions.
        u: ``(nz, nx)``, on left faces.
        w: ``(nz + 1, nx)``, on bottom faces, both walls included.
        temperature: ``(nz, nx)``, in cell centres.
        time: in free-fall units.
    """

    def __init__(self, settings, device="cpu", dtype=torch.float32):
        nz, nx, self.time = settings.nz, settings.nx, 0.0
        self.nx, self.h = nx, 1 / nz  # h: width of a cell
        self.nu, self.kappa = (settings.pr / settings.ra) ** 0.5, (settings.pr * settings.ra) ** -0.5
        options = {"dtype": dtype, "device": device}
        diffusivity = torch.tensor([self.nu, self.nu, self.kappa], **options)
        self.diffusivity_per_h = diffusivity.view(3, 1, 1) / self.h

        self.poisson = Poisson(nz, nx, periodic=True, **options)
        self.state = torch.zeros(3, nz + 2, nx + 2, **options)
        self.set_fields(0, 0, initial_temperature(settings).to(**options))

    @property
    def u(self):
        return self.state[0, 1:-1, 1:-1]

    @property
    def w(self):
        return self.state[1, 1:, 1:-1]

    @property
    def temperature(self):
        return self.state[2, 1:-1, 1:-1]

    def set_fields(self, u, w, temperature):
        """Start from other fields, of the shapes above; what of the velocity has divergence is taken out."""
        self.u[:], self.w[:], self.temperature[:] = u, w, temperature
        self.w[-1] = 0
        self._project()

    # ------------------------------------------------------------ in time

    def advance_to(self, end):
        """Step to time ``end`` exactly, in equal parts of what is left, none longer than the stable step.

        Raises:
            InputError: the flow blew up.
        """
        longest = self.stable_dt()
        while self.time < end:
            parts = math.ceil((end - self.time) / longest)
            dt = (end - self.time) / parts
            self.step(dt)
            self.time = end if parts == 1 else self.time + dt
            longest = self.stable_dt()

    def stable_dt(self):
        """Longest step: inside the scheme's limits for advection and diffusion, and short against the buoyancy."""
        speed = self.velocity().abs().sum(0).max().item()
        rate = max(speed / (1.2 * self.h), max(self.nu, self.kappa) / (0.25 * self.h**2), 1 / 0.05)
        if not speed < MAX_SPEED:  # also if it is not a number
            raise InputError(
                f"the simulation blew up at time {self.time:.2f} (speed {speed:.3g}, dt {1 / rate:.1e}): "
                "raise nz and nx or lower ra"
            )
        return 1 / rate

    def step(self, dt):
        """One Runge-Kutta step."""
        interior, rates = self.state[:, 1:-1, 1:-1], None
        for weight, weight_of_previous in RK3:
            previous, rates = rates, self._rates()
            interior += rates * (weight * dt / self.h)
            if previous is not None:
                interior += previous * (weight_of_previous * dt / self.h)
            self._project()

    def _rates(self):
        """h times the rates of change of u, w, T in the cells, without pressure: ``(3, nz, nx)``.

        A quantity crosses a face with the mean of its two neighbours there. On this grid the means of u and w are
        also the velocities at those faces: one formula serves all three.
        """
        q = self.state
        mean_x, mean_z = between(q, 2), between(q, 1)

        flux_x = (q[:, 1:-1, :-1] - q[:, 1:-1, 1:]).mul_(self.diffusivity_per_h)
        u_there = mean_x[0, 1:-1], mean_z[0, :-1, 1:], q[0, 1:-1, 1:]
        for flux, u, mean in zip(flux_x, u_there, mean_x[:, 1:-1], strict=True):
            flux += u * mean

        flux_z = (q[:, :-1, 1:-1] - q[:, 1:, 1:-1]).mul_(self.diffusivity_per_h)
        w_there = mean_x[1, 1:, :-1], mean_z[1, :, 1:-1], q[1, 1:, 1:-1]
        for flux, w, mean in zip(flux_z, w_there, mean_z[:, :, 1:-1], strict=True):
            flux += w * mean

        rates = (flux_x[:, :, :-1] - flux_x[:, :, 1:]).add_(flux_z[:, :-1]).sub_(flux_z[:, 1:])
        rates[1] += mean_z[2, :-1, 1:-1] * self.h  # buoyancy
        return rates

    def _project(self):
        """Subtract the pressure gradient that leaves no divergence, then renew the ghost cells."""
        u, w, _ = self.state
        w[1] = 0  # hot wall; at the cold one w is never changed
        u[:, -1] = u[:, 1]
        pressure = self.poisson.pressure(self._outflow())
        self.u.sub_(pressure).add_(pressure.roll(1, 1))
        w[2:-1, 1:-1].sub_(pressure[1:]).add_(pressure[:-1])
        self._fill_ghosts()

    def _fill_ghosts(self):
        u, _, temperature = q = self.state
        q[:, :, 0], q[:, :, -1] = q[:, :, -2], q[:, :, 1]
        u[0], u[-1] = -u[1], -u[-2]  # means at the walls: 0, 1/2, -1/2
        temperature[0], temperature[-1] = 1 - temperature[1], -1 - temperature[-2]

    def _outflow(self):
        u, w, _ = self.state
        return (u[1:-1, 2:] - u[1:-1, 1:-1]).add_(w[2:, 1:-1]).sub_(w[1:-1, 1:-1])

    # ------------------------------------------------------------ to look at

    def velocity(self):
        """u and w in cell centres, ``(2, nz, nx)``."""
        u, w, _ = self.state
        return torch.stack((between(u[1:-1, 1:], 1), between(w[1:, 1:-1], 0)))

    def vorticity(self):
        """dw/dx - du/dz at the corners of cells, both walls included, ``(nz + 1, nx)``."""
        u, w, _ = self.state
        return (w[1:, 1:-1] - w[1:, :-2] - u[1:, 1:-1] + u[:-1, 1:-1]) / self.h

    def max_divergence(self):
        return self._outflow().abs().max().item() / self.h

    def rms_speed(self):
        return self.velocity().square().sum(0).mean().sqrt().item()

    def nusselt(self):
        """Heat flux over that of conduction at the hot wall, at the cold wall and on average over the volume."""
        hot = (1 - 2 * self.temperature[0].mean().item()) / self.h
        cold = (1 + 2 * self.temperature[-1].mean().item()) / self.h
        convected = self.w[1:-1] * between(self.temperature, 0)
        return hot, cold, 1 + convected.sum().item() * self.h / self.nx / self.kappa


def initial_temperature(settings):
    """Conduction, 4 pairs of rolls in a box of aspect ratio 7, and noise: ``(nz, nx)``, float64."""
    nz, nx = settings.nz, settings.nx
    roll_pairs = max(round(4 / 7 * nx / nz), 1)
    z, x = ((np.arange(nz) + 0.5) / nz)[:, None], (np.arange(nx) + 0.5) / nx
    generator = torch.Generator().manual_seed(settings.seed)
    noise = 2 * torch.rand(nz, nx, dtype=torch.float64, generator=generator).numpy() - 1
    return torch.from_numpy(0.5 - z + 0.1 * cosine(z - 0.5) * (noise + cosine(2 * roll_pairs * x)))


# ---------------------------------------------------------------- to disk


def simulate(settings, path, device="cpu"):
    """Simulate and stream the stored frames to ``path``, the time averages to the ``.json`` beside it.

    The file is a NumPy array of ``settings.stored_shape``, float32: u and w in cell centres, row 0 at the hot wall.
    The temperature of the same frames goes to :func:`temperature_file`, ``(frames, rows, columns)``. The first frame
    is taken one interval after the spin-up, which is rounded up to whole intervals. What is finished is not simulated
    again; a run that was killed goes on from the hidden checkpoint beside ``path`` and ends with the frames of one
    that was not.

    Args:
        settings: :class:`Settings`, such as ``dataclasses.replace(PRESETS["small"], ra=5e6)``.
        path: the ``.npy`` file.
        device: where it is computed.

    Returns:
        What the ``.json`` holds: ``settings``, ``nusselt`` (mean over frames and both walls) and the entries of
        :func:`statistics`.

    Raises:
        InputError: the flow blew up, the disk is too full, or ``path`` or its checkpoint holds another simulation.
    """
    path = Path(path)
    report, files = path.with_suffix(".json"), (temperature_file(path), path)
    partial = [file.with_name(f".{file.name}.part") for file in files]
    checkpoint = path.with_name(f".{path.name}.checkpoint")
    if path.exists():
        try:
            result = json.loads(report.read_text()) if report.exists() else {"settings": {}}
        except ValueError:
            raise InputError(f"{report} is broken; remove it and {path}, and they will be made again") from None
        _check_same(result["settings"], settings, path)
        return result
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more are slower on these grids, and far slower where others use the cores
    try:
        result = _simulate(settings, partial, checkpoint, device)
    finally:
        torch.set_num_threads(threads)
    write_json(report, result)
    for source, file in zip(partial, files, strict=True):  # the velocity last: it says that all is there
        os.replace(source, file)
    checkpoint.unlink(missing_ok=True)
    return result


def temperature_file(path):
    """Where :func:`simulate` stores the temperature of the frames in ``path``."""
    return Path(path).with_name(f"{Path(path).stem}_temperature.npy")


def _simulate(settings, partial, checkpoint, device):
    """Fill the files ``partial``, temperature and velocity, after a kill from the checkpoint on.

    Returns:
        What the ``.json`` shall hold.
    """
    solver = RayleighBenard(settings, device)
    spin_up, done, nusselt = math.ceil(settings.spin_up / settings.interval), 0, 0.0
    resumed = checkpoint.exists() and all(file.exists() for file in partial)
    if resumed:
        saved = load_checkpoint(checkpoint, device)
        _check_same(saved["settings"], settings, checkpoint)
        done, nusselt = saved["done"], saved["nusselt"]
        solver.state, solver.time = saved["state"], done * settings.interval
    temperature, frames = _open_frames(partial, settings, resumed)
    stored = (..., slice(None, None, settings.store_every), slice(None, None, settings.store_every))

    total, saved_at = spin_up + settings.frames, time.monotonic()

    def note():
        return f"time {solver.time:.1f}, Nusselt number {solver.nusselt()[0]:.1f}"

    for i in progress(range(done, total), total - done, "simulation", note):
        try:
            solver.advance_to((i + 1) * settings.interval)
        except InputError:
            checkpoint.unlink(missing_ok=True)  # from there it would blow up again
            raise
        if i >= spin_up:
            frames[i - spin_up] = solver.velocity()[stored].cpu()
            temperature[i - spin_up] = solver.temperature[stored].cpu()
            nusselt += sum(solver.nusselt()[:2]) / 2 / settings.frames
        if time.monotonic() - saved_at >= CHECKPOINT_EVERY:
            frames.flush()
            temperature.flush()
            save_checkpoint(checkpoint, settings=asdict(settings), state=solver.state, done=i + 1, nusselt=nusselt)
            saved_at = time.monotonic()
    return {"settings": asdict(settings), "nusselt": nusselt, **statistics(frames)}


def _open_frames(paths, settings, resumed):
    if resumed:
        return [np.load(path, mmap_mode="r+") for path in paths]
    frames, _, *grid = settings.stored_shape
    shapes = (frames, *grid), settings.stored_shape
    needed, free = 4 * sum(map(math.prod, shapes)), shutil.disk_usage(paths[0].parent).free
    if needed > free:  # a mapped file on a full disk would kill the process without a word
        raise InputError(f"{paths[0].parent} has {free / 1e9:.2g} GB left, the frames take {needed / 1e9:.2g} GB")
    return [np.lib.format.open_memmap(path, "w+", np.float32, shape) for path, shape in zip(paths, shapes, strict=True)]


def _check_same(found, settings, path):
    different = [f"{name} {value}" for name, value in asdict(settings).items() if found.get(name) != value]
    if different:
        raise InputError(f"{path} is not the simulation with {', '.join(different)}; remove it or write elsewhere")


def statistics(frames):
    """Statistics of frames ``(time, 2, rows, columns)``, by which simulations and measured data are compared.

    Returns:
        dict of ``rms_speed`` and ``correlation``: for each lag in frames (a string, as in JSON) the correlation of
        frames that far apart, of u and of w, over all points and frames, about zero.
    """

    def products(a, b):
        return np.array([np.einsum("czx,czx->c", x, y, dtype=np.float64) for x, y in zip(a, b, strict=True)])

    energy = products(frames, frames)
    correlation = {}
    for lag in LAGS:
        if lag < len(frames):
            norm = np.sqrt(energy[:-lag].sum(0) * energy[lag:].sum(0))
            correlation[str(lag)] = (products(frames[:-lag], frames[lag:]).sum(0) / norm).tolist()
    return {"rms_speed": math.sqrt(energy.sum() / frames[:, 0].size), "correlation": correlation}
