"""All nets by name, and :func:`build_model`."""

import dataclasses

from models.backbone import ConvNet, ResNet, Symmetry, UNet
from models.fourier import FNO
from models.magnitude import Magnitude
from models.options import FRAMES, NETS, match
from models.rotation import Rotation
from models.scale import Scale
from models.translation import Translation
from models.uniform_motion import UniformMotion

SYMMETRIES = {
    symmetry.name: symmetry for symmetry in (Translation(), UniformMotion(), Magnitude(), Rotation(), Scale())
}
ARCHITECTURES = dict(zip(NETS, (ResNet, UNet, ConvNet, FNO), strict=True))
SKELETONS = {name: net for name, net in ARCHITECTURES.items() if net is not FNO}  # of the layers of any symmetry


def build_model(
    architecture="ResNet",
    symmetry="None",
    input_length=24,
    kernel_size=3,
    width=1.0,
    fields=("vector",),
    frame=(),
    relaxed="",
    periodic=(),
    **options,
):
    """Build a forecaster.

    Args:
        architecture: "ResNet", "Unet", "ConvNet" or, of symmetry None only, "FNO", in any case of letters.
        symmetry: a key of ``SYMMETRIES``, in any case of letters, or a :class:`~models.backbone.Symmetry`.
        input_length: number of past frames it reads.
        kernel_size: odd side of the square kernels.
        width: factor on every hidden width; 1 is the paper's.
        fields: what the data hold, "vector" and "scalar" in the order of their components.
        frame: names from ``FRAMES``: symmetries made exact by a frame of reference around the net.
        relaxed: "gains" or "free": layers may learn to leave the symmetry, by a few numbers each or by kernels of their
            own; at the start they are exact. "": they may not.
        periodic: "x", "y" or both: layers continue frames periodically along these axes, in place of their own border.
        options: of the symmetry's group and layers; their names are its ``options``.

    Returns:
        An ``nn.Module`` that maps ``(n, input_length, C, H, W)`` to ``(n, C, H, W)``.

    Raises:
        ValueError: an unknown name, field, option or axis, an even kernel, a length or width that is not positive, an
            architecture that does not go with the symmetry, layers that do not go with the periodic axes, or a relaxed
            net in the frame of its own symmetry.
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
    layers = dataclasses.replace(group, fields=tuple(fields), relaxed=relaxed, periodic=tuple(periodic), **options)
    wanted = {match(name, FRAMES, "frame") for name in frame}
    # Of a relaxed net its own frame would keep the symmetry, whatever the layers did.
    if relaxed and layers.name in wanted:
        raise ValueError(f"a frame for {layers.name} would keep the symmetry that relaxed layers may leave")
    wanted |= {name for name in layers.own_frames if not (relaxed and name == layers.name)}
    frames = [SYMMETRIES[name].on(fields, periodic) for name in FRAMES if name in wanted]
    if group.skeleton is not None:
        if net is not ConvNet:
            raise ValueError(f"{type(group).__name__} makes a ConvNet, no {net.__name__}: architecture ConvNet")
        net = group.skeleton
    return net(layers, input_length, kernel_size, width, frames)
