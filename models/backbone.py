"""What all symmetries share: the action's interface, the skeletons, frames, relaxation; each written once.

Layer counts and widths: Wang, Walters and Yu, ICLR 2021, appendix, and the code released with it; ConvNet: Wang,
Walters and Yu, ICML 2022.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import conv_transpose2d, interpolate, pad

from models.fields import Features
from models.options import Options


def deviation(relaxed, *shape):
    """A parameter by which a layer may leave its symmetry; 0 at the start, so that it *is* the strict layer. Or None.

    Training lets it decay, see ``utils.train``; ``evaluation.relaxation`` reads how large it has become.
    """
    return nn.Parameter(torch.zeros(shape)) if relaxed else None


def deviations(model):
    """``{name: parameter}`` of all deviations of a net; empty if it is strict."""
    return {name: number for name, number in model.named_parameters() if ".deviation" in name}


def gained(y, gain):
    """``y (n, channels, ...)`` times 1 + ``gain``, whose axes are those of ``y`` after the first; no gain: ``y``."""
    if gain is None:
        return y
    return y * (1 + gain).reshape(gain.shape + (1,) * (y.dim() - 1 - gain.dim()))


class Symmetry(Options, ABC):
    """What one file of ``models/`` provides: a group's action on flows, and the layers that commute with it.

    What can be set is in ``models.options``. Widths count numbers at a point, of which a channel has ``channel_size``.
    """

    name: ClassVar[str]
    own_frames: ClassVar[tuple[str, ...]] = ()  # frames of reference that its strict nets always have
    resnet_stem: ClassVar[int | None] = None  # width of a convolution before the blocks, None for none
    resnet_widths: ClassVar[tuple[int, ...]] = (64, 64, 128, 128, 256, 256, 512, 512)
    unet_widths: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    unet_up_widths: ClassVar[tuple[int, ...]] = (128, 64, 32, 16)
    unet_depths: ClassVar[tuple[int, ...]] = (1, 2, 2, 2)  # convolutions per stage; the first of each halves the grid
    convnet_width: ClassVar[int] = 128
    skeleton: ClassVar[type | None] = None  # the ConvNet of layers that make no other net
    tile: ClassVar[tuple[int, int] | None] = None  # height and width of the frames that weights are bound to, None: any

    # --- the action

    @abstractmethod
    def sample(self, n, generator=None):
        """Draw ``n`` group elements from the paper's test distribution: a CPU tensor whose first axis is ``n``."""

    def fitting(self, height, width):
        """The same symmetry, drawing only elements that keep the shape of such frames where others would not."""
        return self

    @abstractmethod
    def act(self, g, frames):
        """Apply the group elements ``g`` (first axis n) to ``frames`` ``(n, time, C, H, W)``. Pure; any device."""

    def act_on_mask(self, g, mask, frames):
        """Move the map of valid points ``(n, 1, H, W)`` as ``act`` moves the flow. By default points stay put.

        ``mask`` is None where all points of ``frames`` are valid; so is the result where they all stay so.
        """
        return mask

    def enlargement(self, g):
        """How many times more points than the original a transformed frame has, at least 1."""
        return 1.0

    def source_window(self, g, past, future):
        """How many frames up to the present and after it a transformed window ``past + future`` is made from."""
        return past, future

    def act_on_window(self, g, frames, present, past, future):
        """Transform frames ``(n, T, C, H, W)`` about the frame ``present`` into a window ``past + future``.

        By default a window is transformed frame by frame; ``frames`` is all of it.
        """
        return self.act(g, frames)

    def transform(self, g, frames, mask, present, past, future):
        """A transformed window, see ``act_on_window``, and its mask."""
        return self.act_on_window(g, frames, present, past, future), self.act_on_mask(g, mask, frames)

    # --- the frame of reference: where the group's element can be read off a window, any net can be told without it

    def take_out(self, frames):
        """Frames ``(n, T, C, H, W)`` in a frame of reference of their own, and what ``put_back`` needs."""
        raise NotImplementedError(f"{self.name} has no frame of reference")

    def put_back(self, forecast, state):
        """Undo ``take_out`` on the forecast ``(n, C, H, W)``."""
        raise NotImplementedError(f"{self.name} has no frame of reference")

    # --- the layers, between features

    channel_size: ClassVar[int] = 1

    def hidden(self, width):
        """The features of a hidden layer that is ``width`` wide; at least one channel."""
        return Features("hidden", max(1, round(width / self.channel_size)))

    def last(self, width):
        """Those of the last hidden layer of a U-Net, which stand beside the data."""
        return self.hidden(width)

    @abstractmethod
    def lift(self, input_length):
        """``(module, features)``: from frames ``(n, T, C, H, W)`` to features ``(n, channels, [group,] H, W)``."""

    @abstractmethod
    def convolution(self, reads, writes, kernel_size, stride=1):
        """A convolution with activation; ``stride`` 2 halves the grid."""

    def convnet_layer(self, reads, writes, kernel_size):
        """A layer of the ConvNet: a convolution with activation, without a norm."""
        return self.convolution(reads, writes, kernel_size)

    @abstractmethod
    def residual_block(self, reads, writes, kernel_size):
        """Two convolutions and a skip connection, of the ResNet."""

    @abstractmethod
    def upsampling(self, reads, writes):
        """A layer with activation that doubles the grid."""

    @abstractmethod
    def output(self, reads, kernel_size):
        """The last, linear convolution: features to a frame ``(n, C, H, W)``."""

    def before(self, frames):
        """What the net is to see of frames ``(n, T, C, H, W)``, and what ``after`` needs."""
        return frames, None

    def after(self, output, state):
        """The forecast ``(n, C, H, W)`` from the net's output."""
        return output


