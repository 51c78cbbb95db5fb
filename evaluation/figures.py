"""Figures, each as PNG for the screen and as PDF for print; animations as GIF.

    python -m evaluation.figures convection data/rbc_small.npy    # what data_prep.py rbc --simulate small left behind
    python -m evaluation.figures runs results/quick/*             # finished runs of run_model.py

Of runs, for every data set: the errors step by step and the learning curves. For every architecture, too: forecasts of
an original and of transformed flows, spectra, and the error against the strength of a transformation. Figures over the
seeds, of the numbers that runs leave behind, are the report's (``python -m evaluation.report --figures``).
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from evaluation import convection
from evaluation.baselines import persistence
from evaluation.rmse import rmse
from evaluation.runs import DATASETS, data_folder, net_of, read_config, read_metrics
from evaluation.spectrum import log_spectrum, velocity_spectrum
from evaluation.style import (
    COLOURS,
    LINES,
    STYLE,
    field_map,
    new_figure,
    note,
    plain_log,
    reference_slope,
    save,
    save_animation,
)
from flows.store import load_meta, read_table
from flows.windows import Windows
from models import ARCHITECTURES, SYMMETRIES
from utils import (
    TEST_STEPS,
    InputError,
    choose_device,
    exit_code,
    load_checkpoint,
    roll_out,
)

STEPS_SHOWN = 1, 5, 10  # as in the paper's Figure 2
SPECTRUM_SAMPLES = 64  # test windows, evenly spread
SWEEP_SAMPLES = 16
SPEED = "speed / standard deviation"

# ---------------------------------------------------------------- runs and their data


@dataclass
class Run:
    """A finished run.

    Attributes:
        config, metrics: what its ``config.json`` and ``metrics.json`` hold.
        history: the rows of its ``log.csv``, as numbers.
        windows: the test split of the data it was trained on.
        tables: by symmetry, the group elements of the transformed test sets, one per window.
        model: its net with the best weights.
    """

    config: dict
    metrics: dict
    history: list
    windows: Windows
    tables: dict
    model: torch.nn.Module

    @property
    def symmetry(self):
        return self.config["symmetry"]

    @property
    def label(self):
        return "plain" if self.symmetry == "None" else self.symmetry


def load_run(folder, data_dirs, device):
    """Load a finished run.

    Args:
        folder: of the run.
        data_dirs: where its data may be.
        device: where it shall forecast.

    Raises:
        InputError: a file is missing or broken, or none of the data are what the run was trained on.
    """
    for name in ("config.json", "metrics.json", "log.csv", "best.pt"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}, so it is no finished run; run_model.py makes them")
    config, metrics = read_config(folder), read_metrics(folder)
    data, meta = find_data(folder, config, data_dirs)
    try:
        with open(folder / "log.csv", newline="") as file:
            history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        model = net_of(config, meta["fields"]).to(device).eval()
        model.load_state_dict(load_checkpoint(folder / "best.pt", device)["model"])
    except (ValueError, TypeError, KeyError, RuntimeError) as error:  # RuntimeError: weights of another net
        raise InputError(f"{folder} is not a run of this program: {error!r:.100}; run it again") from None
    windows = Windows(data, meta, "test", device)
    tables = {
        name: read_table(data / file, len(windows))
        for name, file in meta["tables"]["test"].items()
        if name in SYMMETRIES
    }
    return Run(config, metrics, history, windows, tables, model)


def find_data(folder, config, data_dirs):
    """The prepared data that a run was trained on, known by its id: its folder and its ``meta.json``."""
    candidates = [data_folder(data, config["dataset"]) for data in data_dirs]
    found = [candidate for candidate in candidates if (candidate / "meta.json").is_file()]
    for candidate in found:
        meta = load_meta(candidate)
        if meta["id"] == config["data"]:
            return candidate, meta
    where = ", ".join(map(str, candidates))
    what = "other data than those" if found else "data that are not"
    raise InputError(f"{folder} was trained on {what} in {where}; name their folder with --data_dir")


def evenly_spread(windows, count):
    """Indices of ``count`` windows from the first to the last; all, if there are fewer."""
    return torch.linspace(0, len(windows) - 1, min(count, len(windows))).long()


def read(runs, index):
    """Frames ``(n, past + TEST_STEPS, C, H, W)`` and mask of windows; ``past`` is what the nets read at most."""
    past = max(run.config["input_length"] for run in runs)
    return runs[0].windows.read(index, past, TEST_STEPS)


@torch.inference_mode()
def forecast(run, frames, mask):
    """A net's forecast of the last TEST_STEPS of ``frames`` from those before them: ``(n, TEST_STEPS, C, H, W)``."""
    past = frames[:, -TEST_STEPS - run.config["input_length"] : -TEST_STEPS]
    parts = [slice(i, i + run.config["batch_size"]) for i in range(0, len(past), run.config["batch_size"])]
    return torch.cat([roll_out(run.model, past[i], TEST_STEPS, None if mask is None else mask[i]) for i in parts])


