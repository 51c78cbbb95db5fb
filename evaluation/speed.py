"""What the nets cost: milliseconds and memory, beside the plain net and beside patches formed one by one.

    python -m evaluation.speed                      # every net at full width, 64 x 64, 24 frames, batch 2
    python -m evaluation.speed --batch 2 8 --symmetry UM --architecture ResNet

All nets are timed in one process in turn, and medians are reported. Beside ours stands the same function otherwise:

naive     (UM, Mag) the layers as the paper writes them: unfold the input into patches, transform each patch, convolve,
          transform back.
expanded  (Rot, Scale) the plain convolutions that the layers expand to, their kernels given: what no implementation of
          this net can undercut. What deriving the kernels costs is the column "kernels", once per optimiser step.

Peak memory is that of a training step, in a fresh process on a CPU.
"""

import argparse
import multiprocessing
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import leaky_relu, pad, unfold
from torch.nn.utils import parametrize

from evaluation.spectrum import energy_spectrum_error
from models import ARCHITECTURES, SYMMETRIES, build_model, match
from models.backbone import repeat_pixels
from models.magnitude import MagnitudeConv2d, MagnitudeUpsampling
from models.rotation import SteerableConv2d
from models.scale import NEGATIVE_SLOPE, ScaleConv2d
from models.uniform_motion import UniformMotionConv2d, UniformMotionUpsampling
from utils import InputError, choose_device, exit_code, roll_out

SIZE, FRAMES, STEPS = 64, 24, 3  # side of the fields, input frames, roll-out steps of a training step

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
        for kernel, geometry in zip(layer.weight, layer.resampled.geometry, strict=True):
            channels = kernel.shape[1] // geometry.seen
            self.levels.append(slice(geometry.first * channels, (geometry.first + geometry.seen) * channels))
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


VARIANTS = {"": lambda model: model, "naive": naive, "expanded": expanded}
OTHERWISE = {"UM": "naive", "Mag": "naive", "Rot": "expanded", "Scale": "expanded"}


def build(architecture, symmetry, variant, width, device):
    return VARIANTS[variant](build_model(architecture, symmetry, FRAMES, width=width)).to(device)


# ---------------------------------------------------------------- the measurements


def kernels(model, frames):
    """Derive all kernels from the weights, as once per optimiser step."""
    with torch.no_grad():
        for module in model.modules():
            if parametrize.is_parametrized(module):
                _ = module.weight


def forward(model, frames):
    with torch.no_grad():
        model(frames[:, :FRAMES])


def backward(model, frames):
    model.zero_grad()
    model(frames[:, :FRAMES]).square().mean().backward()


def training_step(model, frames):
    model.zero_grad()
    (roll_out(model, frames[:, :FRAMES], STEPS) - frames[:, FRAMES:]).square().mean().backward()


MEASURED = {"kernels": kernels, "forward": forward, "fwd+bwd": backward, f"step of {STEPS}": training_step}


def random_frames(batch, device):
    return torch.randn(batch, FRAMES + STEPS, 2, SIZE, SIZE, device=device)


def seconds(function, model, frames):
    """Time of one call, the device's queue emptied before and after."""
    if frames.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    function(model, frames)
    if frames.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(net, batch, width, device):
    """MiB that a training step takes beyond the weights and their gradients."""
    model, frames = build(*net, width, device), random_frames(batch, device)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        training_step(model, frames)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        CLEAR_REFS.write_text("5")  # the high-water mark of resident memory falls back to what is held now
    except OSError:
        return float("nan")  # only Linux counts this
    before = high_water()
    training_step(model, frames)
    return (high_water() - before) / 2**10


CLEAR_REFS = Path("/proc/self/clear_refs")


def high_water():
    """Most resident memory of this process so far, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def measure(nets, batch, width, device, repeats):
    """Time ``nets`` in turn; returns ``{net: {"forward": seconds, ..., "memory": MiB}}`` of medians."""
    models = {net: build(*net, width, device) for net in nets}
    frames = random_frames(batch, device)
    results = {net: {} for net in nets}
    for name, function in MEASURED.items():
        times = {net: [] for net in nets}
        for repeat in range(repeats + 1):
            for net, model in models.items():
                elapsed = seconds(function, model, frames)
                if repeat:  # the first round warms up
                    times[net].append(elapsed)
        for net in nets:
            results[net][name] = statistics.median(times[net])
    models.clear()
    for net in nets:
        if device.type == "cuda":
            results[net]["memory"] = peak_memory(net, batch, width, device)
        else:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results[net]["memory"] = pool.apply(peak_memory, (net, batch, width, device))
    return results


def ese_seconds(device, samples=1000):
    """Time of the ESE of ``samples`` forecasts of 10 x 2 x 64 x 64."""
    prediction, target = torch.randn(2, samples, 10, 2, SIZE, SIZE, device=device)
    return statistics.median(seconds(energy_spectrum_error, prediction, target) for _ in range(3))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--symmetry", nargs="+", default=list(SYMMETRIES))
    parser.add_argument("--batch", type=int, nargs="+", default=[2])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    args = parser.parse_args(argv)
    args.device = choose_device(args.device)
    try:
        architectures = [match(name, ARCHITECTURES, "architecture") for name in args.architecture]
        symmetries = [match(name, SYMMETRIES, "symmetry") for name in args.symmetry]
    except ValueError as error:
        raise InputError(error) from None
    if min(args.batch) < 1 or args.repeats < 1 or not args.width > 0:
        raise InputError("--batch, --repeats and --width must be positive")

    where = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else platform.machine()
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32, width {args.width:g}")
    print(f"ESE of 1000 forecasts of 10 x 2 x {SIZE} x {SIZE}: {ese_seconds(args.device):.2f} s")
    header = "".join(f"{name + ' ms':>14}" for name in MEASURED) + f"{'peak MiB':>10}{'x plain':>9}{'x ours':>9}"
    for batch in args.batch:
        for architecture in architectures:
            ours = [(architecture, symmetry, "") for symmetry in dict.fromkeys(["None", *symmetries])]
            others = [(architecture, name, OTHERWISE[name]) for name in symmetries if name != "None"]
            results = measure([*ours, *others], batch, args.width, args.device, args.repeats)
            print(f"\nbatch {batch:<3} {'':16}{header}")
            for net, row in results.items():
                _, symmetry, variant = net
                cells = "".join(f"{1000 * row[name]:14.1f}" for name in MEASURED) + f"{row['memory']:10.0f}"
                cells += f"{row['fwd+bwd'] / results[architecture, 'None', '']['fwd+bwd']:9.2f}"
                if variant:
                    step = f"step of {STEPS}"
                    cells += f"{row[step] / results[architecture, symmetry, ''][step]:9.2f}"
                print(f"{f'{variant} {architecture} {symmetry}'.strip():26}{cells}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
