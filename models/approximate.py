"""Approximate equivariance: the layers of the second paper as it has them, to compare with.

Wang, Walters and Yu, *Approximately Equivariant Networks for Imperfectly Symmetric Dynamics*, ICML 2022, and its
release (Rose-STL-Lab/Approximately-Equivariant-Nets at e8e9355). Each layer has weights w that differ by place (RConv),
by group element (RGroup) or by tap of the kernel (RSteer, RScale); where they are equal, the layer should have the
symmetry. :data:`PUBLISHED` has them as variants of the symmetry that they relax, beside the paper's plain net and its
strict one of rotation, which have batch norms. They make a ConvNet and nothing else, with the paper's widths.

What the release means is kept, however it works; what is a slip is mended. Each docstring says which. Ours are the
relaxed nets of ``models.backbone``: they start exact. The release's residual pathway (exact layer + layer of its own)
is what those have as "free", with decay in place of its penalty of squares; of translation, whose own layer is dense,
RPP.

Velocities are the right way up. The release's arrays have rows upwards and v upwards, as here, but its steerable
kernels take v to point down: a quarter turn comes out as a turn and a reversal.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d
from torch.nn.utils import parametrize

from models.backbone import ConvNet, Symmetry, odd_kernel
from models.fields import Features, parts
from models.options import option
from models.rotation import Rotation, kernel_basis, turn
from models.scale import Scale
from models.translation import Translation


def penalty(model, weight):
    """``weight`` times how unequal the weights w of a net are, summed over its layers; what training adds to the loss.

    The release adds the *square* of this product, on a CPU nothing; with its weights, 0 and 1e-6 to 1e-4, that has no
    effect. Of RConv it takes the mean over the layers, not the sum.
    """
    return weight * sum(layer.penalty() for layer in penalised(model)) if weight else 0.0


def penalised(model):
    """The layers of a net that have a penalty."""
    return [layer for layer in model.modules() if hasattr(layer, "penalty")]


class Published:
    """What the symmetries here share: relaxed in their own way, no net but a ConvNet, no border but the release's."""

    skeleton = ConvNet
    convnet_layer = Symmetry.convnet_layer  # the layers here, not those of the strict net

    def __post_init__(self):
        super().__post_init__()
        if self.relaxed:
            raise ValueError(f"{type(self).__name__} is relaxed by itself, in no other way")
        if self.periodic:
            raise ValueError(f"{type(self).__name__} pads with zeros, it does not continue frames periodically")


@dataclass(frozen=True)
class OnTile:
    """A symmetry some of whose weights belong to the points of a grid, which is that of the frames it is trained on."""

    tile: tuple[int, int] | None = option(None, "height and width of the frames")

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "tile", self.tile and tuple(self.tile))

    def lift(self, input_length):
        if self.tile is None:
            raise ValueError(f"{type(self).__name__} has weights of a grid: say its tile, (height, width)")
        return super().lift(input_length)


# ---------------------------------------------------------------- nets with batch norms


@dataclass(frozen=True)
class Normed(Translation):
    """The paper's plain net."""

    skeleton = ConvNet

    def convnet_layer(self, reads, writes, kernel_size):
        conv = self.linear(reads, writes.channels, kernel_size)
        return nn.Sequential(conv, nn.BatchNorm2d(writes.channels), nn.ReLU(inplace=True))


@dataclass(frozen=True)
class NormedRotation(Rotation):
    """Its strict net of rotation, E2CNN."""

    skeleton = ConvNet
    convnet_layer = Symmetry.convnet_layer  # whose convolution has a norm


# ---------------------------------------------------------------- translation


class RConv2d(nn.Conv2d):
    """Low-rank locally connected: y(x) = sum over banks l of w_l(x) (psi_l * f + b_l)(x).

    w, ``combination`` ``(banks, 1, H, W)``, is shared by all channels and starts at 1 / banks: an ordinary convolution,
    which commutes with shifts away from the border, as it does with any w that is the same everywhere.

    In the release weight decay draws w to 0, not to equality, and the penalty is inert. Here the same decay, and the
    penalty if it is asked for.
    """

    def __init__(self, in_channels, out_channels, kernel_size, tile, banks):
        super().__init__(in_channels, banks * out_channels, kernel_size, padding=odd_kernel(kernel_size))
        self.combination = nn.Parameter(torch.full((banks, 1, *tile), 1 / banks))

    def forward(self, x):
        return (super().forward(x).unflatten(1, (len(self.combination), -1)) * self.combination).sum(1)

    def penalty(self):
        return sum(self.combination.diff(dim=axis).abs().mean() for axis in (2, 3))