def transform(name, g, frames, mask, fields):
    """Frames of these fields and their mask (None without land) under a symmetry's elements ``g``, one per sample."""
    symmetry = SYMMETRIES[name].on(fields)
    return symmetry.act(g, frames), symmetry.act_on_mask(g, mask, frames)


def truth_and_forecasts(runs, frames, mask):
    """What is drawn side by side: ``{"target": frames, label: forecast, ...}``, ``(n, TEST_STEPS, C, H, W)`` each."""
    return {"target": frames[:, -TEST_STEPS:], **{run.label: forecast(run, frames, mask) for run in runs}}


# ---------------------------------------------------------------- flows and forecasts


def speed(flow, mask):
    """Speed of flows ``(..., C, H, W)`` as a numpy array, not a number where ``mask`` ``(..., H, W)`` is False.

    Of data without a velocity, their first scalar.
    """
    norm = flow[..., :2, :, :].norm(dim=-3) if flow.shape[-3] > 1 else flow[..., 0, :, :]
    return (norm if mask is None else torch.where(mask, norm, torch.nan)).cpu().numpy()


def draw_block(figure, title, flows, mask):
    """One sample: a column per entry of ``flows``, a row per step, errors noted, one bar of colours.

    Args:
        figure: figure or subfigure.
        flows: ``{label: (1, TEST_STEPS, C, H, W)}``, the target first.
        mask: ``(1, 1, H, W)`` or None.
    """
    panels = figure.subplots(len(STEPS_SHOWN), len(flows), sharex=True, sharey=True)
    target, fastest = flows["target"], np.nanquantile(speed(flows["target"], mask), 0.999)
    for row, step in zip(panels, STEPS_SHOWN, strict=True):
        for axes, (label, flow) in zip(row, flows.items(), strict=True):
            image = field_map(axes, speed(flow[:, step - 1], None if mask is None else mask[:, 0])[0], fastest)
            if label != "target":
                note(axes, f"RMSE {rmse(flow, target, mask, per_step=True)[step - 1]:.2f}")
        row[0].set_ylabel(f"step {step}\ny / cells")
    for top, bottom, label in zip(panels[0], panels[-1], flows, strict=True):
        top.set_title(label)
        bottom.set_xlabel("x / cells")
    figure.suptitle(title, fontsize=STYLE["font.size"])
    figure.colorbar(image, ax=panels, label=SPEED, extend="max", aspect=40, pad=0.01)


def draw_original(runs, index):
    """Forecasts of one test window by all nets of an architecture, beside the truth."""
    frames, mask = read(runs, torch.tensor([index]))
    figure = new_figure(3.9 * 4 / (len(runs) + 1) + 0.4)
    draw_block(figure, f"test window {index}", truth_and_forecasts(runs, frames, mask), mask)
    return figure


