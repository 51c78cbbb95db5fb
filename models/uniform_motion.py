"""Uniform motion: w(x, t) -> w(x, t) + c, for a constant velocity c.

Conjugation by the mean (the paper's section on uniform motion): a layer subtracts from each k x k patch its mean over
frames and taps, one mean per velocity component, convolves, applies ReLU and adds the mean back. Subtracting the
patch mean and then convolving is a convolution by the *zero-sum kernel* W - mean(W), so no patch is ever formed:

    y = relu((W - mean W) * x + b) + mean_patch(x).

Exact on every grid, borders included (padding replicates, or wraps), in the full net: f(x + c) = f(x) + c.

Scalars beside a velocity are passive: c does not change them, their kernels keep their sums and no mean is added back.
Data of scalars alone are shifted themselves, w + c for a number c: the symmetry of the heat equation.

Relaxed by gains: a layer keeps a share eps of its kernel's mean and adds back 1 - eps of the patch mean. Free: a kernel
of its own is added to the zero-sum one.
"""

import math

import torch
from torch import nn
from torch.nn.functional import avg_pool2d
from torch.nn.utils import parametrize

from models.backbone import (
    ResidualBlock,
    Symmetry,
    convolve_repeated,
    deviation,
    extend,
    odd_kernel,
    pool_repeated,
)
from models.fields import Features, of_component


class ZeroSum(nn.Module):
    """Parametrisation: subtract from each kernel its mean over frames and taps, per input component that moves.

    ``(D out, D in, k, k)``, channels by D components; the result annihilates what is uniform over the patch and the
    frames.
    """

    def __init__(self, moving, relaxed="", shape=()):
        super().__init__()
        self.moving, self.free = moving, relaxed == "free"
        self.deviation = deviation(relaxed, *shape if self.free else ())

    @property
    def share(self):
        """What share of the means is taken out."""
        return 1 if self.deviation is None or self.free else 1 - self.deviation

    def forward(self, weight):
        tuples = weight.unflatten(1, (-1, len(self.moving)))  # (D out, in, D, k, k)
        over_frames = mean_over(tuples, 1)
        means = self.share * moved(mean_over(over_frames, 3, 4), self.moving, 2)
        means = means.expand_as(over_frames).contiguous()  # a copy for every tap: long rows are subtracted fast
        kernel = (tuples - means).flatten(1, 2)
        return kernel + self.deviation if self.free else kernel


def mean_over(values, *axes):
    """The mean over axes, which stay; its gradient is a view, where that of torch's own is written out."""
    return values.sum(axes, keepdim=True) / math.prod(values.shape[axis] for axis in axes)


def moved(values, moving, axis):
    """``values`` with 0 for the components, along ``axis``, that do not move."""
    if all(moving):
        return values
    return torch.stack(
        [v if m else torch.zeros_like(v) for v, m in zip(values.unbind(axis), moving, strict=True)], axis
    )


