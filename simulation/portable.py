"""What the simulations compute with: the same numbers, to the last bit, on every x86 CPU.

Convection is chaotic: where one CPU rounds another way, another flow comes of it, another data set under the same name.
Each sum, difference, product and quotient has one right result (IEEE 754) as long as it is an operation of its own.
Results that depend on the CPU are those of matrix products and transforms that choose their code by it, those of
``lerp``, ``addcmul`` and ``add(alpha=)`` in torch, which are rounded once where a CPU can multiply and add in one go,
and the last digits of elementary functions.
"""

from functools import cache

import numpy as np
import torch
from scipy import fft


def cosine(angle):
    """cos(pi angle) of a NumPy array, float64: computed in long double, so that other last digits round to the same."""
    return np.cos(np.arccos(np.longdouble(-1)) * angle.astype(np.longdouble)).astype(np.float64)


def between(field, dim):
    """Means of neighbours along ``dim``: any tensor, one shorter there."""
    pairs = field.narrow(dim, 1, field.shape[dim] - 1) + field.narrow(dim, 0, field.shape[dim] - 1)
    return pairs.mul_(0.5)  # the same number as a quotient by 2, and four times as fast


class Poisson:
    """The pressure whose gradient takes the divergence out of a flow on a grid of square cells.

    The grid's Laplacian is diagonal under the cosine transform between walls, under the Fourier transform along an axis
    that is periodic.

    Args:
        rows, columns: of the grid, between walls below and above.
        periodic: whether the columns are; else there are walls to the left and right, too.
        dtype, device: of the fields.
    """

    def __init__(self, rows, columns, periodic, dtype, device):
        self.periodic = periodic
        across = 2 * np.arange(columns // 2 + 1) if periodic else np.arange(columns)
        laplacian = (2 * cosine(np.arange(rows) / rows) - 2)[:, None] + (2 * cosine(across / columns) - 2)
        laplacian[0, 0] = np.inf  # the mean pressure is free
        self.inverse_laplacian = torch.from_numpy(1 / laplacian).to(device, dtype)

    def pressure(self, outflow):
        """``(..., rows, columns)``, such that ``outflow`` is the sum over its faces of the pressure's differences."""
        modes = cosine_transform(outflow, -2)
        modes = fourier_transform(modes) if self.periodic else cosine_transform(modes, -1)
        modes = modes * self.inverse_laplacian
        modes = (
            inverse_fourier_transform(modes, outflow.shape[-1]) if self.periodic else cosine_transform(modes, -1, True)
        )
        return cosine_transform(modes, -2, True)


def cosine_transform(field, dim, inverse=False):
    """The orthonormal cosine transform of type 2 along ``dim``, or its inverse."""
    if field.is_cpu:  # SciPy's code is the same on all of them
        return torch.from_numpy(fft.dct(field.numpy(), 3 if inverse else 2, axis=dim, norm="ortho"))
    return product_with_cosines(field, dim, inverse)


def product_with_cosines(field, dim, inverse=False):
    """:func:`cosine_transform` as a matrix product, for devices that SciPy does not know."""
    matrix = _cosines(field.shape[dim], field.dtype, field.device)
    return ((matrix.T if inverse else matrix) @ field.movedim(dim, -2)).movedim(-2, dim)


@cache
def _cosines(n, dtype, device):
    return torch.from_numpy(fft.dct(np.eye(n), axis=0, norm="ortho")).to(device, dtype)


def fourier_transform(field):
    """The Fourier transform of a real field along its last axis."""
    return torch.from_numpy(fft.rfft(field.numpy())) if field.is_cpu else torch.fft.rfft(field)


def inverse_fourier_transform(modes, n):
    """The real field of ``n`` columns with these modes."""
    return torch.from_numpy(fft.irfft(modes.numpy(), n)) if modes.is_cpu else torch.fft.irfft(modes, n)
