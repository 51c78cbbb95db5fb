"""How figures look and how they are written: one place for all of them."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

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
LINES = {"ResNet": "--", "Unet": "-"}
LAND = "0.8"


def new_figure(height, width=WIDTH):
    """An empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def field_map(axes, values, high):
    """A map of values from 0 to ``high`` on cells, row 0 at the bottom; grey where they are not a number."""
    axes.set_facecolor(LAND)
    height, width = values.shape
    extent = (0, width, 0, height)
    axes.set(xticks=(0, width), yticks=(0, height))
    return axes.imshow(values, SEQUENTIAL, origin="lower", extent=extent, vmin=0, vmax=high, interpolation="nearest")


def plain_log(axis):
    """Make an axis logarithmic with plain numbers, 0.5 instead of 5 x 10^-1."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def note(axes, text):
    """A few words in the lower left corner of a map."""
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
    axes.text(0.04, 0.05, text, transform=axes.transAxes, fontsize=6, bbox=box)


def reference_slope(axes, x, y, exponent, label, above=1.5):
    """A dotted power law with its name, above the part ``x``, ``y`` of a curve, by this factor where it is nearest."""
    law = np.float64(x) ** exponent
    law = above * law * (y / law).max()
    axes.loglog(x, law, ":", color="0.3", linewidth=0.8)
    axes.annotate(label, (x[-1], law[-1]), (2, 0), textcoords="offset points", fontsize=7, color="0.3", va="center")


def save(figure, path):
    """Write ``path`` with the endings .png and .pdf, whole or not at all; returns the two paths."""
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
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
