"""A run's best net as a file that other programs load: torch's ``.pt2``, or ONNX.

It maps frames ``(n, input_length, C, H, W)`` in the units of the raw data, without land, to the next frame
``(n, C, H, W)``. The number of samples and the sides of the grid are free: for a U-Net, multiples of 16 from 32 on; for
nets with weights of a grid its sides are those of the training frames. An FNO is refused: torch.export does not follow
its modes.
"""

import importlib.util
import io

import torch
from torch import nn
from torch.export import Dim

from evaluation.predict import load_net, per_component
from models.fields import components
from models.fourier import FNO
from utils import InputError, replacing

GRID = 32, 48  # of the frames that the net is traced with: no side is 1 anywhere in a U-Net, and they differ


class InRawUnits(nn.Module):
    """A net between frames in the units of the raw data."""

    def __init__(self, model, mean, std):
        super().__init__()
        self.model = model
        self.register_buffer("data_mean", mean)  # the name of no operation: in ONNX the two would meet
        self.register_buffer("data_std", std)

    def forward(self, frames):
        return self.model((frames - self.data_mean) / self.data_std) * self.data_std + self.data_mean


@torch.no_grad()
def export(folder, output):
    """Write the best net of the run in ``folder`` to ``output``, and print how far the file's forecasts are from its.

    Raises:
        InputError: a run without weights or standardisation, an FNO, or ONNX where it is not installed or where torch
            cannot write the net so.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if output.suffix == ".onnx" and missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}: pip install onnx onnxscript; or export to a .pt2 file")
    config, model = load_net(folder, torch.device("cpu"))
    if isinstance(model, FNO):
        raise InputError("--export does not take an FNO")
    net = InRawUnits(model, *(per_component(config, name) for name in ("mean", "std"))).eval()
    for buffer in net.buffers():
        buffer.data = buffer.data.contiguous()  # a .pt2 file wants tensors that fill their memory

    bound = model.symmetry.tile is not None
    grid = config["tile"] if bound else GRID

    def frames(n, height, width):
        return torch.randn(n, config["input_length"], components(config["fields"]), height, width)

    free = {axis: Dim.DYNAMIC for axis in ((0,) if bound else (0, 3, 4))}
    program = torch.export.export(net, (frames(2, *grid),), dynamic_shapes=(free,))
    with replacing(output) as temporary:
        if output.suffix == ".onnx":
            try:
                # Its optimiser fails on scale nets; those who load the file have their own.
                torch.onnx.export(program, dynamo=True, verbose=False, optimize=False).save(temporary)
            except Exception:  # of many kinds, with pages of text
                raise InputError("torch cannot write this net as ONNX; export it to a .pt2 file") from None
        else:
            file = io.BytesIO()
            torch.export.save(program, file)
            temporary.write_bytes(file.getvalue())
    other = frames(3, *(grid if bound else reversed(grid)))
    expected = net(other)
    difference = (program.module()(other) - expected).norm() / expected.norm()
    sides = f"{grid[0]}, {grid[1]}" if bound else "H, W"
    steps, fields = other.shape[1:3]
    print(f"wrote {output}: (n, {steps}, {fields}, {sides}) to the next frame, within {difference:.0e}")
