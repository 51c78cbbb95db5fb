"""The Fourier neural operator: a plain net whose layers act on the lowest Fourier modes of whole frames.

Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart and Anandkumar, ICLR 2021, arXiv 2010.08895. A layer is

    v -> gelu(W v + F^-1 (R F v)),

F the Fourier transform in space, R a complex matrix for each of the lowest modes, W a matrix at every point. Frames are
taken as periodic: then the net commutes with any shift. Matrices belong to modes, whatever the grid: a layer does the
same to a band-limited field at every resolution that holds its band, but for what the activation adds beyond it.
"""

import math

import torch
from torch import nn
from torch.nn.functional import gelu

from models.backbone import Forecaster
from models.translation import Translation

MODES = 12  # wavenumbers kept along an axis, in either direction: 0 ... 11 and -12 ... -1
WIDTH, PROJECTION, LAYERS = 32, 128, 4  # of the paper's nets for two-dimensional flow


class SpectralConv2d(nn.Module):
    """Multiply the lowest modes of ``(n, channels, H, W)``, each by a matrix of its own; the others become 0."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        scale = 1 / math.sqrt(in_channels)
        # real and imaginary parts; rows are the wavenumbers 0, 1 ..., -2, -1 along y, columns 0, 1 ... along x
        self.weight = nn.Parameter(scale * torch.randn(in_channels, out_channels, 2 * MODES, MODES, 2) / 2)

    def forward(self, x):
        height, width = x.shape[-2:]
        up, down, across = (min(MODES, n) for n in ((height + 1) // 2, (height - 1) // 2, (width + 1) // 2))
        rows = torch.arange(-down, up, device=x.device)  # below the Nyquist wavenumber, which has no direction
        modes = torch.fft.rfft2(x.to(self.weight.dtype), norm="forward")  # there is none in bfloat16 on a GPU
        kept = torch.view_as_complex(self.weight)[:, :, rows % (2 * MODES), :across]
        low = torch.einsum("niyx,ioyx->noyx", modes[:, :, rows % height, :across], kept)
        spectrum = low.new_zeros(len(x), low.shape[1], *modes.shape[-2:])
        spectrum[:, :, rows % height, :across] = low
        return torch.fft.irfft2(spectrum, (height, width), norm="forward")


class FNO(Forecaster):
    """Four Fourier layers between a lifting and a projection at every point. It has no kernels of ``kernel_size``."""

    plain = True

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0, frames=()):
        super().__init__(symmetry, input_length, kernel_size, width, frames)
        channels, projection = self.hidden(WIDTH).channels, self.hidden(PROJECTION).channels
        self.lifting = nn.Conv2d(self.lifted.channels, channels, 1)
        self.spectral = nn.ModuleList(SpectralConv2d(channels, channels) for _ in range(LAYERS))
        self.pointwise = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(LAYERS))
        self.projection = nn.Sequential(
            nn.Conv2d(channels, projection, 1), nn.GELU(), nn.Conv2d(projection, symmetry.components, 1)
        )

    @classmethod
    def accept(cls, symmetry):
        if type(symmetry) is not Translation or symmetry.relaxed:
            raise ValueError(f"{cls.__name__} is a plain net: it goes with symmetry None, strict and without variants")
        if len(symmetry.periodic) == 1:
            raise ValueError(f"{cls.__name__} takes both axes as periodic, not {symmetry.periodic[0]} alone")

    def trunk(self, x):
        x = self.lifting(x)
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            x = gelu(spectral(x) + pointwise(x))
        return self.projection(x)
