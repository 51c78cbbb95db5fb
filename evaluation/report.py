"""The table of all finished runs.

python -m evaluation.report results/
"""

import argparse
import json
import sys
from pathlib import Path

from utils import InputError, exit_code


def load_runs(results):
    """Read ``config.json`` and ``metrics.json`` of every finished run below ``results`` into one dict each.

    Runs get a ``label``: data, net, symmetry, width and seed, or the folder's name where these are not enough.

    Raises:
        InputError: a file is broken.
    """
    runs = []
    for path in sorted(Path(results).glob("*/metrics.json")):
        try:
            config, metrics = (json.loads(file.read_text()) for file in (path.with_name("config.json"), path))
            run = {"folder": path.parent.name, **config, **metrics}
            run["label"] = "{dataset:6}{architecture:7}{symmetry:6}x {width:<7g}seed {seed}".format(**run)
        except (OSError, ValueError, TypeError, KeyError):
            raise InputError(f"{path.parent} is broken; run it again with --no_resume") from None
        runs.append(run)
    if len({run["label"] for run in runs}) < len(runs):
        runs = [{**run, "label": run["folder"]} for run in runs]
    return sorted(runs, key=lambda run: (run["dataset"], run["architecture"]))


def table(runs):
    """Lines of a table: per run the RMSE on every test set and the ESE on the future; persistence per data set."""
    tests = list(dict.fromkeys(name for run in runs for name in run["scores"]))
    width = max(len(run["label"]) for run in runs)
    lines = [f"{'RMSE on':{width}} " + "".join(f"{name:>9}" for name in tests) + f"{'ESE':>9}{'epochs':>8}"]
    for dataset in sorted({run["dataset"] for run in runs}):
        group = [run for run in runs if run["dataset"] == dataset]
        for run in group:
            cells = [rmse(run["scores"], name) for name in tests]
            lines.append(f"{run['label']:{width}} {''.join(cells)}{run['scores']['test']['ese']:9.3f}{run['epochs']:8}")
        still = {tuple(rmse(run["persistence"], name) for name in tests) for run in group}
        lines += [f"{dataset + ' persistence':{width}} {''.join(cells)}" for cells in sorted(still)]
    return lines


def rmse(scores, name):
    return f"{scores[name]['rmse']:9.3f}" if name in scores else f"{'-':>9}"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder that holds the runs")
    args = parser.parse_args(argv)
    runs = load_runs(args.results)
    if not runs:
        raise InputError(f"no finished run in {args.results}; run_model.py makes them")
    print("\n".join(table(runs)))


if __name__ == "__main__":
    sys.exit(exit_code(main))
