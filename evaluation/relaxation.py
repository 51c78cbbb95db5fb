"""How far the layers of a relaxed net have left the symmetry: which symmetry the data break, and how much.

One number per layer, 0 in a strict net. Gains (``models/`` says of what) and biases: their root mean square. Kernels of
their own: the norm of what they add to the layer's kernel over the norm of that kernel.
"""

import torch

from models.backbone import deviations


@torch.no_grad()
def make_strict(model):
    """Set all deviations of a net to 0."""
    for number in deviations(model).values():
        number.zero_()


@torch.no_grad()
def relative_deviations(model):
    """``{layer: how far it deviates}`` of a net, in the order of its layers; empty if it is strict."""
    found = {}
    for name, number in deviations(model).items():
        layer, _, of = name.rpartition(".")
        short = layer.partition(".parametrizations")[0] + of.removeprefix("deviation")
        if model.symmetry.relaxed == "gains" or of == "deviation_bias":
            found[short] = number.square().mean().sqrt().item()
        else:
            found[short] = added(model, layer, number)
    return found


def added(model, layer, number):
    """The norm of what a kernel of its own, ``number``, adds to the kernel of a layer, relative to that kernel."""
    convolution = model.get_submodule(layer.partition(".parametrizations")[0])

    def kernel():
        levels = convolution.weight if isinstance(convolution.weight, list) else [convolution.weight]
        return torch.cat([level.flatten() for level in levels])

    if layer.endswith(".free"):  # magnitude: beside the grouped convolution, not in its kernel
        conv = model.get_submodule(layer.removesuffix(".free")).conv
        return (number.norm() / conv.parametrizations.weight.original.norm()).item()
    whole, kept = kernel(), number.clone()
    number.zero_()
    exact = kernel()
    number.copy_(kept)
    return ((whole - exact).norm() / exact.norm()).item()
