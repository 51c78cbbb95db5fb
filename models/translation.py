"""Space translation: w(x, t) -> w(x - c, t). The plain nets.

Every convolution commutes with translations, so these are ordinary nets. They are the control: under every other
symmetry they must fail. Zero padding breaks translation within a receptive field of the border, which periodic
frames do not have, and the U-Net commutes with shifts by multiples of 16 cells only.

Relaxed: the output of a convolution is multiplied by 1 + a map of a few cosine modes over the grid, of any size.
"""

import math

import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d

from models.backbone import ResidualBlock, Symmetry, deviation, extend, odd_kernel
from models.fields import Features
from models.options import TranslationOptions

MODES = [(i, j) for i in range(4) for j in range(4) if 0 < i + j < 4]  # half waves along y and x


def by_place(y, gains, modes):
    """``y (n, channels, H, W)`` times 1 + the sum of cosine modes.

    Divided by its wavenumber: so equal decay of all numbers holds short waves back, as the square of the wavenumber in
    gradient descent, in proportion to it with Adam, whose steps do not know the size of the gradient.

    Args:
        gains: a number for each mode ``(k,)``, or None.
        modes: their half waves along y and x, ``(2, k)``.
    """
    if gains is None:
        return y
    down, across = (
        torch.cos(torch.outer((torch.arange(n, device=y.device, dtype=modes.dtype) + 0.5) * (math.pi / n), waves))
        for n, waves in zip(y.shape[-2:], modes, strict=True)
    )
    series = (down * (gains / modes.norm(dim=0))) @ across.T
    return y * (1 + series).to(y.dtype)


class ByPlace:
    """Of a layer of torch: its output may depend on the place, and axes may be ``periodic``."""

    def __init__(self, *args, relaxed, periodic, **options):
        super().__init__(*args, **options)
        self.periodic = periodic
        self.deviation = deviation(relaxed, len(MODES))
        self.register_buffer("modes", torch.tensor(MODES).T.float() if relaxed else None, persistent=False)

    def forward(self, x):
        y = self.on_extended(x, self.padding[0]) if self.periodic else super().forward(x)
        return by_place(y, self.deviation, self.modes)


class Conv2d(ByPlace, nn.Conv2d):
    """A convolution."""

    def on_extended(self, x, padding):
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return conv2d(extend(x, padding, self.periodic, mode), self.weight, self.bias, self.stride)


class ConvTranspose2d(ByPlace, nn.ConvTranspose2d):
    """A transposed convolution that doubles the grid."""

    def on_extended(self, x, padding):
        cropped = 3 * padding  # two more cells of the output for each that the input was extended by
        return conv_transpose2d(extend(x, padding, self.periodic), self.weight, self.bias, self.stride, cropped)


class Translation(TranslationOptions, Symmetry):
    """Shift by whole cells. Features are numbers ``(n, channels, H, W)``."""

    name = "None"  # the release's flag: no symmetry beyond translation

    def sample(self, n, generator=None):
        """Shifts ``(n, 2)`` of up to 8 cells along x and y (the paper has no test set for translation)."""
        return torch.randint(-8, 9, (n, 2), generator=generator)

    def act(self, g, frames):
        """w(x - c, t), the grid taken as periodic."""
        shifted = [torch.roll(w, (int(y), int(x)), (-2, -1)) for w, (x, y) in zip(frames, g, strict=True)]
        return torch.stack(shifted)

    def lift(self, input_length):
        return nn.Flatten(1, 2), Features("hidden", self.components * input_length)

    def linear(self, reads, channels, kernel_size, stride=1):
        """A convolution without activation that writes ``channels``."""
        sizes = reads.channels, channels, kernel_size, stride, odd_kernel(kernel_size)
        return Conv2d(*sizes, relaxed=self.relaxed, periodic=self.periodic)

    def convolution(self, reads, writes, kernel_size, stride=1):
        conv = self.linear(reads, writes.channels, kernel_size, stride)
        return nn.Sequential(conv, nn.ReLU(inplace=True))

    def residual_block(self, reads, writes, kernel_size):
        def convolution(features, *norm):
            conv = self.linear(features, writes.channels, kernel_size)
            return nn.Sequential(conv, *norm, nn.LeakyReLU(inplace=True))

        first = convolution(reads, nn.BatchNorm2d(writes.channels))
        second = convolution(writes, nn.BatchNorm2d(writes.channels))
        return ResidualBlock(first, second, nn.Identity() if reads == writes else convolution(reads))

    def upsampling(self, reads, writes):
        sizes = reads.channels, writes.channels, 4, 2, 1
        conv = ConvTranspose2d(*sizes, relaxed=self.relaxed, periodic=self.periodic)
        return nn.Sequential(conv, nn.ReLU(inplace=True))

    def output(self, reads, kernel_size):
        return self.linear(reads, self.components, kernel_size)
