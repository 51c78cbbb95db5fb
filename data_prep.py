"""Prepare raw flows for training: cut them into tiles, split them in time, standardise them, store every frame once.

    python data_prep.py rbc --raw rbc_data.pt
    python data_prep.py rbc --simulate small       convection made here instead of downloaded, in half a minute
    python data_prep.py rbc --simulate small --fields vector scalar    its temperature, too
    python data_prep.py array --raw mine.npy --name mine               your own (T, C, H, W); then --dataset=mine
    python data_prep.py ocean --train atlantic.nc indian.nc north_pacific.nc --test south_pacific_test.nc
    python data_prep.py ocean --train currents/*.nc --tile 32 --max_land 0.2
    python data_prep.py ocean --train currents/*.nc --train_box -44 -23 25 46 --test_box -180 -159 -59 -40
    python data_prep.py ocean --print_download     the commands that fetch the ocean files
    python data_prep.py                            whatever of these files lies in this folder

Writes, all or nothing, into <data_dir>/<dataset>/:

    meta.json          source, splits, standardisation, orientation (for flows.windows)
    <split>.npy        train, valid, test, domain: float32 (tiles, time, C, h, w), standardised, 0 on land,
                       row 0 south, u before v
    <split>_mask.npy   bool (tiles, h, w), False on land; only where there is land
    test_<name>.npz    one group element per test window, for the transformed test sets

A window is history + horizon consecutive frames. Windows are never files: they are numbered by first frame, then by
tile, and a split owns a range of these numbers. No frame is in two splits, except by --protocol release.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt while modules are imported ends without a traceback

import argparse
import contextlib
import dataclasses
import re
import sys
from pathlib import Path

from flows.arrays import array_source, load_array
from flows.netcdf import turn
from flows.ocean import ocean_source, open_record
from flows.store import new_folder, write_dataset
from models.fields import SIZES
from simulation.rayleigh_benard import PRESETS, simulate, temperature_file
from utils import InputError, choose_device, exit_code

RBC_FILE = "rbc_data.pt"
# The 20 frames of "tiny" hold no window of the default length.
SIMULATIONS = {**PRESETS, "tiny": dataclasses.replace(PRESETS["tiny"], frames=200)}
CHANGES = {  # what may be changed of a preset
    "ra": (float, "Rayleigh number"),
    "pr": (float, "Prandtl number"),
    "nz": (int, "rows of the grid"),
    "nx": (int, "columns of the grid"),
    "frames": (int, "frames to store"),
    "interval": (float, "free-fall times between frames"),
}
RBC_ADDRESS = "https://s3-west.nrp-nautilus.io/tfnet/rbc_data.pt"
OCEAN_TRAIN = {  # file: west, east, south, north in degrees
    "atlantic.nc": (-44, -23, 25, 46),
    "indian.nc": (55, 76, -39, -18),
    "north_pacific.nc": (-174, -153, 5, 26),
}
OCEAN_TEST = {"south_pacific_test.nc": (-180, -159, -59, -40)}


def prepare_rbc(args):
    """The command ``rbc``."""
    target = Path(args.data_dir, "rbc")
    raw, notes = simulated(args) if args.simulate else (args.raw, [])
    with new_folder(target) as folder:
        arrays = [load_array(raw)]
        if args.simulate:
            by_kind = {"vector": arrays[0], "scalar": load_array(temperature_file(raw))[:, None]}
            arrays = [by_kind[kind] for kind in args.fields]
        source = array_source(arrays, raw, args.stride, args.tile, args.fields)
        source.notes += notes
        source.units = "free-fall units" if args.simulate else None
        lines = write_dataset(folder, "rbc", {"train": source}, args, centre=True)
    report(lines, target)


def prepare_array(args):
    """The command ``array``."""
    target = Path(args.data_dir, args.name)
    with new_folder(target) as folder:
        source = array_source([load_array(args.raw)], args.raw, args.stride, args.tile, args.fields)
        lines = write_dataset(folder, args.name, {"train": source}, args)
    report(lines, target)


def simulation(args):
    """The Settings of a simulation."""
    changes = {name: getattr(args, name) for name in CHANGES if getattr(args, name) is not None}
    return dataclasses.replace(SIMULATIONS[args.simulate], seed=args.seed, **changes)


def simulated(args):
    """Simulate convection, or find it already simulated, in the data folder.

    Returns:
        The file of frames, and lines for the summary.
    """
    settings = simulation(args)
    device = choose_device(args.device)
    path = Path(args.data_dir, f"rbc_{args.simulate}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    result = simulate(settings, path, device)
    correlation = ", ".join(f"{lag}: {u:.3f} {w:.3f}" for lag, (u, w) in result["correlation"].items())
    return path, [
        f"simulated Ra {settings.ra:g}, Pr {settings.pr:g}, grid {settings.nz} x {settings.nx}: "
        f"Nusselt number {result['nusselt']:.2f}, rms speed {result['rms_speed']:.3f}",
        f"correlation of u and w at lags in frames: {correlation}",
    ]


def prepare_ocean(args):
    """The command ``ocean``."""
    if args.print_download:
        return print_download()
    target = Path(args.data_dir, "ocean")
    names = args.u_var and (args.u_var, args.v_var)
    with new_folder(target) as folder:
        train = open_record(args.train, args.tile, names, args.train_box)
        test = open_record(args.test, args.tile, names, args.test_box) if args.test else None
        sources = {"train": ocean_source(train, args.max_land, args.keep_zeros)}
        if test:
            sources["domain"] = ocean_source(test, args.max_land, args.keep_zeros, "survey of test")
            step, wanted = (sources[name].time_step for name in ("domain", "train"))
            if step not in (wanted, None):
                raise InputError(f"the test files step by {step} s, wanted {wanted} s as in the train files")
        lines = write_dataset(folder, "ocean", sources, args)
    report(lines, target)


def report(lines, target):
    """Print the summary of what is now in ``target``."""
    size = sum(file.stat().st_size for file in target.iterdir())
    print(*lines, f"wrote {size / 1e6:.1f} MB to {target}", sep="\n")


def prepare_found():
    """Without a command: prepare the release's raw files that lie in the current folder, with the defaults."""
    found = {name for name in (RBC_FILE, *OCEAN_TRAIN, *OCEAN_TEST) if Path(name).is_file()}
    for name in (RBC_FILE, *OCEAN_TRAIN, *OCEAN_TEST):
        source = RBC_ADDRESS if name == RBC_FILE else "python data_prep.py ocean --print_download"
        print(f"{name}: found" if name in found else f"{name}: not here; get it from {source}")
    train, test = sorted(found & set(OCEAN_TRAIN)), sorted(found & set(OCEAN_TEST))
    if RBC_FILE not in found and not train:
        raise InputError(
            f"found no raw file to train on, wanted {RBC_FILE} or {', '.join(OCEAN_TRAIN)} in this folder; "
            "or make convection here: python data_prep.py rbc --simulate small"
        )
    if RBC_FILE in found:
        main(["rbc", "--raw", RBC_FILE])
    if train:
        main(["ocean", "--train", *train, *(["--test", *test] if test else [])])


