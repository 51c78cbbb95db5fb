"""Rotation: w(x, t) -> R w(R^-1 x, t): the flow turns, and so do its vectors.

Steerable convolutions (the paper's section on rotation; Cohen and Welling, 2017; Weiler and Cesa, 2019) for the cyclic
group C_N, or the dihedral group D_N with reflections. The data hold vector fields, rho(g) = A_g, and scalar ones,
rho(g) = 1; hidden fields are *regular*: one channel per group element, (rho(g) f)[h] = f[g^-1 h], so that ReLU and
batch norm over the whole field commute with the group. A convolution is equivariant if and only if its kernel satisfies

    K(A_g x) = rho_out(g) K(x) rho_in(g)^-1 for every g,

which is linear: :func:`kernel_basis` solves it once per group and kernel size, and a layer learns coefficients.

What is exact: rotations by multiples of 90 degrees (and reflections about the grid's axes, if the group has them) are
permutations of the grid, and the full nets commute with them, border included, on every size that the net accepts. For
this the U-Net halves the grid by a convolution and a 2 x 2 mean and doubles it by repeating pixels: a convolution of
stride 2 on an even grid is not symmetric. What is approximate: the other angles of the group, because the grid does not
turn with them. Angles that are not in the group are merely interpolated by it.

Relaxed by gains: every channel has a gain per group element (or component). Free: a kernel of its own is added.
"""

import dataclasses
import math
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.utils import parametrize

from models.backbone import ResidualBlock, Symmetry, deviation, extend, gained, odd_kernel
from models.fields import Features, parts
from models.options import RotationOptions


def harmonics(kernel_size):
    """Circular harmonics on rings around the centre of a grid, K(x) = exp(-(r - ring)^2 / 2 width^2) exp(i m angle).

    Turning the flow by a turns the response by exp(-i m a); on a grid this holds for smooth flows and, exactly, for
    quarter turns. Rings, their widths and their largest orders are those of escnn's ``R2Conv`` (Weiler and Cesa, 2019),
    so both span the same space: order 0 in the centre, at most 2 on the outermost ring, and on those between at most
    2 r, or 2 r - 1 for even r, so that neighbouring points can tell the orders apart.

    Returns:
        ``(orders, kernels)``: ``(n,)`` integers and ``(n, k, k)`` complex arrays of unit norm, K(x, -y) = conj K(x, y);
        the rows of a kernel are y.
    """
    outermost = kernel_size // 2
    y, x = np.mgrid[-outermost : outermost + 1, -outermost : outermost + 1]
    radius, turn = np.hypot(x, y), (x + 1j * y) / np.maximum(np.hypot(x, y), 1)
    orders, kernels = [0], [(radius == 0).astype(complex)]
    for ring in range(1, outermost + 1):
        width = 0.4 if ring == outermost else 0.6
        largest = 2 if ring == outermost else 2 * ring - (ring + 1) % 2
        for order in range(largest + 1):
            kernel = np.exp(-((radius - ring) ** 2) / 2 / width**2) * turn**order
            orders.append(order)
            kernels.append(kernel / np.linalg.norm(kernel))
    return np.array(orders), np.array(kernels)


class PointGroup:
    """C_N, or D_N with reflections; element N s + h turns by 2 pi h / N after s reflections of the y axis.

    Attributes:
        angle, reflected: ``(G,)``.
        vector, scalar, regular: the representations ``(G, 2, 2)``, ``(G, 1, 1)`` and ``(G, G, G)``, all orthogonal.
    """

    def __init__(self, rotation_order, reflections):
        h, s = np.meshgrid(np.arange(rotation_order), np.arange(2 if reflections else 1))
        h, s = h.ravel(), s.ravel()
        self.angle, self.reflected = 2 * np.pi * h / rotation_order, s
        cos, sin, sign = np.cos(self.angle), np.sin(self.angle), 1 - 2 * s
        self.vector = np.stack([np.stack([cos, -sign * sin], -1), np.stack([sin, sign * cos], -1)], -2)
        self.scalar = np.ones((len(h), 1, 1))
        product = (h[:, None] + sign[:, None] * h) % rotation_order + rotation_order * ((s[:, None] + s) % 2)
        self.regular = np.zeros((len(h),) * 3)
        g, element = np.indices(product.shape)
        self.regular[g, product, element] = 1

    def functions(self, kernel_size):
        """The real parts and the imaginary parts of :func:`harmonics`, moved by every element: phi(A_g^-1 x).

        Returns:
            ``(G, functions, k, k)``.
        """
        orders, kernels = harmonics(kernel_size)
        moved = np.exp(-1j * np.outer(self.angle, orders))[:, :, None, None] * kernels
        moved = np.where(self.reflected[:, None, None, None] == 1, moved.conj(), moved)
        return np.concatenate([moved.real, moved.imag[:, orders > 0]], 1)


