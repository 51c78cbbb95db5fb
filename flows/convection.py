"""Rayleigh-Benard convection, from a file or simulated."""

import dataclasses
import math
from pathlib import Path

from flows.arguments import CHANGES
from flows.arrays import array_source, load_array
from flows.folder import locked
from simulation.rayleigh_benard import PRESETS, rows_needed, simulate, temperature_file
from utils import InputError, choose_device

SETTINGS = {**PRESETS, "tiny": dataclasses.replace(PRESETS["tiny"], frames=200)}  # 20 hold no window of the default
FINEST = 8  # times the rows of the flow to train on: 64 times as many points, in steps an eighth as long


def convection_sources(args):
    """The record of velocities, and temperatures of a simulation, as ``{"train": Source}``; with another to test on."""
    if not args.simulate:
        return {"train": array_source([load_array(args.raw)], args.raw, args.stride, args.tile, args.fields)}
    settings = simulation(args)
    if args.test_ra is None:
        return {"train": simulated(args, settings, f"rbc_{args.simulate}")}
    other, faster = other_simulation(args, settings)  # may be refused: before the first one is made
    name = f"rbc_{args.simulate}_test_{args.test_ra:g}_{args.test_units}_seed{other.seed}"
    return {
        "train": simulated(args, settings, f"rbc_{args.simulate}"),
        "domain": simulated(args, other, name, faster),
    }


def simulation(args):
    """The Settings of a simulation."""
    changes = {name: getattr(args, name) for name in CHANGES if getattr(args, name) is not None}
    return dataclasses.replace(SETTINGS[args.simulate], seed=args.seed, **changes)


def tile_of(args):
    """Side of a tile of a simulation: the one asked for or, at most 64, its rows."""
    return args.tile or min(64, -(-simulation(args).stored_shape[2] // args.stride))


def other_simulation(args, settings):
    """The Settings of another flow at ``--test_ra``, a quarter as long, and how many times faster its units are.

    Its rows are doubled until they carry the Rayleigh number, and as many points are stored. In units of the cell that
    was trained on, now heated more or less, velocities are sqrt(Ra' / Ra) times those in its own free-fall units
    (temperatures Ra' / Ra times), and frames as many times farther apart in free-fall times.

    Raises:
        InputError: a Rayleigh number that takes more than ``FINEST`` times the rows.
    """
    finer, needed = 1, rows_needed(args.test_ra, settings.pr)
    while settings.nz * finer < needed:
        finer *= 2
        if finer > FINEST:
            raise InputError(
                f"--test_ra {args.test_ra:g} needs {needed} rows, more than {FINEST} times {settings.nz}: "
                "raise --nz and --nx, or lower it"
            )
    faster = math.sqrt(args.test_ra / settings.ra) if args.test_units == "cell" else 1.0
    sizes = {name: finer * getattr(settings, name) for name in ("nz", "nx", "store_every")}
    frames = max(settings.frames // 4, args.history + args.horizon)
    flow = {"ra": args.test_ra, "interval": settings.interval * faster, "frames": frames, "seed": settings.seed + 1}
    return dataclasses.replace(settings, **sizes, **flow), faster


def simulated(args, settings, name, faster=1.0):
    """Simulate convection, or find it already simulated in the data folder, as a Source.

    Args:
        name: of the file of velocities.
        faster: what they are multiplied by; temperatures by its square.
    """
    device = choose_device(args.device)
    path = Path(args.data_dir, f"{name}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        result = simulate(settings, path, device)
    by_kind = {"vector": load_array(path), "scalar": load_array(temperature_file(path))[:, None]}
    if faster != 1:
        by_kind = {kind: values * faster ** (1 if kind == "vector" else 2) for kind, values in by_kind.items()}
    source = array_source([by_kind[kind] for kind in args.fields], path, args.stride, args.tile, args.fields)
    correlation = ", ".join(f"{lag}: {u:.3f} {w:.3f}" for lag, (u, w) in result["correlation"].items())
    source.notes += [
        f"simulated Ra {settings.ra:g}, Pr {settings.pr:g}, grid {settings.nz} x {settings.nx}: "
        f"Nusselt number {result['nusselt']:.2f}, rms speed {result['rms_speed']:.3f}",
        f"correlation of u and w at lags in frames: {correlation}",
    ]
    source.units, source.boundaries = "free-fall units", {"x": "periodic", "y": "wall"}
    return source
