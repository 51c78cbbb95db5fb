"""Rayleigh-Benard convection, from a file or simulated."""

import dataclasses
from pathlib import Path

from flows.arguments import CHANGES
from flows.arrays import array_source, load_array
from simulation.rayleigh_benard import PRESETS, simulate, temperature_file
from utils import choose_device

SETTINGS = {**PRESETS, "tiny": dataclasses.replace(PRESETS["tiny"], frames=200)}  # 20 hold no window of the default


def convection_sources(args):
    """The record of velocities, and temperatures of a simulation, as ``{"train": Source}``."""
    raw, notes = simulated(args) if args.simulate else (args.raw, [])
    arrays = [load_array(raw)]
    if args.simulate:
        by_kind = {"vector": arrays[0], "scalar": load_array(temperature_file(raw))[:, None]}
        arrays = [by_kind[kind] for kind in args.fields]
    source = array_source(arrays, raw, args.stride, args.tile, args.fields)
    source.notes += notes
    source.units = "free-fall units" if args.simulate else None
    return {"train": source}


def simulation(args):
    """The Settings of a simulation."""
    changes = {name: getattr(args, name) for name in CHANGES if getattr(args, name) is not None}
    return dataclasses.replace(SETTINGS[args.simulate], seed=args.seed, **changes)


def tile_of(args):
    """Side of a tile of a simulation: the one asked for or, at most 64, its rows."""
    return args.tile or min(64, -(-simulation(args).stored_shape[2] // args.stride))


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
