"""What a net costs: operations, memory, time."""

import math
import os
import sys
import time
from copy import deepcopy
from dataclasses import replace
from resource import RUSAGE_SELF, getrusage

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from utils import make_optimizer, shared_roll_out, sum_over_processes, train_epoch


def alive(model):
    """How many parameters are above 1e-6. Weight decay draws those to 0 that the loss does not hold."""
    return sum((parameter.abs() > 1e-6).sum().item() for parameter in model.parameters())


# ---------------------------------------------------------------- operations


def convolution_backward(gradient, image, kernel, *setting, out_val):
    """Either gradient takes as many operations as the convolution (torch's own count forgets the groups)."""
    *geometry, _, _, (of_image, of_kernel, _) = setting  # bias sizes, stride, padding, dilation, transposed
    return (of_image + of_kernel) * COUNTS[aten.convolution](image, kernel, *geometry, out_val=gradient)


aten = torch.ops.aten
COUNTS = flop_registry | {aten.convolution_backward: convolution_backward}


class Operations(TorchDispatchMode):
    """Adds up operations. (torch's ``FlopCounterMode`` follows modules, too, and fails on parametrised ones.)"""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in COUNTS:
            self.total += COUNTS[function.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def operations(function, *arguments):
    """Floating-point operations of one call, in convolutions and matrix products."""
    with Operations() as counter:
        function(*arguments)
    return counter.total


# ---------------------------------------------------------------- memory


def available_memory(device):
    """Bytes of memory that a device has, free on a CUDA device, in all on a CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory(device):
    """Most memory held since the start of this process, in MiB: by tensors on a CUDA device, else by all of it."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(getrusage(RUSAGE_SELF).ru_maxrss / unit, 1)


# ---------------------------------------------------------------- a training step

TIMED = 3  # steps


def training_price(model, windows, settings):
    """What training costs, by a few steps of a copy: the model, its gradients and all generators stay as they are.

    Args:
        windows, settings: as those of :func:`utils.train`.

    Returns:
        ``(operations, seconds)``: floating-point operations of a training step, of all processes together, and an
        estimate of the time of an epoch without its validation.
    """
    device, in_epoch = windows.device, settings.epoch_windows or len(windows)
    batch = min(settings.batch_size, in_epoch)
    steps = math.ceil(in_epoch / batch)
    settings = replace(settings, name="measuring, not training:", learning_rate=0.0, batch_size=batch)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        copy = deepcopy(model)
        forecaster, optimizer = shared_roll_out(copy), make_optimizer(copy, settings)

        def train_steps(count):
            generator = torch.Generator().manual_seed(0)
            train_epoch(forecaster, optimizer, windows, replace(settings, epoch_windows=count * batch), generator, 0)

        count = operations(train_steps, 1)  # warms up, too
        start = time.perf_counter()
        train_steps(TIMED)
        seconds = (time.perf_counter() - start) / TIMED
    return int(sum_over_processes(torch.tensor(float(count), device=device))), steps * seconds
