"""What nets there are and what can be set of each. No torch: run_model.py reads its flags without waiting for it."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from models.fields import check, components

NETS = ("ResNet", "Unet", "ConvNet", "FNO")  # the architectures
FRAMES = ("UM", "Mag", "Rot")  # symmetries that any net can be given by a frame of reference, in this order
DEVIATIONS = ("gains", "free")  # how layers may leave their symmetry
AXES = ("x", "y")  # of a grid: along a row, along a column
PADDINGS = ("circular",)  # beside the layers' own


def match(name, names, what):
    """Return the member of ``names`` that equals ``name`` but for the case of its letters; ValueError if none does."""
    for candidate in names:
        if candidate.lower() == str(name).lower():
            return candidate
    raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(names)}")


def option(default, words):
    """A field of :class:`Options` that shapes nets: a keyword of ``build_model`` and a flag of run_model.py."""
    return dataclasses.field(default=default, metadata={"words": words})


@dataclass(frozen=True)
class Options:
    """What can be set of every symmetry.

    Args:
        fields: what the data hold, see ``models.fields``.
        relaxed: how layers may leave the symmetry: "" not at all, "gains" by a few numbers each, "free" by a kernel of
            their own beside the exact one.
        periodic: along which of ``AXES`` layers continue frames periodically, in place of their own border.

    Raises:
        ValueError: a field, a deviation or an axis that does not exist.
    """

    fields: tuple[str, ...] = ("vector",)
    relaxed: str = ""
    periodic: tuple[str, ...] = ()

    keeps_shape: ClassVar[bool] = True  # else windows change size and length with g, and a batch shares one element

    def __post_init__(self):
        object.__setattr__(self, "fields", check(self.fields))
        if self.relaxed not in ("", *DEVIATIONS):
            raise ValueError(f"unknown deviation {self.relaxed!r}; choose from {', '.join(DEVIATIONS)}")
        axes = [match(axis, AXES, "axis") for axis in self.periodic]
        object.__setattr__(self, "periodic", tuple(axis for axis in AXES if axis in axes))

    @classmethod
    def options(cls):
        """Names and defaults of what shapes its nets."""
        return {field.name: field.default for field in dataclasses.fields(cls) if "words" in field.metadata}

    def on(self, fields, periodic=()):
        """The same symmetry for data of other fields and periodic axes."""
        return dataclasses.replace(self, fields=tuple(fields), periodic=tuple(periodic))

    @property
    def components(self):
        """Number of components C of the data."""
        return components(self.fields)


@dataclass(frozen=True)
class TranslationOptions(Options):
    """Of translation."""

    def __post_init__(self):
        super().__post_init__()
        if self.relaxed == "free":
            raise ValueError("translation relaxes by gains alone: an own kernel for every place would be a dense layer")


@dataclass(frozen=True)
class RotationOptions(Options):
    """Of rotation.

    Args:
        rotation_order: N of the group C_N, a multiple of 4.
        reflections: extend the group to D_N. The flow may then be mirrored as well (``act`` only turns it).
        angle_step: ``sample`` draws multiples of this angle, in degrees.

    Raises:
        ValueError: a ``rotation_order`` that does not contain the quarter turns, an ``angle_step`` that does not divide
            360, a single periodic axis.
    """

    rotation_order: int = option(8, "turns by 360 / N degrees, N a multiple of 4")
    reflections: bool = option(False, "keep reflections too, at twice the cost")
    angle_step: int = 90

    def __post_init__(self):
        super().__post_init__()
        if self.rotation_order < 4 or self.rotation_order % 4:
            raise ValueError(f"rotation_order must be a positive multiple of 4, got {self.rotation_order}")
        if self.angle_step < 1 or 360 % self.angle_step:
            raise ValueError(f"angle_step must divide 360, got {self.angle_step}")
        if len(self.periodic) == 1:
            raise ValueError(f"a quarter turn exchanges the axes: both may be periodic, not {self.periodic[0]} alone")


@dataclass(frozen=True)
class ScaleOptions(Options):
    """Of scale.

    Args:
        num_scales: number of levels; sigma^2 = 2^(i - (num_scales - 1) / 2), so five span 1/2 to 2 cells.
        scale_interaction: odd number of neighbouring levels that a convolution sees.
        release_factors: ``sample`` draws the release's test factors.

    Raises:
        ValueError: a number of scales or neighbours that cannot be.
    """

    num_scales: int = option(5, "levels, each sqrt(2) times the one before")
    scale_interaction: int = option(3, "levels that a convolution sees, odd")
    release_factors: bool = False

    keeps_shape = False

    def __post_init__(self):
        super().__post_init__()
        if self.num_scales < 1:
            raise ValueError(f"num_scales must be at least 1, got {self.num_scales}")
        if self.scale_interaction < 1 or self.scale_interaction % 2 == 0:
            raise ValueError(f"scale_interaction must be odd and positive, got {self.scale_interaction}")


OPTIONS = {
    "None": TranslationOptions(),
    "UM": Options(),
    "Mag": Options(),
    "Rot": RotationOptions(),
    "Scale": ScaleOptions(),
}
