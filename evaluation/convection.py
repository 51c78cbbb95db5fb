"""Convection, simulated or measured: the numbers that tell flows apart, and pictures of those simulated here."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.spectrum import power_law
from evaluation.style import (
    DIVERGING,
    SEQUENTIAL,
    TURNING,
    new_figure,
    reference_slope,
    save,
    save_animation,
)
from flows.arrays import load_array
from simulation.rayleigh_benard import Settings, statistics, temperature_file
from utils import InputError


@dataclass
class Convection:
    """Frames of a flow between two walls, mapped from disk.

    Attributes:
        name: of the file.
        velocity: ``(frames, 2, rows, columns)``; free-fall velocities U where it was simulated here.
        report: what the simulation wrote beside its frames; None of any other flow.
    """

    name: str
    velocity: np.ndarray
    report: dict | None


def load_convection(path):
    """Open what :func:`simulation.rayleigh_benard.simulate` wrote, or any ``.npy`` or ``.pt`` array ``(T, 2, H, W)``.

    Raises:
        InputError: no such array there, or it does not fit its ``.json``.
    """
    path, report = Path(path), None
    velocity = load_array(path)
    if velocity.ndim != 4 or velocity.shape[1] != 2 or 0 in velocity.shape:
        raise InputError(f"{path} has shape {velocity.shape}, wanted (T, 2, H, W): frames of u and w")
    if path.with_suffix(".json").is_file():
        try:
            report = json.loads(path.with_suffix(".json").read_text())
            settings = report["settings"] = Settings(**report["settings"])
            report["nusselt"] = float(report["nusselt"])
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path.with_suffix('.json')} is broken; remove {path} and simulate again") from None
        if velocity.shape != settings.stored_shape:
            raise InputError(f"{path} has shape {velocity.shape}, its .json says {settings.stored_shape}")
    return Convection(path.stem, velocity, report)


def load_temperature(path, flow):
    """The temperature of a simulation's frames, mapped ``(frames, rows, columns)``; InputError if it is not there."""
    path = temperature_file(path)
    if not path.is_file():
        raise InputError(f"{path} is not there; remove {flow.name}.npy and simulate again, which writes both")
    temperature = load_array(path)
    frames, _, *grid = flow.velocity.shape
    if temperature.shape != (frames, *grid):
        raise InputError(f"{path} has shape {temperature.shape}, wanted {(frames, *grid)}; simulate again")
    return temperature


def convection_grid(settings):
    """Where :func:`convection_fields` has its values, in heights H.

    Returns:
        ``x``, the stored columns, one before them and two behind, and ``z``, the stored rows between the two walls.
    """
    _, _, rows, columns = settings.stored_shape
    x = (np.arange(-1, columns + 2) * settings.store_every + 0.5) / settings.nz
    z = (np.arange(rows) * settings.store_every + 0.5) / settings.nz
    return x, np.concatenate([[0], z, [1]])


def between_walls(field, hot, cold):
    """Continue a field periodically in x and put the walls' values at its bottom and top."""
    field = np.pad(np.float64(field), ((1, 1), (1, 2)), mode="wrap")
    field[0], field[-1] = hot, cold
    return field


def vorticity(u, v, x, y):
    """dv/dx - du/dy of velocities ``(..., rows, columns)`` at points ``x`` and ``y``, by second-order differences."""
    return np.gradient(v, x, axis=-1, edge_order=2) - np.gradient(u, y, axis=-2, edge_order=2)


def convection_fields(velocity, temperature, x, z):
    """What is drawn of one frame: temperature, u, w and vorticity on the grid of :func:`convection_grid`.

    Args:
        velocity: ``(2, rows, columns)``, temperature: ``(rows, columns)``.
    """
    u, w = (between_walls(component, 0, 0) for component in velocity)
    return between_walls(temperature, 0.5, -0.5), u, w, vorticity(u, w, x, z)


