"""Magnitude: w(x, t) -> lambda w(x, t), for lambda > 0.

Conjugation by the range (the paper's section on magnitude): a layer divides each k x k patch by its range, max - min
over frames and taps, one range per component, convolves, applies ReLU and multiplies by the range again. ReLU commutes
with positive factors, so for the u outputs the range r_u cancels except against r_v,

    y_u = relu(W_uu * x_u + (r_u / r_v) W_uv * x_v + r_u b_u),     and likewise y_v,

which is one convolution per input component and one map of ratios: no patch is ever formed.
Exact for the full net, weak flows included: f(lambda x) = lambda f(x). Every field of the data may have a lambda of its
own: a velocity and a temperature.

Relaxed by gains: a bias counts for the range plus eps, in units of the prepared data. Free: an ordinary
convolution is added under the ReLU.

The ratio needs a guard where a component does not vary (land, flow at rest). The release adds 1e-6 to every range,
which breaks the symmetry for weak flows; what :func:`ranges` adds scales with the flow.
"""

from functools import partial

import torch
from torch import nn
from torch.nn.functional import conv2d, max_pool2d
from torch.nn.utils import parametrize

from models.backbone import (
    ResidualBlock,
    Symmetry,
    convolve_repeated,
    deviation,
    extend,
    odd_kernel,
    pool_repeated,
    repeat_pixels,
)
from models.fields import Features, components, of_component, parts

EPSILON = 3e-5  # share of a patch's largest value that is added to its ranges
STILL = 1e-30  # of an rms of 1: a patch this weak passes nothing from one component to the other


class ByComponent(nn.Module):
    """Parametrisation: ``(D out, D in, k, k)``, channels by D components, to a kernel per input component.

    A kernel ``(D out, in, k, k)`` writes channels in the order (component written, out).
    """

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, weight):
        tuples = weight.unflatten(1, (-1, self.size)).unflatten(0, (-1, self.size))  # (out, written, in, read, k, k)
        return [kernel.transpose(0, 1).flatten(0, 1) for kernel in tuples.unbind(3)]


class ExtremesOfChannels(torch.autograd.Function):
    """See :func:`extremes_of_channels`; torch's own gradient, from maps of truth values, takes three times as long."""

    @staticmethod
    def forward(ctx, x):
        high, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
        ctx.save_for_backward(x, high, low)
        return torch.cat([high, -low], 2).squeeze(1)

    @staticmethod
    def backward(ctx, grad):
        x, high, low = ctx.saved_tensors
        grad_high, grad_low = grad.unsqueeze(1).chunk(2, 2)
        highest, lowest = x.clone().eq_(high), x.clone().eq_(low)  # 0 and 1, as floats
        highest *= grad_high / highest.sum(1, keepdim=True)  # equal values share it
        return highest.addcmul_(lowest, -grad_low / lowest.sum(1, keepdim=True))


def extremes_of_channels(x):
    """Maxima and negated minima over channels: ``(n, channels, D, H, W)`` -> ``(n, 2 D, H, W)``."""
    return ExtremesOfChannels.apply(x)


def ranges(extremes, fields):
    """Ranges of patches ``(n, D, H, W)`` from their pooled extremes ``(n, 2 D, H, W)``.

    A component that is nearly constant over a patch has hardly any range to divide by. So a range is max - min plus
    EPSILON times the largest absolute value of its field: the components of a uniform flow have the ratio 1, no ratio
    within a field exceeds 2 / EPSILON and gradients stay bounded, and yet a range scales with its field.
    """
    high, low = extremes.chunk(2, 1)
    largest = torch.maximum(high, low)
    guards = [largest[:, part].amax(1, keepdim=True).expand_as(largest[:, part]) for part in parts(fields)]
    return high + low + EPSILON * torch.cat(guards, 1)


