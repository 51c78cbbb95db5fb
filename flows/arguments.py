"""What the words on a command line may be. No torch here."""

import argparse
import contextlib
import re

from models.fields import SIZES

DATASETS = ("RBC", "Ocean")  # of the paper; any other name is that of a folder
SIMULATIONS = ("tiny", "small", "medium", "paper")  # of convection
CHANGES = {  # what may be changed of a preset
    "ra": (float, "Rayleigh number"),
    "pr": (float, "Prandtl number"),
    "nz": (int, "rows of the grid"),
    "nx": (int, "columns of the grid"),
    "frames": (int, "frames to store"),
    "interval": (float, "free-fall times between frames"),
}
TEST_UNITS = ("free_fall", "cell")  # of convection at another Rayleigh number
PLUMES = {  # sets of them: how many numbers say how much the symmetry is broken
    "translation": 1,
    "rotation": 4,
    "scale": 1,
    "magnitude": 1,
    "levels": 0,
}
HISTORY, LEVEL_HISTORY = 12, 3  # of plumes: frames before the first forecast, two more than the release's nets read


class Parser(argparse.ArgumentParser):
    """Shows its description as it is written; says what is wrong in one line, without the usage, with exit code 2."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message):
        self.exit(2, f"error: {message}; --help says more\n")


def whole(least):
    """An argparse type: whole numbers from ``least`` on."""

    def parse(word):
        if not re.fullmatch(r"-?\d+", word) or int(word) < least:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least {least}")
        return int(word)

    return parse


def dataset_name(word):
    """An argparse type: the name of a folder."""
    if re.fullmatch(r"\w[\w.-]*", word):
        return word
    raise argparse.ArgumentTypeError(f"{word!r} is not a name of letters, digits, '_', '-' and '.'")


def folder_name(word):
    """An argparse type: the folder in which run_model.py looks for that data set; of the paper's two, small letters."""
    name = dataset_name(word)
    return name.lower() if name.lower() in map(str.lower, DATASETS) else name


def fraction(word):
    """An argparse type: 0 <= number < 1."""
    with contextlib.suppress(ValueError):
        if 0 <= float(word) < 1:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not in 0 <= fraction < 1")


def positive(word):
    """An argparse type: a number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(word) < float("inf"):
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0")


def degrees(word):
    """An argparse type: an angle in degrees."""
    with contextlib.suppress(ValueError):
        if abs(float(word)) <= 360:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not an angle in degrees, -360 to 360")


def degrees_east(west, east):
    """Degrees from west to east, a whole turn where they are the same meridian."""
    return (east - west) % 360 or 360


def variables(word):
    """An argparse type: the names of a field's components and its kind, as in ``u,v:vector``."""
    names, _, kind = word.rpartition(":")
    if kind in SIZES and re.fullmatch(r"[^,]+" + (SIZES[kind] - 1) * r",[^,]+", names):
        return tuple(names.split(",")), kind
    raise argparse.ArgumentTypeError(f"{word!r} is not like u,v:vector or t:scalar")
