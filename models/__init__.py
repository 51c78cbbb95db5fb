"""Forecasting nets, one file per symmetry.

Conventions, kept everywhere:

* A field is ``(..., 2, H, W)``. Component 0 is u, along x = increasing column; component 1 is v, along
  y = increasing row. Row 0 is the south or the bottom (plots use ``origin="lower"``).
* A model maps ``(n, input_length, 2, H, W)`` to the next frame ``(n, 2, H, W)``. Lifting and stacking of frames
  happen inside.
* Hidden features are ``(n, channels, [group,] H, W)``: channels are always axis 1.
* ``SYMMETRIES[name]`` knows its group: ``sample(n, generator)`` draws elements, ``act(g, frames)`` applies them.
"""

from models.backbone import ResNet, UNet
from models.magnitude import Magnitude
from models.rotation import Rotation
from models.scale import Scale
from models.translation import Translation
from models.uniform_motion import UniformMotion

SYMMETRIES = {
    symmetry.name: symmetry for symmetry in (Translation(), UniformMotion(), Magnitude(), Rotation(), Scale())
}
ARCHITECTURES = {"ResNet": ResNet, "Unet": UNet}


def build_model(architecture="ResNet", symmetry="None", input_length=24, kernel_size=3, width=1.0, **options):
    """Build a forecaster.

    Args:
        architecture: "ResNet" or "Unet", in any case of letters.
        symmetry: a key of ``SYMMETRIES``, in any case of letters.
        input_length: number of past frames it reads.
        kernel_size: odd side of the square kernels.
        width: factor on every hidden width; 1 is the paper's.
        options: of the symmetry's group and layers; their names are its ``options``.

    Returns:
        An ``nn.Module`` that maps ``(n, input_length, 2, H, W)`` to ``(n, 2, H, W)``.

    Raises:
        ValueError: an unknown name or option, an even kernel, or a length or width that is not positive.
    """
    if input_length < 1:
        raise ValueError(f"input_length must be at least 1, got {input_length}")
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}")
    net = ARCHITECTURES[match(architecture, ARCHITECTURES, "architecture")]
    group = SYMMETRIES[match(symmetry, SYMMETRIES, "symmetry")]
    unknown = options.keys() - group.options.keys()
    if unknown:
        raise ValueError(f"symmetry {group.name} has no option {', '.join(sorted(unknown))}")
    return net(type(group)(**options), input_length, kernel_size, width)


def match(name, names, what):
    """Return the member of ``names`` that equals ``name`` but for the case of its letters; ValueError if none does."""
    for candidate in names:
        if candidate.lower() == str(name).lower():
            return candidate
    raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(names)}")
