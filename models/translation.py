"""Space translation: w(x, t) -> w(x - c, t). The plain nets.

Every convolution commutes with translations, so these are ordinary nets. They are the control: under every other
symmetry they must fail. Zero padding breaks translation within a receptive field of the border, and the U-Net
commutes with shifts by multiples of 16 cells only.
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.backbone import ResidualBlock, Symmetry, odd_kernel
from models.fields import Features


@dataclass(frozen=True)
class Translation(Symmetry):
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

    def convolution(self, reads, writes, kernel_size, stride=1):
        return nn.Sequential(
            nn.Conv2d(reads.channels, writes.channels, kernel_size, stride, odd_kernel(kernel_size)),
            nn.ReLU(inplace=True),
        )

    def residual_block(self, reads, writes, kernel_size):
        def convolution(channels, *norm):
            conv = nn.Conv2d(channels, writes.channels, kernel_size, padding=odd_kernel(kernel_size))
            return nn.Sequential(conv, *norm, nn.LeakyReLU(inplace=True))

        first = convolution(reads.channels, nn.BatchNorm2d(writes.channels))
        second = convolution(writes.channels, nn.BatchNorm2d(writes.channels))
        return ResidualBlock(first, second, nn.Identity() if reads == writes else convolution(reads.channels))

    def upsampling(self, reads, writes):
        return nn.Sequential(
            nn.ConvTranspose2d(reads.channels, writes.channels, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )

    def output(self, reads, kernel_size):
        return nn.Conv2d(reads.channels, self.components, kernel_size, padding=odd_kernel(kernel_size))
