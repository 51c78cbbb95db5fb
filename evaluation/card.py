"""All nets on one card: time of a training step, share of the card's peak, equivariance; a Markdown block at the end.

    python -m evaluation.card --json card.json      # on CUDA; what eight minutes do not suffice for is left out

A training step is a roll-out of three frames and its gradient, at full width, from 24 frames. The peak is that of one
large matrix product in the same precision. Nets are measured from cheap to dear, compiled ones last. No time is
extrapolated: a cell is empty where the time was over, the memory too small or torch failed. The equivariance error is
relative, of one forecast of a flow transformed by the net's own symmetry, at factor 2 for scale.
"""

import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

from flows.arguments import Parser


def parse_args(argv=None):
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--device", default="", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    add("--size", type=int, nargs="+", default=[32, 64], help="sides of the grids (default 32 64)")
    add("--batch", type=int, nargs="+", default=[16, 64], help="(default 16 64)")
    add("--width", type=float, default=1.0, help="factor on every hidden width (default 1)")
    add("--minutes", type=float, default=8.0, help="no cell is begun after so many (default 8)")
    add("--json", type=Path, metavar="FILE", help="also write all numbers to a JSON file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

import torch

from evaluation.compiled import compile_net
from evaluation.document import table
from evaluation.equivariance import equivariance_error
from evaluation.price import operations
from evaluation.speed import FRAMES, Setting, device_name, peak_rates, seconds, training_step
from models import SYMMETRIES
from utils import InputError, choose_device, exit_code, set_precision, write_json

PRECISIONS = {  # flags of a Setting, and whether products may be rounded to TF32
    "float32": ({}, False),
    "TF32": ({}, True),
    "bf16": ({"amp": True}, True),
    "bf16, compiled": ({"amp": True, "compile": True}, True),
    "bf16, CUDA graphs": ({"amp": True, "compile": True, "graphs": True}, True),
}
LONG = 1.0  # seconds: a step that takes so long is timed once


def step_seconds(model, frames, setting):
    """The shortest of four training steps, or one where it is long."""
    times = [seconds(setting.device, training_step, model, frames, setting)]
    while times[0] < LONG and len(times) < 4:
        times.append(seconds(setting.device, training_step, model, frames, setting))
    return min(times)


@torch.no_grad()
def own_error(model, symmetry, frames, setting):
    """Relative equivariance error of a net to its own symmetry."""
    group = SYMMETRIES[symmetry]
    g = torch.full((len(frames),), 2.0)
    if group.keeps_shape:
        g = group.sample(len(frames), torch.Generator().manual_seed(0))
    forecast = lambda frames, mask: setting.roll_out(model, frames, 1)  # noqa: E731
    return equivariance_error(forecast, group, g, frames[:, :FRAMES])["relative"].item()


def cell(net, setting):
    """``seconds`` and ``operations`` of a step and ``equivariance`` of a net."""
    model, frames = replace(setting, compile=False).build(*net, ""), setting.random_frames()
    count = operations(training_step, model, frames, setting)  # warms up, too
    if setting.compile:
        compile_net(model, setting.device, setting.graphs)
        training_step(model, frames, setting)
    found = {"seconds": step_seconds(model, frames, setting), "operations": count}
    return {**found, "equivariance": own_error(model.eval(), net[1], frames[:4], setting)}


def measure(settings, nets, minutes):
    """``{(net, size, batch, precision): cell}`` of what ``minutes`` suffice for, and the peaks by precision."""
    start, cells, peaks = time.monotonic(), {}, {}
    for precision, (flags, rounded) in PRECISIONS.items():
        set_precision(rounded)
        peaks[precision] = peak_rates(replace(settings[0], **flags))["matrix product"]
        for net, setting in product(nets, settings):
            if time.monotonic() - start < 60 * minutes:
                try:
                    found = cell(net, replace(setting, **flags))
                    word = f"{1000 * found['seconds']:.1f} ms"
                except RuntimeError as error:  # no memory, or no graph: the other cells are worth having
                    found, word = None, str(error).partition("\n")[0]
                cells[net, setting.size, setting.batch, precision] = found
                print(*net, f"{setting.size} x {setting.size}, batch {setting.batch}, {precision}: {word}", flush=True)
    return cells, peaks


def block(cells, peaks, where):
    """The part of docs/speed.md."""
    lines = [["net", "grid", "batch", *peaks]]
    lines.append(["peak, TFLOP/s", "", "", *(f"{peak / 1e12:.3g}" for peak in peaks.values())])
    for net, size, batch in dict.fromkeys(key[:3] for key in cells):
        row = [" ".join(net), f"{size} x {size}", str(batch)]
        for precision, peak in peaks.items():
            found = cells.get((net, size, batch, precision))
            share = found and found["operations"] / found["seconds"] / peak
            row.append(found and f"{1000 * found['seconds']:.1f} ({share:.0%}), {found['equivariance']:.0e}" or "-")
        lines.append(row)
    title = f"{where}, torch {torch.__version__}: ms of a training step (share of the peak), equivariance error"
    return f"{title}\n\n{table(lines)}"


def main(argv=None):
    args = parse_args(argv)
    device = choose_device(args.device)
    if min(*args.size, *args.batch) < 1 or not args.width > 0 or any(size % 16 for size in args.size):
        raise InputError("--batch and --width must be positive, --size multiples of 16")
    if args.json is not None and (args.json.is_dir() or not args.json.parent.is_dir()):
        raise InputError(f"--json {args.json} must be a file in a folder that exists")
    settings = [Setting(batch, args.width, device, size=size) for size, batch in product(args.size, args.batch)]
    nets = [(architecture, symmetry) for architecture in ("Unet", "ConvNet", "ResNet") for symmetry in SYMMETRIES]
    cells, peaks = measure(settings, nets, args.minutes)
    where = device_name(device)
    print("\n" + block(cells, peaks, where))
    if args.json is not None:
        names = ("net", "size", "batch", "precision")
        rows = [dict(zip(names, key, strict=True)) | (found or {}) for key, found in cells.items()]
        write_json(args.json, {"machine": where, "torch": torch.__version__, "peaks": peaks, "cells": rows})


if __name__ == "__main__":
    sys.exit(exit_code(main))
