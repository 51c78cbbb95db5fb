"""Roll-out, training loop, checkpoints, processes: alike for every model ``(n, T, C, H, W)`` -> ``(n, C, H, W)``."""

import contextlib
import csv
import ctypes
import json
import math
import os
import secrets
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce  # with its gradient
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from evaluation.rmse import fill_land, squared_error
from models.approximate import penalty
from models.backbone import deviations

# ---------------------------------------------------------------- the user


class InputError(Exception):
    """What the user gave cannot be used. Shown as one line, exit code 2."""


def exit_code(main):
    """Run ``main()`` and return the process's exit code.

    Bad input, a full disk and a missing permission end in one line on stderr and 2, an interrupt in one line and 130,
    a reader of our output that has seen enough, such as ``head``, in 141. Anything else is a defect and keeps its
    traceback. Of several processes the first to fail speaks for all: the others fail for want of it.
    """
    code, line = 0, None
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # raises KeyboardInterrupt
        main()
    except BrokenPipeError:
        code = 141
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's last flush shall not fail, too
    except (InputError, OSError) as error:
        code, line = 2, f"error: {' '.join(str(error).split())}"
    except (torch.OutOfMemoryError, MemoryError):
        code, line = 2, "error: out of memory; lower --batch_size, --width or --rotation_order, or use --device cpu"
    except KeyboardInterrupt:
        code, line = 130, "stopped"
    except SystemExit as stop:  # argparse has said why
        code = stop.code
    except Exception as error:
        code = 2
        if processes() > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            line = "error: another process of this run has ended; the same command goes on from the last epoch"
        elif first_to_fail():
            raise
    if line and first_to_fail():
        print(line, file=sys.stderr)
    if code == 0 and processes() > 1:
        distributed.destroy_process_group()
    return code


def choose_device(name=""):
    """The torch device that ``name`` means; without a name CUDA where there is one, else the CPU.

    Raises:
        InputError: no such device here.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu, cuda or cuda:N, got {name}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def tune_cpu():
    """What makes a CPU faster without changing results, for a whole program: to be called before its first tensor.

    Numbers below 1e-38 count as 0: weight decay makes most weights of a trained U-Net as small as that, and a CPU takes
    many times as long over each of them. Where the C library is glibc, it keeps freed memory for the next tensor; it
    would give back every large one and get empty pages for the next, and filling in those takes longer than many of the
    convolutions.
    """
    torch.set_flush_denormal(True)
    mmap_max, trim_threshold = -4, -1  # parameters of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(mmap_max, 0)
        glibc.mallopt(trim_threshold, -1)


def progress(items, total, label, note=None):
    """Iterate over ``items`` under a bar; none where stderr is no terminal, or on other processes than the first.

    Args:
        items, total: what to iterate over and how many there are.
        label: what the bar is called.
        note: returns the text behind the bar; called only when the bar is drawn again.
    """
    with tqdm(total=total, desc=label, leave=False, disable=None if rank() == 0 else True) as bar:
        for item in items:
            yield item
            if bar.update() and note is not None:
                bar.set_postfix_str(note(), refresh=False)


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside ``path``; it takes the place of ``path`` only if the block succeeds."""
    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Write ``value`` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


# ---------------------------------------------------------------- many processes
#
# What one process does with a batch, several do with their shares of it, and add up sums and counts: the same numbers.
# All processes hold the same weights and draw from the same generators.

_store = None  # of the processes that torchrun started: who failed first


def connect(device):
    """Join the processes that ``torchrun`` started, if it did; only the first of them prints to stdout.

    Returns:
        This process's device: of several GPUs its own.

    Raises:
        InputError: more processes than GPUs on this machine, or one GPU for all.
    """
    global _store
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        store, number, count = next(distributed.rendezvous("env://"))
        _store = store_of_this_start(store, number, count)
        distributed.init_process_group(store=_store, rank=number, world_size=count)  # gloo for CPUs, NCCL for GPUs
        if number:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end of the process
    if device.type == "cuda" and distributed.is_initialized():
        if device.index is not None:
            raise InputError(f"--device {device}: processes cannot share a GPU; --device cuda gives each its own")
        device, gpus = torch.device("cuda", int(os.environ["LOCAL_RANK"])), torch.cuda.device_count()
        if device.index >= gpus:
            raise InputError(f"this machine has {gpus} CUDA devices; lower --nproc_per_node or use --device cpu")
        torch.cuda.set_device(device)
    return device