def draw_transformed(runs, index):
    """The paper's Figure 2: one test window under each transformation, forecast by the plain net and by its own.

    None where no run has a transformed test set of its own symmetry, or none that leaves enough frames.
    """
    frames, mask = read(runs, torch.tensor([index]))
    fields = runs[0].windows.fields
    moved = {
        name: transform(name, runs[0].tables[name][[index]], frames, mask, fields) for name in transformations(runs)
    }
    # A flow that is scaled down runs faster, and is too short then.
    moved = {name: (flow, valid) for name, (flow, valid) in moved.items() if flow.shape[1] >= frames.shape[1]}
    if not moved:
        return None
    rows = math.ceil(len(moved) / 2)
    figure = new_figure(3.3 * rows)
    for block, name in zip(figure.subfigures(rows, 2, squeeze=False).flat, moved, strict=False):
        nets = [run for run in runs if run.symmetry in ("None", name)]
        values = ", ".join(f"{value:.2f}" for value in runs[0].tables[name][index].flatten().tolist())
        flow, valid = moved[name]
        draw_block(block, f"test window {index}, {name} by {values}", truth_and_forecasts(nets, flow, valid), valid)
    return figure


def transformations(runs):
    """Symmetries that have both a net among ``runs`` and a transformed test set."""
    return [run.symmetry for run in runs if run.symmetry in run.tables]


def animate_forecasts(runs, index, path):
    """The roll-outs of all nets of an architecture beside the truth, as a GIF; returns its path."""
    frames, mask = read(runs, torch.tensor([index]))
    speeds = {
        label: speed(flow[0], None if mask is None else mask[0])
        for label, flow in truth_and_forecasts(runs, frames, mask).items()
    }
    figure = new_figure(6 / len(speeds) + 0.4)
    panels = figure.subplots(1, len(speeds), sharey=True)
    fastest = np.nanquantile(speeds["target"], 0.999)
    images = [field_map(axes, values[0], fastest) for axes, values in zip(panels, speeds.values(), strict=True)]
    figure.colorbar(images[0], ax=panels, label=SPEED, extend="max", shrink=0.8, pad=0.01)
    panels[0].set_ylabel("y / cells")
    for axes in panels:
        axes.set_xlabel("x / cells")

    def update(i):
        for axes, image, (label, values) in zip(panels, images, speeds.items(), strict=True):
            image.set_data(values[i])
            axes.set_title(f"{label}, step {i + 1:2d}")

    return save_animation(figure, update, TEST_STEPS, path, milliseconds=400)


# ---------------------------------------------------------------- spectra


