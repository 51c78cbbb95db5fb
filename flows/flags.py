"""The commands and flags of data_prep.py. No torch: it takes seconds to import."""

from pathlib import Path
from typing import NamedTuple

from flows.arguments import (
    CHANGES,
    HISTORY,
    LEVEL_HISTORY,
    PLUMES,
    SIMULATIONS,
    TEST_UNITS,
    Parser,
    degrees,
    degrees_east,
    folder_name,
    fraction,
    positive,
    variables,
    whole,
)
from flows.download import JET_FILES, OCEAN_TEST, OCEAN_TRAIN, RBC_FILE
from models.fields import SIZES


class Command(NamedTuple):
    """A command.

    Attributes:
        help: what it prepares.
        origins: options that say where the data come from, of which one is needed if there are any.
        options: others, beside ``COMMON``, of which they may be another version.
        defaults: of these and the common options.
        cut: whether frames are cut into tiles, and a record into splits, so that the options ``CUT`` are there.
    """

    help: str
    origins: dict
    options: dict
    defaults: dict = {}
    cut: bool = True


DEVICE = {"default": "", "help": "where to simulate: cpu, cuda or cuda:N (default: cuda if there is one)"}
FILES = {"nargs": "+", "metavar": "FILE"}
ARRAY = {"metavar": "FILE", "help": ".pt tensor or .npy array (T, C, H, W)"}
DOWNLOAD = {"action": "store_true", "help": "print how to get the files, and stop"}
NAME = {"type": folder_name, "help": "of the data set, for run_model.py --dataset (default: that of the command)"}
STRIDE = {"type": whole(1), "default": 1, "help": "keep every n-th point (default %(default)s)"}
KINDS = {
    "nargs": "+",
    "choices": SIZES,
    "default": ["vector"],
    "help": "what the C components are, in their order: a vector has two, u and v (default: vector)",
}
MASKED = {
    "type": fraction,
    "help": "drop tiles of which more is masked (default: 0 of tiles, any of the whole grid)",
}
BOX = {"nargs": 4, "type": degrees, "metavar": ("WEST", "EAST", "SOUTH", "NORTH")}
BOX_HELP = "to read in {}, in degrees; it may lie across the edges of a grid round the globe (default: all)"
CUT = {  # options of tiles and splits
    "tile": {
        "type": whole(1),
        "help": "side of a tile (default: the whole grid; of rbc, array and ocean 64, or a simulation's rows)",
    },
    "protocol": {
        "choices": ("release", "disjoint"),
        "help": "release: the splits' windows overlap, so that they share frames; disjoint: no frame is in two splits "
        "(default: release of its own files, rbc_data.pt and the four boxes of the ocean, else disjoint)",
    },
    "gap": {
        "type": whole(0),
        "help": "window starts left out between splits (default: 0 by --protocol release, else history + horizon)",
    },
    "splits": {
        "nargs": 3,
        "type": whole(1),
        "metavar": ("TRAIN", "VALID", "TEST"),
        "help": "numbers of windows, or proportions where there are fewer (default: the release's; of HDF5 files all "
        "windows of their splits or, if they bring none, of trajectories in the proportions 8 : 1 : 1)",
    },
}
COMMON = {  # options of every command
    "data_dir": {"default": "data", "help": "where to put the result (default %(default)s)"},
    "history": {"type": whole(1), "default": 30, "help": "frames to read (default %(default)s)"},
    "horizon": {"type": whole(1), "default": 20, "help": "frames to predict (default %(default)s)"},
    "angle_step": {
        "type": int,
        "choices": (90, 45, 30, 15),
        "default": 90,
        "help": "of the test set Rot: multiples of this angle in degrees (default %(default)s; exact on the grid)",
    },
    "scale_factors": {
        "choices": ("grid", "release"),
        "default": "grid",
        "help": "of the test set Scale: 1, 1.25, 1.5, 2 or 3, or from 0.5 to 5 by quarters (default %(default)s)",
    },
    "seed": {"type": whole(0), "default": 0, "help": "of transforms and simulation (default %(default)s)"},
}
CONVECTION = Command(
    "Rayleigh-Benard convection",
    {
        "raw": ARRAY,
        "simulate": {"choices": SIMULATIONS, "help": "make the flow here"},
        "print_download": DOWNLOAD,
    },
    {
        "stride": {"type": whole(1), "help": "keep every n-th point (default: 4 of a file, 1 of a simulation)"},
        "fields": KINDS,
        **{
            change: {"type": kind, "help": f"{text} (with --simulate; default: the preset's)"}
            for change, (kind, text) in CHANGES.items()
        },
        "test_ra": {
            "type": positive,
            "help": "Rayleigh number of another simulation, from another start, for the split domain (with --simulate)",
        },
        "test_units": {
            "choices": TEST_UNITS,
            "default": TEST_UNITS[0],
            "help": "of that flow. free_fall: its own; cell: those of the flow trained on, the same cell being heated "
            "more or less (default %(default)s)",
        },
        "name": NAME,
        "device": DEVICE,
    },
    {"splits": [6000, 2000, 2000]},
)
OCEAN = Command(
    "surface currents from NetCDF files of currents or sea levels",
    {"train": {**FILES, "help": "NetCDF files of train, valid and test, any order"}, "print_download": DOWNLOAD},
    {
        "test": {**FILES, "help": "NetCDF files of another ocean (split domain)"},
        "train_box": {**BOX, "help": f"the part {BOX_HELP.format('--train')}"},
        "test_box": {**BOX, "help": f"the part {BOX_HELP.format('--test or, without it, --train, for split domain')}"},
        "max_land": {"type": fraction, "default": 0.0, "help": "drop tiles with more land (default %(default)s)"},
        "keep_zeros": {
            "action": "store_true",
            "help": "points that are 0 in all frames are valid (default: land)",
        },
        "u_var": {"help": "variable of the eastward current (default: found by its attributes)"},
        "v_var": {"help": "variable of the northward current"},
        "name": NAME,
    },
    {"splits": [8000, 2000, 2000]},
)