def kernels_between_data(rotation_order, reflections, kernel_size, reads, writes):
    """Equivariant kernels between vectors and scalars, ``(n, writes, reads, k, k)``.

    With a vector as a complex number z, the linear maps are sums of z -> a z and z -> b conj(z) (vector to vector),
    s -> c s (scalar to vector), z -> Re(conj(c) z) (vector to scalar) and s -> d s. The constraint asks of these fields
    of complex numbers that a(A_g x) = a(x), b(A_g x) = exp(2 i angle) b(x), c(A_g x) = exp(i angle) c(x) and that the
    real d(A_g x) = d(x): circular harmonics of an order that is 0, 2, 1 and 0 modulo N. Reflections make their
    coefficients real.
    """
    orders, kernels = harmonics(kernel_size)
    signed = [*zip(orders, kernels, strict=True)]
    if reads == "vector" or writes == "vector":  # of real numbers an order and its negative give the same
        signed += [(-order, kernel.conj()) for order, kernel in signed if order > 0]
    maps = []
    for order, kernel in signed:
        for factor in (1,) if reflections else (1, 1j):
            p, q = (factor * kernel).real, (factor * kernel).imag
            if reads == writes == "vector" and order % rotation_order == 0:
                maps.append([[p, -q], [q, p]])
            if reads == writes == "vector" and order % rotation_order == 2:
                maps.append([[p, q], [q, -p]])
            if reads != writes and order % rotation_order == 1:
                maps.append([[p], [q]] if writes == "vector" else [[p, q]])
            if reads == writes == "scalar" and order % rotation_order == 0 and (order or factor == 1):
                maps.append([[p]])
    sides = (1 + (field == "vector") for field in (writes, reads))
    return np.reshape(maps, (-1, *sides, kernel_size, kernel_size))  # of a single point there may be none


def kernels_with_regular(rotation_order, reflections, kernel_size, reads, writes):
    """Equivariant kernels where at least one side is regular, ``(n, writes, reads, k, k)``.

    The sum over the group of rho_out(g) E phi(A_g^-1 x) rho_in(g)^-1 is a solution for every matrix E and function phi,
    and these span the space; the matrices that touch the first element of a regular field give every solution once.
    """
    group = PointGroup(rotation_order, reflections)
    rho_in, rho_out = getattr(group, reads), getattr(group, writes)
    b = slice(1 if reads == "regular" else None)  # the columns, and
    a = slice(1 if reads != "regular" else None)  # the rows that E may touch
    functions = group.functions(kernel_size)
    basis = np.einsum("gpa,gqb,gfyx->abfpqyx", rho_out[:, :, a], rho_in[:, :, b], functions, optimize=True)
    return basis.reshape(-1, *basis.shape[3:])


@lru_cache
def kernel_basis(rotation_order, reflections, kernel_size, reads, writes, resampling=None):
    """All equivariant kernels on a grid: a basis of the solutions of K(A_g x) = rho_out(g) K(x) rho_in(g)^-1.

    It is what the weights of a checkpoint refer to: the same on every machine, to rounding. So nothing here may choose
    among equals, as a singular value decomposition of the space would.

    Args:
        rotation_order, reflections: the group.
        kernel_size: odd side of the kernel.
        reads, writes: the kinds of fields, ``("regular",)`` or those of the data.
        resampling: "down" follows the kernel by a 2 x 2 mean of stride 2, "up" lets it read pixels repeated twice;
            both in one kernel, of side k + 1.

    Returns:
        float32 tensor ``(basis, writes, reads, side, side)``, scaled so that random coefficients of variance 1 give
        kernels of variance 1: learning rates and initial weights of ordinary convolutions carry over.
    """
    group = PointGroup(rotation_order, reflections)
    sizes = [[getattr(group, kind).shape[1] for kind in kinds] for kinds in (writes, reads)]
    starts = [np.cumsum([0, *side]) for side in sizes]
    blocks = []
    for i, written in enumerate(writes):
        for j, read in enumerate(reads):
            kernels = kernels_with_regular if "regular" in (read, written) else kernels_between_data
            basis = kernels(rotation_order, reflections, kernel_size, read, written)
            power = (basis**2).sum((1, 2, 3, 4), keepdims=True)
            block = np.zeros((len(basis), sum(sizes[0]), sum(sizes[1]), kernel_size, kernel_size))
            rows, columns = slice(*starts[0][i : i + 2]), slice(*starts[1][j : j + 2])
            block[:, rows, columns] = basis * np.sqrt(np.prod(basis.shape[1:]) / max(1, len(basis)) / power)
            blocks.append(block)
    basis = np.concatenate(blocks)
    if resampling is not None:
        # The mean of what a kernel reads from two neighbours: the mean of the kernel and itself, moved by one pixel.
        # Of repeated pixels it reads each twice: the sum. A transposed convolution turns the kernel around.
        padded, side = np.pad(basis, [(0, 0)] * 3 + [(1, 1)] * 2), kernel_size + 1
        basis = sum(padded[..., i : i + side, j : j + side] for i in (0, 1) for j in (0, 1))
        basis = basis / 4 if resampling == "down" else basis[..., ::-1, ::-1].copy()
    return torch.from_numpy(basis).float()


