"""Figures of what runs leave behind in JSON, over all seeds: they need neither weights nor data."""

import math
from itertools import chain, cycle

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.ticker import FixedLocator, MaxNLocator

from evaluation.price import operations
from evaluation.runs import at, chosen, group_runs, load_runs, net_of, scale_and_plain, unchanged
from evaluation.style import COLOURS, STYLE, curves, labels, legend_below, new_figure, plain_log, save
from utils import roll_out

# Colours by the way that a net may leave its symmetry (of Okabe and Ito, too); the second paper's own are "published".
LEAVES = {"plain": "0.5", "not": "#009E73", "gains": "#0072B2", "free": "#D55E00", "published": "#CC79A7"}


def draw(folders, path):
    """Draw every figure that the runs in ``folders`` are enough for into the folder ``path``; return the files."""
    every, files = chosen(group_runs(load_runs(*folders))), []
    groups = [group for group in every if not group["augment"]]
    kinds = {"factors": draw_factors, "samples": draw_samples, "deviations": draw_deviations}
    kinds |= {"worth": draw_worth, "learning": draw_learning}
    path.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        for title in dict.fromkeys(group.title for group in groups):
            for kind, draws in kinds.items():
                with_augmented = kind in ("worth", "learning")
                of_data = [group for group in (every if with_augmented else groups) if group.title == title]
                figure = draws(of_data)
                if figure is not None:
                    files += save(figure, path / f"{title.split()[0]}_{kind}", pdf=True)
        figure = draw_breaking(groups)
        if figure is not None:
            files += save(figure, path / "breaking", pdf=True)
    return files


def draw_factors(groups):
    """After the paper's Figure 3 left: skill and ESE against the upscaling factor, of scale nets and of plain nets.

    Skill is 1 - RMSE / RMSE of the best forecast without a net: upscaled flows are slower, so that any forecast's RMSE
    falls with the factor.
    Where several plain nets were trained, that of the scale net's sweep (width, epochs, samples) is drawn; without a
    scale net, all nets are. None where no net was tested by factor.
    """
    tested = scale_and_plain(groups) or [group for group in groups if group.values("scores", "Scale", "by_factor")]
    if not tested:
        return None
    figure = new_figure(2.4)
    left, right = figure.subplots(1, 2)
    for group, look in zip(tested, looks(tested), strict=True):
        factors = sorted(at(group.runs[0], ("scores", "Scale", "by_factor")), key=float)
        numbers = [float(factor) for factor in factors]
        draw_band(left, look, numbers, [group.skills("Scale", "by_factor", factor, "rmse") for factor in factors])
        errors = [group.values("scores", "Scale", "by_factor", factor, "ese") for factor in factors]
        draw_band(right, look, numbers, errors)
    left.axhline(0, linestyle=":", color="black", linewidth=0.8, label="best forecast without a net")
    left.set_yscale("symlog", linthresh=1, linscale=2)  # nets that are much worse than that fit in, too
    left.yaxis.set_major_locator(FixedLocator([-100, -30, -10, -3, -1, -0.5, 0, 0.5, 1]))
    left.yaxis.set_major_formatter("{x:g}")
    left.set(xlabel="upscaling factor", ylabel="1 - RMSE / RMSE without a net")
    right.set(xlabel="upscaling factor", ylabel="ESE")
    legend_below(figure)
    return figure


def draw_samples(groups):
    """Test RMSE against the number of training windows; None where no net was trained on several numbers of them."""
    lines = {}
    for group in groups:
        if group.values("train_windows"):
            lines.setdefault(but_fraction(group), []).append(group)
    lines = [sorted(line, key=windows) for line in lines.values() if len(line) > 1]
    if not lines:
        return None
    figure = new_figure(2.4, width=4.5)
    axes = figure.subplots()
    for line, look in zip(lines, looks([line[-1] for line in lines]), strict=True):
        draw_band(axes, look, list(map(windows, line)), [group.values("scores", "test", "rmse") for group in line])
    plain_log(axes.xaxis)
    axes.set(xlabel="training windows", ylabel="RMSE / standard deviation")
    legend_below(figure)
    return figure