def hdf5_command(text):
    names = {"nargs": "+", "metavar": "NAME", "help": "names of fields to read (default: all that vary in time)"}
    origins = {"raw": {**FILES, "help": "HDF5 files, or folders of them"}, "print_download": DOWNLOAD}
    return Command(text, origins, {"name": NAME, "fields": names, "stride": STRIDE})


COMMANDS = {
    "rbc": CONVECTION,
    "array": Command(
        "any regular array",
        {"raw": ARRAY},
        {"name": {**NAME, "required": True}, "fields": KINDS, "stride": STRIDE},
        CONVECTION.defaults,
    ),
    "ocean": OCEAN,
    "netcdf": Command(
        "any fields of NetCDF files",
        {"raw": {**FILES, "help": "NetCDF files, each with some of the variables and times"}},
        {
            "name": {**NAME, "required": True},
            "fields": {
                "nargs": "+",
                "type": variables,
                "required": True,
                "metavar": "NAMES:KIND",
                "help": "variables that make up each field, as in u,v:vector t:scalar",
            },
            "max_land": MASKED,
        },
        CONVECTION.defaults,
    ),
    "jet": Command(
        "velocities from particle images",
        {
            "raw": {
                "metavar": "FOLDER",
                "help": "with a text file a frame (OpenPIV, PIVlab, MODULO), or the second paper's 24 files of a jet",
            },
            "print_download": DOWNLOAD,
        },
        {
            "name": NAME,
            "max_land": MASKED,
            "history": {"type": whole(1), "help": f"frames to read (default 30, of the second paper's jet {HISTORY})"},
        },
        CONVECTION.defaults,
    ),
    "smoke": Command(
        "smoke plumes of the second paper, simulated here",
        {"set": {"choices": PLUMES, "help": "which symmetry is broken; levels: that of rotation, in ten levels"}},
        {
            "size": {
                "choices": ("small", "paper"),
                "default": "small",
                "help": "small: fewer plumes at half the resolution (default %(default)s)",
            },
            "level": {"type": int, "choices": range(10), "help": "of the set levels: 0, not broken, to 9"},
            "dial": {
                "type": float,
                "nargs": "+",
                "default": [],
                "help": "of the other sets, how much the symmetry is broken: translation, the buoyancy on the right "
                "over that on the left (default 2); rotation, factors on the buoyancies from below, right, above and "
                "left (1 1 1.1 1); scale, a factor on all resolutions, the larger the less (1); magnitude, the share "
                "of the buoyancy that does not scale (none)",
            },
            "name": {**NAME, "help": "of the data set (default: smoke_ and the set, and the level or dial)"},
            "fields": {**KINDS, "default": ["vector", "scalar"], "help": "the velocity, vector, and the smoke, scalar"},
            "history": {"type": whole(1), "help": f"frames to read (default {HISTORY}, of levels {LEVEL_HISTORY})"},
            "device": DEVICE,
        },
        {"name": None, "tile": None, "gap": 0, "splits": None},
        cut=False,
    ),
    "heat": Command(
        "heat in a periodic box, simulated here",
        {},
        {
            "diffusivity": {
                "type": positive,
                "default": 0.1,
                "help": "in squared distances of points per frame (default %(default)s)",
            },
            "points": {"type": whole(16), "default": 32, "help": "to a side (default %(default)s)"},
            "history": {**COMMON["history"], "default": 10},  # later little is left that changes
            "name": NAME,
        },
        {"tile": None, "gap": 0, "splits": None},
        cut=False,
    ),
    "well": hdf5_command("trajectories of The Well"),
    "pdearena": hdf5_command("smoke of PDEArena"),
    "pdebench": hdf5_command("flows of PDEBench"),
}