def store_of_this_start(store, number, count):
    """The part of a store that only the processes of this start use.

    When torchrun starts them again, its store still has the addresses of those that have gone, see
    https://github.com/pytorch/pytorch/issues/135712. So process 0 thinks of a new name, and closes the door when all
    have come in.
    """
    if number == 0:
        name = secrets.token_hex(8)
        store.set("start", name)
        store.wait([f"{name}/{other}" for other in range(1, count)])
        store.set("start", "")
        store.set(f"{name}/all", "")
    else:
        name = ""
        while not store.check([f"{name}/all"]):
            name = store.get("start").decode() or name
            store.set(f"{name}/{number}", "")
            time.sleep(0.05)
    return distributed.PrefixStore(name, store)


def rank():
    """Number of this process; 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes():
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def first_to_fail():
    """Whether the error of this process is the one to show. Before they are connected all have the same."""
    if _store is None:
        return int(os.environ.get("RANK", 0)) == 0
    with contextlib.suppress(RuntimeError):  # the process that kept the store has gone
        return _store.add("failed", 1) == 1
    return False


def share(whole):
    """This process's part of the first axis of ``whole``; the parts differ by at most one in length."""
    return whole.tensor_split(processes())[rank()]


def sum_over_processes(tensor):
    """The sum of a tensor over all processes, the same to the last bit in each of them; no gradient passes."""
    if processes() > 1:
        tensor = tensor.detach().clone()
        distributed.all_reduce(tensor)
    return tensor


def wait_for_all():
    """Return when every process is here: before it reads what the first one writes."""
    sum_over_processes(torch.zeros(1))


def gather(part, length):
    """Undo :func:`share`: the whole of ``length`` rows, in every process."""
    whole = part.new_zeros(length, *part.shape[1:])
    share(whole).copy_(part)
    return sum_over_processes(whole)


