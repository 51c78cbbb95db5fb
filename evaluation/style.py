"""How figures look and how they are written: one place for all of them."""

from collections import Counter

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from models import SYMMETRIES
from utils import replacing

WIDTH = 7.0  # inches, of a page
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titlepad": 3,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,  # text stays text
}
# Colours that the colour-blind can tell apart; those of lines are of Okabe and Ito (2008).
DIVERGING, SEQUENTIAL, TURNING = "RdBu_r", "cividis", "PuOr_r"
COLOURS = {"None": "0.5", "UM": "#0072B2", "Mag": "#D55E00", "Rot": "#009E73", "Scale": "#CC79A7"}
DASHES = ["-", "--", ":", "-.", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3, 1, 3))]
DASHES += [(0, (2, 2)), (0, (8, 2, 2, 2)), (0, (3, 1, 1, 1))]
LINES = {"ResNet": "--", "Unet": "-", "ConvNet": "-.", "FNO": ":"}
LAND = "0.8"
# Settings that a label names where runs that are drawn together differ in them, and its words for them.
SETTINGS = {
    "kernel_size": "kernel",
    "width": "width",
    "num_epoch": "epochs",
    "frame": "frame",
    "variant": "variant",
    "padding": "padding",
    "relaxed": "relaxed",
    "deviation": "deviation",
    "penalty": "penalty",
    "augment": "augmented",
    "train_fraction": "fraction",
    "seed": "seed",
}


def labels(configs):
    """What to call each of the runs that are drawn together, by their ``config.json``: the net and how it differs.

    The symmetry; the architecture and the ``SETTINGS`` that are not the same for all; the options of its symmetry that
    are not the same for all nets of its kind. What a net does not have goes unsaid, and so do all windows.
    """
    names = []
    for config in configs:
        words = ["plain" if config["symmetry"] == "None" else config["symmetry"]]
        if any(other["architecture"] != config["architecture"] for other in configs):
            words[0] += f" {config['architecture']}"
        alike = [other for other in configs if kind(other) == kind(config)]
        options = {name: name for name in SYMMETRIES[config["symmetry"]].options()}
        for settings, others in ((SETTINGS, configs), (options, alike)):
            for name, word in settings.items():
                value = "+".join(config[name]) if isinstance(config[name], list) else config[name]
                usual = "", None, 1.0 if name == "train_fraction" else ""
                said = name != "deviation" or config["relaxed"] is not None
                if said and value not in usual and any(other[name] != config[name] for other in others):
                    words.append(f"{word} {value}")
        names.append(", ".join(words))
    return names


def kind(config):
    return config["architecture"], config["symmetry"]


def curves(configs):
    """How to draw the curves of runs, as keywords of ``plot``: named by :func:`labels` and coloured by symmetry.

    Where there are several architectures they are dashed by these, and of several runs with both the same the later is
    the paler; else these are dashed.
    """
    seen, options = Counter(), []
    several = len({config["architecture"] for config in configs}) > 1
    for config, label in zip(configs, labels(configs), strict=True):
        before = seen[kind(config)]
        look = {"linestyle": LINES[config["architecture"]], "alpha": 0.75**before}
        if not several:
            look = {"linestyle": DASHES[before % len(DASHES)], "alpha": 1}
        options.append({"label": label, "color": COLOURS[config["symmetry"]], **look})
        seen[kind(config)] += 1
    return options


def legend_below(figure):
    """One legend for all panels under them, each label once, in as many columns as there is room for.

    A figure grows by the legend's height, a part of a figure does not.

    Returns:
        That height, in inches.
    """
    entries = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    letters = 17 * figure.bbox.width / figure.dpi  # as many fit into the figure's width
    columns = max(1, int(letters / (max(map(len, entries)) + 9)))  # a line is as long as 9 of them
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns)
    height = 0.17 * -(-len(entries) // columns) + 0.1
    if isinstance(figure, Figure):
        figure.set_figheight(figure.get_figheight() + height)
    return height


def new_figure(height, width=WIDTH):
    """An empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def mosaic(axes, rows, columns, cmap, low, high):
    """Maps in rows and columns, all in one panel: the layout of a panel for each would take a minute.

    Args:
        rows: ``{name: maps}``, the first on top. Maps are an array ``(columns, height, width)``, row 0 at the bottom,
            grey where they are not a number; None leaves a row empty.
        columns: their titles.
        cmap, low, high: colours of all of them.

    Returns:
        The images, a list per row.
    """
    height, width = next(maps.shape[1:] for maps in rows.values() if maps is not None)
    gap = 0.06 * width
    down, across = height + gap, width + gap
    options = {"origin": "lower", "vmin": low, "vmax": high, "interpolation": "nearest"}
    options["cmap"] = colormaps[cmap].with_extremes(bad=LAND)
    images = [[] for _ in rows]
    for i, maps in enumerate(rows.values()):
        for j, values in enumerate(maps if maps is not None else ()):
            x, y = across * j, -down * (i + 1)
            images[i].append(axes.imshow(values, extent=(x, x + width, y, y + height), **options))
    axes.set(xlim=(0, across * len(columns) - gap), ylim=(-down * len(rows), -gap))
    middles = width / 2 + across * np.arange(len(columns)), -gap - height / 2 - down * np.arange(len(rows))
    axes.set_xticks(middles[0], [title.replace(", ", "\n") for title in columns])
    axes.set_yticks(middles[1], [name.replace(", ", "\n") for name in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return images


def plain_log(axis, digits=(1, 2, 3, 5)):
    """Make an axis logarithmic with plain numbers of these digits, 0.5 instead of 5 x 10^-1."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def colour_bar(image, label):
    """A bar below a mosaic for the colours of its images, which cut off what is beyond its ends (0 is none)."""
    extend = "both" if image.norm.vmin else "max"
    image.figure.colorbar(image, ax=image.axes, location="bottom", label=label, extend=extend, aspect=40)


def note(image, text):
    """A few words in the lower left corner of a map."""
    left, _, bottom, _ = image.get_extent()
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
    image.axes.annotate(text, (left, bottom), (3, 3), textcoords="offset points", fontsize=6, bbox=box)


def reference_slope(axes, x, y, exponent, label, above=1.5):
    """A dotted power law with its name, above the part ``x``, ``y`` of a curve, by this factor where it is nearest."""
    law = np.float64(x) ** exponent
    law = above * law * (y / law).max()
    axes.loglog(x, law, ":", color="0.3", linewidth=0.8)
    axes.annotate(label, (x[-1], law[-1]), (2, 0), textcoords="offset points", fontsize=7, color="0.3", va="center")


def save(figure, path, pdf):
    """Write ``path`` with the ending .png and, if asked for, .pdf, each whole or not at all; returns the paths."""
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", *["pdf"] * pdf)]
    for target in paths:
        with replacing(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:])
    return paths


def save_animation(figure, update, count, path, dpi=110, milliseconds=80):
    """Write an endless GIF of the figure after ``update(0)``, ..., ``update(count - 1)``; returns its path.

    All frames share one palette: a palette of its own for each would flicker.
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    frames = []
    for i in range(count):
        update(i)
        canvas.draw()
        figure.set_layout_engine("none")  # what the first frame has laid out stays where it is
        frames.append(np.array(canvas.buffer_rgba())[..., :3])
    palette = Image.fromarray(np.concatenate(frames[:: -(-count // 8)])).quantize(256)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as temporary:
        images[0].save(temporary, format="GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return path
