"""The two skeletons, ResNet and U-Net, written once; every symmetry fills in its own layers.

Layer counts and widths: Wang, Walters and Yu, ICLR 2021, appendix, and the code released with it.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn


class Symmetry(ABC):
    """What one file of ``models/`` provides: a group action on flows, and the layers that commute with it.

    Widths count the channels of this symmetry's own features: scalars for plain nets, vectors
    (pairs of scalars) for uniform motion and magnitude.
    """

    name: str
    resnet_stem: int | None = None  # width of a convolution before the blocks, None for none
    resnet_widths: tuple[int, ...]
    unet_widths: tuple[int, ...]
    unet_up_widths: tuple[int, ...]
    unet_depths = (1, 2, 2, 2)  # convolutions per stage of the U-Net; the first of each halves the grid
    options = {}  # keyword arguments of the constructor that shape the net, with their defaults

    # --- the group

    @abstractmethod
    def sample(self, n, generator=None):
        """Draw ``n`` group elements from the paper's test distribution: a CPU tensor whose first axis is ``n``."""

    @abstractmethod
    def act(self, g, frames):
        """Apply the group elements ``g`` (first axis n) to ``frames`` ``(n, time, 2, H, W)``. Pure; any device."""

    def act_on_mask(self, g, mask, frames):
        """Move the map of valid points ``(n, 1, H, W)`` as ``act`` moves the flow. By default points stay put.

        ``mask`` is None where all points of ``frames`` are valid; so is the result where they all stay so.
        """
        return mask

    keeps_shape = True  # else windows change size and length with the element, and a batch shares one element

    def growth(self, g):
        """How many times more cells than the original a transformed frame has."""
        return 1.0

    def source_window(self, g, past, future):
        """How many frames up to the present and after it a transformed window ``past + future`` is made from."""
        return past, future

    def act_on_window(self, g, frames, present, past, future):
        """Transform frames ``(n, T, 2, H, W)`` about the frame ``present`` into a window ``past + future``.

        By default a window is transformed frame by frame; ``frames`` is all of it.
        """
        return self.act(g, frames)

    # --- the layers

    def reduce(self, frames):
        """Split frames ``(n, T, 2, H, W)`` into an equivalent of moderate size and what ``restore`` needs."""
        return frames, None

    def restore(self, frame, state):
        """Undo ``reduce`` on the forecast ``(n, 2, H, W)``."""
        return frame

    @abstractmethod
    def lift(self, input_length):
        """Return ``(module, channels)``: the map from frames ``(n, T, 2, H, W)`` to features."""

    @abstractmethod
    def convolution(self, in_channels, out_channels, kernel_size, stride=1):
        """A convolution with activation, of the U-Net; ``stride`` 2 halves the grid."""

    @abstractmethod
    def residual_block(self, in_channels, out_channels, kernel_size):
        """Two convolutions and a skip connection, of the ResNet."""

    @abstractmethod
    def upsampling(self, in_channels, out_channels):
        """A layer with activation that doubles the grid."""

    @abstractmethod
    def output(self, in_channels, kernel_size):
        """The last, linear convolution: features to a frame ``(n, 2, H, W)``."""

    # Where the features of ``lift`` are of another kind than those of the hidden layers, the three layers that read or
    # write them differ. The U-Net writes them last, beside those it has read first.

    def first_convolution(self, in_channels, out_channels, kernel_size, stride=1):
        """``convolution`` from the features of ``lift``."""
        return self.convolution(in_channels, out_channels, kernel_size, stride)

    def last_upsampling(self, in_channels, out_channels):
        """``upsampling`` to features like those of ``lift``."""
        return self.upsampling(in_channels, out_channels)

    def frame_output(self, in_channels, kernel_size):
        """``output`` from features like those of ``lift``."""
        return self.output(in_channels, kernel_size)


class Forecaster(nn.Module):
    """A net that maps frames ``(n, input_length, 2, H, W)`` to the next frame ``(n, 2, H, W)``.

    Args:
        symmetry: the :class:`Symmetry` whose layers it is built from.
        input_length: number of past frames.
        kernel_size: odd side of the square kernels.
        width: factor on every hidden width.
    """

    size_multiple = 1

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0):
        super().__init__()
        self.symmetry = symmetry
        self.input_length = input_length
        self.kernel_size = kernel_size
        self.width = width
        self.lift, self.in_channels = symmetry.lift(input_length)

    def scaled(self, channels):
        """A hidden width times ``self.width``, at least 1."""
        return max(1, round(channels * self.width))

    def forward(self, frames):
        """Forecast the next frame.

        Raises:
            ValueError: frames of another shape than ``(n, input_length, 2, H, W)``, or a grid the net cannot halve.
        """
        if frames.dim() != 5 or frames.shape[1:3] != (self.input_length, 2):
            raise ValueError(f"expected frames (n, {self.input_length}, 2, H, W), got {tuple(frames.shape)}")
        height, width = frames.shape[-2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(
                f"{type(self).__name__} needs height and width to be multiples of {self.size_multiple}, "
                f"got {height} x {width}"
            )
        frames, state = self.symmetry.reduce(frames)
        return self.symmetry.restore(self.trunk(self.lift(frames)), state)


class ResNet(Forecaster):
    """Eight residual blocks at full resolution, after a stem if the symmetry wants one, then one convolution."""

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0):
        super().__init__(symmetry, input_length, kernel_size, width)
        blocks, channels = [], self.in_channels
        if symmetry.resnet_stem is not None:
            blocks.append(symmetry.first_convolution(channels, self.scaled(symmetry.resnet_stem), kernel_size))
            channels = self.scaled(symmetry.resnet_stem)
        for out_channels in map(self.scaled, symmetry.resnet_widths):
            blocks.append(symmetry.residual_block(channels, out_channels, kernel_size))
            channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.output = symmetry.output(channels, kernel_size)

    def trunk(self, x):
        return self.output(self.blocks(x))