class Forecaster(nn.Module):
    """A net that maps frames ``(n, input_length, C, H, W)`` to the next frame ``(n, C, H, W)``.

    Args:
        symmetry: the :class:`Symmetry` whose layers it is built from.
        input_length: number of past frames.
        kernel_size: odd side of the square kernels.
        width: factor on every hidden width.
        frames: symmetries whose action is taken out of the window before the net and put back after. The net is then
            exactly equivariant to them, whatever its layers. A mean (uniform motion) is taken out before a size
            (magnitude); rotation means averaging over the four quarter turns, g^-1 f(g x), at four times the cost.
    """

    size_multiple = 1
    plain = False  # whether it is built without the layers of a symmetry

    @classmethod
    def accept(cls, symmetry):
        """ValueError if the net cannot be built for this symmetry."""

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0, frames=()):
        super().__init__()
        self.accept(symmetry)
        self.symmetry, self.input_length, self.kernel_size, self.width = symmetry, input_length, kernel_size, width
        self.quarter_turns = next((frame for frame in frames if frame.name == "Rot"), None)
        self.frames = [frame for frame in frames if frame.name != "Rot"]
        if self.quarter_turns is not None and len(set(symmetry.tile or ())) > 1:
            raise ValueError(
                "frame Rot turns what this net reads, and its weights are those of a grid that is not square"
            )
        self.lift, self.lifted = symmetry.lift(input_length)

    def hidden(self, width):
        """The features of a hidden layer of the full-width net's ``width``."""
        return self.symmetry.hidden(width * self.width)

    def forward(self, frames):
        """Forecast the next frame.

        Raises:
            ValueError: frames of another shape than ``(n, input_length, C, H, W)``, or a grid that the net cannot halve
                or that its weights are not of.
        """
        if frames.dim() != 5 or frames.shape[1:3] != (self.input_length, self.symmetry.components):
            wanted = f"(n, {self.input_length}, {self.symmetry.components}, H, W)"
            raise ValueError(f"expected frames {wanted}, got {tuple(frames.shape)}")
        height, width = frames.shape[-2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(
                f"{type(self).__name__} needs height and width to be multiples of {self.size_multiple}, "
                f"got {height} x {width}"
            )
        if self.symmetry.tile not in (None, (height, width)):
            tile = "{} x {}".format(*self.symmetry.tile)
            raise ValueError(f"the weights of this net are those of a grid of {tile}, got {height} x {width}")
        if self.quarter_turns is None:
            return self.forecast(frames)
        turns = self.quarter_turns
        return sum(turns.quarter(-k, self.forecast(turns.quarter(k, frames))) for k in range(4)) / 4

    def forecast(self, frames):
        """The forecast of the net in its frames of reference."""
        states = []
        for frame in self.frames:
            frames, state = frame.take_out(frames)
            states.append(state)
        frames, state = self.symmetry.before(frames)
        forecast = self.symmetry.after(self.trunk(self.lift(frames)), state)
        for frame, state in zip(reversed(self.frames), reversed(states), strict=True):
            forecast = frame.put_back(forecast, state)
        return forecast


class ResNet(Forecaster):
    """Eight residual blocks at full resolution, after a stem if the symmetry wants one, then one convolution."""

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0, frames=()):
        super().__init__(symmetry, input_length, kernel_size, width, frames)
        blocks, reads = [], self.lifted
        if symmetry.resnet_stem is not None:
            writes = self.hidden(symmetry.resnet_stem)
            blocks.append(symmetry.convolution(reads, writes, kernel_size))
            reads = writes
        for writes in map(self.hidden, symmetry.resnet_widths):
            blocks.append(symmetry.residual_block(reads, writes, kernel_size))
            reads = writes
        self.blocks = nn.Sequential(*blocks)
        self.output = symmetry.output(reads, kernel_size)

    def trunk(self, x):
        return self.output(self.blocks(x))