def print_download():
    """Print the commands that fetch the four boxes of the ocean data."""
    print("# pip install copernicusmarine, then copernicusmarine login (free account), then:")
    for file, (west, east, south, north) in (OCEAN_TRAIN | OCEAN_TEST).items():
        print(
            "copernicusmarine subset --dataset-id cmems_mod_glo_phy_my_0.083deg_P1D-m --variable uo --variable vo"
            f" --minimum-longitude {west} --maximum-longitude {east}"
            f" --minimum-latitude {south} --maximum-latitude {north} --minimum-depth 0 --maximum-depth 1"
            f" --start-datetime 2016-01-01 --end-datetime 2017-12-31 --output-filename {file}"
        )
    print("# This reanalysis replaces the paper's forecast archive (same grid), which no longer reaches back to 2016.")


def whole(least):
    """An argparse type: whole numbers from ``least`` on."""

    def parse(word):
        if not re.fullmatch(r"-?\d+", word) or int(word) < least:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least {least}")
        return int(word)

    return parse


def name(word):
    """An argparse type: the name of a folder."""
    if re.fullmatch(r"\w[\w.-]*", word):
        return word
    raise argparse.ArgumentTypeError(f"{word!r} is not a name of letters, digits, '_', '-' and '.'")


def fraction(word):
    """An argparse type: 0 <= number < 1."""
    with contextlib.suppress(ValueError):
        if 0 <= float(word) < 1:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not in 0 <= fraction < 1")