@dataclass(frozen=True)
class RConv(Published, OnTile, Translation):
    """Weights by place.

    Args:
        banks: rank of the weights; the paper has 2 for smoke, 3 for the jet.
    """

    banks: int = 2

    def linear(self, reads, channels, kernel_size, stride=1):
        return RConv2d(reads.channels, channels, kernel_size, self.tile, self.banks)


class RPPConv2d(nn.Conv2d):
    """Residual pathway prior: y = psi * f + b + U V f, with a dense layer of low rank beside the convolution.

    V ``(rank, in * H * W)``, U ``(out * H * W, rank)``. U starts a thousandth as large as a dense layer would, as in
    Finzi, Benton and Wilson (2021); in the release neither path has a prior, and both start alike.
    """

    def __init__(self, in_channels, out_channels, kernel_size, tile, rank):
        super().__init__(in_channels, out_channels, kernel_size, padding=odd_kernel(kernel_size))
        points = math.prod(tile)
        self.dense_reads = nn.Parameter(torch.randn(rank, in_channels * points) / math.sqrt(in_channels * points))
        self.dense_writes = nn.Parameter(1e-3 * torch.randn(out_channels * points, rank) / math.sqrt(rank))

    def forward(self, x):
        y = super().forward(x)
        return y + (x.flatten(1) @ self.dense_reads.T @ self.dense_writes.T).view_as(y)


@dataclass(frozen=True)
class RPP(Published, OnTile, Translation):
    """A free path through the whole frame beside every convolution.

    Args:
        rank: of the free paths.
    """

    rank: int = 32

    def linear(self, reads, channels, kernel_size, stride=1):
        return RPPConv2d(reads.channels, channels, kernel_size, self.tile, self.rank)


# ---------------------------------------------------------------- rotation: weights by group element


class TurnedBanks(nn.Module):
    """Parametrisation: base kernels psi ``(banks, out, in, h, k, k)`` to a kernel ``(out * 4, in * h, k, k)``.

    K(g, h) = sum over banks l of w_l(g) turn_g psi_l(h - g), for all h, or for the only one where what is read does not
    turn: the lifting.
    """

    def __init__(self, banks, elements):
        super().__init__()
        self.combination = nn.Parameter(torch.full((4, banks), 1 / banks / elements))

    def forward(self, psi):
        turned = torch.stack([turn(psi.roll(g, 3), 90 * g) for g in range(4)])
        return torch.einsum("gl,gloihyx->ogihyx", self.combination, turned).flatten(2, 3).flatten(0, 1)


class RGroupConv2d(nn.Module):
    """Relaxed group convolution, linear: ``(n, in, elements, H, W)`` to ``(n, out, 4, H, W)``.

    The kernel is that of :class:`TurnedBanks`; w depends on the element g that is written (others write w_l(h), of the
    element that is summed over). It starts equal: the layer is then exactly equivariant. No penalty.

    The release has no activation between these layers, so that its net is linear; here the net has ReLU. At its start
    every layer divides the variance by 4 banks and dies out; here it starts like an ordinary convolution.
    """

    def __init__(self, in_channels, out_channels, kernel_size, banks, elements=4):
        super().__init__()
        self.padding = odd_kernel(kernel_size)
        bound = math.sqrt(banks * elements / in_channels) / kernel_size
        weight = torch.empty(banks, out_channels, in_channels, elements, kernel_size, kernel_size)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound))
        parametrize.register_parametrization(self, "weight", TurnedBanks(banks, elements), unsafe=True)

    def forward(self, x):
        return conv2d(x.flatten(1, 2), self.weight, padding=self.padding).unflatten(1, (-1, 4))


