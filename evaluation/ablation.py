"""Nets with one part changed: what is that part worth? ``run_model.py --symmetry=Scale --variant=drift`` trains one.

They are here and not beside the nets because nobody should use them for anything else.
"""

import torch
from torch import nn

from models.fields import Features
from models.scale import Lifting, Projection, Scale


class Increment(Scale):
    """The readout without sigma^-2: all levels forecast a change alike."""

    def output(self, reads, kernel_size):
        return Projection(super().output(reads, kernel_size).conv, [1.0] * self.num_scales)


class Drift(Scale):
    """Without the fixed point: a steady flow may drift."""

    def before(self, frames):
        return frames, frames[:, -1]

    def after(self, output, state):
        return state + output


class NextFrame(Increment):
    """The net's output is the next frame, as in the paper."""

    def before(self, frames):
        return frames, None

    def after(self, output, state):
        return output


class Largest(Scale):
    """The largest of the levels instead of their mean."""

    def output(self, reads, kernel_size):
        return LargestLevel(super().output(reads, kernel_size))


class LargestLevel(nn.Module):
    def __init__(self, projection):
        super().__init__()
        self.projection = projection

    def forward(self, x):
        return (self.projection.conv(x) * self.projection.weights).amax(2)


class One(Scale):
    """One level is read, the first, as in the release."""

    def output(self, reads, kernel_size):
        return FirstLevel(super().output(reads, kernel_size))


class FirstLevel(LargestLevel):
    def forward(self, x):
        return (self.projection.conv(x) * self.projection.weights)[:, :, 0]


class Space(Scale):
    """Lifting in space only: every level reads the flow one and two frames ago."""

    def lift(self, input_length):
        lifting, features = super().lift(input_length)
        return Lifting(input_length, [1.0] * self.num_scales), features


class Release(Scale):
    """The release's lifting: all frames as channels, blurred."""

    def lift(self, input_length):
        return BlurredLifting(self.sigmas), Features("hidden", self.components * input_length)


class BlurredLifting(nn.Module):
    """Level sigma is sigma times the flow.

    Levels above 1 are blurred by Gaussians of standard deviation (sigma - 1)^2 in time and sigma - 1 in space.
    """

    def __init__(self, sigmas):
        super().__init__()
        self.sigmas = sigmas

    def forward(self, frames):
        levels = []
        for sigma in self.sigmas:
            level = sigma * frames
            if sigma > 1:
                for axis, width in ((1, (sigma - 1) ** 2), (3, sigma - 1), (4, sigma - 1)):
                    level = blur(level, axis, width)
            levels.append(level.flatten(1, 2))
        return torch.stack(levels, 1).transpose(1, 2)


def blur(x, axis, width):
    """Gaussian mean along ``axis`` with standard deviation ``width``; at the ends over the points there are."""
    index = torch.arange(x.shape[axis], device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * ((index[:, None] - index) / width).square())
    return (x.movedim(axis, -1) @ (weights / weights.sum(0))).movedim(-1, axis)


VARIANTS = {
    "increment": Increment(),
    "drift": Drift(),
    "next-frame": NextFrame(),
    "largest": Largest(),
    "one": One(),
    "space": Space(),
    "release": Release(),
}


def variant_of(symmetry, name):
    """The variant ``name`` of the symmetry of that name; the symmetry's name itself where there is none.

    Raises:
        ValueError: no such variant of this symmetry.
    """
    if not name:
        return symmetry
    of_symmetry = [key for key, variant in VARIANTS.items() if variant.name == symmetry]
    if name not in of_symmetry:
        raise ValueError(f"symmetry {symmetry} has no variant {name!r}; it has {', '.join(of_symmetry) or 'none'}")
    return VARIANTS[name]