class UNet(Forecaster):
    """Four halvings, four doublings with skip connections, then one convolution on [input, features]."""

    size_multiple = 2**4

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0, frames=()):
        super().__init__(symmetry, input_length, kernel_size, width, frames)
        skips = [self.lifted]
        self.down = nn.ModuleList()
        for writes, depth in zip(map(self.hidden, symmetry.unet_widths), symmetry.unet_depths, strict=True):
            stage = [symmetry.convolution(skips[-1], writes, kernel_size, stride=2)]
            stage += [symmetry.convolution(writes, writes, kernel_size) for _ in range(depth - 1)]
            self.down.append(nn.Sequential(*stage))
            skips.append(writes)

        reads = skips.pop()
        self.up = nn.ModuleList()
        for full_width in symmetry.unet_up_widths:
            skip = skips.pop()
            writes = self.hidden(full_width) if skips else symmetry.last(full_width * width)
            self.up.append(symmetry.upsampling(reads, writes))
            reads = Features(writes.kind, skip.channels + writes.channels)
        self.output = symmetry.output(reads, kernel_size)

    def trunk(self, x):
        skips = [x]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        x = skips.pop()
        for up in self.up:
            x = torch.cat([skips.pop(), up(x)], 1)
        return self.output(x)


class ConvNet(Forecaster):
    """Five convolutions at full resolution, the last linear: the skeleton of the second paper."""

    def __init__(self, symmetry, input_length, kernel_size=3, width=1.0, frames=()):
        super().__init__(symmetry, input_length, kernel_size, width, frames)
        features = [self.lifted, *[self.hidden(symmetry.convnet_width)] * 4]
        layers = [symmetry.convnet_layer(*pair, kernel_size) for pair in zip(features, features[1:], strict=False)]
        self.layers = nn.Sequential(*layers)
        self.output = symmetry.output(features[-1], kernel_size)

    def trunk(self, x):
        return self.output(self.layers(x))


class ResidualBlock(nn.Module):
    """``second(first(x)) + skip(x)``: a sum of equivariant maps is equivariant (the paper's proposition)."""

    def __init__(self, first, second, skip):
        super().__init__()
        self.first, self.second, self.skip = first, second, skip

    def forward(self, x):
        return self.second(self.first(x)) + self.skip(x)


def extend(maps, before, periodic, mode="constant", after=None):
    """Continue maps ``(n, c, H, W)`` beyond their border.

    Args:
        before, after: by how many cells below and left, above and right; ``after`` None: as many.
        periodic: the axes, "x" along a row and "y" along a column, that go on as they begin at the other end.
        mode: of ``torch.nn.functional.pad``, along the others: "constant" (zeros) or "replicate".
    """
    sides, own = (before, before if after is None else after), []
    if not any(sides):
        return maps
    for axis, dim in (("x", -1), ("y", -2)):
        own += (0, 0) if axis in periodic else sides
        if axis in periodic:
            maps = wrap(maps, *sides, dim)
    return pad(maps, own, mode=mode) if any(own) else maps


def wrap(maps, before, after, dim):
    """The last cells along an axis before the first and the first after the last, around a small grid several times."""
    size = torch.full((), maps.shape[dim], device=maps.device)  # torch writes no remainder by a number as ONNX
    ends = (torch.arange(*cells, device=maps.device) % size for cells in ((-before, 0), (after,)))
    first, last = (maps.index_select(dim, cells) for cells in ends)
    return torch.cat([first, maps, last], dim)


def convolve_repeated(x, kernel, bias=None, periodic=()):
    """Convolve ``(n, in, H, W)``, as :func:`repeat_pixels` has it, with ``(out, in, 4, 4)``: ``(n, out, 2 H, 2 W)``.

    Repeating pixels is inserting zeros, then adding up 2 x 2 neighbours. These sums commute with the convolution, and
    to convolve what is full of zeros is a transposed convolution: a fourth of the work.
    """
    turned, extended = kernel.flip(2, 3).transpose(0, 1), extend(x, 1, periodic, "replicate")
    y = conv_transpose2d(extended, turned, bias if bias is None else bias / 4, stride=2, padding=3, output_padding=1)
    y = y[..., :-1] + y[..., 1:]
    return y[..., :-1, :] + y[..., 1:, :]


def pool_repeated(pool, maps, periodic=()):
    """``pool``, a maximum or mean, over all 4 x 4 windows of :func:`repeat_pixels`: ``(n, c, 2 H, 2 W)``.

    A window of four repeated pixels is two neighbouring pairs of pixels, so pairs are pooled, repeated, pooled again.
    """
    pairs = pool(extend(maps, 1, periodic, "replicate"), 2, stride=1)
    return pool(interpolate(pairs, scale_factor=2, mode="nearest")[..., 1:, 1:], 2, stride=1)


def repeat_pixels(maps, periodic=()):
    """Repeat every pixel of ``(n, c, H, W)`` twice and extend by (1, 2): what a 4 x 4 window of the U-Net sees."""
    return extend(interpolate(maps, scale_factor=2, mode="nearest"), 1, periodic, "replicate", after=2)


def odd_kernel(kernel_size):
    """Half the side of a square kernel.

    Raises:
        ValueError: an even or non-positive side, which has no centre.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    return kernel_size // 2