class Contraction(nn.Module):
    """A linear map at every point, by a constant tensor."""

    def __init__(self, equation, tensor):
        super().__init__()
        self.equation = equation
        self.register_buffer("tensor", tensor, persistent=False)

    def forward(self, x):
        return torch.einsum(self.equation, self.tensor, x)


@dataclass(frozen=True)
class RGroup(Published, Rotation):
    """Weights by quarter turn.

    A velocity is lifted to its components along 0, 90, 180 and 270 degrees, and read back from them. The release
    concatenates lifted frames and forecasts that are not, and stops at the second step. Its width and number of banks
    are not known: the width here is the strict net's.

    Args:
        banks: of base kernels.

    Raises:
        ValueError: another group than that of quarter turns, which permute the taps of a kernel.
    """

    banks: int = 2

    def __post_init__(self):
        super().__post_init__()
        if self.rotation_order != 4 or self.reflections:
            raise ValueError("RGroup turns kernels by quarters: rotation_order 4, without reflections")

    @property
    def directions(self):
        """``(fields, 4, C)``: what each component of the data is seen to be along the four directions."""
        seen = torch.zeros(len(self.fields), 4, self.components)
        for field, (kind, part) in enumerate(zip(self.fields, parts(self.fields), strict=True)):
            axes = [[1, 0], [0, 1], [-1, 0], [0, -1]] if kind == "vector" else [[1]] * 4
            seen[field, :, part] = torch.tensor(axes)
        return seen

    def lift(self, input_length):
        if "vector" not in self.fields:
            scalars = Features("scalar", input_length * self.components)
            return nn.Sequential(nn.Unflatten(2, (-1, 1)), nn.Flatten(1, 2)), scalars
        lifting = Contraction("fgc,ntcyx->ntfgyx", self.directions)
        return nn.Sequential(lifting, nn.Flatten(1, 2)), Features("regular", input_length * len(self.fields))

    def convolution(self, reads, writes, kernel_size):
        elements = 1 if reads.kind == "scalar" else 4
        conv = RGroupConv2d(reads.channels, writes.channels, kernel_size, self.banks, elements)
        return nn.Sequential(conv, nn.ReLU(inplace=True))

    def output(self, reads, kernel_size):
        inverse = self.directions / self.directions.square().sum(1, keepdim=True).clamp(min=1)
        conv = RGroupConv2d(reads.channels, len(self.fields), kernel_size, self.banks)
        return nn.Sequential(conv, Contraction("fgc,nfgyx->ncyx", inverse))


# ---------------------------------------------------------------- rotation and scale: weights by tap of the kernel


class PerTap(nn.Module):
    """Parametrisation: K(o p, i q)(t) = sum over the basis b of w(o, i, b)(t) B_b(p, q)(t), a weight for every tap t.

    ``(out, in, basis, k, k)`` to ``(out * writes, in * reads, k, k)``. With weights that are equal over the taps it is
    the steerable kernel of that basis ``(basis, writes, reads, k, k)``.
    """

    def __init__(self, basis):
        super().__init__()
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, weight):
        return torch.einsum("oibyx,bpqyx->opiqyx", weight, self.basis).flatten(2, 3).flatten(0, 1)


class RSteerConv2d(nn.Module):
    """Relaxed steerable convolution, linear, from fields ``(n, in, reads, H, W)`` to ``(n, out, writes, H, W)``.

    The basis of :class:`PerTap` is that of exact kernels; weights and bias start uniform in +- 1 / sqrt(9 in).

    As in the release, and why "relaxed" is more than it says: weights start unequal, so that nothing is equivariant
    at the start; the bias is one per component, which breaks the symmetry also where weights are equal; and the weights
    reach every kernel but for its centre: an ordinary convolution with more numbers than it needs. The release also
    has batch norms that are never used, and its kernels turn vectors the wrong way.
    """

    def __init__(self, rotation, reads, writes, kernel_size):
        super().__init__()
        self.padding = odd_kernel(kernel_size)
        kinds = [rotation.fields if features.kind == "data" else ("regular",) for features in (reads, writes)]
        basis = kernel_basis(rotation.rotation_order, rotation.reflections, kernel_size, *kinds)
        self.size = basis.shape[1]
        bound = 1 / math.sqrt(reads.channels) / kernel_size
        weight = torch.empty(writes.channels, reads.channels, len(basis), kernel_size, kernel_size)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(writes.channels * self.size).uniform_(-bound, bound))
        parametrize.register_parametrization(self, "weight", PerTap(basis), unsafe=True)

    def forward(self, x):
        return conv2d(x.flatten(1, 2), self.weight, self.bias, padding=self.padding).unflatten(1, (-1, self.size))

    def penalty(self):
        return self.parametrizations.weight.original.flatten(3).diff().abs().mean()  # from tap to tap, row by row


