"""Nets with one part changed: what is that part worth? ``run_model.py --symmetry=Scale --variant=drift`` trains one.

They are here and not beside the nets because nobody should use them for anything else.
"""

import math

import torch
from torch import nn

from models import SYMMETRIES
from models.approximate import PUBLISHED
from models.backbone import convolve_repeated
from models.fields import Features
from models.magnitude import Magnitude
from models.rotation import Rotation
from models.scale import Lifting, Projection, Scale
from models.translation import Translation
from models.uniform_motion import UniformMotion, UniformMotionUpsampling

# ---------------------------------------------------------------- plain nets with one part of the others


class Residual(Translation):
    """Forecasts the last frame plus the net."""

    def before(self, frames):
        return frames, frames[:, -1]

    def after(self, output, state):
        return state + output


class Replicated(Translation):
    """Padding replicates the border, and pixels are repeated where the plain U-Net inserts zeros, as in UM and Mag."""

    def convolution(self, reads, writes, kernel_size, stride=1):
        return replicate(super().convolution(reads, writes, kernel_size, stride))

    def residual_block(self, reads, writes, kernel_size):
        return replicate(super().residual_block(reads, writes, kernel_size))

    def output(self, reads, kernel_size):
        return replicate(super().output(reads, kernel_size))

    def upsampling(self, reads, writes):
        conv = nn.Conv2d(reads.channels, writes.channels, 4)
        return RepeatedPixels(conv, self.periodic)


def replicate(module):
    """Let all convolutions of a module replicate the border."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            conv.padding_mode = "replicate"
    return module


class RepeatedPixels(nn.Module):
    """A 4 x 4 convolution on pixels repeated twice, and ReLU."""

    def __init__(self, conv, periodic):
        super().__init__()
        self.conv, self.periodic = conv, periodic

    def forward(self, x):
        return convolve_repeated(x, self.conv.weight, self.conv.bias, self.periodic).relu_()


class HeStart(Translation):
    """Weights start as of He et al. (ICCV 2015): layers keep the mean square of what they read.

    Torch's own start leaves a sixth of it at every ReLU, so that the coarsest levels of a U-Net hardly count at first.
    """

    def convolution(self, reads, writes, kernel_size, stride=1):
        return start(super().convolution(reads, writes, kernel_size, stride), gain=2)

    def residual_block(self, reads, writes, kernel_size):
        return start(super().residual_block(reads, writes, kernel_size), gain=2)

    def upsampling(self, reads, writes):
        return start(super().upsampling(reads, writes), gain=2)

    def output(self, reads, kernel_size):
        return start(super().output(reads, kernel_size), gain=1)


def start(module, gain):
    """Draw the weights of a module's convolutions again, their variance ``gain`` over how many numbers are added."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            added = conv.weight[0].numel()
        elif isinstance(conv, nn.ConvTranspose2d):
            added = conv.weight[:, 0].numel() / math.prod(conv.stride)  # the rest is of other pixels
        else:
            continue
        nn.init.normal_(conv.weight, std=math.sqrt(gain / added))
        nn.init.zeros_(conv.bias)
    return module


# ---------------------------------------------------------------- the layers of motion and magnitude, unconstrained


class FreeMotion(UniformMotion):
    """Kernels keep their sums and the net has no frame of reference; means are added back as before."""

    own_frames = ()

    def convolution(self, reads, writes, kernel_size, stride=1, **options):
        return free(super().convolution(reads, writes, kernel_size, stride, **options))

    def upsampling(self, reads, writes):
        return free(super().upsampling(reads, writes))


def free(layer):
    """A layer of uniform motion whose kernel keeps its sum."""
    layer.conv.parametrizations.weight[0].moving = (False,) * len(layer.moving)
    return layer


class FreeMagnitude(FreeMotion):
    """The magnitude net without ranges: ordinary convolutions on pairs, with its depths, padding and upsampling."""

    name = "Mag"
    unet_depths = Magnitude.unet_depths

    def convolution(self, reads, writes, kernel_size, stride=1, **options):
        return super().convolution(reads, writes, kernel_size, stride, **{**options, "restore": False})

    def residual_block(self, reads, writes, kernel_size):
        block = super().residual_block(reads, writes, kernel_size)
        if reads != writes:
            block.skip.activation = False  # as in the magnitude net
        return block

    def upsampling(self, reads, writes):
        return free(WithoutMean(reads.channels, writes.channels, self.moving, periodic=self.periodic))


class WithoutMean(UniformMotionUpsampling):
    """An upsampling that adds no mean back."""

    def forward(self, x):
        return super().forward(x) - self.mean(x)


# ---------------------------------------------------------------- rotation nets


class Shift(nn.Module):
    """Adds a number to every field ``(n, fields, elements, H, W)``."""

    def __init__(self, fields):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(fields, 1, 1, 1))

    def forward(self, x):
        return x + self.shift


class Normless(Rotation):
    """A shift of every field in place of its batch norm. (ConvNets have no norms as they are.)"""

    norm = Shift


# ---------------------------------------------------------------- scale nets


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
        if self.periodic:
            raise ValueError("variant release blurs up to the border, it does not continue frames periodically")
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
    "None": {"residual": Residual(), "replicate": Replicated(), "he": HeStart()},
    "UM": {"free": FreeMotion()},
    "Mag": {"free": FreeMagnitude()},
    "Rot": {"normless": Normless()},
    "Scale": {
        "increment": Increment(),
        "drift": Drift(),
        "next-frame": NextFrame(),
        "largest": Largest(),
        "one": One(),
        "space": Space(),
        "release": Release(),
    },
}


def variants_of(symmetry):
    """All variants of the symmetry of that name: those here, and the layers of the second paper."""
    return VARIANTS.get(symmetry, {}) | PUBLISHED.get(symmetry, {})


def variant_of(symmetry, name):
    """The variant ``name`` of the symmetry of that name; without a name the symmetry itself.

    Raises:
        ValueError: no such variant of this symmetry.
    """
    variants = variants_of(symmetry)
    if name and name not in variants:
        raise ValueError(f"symmetry {symmetry} has no variant {name!r}; it has {', '.join(variants) or 'none'}")
    return variants[name] if name else SYMMETRIES[symmetry]
