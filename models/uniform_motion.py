"""Uniform motion: w(x, t) -> w(x, t) + c, for a constant velocity c.

Conjugation by the mean (the paper's section on uniform motion): a layer subtracts from each k x k patch its mean over
frames and taps, one mean per velocity component, convolves, applies ReLU and adds the mean back. Subtracting the
patch mean and then convolving is a convolution by the *zero-sum kernel* W - mean(W), so no patch is ever formed:

    y = relu((W - mean W) * x + b) + mean_patch(x).

Exact on every grid, borders included (padding replicates), in the full net: f(x + c) = f(x) + c.
"""

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, pad
from torch.nn.utils import parametrize

from models.backbone import RepeatedPixelKernel, ResidualBlock, Symmetry, odd_kernel, repeat_pixels, shuffle_pixels


class ZeroSum(nn.Module):
    """Parametrisation: subtract from each kernel its mean over frames and taps, per input component.

    ``(2 out, 2 in, k, k)`` with channels u0 v0 u1 v1 ...; the result annihilates flows that are uniform over the
    patch and the frames.
    """

    def forward(self, weight):
        vectors = weight.unflatten(1, (-1, 2))  # (2 out, in, 2, k, k)
        return (vectors - vectors.mean((1, 3, 4), keepdim=True)).flatten(1, 2)


class UniformMotionConv2d(nn.Module):
    """A convolution on vector features ``(n, channels, 2, H, W)``, equivariant to x -> x + c.

    Args:
        in_channels, out_channels: numbers of vectors.
        kernel_size: odd side of the kernel; padding replicates the border.
        stride: 2 halves the grid.
        activation: apply ReLU to what is relative to the patch mean.
        restore: add the patch mean back; without it the layer is *invariant*.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, activation=True, restore=True):
        super().__init__()
        self.padding = (odd_kernel(kernel_size),) * 4
        self.activation, self.restore = activation, restore
        self.conv = nn.Conv2d(2 * in_channels, 2 * out_channels, kernel_size, stride)
        parametrize.register_parametrization(self.conv, "weight", ZeroSum())

    def forward(self, x):
        y = self.conv(pad(x.flatten(1, 2), self.padding, mode="replicate"))
        if self.activation:
            y = y.relu_()
        y = y.unflatten(1, (-1, 2))
        if self.restore:
            mean = pad(x.mean(1), self.padding, mode="replicate")
            y = y + avg_pool2d(mean, self.conv.kernel_size, self.conv.stride).unsqueeze(1)
        return y


class UniformMotionUpsampling(nn.Module):
    """Doubles the grid of ``(n, channels, 2, H, W)``: repeat pixels, then a zero-sum 4 x 4 convolution with ReLU.

    Repeating keeps a uniform flow uniform, which inserting zeros does not. Computed at the low resolution, see
    :class:`~models.backbone.RepeatedPixelKernel`.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(2 * in_channels, 2 * out_channels, 4)
        parametrize.register_parametrization(self.conv, "weight", ZeroSum())
        parametrize.register_parametrization(self.conv, "weight", RepeatedPixelKernel(), unsafe=True)

    def forward(self, x):
        y = conv2d(
            pad(x.flatten(1, 2), (1, 1, 1, 1), mode="replicate"), self.conv.weight, self.conv.bias.repeat_interleave(4)
        )
        mean = avg_pool2d(repeat_pixels(x.mean(1)), 4, stride=1)
        return shuffle_pixels(y.relu_()).unflatten(1, (-1, 2)) + mean.unsqueeze(1)


class UniformMotion(Symmetry):
    """Add a constant velocity. Features are vectors ``(n, channels, 2, H, W)``."""

    name = "UM"
    resnet_widths = (32, 32, 64, 64, 128, 128, 256, 256)
    unet_widths = (32, 64, 128, 256)
    unet_up_widths = (64, 32, 16, 8)

    def sample(self, n, generator=None):
        """Velocities c ``(n, 2)``, uniform in [-2, 2]^2, in units of the standardised flow."""
        return 4 * torch.rand(n, 2, generator=generator) - 2

    def act(self, g, frames):
        """w + c, on every point: in a moving frame the land moves too."""
        return frames + g.to(frames)[:, None, :, None, None]

    def reduce(self, frames):
        # Exact arithmetic would not need this; in float32 and bfloat16 it keeps a large c from eating the digits.
        # The net does not depend on the centre, so no gradient has to pass through it.
        centre = frames.detach().mean((1, 3, 4), keepdim=True)
        return frames - centre, centre.squeeze(1)

    def restore(self, frame, state):
        return frame + state

    def lift(self, input_length):
        return nn.Identity(), input_length

    def convolution(self, in_channels, out_channels, kernel_size, stride=1):
        return UniformMotionConv2d(in_channels, out_channels, kernel_size, stride)

    def residual_block(self, in_channels, out_channels, kernel_size):
        # The mean passes once, through the skip: equivariant + invariant = equivariant.
        first = UniformMotionConv2d(in_channels, out_channels, kernel_size)
        second = UniformMotionConv2d(out_channels, out_channels, kernel_size, restore=False)
        same = in_channels == out_channels
        skip = nn.Identity() if same else UniformMotionConv2d(in_channels, out_channels, kernel_size)
        return ResidualBlock(first, second, skip)

    def upsampling(self, in_channels, out_channels):
        return UniformMotionUpsampling(in_channels, out_channels)

    def output(self, in_channels, kernel_size):
        conv = UniformMotionConv2d(in_channels, 1, kernel_size, activation=False)
        return nn.Sequential(conv, nn.Flatten(1, 2))