@dataclass(frozen=True)
class RSteer(Published, Rotation):
    """Weights by tap, of steerable kernels. The paper has quarter turns: rotation_order 4."""

    convnet_width = 92

    def convolution(self, reads, writes, kernel_size):
        return nn.Sequential(RSteerConv2d(self, reads, writes, kernel_size), nn.ReLU(inplace=True))

    def output(self, reads, kernel_size):
        return nn.Sequential(RSteerConv2d(self, reads, Features("data", 1), kernel_size), nn.Flatten(1, 2))


SIGMAS = (1.0, 1.5, 2.0, 2.5)  # cells
ORDERS = 7  # of the Hermite polynomials along each axis
SIDE = 5  # taps of the kernels of scale


def hermite_gaussians():
    """He_m(x / sigma) He_n(y / sigma) exp(-(x^2 + y^2) / 2 sigma^2) / sigma^2 for all m, n < ORDERS, at SIGMAS.

    Of unit norm at the first sigma. A kernel has as many taps as fit into sigma's share of the largest, an odd number.

    Returns:
        ``(ORDERS^2, sigmas, SIDE, SIDE)`` float64; the index is ORDERS n + m for m along rows and n along columns.
    """
    taps, lines = np.arange(SIDE) - SIDE // 2, np.zeros((ORDERS, len(SIGMAS), SIDE))
    for order, line in enumerate(lines):
        for level, sigma in enumerate(SIGMAS):
            wave = np.polynomial.hermite_e.hermeval(taps / sigma, np.eye(ORDERS)[order])
            reach = int(SIDE * sigma / max(SIGMAS)) // 2
            line[level] = np.where(abs(taps) <= reach, wave * np.exp(-((taps / sigma) ** 2) / 2) / sigma, 0)
    basis = np.einsum("msy,nsx->nmsyx", lines, lines).reshape(-1, len(SIGMAS), SIDE, SIDE)
    return torch.from_numpy(basis / np.linalg.norm(basis[:, :1], axis=(2, 3), keepdims=True))