class UNet(Forecaster):
    """Four halvings, four doublings with skip connections, then one convolution on [input, features]."""

    size_multiple = 2**4

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0):
        super().__init__(symmetry, input_length, kernel_size, width)
        skips = [self.in_channels]
        self.down = nn.ModuleList()
        for out_channels, depth in zip(map(self.scaled, symmetry.unet_widths), symmetry.unet_depths, strict=True):
            convolution = symmetry.convolution if self.down else symmetry.first_convolution
            stage = [convolution(skips[-1], out_channels, kernel_size, stride=2)]
            stage += [symmetry.convolution(out_channels, out_channels, kernel_size) for _ in range(depth - 1)]
            self.down.append(nn.Sequential(*stage))
            skips.append(out_channels)

        channels = skips.pop()
        self.up = nn.ModuleList()
        for out_channels in map(self.scaled, symmetry.unet_up_widths):
            upsampling = symmetry.upsampling if len(skips) > 1 else symmetry.last_upsampling
            self.up.append(upsampling(channels, out_channels))
            channels = skips.pop() + out_channels
        self.output = symmetry.frame_output(channels, kernel_size)

    def trunk(self, x):
        skips = [x]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        x = skips.pop()
        for up in self.up:
            x = torch.cat([skips.pop(), up(x)], 1)
        return self.output(x)


class ResidualBlock(nn.Module):
    """``second(first(x)) + skip(x)``: a sum of equivariant maps is equivariant (the paper's proposition)."""

    def __init__(self, first, second, skip):
        super().__init__()
        self.first, self.second, self.skip = first, second, skip

    def forward(self, x):
        return self.second(self.first(x)) + self.skip(x)


class RepeatedPixelKernel(nn.Module):
    """Parametrisation: a 4 x 4 kernel on pixels repeated twice = four 3 x 3 kernels on the pixels themselves.

    The padding of the repeated image is (1, 2), so its output 2m + a along an axis, with a = 0, 1, reads pixels
    m - 1, m, m, m + 1 (a = 0) or m, m, m + 1, m + 1 (a = 1). Collecting taps that meet the same pixel gives one
    3-tap kernel per phase a: a fourth of the work. ``(out, in, 4, 4)`` -> ``(out * 4, in, 3, 3)``, the phases in
    the order that ``pixel_shuffle`` wants.
    """

    def __init__(self):
        super().__init__()
        even = [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
        odd = [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
        axis = torch.tensor([even, odd]).float()  # (phase, pixel, tap)
        plane = torch.einsum("apt,bqs->tsabpq", axis, axis).reshape(16, 4 * 9)  # one small matrix: fast on every device
        self.register_buffer("plane", plane, persistent=False)

    def forward(self, weight):
        phases = weight.flatten(2) @ self.plane.to(weight.dtype)  # (out, in, 4 * 9)
        return phases.unflatten(2, (4, 3, 3)).transpose(1, 2).flatten(0, 1)


def repeat_pixels(maps):
    """Repeat every pixel of ``(n, c, H, W)`` twice and pad by (1, 2): what a 4 x 4 window of the U-Net sees."""
    repeated = nn.functional.interpolate(maps, scale_factor=2, mode="nearest")
    return nn.functional.pad(repeated, (1, 2, 1, 2), mode="replicate")


def shuffle_pixels(maps):
    """``pixel_shuffle`` of ``(n, 4 c, H, W)`` to ``(n, c, 2 H, 2 W)``; torch's own has no gradient where n is 0."""
    if len(maps):
        return nn.functional.pixel_shuffle(maps, 2)
    _, channels, height, width = maps.shape
    return maps.reshape(0, channels // 4, 2 * height, 2 * width)


def odd_kernel(kernel_size):
    """Half the side of a square kernel.

    Raises:
        ValueError: an even or non-positive side, which has no centre.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    return kernel_size // 2
