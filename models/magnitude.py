"""Magnitude: w(x, t) -> lambda w(x, t), for lambda > 0.

Conjugation by the range (the paper's section on magnitude): a layer divides each k x k patch by its range, max - min
over frames and taps, one range per velocity component, convolves, applies ReLU and multiplies by the range again.
ReLU commutes with positive factors, so for the u outputs the range r_u cancels except against r_v,

    y_u = relu(W_uu * x_u + (r_u / r_v) W_uv * x_v + r_u b_u),     and likewise y_v,

which is one convolution grouped by input component and one map of ratios: no patch is ever formed.
Exact for the full net, weak flows included: f(lambda x) = lambda f(x).

The ratio needs a guard where a component does not vary (land, still water). The release adds 1e-6 to every range,
which breaks the symmetry for weak flows; what :func:`ranges_and_ratios` adds scales with the flow.
"""

import torch
from torch import nn
from torch.nn.functional import conv2d, max_pool2d, pad
from torch.nn.utils import parametrize

from models.backbone import RepeatedPixelKernel, ResidualBlock, Symmetry, odd_kernel, repeat_pixels, shuffle_pixels


class ByComponent(nn.Module):
    """Parametrisation: ``(2 out, 2 in, k, k)``, channels u0 v0 u1 v1 ..., to a kernel grouped by input component.

    The result ``(2 * 2 * out, in, k, k)`` yields, with ``groups=2``, channels in the order
    (component read, component written, out).
    """

    def forward(self, weight):
        vectors = weight.unflatten(1, (-1, 2)).unflatten(0, (-1, 2))  # (out, written, in, read, k, k)
        return vectors.permute(3, 1, 0, 2, 4, 5).flatten(0, 2)


def extremes_of_channels(x):
    """Maxima and negated minima over channels: ``(n, channels, 2, H, W)`` -> ``(n, 4, H, W)``."""
    return torch.cat([x.amax(1), -x.amin(1)], 1)  # vectorised, which aminmax is not


EPSILON = 3e-5  # share of a patch's largest value that is added to its ranges
STILL = 1e-30  # of an rms of 1: a patch this weak passes nothing from one component to the other


def ranges_and_ratios(extremes):
    """Ranges r of patches and their ratios r_u / r_v, r_v / r_u, from the pooled extremes ``(n, 4, H, W)``.

    A component that is nearly constant over a patch has hardly any range to divide by. So r is max - min + EPSILON
    times the largest absolute value of both components: a uniform flow has the ratio 1, no ratio exceeds 2 / EPSILON
    and gradients stay bounded, and yet r scales with the flow.

    Returns:
        ``(r, ratio)``, both ``(n, 2, H, W)``.
    """
    high, low = extremes.chunk(2, 1)
    r = high + low + EPSILON * extremes.amax(1, keepdim=True)
    return r, r / torch.where(r > STILL, r, 1).flip(1)


def mix(y, extremes, bias, activation):
    """Join what was read from u and from v into vectors, with ratios of ranges and biases.

    Args:
        y: ``(n, 2 * 2 * out, H, W)`` in the order of :class:`ByComponent`.
        extremes: of the patches, ``(n, 4, H, W)``.
        bias: ``(2 out,)``, u0 v0 u1 v1 ...
        activation: apply ReLU.

    Returns:
        ``(n, out, 2, H, W)``.
    """
    r, ratio = ranges_and_ratios(extremes)
    u_to_u, u_to_v, v_to_u, v_to_v = y.unflatten(1, (4, -1)).unbind(1)  # each (n, out, H, W)
    u = torch.addcmul(u_to_u, v_to_u, ratio[:, :1])
    v = torch.addcmul(v_to_v, u_to_v, ratio[:, 1:])
    out = torch.addcmul(torch.stack([u, v], 1), bias.view(-1, 2).t()[:, :, None, None], r.unsqueeze(2))
    if activation:
        out = out.relu_()
    return out.transpose(1, 2)  # a view: memory stays component-major, as the next layer reads it