class RScaleConv2d(nn.Module):
    """Relaxed scale-steerable convolution, linear: ``(n, in, scales or 1, H, W)`` to ``(n, out, levels, H, W)``.

    The kernel of a level is that of :class:`PerTap` on the level's :func:`hermite_gaussians`; every level is convolved
    alone and with one bias for all. What is read of one level is read by all: the lifting.

    As in the release, which does not have the symmetry even where weights are equal: no level sees another, the ratios
    of sigmas differ from level to level, the kernels are cut to 3 and 5 taps, and 1225 weights make 25 taps. The
    penalty compares every tap with its neighbour on the diagonal, periodically.
    """

    def __init__(self, in_channels, out_channels, levels):
        super().__init__()
        self.levels = levels
        weight = torch.empty(out_channels, in_channels, ORDERS**2, SIDE, SIDE)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(weight))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        basis = hermite_gaussians()[:, :levels, None].to(self.weight.dtype)
        parametrize.register_parametrization(self, "weight", PerTap(basis), unsafe=True)

    def forward(self, x):
        seen = x[:, :, : self.levels].expand(-1, -1, self.levels, -1, -1).transpose(1, 2).flatten(1, 2)
        kernels = self.weight.unflatten(0, (-1, self.levels)).transpose(0, 1).flatten(0, 1)
        bias = self.bias.repeat(self.levels)
        y = conv2d(seen, kernels, bias, padding=SIDE // 2, groups=self.levels)
        return y.unflatten(1, (self.levels, -1)).transpose(1, 2)

    def penalty(self):
        weight = self.parametrizations.weight.original
        return (weight - weight.roll((1, 1), (3, 4))).abs().mean()


@dataclass(frozen=True)
class RScale(Published, Scale):
    """Weights by tap, of scale-steerable kernels.

    The last layer reads the first level alone, and levels never mix: the others are work for nothing, and with
    ``num_scales`` 1 the same weights forecast the same.

    Raises:
        ValueError: more levels than four, levels that see others, or another kernel than of 5 x 5 taps.
    """

    own_frames = ()
    convnet_width = 64
    before, after = Symmetry.before, Symmetry.after  # the output is the next frame

    def __post_init__(self):
        super().__post_init__()
        if self.num_scales > len(SIGMAS) or self.scale_interaction != 1:
            raise ValueError("RScale has levels that never mix, four at most: num_scales 1 to 4, scale_interaction 1")

    def lift(self, input_length):
        frames = Features("hidden", self.components * input_length)
        return nn.Sequential(nn.Flatten(1, 2), nn.Unflatten(1, (-1, 1))), frames

    def convolution(self, reads, writes, kernel_size):
        if kernel_size != SIDE:
            raise ValueError(f"RScale has kernels of {SIDE} x {SIDE} taps: kernel_size {SIDE}, got {kernel_size}")
        return nn.Sequential(RScaleConv2d(reads.channels, writes.channels, self.num_scales), nn.ReLU(inplace=True))

    def output(self, reads, kernel_size):
        return nn.Sequential(RScaleConv2d(reads.channels, self.components, 1), nn.Flatten(1, 2))


# ---------------------------------------------------------------- a strict net that is told of the whole window


class LiftNet(ConvNet):
    """A ConvNet whose third layer also reads channels that are constant over the grid.

    A perceptron makes them of all numbers of the window, as the first layer reads it. It knows places and directions:
    the net has the symmetry of its layers only where the perceptron is silent.
    """

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0, frames=()):
        super().__init__(symmetry, input_length, kernel_size, width, frames)
        hidden, numbers = self.hidden(symmetry.convnet_width), symmetry.channel_numbers
        constant = max(1, hidden.channels // numbers)  # as many numbers as there are hidden channels
        reads = hidden._replace(channels=hidden.channels + constant)
        self.layers[2] = symmetry.convnet_layer(reads, hidden, kernel_size)
        window = torch.zeros(1, input_length, symmetry.components, *symmetry.tile)
        self.perceptron = nn.Sequential(
            nn.Flatten(1),
            nn.Linear(self.lift(window).numel(), hidden.channels),
            nn.ReLU(inplace=True),
            nn.Linear(hidden.channels, hidden.channels),
            nn.ReLU(inplace=True),
            nn.Linear(hidden.channels, constant * numbers),
        )

    def trunk(self, x):
        y = self.layers[:2](x)
        constant = self.perceptron(x).unflatten(1, (-1, *y.shape[2:-2]))[..., None, None].expand(-1, -1, *y.shape[2:])
        return self.output(self.layers[2:](torch.cat([y, constant], 1)))


@dataclass(frozen=True)
class Lift(OnTile, Normed):
    """Lift expansion of plain layers."""

    skeleton = LiftNet
    channel_numbers = 1


@dataclass(frozen=True)
class LiftRotation(OnTile, NormedRotation):
    """Lift expansion of steerable layers. In the release it is fixed to frames of 62 x 23 points."""

    skeleton = LiftNet

    @property
    def channel_numbers(self):
        return self.rotation_order * (1 + self.reflections)


@dataclass(frozen=True)
class LiftScale(OnTile, Scale):
    """Lift expansion of layers on a scale axis."""

    skeleton = LiftNet

    @property
    def channel_numbers(self):
        return self.num_scales


PUBLISHED = {
    "None": {"norm": Normed(), "RConv": RConv(), "RPP": RPP(), "Lift": Lift()},
    "Rot": {
        "norm": NormedRotation(),
        "RGroup": RGroup(rotation_order=4),
        "RSteer": RSteer(rotation_order=4),
        "Lift": LiftRotation(),
    },
    "Scale": {"RScale": RScale(num_scales=4, scale_interaction=1), "Lift": LiftScale()},
}