def draw_spectra(runs):
    """Spectra of forecasts and truth: of the fluctuation's energy, which the ESE compares, and of the velocity."""
    frames, mask = read(runs, evenly_spread(runs[0].windows, SPECTRUM_SAMPLES))
    figure = new_figure(2.9)
    left, right = figure.subplots(1, 2)
    waves = np.arange(1, max(frames.shape[-2:]) // 2 + 1)
    colours = {"target": "black", **{run.label: COLOURS[run.symmetry] for run in runs}}
    for label, flow in truth_and_forecasts(runs, frames, mask).items():
        fluctuation = 10 ** log_spectrum(flow, mask).mean(0).cpu().numpy()[: len(waves)]
        velocity = velocity_spectrum(flow, mask).mean(0).cpu().numpy()[1 : len(waves) + 1]
        left.loglog(waves, fluctuation, color=colours[label], label=label)
        right.loglog(waves, velocity, color=colours[label], label=label)
        if label == "target":
            middle = slice(len(waves) // 8, len(waves) // 2 + 1)
            for exponent, name in ((-5 / 3, "$k^{-5/3}$"), (-3, "$k^{-3}$")):
                reference_slope(right, waves[middle], velocity[middle], exponent, name)
    left.set(
        title="energy of the fluctuation in time, as in the ESE",
        ylabel="mean of |FFT|$^2$ over a ring / (variance)$^2$",
    )
    right.set(title="velocity under a Hann window", ylabel="sum over a ring, $E(k)$ / variance")
    for axes in (left, right):
        axes.set_xlabel("wavenumber / waves per side of the tile")
        plain_log(axes.xaxis)
    left.legend()
    return figure


# ---------------------------------------------------------------- error against the strength of a transformation


@dataclass(frozen=True)
class Sweep:
    """A path through a symmetry's group.

    Attributes:
        symbol, unit: of the numbers along the path.
        strengths: these numbers.
        shown: those at which forecasts are drawn.
        element: ``(strength, n)`` -> n group elements of this strength.
        inverse: of group elements.
        scale: of the axis, or "polar" for angles in degrees.
    """

    symbol: str
    unit: str
    strengths: tuple
    shown: tuple
    element: Callable
    inverse: Callable
    scale: str


def velocities(strength, n):
    """``(n, 2)`` velocities of one size, their directions evenly spread."""
    angle = 2 * math.pi * torch.arange(n) / n
    return strength * torch.stack((angle.cos(), angle.sin()), 1)


def equal(strength, n):
    return torch.full((n,), float(strength))


QUARTERS, FACTORS = tuple(i / 4 for i in range(17)), tuple(2 ** (i / 2) for i in range(-6, 7))
ANGLES = tuple(range(0, 361, 15))
SWEEPS = {
    "UM": Sweep("|c|", "standard deviations", QUARTERS, (0, 1, 2, 4), velocities, torch.neg, "linear"),
    "Mag": Sweep("$\\lambda$", "", FACTORS, (0.125, 0.5, 2, 8), equal, torch.reciprocal, "log"),
    "Rot": Sweep("$\\theta$", "degrees", ANGLES, (0, 45, 90, 180), equal, torch.neg, "polar"),
}


@torch.inference_mode()
def sweep(run, name, frames, mask):
    """Forecast flows that are transformed more and more strongly.

    Args:
        name: a key of ``SWEEPS``.
        frames: ``(n, past + TEST_STEPS, C, H, W)``; mask: ``(n, 1, H, W)``.

    Returns:
        Lists with an entry per strength: ``errors``, the RMSE over that of persistence on the same flows; of the first
        flow ``inputs``, the speed in the last frame before the forecast, and ``returned``, the speed in the last frame
        of the forecast after it is transformed back, ``(H, W)`` each.
    """
    path = SWEEPS[name]
    errors, inputs, returned = [], [], []
    for strength in path.strengths:
        g = path.element(strength, len(frames))
        moved, valid = transform(name, g, frames, mask, run.windows.fields)
        prediction, past, target = forecast(run, moved, valid), moved[:, :-TEST_STEPS], moved[:, -TEST_STEPS:]
        error_of_persistence = rmse(persistence(past, TEST_STEPS), target, valid)
        errors.append((rmse(prediction, target, valid) / error_of_persistence).item())
        inputs.append(speed(past[0, -1], valid[0, 0]))
        back, valid = transform(name, path.inverse(g[:1]), prediction[:1, -1:], valid[:1], run.windows.fields)
        returned.append(speed(back[0, 0], valid[0, 0]))
    return errors, inputs, returned


def draw_sweep(runs, name, path):
    """Forecasts of ever more strongly transformed flows: the error against the strength, maps, an animation.

    Args:
        runs: the nets to compare.
        name: a key of ``SWEEPS``.
        path: where to write, without ending.
    """
    frames, mask = read(runs, evenly_spread(runs[0].windows, SWEEP_SAMPLES))
    if mask is None:
        mask = torch.ones_like(frames[:, 0, :1], dtype=torch.bool)
    results = [sweep(run, name, frames, mask) for run in runs]
    target = speed(frames[0, -1], mask[0, 0])
    figure = new_figure(0.75 * len(runs) + 0.9)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.3))
    draw_sweep_errors(left, runs, SWEEPS[name], [errors for errors, _, _ in results])
    draw_sweep_maps(right, runs, SWEEPS[name], target, [returned for _, _, returned in results])
    announce(
        *save(figure, path), animate_sweep(runs, SWEEPS[name], target, results, path.with_name(f"{path.name}.gif"))
    )


def draw_sweep_errors(figure, runs, path, errors):
    """The error of each run against the strength."""
    polar = path.scale == "polar"
    axes = figure.subplots(subplot_kw={"projection": "polar"} if polar else {"xscale": path.scale})
    along = np.radians(path.strengths) if polar else path.strengths
    for run, values in zip(runs, errors, strict=True):
        axes.plot(along, values, color=COLOURS[run.symmetry], label=run.label)
    axes.plot(along, np.ones(len(along)), ":", color="black", linewidth=0.8)
    axes.set(xlabel=f"{path.symbol} / {path.unit}" if path.unit else path.symbol, ylim=(0, None))
    if path.scale == "log":
        plain_log(axes.xaxis)
    if polar:
        axes.yaxis.set_major_locator(MaxNLocator(3))
    figure.suptitle("RMSE / RMSE of persistence", fontsize=STYLE["font.size"])
    figure.legend(loc="outside lower center", ncols=len(runs))


