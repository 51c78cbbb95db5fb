"""Figures, as PNG; with ``--pdf`` for print, too, with ``--animate`` also animations, as GIF.

    python -m evaluation.figures convection data/rbc_small.npy    # what data_prep.py rbc --simulate small left behind
    python -m evaluation.figures runs results/quick/*             # finished runs of run_model.py; a minute
    python -m evaluation.figures runs results/quick/* --only original sweeps --animate

Of runs, for every data set: the errors step by step and the learning curves. For every architecture, too: forecasts of
an original and of transformed flows, spectra, and the error against the strength of a transformation. Figures over the
seeds, of the numbers that runs leave behind, are the report's (``python -m evaluation.report --figures``).
"""

from pathlib import Path

from flows.arguments import Parser

KINDS = "errors", "learning", "original", "transformed", "spectra", "sweeps"


def parse_args(argv=None):
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", title="commands", required=True)
    command = commands.add_parser("convection", help="numbers and pictures of convection")
    command.add_argument(
        "raw",
        nargs="+",
        type=Path,
        help="what data_prep.py rbc --simulate left behind, such as data/rbc_small.npy; numbers only of any other "
        ".npy or .pt array (T, C, H, W)",
    )
    command = commands.add_parser("runs", help="what trained nets forecast")
    command.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    command.add_argument(
        "--data_dir",
        nargs="+",
        type=Path,
        default=[Path("data"), Path("data/quick")],
        help="where data_prep.py wrote the data of the runs (default: data and data/quick)",
    )
    command.add_argument(
        "--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=f"only some of {', '.join(KINDS)}"
    )
    command.add_argument("--device", default="", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    for command in commands.choices.values():
        command.add_argument(
            "--figures", type=Path, default=Path("figures"), help="where to put them (default %(default)s)"
        )
        command.add_argument("--pdf", action="store_true", help="also as PDF, for print")
        command.add_argument("--animate", action="store_true", help="also as GIF, what is shown over time or strength")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from evaluation import convection
from evaluation.baselines import persistence
from evaluation.rmse import rmse
from evaluation.runs import data_folder, net_of, read_config, read_metrics
from evaluation.spectrum import log_spectrum, velocity_spectrum
from evaluation.style import (
    SEQUENTIAL,
    STYLE,
    TURNING,
    colour_bar,
    curves,
    labels,
    legend_below,
    mosaic,
    new_figure,
    note,
    plain_log,
    reference_slope,
    save,
    save_animation,
)
from flows.store import load_meta, read_elements
from flows.windows import Windows
from models import ARCHITECTURES, SYMMETRIES
from models.fields import energetic, parts
from utils import (
    TEST_STEPS,
    InputError,
    choose_device,
    exit_code,
    load_weights,
    progress,
    roll_out,
)

STEPS_SHOWN = 1, 5, 10  # as in the paper's Figure 2
SPECTRUM_SAMPLES = 32  # test windows, evenly spread
SWEEP_SAMPLES = 8

# ---------------------------------------------------------------- runs and their data


@dataclass(eq=False)
class Run:
    """A finished run.

    Attributes:
        folder: where it is.
        config, metrics: what its ``config.json`` and ``metrics.json`` hold.
        history: the rows of its ``log.csv``, as numbers.
        windows: the test split of the data it was trained on.
        elements: by symmetry, the group elements of the transformed test sets, one per window.
        model: its net with the best weights.
    """

    folder: Path
    config: dict
    metrics: dict
    history: list
    windows: Windows
    elements: dict
    model: torch.nn.Module

    @property
    def symmetry(self):
        return self.config["symmetry"]


def open_run(folder, data_dirs, device):
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
        load_weights(model, folder / "best.pt", device)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder} is not a run of this program: {error!r:.100}; run it again") from None
    windows = Windows(data, meta, "test", device)
    elements = {name: read_elements(data, meta, name) for name in meta["tables"]["test"] if name in SYMMETRIES}
    return Run(folder, config, metrics, history, windows, elements, model)


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


def transform(run, name, g, frames, mask):
    """Frames and their mask (None without land) under a symmetry's elements ``g``, one per sample."""
    symmetry = SYMMETRIES[name].on(run.windows.fields)
    return symmetry.act(g, frames), symmetry.act_on_mask(g, mask, frames)


# ---------------------------------------------------------------- what is drawn of data


