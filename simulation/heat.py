"""Heat that diffuses in a periodic box: the flow whose symmetries are all exact, solved exactly.

    ds/dt = kappa (d2s/dx2 + d2s/dy2)

In Fourier space a mode of wavenumber k decays by exp(-kappa |k|^2 t), so a field at any later time takes one transform
there and one back. Shifts, quarter turns, s + c and lambda s turn solutions into solutions, and so does s(lambda x,
lambda^2 t) for whole lambda, which fit the box. Lengths are in distances of points, times in frames. All in NumPy and
float64; rounded to float32, frames are the same on every x86 CPU.
"""

import numpy as np
from scipy import fft

WAVES = 8  # to a side, at most, of the fields that heat starts from


def squared_wavenumbers(height, width):
    """|k|^2 of the modes of ``rfft2``, ``(height, width // 2 + 1)``, in radians per point."""
    return (2 * np.pi * fft.fftfreq(height)[:, None]) ** 2 + (2 * np.pi * fft.rfftfreq(width)) ** 2


def diffuse(field, spread):
    """The field ``(..., H, W)`` after a time t; ``spread`` is kappa t, in squared distances of points."""
    shape = field.shape[-2:]
    decay = np.exp(-spread * squared_wavenumbers(*shape).astype(np.longdouble)).astype(np.float64)
    return fft.irfft2(fft.rfft2(field) * decay, shape)


def random_fields(count, side, seed):
    """Smooth fields to start from: ``(count, side, side)``, each of mean 0 and standard deviation 1.

    Gaussian random numbers in all modes of up to ``WAVES`` waves to a side.
    """
    noise = np.random.default_rng(seed).standard_normal((count, side, side))
    kept = squared_wavenumbers(side, side) <= (2 * np.pi * WAVES / side) ** 2
    kept[0, 0] = False
    fields = fft.irfft2(fft.rfft2(noise) * kept, (side, side))
    return fields / fields.std((-2, -1), keepdims=True)


def simulate(count, frames, side, diffusivity, seed=0):
    """``count`` trajectories from :func:`random_fields`: ``(count, frames, 1, side, side)``."""
    start = random_fields(count, side, seed)
    return np.stack([diffuse(start, diffusivity * time) for time in range(frames)], 1)[:, :, None]