def read(by_component, kernels, convolve):
    """Convolve each of D components ``(n, in, H, W)`` with its kernels of :class:`ByComponent`.

    One by one: as one convolution with groups, what writes few channels takes three times as long.

    Args:
        convolve: a function of the component and its kernel.

    Returns:
        D tensors ``(n, D out, H', W')``, channels in the order (component written, out).
    """
    return [convolve(component, kernel) for component, kernel in zip(by_component, kernels, strict=True)]


def mix(y, extremes, bias, activation, fields, eps=None, free=None):
    """Join what was read from each component, with ratios of ranges and biases.

    Args:
        y: what :func:`read` returns.
        extremes: of the patches, ``(n, 2 D, H, W)``.
        bias: ``(D out,)``, by components.
        activation: apply ReLU.
        fields: of the D components.
        eps: added to the ranges that biases count for.
        free: what is added under the ReLU, ``(n, D out, H, W)`` by channels.

    Returns:
        ``(n, out, D, H, W)``.
    """
    r, size = ranges(extremes, fields), components(fields)
    divisor = torch.where(r > STILL, r, 1)
    y = [of_one.unflatten(1, (size, -1)).unbind(1) for of_one in y]  # the gradient of a slice is full of zeros
    numerator, divisor = r.unsqueeze(2).unbind(1), divisor.unsqueeze(2).unbind(1)
    written = []
    for w in range(size):
        out = y[w][w]
        for other in (o for o in range(size) if o != w):
            out = torch.addcmul(out, y[other][w], numerator[w] / divisor[other])
        written.append(out)
    span = r if eps is None else r + eps
    bias = bias.view(-1, size).t()[:, None, :, None, None]
    out = torch.addcmul(torch.stack(written), bias, span.transpose(0, 1).unsqueeze(2))
    if free is not None:
        out = out + free.unflatten(1, (-1, size)).movedim(2, 0)
    if activation:
        out = out.relu_()
    return out.movedim(0, 2)  # a view: memory stays component by component, as the next layer reads it


class FreeConv2d(nn.Module):
    """An ordinary convolution of the size of ``conv``, whose kernel and bias are deviations."""

    def __init__(self, conv):
        super().__init__()
        self.stride = conv.stride
        self.deviation = deviation("free", *conv.weight.shape)
        self.deviation_bias = deviation("free", *conv.bias.shape)

    def forward(self, x):
        return conv2d(x, self.deviation, self.deviation_bias, self.stride)


