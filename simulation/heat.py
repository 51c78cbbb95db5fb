"""Heat that diffuses in a periodic box: the flow whose symmetries are all exact, solved exactly.

    ds/dt = kappa (d2s/dx2 + d2s/dy2)

In Fourier space a mode of wavenumber k decays by exp(-kappa |k|^2 t), so a field at any later time takes one transform
there and one back. Shifts, quarter turns, s + c and lambda s turn solutions into solutions, and so does s(lambda x,
lambda^2 t) for whole lambda, which fit the box. Lengths are in distances of points, times in frames.
"""

import math

import torch

WAVES = 8  # to a side, at most, of the fields that heat starts from


def squared_wavenumbers(height, width):
    """|k|^2 of the modes of ``rfft2``, ``(height, width // 2 + 1)`` float64, in radians per point."""
    down = 2 * math.pi * torch.fft.fftfreq(height, dtype=torch.float64)
    across = 2 * math.pi * torch.fft.rfftfreq(width, dtype=torch.float64)
    return down[:, None] ** 2 + across**2


def diffuse(field, spread):
    """The field ``(..., H, W)`` after a time t; ``spread`` is kappa t, in squared distances of points."""
    *_, height, width = field.shape
    decay = torch.exp(-spread * squared_wavenumbers(height, width))
    return torch.fft.irfft2(torch.fft.rfft2(field) * decay, (height, width))


def random_fields(count, side, seed):
    """Smooth fields to start from: ``(count, side, side)`` float64, each of mean 0 and standard deviation 1.

    Gaussian random numbers in all modes of up to ``WAVES`` waves to a side.
    """
    noise = torch.randn(count, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    kept = squared_wavenumbers(side, side) <= (2 * math.pi * WAVES / side) ** 2
    kept[0, 0] = False
    fields = torch.fft.irfft2(torch.fft.rfft2(noise) * kept, (side, side))
    return fields / fields.std((-2, -1), correction=0, keepdim=True)


def simulate(count, frames, side, diffusivity, seed=0):
    """``count`` trajectories from :func:`random_fields`: ``(count, frames, 1, side, side)`` float64."""
    start = random_fields(count, side, seed)
    return torch.stack([diffuse(start, diffusivity * time) for time in range(frames)], 1).unsqueeze(2)