def parse_args(argv=None, usage=None):
    """The command and its options; wrong ones end the program with one line and code 2.

    Args:
        usage: what ``--help`` says before it lists the commands.
    """
    parser = Parser(description=usage)
    subparsers, parsers = parser.add_subparsers(dest="command", title="commands"), {}
    for word, command in COMMANDS.items():
        parsers[word] = subparsers.add_parser(word, help=command.help)
        origins = command.origins and parsers[word].add_mutually_exclusive_group(required=True)
        common = (CUT if command.cut else {}) | COMMON
        others = command.options | common | command.options  # its own come first, and prevail
        for group, options in ((origins, command.origins), (parsers[word], others)):
            for option, settings in options.items():
                group.add_argument(f"--{option}", **settings)
        parsers[word].set_defaults(**{"name": word, "print_download": False, **command.defaults})
    args = parser.parse_args(argv)
    if args.command and not args.print_download:
        resolve(args, parsers[args.command].error)
    return args


def resolve(args, error):
    """Fill in the defaults that depend on where the data come from, but for the tile of a simulation; refuse what does
    not go together."""
    here = getattr(args, "simulate", None)
    if args.command == "jet":
        args.history = args.history or (HISTORY if is_the_releases(args) else COMMON["history"]["default"])
    if args.gap is None:
        protocol = args.protocol or ("release" if is_the_releases(args) else "disjoint")
        args.gap = 0 if protocol == "release" else args.history + args.horizon
    if args.command == "rbc":
        given = [change for change in CHANGES if getattr(args, change) is not None]
        if given and not here:
            error(f"--{given[0]} goes with --simulate")
        if args.test_ra is not None and not here:
            error("--test_ra goes with --simulate")
        args.stride = args.stride or (1 if here else 4)
    if args.command == "smoke":
        if (args.set == "levels") != (args.level is not None):
            error("--level goes with --set levels, and the other way round")
        wanted = PLUMES[args.set]
        if len(args.dial) not in (0, wanted):
            error(f"--dial takes {wanted} number{'s' * (wanted != 1)} with --set {args.set}, got {len(args.dial)}")
        dial = args.dial if args.level is None else [args.level]
        args.name = args.name or "_".join(["smoke", args.set, *(f"{number:g}" for number in dial)])
        args.history = args.history or (HISTORY if args.level is None else LEVEL_HISTORY)
    if (here or args.command == "smoke") and len(set(args.fields)) < len(args.fields):
        error("--fields of a simulation are vector, its velocity, and scalar, what it carries, each at most once")
    if args.command in ("rbc", "array", "ocean") and args.tile is None and not here:
        args.tile = 64
    if args.command == "ocean":
        if bool(args.u_var) != bool(args.v_var):
            error("--u_var and --v_var are needed together")
        resolve_boxes(args, error)


def is_the_releases(args):
    """Whether the raw files have the names of the release's."""
    if args.command in ("rbc", "array"):
        return args.raw is not None and Path(args.raw).name == RBC_FILE
    if args.command == "jet":
        return any(Path(args.raw, file).exists() for file in JET_FILES)
    if args.command != "ocean":
        return False
    return {Path(file).name for file in (args.train or []) + (args.test or [])} <= {*OCEAN_TRAIN, *OCEAN_TEST}


def resolve_boxes(args, error):
    """Refuse boxes that are none, and a test elsewhere that is not; a test box alone is of the files to train on."""
    for name in ("train_box", "test_box"):
        box = getattr(args, name)
        if box and (box[0] == box[1] or box[2] >= box[3]):
            error(f"--{name} is WEST EAST SOUTH NORTH, got {' '.join(f'{degree:g}' for degree in box)}")
    both = {Path(file).resolve() for file in args.train or ()} & {Path(file).resolve() for file in args.test or ()}
    if both and not (args.train_box and args.test_box and not overlap(args.train_box, args.test_box)):
        error(f"--test has {min(both).name}, which is trained on; give --train_box and --test_box, apart")
    if args.test_box and not args.test:
        if not args.train_box or overlap(args.train_box, args.test_box):
            error("--test_box has places to train on; give --test files, or a --train_box beside it")
        args.test = args.train


def overlap(a, b):
    """Whether two boxes (west, east, south, north) have a point in common."""
    meet = (b[0] - a[0]) % 360 <= degrees_east(*a[:2]) or (a[0] - b[0]) % 360 <= degrees_east(*b[:2])
    return meet and b[2] <= a[3] and a[2] <= b[3]