class UniformMotionConv2d(nn.Module):
    """A convolution on features ``(n, channels, D, H, W)``, equivariant to x -> x + c.

    Args:
        in_channels, out_channels: numbers of D-tuples, velocities if D is 2.
        kernel_size: odd side of the kernel; padding replicates the border but of periodic axes.
        moving: for each of the D components whether c moves it.
        stride: 2 halves the grid.
        activation: apply ReLU to what is relative to the patch mean.
        restore: add the patch mean back; without it the layer is *invariant*.
        relaxed: "", "gains" or "free".
        periodic: axes that end where they begin.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        moving=(True, True),
        stride=1,
        activation=True,
        restore=True,
        relaxed="",
        periodic=(),
    ):
        super().__init__()
        self.padding, self.periodic = odd_kernel(kernel_size), periodic
        self.moving, self.activation, self.restore = moving, activation, restore
        size = len(moving)
        self.conv = nn.Conv2d(size * in_channels, size * out_channels, kernel_size, stride)
        parametrize.register_parametrization(self.conv, "weight", ZeroSum(moving, relaxed, self.conv.weight.shape))

    @property
    def share(self):
        """What share of the means is taken out and added back."""
        return self.conv.parametrizations.weight[0].share

    def forward(self, x):
        y = self.conv(extend(x.flatten(1, 2), self.padding, self.periodic, "replicate"))
        if self.activation:
            y = y.relu_()
        y = y.unflatten(1, (-1, len(self.moving)))
        if self.restore:
            mean = self.share * moved(mean_over(x, 1).squeeze(1), self.moving, 1)
            mean = extend(mean, self.padding, self.periodic, "replicate")
            y = y + avg_pool2d(mean, self.conv.kernel_size, self.conv.stride).unsqueeze(1)
        return y


class UniformMotionUpsampling(nn.Module):
    """Doubles the grid of ``(n, channels, D, H, W)``: repeat pixels, then a zero-sum 4 x 4 convolution with ReLU.

    Repeating keeps a uniform flow uniform, which inserting zeros does not.
    See :func:`~models.backbone.convolve_repeated`.
    """

    def __init__(self, in_channels, out_channels, moving=(True, True), relaxed="", periodic=()):
        super().__init__()
        self.moving, self.periodic, size = moving, periodic, len(moving)
        self.conv = nn.Conv2d(size * in_channels, size * out_channels, 4)
        parametrize.register_parametrization(self.conv, "weight", ZeroSum(moving, relaxed, self.conv.weight.shape))

    def forward(self, x):
        y = convolve_repeated(x.flatten(1, 2), self.conv.weight, self.conv.bias, self.periodic).relu_()
        return y.unflatten(1, (-1, len(self.moving))) + self.mean(x)

    def mean(self, x):
        """What every output point has seen on average, of the components that move: ``(n, 1, D, 2 H, 2 W)``."""
        mean = self.conv.parametrizations.weight[0].share * moved(mean_over(x, 1).squeeze(1), self.moving, 1)
        return pool_repeated(avg_pool2d, mean, self.periodic).unsqueeze(1)


class UniformMotion(Symmetry):
    """Add a constant velocity. Features are D-tuples like the data's components ``(n, channels, D, H, W)``."""

    name = "UM"
    own_frames = ("UM",)  # keeps a large c from eating the digits of float32 and bfloat16

    @property
    def channel_size(self):
        return self.components

    @property
    def moving(self):
        """For every component whether c moves it: those of velocities, or of scalars where there is no velocity."""
        kinds = of_component(self.fields, self.fields)
        return tuple(kind == "vector" or "vector" not in kinds for kind in kinds)

    def sample(self, n, generator=None):
        """c ``(n, moving components)``, uniform in [-2, 2], in units of the standardised flow."""
        return 4 * torch.rand(n, sum(self.moving), generator=generator) - 2

    def act(self, g, frames):
        """w + c, on every point: in a moving frame the land moves too."""
        c = iter(g.to(frames).unbind(1))
        shift = [next(c) if moves else frames.new_zeros(len(g)) for moves in self.moving]
        return frames + torch.stack(shift, 1)[:, None, :, None, None]

    def take_out(self, frames):
        """The frame of reference of the window's mean: over frames and points, land included."""
        mean = moved(frames.mean((1, 3, 4), keepdim=True), self.moving, 2)
        return frames - mean, mean.squeeze(1)

    def put_back(self, forecast, state):
        return forecast + state

    def lift(self, input_length):
        return nn.Identity(), Features("hidden", input_length)

    def convolution(self, reads, writes, kernel_size, stride=1, **options):
        options = {"relaxed": self.relaxed, "periodic": self.periodic, **options}
        return UniformMotionConv2d(reads.channels, writes.channels, kernel_size, self.moving, stride, **options)

    def residual_block(self, reads, writes, kernel_size):
        # The mean passes once, through the skip: equivariant + invariant = equivariant.
        first = self.convolution(reads, writes, kernel_size)
        second = self.convolution(writes, writes, kernel_size, restore=False)
        return ResidualBlock(
            first, second, nn.Identity() if reads == writes else self.convolution(reads, writes, kernel_size)
        )

    def upsampling(self, reads, writes):
        return UniformMotionUpsampling(reads.channels, writes.channels, self.moving, self.relaxed, self.periodic)

    def output(self, reads, kernel_size):
        conv = self.convolution(reads, Features("hidden", 1), kernel_size, activation=False)
        return nn.Sequential(conv, nn.Flatten(1, 2))