def draw_deviations(groups):
    """How far each layer of the relaxed nets has left its symmetry, from the first to the last; None without any.

    By its gains or its kernel: biases of their own have another measure.
    """
    relaxed = [group for group in groups if any(group.values("deviations"))]
    if not relaxed:
        return None
    figure = new_figure(2.4, width=4.5)
    axes = figure.subplots()
    for group, look in zip(relaxed, looks(relaxed), strict=True):
        of_layers = [
            [size for name, size in found.items() if not name.endswith("_bias")] for found in group.values("deviations")
        ]
        values = list(zip(*of_layers, strict=True))
        draw_band(axes, look, range(1, len(values) + 1), values)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="layer", ylabel="deviation from the symmetry")
    axes.set_ylim(bottom=0)
    legend_below(figure)
    return figure


def rivals(groups):
    """``{symmetry: groups}``: nets of a symmetry and what one could have instead, the plain net first.

    Only symmetries on whose transformed flows they were tested, and where there is another rival than the plain net.
    """
    found = {}
    for name in ("UM", "Mag", "Rot"):
        rows = [
            group
            for group in groups
            if group["symmetry"] in ("None", name)
            and group["relaxed"] is None
            and {*group["frame"], *group["augment"]} <= {name}
            and group.values("scores", name)
        ]
        if not all(map(unchanged, rows)) and any(group["symmetry"] == name for group in rows):
            found[name] = sorted(
                rows,
                key=lambda group: (group["symmetry"] != "None", group["augment"], group["frame"], group["variant"]),
            )
    return found


