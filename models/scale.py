"""Scale: w(x, t) -> lambda w(lambda x, lambda^2 t), for lambda > 0. Upscaling by f = 1 / lambda: space x f, time x f^2.

T_lambda maps solutions of Navier-Stokes to solutions, so the flow map obeys phi_dt T = T phi_(lambda^2 dt): on the
upscaled flow one frame interval is only f^-2 of an interval of the original. A net that commuted with T frame by frame
would forecast f^2 frames ahead; what a one-step forecaster must know is the *rate of change*, which obeys

    R(T w)(x) = lambda^3 R(w)(lambda x)        (one lambda from w, two from dt).

The nets here have features F(x, sigma) on a scale axis with levels sigma_i in ratio 2^(1/2). They transform as
F -> lambda F(lambda x, lambda sigma): a shift along the axis. This is kept by

* lifting in space and time: level sigma reads the flow 0, sigma^2, 2 sigma^2 frames ago;
* convolutions whose kernel at level sigma has its taps sigma cells apart and which see the neighbouring levels;
* positive homogeneity, f(c w) = c f(w) for c > 0 (LeakyReLU, no biases): no strength of the flow is special;
* the readout: last frame + mean over levels of sigma^-2 times the output, whose shift by one level is lambda^3;
* a unit of its own for every field, the root mean square over the window, taken out before the net and put back after:
  it carries the factor lambda of a velocity, and none where a scalar keeps its value, w(lambda x, lambda^2 t);
* a fixed point: what the net would say of a steady flow, its last frame repeated, is subtracted. A steady flow stays
  steady, so the rate of change is of the order of the changes the net has seen, on every level and at every factor.

Exact: homogeneity (so these nets keep the symmetry of magnitude too), and the fixed point.
Approximate: the shift by a level. Taps and lags between grid points are read by quadratic interpolation, so its error
falls fast with the number of cells per wavelength; halved grids have fewer of them; lags that reach beyond the window
read its oldest frame; other factors than powers of 2^(1/2) lie between levels.
Not kept: the scale axis ends, so what a shift carries beyond the last level is lost, and the first level meets what no
level saw. Padding replicates the border, which does not scale, or wraps. A forecast is the last frame plus one rate: a
change over one frame interval is that to first order only.

Relaxed by gains: every layer has a gain per level. Free: every level has a kernel of its own beside the base kernel.

Worrall and Welling, Deep scale-spaces (2019); Sosnovik et al., scale-equivariant steerable networks (2020) and DISCO
(2021). Widths: the paper's.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu_
from torch.nn.utils import parametrize

from models.backbone import ResidualBlock, Symmetry, deviation, extend, gained, odd_kernel
from models.fields import Features, of_component
from models.options import ScaleOptions

FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)  # of the test set; the paper's Figure 3 wants errors per factor
TIME_TAPS = 3  # of the lifting: the flow now, sigma^2 and 2 sigma^2 frames ago
CROP = 16  # upscaled flows are cropped to multiples of what a U-Net halves to nothing
ROUNDING = 1e-6  # of times and masks
NEGATIVE_SLOPE = 0.01  # of LeakyReLU
QUIET_OUTPUT = 0.1  # gain of the last convolution at the start: the first forecasts are near the last frame


# ---------------------------------------------------------------- resampling


def interpolation(positions, size):
    """Matrix ``(len(positions), size)`` that reads values given at 0, 1 ... size - 1 at ``positions`` between them.

    Quadratic through the three nearest points, so exact for parabolas and at grid points; float64.
    """
    nodes = min(3, size)
    matrix = torch.zeros(len(positions), size, dtype=torch.float64, device="cpu")
    for row, position in enumerate(positions):
        x = min(max(float(position), 0.0), size - 1.0)
        start = min(max(round(x) - 1, 0), size - nodes)
        for node in range(start, start + nodes):
            others = (other for other in range(start, start + nodes) if other != node)
            matrix[row, node] = math.prod((x - other) / (node - other) for other in others)
    return matrix


def dilated_taps(kernel_size, sigma):
    """Kernel taps ``sigma`` cells apart, as taps on the grid.

    Returns:
        ``(matrix, dilation)``: ``(kernel_size, taps)`` resamples a kernel along an axis; its grid taps are ``dilation``
        cells apart. Taps that are zero for every kernel are trimmed: an integer sigma leaves ``kernel_size`` of them.
    """
    half = odd_kernel(kernel_size)
    if sigma == int(sigma):
        return torch.eye(kernel_size, dtype=torch.float64, device="cpu"), int(sigma)
    radius = math.ceil(sigma * half)
    return interpolation([radius + sigma * tap for tap in range(-half, half + 1)], 2 * radius + 1), 1


class Geometry(NamedTuple):
    """What the kernel of one level sees: levels from the ``first`` on, ``taps`` cells ``dilation`` apart.

    ``neighbours`` says how many of its neighbours each level is that it sees: several beyond an end of the scale axis.
    """

    first: int
    neighbours: tuple[int, ...]
    taps: int
    dilation: int

    @property
    def radius(self):
        return self.dilation * (self.taps // 2)


class Resampled(nn.Module):
    """Parametrisation: one base kernel ``(out, neighbours, in, k, k)`` to a list of kernels, one per level.

    The kernel of a level is ``(out, levels it sees * in, taps, taps)``, linear in the weights: those of a neighbour
    beyond the end of the scale axis, which is its last level once more, are added to that level's, and a small matrix
    resamples the taps. ``free``: the shape of a base kernel that every level has of its own beside the common one.

    Attributes:
        geometry: one :class:`Geometry` per level.
    """

    def __init__(self, kernel_size, sigmas, neighbours, free=()):
        super().__init__()
        self.geometry = []
        self.deviation = deviation(free, len(sigmas), *free)
        for level, sigma in enumerate(sigmas):
            axis, dilation = dilated_taps(kernel_size, sigma)
            seen = [min(max(level + i - neighbours // 2, 0), len(sigmas) - 1) for i in range(neighbours)]
            plane = None if sigma == int(sigma) else torch.kron(axis, axis)  # a whole sigma needs none
            self.register_buffer(f"plane{level}", plane, persistent=False)
            counts = tuple(seen.count(one) for one in range(seen[0], seen[-1] + 1))
            self.geometry.append(Geometry(seen[0], counts, axis.shape[1], dilation))

    def forward(self, weight):
        kernels = []
        for level, geometry in enumerate(self.geometry):
            base = weight if self.deviation is None else weight + self.deviation[level]
            base = base.flatten(3)  # (out, neighbours, in, k * k)
            kernel, plane = base, getattr(self, f"plane{level}")
            if max(geometry.neighbours) > 1:
                parts = base.split(geometry.neighbours, 1)
                kernel = torch.cat([part.sum(1, keepdim=True) for part in parts], 1)
            if plane is not None:
                kernel = kernel @ plane.to(weight.dtype)
            kernels.append(kernel.reshape(len(weight), -1, geometry.taps, geometry.taps))
        return kernels


# ---------------------------------------------------------------- layers


class ScaleConv2d(nn.Module):
    """A convolution over space and neighbouring scales, without bias.

    Features are ``(n, channels, scales, H, W)``; in memory the scales come first, so that neighbouring levels are
    neighbouring channels of an ordinary convolution: one per level, no copy. Padding replicates the border, but of
    periodic axes.

    Args:
        in_channels, out_channels: numbers of channels per level.
        kernel_size: odd side of the base kernel.
        sigmas: the levels.
        neighbours: odd number of levels that a level sees.
        activation: apply LeakyReLU.
        gain: of the initial weights, on top of He's.
        relaxed: "", "gains" or "free".
        periodic: axes that end where they begin.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        sigmas,
        neighbours,
        activation=True,
        gain=1.0,
        relaxed="",
        periodic=(),
    ):
        super().__init__()
        self.periodic = periodic
        self.in_channels, self.out_channels, self.activation = in_channels, out_channels, activation
        # Taps far apart see the flow with equal strength on every level: He's variance holds for all of them.
        weight = torch.empty(out_channels, neighbours, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(nn.init.kaiming_normal_(weight) * gain)
        resampled = Resampled(kernel_size, sigmas, neighbours, weight.shape if relaxed == "free" else ())
        self.geometry = resampled.geometry
        self.deviation = deviation(relaxed == "gains", 1, len(sigmas))
        parametrize.register_parametrization(self, "weight", resampled, unsafe=True)

    def forward(self, x):
        levels = x.transpose(1, 2).flatten(1, 2)  # (n, scales * channels, H, W)
        radii = {geometry.radius for geometry in self.geometry}
        padded = {radius: extend(levels, radius, self.periodic, "replicate") for radius in radii}
        outputs = []
        for kernel, geometry in zip(self.weight, self.geometry, strict=True):
            seen = padded[geometry.radius].narrow(1, geometry.first * self.in_channels, kernel.shape[1])
            outputs.append(conv2d(seen, kernel, dilation=geometry.dilation))
        y = gained(torch.stack(outputs, 1).transpose(1, 2), self.deviation)
        return leaky_relu_(y, NEGATIVE_SLOPE) if self.activation else y


class ScaleDownsampling(nn.Module):
    """Halves the grid: the mean of 2 x 2 cells, centred like them, then a scale convolution.

    A strided convolution would sample at the corner of the coarse cells, half a cell off whatever the scale.
    """

    def __init__(self, *sizes, **options):
        super().__init__()
        self.conv = ScaleConv2d(*sizes, **options)

    def forward(self, x):
        levels = x.transpose(1, 2)
        coarse = avg_pool2d(levels.flatten(1, 2), 2)
        return self.conv(coarse.unflatten(1, levels.shape[1:3]).transpose(1, 2))


class ScaleUpsampling(nn.Module):
    """Doubles the grid: a scale convolution at the low resolution, linear interpolation, LeakyReLU."""

    def __init__(self, *sizes, periodic=(), **options):
        super().__init__()
        self.periodic = periodic
        self.conv = ScaleConv2d(*sizes, activation=False, periodic=periodic, **options)

    def forward(self, x):
        levels = self.conv(x).transpose(1, 2)
        border = 1 if self.periodic else 0  # interpolation replicates the border by itself
        coarse = extend(levels.flatten(1, 2), border, self.periodic, "replicate")
        fine = leaky_relu_(interpolate(coarse, scale_factor=2, mode="bilinear"), NEGATIVE_SLOPE)
        if self.periodic:
            fine = fine[..., 2:-2, 2:-2]
        return fine.unflatten(1, levels.shape[1:3]).transpose(1, 2)


class Lifting(nn.Module):
    """Frames ``(n, T, C, H, W)`` to features ``(n, C * TIME_TAPS, scales, H, W)``: no weights, no blur.

    Level sigma gets the flow now and its differences over the last and the last but one sigma^2 frames.
    """

    def __init__(self, input_length, lags):
        super().__init__()
        reads = []
        for lag in lags:
            read = interpolation([input_length - 1 - tap * lag for tap in range(TIME_TAPS)], input_length)
            reads.append(torch.cat([read[:1], read[:-1] - read[1:]]))
        read = torch.cat(reads)  # (scales * taps, T)
        self.oldest = int(read.abs().sum(0).nonzero()[0])
        self.scales = len(lags)
        self.register_buffer("read", read[:, self.oldest :], persistent=False)

    def forward(self, frames):
        recent = frames[:, self.oldest :].flatten(2)
        return (
            torch.matmul(self.read.to(recent.dtype), recent)  # (n, scales * taps, C * H * W)
            .unflatten(2, frames.shape[2:])
            .flatten(1, 2)
            .unflatten(1, (self.scales, -1))
            .transpose(1, 2)
        )


class Projection(nn.Module):
    """The last, linear convolution and the end of the scale axis: features to a frame ``(n, C, H, W)``.

    Args:
        conv: features to ``(n, C, scales, H, W)``.
        weights: per level, on its output; then comes the mean over the levels.
    """

    def __init__(self, conv, weights):
        super().__init__()
        self.conv = conv
        self.register_buffer("weights", torch.tensor(weights)[:, None, None], persistent=False)

    def forward(self, x):
        return (self.conv(x) * self.weights).mean(2)


# ---------------------------------------------------------------- the group and the nets


EXPONENTS = {"vector": 1, "scalar": 0}  # of lambda: a passive scalar keeps its values


class Scale(ScaleOptions, Symmetry):
    """Rescale space and time. Features are numbers on a scale axis ``(n, channels, scales, H, W)``.

    A group element is the upscaling factor f = 1 / lambda; a batch shares one factor, because it sets the size.
    """

    name = "Scale"
    own_frames = ("Mag",)
    resnet_widths = (32, 32, 64, 64, 128, 128, 128, 128)
    unet_widths = (32, 64, 128, 256)
    unet_up_widths = (64, 32, 16, 8)
    convnet_width = 32

    @property
    def squares(self):
        """sigma^2 of the levels: how many frames apart they read the flow."""
        return [2.0 ** (level - (self.num_scales - 1) / 2) for level in range(self.num_scales)]

    @property
    def sigmas(self):
        """sigma of the levels: how many cells apart the taps of their kernels are."""
        return [math.sqrt(square) for square in self.squares]

    # --- the action

    def sample(self, n, generator=None):
        """Factors f ``(n,)`` from the grid 1, 1.25, 1.5, 2, 3, so that windows of equal size form batches.

        The release draws them from [0.5, 5]; with ``release_factors`` so do we, in steps of 1/4.
        """
        if self.release_factors:
            return (4 * (0.5 + 4.5 * torch.rand(n, generator=generator))).round() / 4
        return torch.tensor(FACTORS)[torch.randint(len(FACTORS), (n,), generator=generator)]

    def act(self, g, frames):
        """w(x / f, t / f^2) / f about the last frame, which stays the last: as many frames as the source covers."""
        time = frames.shape[1]
        return self.act_on_window(g, frames, time - 1, math.floor((time - 1) * one_factor(g) ** 2 + ROUNDING) + 1, 0)

    def source_window(self, g, past, future):
        """Frames of the original behind a window ``past + future``: a ninth as many at factor 3, four times at 1/2."""
        square = one_factor(g) ** 2
        return math.ceil((past - 1) / square - ROUNDING) + 1, math.ceil(future / square - ROUNDING)

    def act_on_window(self, g, frames, present, past, future):
        """w(x / f, t / f^2) / f, trilinear, antialiased in space where it shrinks, cropped to multiples of 16 cells.

        Scalars keep their values (``EXPONENTS``).

        Args:
            g: factors ``(n,)``, all equal.
            frames: ``(n, T, C, H, W)``.
            present: index of the frame that stays the present.
            past, future: frames to return up to the present and after it.

        Returns:
            ``(n, past + future, C, f H, f W)``, the sides rounded down to multiples of 16 (whole cells below 16).

        Raises:
            ValueError: different factors, or too few frames.
        """
        factor = one_factor(g)
        times = present + torch.arange(1 - past, future + 1, dtype=torch.float64) / factor**2
        if times[0] < -ROUNDING or times[-1] > frames.shape[1] - 1 + ROUNDING:
            wanted = f"{times[0]:.1f} to {times[-1]:.1f}"
            raise ValueError(f"factor {factor:g} needs frames {wanted}, there are 0 to {frames.shape[1] - 1}")
        before = (times + ROUNDING).floor().long().clamp(0, frames.shape[1] - 1)
        after = (before + 1).clamp(max=frames.shape[1] - 1)
        share = (times - before).clamp(min=0).to(frames)[:, None, None, None]
        first = before[0]
        frames = resize(frames[:, first : after[-1] + 1].flatten(0, 1), factor).unflatten(0, (len(frames), -1))
        strength = of_component(self.fields, [factor ** -EXPONENTS[kind] for kind in self.fields])
        frames = frames * torch.tensor(strength, dtype=frames.dtype, device=frames.device)[:, None, None]
        return torch.lerp(frames[:, before - first], frames[:, after - first], share)

    def enlargement(self, g):
        return max(1.0, one_factor(g) ** 2)

    def act_on_mask(self, g, mask, frames):
        """A point is valid if every point it is read from is."""
        return None if mask is None else resize(mask.double(), one_factor(g)) > 1 - ROUNDING

    # --- the layers

    def before(self, frames):
        """The frames, and below them in the batch a steady flow: the last frame, repeated."""
        last = frames[:, -1:]
        return torch.cat([frames, last.expand_as(frames)]), last.squeeze(1)

    def after(self, output, state):
        change, change_if_steady = output.chunk(2)
        return state + (change - change_if_steady)

    def lift(self, input_length):
        if input_length < 2:
            raise ValueError("symmetry Scale forecasts a rate of change: input_length must be at least 2")
        return Lifting(input_length, self.squares), Features("hidden", self.components * TIME_TAPS)

    def convolution(self, reads, writes, kernel_size, stride=1, **options):
        layer = ScaleConv2d if stride == 1 else ScaleDownsampling
        sizes = reads.channels, writes.channels, kernel_size, self.sigmas, self.scale_interaction
        return layer(*sizes, relaxed=self.relaxed, periodic=self.periodic, **options)

    def residual_block(self, reads, writes, kernel_size):
        # Without normalisation eight blocks would double the variance eight times.
        gain = len(self.resnet_widths) ** -0.5
        first = self.convolution(reads, writes, kernel_size)
        second = self.convolution(writes, writes, kernel_size, gain=gain)
        return ResidualBlock(
            first, second, nn.Identity() if reads == writes else self.convolution(reads, writes, kernel_size)
        )

    def upsampling(self, reads, writes):
        sizes = reads.channels, writes.channels, 3, self.sigmas, self.scale_interaction
        return ScaleUpsampling(*sizes, relaxed=self.relaxed, periodic=self.periodic)

    def output(self, reads, kernel_size):
        data = Features("data", self.components)
        conv = self.convolution(reads, data, kernel_size, activation=False, gain=QUIET_OUTPUT)
        return Projection(conv, [1 / square for square in self.squares])


def one_factor(g):
    """The upscaling factor that a batch shares; ValueError if it has several."""
    factors = g.unique()
    if len(factors) != 1 or not factors[0] > 0:
        raise ValueError(f"a batch must share one positive factor, got {factors.tolist()}")
    return factors[0].item()


def resampling(size, factor):
    """Matrix that reads a line of ``size`` cells at ``factor`` times the resolution, about its centre.

    Linear interpolation between the centres of cells, antialiased where it shrinks: weights fall linearly to 0 over
    one cell of the coarser of the two grids. Of the new cells as many as a multiple of ``CROP`` are kept (all of fewer
    than that). At factor 1 nothing is interpolated: of an odd surplus, half a cell lies off the centre.

    Returns:
        ``(cells, size)`` float64, rows that sum to 1.
    """
    cells = math.floor(size * factor + ROUNDING)
    cells -= cells % CROP if cells >= CROP else 0
    if factor == 1:
        return torch.eye(size, dtype=torch.float64)[(size - cells) // 2 :][:cells]
    places = (torch.arange(cells, dtype=torch.float64) - (cells - 1) / 2) / factor + (size - 1) / 2
    distance = (places[:, None] - torch.arange(size)).abs() * min(1, factor)
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def resize(maps, factor):
    """``(n, c, H, W)`` at ``factor`` times the resolution, see :func:`resampling`."""
    rows, columns = (resampling(side, factor).to(maps) for side in maps.shape[-2:])
    return rows @ maps @ columns.t()