def draw_sweep_maps(figure, runs, path, target, returned):
    """A row per run: the target and the forecasts transformed back, which should be the same at every strength."""
    panels = figure.subplots(len(runs), 1 + len(path.shown), sharex=True, sharey=True, squeeze=False)
    for row, run, maps in zip(panels, runs, returned, strict=True):
        shown = [target, *(maps[path.strengths.index(strength)] for strength in path.shown)]
        for axes, values in zip(row, shown, strict=True):
            image = field_map(axes, values, np.nanmax(target))
        row[0].set_ylabel(f"{run.label}\ny / cells")
    for axes, title in zip(panels[0], ["target", *(f"{path.symbol} = {s:g}" for s in path.shown)], strict=True):
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel("x / cells")
    figure.suptitle(f"forecasts of step {TEST_STEPS}, transformed back", fontsize=STYLE["font.size"])
    figure.colorbar(image, ax=panels, label=SPEED, extend="max", aspect=25, pad=0.01)


def animate_sweep(runs, path, target, results, file):
    """The input as the transformation grows, and beside it each run's forecast, transformed back; returns ``file``."""
    figure = new_figure(7.5 / (len(runs) + 2) + 0.5)
    panels = figure.subplots(1, len(runs) + 2, sharey=True)
    inputs = results[0][1]
    films = [inputs, [target] * len(inputs), *(returned for _, _, returned in results)]
    limits = [np.nanmax(inputs), *[np.nanmax(target)] * (len(runs) + 1)]
    images = [field_map(axes, film[0], limit) for axes, film, limit in zip(panels, films, limits, strict=True)]
    for axes, title in zip(panels[1:], ["target", *(f"{run.label}, transformed back" for run in runs)], strict=True):
        axes.set_title(title)
    for axes in panels:
        axes.set_xlabel("x / cells")
    panels[0].set_ylabel("y / cells")
    figure.colorbar(images[-1], ax=panels, label=SPEED, extend="max", shrink=0.7, pad=0.01)

    def update(i):
        panels[0].set_title(f"input, {path.symbol} = {path.strengths[i]:.2g}")
        for image, film in zip(images, films, strict=True):
            image.set_data(film[i])

    return save_animation(figure, update, len(inputs), file, milliseconds=300)


# ---------------------------------------------------------------- errors


def draw_errors(runs):
    """RMSE per step on every test set, with persistence."""
    tests = list(dict.fromkeys(name for run in runs for name in run.metrics["scores"]))
    figure = new_figure(2.4)
    panels = figure.subplots(1, len(tests), sharey=True, squeeze=False)[0]
    for axes, test in zip(panels, tests, strict=True):
        for run in runs:
            if test in run.metrics["scores"]:
                draw_curve(axes, run, *per_step(run.metrics["scores"][test]))
        axes.plot(*per_step(runs[0].metrics["baselines"]["persistence"][test]), ":", color="black", label="persistence")
        axes.set(title=f"on {test}", xlabel="step", xticks=STEPS_SHOWN)
        plain_log(axes.yaxis)
    panels[0].set_ylabel("RMSE / standard deviation")
    legend_once(figure, panels)
    return figure


def per_step(scores):
    return range(1, len(scores["rmse_per_step"]) + 1), scores["rmse_per_step"]


def draw_curve(axes, run, x, y, **options):
    """A run's curve, in the colour of its symmetry and the line of its architecture."""
    architecture = run.config["architecture"]
    axes.plot(x, y, LINES[architecture], color=COLOURS[run.symmetry], label=f"{run.label} {architecture}", **options)


def legend_once(figure, panels):
    """One legend on the right for all panels, each label once."""
    entries = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries, loc="outside right upper")


def draw_learning(runs):
    """RMSE in training and validation by epoch."""
    figure = new_figure(2.4)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("train", "valid"), strict=True):
        for run in runs:
            draw_curve(axes, run, *zip(*((row["epoch"], row[f"{name}_rmse"]) for row in run.history), strict=True))
        axes.set(title={"train": "training", "valid": "validation"}[name], xlabel="epoch")
        plain_log(axes.yaxis)
    panels[0].set_ylabel("RMSE / standard deviation")
    legend_once(figure, panels)
    return figure