class MagnitudeConv2d(nn.Module):
    """A convolution on vector features ``(n, channels, 2, H, W)``, equivariant to x -> lambda x.

    Args:
        in_channels, out_channels: numbers of vectors.
        kernel_size: odd side of the kernel; padding replicates the border.
        stride: 2 halves the grid.
        activation: apply ReLU.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, activation=True):
        super().__init__()
        self.padding, self.activation = odd_kernel(kernel_size), activation
        self.conv = nn.Conv2d(2 * in_channels, 2 * out_channels, kernel_size, stride)
        parametrize.register_parametrization(self.conv, "weight", ByComponent(), unsafe=True)

    def forward(self, x):
        conv = self.conv
        # A window that sticks out meets only copies of pixels it holds anyway, so max_pool2d's own padding is exact.
        extremes = max_pool2d(extremes_of_channels(x), conv.kernel_size, conv.stride, self.padding)
        components = pad(x.transpose(1, 2).flatten(1, 2), (self.padding,) * 4, mode="replicate")
        y = conv2d(components, conv.weight, stride=conv.stride, groups=2)
        return mix(y, extremes, conv.bias, self.activation)


class MagnitudeUpsampling(nn.Module):
    """Doubles the grid of ``(n, channels, 2, H, W)``: repeat pixels, then a 4 x 4 magnitude convolution with ReLU.

    Computed at the low resolution, see :class:`~models.backbone.RepeatedPixelKernel`.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(2 * in_channels, 2 * out_channels, 4)
        parametrize.register_parametrization(self.conv, "weight", ByComponent(), unsafe=True)
        parametrize.register_parametrization(self.conv, "weight", RepeatedPixelKernel(), unsafe=True)

    def forward(self, x):
        extremes = max_pool2d(repeat_pixels(extremes_of_channels(x)), 4, stride=1)
        components = pad(x.transpose(1, 2).flatten(1, 2), (1, 1, 1, 1), mode="replicate")
        y = shuffle_pixels(conv2d(components, self.conv.weight, groups=2))
        return mix(y, extremes, self.conv.bias, activation=True)


class Magnitude(Symmetry):
    """Multiply by a positive number. Features are vectors ``(n, channels, 2, H, W)``."""

    name = "Mag"
    resnet_widths = (32, 32, 64, 64, 128, 128, 256, 256)
    unet_widths = (32, 64, 128, 256)
    unet_up_widths = (64, 32, 16, 8)
    unet_depths = (2, 2, 2, 2)

    def sample(self, n, generator=None):
        """Factors lambda ``(n,)``, uniform in [0, 2]."""
        return 2 * torch.rand(n, generator=generator)

    def act(self, g, frames):
        """lambda w."""
        return frames * g.to(frames)[:, None, None, None, None]

    def reduce(self, frames):
        # The net is homogeneous and does not depend on this factor, so no gradient has to pass through it; it keeps
        # weak and strong flows within the range of short floats.
        rms = frames.detach().square().mean((1, 2, 3, 4)).sqrt()[:, None, None, None]
        rms = torch.where(rms > 0, rms, 1)
        return frames / rms.unsqueeze(1), rms

    def restore(self, frame, state):
        return frame * state

    def lift(self, input_length):
        return nn.Identity(), input_length

    def convolution(self, in_channels, out_channels, kernel_size, stride=1):
        return MagnitudeConv2d(in_channels, out_channels, kernel_size, stride)

    def residual_block(self, in_channels, out_channels, kernel_size):
        first = MagnitudeConv2d(in_channels, out_channels, kernel_size)
        second = MagnitudeConv2d(out_channels, out_channels, kernel_size)
        same = in_channels == out_channels
        skip = nn.Identity() if same else MagnitudeConv2d(in_channels, out_channels, kernel_size, activation=False)
        return ResidualBlock(first, second, skip)

    def upsampling(self, in_channels, out_channels):
        return MagnitudeUpsampling(in_channels, out_channels)

    def output(self, in_channels, kernel_size):
        return nn.Sequential(MagnitudeConv2d(in_channels, 1, kernel_size, activation=False), nn.Flatten(1, 2))