def degrees(word):
    """An argparse type: an angle in degrees."""
    with contextlib.suppress(ValueError):
        if abs(float(word)) <= 360:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not an angle in degrees, -360 to 360")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", title="commands")

    rbc = commands.add_parser("rbc", help="Rayleigh-Benard convection")
    origin = rbc.add_mutually_exclusive_group(required=True)
    origin.add_argument("--raw", metavar="FILE", help=".pt tensor or .npy array (T, 2, H, W)")
    origin.add_argument("--simulate", choices=SIMULATIONS, help="make the flow here")
    rbc.add_argument("--stride", type=whole(1), help="keep every n-th point (default: 4 of a file, 1 of a simulation)")
    for change, (kind, text) in CHANGES.items():
        rbc.add_argument(f"--{change}", type=kind, help=f"{text} (with --simulate; default: the preset's)")
    rbc.add_argument(
        "--device", default="", help="where to simulate: cpu, cuda or cuda:N (default: cuda if there is one)"
    )
    rbc.set_defaults(prepare=prepare_rbc, splits=[6000, 2000, 2000])

    array = commands.add_parser("array", help="any regular array")
    array.add_argument("--raw", metavar="FILE", required=True, help=".pt tensor or .npy array (T, C, H, W)")
    array.add_argument("--name", type=name, required=True, help="of the data set, for run_model.py --dataset")
    array.add_argument("--stride", type=whole(1), default=1, help="keep every n-th point (default %(default)s)")
    array.set_defaults(prepare=prepare_array, splits=[6000, 2000, 2000])
    for command in (rbc, array):
        command.add_argument(
            "--fields",
            nargs="+",
            choices=SIZES,
            default=["vector"],
            help="what the C components are, in their order: a vector has two, u and v (default: vector)",
        )

    ocean = commands.add_parser("ocean", help="surface currents from NetCDF files")
    ocean.add_argument("--train", nargs="+", metavar="FILE", help="NetCDF files of train, valid and test, any order")
    ocean.add_argument("--test", nargs="+", metavar="FILE", help="NetCDF files of another ocean (split domain)")
    for split, text in (("train", "--train"), ("test", "--test or, without it, --train, for split domain")):
        ocean.add_argument(
            f"--{split}_box",
            nargs=4,
            type=degrees,
            metavar=("WEST", "EAST", "SOUTH", "NORTH"),
            help=f"the part of the grid to read in {text}, in degrees; it may lie across the edges of a grid round the "
            "globe (default: all)",
        )
    ocean.add_argument("--max_land", type=fraction, default=0.0, help="drop tiles with more land (default %(default)s)")
    ocean.add_argument(
        "--keep_zeros", action="store_true", help="points that are 0 in all frames are still water (default: land)"
    )
    ocean.add_argument("--u_var", help="variable of the eastward current (default: found by its attributes)")
    ocean.add_argument("--v_var", help="variable of the northward current")
    ocean.add_argument("--print_download", action="store_true", help="print how to get the files, and stop")
    ocean.set_defaults(prepare=prepare_ocean, splits=[8000, 2000, 2000])

    for command in (rbc, array, ocean):
        command.add_argument("--data_dir", default="data", help="where to put the result (default %(default)s)")
        command.add_argument(
            "--tile", type=whole(1), help="side of a tile (default 64, or all rows of a simulation that has fewer)"
        )
        command.add_argument("--history", type=whole(1), default=30, help="frames to read (default %(default)s)")
        command.add_argument("--horizon", type=whole(1), default=20, help="frames to predict (default %(default)s)")
        command.add_argument(
            "--protocol",
            choices=("release", "disjoint"),
            help="release: the splits' windows overlap, so that they share frames; disjoint: no frame is in two splits "
            "(default: release of its own files, rbc_data.pt and the four boxes of the ocean, else disjoint)",
        )
        command.add_argument(
            "--gap",
            type=whole(0),
            help="window starts left out between splits (default: 0 by --protocol release, else history + horizon)",
        )
        command.add_argument(
            "--splits",
            nargs=3,
            type=whole(1),
            metavar=("TRAIN", "VALID", "TEST"),
            help="numbers of windows, or proportions where there are fewer (default: the release's)",
        )
        command.add_argument(
            "--angle_step",
            type=int,
            choices=(90, 45, 30, 15),
            default=90,
            help="of the test set Rot: multiples of this angle in degrees (default %(default)s; exact on the grid)",
        )
        command.add_argument(
            "--scale_factors",
            choices=("grid", "release"),
            default="grid",
            help="of the test set Scale: 1, 1.25, 1.5, 2 or 3, or from 0.5 to 5 by quarters (default %(default)s)",
        )
        command.add_argument(
            "--seed", type=whole(0), default=0, help="of transforms and simulation (default %(default)s)"
        )

    args = parser.parse_args(argv)
    if args.command:
        resolve(args, rbc)
    if args.command == "rbc" and args.simulate and len(set(args.fields)) < len(args.fields):
        rbc.error("--fields of a simulation are vector, its velocity, and scalar, its temperature, each at most once")
    if args.command and args.scale_factors == "release" and args.tile < 32:
        parser.error(f"--scale_factors release shrinks to a half: --tile must be at least 32, got {args.tile}")
    if args.command == "ocean" and not (args.train or args.print_download):
        ocean.error("--train is needed: the NetCDF files of train, valid and test")
    if args.command == "ocean" and bool(args.u_var) != bool(args.v_var):
        ocean.error("--u_var and --v_var are needed together")
    if args.command == "ocean":
        resolve_boxes(args, ocean)
    return args