def autocorrelation(series):
    """Correlation of ``(time, n)`` with itself 0, 1, ..., time // 2 steps later, each of the n about its mean."""
    series = series - series.mean(0)
    energy, count = np.square(series).sum(1), len(series)
    result = []
    for lag in range(count // 2 + 1):
        norm = np.sqrt(energy[: count - lag].sum() * energy[lag:].sum())
        result.append(np.sum(series[: count - lag] * series[lag:]) / norm)
    return np.array(result)


def rocking_period(velocity):
    """Frames in which the rolls rock to and fro; None if they do not.

    At half height the wind of rolls at rest is vertical; rocking rolls blow to the left and to the right there in
    turn. The period is the lag at which u at half height resembles itself most, in the first stretch of lags with a
    positive correlation behind one with a negative.
    """
    rows = velocity.shape[2]
    wind = velocity[:, 0, (rows - 1) // 2 : rows // 2 + 1].astype(np.float64).mean(1)
    correlation = autocorrelation(wind)
    lags = np.arange(len(correlation))
    opposite = lags[correlation < 0]
    again = lags[(correlation > 0) & (lags > opposite.min(initial=len(lags)))]
    if not len(again):
        return None
    end = opposite[opposite > again[0]].min(initial=len(lags))
    return int(again[0] + correlation[again[0] : end].argmax())


def roll_shares(velocity):
    """Shares of the wavenumbers 0, 1, 2, ... along x in the variance of w averaged over time and height."""
    w = sum(frame[1].mean(0, dtype=np.float64) for frame in velocity) / len(velocity)
    power = np.square(np.abs(np.fft.rfft(w - w.mean())))
    power[1 : (len(w) + 1) // 2] *= 2  # each of these stands for its mirror image, too
    return power / power.sum()


def spectrum_along_x(fields, length):
    """Spectrum of the variance along x at half height, one quarter of the height up and down, averaged over time.

    Args:
        fields: ``(frames, ..., rows, columns)``, periodic over the columns.
        length: of the period.

    Returns:
        ``(k, spectrum)``: wavenumbers from 1 / length on, in waves per unit of length, and the density of the variance,
        summed over the axes ``...``; its sum over k, times the spacing 1 / length, is the variance but for the means.
    """
    rows, columns = fields.shape[-2:]
    power = 0
    for frame in fields:
        modes = np.fft.rfft(frame[..., rows // 4 : rows - rows // 4, :], norm="forward")
        power = power + np.square(np.abs(modes)).mean(-2).reshape(-1, columns // 2 + 1).sum(0)
    power[1 : (columns + 1) // 2] *= 2  # each of these stands for its mirror image, too
    return np.arange(1, columns // 2 + 1) / length, power[1:] / len(fields) * length


def inertial_range(report):
    """Waves per height between which the spectrum may be a power law; None if the ratio of its ends is less than 3.

    From structures of the size of the cell's height, smaller than a pair of rolls, to 2 pi k eta = 0.1, where viscosity
    sets in; eta is the Kolmogorov length by the exact dissipation, Pr^(1/2) / (Ra (Nu - 1))^(1/4).
    """
    settings = report["settings"]
    kolmogorov = settings.pr**0.5 / (settings.ra * (report["nusselt"] - 1)) ** 0.25
    low, high = 1, 0.1 / (2 * np.pi * kolmogorov)
    return (low, high) if high >= 3 * low else None


def convection_numbers(flow):
    """The numbers by which one convection is compared with another: ``{what: text}``."""
    found, shares, period = statistics(flow.velocity), roll_shares(flow.velocity), rocking_period(flow.velocity)
    numbers = {"flow": flow.name}
    if flow.report:
        settings, nusselt = flow.report["settings"], flow.report["nusselt"]
        expected = 0.138 * settings.ra**0.285  # Johnston and Doering, Phys. Rev. Lett. 102, 064501, 2009
        numbers["Ra, Pr"] = f"{settings.ra:g}, {settings.pr:g}"
        numbers["free-fall times between frames"] = f"{settings.interval:g}"
        numbers["Nusselt number"] = f"{nusselt:.2f}"
        numbers["  against 0.138 Ra^0.285"] = f"{nusselt / expected - 1:+.1%}"
        inertial = inertial_range(flow.report)
        if inertial:
            k, energy = spectrum_along_x(flow.velocity, settings.nx / settings.nz)
            numbers["waves per height of the inertial range"] = "{:g} to {:.1f}".format(*inertial)
            numbers["  slope of kinetic energy there"] = f"{power_law(k, energy, *inertial):.2f}"
    numbers["rms speed"] = f"{found['rms_speed']:.3f}"
    for component, name in enumerate("uw"):
        correlations = [pair[component] for pair in found["correlation"].values()]
        lags = ", ".join(found["correlation"])
        numbers[f"correlation of {name}, {lags} frames apart"] = " ".join(f"{c:.3f}" for c in correlations)
    numbers["strongest wavenumber of the rolls"] = f"{shares.argmax()} ({shares.max():.0%})"
    numbers["frames in which they rock to and fro"] = str(period or "-")
    return numbers


def side_by_side(columns):
    """Lines of a table: one row per key of the dicts, one column per dict."""
    keys = list(dict.fromkeys(key for column in columns for key in column))
    widths = [max(map(len, keys)), *(max(map(len, column.values())) for column in columns)]
    for key in keys:
        cells = [f"{column.get(key, '-'):>{width}}" for column, width in zip(columns, widths[1:], strict=True)]
        yield "  ".join([f"{key:{widths[0]}}", *cells])


# ---------------------------------------------------------------- what is drawn

ANIMATED = 60  # frames at most
WARMTH = -0.35, 0.35  # temperatures between which the colours change; beyond are the boundary layers


def draw_cell(axes, x, z, values, cmap, low, high, unit):
    """A field of the whole cell, walls included, in its true proportions, with a bar of its colours."""
    mesh = axes.pcolormesh(x, z, values, shading="gouraud", cmap=cmap, vmin=low, vmax=high, rasterized=True)
    axes.set(aspect="equal", xlim=(0, x[-2] - x[1]), ylim=(0, 1), yticks=(0, 1), ylabel="z / H")
    extend = {(False, False): "neither", (False, True): "max"}.get((values.min() < low, values.max() > high), "both")
    axes.figure.colorbar(mesh, cax=axes.inset_axes([1.012, 0, 0.012, 1]), label=unit, extend=extend)
    return mesh


def draw_arrows(axes, x, z, u, w, per_height=6):
    """Velocity as arrows in the middle of square boxes, ``per_height`` of them between the walls."""
    at = (np.arange(per_height) + 0.5) / per_height
    along = np.arange(0.5 / per_height, x[-2] - x[1], 1 / per_height)
    points = np.ix_(np.abs(z[:, None] - at).argmin(0), np.abs(x[:, None] - along).argmin(0))
    axes.quiver(along, at, u[points], w[points], color="white", pivot="mid", scale=28, width=0.0013)


def draw_convection(flow, temperature, frame):
    """Temperature, velocity and vorticity of one frame, one above the other; returns the figure."""
    settings = flow.report["settings"]
    x, z = convection_grid(settings)
    warmth, u, w, turning = convection_fields(flow.velocity[frame], temperature[frame], x, z)
    speed, strong = np.hypot(u, w), np.quantile(np.abs(turning), 0.95)
    figure = new_figure(3.5)
    panels = figure.subplots(3, sharex=True)
    draw_cell(panels[0], x, z, warmth, DIVERGING, *WARMTH, "$\\Delta$")
    draw_cell(panels[1], x, z, speed, SEQUENTIAL, 0, speed.max(), "$U$")
    draw_arrows(panels[1], x, z, u, w)
    draw_cell(panels[2], x, z, turning, TURNING, -strong, strong, "$U/H$")
    panels[0].set_title("temperature, in differences $\\Delta$ between the walls")
    panels[0].set_title(f"Ra = {scientific(settings.ra)}, Pr = {settings.pr:g}", loc="right")
    panels[1].set_title("velocity, in free-fall velocities $U$")
    panels[2].set_title("vorticity, in $U/H$ ($H$: height)")
    panels[-1].set_xlabel("x / H")
    return figure


def scientific(number):
    """A number as a power of ten, for mathtext: 2.5e8 -> $2.5 \\times 10^{8}$."""
    digits, power = f"{number:e}".split("e")
    digits = "" if float(digits) == 1 else f"{float(digits):g} \\times "
    return f"${digits}10^{{{int(power)}}}$"


def draw_spectrum(flow, temperature):
    """Spectra of kinetic energy and temperature along x, with the slopes that theories of turbulence predict."""
    settings, inertial = flow.report["settings"], inertial_range(flow.report)
    figure = new_figure(2.9)
    left, right = figure.subplots(1, 2)
    k, energy = spectrum_along_x(flow.velocity, settings.nx / settings.nz)
    _, variance = spectrum_along_x(temperature, settings.nx / settings.nz)
    draw_power_laws(left, k, energy / 2, {-11 / 5: "$k^{-11/5}$", -3: "$k^{-3}$"}, inertial)
    draw_power_laws(right, k, variance, {-7 / 5: "$k^{-7/5}$"}, inertial)
    found = (
        f": $k^{{{power_law(k, energy, *inertial):.1f}}}$ in the shaded range" if inertial else ", no inertial range"
    )
    left.set(title=f"kinetic energy{found}", ylabel="$E(k)$ / $U^2 H$")
    right.set(title="temperature", ylabel="$E_T(k)$ / $\\Delta^2 H$")
    right.set_title(f"Ra = {scientific(settings.ra)}", loc="right")
    return figure


def draw_power_laws(axes, k, spectrum, laws, inertial):
    """A spectrum and, in its inertial range if it has one, power laws ``{exponent: name}``."""
    axes.loglog(k[:-1], spectrum[:-1], color="black")  # the last wavenumber has a single mode instead of two
    axes.set_xlabel("wavenumber / waves per height $H$")
    if inertial:
        inside = (k >= inertial[0]) & (k <= inertial[1])
        for above, (exponent, name) in zip((4, 1.5), laws.items(), strict=False):
            reference_slope(axes, k[inside], spectrum[inside], exponent, name, above)
        axes.axvspan(*inertial, color="0.9", linewidth=0)


def animate_convection(flow, temperature, path, frames):
    """The temperature of the last ``frames`` frames as a GIF; returns its path."""
    settings, first = flow.report["settings"], len(temperature) - frames
    x, z = convection_grid(settings)
    figure = new_figure(1.4)
    axes = figure.subplots()
    mesh = draw_cell(axes, x, z, between_walls(temperature[first], 0.5, -0.5), DIVERGING, *WARMTH, "$\\Delta$")
    axes.set_xlabel("x / H")

    def update(i):
        mesh.set_array(between_walls(temperature[first + i], 0.5, -0.5).ravel())
        axes.set_title(
            f"temperature, Ra = {scientific(settings.ra)}, after {i * settings.interval:4.1f} free-fall times"
        )

    return save_animation(figure, update, frames, path)


def draw(paths, folder, pdf, animate):
    """Print the numbers of flows side by side, then write pictures of those simulated here.

    Args:
        paths, folder: of the flows; for the pictures.
        pdf, animate: also for print; also an animation.

    Yields:
        The paths that are written into ``folder``.

    Raises:
        InputError: a file is missing or broken; then nothing is written.
    """
    flows = [load_convection(path) for path in paths]
    simulated = [(path, flow) for path, flow in zip(paths, flows, strict=True) if flow.report]
    temperatures = [load_temperature(path, flow) for path, flow in simulated]
    print(*side_by_side([convection_numbers(flow) for flow in flows]), sep="\n")
    folder.mkdir(parents=True, exist_ok=True)
    for (_, flow), temperature in zip(simulated, temperatures, strict=True):
        yield from save(draw_convection(flow, temperature, -1), folder / flow.name, pdf)
        yield from save(draw_spectrum(flow, temperature), folder / f"{flow.name}_spectrum", pdf)
        if animate:
            count = min(ANIMATED, len(temperature))
            yield animate_convection(flow, temperature, folder / f"{flow.name}.gif", count)