class SharedBatchNorm(_BatchNorm):
    """Batch norm by the mean and variance of the whole batch, of which this process has a share, maybe an empty one.

    ``torch.nn.SyncBatchNorm`` does the same, on GPUs only.
    """

    def _check_input_dim(self, x):
        pass  # any number of axes

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        axes, shape = [0, *range(2, x.dim())], (-1, *[1] * (x.dim() - 2))
        size = x.numel() // x.shape[1]
        total = all_reduce(torch.cat([wide.sum(axes), wide.new_full((1,), size)]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / count
        if self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


class RollOut(nn.Module):
    """:func:`roll_out` of a model, as a module: all of its steps are one forward pass of DistributedDataParallel."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *arguments):
        return roll_out(self.model, *arguments)


def shared_roll_out(model):
    """:func:`roll_out` of ``model`` for training.

    Of several processes each has a share of the batch: batch norms see the whole of it, and the backward pass leaves
    the *mean* of the processes' gradients in all of them, sent while it goes on.
    """
    if processes() == 1:
        return RollOut(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SharedBatchNorm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 has no forward_sync_buffers, the name since 2.13
        return DistributedDataParallel(RollOut(model), broadcast_buffers=False)


# ---------------------------------------------------------------- forecasts

TEST_STEPS = 10  # frames forecast in every test, as in the paper


def roll_out(model, frames, steps, mask=None, recompute=False):
    """Forecast ``steps`` frames, each from the frames and forecasts before it.

    Kernels that layers derive from their weights are computed once and shared by all steps.

    Args:
        model: ``(n, T, C, H, W)`` -> ``(n, C, H, W)``.
        frames: ``(n, T, C, H, W)``.
        steps: number of frames to forecast.
        mask: ``(n, 1, H, W)``, True where a point counts. Land keeps the value it has in the last frame, so that a
            moving frame of reference (UM) takes its land along; it may be NaN, which counts as 0.
        recompute: keep only the frames that each step reads, and compute the features of a step again in the backward
            pass: the memory of one step instead of all, for one more forward pass. The backward pass must then run
            in the same ``parametrize.cached()`` as the roll-out, or it would not find the kernels of the forward pass.

    Returns:
        ``(n, steps, C, H, W)`` in the dtype of ``frames``.
    """
    frames = fill_land(frames, mask)
    last = frames[:, -1]
    forecasts = []
    step = partial(recomputed, model) if recompute else model
    with parametrize.cached():
        if recompute:
            derive_kernels(model)
        for _ in range(steps):
            forecast = step(frames).to(frames.dtype)
            if mask is not None:
                forecast = torch.where(mask, forecast, last)
            forecasts.append(forecast)
            frames = torch.cat([frames[:, 1:], forecast[:, None]], 1)
    return torch.stack(forecasts, 1)


def forecast(model, frames, steps, mask=None, amp=False):
    """:func:`roll_out` whose net computes in bfloat16 where ``amp`` asks for it; nothing around it does."""
    with precision(frames.device, amp):
        return roll_out(model, frames, steps, mask)


def derive_kernels(model):
    """Compute what layers derive from their weights; within ``parametrize.cached()`` it is kept."""
    for module in model.modules():
        for name in getattr(module, "parametrizations", ()):
            getattr(module, name)


def recomputed(model, frames):
    """``model(frames)`` that keeps nothing but ``frames`` for its backward pass, which calls the model again."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]

    @contextlib.contextmanager
    def second_time():  # the running statistics have seen these features already
        state = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, batches) in zip(norms, state, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, batches

    contexts = contextlib.nullcontext(), second_time()
    return checkpoint(model, frames, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: contexts)


class MeanSquare:
    """Mean squared error over batches, summed where the data are: adding does not wait for the GPU, reading does.

    Args:
        shared: what is added is this process's share of a batch; all processes add together and have the same result.
    """

    def __init__(self, shared=False):
        self.sums, self.count, self.shared = 0, 0, shared and processes() > 1

    def add(self, prediction, target, mask=None):
        """Add a batch; returns its mean squared error per step, ``(steps,)``, for the loss.

        Of a share: its part of that mean; the parts of all processes add up to it, and so do their gradients.
        """
        sums, count = squared_error(prediction, target, mask)
        batch_sums, batch_count = sums.detach(), count
        if self.shared:
            batch_count = sums.new_ones(1) * count
            total = sum_over_processes(torch.cat([batch_sums, batch_count]))
            batch_sums, batch_count = total[:-1], total[-1]
        self.sums, self.count = self.sums + batch_sums, self.count + batch_count
        return sums / batch_count

    def collect(self):
        """Add up what processes have added apart from each other."""
        self.sums = sum_over_processes(self.sums)
        self.count = sum_over_processes(torch.as_tensor(self.count, dtype=torch.float64, device=self.sums.device))

    def per_step(self):
        return self.sums / self.count

    def rmse(self):
        return self.per_step().mean().sqrt().item()


# ---------------------------------------------------------------- training

PATIENCE = 50  # epochs before early stopping may strike


@dataclass
class Training:
    """How a model is trained; the names are the flags of run_model.py."""

    input_length: int
    output_length: int
    batch_size: int
    num_epoch: int
    learning_rate: float
    decay_rate: float
    seed: int = 0
    name: str = ""  # at the head of the lines that it prints
    amp: bool = False
    num_workers: int = 0
    augment: tuple = ()  # symmetries whose random elements transform the training samples
    checkpoint: bool = False  # compute each roll-out step again in the backward pass, to save memory
    valid_length: int = 0  # roll-out steps of the validation; 0: as in training
    patience: int = 0  # epochs without a better validation that end the training; 0: the release's rule
    epoch_windows: int = 0  # windows per epoch, drawn again and again where there are fewer; 0: each once
    relaxed: float | None = None  # how strongly deviations from the symmetry decay; None: the net has none
    weight_decay: float = 4e-4  # of Adam: added to the gradient, times the weight; the release's
    penalty: float = 0.0  # weight in the loss of how unequal the weights of the second paper's layers are


def train(model, train_windows, validate, settings, folder):
    """Train with Adam and keep ``log.csv``, ``best.pt`` (lowest validation RMSE) and ``last.pt`` in ``folder``.

    The loss is the sum over roll-out steps of the mean squared error. The learning rate decays every epoch;
    :func:`stops_early` ends it. A run that was killed goes on from ``last.pt`` and ends with the numbers of a run that
    was not. Several processes (see :func:`connect`) share every batch; the first writes the files.

    Args:
        validate: returns the validation RMSE of the model as it is, see ``evaluation.score.validation_rmse``.

    Returns:
        The history: one dict per epoch, the columns of ``log.csv``.

    Raises:
        InputError: the loss is no longer finite; ``last.pt`` and ``best.pt`` keep the last good epoch.
    """
    folder, device = Path(folder), train_windows.device
    forecaster = shared_roll_out(model)
    optimizer = make_optimizer(model, settings)
    generator = torch.Generator().manual_seed(settings.seed)  # of the order of samples and of augmentation
    history = []
    if (folder / "last.pt").exists():
        state = load_weights(model, folder / "last.pt", device)
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"].cpu())
        history = state["history"]
        print(f"{settings.name} going on after epoch {len(history)}".lstrip(), flush=True)

    while len(history) < settings.num_epoch and not stops_early(history, settings.patience):
        start, epoch = time.perf_counter(), len(history) + 1
        learning_rate = settings.learning_rate * settings.decay_rate ** (epoch - 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        row = {
            "epoch": epoch,
            "train_rmse": train_epoch(forecaster, optimizer, train_windows, settings, generator, epoch),
            "valid_rmse": check_finite(validate(), epoch),
            "learning_rate": learning_rate,
        }
        row["seconds"] = round(time.perf_counter() - start, 2)
        best = row["valid_rmse"] < min((old["valid_rmse"] for old in history), default=math.inf)
        history.append(row)
        if rank() == 0:
            if best:
                save_checkpoint(folder / "best.pt", model=model.state_dict(), epoch=epoch)
            save_checkpoint(
                folder / "last.pt",
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                generator=generator.get_state(),
                history=history,
            )
            write_log(folder / "log.csv", history)
        errors = f"train RMSE {row['train_rmse']:.4f} | valid RMSE {row['valid_rmse']:.4f}"
        line = f"{settings.name} epoch {epoch:3d} | {errors} | {row['seconds']} s"
        print(line.lstrip(), flush=True)  # what is said to be done is safe on the disk
    wait_for_all()
    return history


def make_optimizer(model, settings):
    """Adam, with a second group for deviations: what draws them back to 0 is :func:`train_epoch`."""
    apart = dict.fromkeys(deviations(model).values())  # in their order: a checkpoint knows them by their places
    groups = [{"params": [weight for weight in model.parameters() if weight not in apart]}]
    groups += [{"params": [*apart], "weight_decay": 0.0}] if apart else []
    options = {"weight_decay": settings.weight_decay, "fused": True}
    return torch.optim.Adam(groups, settings.learning_rate, (0.9, 0.999), **options)


def train_epoch(forecaster, optimizer, windows, settings, generator, epoch):
    """Pass over the training windows in random order, of a part of them repeatedly; returns the training RMSE."""
    forecaster.train()
    past, future = settings.input_length, settings.output_length
    wanted = settings.epoch_windows or len(windows)
    passes = [torch.randperm(len(windows), generator=generator) for _ in range(-(-wanted // len(windows)))]
    order = torch.cat(passes)[:wanted]
    batches = windows.batches(order, settings.batch_size, past, future, settings.num_workers, shared=True)
    sizes = [len(batch) for batch in order.split(settings.batch_size)]
    error, label = MeanSquare(shared=True), f"{settings.name} epoch {epoch}".lstrip()
    note = lambda: f"RMSE {check_finite(error.rmse(), epoch):.4f}"  # noqa: E731
    for size, (_, frames, mask) in progress(zip(sizes, batches, strict=True), len(sizes), label, note):
        for symmetry in settings.augment:
            g = share(symmetry.sample(size, generator))  # all processes draw for the whole batch
            if len(g):
                frames, mask = symmetry.transform(g, frames, mask, past - 1, past, future)
        optimizer.zero_grad()
        with parametrize.cached():
            with precision(windows.device, settings.amp):
                prediction = forecaster(frames[:, :past], future, mask, settings.checkpoint)
            loss = error.add(prediction, frames[:, past:], mask).sum()  # of a share: its part of the sum
            (processes() * loss + penalty(forecaster, settings.penalty)).backward()
        optimizer.step()
        for group in optimizer.param_groups[1:]:  # drawn back however strongly: the implicit step of weight decay
            torch._foreach_div_([number.data for number in group["params"]], 1 + group["lr"] * settings.relaxed)
    return check_finite(error.rmse(), epoch)


def check_finite(rmse, epoch):
    """Return ``rmse`` if it is a number; InputError if it is infinite or not a number."""
    if not math.isfinite(rmse):
        kept = "" if epoch < 2 else "the checkpoints keep the epoch before: "
        raise InputError(
            f"the error became {rmse} in epoch {epoch}; {kept}lower --learning_rate and start again with --no_resume"
        )
    return rmse


def stops_early(history, patience=0):
    """Whether the last ``patience`` epochs were no better; by the release's rule (0) 5 than the 5 before, after 50."""
    valid = [row["valid_rmse"] for row in history]
    if patience:
        return bool(valid) and len(valid) - 1 - int(np.argmin(valid)) >= patience
    return len(valid) > PATIENCE and np.mean(valid[-5:]) >= np.mean(valid[-10:-5])


def precision(device, amp):
    """Autocast to bfloat16 where ``amp`` asks for it. Losses and measures stay in float32 and float64."""
    return torch.autocast(device.type, torch.bfloat16, enabled=amp)


def set_precision(amp):
    """Equal seeds give equal numbers, and full float32 unless bfloat16 is asked for: equivariance is exact or not."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = amp


# Raised when weights change their meaning. 2: rotation nets have another basis of kernels between vectors, magnitude
# nets another guard of still components.
CHECKPOINT_SCHEMA = 2


def save_checkpoint(path, **state):
    """Save tensors and plain values, whole or not at all."""
    with replacing(path) as temporary:
        torch.save({"schema": CHECKPOINT_SCHEMA, **state}, temporary)


def load_checkpoint(path, device):
    """Load what :func:`save_checkpoint` saved; InputError if the file is not that, or of another schema."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        schema = state.get("schema", 1)
    except (RuntimeError, EOFError, LookupError, ValueError, AttributeError, UnpicklingError):
        raise InputError(f"{path} is no checkpoint of this program; remove it or use --no_resume") from None
    if schema != CHECKPOINT_SCHEMA:
        raise InputError(
            f"{path} has schema {schema}, this version reads {CHECKPOINT_SCHEMA}: its weights would be another net "
            "here; train again with --no_resume, or use the version that wrote it"
        )
    return state


def load_weights(model, path, device):
    """Give a model the weights of a checkpoint and return the checkpoint; InputError if they are of another net."""
    state = load_checkpoint(path, device)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError:
        why = "has the weights of another net than this version makes; train again, or use the version that wrote it"
        raise InputError(f"{path} {why}") from None
    return state


def write_log(path, history):
    """Write the history as CSV, one line per epoch."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, history[0])
        writer.writeheader()
        writer.writerows(history)