# ---------------------------------------------------------------- commands


def draw_runs(args):
    """The command ``runs``."""
    device = choose_device(args.device)
    torch.backends.cudnn.allow_tf32 = False  # equivariance is exact or it is not
    begun = [folder for folder in args.runs if (folder / "config.json").is_file()]
    unfinished = [folder for folder in begun if not (folder / "metrics.json").is_file()]
    if unfinished:
        print(f"left out, because not finished: {', '.join(map(str, unfinished))}", flush=True)
    runs = [load_run(folder, args.data_dir, device) for folder in args.runs if folder not in unfinished]
    if not runs:
        raise InputError("none of these runs is finished; the same run_model.py commands go on with them")
    runs.sort(key=lambda run: list(SYMMETRIES).index(run.symmetry))
    groups = [[run for run in runs if run.config["dataset"] == dataset] for dataset in DATASETS]
    for group in groups:
        if any(run.config["data"] != group[0].config["data"] for run in group):
            raise InputError(f"these runs were trained on different {group[0].config['dataset']} data; draw them apart")
    args.figures.mkdir(parents=True, exist_ok=True)
    for group in filter(None, groups):
        path = args.figures / group[0].config["dataset"]
        draw_dataset(group, path)
        for architecture in ARCHITECTURES:
            nets = one_per_symmetry([run for run in group if run.config["architecture"] == architecture])
            if nets:
                draw_architecture(nets, path.with_name(f"{path.name}_{architecture}"))


def one_per_symmetry(runs):
    """The first run of each symmetry, in the order of the symmetries."""
    first = {run.symmetry: run for run in reversed(runs)}
    return [first[name] for name in SYMMETRIES if name in first]


def draw_dataset(runs, path):
    """All figures that compare architectures."""
    write(draw_errors(runs), path, "errors")
    write(draw_learning(runs), path, "learning")


def draw_architecture(runs, path):
    """All figures of the nets of one architecture."""
    middle = len(runs[0].windows) // 2
    write(draw_original(runs, middle), path, "original")
    announce(animate_forecasts(runs, middle, path.with_name(f"{path.name}_original.gif")))
    write(draw_spectra(runs), path, "spectra")
    write(draw_transformed(runs, middle), path, "transformed", "no net was tested under its own symmetry")
    for name in transformations(runs):
        if name in SWEEPS:
            nets = [run for run in runs if run.symmetry in ("None", name)]
            draw_sweep(nets, name, path.with_name(f"{path.name}_{name}"))


def write(figure, path, kind, why_none=""):
    """Save a figure as ``path_kind``, or say why there is none."""
    if figure is None:
        print(f"no {path.name}_{kind}: {why_none}", flush=True)
    else:
        announce(*save(figure, path.with_name(f"{path.name}_{kind}")))


def announce(*paths):
    for path in paths:
        print(f"wrote {path}", flush=True)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", required=True)
    command = commands.add_parser("convection", help="numbers and pictures of convection")
    command.add_argument(
        "raw",
        nargs="+",
        type=Path,
        help="what data_prep.py rbc --simulate left behind, such as data/rbc_small.npy; numbers only of any other "
        ".npy or .pt array (T, C, H, W)",
    )
    command.set_defaults(draw=lambda args: announce(*convection.draw(args.raw, args.figures)))
    command = commands.add_parser("runs", help="what trained nets forecast")
    command.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    command.add_argument(
        "--data_dir",
        nargs="+",
        type=Path,
        default=[Path("data"), Path("data/quick")],
        help="where data_prep.py wrote the data of the runs (default: data and data/quick)",
    )
    command.add_argument("--device", default="", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    command.set_defaults(draw=draw_runs)
    for command in commands.choices.values():
        command.add_argument(
            "--figures", type=Path, default=Path("figures"), help="where to put them (default %(default)s)"
        )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    with rc_context(STYLE):
        args.draw(args)


if __name__ == "__main__":
    sys.exit(exit_code(main))