@dataclass(frozen=True)
class Quantity:
    """What is drawn of data.

    Attributes:
        label: of its colours.
        values: NumPy arrays ``(..., C, H, W)`` -> ``(..., H, W)``.
        limits: of values, which may hold NaN: the ends of their colours.
        colours: a colour map.
    """

    label: str
    values: Callable
    limits: Callable
    colours: str


def from_zero(values):
    return 0, np.nanquantile(values, 0.999)


def about_zero(values):
    high = np.nanquantile(np.abs(values), 0.98)  # thin layers at walls and coasts would leave the rest pale
    return -high, high


def all_but_outliers(values):
    return np.nanquantile(values, (0.001, 0.999))


def speed(part, flow):
    return np.linalg.norm(flow[..., part, :, :], axis=-3)


def vorticity(part, flow):
    u, v = np.moveaxis(flow[..., part, :, :], -3, 0)
    curl = convection.vorticity(u, v, *(np.arange(size) for size in reversed(u.shape[-2:])))
    return np.where(np.isnan(u), np.nan, curl)


def value(part, flow):
    return flow[..., part.start, :, :]


def quantities(fields):
    """The :class:`Quantity` s of data of these fields; the first stands for them where there is room for one only."""
    found = []
    for kind, part in zip(fields, parts(fields), strict=True):
        if kind == "vector":
            found.append(Quantity("speed / standard deviation", partial(speed, part), from_zero, SEQUENTIAL))
            found.append(Quantity("vorticity / (std / cell)", partial(vorticity, part), about_zero, TURNING))
        else:
            found.append(Quantity("scalar / standard deviation", partial(value, part), all_but_outliers, SEQUENTIAL))
    return found


def numbers(flow, mask):
    """The first sample of flows ``(n, T, C, H, W)`` as a NumPy array, NaN where ``mask`` ``(n, 1, H, W)`` is False."""
    flow = flow[0] if mask is None else torch.where(mask[0], flow[0], torch.nan)
    return flow.cpu().numpy()


# ---------------------------------------------------------------- forecasts


def forecasts(runs, frames, mask):
    """:func:`forecast` of every net, by its label."""
    return {label: forecast(run, frames, mask) for label, run in zip(labels(configs(runs)), runs, strict=True)}


def configs(runs):
    return [run.config for run in runs]


def draw_forecasts(runs, frames, mask, title):
    """One window, a row for the target, for persistence and for each net: what its fields are, and the error.

    Args:
        frames: ``(1, past + TEST_STEPS, C, H, W)``; mask: ``(1, 1, H, W)`` or None.
    """
    shown = [step - 1 for step in STEPS_SHOWN]
    flows = {"target": frames[:, -TEST_STEPS:], "persistence": persistence(frames[:, :-TEST_STEPS], TEST_STEPS)}
    flows |= forecasts(runs, frames, mask)
    maps = {name: numbers(flow, mask)[shown] for name, flow in flows.items()}
    errors = {name: np.linalg.norm(flow - maps["target"], axis=1) for name, flow in maps.items()}
    errors["target"] = None
    drawn = quantities(runs[0].windows.fields)
    height, width = frames.shape[-2:]
    figure = new_figure(0.67 * len(flows) * height / width + 1.05, width=2.1 * (len(drawn) + 1) + 0.7)
    *panels, last = figure.subplots(1, len(drawn) + 1)
    for axes, quantity in zip(panels, drawn, strict=True):
        rows = {name: quantity.values(flow) for name, flow in maps.items()}
        draw_steps(axes, rows, quantity.colours, *quantity.limits(rows["target"]), quantity.label)
    # Up to the largest error of persistence: what is cut off is no forecast.
    images = draw_steps(last, errors, SEQUENTIAL, *from_zero(errors["persistence"]), "error / standard deviation")
    for row, flow in zip(images, flows.values(), strict=True):
        per_step = rmse(flow, flows["target"], mask, per_step=True)
        for image, step in zip(row, shown, strict=False):  # the target has no maps of errors
            note(image, f"RMSE {per_step[step]:#.2g}")
    for axes in (*panels[1:], last):
        axes.set_yticks([])
    figure.suptitle(f"{title}, {width} x {height} cells", fontsize=STYLE["font.size"])
    return figure


