"""Heat in a periodic box, simulated here, whole trajectories to every split."""

import numpy as np

from flows.source import grid_source
from flows.splits import share_trajectories
from simulation.heat import simulate

TRAJECTORIES, STARTS = 50, 10  # and windows of each


def heat_sources(args):
    """Sources of the splits.

    Args:
        args: ``points`` to a side, ``diffusivity``, ``history``, ``horizon``, ``seed``.
    """
    length = args.history + args.horizon + STARTS - 1
    frames = simulate(TRAJECTORIES, length, args.points, args.diffusivity, args.seed)
    frames = frames.reshape(-1, *frames.shape[2:]).astype(np.float32)
    source = grid_source(
        lambda begin, end: frames[begin:end],
        frames.shape[2:],
        segments=[(i * length, (i + 1) * length) for i in range(TRAJECTORIES)],
        frame_bytes=frames[:1].nbytes,
        fields=("scalar",),
        files=["simulated"],
        time_step=1,
        spacing=[1.0, 1.0],
        boundaries={"y": "periodic", "x": "periodic"},
        parameters={"diffusivity": TRAJECTORIES * [args.diffusivity]},
        notes=[f"simulated {TRAJECTORIES} trajectories of {length} frames, diffusivity {args.diffusivity:g}"],
    )
    return share_trajectories(source, None)
