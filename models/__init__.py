"""Forecasting nets, one file per symmetry.

Conventions, kept everywhere:

* A flow is ``(..., C, H, W)``, C the components of its fields (``models.fields``): a velocity ``("vector",)`` has
  C = 2, a temperature ``("scalar",)`` C = 1, both ``("vector", "scalar")`` C = 3. Of a velocity, the first component u
  is along x = increasing column, the second v along y = increasing row. Row 0 is the south or the bottom (plots use
  ``origin="lower"``).
* A model maps ``(n, input_length, C, H, W)`` to the next frame ``(n, C, H, W)``. Lifting and stacking of frames happen
  inside.
* Hidden features are ``(n, channels, [group,] H, W)``: channels are always axis 1.
* ``SYMMETRIES[name]`` knows its group: ``sample(n, generator)`` draws elements, ``act(g, frames)`` applies them, to a
  velocity or, after ``.on(fields)``, to data of other fields. What each action does to a vector and to a scalar beside
  it, or alone:

  ===== ================================================ ============================== ===============================
  name  velocity w                                       scalar s beside a velocity     scalar alone
  ===== ================================================ ============================== ===============================
  None  w(x - c)                                         s(x - c)                       s(x - c)
  UM    w + c                                            s                              s + c
  Mag   lambda w                                         lambda_s s                     lambda s
  Rot   R w(R^-1 x)                                      s(R^-1 x)                      s(R^-1 x)
  Scale lambda w(lambda x, lambda^2 t)                   s(lambda x, lambda^2 t)        s(lambda x, lambda^2 t)
  ===== ================================================ ============================== ===============================
"""

import dataclasses

from models.backbone import ConvNet, ResNet, Symmetry, UNet
from models.magnitude import Magnitude
from models.rotation import Rotation
from models.scale import Scale
from models.translation import Translation
from models.uniform_motion import UniformMotion

SYMMETRIES = {
    symmetry.name: symmetry for symmetry in (Translation(), UniformMotion(), Magnitude(), Rotation(), Scale())
}
ARCHITECTURES = {"ResNet": ResNet, "Unet": UNet, "ConvNet": ConvNet}
FRAMES = ("UM", "Mag", "Rot")  # symmetries that any net can be given by a frame of reference, in this order


def build_model(
    architecture="ResNet",
    symmetry="None",
    input_length=24,
    kernel_size=3,
    width=1.0,
    fields=("vector",),
    frame=(),
    relaxed="",
    **options,
):
    """Build a forecaster.

    Args:
        architecture: "ResNet", "Unet" or "ConvNet", in any case of letters.
        symmetry: a key of ``SYMMETRIES``, in any case of letters, or a :class:`~models.backbone.Symmetry`.
        input_length: number of past frames it reads.
        kernel_size: odd side of the square kernels.
        width: factor on every hidden width; 1 is the paper's.
        fields: what the data hold, "vector" and "scalar" in the order of their components.
        frame: names from ``FRAMES``: symmetries made exact by a frame of reference around the net.
        relaxed: "gains" or "free": layers may learn to leave the symmetry, by a few numbers each or by kernels of their
            own; at the start they are exact. "": they may not.
        options: of the symmetry's group and layers; their names are its ``options``.

    Returns:
        An ``nn.Module`` that maps ``(n, input_length, C, H, W)`` to ``(n, C, H, W)``.

    Raises:
        ValueError: an unknown name, field or option, an even kernel, a length or width that is not positive, or layers
            that do not make this architecture.
    """
    if input_length < 1:
        raise ValueError(f"input_length must be at least 1, got {input_length}")
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}")
    net = ARCHITECTURES[match(architecture, ARCHITECTURES, "architecture")]
    group = symmetry
    if not isinstance(symmetry, Symmetry):
        group = SYMMETRIES[match(symmetry, SYMMETRIES, "symmetry")]
    unknown = options.keys() - group.options().keys()
    if unknown:
        raise ValueError(f"symmetry {group.name} has no option {', '.join(sorted(unknown))}")
    layers = dataclasses.replace(group, fields=tuple(fields), relaxed=relaxed, **options)
    wanted = {match(name, FRAMES, "frame") for name in frame}
    # Of a relaxed net its own frame would keep the symmetry, whatever the layers did.
    wanted |= {name for name in layers.own_frames if not (relaxed and name == layers.name)}
    frames = [SYMMETRIES[name].on(fields) for name in FRAMES if name in wanted]
    if group.skeleton is not None:
        if net is not ConvNet:
            raise ValueError(f"{type(group).__name__} makes a ConvNet, no {net.__name__}: architecture ConvNet")
        net = group.skeleton
    return net(layers, input_length, kernel_size, width, frames)


def match(name, names, what):
    """Return the member of ``names`` that equals ``name`` but for the case of its letters; ValueError if none does."""
    for candidate in names:
        if candidate.lower() == str(name).lower():
            return candidate
    raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(names)}")
