"""Prepare raw flows for training: cut them into tiles, split them in time, standardise them, store every frame once.

    python data_prep.py rbc --raw rbc_data.pt
    python data_prep.py rbc --simulate small       convection made here instead of downloaded, in half a minute
    python data_prep.py rbc --simulate small --fields vector scalar    its temperature, too
    python data_prep.py rbc --simulate small --test_ra 1e8 --name rbc_ra1e8    beside another flow
    python data_prep.py array --raw mine.npy --name mine               your own (T, C, H, W); then --dataset=mine
    python data_prep.py ocean --train atlantic.nc indian.nc north_pacific.nc --test south_pacific_test.nc
    python data_prep.py ocean --train currents/*.nc --tile 32 --max_land 0.2
    python data_prep.py ocean --train currents/*.nc --train_box -44 -23 25 46 --test_box -180 -159 -59 -40
    python data_prep.py netcdf --raw wind.nc t.nc --fields u,v:vector t:scalar --name storm
    python data_prep.py smoke --set rotation       the second paper's plumes, made here in a minute; --size paper
    python data_prep.py heat                       heat that diffuses in a periodic box, solved exactly, in seconds
    python data_prep.py jet --raw frames           velocities from particle images, a text file per frame
    python data_prep.py well --raw rayleigh_benard                     The Well's files; so pdearena and pdebench
    python data_prep.py ocean --print_download     the commands that fetch the ocean files
    python data_prep.py                            whatever of these files lies in this folder

Writes, all or nothing, into <data_dir>/<dataset>/:

    meta.json          source, splits, standardisation, orientation, and of grid and parameters what is known
    <split>.npy        train, valid, test, domain: float32 (tiles, time, C, h, w), standardised, 0 on land,
                       row 0 south, u before v
    <split>_mask.npy   bool (tiles, h, w), False on land; only where there is land
    test_<name>.npz    one group element per test window, for the transformed test sets

A window is history + horizon consecutive frames. Windows are never files: they are numbered by first frame, then by
tile, and a split owns a range of these numbers. No frame is in two splits, except by --protocol release and in the
second paper's splits of smoke.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt while modules are imported ends without a traceback

import sys
from pathlib import Path

from flows.download import HOW, OCEAN_TEST, OCEAN_TRAIN, RBC_ADDRESS, RBC_FILE
from flows.flags import parse_args

if __name__ == "__main__":
    parse_args(usage=__doc__)  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

from flows.arrays import array_sources
from flows.convection import convection_sources, tile_of
from flows.folder import new_folder
from flows.gridded import gridded_sources
from flows.hdf5 import hdf5_sources
from flows.heat import heat_sources
from flows.jet import jet_sources
from flows.ocean import ocean_sources
from flows.plumes import plume_sources
from flows.store import write_dataset
from utils import InputError, exit_code

SOURCES = {  # of a command: ``sources(args)`` returns ``{split: Source}``, see :func:`flows.store.write_dataset`
    "rbc": convection_sources,
    "array": array_sources,
    "ocean": ocean_sources,
    "netcdf": gridded_sources,
    "jet": jet_sources,
    "smoke": plume_sources,
    "heat": heat_sources,
    **dict.fromkeys(("well", "pdearena", "pdebench"), hdf5_sources),
}


def prepare(args):
    """Run a command."""
    if getattr(args, "simulate", None):
        args.tile = tile_of(args)
    if args.scale_factors == "release" and (args.tile or 32) < 32:
        raise InputError(f"--scale_factors release shrinks to a half: --tile must be at least 32, got {args.tile}")
    target = Path(args.data_dir, args.name)
    with new_folder(target) as folder:
        sources = SOURCES[args.command](args)
        # the release subtracts the mean of convection's velocities
        lines = write_dataset(folder, args.name, sources, args, centre=args.command == "rbc")
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


def main(argv=None):
    args = parse_args(argv, __doc__)
    if not args.command:
        prepare_found()
    elif args.print_download:
        print(*HOW[args.command](), sep="\n")
    else:
        prepare(args)


if __name__ == "__main__":
    sys.exit(exit_code(main))
