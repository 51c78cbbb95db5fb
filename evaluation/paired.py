"""Differences between nets: paired by seed and test window, with intervals.

Windows overlap in time, so they are not independent: a block is the windows of one tile whose first frames fall into
the same stretch of a window's length. The 95 % interval is Student's, of a mean over seeds and over blocks, crossed
(:func:`interval`). Percentiles of a bootstrap would be too narrow: of five seeds they hold the truth 84 times in 100.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from evaluation.runs import at, read_record

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, from so many seeds and blocks of windows; one seed has no interval."""

    estimate: float
    low: float
    high: float
    seeds: int
    blocks: int = 0

    @property
    def sign(self):
        """-1 or 1 where the interval lies on that side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self):
        if math.isinf(self.high):
            return f"{self.estimate:+.3f} (no interval)"
        return f"{self.estimate:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def interval(by_seed, by_block=()):
    """Interval of the mean of a table, seeds by blocks of windows, from the means of its rows and of its columns.

    The variances of both means add up (which counts what neither explains twice, so that the interval is a little too
    wide); degrees of freedom after Welch and Satterthwaite. A single block says nothing about others: then the interval
    is over the seeds, on these windows.

    Args:
        by_seed, by_block: ``(seeds,)`` and ``(blocks,)``; none where the numbers are not of windows.
    """
    means = [np.asarray(values) for values in (by_seed, by_block) if len(values) > 1]
    estimate, sizes = np.mean(by_seed), (len(by_seed), len(by_block))
    if len(by_seed) < 2:
        return Interval(estimate, -math.inf, math.inf, *sizes)
    variances = np.array([values.var(ddof=1) / len(values) for values in means])
    weights = variances**2 @ [1 / (len(values) - 1) for values in means]
    half = 0.0
    if weights > 0:
        half = stdtrit(variances.sum() ** 2 / weights, (1 + LEVEL) / 2) * math.sqrt(variances.sum())
    return Interval(estimate, estimate - half, estimate + half, *sizes)


def window_errors(run):
    """windows.json of a run: by test set the mean squared error of every window, and ``blocks``; {} without it."""
    path = run["folder"] / "windows.json"
    return read_record(path, ()) if path.is_file() else {}


def block_sums(runs, test_set):
    """Squared errors of every run summed by block ``(runs, blocks)``, and the numbers of windows ``(blocks,)``.

    None where a run did not keep its errors, or the set is none whose windows are of one size.
    """
    records = [window_errors(run) for run in runs]
    if not all(test_set in record.get("blocks", {}) for record in records):
        return None
    _, block, counts = np.unique(records[0]["blocks"][test_set], return_inverse=True, return_counts=True)
    sums = np.zeros((len(runs), len(counts)))
    for row, record in zip(sums, records, strict=True):
        np.add.at(row, block, record[test_set])
    return sums, counts


def rmse_difference(group, other, test_set="test", other_set=None, units=(1.0, 1.0)):
    """RMSE of a group minus that of another, as an :class:`Interval`, over the seeds that both have.

    Args:
        group, other: :class:`evaluation.runs.Group`, of the same data.
        test_set, other_set: where each is tested; the same by default. Transformed sets have the windows of "test".
        units: what each RMSE is divided by.

    Returns:
        None where there are no common seeds or no errors by window.
    """
    seeds = sorted(set(group.seeds) & set(other.seeds))
    sides = [
        block_sums([next(run for run in side.runs if run["seed"] == seed) for seed in seeds], name)
        for side, name in ((group, test_set), (other, other_set or test_set))
    ]
    if not seeds or None in sides:
        return None
    (sums, counts), (other_sums, _) = sides

    def differences(weights):  # (samples, blocks) to (samples, seeds)
        windows = (weights @ counts)[:, None]
        rmses = [np.sqrt(weights @ s.T / windows) / unit for s, unit in zip((sums, other_sums), units, strict=True)]
        return rmses[0] - rmses[1]

    count = len(counts)
    (by_seed,) = differences(np.ones((1, count)))
    if count == 1:
        return interval(by_seed, [by_seed.mean()])
    without = differences(1 - np.eye(count)).mean(1)  # each block: the jackknife
    return interval(by_seed, count * by_seed.mean() - (count - 1) * without)


def seed_difference(group, other, *path):
    """The number at ``path`` in the runs of a group minus that of another, over the seeds that both have."""
    pairs = {run["seed"]: run for run in other.runs}
    both = [(run, pairs[run["seed"]]) for run in group.runs if run["seed"] in pairs]
    values = [[at(run, path) for run in pair] for pair in both]
    differences = np.array([own - theirs for own, theirs in values if own is not None and theirs is not None])
    if not len(differences):
        return None
    return interval(differences)
