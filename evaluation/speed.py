"""What the nets cost: milliseconds, memory and operations, beside the plain net and beside patches formed one by one.

    python -m evaluation.speed                      # every net at full width, 64 x 64, 24 frames, batch 2
    python -m evaluation.speed --batch 2 8 --symmetry UM --architecture ResNet
    python -m evaluation.speed --device cuda --batch 32 --amp --channels_last --json h100.json
    python -m evaluation.speed --readme docs/speed.md   # measure what its markers ask for, and write it there

All nets are timed in one process in turn, and medians are reported. Beside ours stand

naive     (UM, Mag) the same function by the layers as the paper writes them: unfold the input into patches, transform
          each patch, convolve, transform back.
expanded  (Rot, Scale) the same function by the plain convolutions that the layers expand to, their kernels given: what
          no implementation of this net can undercut. Deriving the kernels costs "kernels", once per optimiser step.
C_4       (Rot) the net that knows quarter turns only.
relaxed   the net that may leave its symmetry by gains.

"x plain" compares forward + backward with the plain net's, "by operations" does so with the numbers of operations:
multiplications and additions of convolutions and matrix products. "x ours" compares training steps with those of our
net of the symmetry. "of peak" is what share of the speed of one large convolution a training step reaches; "busiest"
are torch's operators that take most of its time. Peak memory is that of a training step, in a fresh process on a CPU.
With --amp, "bf16 error" is the relative difference of a forecast. Reading batches is timed from sparse files of a
thousand and of a million windows, and compared with the shortest training step. A marker in a document, <!-- speed:
[arguments] --> ... <!-- end -->, holds the command's own arguments.
"""

from pathlib import Path

from flows.arguments import Parser