def draw_steps(axes, rows, colours, low, high, label):
    """Maps of the steps shown and a bar of their colours; returns the images, a list per row."""
    columns = [f"step {step}" for step in STEPS_SHOWN]
    images = mosaic(axes, rows, columns, colours, low, high)
    colour_bar(images[-1][-1], label)
    return images


def draw_original(runs, index):
    """Forecasts of one test window by all nets of an architecture, beside the truth."""
    return draw_forecasts(runs, *read(runs, torch.tensor([index])), f"test window {index}")


TRANSFORMED = {
    "UM": "plus c = ({})",
    "Mag": "times {}",
    "Rot": "turned by {}\N{DEGREE SIGN}",
    "Scale": "upscaled by {}",
}


def draw_transformed(runs, name):
    """The paper's Figure 2: a window of the transformed test set, forecast by the plain net and by the symmetry's own.

    The first from the middle on that its group element changes; None if none of them is long enough: a flow that is
    scaled down runs faster.
    """
    for index in range(len(runs[0].windows) // 2, len(runs[0].windows)):
        g = runs[0].elements[name][[index]]
        frames, mask = read(runs, torch.tensor([index]))
        moved, valid = transform(runs[0], name, g, frames, mask)
        if moved.shape[1] >= frames.shape[1] and not torch.equal(moved, frames):
            amounts = ", ".join(f"{round(amount, 2):g}" for amount in g.flatten().tolist())
            moved = moved[:, -frames.shape[1] :]
            return draw_forecasts(runs, moved, valid, f"test window {index}, {TRANSFORMED[name].format(amounts)}")
    return None


def transformations(runs):
    """Symmetries that have both a net among ``runs`` and a transformed test set."""
    return [run.symmetry for run in runs if run.symmetry in run.elements]


def own_and_plain(runs, name):
    """The nets of a symmetry and the plain ones, without those that do not read frames of the sizes it makes."""
    shown = [run for run in runs if run.symmetry in ("None", name)]
    return [run for run in shown if SYMMETRIES[name].keeps_shape or run.model.symmetry.tile is None]


def animate_original(runs, index, path):
    """The roll-outs of all nets of an architecture beside the truth, as a GIF; returns its path."""
    frames, mask = read(runs, torch.tensor([index]))
    quantity, *_ = quantities(runs[0].windows.fields)
    flows = {"target": frames[:, -TEST_STEPS:], **forecasts(runs, frames, mask)}
    films = {name: quantity.values(numbers(flow, mask)) for name, flow in flows.items()}
    return animate(films, quantity, lambda i: f"step {i + 1:2d}", path, milliseconds=400)


def animate(films, quantity, title, path, milliseconds):
    """A GIF of films ``{name: (frames, height, width)}`` side by side; returns its path.

    In the colours of the first, but for the "input" of a transformation.

    ``title``: of the frame with a number.
    """
    figure = new_figure(7 / len(films) + 1)
    axes = figure.subplots()
    first, *_ = films.values()
    rows = {"": np.stack([film[0] for film in films.values()])}
    (images,) = mosaic(axes, rows, list(films), quantity.colours, *quantity.limits(first))
    if "input" in films:  # it may be much stronger, or weaker
        images[list(films).index("input")].set_clim(quantity.limits(films["input"]))
    colour_bar(images[0], quantity.label)

    def update(i):
        figure.suptitle(title(i), fontsize=STYLE["font.size"])
        for image, film in zip(images, films.values(), strict=True):
            image.set_data(film[i])

    return save_animation(figure, update, len(first), path, milliseconds=milliseconds)


# ---------------------------------------------------------------- spectra


def draw_spectra(runs):
    """Spectra of forecasts and truth: of the fluctuation's energy, which the ESE compares, and of the velocity.

    Of data without a velocity, of their scalars.
    """
    frames, mask = read(runs, evenly_spread(runs[0].windows, SPECTRUM_SAMPLES))
    fields = runs[0].windows.fields
    figure = new_figure(2.7)
    left, right = figure.subplots(1, 2)
    waves = np.arange(1, max(frames.shape[-2:]) // 2 + 1)
    looks = [{"color": "black", "label": "target"}, *curves(configs(runs))]
    flows = frames[:, -TEST_STEPS:], *forecasts(runs, frames, mask).values()
    for flow, look in zip(flows, looks, strict=True):
        flow = flow[:, :, energetic(fields)]
        fluctuation = 10 ** log_spectrum(flow, mask).mean(0).cpu().numpy()[: len(waves)]
        energy = velocity_spectrum(flow, mask).mean(0).cpu().numpy()[1 : len(waves) + 1]
        left.loglog(waves, fluctuation, **look)
        right.loglog(waves, energy, **look)
        if look["label"] == "target" and "vector" in fields:
            middle = slice(len(waves) // 8, len(waves) // 2 + 1)
            for exponent, name in ((-5 / 3, "$k^{-5/3}$"), (-3, "$k^{-3}$")):
                reference_slope(right, waves[middle], energy[middle], exponent, name)
    left.set(
        title="energy of the fluctuation in time, as in the ESE",
        ylabel="mean of |FFT|$^2$ over a ring / (variance)$^2$",
    )
    right.set(
        title=f"{'velocity' if 'vector' in fields else 'scalar'} under a Hann window",
        ylabel="sum over a ring, $E(k)$ / variance",
    )
    for axes in (left, right):
        axes.set_xlabel("wavenumber / waves per side of the tile")
        plain_log(axes.xaxis)
    legend_below(figure)
    return figure


# ---------------------------------------------------------------- error against the strength of a transformation


@dataclass(frozen=True)
class Sweep:
    """A path through a symmetry's group.

    Attributes:
        symbol, unit: of the numbers along the path.
        strengths: these numbers.
        shown: those at which forecasts are drawn.
        inverse: of group elements.
        scale: of the axis, or "polar" for angles in degrees.
    """

    symbol: str
    unit: str
    strengths: tuple
    shown: tuple
    inverse: Callable
    scale: str

    def at(self, strength):
        """The symbol's value, for titles."""
        return f"{self.symbol} = {strength:g}" + "\N{DEGREE SIGN}" * (self.scale == "polar")


SWEEPS = {
    "UM": Sweep("|c|", "standard deviations", tuple(np.arange(0, 4.5, 0.5)), (0, 1, 2, 4), torch.neg, "linear"),
    "Mag": Sweep("$\\lambda$", "", tuple(2.0 ** np.arange(-3, 4)), (0.125, 0.5, 2, 8), torch.reciprocal, "log"),
    "Rot": Sweep("$\\theta$", "", tuple(np.arange(0, 361, 22.5)), (0, 45, 90, 180), torch.neg, "polar"),
}


def elements(symmetry, strength, n):
    """``n`` group elements of one strength: velocities of this size, in drawn directions; else all the same."""
    g = symmetry.sample(n, torch.Generator().manual_seed(0))
    return strength * g / g.norm(dim=1, keepdim=True) if symmetry.name == "UM" else torch.full_like(g, strength)


@cache
@torch.inference_mode()
def sweep(run, name):
    """Forecast test windows that are transformed more and more strongly; ``name`` is a key of ``SWEEPS``.

    Returns:
        Arrays with an entry per strength: ``errors``, the RMSE over that of persistence on the same flows; of the first
        window ``inputs``, what is drawn of the last frame before the forecast, and ``returned``, of the last frame of
        the forecast after it is transformed back, ``(H, W)`` each.
    """
    frames, mask = read([run], evenly_spread(run.windows, SWEEP_SAMPLES))
    path, (quantity, *_) = SWEEPS[name], quantities(run.windows.fields)
    errors, inputs, returned = [], [], []
    for strength in path.strengths:
        g = elements(SYMMETRIES[name].on(run.windows.fields), strength, len(frames))
        moved, valid = transform(run, name, g, frames, mask)
        prediction, past, target = forecast(run, moved, valid), moved[:, :-TEST_STEPS], moved[:, -TEST_STEPS:]
        error_of_persistence = rmse(persistence(past, TEST_STEPS), target, valid)
        errors.append((rmse(prediction, target, valid) / error_of_persistence).item())
        inputs.append(quantity.values(numbers(past[:, -1:], valid)[0]))
        back = transform(run, name, path.inverse(g), prediction[:, -1:], valid)
        returned.append(quantity.values(numbers(*back)[0]))
    return np.array(errors), np.array(inputs), np.array(returned)


def target_of_sweep(runs):
    """What a sweep's forecasts of the first window, transformed back, should be: ``(H, W)``."""
    frames, mask = read(runs, torch.tensor([0]))
    quantity, *_ = quantities(runs[0].windows.fields)
    return quantity.values(numbers(frames[:, -1:], mask)[0])


def draw_sweep(runs, name):
    """Forecasts of ever more strongly transformed flows: the error against the strength, and maps."""
    results = [sweep(run, name) for run in runs]
    figure = new_figure(0.75 * len(runs) + 1.2)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.3))
    draw_sweep_errors(left, runs, SWEEPS[name], [errors for errors, _, _ in results])
    draw_sweep_maps(right, runs, SWEEPS[name], target_of_sweep(runs), [returned for _, _, returned in results])
    return figure


def draw_sweep_errors(figure, runs, path, errors):
    """The error of each run against the strength."""
    polar = path.scale == "polar"
    axes = figure.subplots(subplot_kw={"projection": "polar"} if polar else {"xscale": path.scale})
    along = np.radians(path.strengths) if polar else path.strengths
    for look, values in zip(curves(configs(runs)), errors, strict=True):
        axes.plot(along, values, **look)
    axes.plot(along, np.ones(len(along)), ":", color="black", linewidth=0.8)
    axes.set(xlabel=f"{path.symbol} / {path.unit}" if path.unit else path.symbol, ylim=(0, None))
    if polar:
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.set_rlabel_position(67.5)  # between the angles, which are every 45 degrees
    else:
        axes.set_xticks(path.shown, [f"{strength:g}" for strength in path.shown])
        axes.minorticks_off()
    figure.suptitle("RMSE / RMSE of persistence", fontsize=STYLE["font.size"])
    legend_below(figure)


def draw_sweep_maps(figure, runs, path, target, returned):
    """A row per run: the target and the forecasts transformed back, which should be the same at every strength."""
    quantity, *_ = quantities(runs[0].windows.fields)
    chosen = [path.strengths.index(strength) for strength in path.shown]
    rows = {
        label: np.stack([target, *maps[chosen]]) for label, maps in zip(labels(configs(runs)), returned, strict=True)
    }
    axes = figure.subplots()
    columns = ["target", *map(path.at, path.shown)]
    images = mosaic(axes, rows, columns, quantity.colours, *quantity.limits(target))
    figure.suptitle(f"forecasts of step {TEST_STEPS}, transformed back", fontsize=STYLE["font.size"])
    colour_bar(images[0][0], quantity.label)


def animate_sweep(runs, name, path):
    """Input and forecasts, transformed back, as the transformation grows, beside the target, as a GIF; returns it."""
    results = [sweep(run, name) for run in runs]
    target, inputs = target_of_sweep(runs), results[0][1]
    returned = {
        f"{label}, transformed back": film for label, (_, _, film) in zip(labels(configs(runs)), results, strict=True)
    }
    films = {"target": np.broadcast_to(target, inputs.shape), "input": inputs, **returned}
    quantity, *_ = quantities(runs[0].windows.fields)
    return animate(films, quantity, lambda i: SWEEPS[name].at(SWEEPS[name].strengths[i]), path, milliseconds=300)


# ---------------------------------------------------------------- errors


def draw_errors(runs):
    """RMSE per step on every test set, with persistence."""
    persistences = {test: scores for run in runs for test, scores in run.metrics["baselines"]["persistence"].items()}
    tests = list(dict.fromkeys(name for run in runs for name in run.metrics["scores"]))
    figure = new_figure(2.3)
    panels = figure.subplots(1, len(tests), sharey=True, squeeze=False)[0]
    for axes, test in zip(panels, tests, strict=True):
        for run, look in zip(runs, curves(configs(runs)), strict=True):
            if test in run.metrics["scores"]:
                axes.plot(*per_step(run.metrics["scores"][test]), **look)
        axes.plot(*per_step(persistences[test]), ":", color="black", label="persistence")
        axes.set(title=f"on {test}", xlabel="step", xticks=STEPS_SHOWN)
        plain_log(axes.yaxis)
    panels[0].set_ylabel("RMSE / standard deviation")
    legend_below(figure)
    return figure


def per_step(scores):
    return range(1, len(scores["rmse_per_step"]) + 1), scores["rmse_per_step"]


def draw_learning(runs):
    """RMSE in training and validation by epoch."""
    figure = new_figure(2.3)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("train", "valid"), strict=True):
        for run, look in zip(runs, curves(configs(runs)), strict=True):
            points = zip(*((row["epoch"], row[f"{name}_rmse"]) for row in run.history), strict=True)
            axes.plot(*points, marker=".", **look)
        axes.set(title={"train": "training", "valid": "validation"}[name], xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        plain_log(axes.yaxis)
    panels[0].set_ylabel("RMSE / standard deviation")
    legend_below(figure)
    return figure


# ---------------------------------------------------------------- commands


def draw_runs(args):
    """The command ``runs``."""
    device = choose_device(args.device)
    torch.backends.cudnn.allow_tf32 = False  # equivariance is exact or it is not
    # Small batches: threads that share a core with another process hold up the rest, to a tenth of the speed of one.
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    begun = [folder for folder in args.runs if (folder / "config.json").is_file()]
    unfinished = [folder for folder in begun if not (folder / "metrics.json").is_file()]
    if unfinished:
        print(f"left out, because not finished: {', '.join(map(str, unfinished))}", flush=True)
    runs = [open_run(folder, args.data_dir, device) for folder in args.runs if folder not in unfinished]
    if not runs:
        raise InputError("none of these runs is finished; the same run_model.py commands go on with them")
    runs.sort(key=lambda run: list(SYMMETRIES).index(run.symmetry))
    groups = {}
    for run in runs:
        groups.setdefault(run.config["dataset"], []).append(run)
    for dataset, group in groups.items():
        if any(run.config["data"] != group[0].config["data"] for run in group):
            raise InputError(f"these runs were trained on different {dataset} data; draw them apart")
    args.figures.mkdir(parents=True, exist_ok=True)
    jobs = [job for dataset, group in groups.items() for job in jobs_of(group, dataset) if job[0] in args.only]
    for _, name, draw, animate in progress(jobs, len(jobs), "figures"):
        figure = draw()
        if figure is None:
            tqdm.write(f"no {name}: no window of the test set that is changed and long enough")
        else:
            announce(*save(figure, args.figures / name, args.pdf))
        if args.animate and animate is not None:
            announce(animate(args.figures / f"{name}.gif"))


def jobs_of(runs, name):
    """All that can be drawn of the runs on one data set.

    Yields:
        ``(kind, name, draw, animate)``: one of ``KINDS``, the name of the file, a function that returns a figure, and
        one that writes an animation of it to a path, or None.
    """
    yield "errors", f"{name}_errors", partial(draw_errors, runs), None
    yield "learning", f"{name}_learning", partial(draw_learning, runs), None
    for architecture in ARCHITECTURES:
        alike = [run for run in runs if run.config["architecture"] == architecture]
        nets = one_per_symmetry(alike)
        if len(nets) < len(alike):
            others = ", ".join(str(run.folder) for run in alike if run not in nets)
            print(f"all but errors and learning curves show one net per symmetry, without {others}", flush=True)
        if nets:
            yield from jobs_of_architecture(nets, f"{name}_{architecture}")


def jobs_of_architecture(runs, name):
    """Those of the nets of one architecture, one per symmetry."""
    middle = len(runs[0].windows) // 2
    shown = runs, middle
    yield "original", f"{name}_original", partial(draw_original, *shown), partial(animate_original, *shown)
    yield "spectra", f"{name}_spectra", partial(draw_spectra, runs), None
    for symmetry in transformations(runs):
        shown = own_and_plain(runs, symmetry), symmetry
        yield "transformed", f"{name}_transformed_{symmetry}", partial(draw_transformed, *shown), None
        if symmetry in SWEEPS:
            yield "sweeps", f"{name}_{symmetry}", partial(draw_sweep, *shown), partial(animate_sweep, *shown)


def one_per_symmetry(runs):
    """The first run of each symmetry, in the order of the symmetries."""
    first = {run.symmetry: run for run in reversed(runs)}
    return [first[name] for name in SYMMETRIES if name in first]


def announce(*paths):
    for path in paths:
        tqdm.write(f"wrote {path}")  # not through the bar


def main(argv=None):
    args = parse_args(argv)
    with rc_context(STYLE):
        if args.command == "runs":
            draw_runs(args)
        else:
            announce(*convection.draw(args.raw, args.figures, args.pdf, args.animate))


if __name__ == "__main__":
    sys.exit(exit_code(main))