def resolve(args, rbc):
    """Fill in the defaults that depend on where the data come from."""
    here = getattr(args, "simulate", None)
    if args.gap is None:
        protocol = args.protocol or ("release" if is_the_releases(args) else "disjoint")
        args.gap = 0 if protocol == "release" else args.history + args.horizon
    if args.command == "rbc":
        given = [name for name in CHANGES if getattr(args, name) is not None]
        if given and not here:
            rbc.error(f"--{given[0]} goes with --simulate")
        args.stride = args.stride or (1 if here else 4)
    rows = -(-simulation(args).stored_shape[2] // args.stride) if here else 64
    args.tile = args.tile or min(64, rows)


def is_the_releases(args):
    """Whether the raw files have the names of the release's."""
    if args.command != "ocean":
        return args.raw is not None and Path(args.raw).name == RBC_FILE
    return {Path(file).name for file in (args.train or []) + (args.test or [])} <= {*OCEAN_TRAIN, *OCEAN_TEST}


def resolve_boxes(args, ocean):
    """Refuse boxes that are none; a test box alone is another part of the files to train on."""
    for name in ("train_box", "test_box"):
        box = getattr(args, name)
        if box and (box[0] == box[1] or box[2] >= box[3]):
            ocean.error(f"--{name} is WEST EAST SOUTH NORTH, got {' '.join(f'{degree:g}' for degree in box)}")
    if args.test_box and not args.test:
        if not args.train_box or overlap(args.train_box, args.test_box):
            ocean.error("--test_box has places to train on; give --test files, or a --train_box beside it")
        args.test = args.train


def overlap(a, b):
    """Whether two boxes (west, east, south, north) have a point in common."""
    meet = (b[0] - a[0]) % 360 <= turn(*a[:2]) or (a[0] - b[0]) % 360 <= turn(*b[:2])
    return meet and b[2] <= a[3] and a[2] <= b[3]


def main(argv=None):
    args = parse_args(argv)
    if args.command:
        args.prepare(args)
    else:
        prepare_found()


if __name__ == "__main__":
    sys.exit(exit_code(main))