def parse_args(argv=None):
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--architecture", nargs="+", help="(default: all but FNO)")
    add("--symmetry", nargs="+", help="(default: all)")
    add("--batch", type=int, nargs="+", default=[2])
    add("--width", type=float, default=1.0)
    add("--repeats", type=int, default=3)
    add("--alone", action="store_true", help="without the naive, expanded and relaxed nets beside ours")
    add("--device", default="", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    add("--amp", action="store_true", help="bfloat16 in the nets")
    add("--channels_last", action="store_true", help="channels are the innermost axis of the weights and features")
    add("--compile", action="store_true", help="torch.compile; what cannot be compiled runs as it is")
    add("--checkpoint", action="store_true", help="compute roll-out steps again in the backward pass, to save memory")
    add("--json", type=Path, metavar="FILE", help="also write all numbers, in units of one, to a JSON file")
    add("--readme", type=Path, metavar="FILE", help="measure what a file's markers ask for, and write it there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

import multiprocessing
import platform
import re
import statistics
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, leaky_relu, pad, unfold
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from evaluation.compiled import compile_net
from evaluation.document import rewritten, table
from evaluation.price import operations
from evaluation.spectrum import energy_spectrum_error
from flows.windows import Windows
from models import SKELETONS, SYMMETRIES, build_model, match
from models.backbone import repeat_pixels
from models.magnitude import MagnitudeConv2d, MagnitudeUpsampling
from models.rotation import SteerableConv2d
from models.scale import NEGATIVE_SLOPE, ScaleConv2d
from models.uniform_motion import UniformMotionConv2d, UniformMotionUpsampling
from utils import (
    TEST_STEPS,
    InputError,
    choose_device,
    derive_kernels,
    exit_code,
    precision,
    replacing,
    roll_out,
    set_precision,
    tune_cpu,
    write_json,
)

SIZE, FRAMES = 64, 24  # side of the fields, input frames
STEPS = 3  # roll-out steps of a training step
LONG = 10.0  # seconds
WINDOWS = (1_000, 1_000_000)  # of the files that are read
# What is large enough to reach the speed of a device: the side of a matrix, samples and channels of a convolution.
PEAK = {"cpu": (2048, 4, 256), "cuda": (8192, 64, 256)}

# ---------------------------------------------------------------- the naive layers


def patches_of(x, layer):
    """All patches of ``(n, channels, 2, H, W)``: ``(n, channels, 2, k * k, positions)``, and the output's size."""
    conv, size = layer.conv, x.shape[-2:]
    if isinstance(layer, UniformMotionUpsampling | MagnitudeUpsampling):
        image, size = repeat_pixels(x.flatten(1, 2)), (2 * size[0], 2 * size[1])
    else:
        padding = conv.kernel_size[0] // 2
        image = pad(x.flatten(1, 2), (padding,) * 4, mode="replicate")
        size = tuple((side - 1) // conv.stride[0] + 1 for side in size)
    patches = unfold(image, conv.kernel_size, stride=conv.stride)
    return patches.unflatten(1, (x.shape[1], 2, -1)), size


def convolve(patches, layer):
    """The layer's kernel on patches: ``(n, channels, 2, positions)``."""
    weight = layer.conv.parametrizations.weight.original
    y = weight.flatten(1) @ patches.flatten(1, 3) + layer.conv.bias[:, None]
    return (y.relu() if getattr(layer, "activation", True) else y).unflatten(1, (-1, 2))


class NaiveUniformMotion:
    """Subtract each patch's mean over frames and taps, convolve, add it back."""

    def forward(self, x):
        patches, size = patches_of(x, self)
        mean = patches.mean((1, 3), keepdim=True)
        y = convolve(patches - mean, self)
        if getattr(self, "restore", True):
            y = y + mean[:, :, :, 0]
        return y.unflatten(-1, size)


class NaiveMagnitude:
    """Divide each patch by its range over frames and taps, convolve, multiply by it."""

    def forward(self, x):
        patches, size = patches_of(x, self)
        span = patches.amax((1, 3), keepdim=True) - patches.amin((1, 3), keepdim=True)
        y = convolve(patches / torch.where(span > 0, span, 1), self) * span[:, :, :, 0]
        return y.unflatten(-1, size)


NAIVE = {
    layer: type(f"Naive{layer.__name__}", (naive, layer), {})
    for naive, layers in {
        NaiveUniformMotion: (UniformMotionConv2d, UniformMotionUpsampling),
        NaiveMagnitude: (MagnitudeConv2d, MagnitudeUpsampling),
    }.items()
    for layer in layers
}


class PlainConvolutions(nn.Module):
    """What a scale convolution expands to: per level an ordinary convolution with a kernel of its own."""

    def __init__(self, layer):
        super().__init__()
        self.activation, self.levels, self.convs = layer.activation, [], nn.ModuleList()
        for kernel, geometry in zip(layer.weight, layer.geometry, strict=True):
            channels = kernel.shape[1] // len(geometry.neighbours)
            self.levels.append(slice(geometry.first * channels, (geometry.first + len(geometry.neighbours)) * channels))
            conv = nn.Conv2d(
                *kernel.shape[1::-1],
                geometry.taps,
                padding=geometry.radius,
                dilation=geometry.dilation,
                padding_mode="replicate",
                bias=False,
            )
            conv.weight = nn.Parameter(kernel.detach().clone())
            self.convs.append(conv)

    def forward(self, x):
        x = x.transpose(1, 2).flatten(1, 2)
        y = torch.stack([conv(x[:, seen]) for conv, seen in zip(self.convs, self.levels, strict=True)], 1)
        return (leaky_relu(y, NEGATIVE_SLOPE) if self.activation else y).transpose(1, 2)


def naive(model):
    """Turn a net, in place, into the same function computed on patches."""
    for module in model.modules():
        module.__class__ = NAIVE.get(type(module), type(module))
    return model


def expanded(model):
    """Turn a net, in place, into plain convolutions by the kernels that its layers derive."""
    for module in list(model.modules()):
        if isinstance(module, SteerableConv2d):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        for name, child in module.named_children():
            if isinstance(child, ScaleConv2d):
                setattr(module, name, PlainConvolutions(child))
    return model


OTHERWISE = {"naive": naive, "expanded": expanded}  # the same function
OPTIONS = {"C_4": {"rotation_order": 4}, "relaxed": {"relaxed": "gains"}}  # another net
BESIDE = {"None": [], "UM": ["naive"], "Mag": ["naive"], "Rot": ["expanded", "C_4"], "Scale": ["expanded"]}


@dataclass(frozen=True)
class Setting:
    """How the nets are run; the names are the flags."""

    batch: int
    width: float
    device: torch.device
    amp: bool = False
    channels_last: bool = False
    compile: bool = False
    graphs: bool = False  # compiled to CUDA graphs
    checkpoint: bool = False
    size: int = SIZE  # side of the fields

    def build(self, architecture, symmetry, variant):
        torch.manual_seed(0)
        model = build_model(architecture, symmetry, FRAMES, width=self.width, **OPTIONS.get(variant, {}))
        model = OTHERWISE.get(variant, nn.Identity())(model).to(self.device)
        if self.channels_last:
            for parameter in model.parameters():
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if self.compile:
            compile_net(model, self.device, self.graphs)
        return model

    def roll_out(self, model, frames, steps):
        with precision(self.device, self.amp):
            return roll_out(model, frames[:, :FRAMES], steps, recompute=self.checkpoint and torch.is_grad_enabled())

    def random_frames(self):
        return torch.randn(self.batch, FRAMES + STEPS, 2, self.size, self.size, device=self.device)


# ---------------------------------------------------------------- what is measured


def kernels(model, frames, setting):
    """Derive all kernels from the weights, as once per optimiser step."""
    with torch.no_grad(), parametrize.cached():
        derive_kernels(model)


def forward(model, frames, setting):
    with torch.no_grad():
        setting.roll_out(model, frames, 1)


def backward(model, frames, setting):
    model.zero_grad()
    with parametrize.cached():
        setting.roll_out(model, frames, 1).square().mean().backward()


def training_step(model, frames, setting):
    model.zero_grad()
    with parametrize.cached():
        (setting.roll_out(model, frames, STEPS) - frames[:, FRAMES:]).square().mean().backward()


STEP = f"step of {STEPS}"
MEASURED = {
    "kernels": kernels,
    "forward": forward,
    "fwd+bwd": backward,
    STEP: training_step,
}

# ---------------------------------------------------------------- the measurements


def seconds(device, function, *arguments):
    """Time of one call, the device's queue emptied before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function(*arguments)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class Durations(TorchDispatchMode):
    """Adds up the time of every operator, each waited for. (torch's profiler writes to stderr unasked.)"""

    def __init__(self, device):
        super().__init__()
        self.device, self.times = device, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = []
        name = function.overloadpacket.__name__
        self.times[name] += seconds(self.device, lambda: results.append(function(*args, **(kwargs or {}))))
        return results[0]


def busiest_operators(model, frames, setting, count=3):
    """``{operator: share}`` of the time of a training step: the ``count`` that take most of it."""
    with Durations(setting.device) as timer:
        training_step(model, frames, setting)
    return {name: time / timer.times.total() for name, time in timer.times.most_common(count)}


def peak_rates(setting):
    """Operations per second that this device reaches in one large matrix product and one large convolution."""
    side, batch, channels = PEAK[setting.device.type]
    options = {"device": setting.device, "dtype": torch.bfloat16 if setting.amp else torch.float32}
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    image = torch.randn(batch, channels, SIZE, SIZE, **options).to(memory_format=layout)
    kernel = torch.randn(channels, channels, 3, 3, **options).to(memory_format=layout)
    rates = {}
    for name, function, *factors in (
        ("matrix product", torch.mm, *torch.randn(2, side, side, **options)),
        ("convolution", partial(conv2d, padding=1), image, kernel),
    ):
        count = operations(function, *factors)  # warms up, too
        rates[name] = count / min(seconds(setting.device, function, *factors) for _ in range(10))
    return rates


def loader_seconds(setting, count, batches=20):
    """Time to the first of ``batches`` batches, and per batch after it, of a mapped file of ``count`` training windows.

    One thread reads windows in random order. The file is sparse: all zeros, and hardly any space on the disk.
    """
    shape = (1, count + FRAMES + STEPS - 1, 2, SIZE, SIZE)
    split = {"frames": "train.npy", "mask": None, "shape": list(shape), "segments": [[0, shape[1]]]}
    split |= {"first": 0, "count": count, "sha256": None}
    meta = {"fields": ["vector"], "history": FRAMES, "horizon": STEPS, "splits": {"train": split}}
    with TemporaryDirectory() as folder:
        np.lib.format.open_memmap(Path(folder) / "train.npy", "w+", np.float32, shape)
        windows = Windows(folder, meta, "train", setting.device)
        order = torch.randperm(count)[: setting.batch * batches]
        loader = windows.batches(order, setting.batch, FRAMES, STEPS, workers=1)
        first = seconds(setting.device, next, loader)
        return first, seconds(setting.device, deque, loader, 0) / (batches - 1)


def peak_memory(net, setting):
    """MiB that a training step takes beyond the weights and their gradients."""
    model, frames = setting.build(*net), setting.random_frames()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        training_step(model, frames, setting)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        CLEAR_REFS.write_text("5")  # the high-water mark of resident memory falls back to what is held now
    except OSError:
        return None  # only Linux counts this
    before = high_water()
    training_step(model, frames, setting)
    return (high_water() - before) / 2**10


CLEAR_REFS = Path("/proc/self/clear_refs")


def high_water():
    """Most resident memory of this process so far, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


@torch.no_grad()
def amp_error(model, frames, setting):
    """Root mean square difference of a forecast in bfloat16 from that in float32, divided by that of the forecast."""
    exact, rounded = (replace(setting, amp=amp).roll_out(model, frames, 1) for amp in (False, True))
    return ((rounded - exact).square().mean() / exact.square().mean()).sqrt().item()


def measure(nets, setting, repeats):
    """Time ``nets`` in turn, ``repeats`` times after a first time; what takes longer than ``LONG`` once.

    Returns:
        One dict per net: its names and parameters, median ``seconds`` and counted ``operations`` by what is measured,
        ``operators`` and ``memory_mib`` of a training step (None where the system does not count memory) and, with
        ``amp``, ``amp_error``.
    """
    models, frames, rows = {net: setting.build(*net) for net in nets}, setting.random_frames(), []
    times = {net: {name: [] for name in MEASURED} for net in nets}
    for name, function in MEASURED.items():
        for _ in range(repeats + 1):
            for net, model in models.items():
                if max(times[net][name], default=0) < LONG:
                    times[net][name].append(seconds(setting.device, function, model, frames, setting))
    for net in nets:
        model = models.pop(net) if not setting.compile else replace(setting, compile=False).build(*net)
        rows.append(
            {
                **dict(zip(("architecture", "symmetry", "variant"), net, strict=True)),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                # the first time warms up, where there are more
                "seconds": {name: statistics.median(values[1:] or values) for name, values in times[net].items()},
                "operations": {name: operations(MEASURED[name], model, frames, setting) for name in ("fwd+bwd", STEP)},
                "operators": busiest_operators(model, frames, setting),
            }
        )
        if setting.amp:
            rows[-1]["amp_error"] = amp_error(model, frames, setting)
    models.clear()
    for net, row in zip(nets, rows, strict=True):
        if setting.device.type == "cuda":
            row["memory_mib"] = peak_memory(net, setting)
        else:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row["memory_mib"] = pool.apply(peak_memory, (net, setting))
    return rows


def ese_seconds(device, samples=1000):
    """Time of the ESE of ``samples`` forecasts of 10 x 2 x 64 x 64."""
    prediction, target = torch.randn(2, samples, TEST_STEPS, 2, SIZE, SIZE, device=device)
    return statistics.median(seconds(device, energy_spectrum_error, prediction, target) for _ in range(3))


# ---------------------------------------------------------------- the command


def table_of(rows, setting, peak):
    """What the nets take, what they do with it, and where it goes; ``peak`` is in operations per second."""
    plain, ours = rows[0], {row["symmetry"]: row for row in rows if not row["variant"]}
    columns = [*(f"{name}, ms" for name in MEASURED), "MiB", "x plain", "by operations", "x ours", "GFLOP", "of peak"]
    lines = [[f"{plain['architecture']}, batch {setting.batch}", *columns, *["bf16 error"] * setting.amp, "busiest"]]
    for row in rows:
        times, counts = row["seconds"], row["operations"]
        cells = [f"{1000 * time:.1f}" for time in times.values()]
        cells.append("-" if row["memory_mib"] is None else f"{row['memory_mib']:.0f}")
        cells += [
            f"{of['fwd+bwd'] / base['fwd+bwd']:.2f}"
            for of, base in ((times, plain["seconds"]), (counts, plain["operations"]))
        ]
        cells.append(f"{times[STEP] / ours[row['symmetry']]['seconds'][STEP]:.2f}" if row["variant"] else "")
        cells += [f"{counts[STEP] / 1e9:.1f}", f"{counts[STEP] / times[STEP] / peak:.0%}"]
        cells += [f"{row['amp_error']:.0e}"] if setting.amp else []
        busiest = ", ".join(f"{operator} {share:.0%}" for operator, share in row["operators"].items())
        lines.append([f"{row['variant']} {row['symmetry']}".strip(), *cells, busiest])
    return table(lines)


def reading_of(loader, rows):
    """The times of reading beside the shortest training step; ``loader`` is ``{windows: (first, each)}``."""
    step = min(row["seconds"][STEP] for row in rows)
    times = (
        f"of {count:,} windows {1000 * each:.2f}, {each / step:.1%} of the shortest step, at first {1000 * first:.1f}"
        for count, (first, each) in loader.items()
    )
    return f"Reading a batch, in ms, from a file {'; '.join(times)}."


def device_name(device):
    """Of a GPU, or of the processor where Linux tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        known = re.search("model name\\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        known = None
    return known[1] if known else platform.machine()


def parts_of(args):
    """The report that the arguments ask for, part by part as it is measured; writes the JSON file in the end."""
    device = choose_device(args.device)
    try:
        architectures = [match(name, SKELETONS, "architecture") for name in args.architecture or SKELETONS]
        symmetries = [match(name, SYMMETRIES, "symmetry") for name in args.symmetry or SYMMETRIES]
    except ValueError as error:
        raise InputError(error) from None
    if min(args.batch) < 1 or args.repeats < 1 or not args.width > 0:
        raise InputError("--batch, --repeats and --width must be positive")
    if args.json is not None and (args.json.is_dir() or not args.json.parent.is_dir()):
        raise InputError(f"--json {args.json} must be a file in a folder that exists")

    set_precision(args.amp)
    flags = {name: getattr(args, name) for name in ("width", "amp", "channels_last", "compile", "checkpoint")}
    where = device_name(device)
    words = [where, f"{torch.get_num_threads()} threads", f"torch {torch.__version__}", f"{date.today()}"]
    words += ["bfloat16" if args.amp else "float32", f"width {args.width:g}"]
    words += [name for name in ("channels_last", "compile", "checkpoint") if flags[name]]
    peaks = peak_rates(Setting(args.batch[0], device=device, **flags))
    ese = ese_seconds(device)
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in a {name}" for name, rate in peaks.items())
    yield f"{', '.join(words)}; {rates}; ESE of 1000 forecasts of {TEST_STEPS} x 2 x {SIZE} x {SIZE}: {ese:.2f} s."
    tables = []
    for batch in args.batch:
        setting = Setting(batch, device=device, **flags)
        loader = {count: loader_seconds(setting, count) for count in WINDOWS}
        for architecture in architectures:
            ours = [(architecture, symmetry, "") for symmetry in dict.fromkeys(["None", *symmetries])]
            others = [
                (architecture, name, other)
                for name in symmetries
                for other in ([] if args.alone else [*BESIDE[name], "relaxed"])
            ]
            rows = measure([*ours, *others], setting, args.repeats)
            yield table_of(rows, setting, peaks["convolution"])
            yield reading_of(loader, rows)
            tables.append({"batch": batch, "loader_seconds": loader, "nets": rows})
    if args.json is not None:
        about = {"machine": where, "threads": torch.get_num_threads(), "torch": torch.__version__}
        about |= {"device": str(device), **flags}
        write_json(args.json, {**about, "peak_operations_per_second": peaks, "ese_seconds": ese, "tables": tables})


def shown(args):
    """The whole report, printed part by part."""
    parts = []
    for part in parts_of(args):
        print(part, end="\n\n", flush=True)
        parts.append(part)
    return "\n\n".join(parts)


def main(argv=None):
    args = parse_args(argv)
    if args.readme is None:
        shown(args)
        return
    text = rewritten(args.readme.read_text(), "speed", lambda arguments: shown(parse_args(arguments)))
    with replacing(args.readme) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    tune_cpu()
    sys.exit(exit_code(main))
