"""Energy spectrum of forecasts and the energy spectrum error (ESE) of the paper."""

import math

import numpy as np
import torch

FLOOR = 1e-20  # of a ring's power under the logarithm: only a forecast without any fluctuation reaches it
ROUNDING = 1e-10  # of the strongest ring's power: below may lie the rounding of float32 frames with a mean motion
CHUNK = 16  # samples transformed at once: faster than one huge batch on a CPU, and bounded memory


def wavenumbers(height, width, device=None):
    """Modes in the half plane of ``rfft2``: their wavenumbers, and how often each stands in the full plane.

    Returns:
        ``(radius, weight)``, both ``(height, width // 2 + 1)`` float64: the physical wavenumber in units of the
        fundamental of the longer side, and 1 or 2.
    """
    longer = max(height, width)
    ky = torch.fft.fftfreq(height, 1 / longer, dtype=torch.float64, device=device)
    kx = torch.fft.rfftfreq(width, 1 / longer, dtype=torch.float64, device=device)
    radius = torch.hypot(ky[:, None], kx[None])
    weight = torch.full_like(radius, 2)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1  # the Nyquist column is its own mirror image
    # The products of frequencies and sides are whole numbers up to rounding; do not let it drop them a ring.
    return radius + 1e-9, weight


def rings(height, width, device=None):
    """Rings of integer radius: the wavenumber, see :func:`wavenumbers`, rounded down.

    The centre is the zero frequency. (The release centres its rings half a cell off.)

    Returns:
        ``(ring, weight, size)``: the ring of every mode, ``(height * (width // 2 + 1),)`` int64, how often the mode
        stands in the full plane, 1 or 2, and how many modes of that plane each ring has, ``(rings,)`` float64.
    """
    radius, weight = (plane.flatten() for plane in wavenumbers(height, width, device))
    # Calculated here rather than asked for: a GPU would have to be waited for.
    longer = max(height, width)
    outermost = int(math.hypot(height // 2 * longer / height, width // 2 * longer / width) + 1e-9)
    ring = radius.long()
    return ring, weight, weight.new_zeros(outermost + 1).index_add_(0, ring, weight)


def kinetic_energy(frames):
    """Energy of the fluctuation about the mean in time: ``(n, time, C, H, W)`` -> ``(n, H, W)`` float64.

    Half the variance of u plus half the variance of v, by two passes over the frames, one at a time: ten times faster
    on a CPU than one reduction over a strided axis.
    """
    steps = frames.unbind(1)
    mean = sum(steps[1:], steps[0].double()) / len(steps)
    square = torch.zeros_like(mean)
    for step in steps:
        square += (step - mean).square_()
    return square.sum(1) / (2 * len(steps))


def energy_spectrum(frames, mask=None):
    """Spectrum of the fluctuating kinetic energy: |FFT|^2 of its field, *averaged* over rings of integer radius.

    Args:
        frames: ``(n, time, C, H, W)``, any float type.
        mask: ``(n, 1, H, W)``, True where a point counts; land counts as still.

    Returns:
        ``(n, rings)`` float64 on the device of ``frames``. Ring 0 is the square of the total energy; for a square of
        side N the last complete ring is N // 2, beyond it only the corners of the plane contribute.
    """
    height, width = frames.shape[-2:]
    ring, weight, size = rings(height, width, frames.device)
    spectra = []
    for i in range(0, len(frames), CHUNK):
        energy = kinetic_energy(frames[i : i + CHUNK])
        if mask is not None:
            energy = torch.where(mask[i : i + CHUNK, 0], energy, 0)
        power = torch.fft.rfft2(energy).abs().square().flatten(1) * weight
        spectra.append(power.new_zeros(len(power), len(size)).index_add_(1, ring, power) / size)
    return torch.cat(spectra)


def log_spectrum(frames, mask=None):
    """log10 of :func:`energy_spectrum` on the rings that the ESE compares: all but the innermost and outermost."""
    return energy_spectrum(frames, mask)[:, 1:-1].clamp(min=FLOOR).log10()


def spectrum_error(prediction, target, definition="mean"):
    """ESE from log spectra ``(n, rings)``: a root mean square difference of log10 power.

    Args:
        definition: ``"mean"`` averages the spectra over samples, then takes the RMS over rings (the release of March
            2021, at publication); ``"per_sample"`` takes the RMS over samples and rings (the release of 2023).

    Raises:
        ValueError: another definition.
    """
    difference = prediction - target
    if definition == "mean":
        difference = difference.mean(0)
    elif definition != "per_sample":
        raise ValueError(f'definition must be "mean" or "per_sample", got {definition!r}')
    return difference.square().mean().sqrt()


def resolved_rings(target, side, enlargement=1.0):
    """Which rings of log spectra ``(n, rings)`` say something about the truth: bool ``(rings,)``.

    They are complete, reach no further than the Nyquist wavenumber of the flow as it was before it was scaled up, and
    the truth's mean log power in them is above the rounding of its frames. A truth at rest has none.

    Args:
        target: of the truth, see :func:`log_spectrum`.
        side: points along the longer side.
        enlargement: how many times more points the flow has than before it was transformed.
    """
    ring = torch.arange(1, target.shape[1] + 1, device=target.device)
    power = target.mean(0)
    least = max(power.max() + math.log10(ROUNDING), math.log10(FLOOR))
    return (ring <= side / 2 / math.sqrt(enlargement) + 1e-9) & (power > least)


def energy_spectrum_error(prediction, target, mask=None, definition="mean"):
    """ESE of forecasts ``(n, time, C, H, W)`` against the truth; see :func:`spectrum_error` for the definitions."""
    return spectrum_error(log_spectrum(prediction, mask), log_spectrum(target, mask), definition)


def velocity_spectrum(frames, mask=None):
    """Spectrum E(k) of the velocity itself: kinetic energy *summed* over rings of integer radius.

    This is the spectrum to whose slopes theories of turbulence refer; the ESE does not use it. The mean over the valid
    points is taken out and a Hann window laid over each frame, since a tile of a flow is not periodic.

    Args:
        frames: ``(n, time, C, H, W)``; mask: ``(n, 1, H, W)``, True where a point counts; land counts as still.

    Returns:
        ``(n, rings)`` float64, averaged over the frames, in the squared unit of the flow. The sum over the rings is the
        energy (u^2 + v^2) / 2 of what is left, averaged with the squared window as weights.
    """
    ring, weight, size = rings(*frames.shape[-2:], frames.device)
    sides = [torch.arange(n, dtype=torch.float64, device=frames.device) + 0.5 for n in frames.shape[-2:]]
    down, across = (torch.sin(torch.pi * side / len(side)) ** 2 for side in sides)
    window = down[:, None] * across
    valid = torch.ones_like(frames[:, :1, :1], dtype=torch.bool) if mask is None else mask.unsqueeze(1)
    spectra = []
    for part, here in zip(frames.split(CHUNK), valid.split(CHUNK), strict=True):
        flow = torch.where(here, part.double(), 0)
        flow -= flow.sum((-2, -1), keepdim=True) / here.sum((-2, -1), keepdim=True)
        power = torch.fft.rfft2(flow * here * window).abs().square().sum(2).mean(1).flatten(1) * weight
        spectra.append(power.new_zeros(len(power), len(size)).index_add_(1, ring, power))
    return torch.cat(spectra) / (2 * len(down) * len(across) * window.square().sum())


def power_law(wavenumbers, energy, low, high):
    """The exponent that fits energy ~ wavenumber^exponent best, in least squares of the logarithms (NumPy arrays).

    Raises:
        ValueError: fewer than two wavenumbers from ``low`` to ``high``.
    """
    chosen = (wavenumbers >= low) & (wavenumbers <= high)
    if chosen.sum() < 2:
        raise ValueError(f"a slope needs two wavenumbers, there are {chosen.sum()} from {low:g} to {high:g}")
    return np.polyfit(np.log(wavenumbers[chosen]), np.log(energy[chosen]), 1)[0]