class MagnitudeConv2d(nn.Module):
    """A convolution on features ``(n, channels, D, H, W)``, equivariant to x -> lambda x, one lambda per field.

    Args:
        in_channels, out_channels: numbers of D-tuples, velocities if D is 2.
        kernel_size: odd side of the kernel; padding replicates the border but of periodic axes.
        fields: of the D components.
        stride: 2 halves the grid.
        activation: apply ReLU.
        relaxed: "", "gains" or "free".
        periodic: axes that end where they begin.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        fields=("vector",),
        stride=1,
        activation=True,
        relaxed="",
        periodic=(),
    ):
        super().__init__()
        self.periodic = periodic
        self.padding, self.fields, self.activation = odd_kernel(kernel_size), fields, activation
        self.size = components(fields)
        self.conv = nn.Conv2d(self.size * in_channels, self.size * out_channels, kernel_size, stride)
        self.deviation = deviation(relaxed == "gains")
        self.free = FreeConv2d(self.conv) if relaxed == "free" else None
        parametrize.register_parametrization(self.conv, "weight", ByComponent(self.size), unsafe=True)

    def forward(self, x):
        conv, border = self.conv, (self.padding, self.periodic, "replicate")
        extremes, padding = extremes_of_channels(x), self.padding
        # A window that sticks out meets only copies of pixels it holds anyway, so max_pool2d's own padding is exact:
        # not where axes are periodic.
        if self.periodic:
            extremes, padding = extend(extremes, *border), 0
        extremes = max_pool2d(extremes, conv.kernel_size, conv.stride, padding)
        extended = [extend(component, *border) for component in x.unbind(2)]
        y = read(extended, conv.weight, partial(conv2d, stride=conv.stride))
        free = self.free and self.free(extend(x.flatten(1, 2), *border))
        return mix(y, extremes, conv.bias, self.activation, self.fields, self.deviation, free)


class MagnitudeUpsampling(nn.Module):
    """Doubles the grid of ``(n, channels, D, H, W)``: repeat pixels, then a 4 x 4 magnitude convolution with ReLU.

    See :func:`~models.backbone.convolve_repeated`.
    """

    def __init__(self, in_channels, out_channels, fields=("vector",), relaxed="", periodic=()):
        super().__init__()
        self.fields, self.size, self.periodic = fields, components(fields), periodic
        self.conv = nn.Conv2d(self.size * in_channels, self.size * out_channels, 4)
        self.deviation = deviation(relaxed == "gains")
        self.free = FreeConv2d(self.conv) if relaxed == "free" else None
        parametrize.register_parametrization(self.conv, "weight", ByComponent(self.size), unsafe=True)

    def forward(self, x):
        extremes = pool_repeated(max_pool2d, extremes_of_channels(x), self.periodic)
        y = read(x.unbind(2), self.conv.weight, partial(convolve_repeated, periodic=self.periodic))
        free = self.free and self.free(repeat_pixels(x.flatten(1, 2), self.periodic))
        return mix(y, extremes, self.conv.bias, True, self.fields, self.deviation, free)


class Magnitude(Symmetry):
    """Multiply by a positive number. Features are D-tuples like the data's components ``(n, channels, D, H, W)``."""

    name = "Mag"
    own_frames = ("Mag",)  # keeps weak and strong flows within the range of short floats
    unet_depths = (2, 2, 2, 2)

    @property
    def channel_size(self):
        return self.components

    def sample(self, n, generator=None):
        """Factors lambda, uniform in [0, 2]: ``(n,)``, or one per field ``(n, fields)``."""
        factors = 2 * torch.rand(n, len(self.fields), generator=generator)
        return factors.squeeze(1) if len(self.fields) == 1 else factors

    def act(self, g, frames):
        """lambda w."""
        factors = g.to(frames).reshape(len(g), -1).unbind(1)
        return frames * torch.stack(of_component(self.fields, factors), 1)[:, None, :, None, None]

    def take_out(self, frames):
        """Every field divided by its root mean square over the window: over frames, components and points.

        A field that is 0 stays so: no strength could be given back that its multiples do not have, too.
        """
        squares = torch.stack([frames[:, :, part].square().mean((1, 2, 3, 4)) for part in parts(self.fields)])
        flows = squares > 0
        divisor = torch.where(flows, squares, 1).sqrt()  # chosen before the root, whose slope at 0 is infinite
        divisor, rms = (
            torch.stack(of_component(self.fields, unit), 1)[:, :, None, None] for unit in (divisor, divisor * flows)
        )
        return frames / divisor.unsqueeze(1), rms

    def put_back(self, forecast, state):
        return forecast * state

    def lift(self, input_length):
        return nn.Identity(), Features("hidden", input_length)

    def convolution(self, reads, writes, kernel_size, stride=1, activation=True):
        sizes = reads.channels, writes.channels, kernel_size
        return MagnitudeConv2d(*sizes, self.fields, stride, activation, self.relaxed, self.periodic)

    def residual_block(self, reads, writes, kernel_size):
        first = self.convolution(reads, writes, kernel_size)
        second = self.convolution(writes, writes, kernel_size)
        same = reads == writes
        return ResidualBlock(
            first, second, nn.Identity() if same else self.convolution(reads, writes, kernel_size, activation=False)
        )

    def upsampling(self, reads, writes):
        return MagnitudeUpsampling(reads.channels, writes.channels, self.fields, self.relaxed, self.periodic)

    def output(self, reads, kernel_size):
        conv = self.convolution(reads, Features("hidden", 1), kernel_size, activation=False)
        return nn.Sequential(conv, nn.Flatten(1, 2))