def draw_worth(groups):
    """What is a layer worth? Errors of its net and of its rivals, a panel for each symmetry.

    RMSE over that of persistence, on the test set and on that transformed by the symmetry, a dot per seed; the line is
    the first plain net's mean on the test set. None where there are no rivals.
    """
    panels = rivals(groups)
    if not panels:
        return None
    names = {name: labels([{**group.runs[0], "seed": None} for group in rows]) for name, rows in panels.items()}
    letters = sum(max(map(len, words)) for words in names.values())
    figure = new_figure(0.5 + 0.19 * max(map(len, names.values())), width=2 * len(panels) + 0.058 * letters)
    for axes, (name, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        plain = next((group for group in rows if group["symmetry"] == "None" and unchanged(group)), None)
        if plain:
            axes.axvline(np.mean(relative_errors(plain, "test")), color=COLOURS["None"], linewidth=0.6)
        for height, group in enumerate(rows):
            colour = COLOURS[group["symmetry"]]
            for test_set, face, size in (("test", colour, 12), (name, "none", 30)):
                errors = relative_errors(group, test_set)
                axes.scatter(errors, [height] * len(errors), s=size, facecolors=face, edgecolors=colour, linewidths=0.8)
        axes.set_yticks(range(len(rows)), names[name])
        axes.invert_yaxis()
        axes.set(title=f"filled: test, open: {name}", xlabel="RMSE / that of persistence")
    return figure


def draw_learning(groups):
    """Best validation so far against optimiser steps and against operations, which unlike times no machine changes.

    Of a symmetric net and its rivals, a row for each symmetry: the mean over the seeds; a run that has ended keeps its
    best. None where no rivals are of several seeds.
    """
    rows = {name: [group for group in nets if len(group.runs) > 1] for name, nets in rivals(groups).items()}
    rows = {name: nets for name, nets in rows.items() if len(nets) > 1}
    if not rows:
        return None
    whole, heights = new_figure(1), []
    grid = whole.add_gridspec(len(rows))
    for part, nets in zip(grid, rows.values(), strict=True):
        figure = whole.add_subfigure(part)
        left, right = figure.subplots(1, 2, sharey=True)
        unit = operations_per_step(nets[0])
        for group, look in zip(nets, looks(nets), strict=True):
            best = [np.minimum.accumulate(run["validations"]) for run in group.runs]
            epochs = np.arange(1, max(map(len, best)) + 1)
            mean = np.mean([np.pad(values, (0, len(epochs) - len(values)), "edge") for values in best], 0)
            steps = epochs * math.ceil(group["train_windows"] / group["train_fraction"] / group["batch_size"])
            left.plot(steps, mean, **look)
            right.plot(steps * operations_per_step(group) / unit, mean, **look)
        left.set(xlabel="steps", ylabel="validation RMSE")
        right.set(xlabel=f"operations / those of a step of {nets[0].label}")
        for axes in (left, right):
            plain_log(axes.xaxis, (1, 2, 5))
        heights.append(2.4 + legend_below(figure))
    grid.set_height_ratios(heights)
    whole.set_figheight(sum(heights))
    return whole


def operations_per_step(group):
    """In convolutions and matrix products, of a roll-out of a batch and its gradient."""
    run = group.runs[0]
    with torch.device("meta"):
        model = net_of(run, run.get("fields", ["vector"]))
        sizes = run["batch_size"], run["input_length"], model.symmetry.components
        frames = torch.zeros(*sizes, *run.get("tile", (32, 32)))
    return operations(lambda: roll_out(model, frames, run["output_length"]).sum().backward())


def relative_errors(group, test_set):
    """RMSE of each run in units of persistence, which grows with the flow where a symmetry makes it stronger."""
    pairs = [
        [at(run, (*of, test_set, "rmse")) for of in (("scores",), ("baselines", "persistence"))] for run in group.runs
    ]
    return [error / unit for error, unit in pairs if error is not None and unit is not None]


def draw_breaking(groups):
    """After the second paper's Figure 4: RMSE and the net's equivariance error against that of the data themselves.

    RMSE are in units of persistence, because the flows of some data sets are faster than those of others. Colours say
    how a net may leave its symmetry. None where fewer than two data sets with a known error were trained on.
    """
    lines = {}
    for group in groups:
        if absolute_data_error(group) is not None:
            lines.setdefault(group.label, []).append(group)
    lines = [sorted(line, key=absolute_data_error) for line in lines.values() if len(line) > 1]
    if not lines:
        return None
    figure = new_figure(2.4)
    test_sets = [name for name in ("test", "domain") if all(group.values("scores", name) for group in chain(*lines))]
    *panels, right = figure.subplots(1, len(test_sets) + 1)
    for line, look, marker in zip(lines, looks([line[-1] for line in lines]), cycle("os^vDPX<>*")):
        errors = list(map(absolute_data_error, line))
        look = {**look, "color": LEAVES[way_out(line[0])], "marker": marker, "markersize": 3}
        for axes, name in zip(panels, test_sets, strict=True):
            draw_band(axes, look, errors, [relative_errors(group, name) for group in line])
        draw_band(right, look, errors, [group.values("equivariance_error", "Rot", "relative") for group in line])
    for axes, name in zip(panels, test_sets, strict=True):
        axes.set(title=name, ylabel="RMSE / that of persistence")
    right.set(title="of the nets", ylabel="relative equivariance error")
    for axes in figure.axes:
        axes.set_xlabel("equivariance error of the data")
    legend_below(figure)
    return figure


def way_out(group):
    """How a net may leave its symmetry, a key of ``LEAVES``."""
    if group["symmetry"] == "None":
        return "plain"
    return "published" if group["variant"] else "not" if group["relaxed"] is None else group["deviation"]


def absolute_data_error(group):
    return group.mean("data_error", "Rot", "absolute")


def windows(group):
    return group.runs[0]["train_windows"]


def but_fraction(group):
    """What the nets of one curve share: all that a sweep shares except the fraction of the training windows."""
    names = ("architecture", "symmetry", "width", "num_epoch", "amp", "variant", "padding")
    names += ("relaxed", "deviation", "weight_decay", "penalty", *group.options)
    return group.data, group.runs[0].get("trained_on"), tuple(group["frame"]), *(group[name] for name in names)


def looks(groups):
    """How to draw the groups' curves, see :func:`~evaluation.style.curves`; a group is of many seeds."""
    return curves([{**group.runs[0], "seed": None} for group in groups])


def draw_band(axes, look, x, values):
    """The mean over the seeds, and min to max as a band."""
    axes.plot(x, list(map(np.mean, values)), **{"marker": "."} | look)
    band = {"color": look["color"], "alpha": 0.2 * look["alpha"], "linewidth": 0}
    axes.fill_between(x, list(map(min, values)), list(map(max, values)), **band)
