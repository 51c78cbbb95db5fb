"""How far data are from a symmetry themselves, by two measures that are not the same.

    python -m evaluation.breaking data/smoke_levels_?              # sets of one flow and its turned twins
    python -m evaluation.breaking data/rbc --results results/quick # any data, by the errors of strict nets

Twins are trajectories that would be turned copies of each other if the symmetry were exact; data_prep.py smoke --set
levels makes them. How far they part, start to end, is the second paper's measure.

The map F from a flow to its future may be nearer to the symmetry than that: twins part because they differ already.
Only a bound is known: where a strict net forecasts a flow x and its transform g x, both in the test set, with errors of
e, |F(g x) - g F(x)| <= (1 + |g|) e. So the best strict net bounds the equivariance error that a perfect forecast has.
"""

import sys
from pathlib import Path

from flows.arguments import Parser


def parse_args(argv=None):
    parser = Parser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="+", help="folders of prepared data")
    parser.add_argument("--results", type=Path, nargs="*", default=[], help="folders that hold runs on them")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

import torch

from evaluation.claims import NORM
from evaluation.predict import per_component
from evaluation.runs import load_runs
from flows.store import load_meta
from flows.windows import Windows
from models import SYMMETRIES
from models.fields import energetic
from simulation.smoke import mean_difference
from utils import exit_code


def data_error(windows, meta):
    """How far the flows of a split are from being twins, by the name of the symmetry; {} where none are meant to be.

    ``absolute``, the second paper's measure: the mean of |w_0 - g_k^-1 w_k| over twins k > 0, time, points and the
    components of velocities, in the data's units. ``relative``: the root mean square of these differences, of all
    standardised components, divided by that of all w_k, as :func:`evaluation.equivariance_error` is of forecasts.

    Args:
        windows: of the training split.
        meta: of the data; that split's parameter ``turns`` says by how many quarters each twin is turned.
    """
    split = meta["splits"]["train"]
    turns = split.get("parameters", {}).get("turns", [])
    if len(set(turns)) < 2:
        return {}
    rotation, std = SYMMETRIES["Rot"].on(windows.fields), per_component(meta, "std")
    flows = [windows.frames[:, begin:end].double() for begin, end in split["segments"]]
    twins = torch.stack([rotation.quarter(-k, flow) for k, flow in zip(turns, flows, strict=True)])
    absolute = mean_difference((twins * std).flatten(1, 2)[:, :, energetic(windows.fields)])
    relative = ((twins[1:] - twins[0]).square().mean() / twins.square().mean()).sqrt().item()
    return {"Rot": {"absolute": absolute, "relative": relative}}


def bounds(runs, data):
    """(1 + |g|) times the least test RMSE of a strict net on these data, ``{symmetry: (bound, name of its run)}``; of
    the exact symmetries, with the largest factor of magnitude that is drawn."""
    found = {}
    for run in runs:
        strict = run["symmetry"] in NORM and run["relaxed"] is None and not run["variant"]
        if strict and run["data"] == data:
            least = ((1 + NORM[run["symmetry"]]) * run["scores"]["test"]["rmse"], run["folder"].name)
            found[run["symmetry"]] = min(least, found.get(run["symmetry"], least))
    return found


def main(argv=None):
    args = parse_args(argv)
    runs = load_runs(*args.results) if args.results else []
    for folder in args.data:
        meta = load_meta(folder)
        lines = [
            f"{name:6} twins part by {error['absolute']:.4f} {meta['units'] or ''}, {error['relative']:.4f} of the flow"
            for name, error in data_error(Windows(folder, meta, "train"), meta).items()
        ]
        lines += [
            f"{name:6} where a flow and its transform are in the test set, their futures differ by at most {bound:.4f} "
            f"standard deviations, by {run}"
            for name, (bound, run) in bounds(runs, meta["id"]).items()
        ]
        unknown = "unknown: no twins here, and no run of a strict net on these data among --results"
        print("\n  ".join([str(folder), *(lines or [unknown])]))


if __name__ == "__main__":
    sys.exit(exit_code(main))