class Expansion(nn.Module):
    """Parametrisation: coefficients ``(out, in, basis)`` to a kernel ``(out * writes, in * reads, side, side)``.

    The kernel of a transposed convolution has its first two axes exchanged. ``free``: how many fields (out, in) a
    kernel of its own has, which is added.
    """

    def __init__(self, basis, transposed, free=()):
        super().__init__()
        self.register_buffer("basis", basis, persistent=False)
        self.axes = (1, 3, 0, 2, 4, 5) if transposed else (0, 2, 1, 3, 4, 5)
        self.deviation = deviation(free, *free, *basis.shape[1:])

    def forward(self, weight):
        kernel = (weight @ self.basis.flatten(1)).unflatten(2, self.basis.shape[1:])  # (out, in, writes, reads, k, k)
        if self.deviation is not None:
            kernel = kernel + self.deviation
        return kernel.permute(self.axes).flatten(2, 3).flatten(0, 1)


class SteerableConv2d(nn.Module):
    """A linear convolution from fields ``(n, channels, reads, H, W)`` to ``(n, channels', writes, H', W')``.

    Args:
        rotation: the :class:`Rotation`.
        reads, writes: the :class:`~models.fields.Features`, "regular" fields or those of the "data".
        kernel_size: odd side of the kernel; zeros beyond the border, unless the axes are periodic.
        resampling: "down" halves the grid, "up" doubles it, see :func:`kernel_basis`.
        bias: one number per regular field (a vector field can have none).
    """

    def __init__(self, rotation, reads, writes, kernel_size, resampling=None, bias=False):
        super().__init__()
        self.padding, self.resampling, self.periodic = odd_kernel(kernel_size), resampling, rotation.periodic
        kinds = [rotation.fields if features.kind == "data" else ("regular",) for features in (reads, writes)]
        basis = kernel_basis(rotation.rotation_order, rotation.reflections, kernel_size, *kinds, resampling)
        self.size = basis.shape[1]
        bound = 1 / math.sqrt(reads.channels * basis.shape[2] * kernel_size**2)  # as nn.Conv2d
        self.weight = nn.Parameter(torch.empty(writes.channels, reads.channels, len(basis)).uniform_(-bound, bound))
        free = (writes.channels, reads.channels) if rotation.relaxed == "free" else ()
        parametrize.register_parametrization(self, "weight", Expansion(basis, resampling == "up", free), unsafe=True)
        self.deviation = deviation(rotation.relaxed == "gains", writes.channels, self.size)
        self.bias = nn.Parameter(torch.empty(writes.channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x):
        bias = None if self.bias is None else self.bias.repeat_interleave(self.size)
        border = self.padding if self.periodic else 0
        x = extend(x.flatten(1, 2), border, self.periodic)
        if self.resampling == "up":  # two cells of the output for each of the input's
            y = conv_transpose2d(x, self.weight, bias, stride=2, padding=self.padding + 2 * border)
        else:
            stride = 2 if self.resampling == "down" else 1
            y = conv2d(x, self.weight, bias, stride, self.padding - border)
        return gained(y.unflatten(1, (-1, self.size)), self.deviation)


class Rotation(RotationOptions, Symmetry):
    """Turn the flow and its vectors anticlockwise. Hidden features are regular fields ``(n, channels, G, H, W)``."""

    name = "Rot"
    resnet_stem = 16
    resnet_widths = (32, 32, 64, 64, 128, 128, 192, 192)
    unet_widths = (32, 64, 128, 256)
    unet_up_widths = (64, 32, 16, 16)
    convnet_width = 64
    norm = nn.BatchNorm3d  # of every field

    def fitting(self, height, width):
        """Half turns alone where frames are not square."""
        return self if height == width else dataclasses.replace(self, angle_step=180)

    def sample(self, n, generator=None):
        """Angles in degrees ``(n,)``, multiples of ``angle_step`` in (0, 360]."""
        return self.angle_step * torch.randint(1, 360 // self.angle_step + 1, (n,), generator=generator).float()

    def act(self, g, frames):
        """R w(R^-1 x, t). Multiples of 90 degrees permute the grid, other angles interpolate (bilinear, zeros outside).

        Raises:
            ValueError: a batch of grids that are not square holds quarter and half turns.
        """
        check_shapes(g, frames)
        angles = g.tolist()
        turned = torch.stack([turn(w, angle) for w, angle in zip(frames, angles, strict=True)])
        return torch.cat([self.turn_components(turned, part, angles) for part in parts(self.fields)], 2)

    def turn_components(self, frames, part, angles):
        """The components of one field, those of a vector turned by an angle per sample, or by one for all."""
        field = frames[:, :, part]
        if field.shape[2] == 1:
            return field
        # rounded, so that quarter turns are exact
        trigonometry = [[round(f(math.radians(angle)), 15) for angle in angles] for f in (math.cos, math.sin)]
        cos, sin = torch.tensor(trigonometry, dtype=frames.dtype, device=frames.device)[..., None, None, None]
        u, v = field.unbind(2)
        return torch.stack([cos * u - sin * v, sin * u + cos * v], 2)

    def quarter(self, turns, frames):
        """``frames`` ``(..., C, H, W)``, all turned by as many quarters."""
        shape = frames.shape
        turned = turn(frames.reshape(shape[0], -1, *shape[-3:]), 90 * turns)
        turned = torch.cat([self.turn_components(turned, part, [90 * turns]) for part in parts(self.fields)], 2)
        return turned.reshape(*shape[:-2], *turned.shape[-2:])

    def act_on_mask(self, g, mask, frames):
        """Turn the map of valid points. Of a flow that had to be interpolated, those points stay valid that lie in the
        disc, which every rotation maps to itself, and whose sources are all valid."""
        exact = [angle % 90 == 0 for angle in g.tolist()]
        if mask is None and all(exact):
            return None
        height, width = frames.shape[-2:]
        if mask is None:
            mask = torch.ones(len(g), 1, height, width, dtype=torch.bool, device=frames.device)
        y = torch.arange(height, device=frames.device) - (height - 1) / 2
        x = torch.arange(width, device=frames.device) - (width - 1) / 2
        disc = y.square()[:, None] + x.square() <= ((min(height, width) - 1) / 2) ** 2
        turned = zip((turn(m, angle) for m, angle in zip(mask.float(), g.tolist(), strict=True)), exact, strict=True)
        return torch.stack([m > 0.999 if e else (m > 0.999) & disc for m, e in turned])

    def hidden(self, width):
        return super().hidden(width)._replace(kind="regular")

    def last(self, width):
        return super().hidden(width)._replace(kind="data")

    def lift(self, input_length):
        return nn.Identity(), Features("data", input_length)

    def convolution(self, reads, writes, kernel_size, stride=1):
        conv = SteerableConv2d(self, reads, writes, kernel_size, "down" if stride == 2 else None)
        return nn.Sequential(conv, self.norm(writes.channels), nn.ReLU(inplace=True))

    def convnet_layer(self, reads, writes, kernel_size):
        return nn.Sequential(SteerableConv2d(self, reads, writes, kernel_size, bias=True), nn.ReLU(inplace=True))

    def residual_block(self, reads, writes, kernel_size):
        def convolution(features):
            conv = SteerableConv2d(self, features, writes, kernel_size)
            return nn.Sequential(conv, self.norm(writes.channels), nn.LeakyReLU(inplace=True))

        skip = nn.Identity()
        if reads != writes:
            conv = SteerableConv2d(self, reads, writes, kernel_size, bias=True)
            skip = nn.Sequential(conv, nn.LeakyReLU(inplace=True))
        return ResidualBlock(convolution(reads), convolution(writes), skip)

    def upsampling(self, reads, writes):
        conv = SteerableConv2d(self, reads, writes, 3, "up")
        if writes.kind == "data":  # no function of a vector's components commutes with turns
            return conv
        return nn.Sequential(conv, self.norm(writes.channels), nn.ReLU(inplace=True))

    def output(self, reads, kernel_size):
        return nn.Sequential(SteerableConv2d(self, reads, Features("data", 1), kernel_size), nn.Flatten(1, 2))


def turn(maps, angle):
    """Turn maps ``(..., H, W)``, row 0 in the south, anticlockwise by ``angle`` degrees about the centre."""
    if angle % 90 == 0:
        return torch.rot90(maps, round(angle / 90), (-1, -2))
    from kornia.geometry.transform import rotate  # takes seconds to import, and is needed here only

    planes = maps.flatten(0, -3)[None]
    clockwise_in_images = torch.tensor([-angle], dtype=maps.dtype, device=maps.device)  # whose row 0 is on top
    return rotate(planes, clockwise_in_images)[0].reshape(maps.shape)


def check_shapes(g, frames):
    """ValueError if the samples of a batch would get different shapes."""
    height, width = frames.shape[-2:]
    if height != width and len({angle % 180 == 90 for angle in g.tolist()}) > 1:
        raise ValueError(f"frames of {height} x {width} points: quarter and half turns do not fit into one batch")
