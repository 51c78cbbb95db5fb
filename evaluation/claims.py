"""Is each claim of the paper reproduced? Rules that are fixed before the runs are made.

Nets are compared on the same data, with the same architecture, and by the same settings of training (``TERMS``), each
with the learning rate and weight decay that it wants, by validation (``evaluation.runs.chosen``). Differences of RMSE
are paired by seed and test window, of ESE by seed, and have 95 % intervals (``evaluation.paired``); five seeds
(``SEEDS``) are wanted. A finding *holds* or *fails* where its interval lies on one side of 0, and is *open* where it
holds 0 or where there is one seed. A claim is *reproduced* if all its findings hold, *not reproduced* if one fails and
none holds, *open* if all are, *partly* reproduced in between, and *not decided* where no runs bear on it.

One rule is younger than runs it judges: for claims 4 and 11 an interval that holds 0 was enough, until noise was seen
to pass so. With the margin three findings that held are open.

1. A net keeps its error if the RMSE on its own transformed test set is within half a percent (``KEEPS``) of that on the
   original one, and the plain net's grows. Mag gives every window a factor, so that RMSE weighs them anew: there the
   relative equivariance error must be that small, and the plain net's RMSE is in units of persistence. Fails if the
   equivariant net's error moves, or the plain net's falls.
2. On the original test set, RMSE and ESE below the plain net's, one finding each. Fails where they are above.
3. Ocean: RMSE on future time, and on the other domain, below the plain net's. Fails where it is above.
4. An equivariant net is as good as with augmentation by its own symmetry: its RMSE on the original test set less that
   of the augmented one is surely below a twentieth of that (``MARGIN``); fails where the interval is above 0. And on
   the transformed set it is better than the plain net trained with this augmentation; fails where it is worse.
5. The largest relative equivariance error of every strict float32 run under its own exact symmetry is below 1e-4
   (``NEARLY_ZERO``). And for every net and exact symmetry RMSE(transformed) <= |T| RMSE(original) + EE with |T| = 1
   (UM, Rot) or 2 (Mag, the largest factor drawn); 2 % (``SOME``) are allowed, since EE is measured on some windows.
6. The scale net's skill is above the plain net's at every upscaling factor above 1, one finding each.

Ours, of what the layers are worth:

7. An equivariant net is better on the original test set than a plain net in a frame of reference that makes it exactly
   equivariant, too. Fails where it is worse: then the frame is the better way to the same symmetry.
8. It is better than the same net without its constraint (the variant "free"). Fails where it is worse.

Of runs scored on flows of other parameters than they were trained on (``run_model.py --evaluate RUN --output FOLDER``):

13. On these (split domain) an equivariant net is better than the plain net, and than the plain net in its frame of
    reference, one finding each. Fails where it is worse.

Of the second paper, on approximate symmetry. Of relaxed nets alike but for LAMBDA, that of the best validation is
compared. Data break a symmetry unless their own equivariance error (``evaluation.breaking``) is known to be below 1 %
(``EXACT``); walls, gravity and land do.

Claims 9 to 11 on the test set and on the other domain if there is one, one finding each:

9. A relaxed net is better than the strict net of its symmetry where the data break it. Fails where it is worse.
10. It is better than nets that are free to break it: the plain net, the second paper's plain net (the variant "norm"),
    and the same net with free kernels that do not decay (``--relaxed=0 --deviation=free``). Fails where it is worse.
11. Where the data keep the symmetry it is as good as the strict net, in the sense of claim 4.
12. What it learns to deviate by (the mean over its layers and seeds) grows with the data's own error: Spearman's rank
    correlation over seven data sets or more (``DATA_SETS``; of fewer its p is too small) of known errors is above 0
    with p < .05. Fails where it is below 0 with p < .05.
"""

from dataclasses import dataclass, field
from itertools import product
from statistics import mean

import numpy as np

from evaluation.paired import rmse_difference, seed_difference
from evaluation.runs import chosen, unchanged

KEEPS = 0.005
SOME = 0.02
NEARLY_ZERO = 1e-4
SEEDS = 5
MARGIN = 0.05
EXACT = 0.01
DATA_SETS = 7
NORM = {"UM": 1, "Mag": 2, "Rot": 1}  # |T|, of the exact symmetries
# What nets that are compared share, beside architecture and data.
TERMS = (
    "input_length",
    "output_length",
    "batch_size",
    "num_epoch",
    "patience",
    "valid_length",
    "train_fraction",
    "scale_windows",
    "padding",
    "amp",
)
HOLDS, FAILS, OPEN = "holds", "fails", "open"


@dataclass
class Verdict:
    """A claim, the findings ``(word, numbers)`` that decide it, how many comparisons are of one seed, which decide
    nothing, and what was not there to look at."""

    number: int
    claim: str
    findings: list = field(default_factory=list)
    alone: int = 0
    unseen: list = field(default_factory=list)

    def find(self, word, numbers):
        self.findings.append((word, numbers))

    def compare(self, interval, words, margin=0):
        """A finding of a difference that should be below ``margin``; none where there is no interval."""
        if interval is None:
            return
        if interval.seeds < 2:
            self.alone += 1
            return
        blocks = "1 block" if interval.blocks == 1 else f"{interval.blocks} blocks"
        size = f"{interval.seeds} seeds" + (f", {blocks} of windows" if interval.blocks else "")
        few = "" if interval.seeds >= SEEDS else f", fewer than {SEEDS}"
        word = FAILS if interval.low > 0 else HOLDS if interval.high < margin else OPEN
        self.find(word, f"{words} {interval} ({size}{few})")

    def compare_rmse(self, group, other, test_set, margin=0):
        """A finding of a group's RMSE less another's, which should be below this share of the other's."""
        margin = margin and margin * (other.mean("scores", test_set, "rmse") or 0)
        words = f"{name_of(group)} less {other.label}: RMSE on {test_set}"
        self.compare(rmse_difference(group, other, test_set), words, margin)

    @property
    def word(self):
        words = [word for word, _ in self.findings] + [OPEN] * self.alone
        counts = ", ".join(f"{words.count(word)} {word}" for word in (HOLDS, FAILS, OPEN) if word in words)
        if not words:
            return "not decided"
        if HOLDS not in words:
            return ("not reproduced" if FAILS in words else "open") + f" ({counts})"
        whole = set(words) == {HOLDS} and not self.unseen
        return ("reproduced" if whole else "partly reproduced") + f" ({counts})"

    def lines(self):
        return [
            *(f"{word}: {numbers}" for word, numbers in self.findings),
            *([f"{OPEN}: what one seed says, {self.alone} of {len(self.findings) + self.alone}"] if self.alone else []),
            *(f"not looked at: {reason}" for reason in self.unseen),
        ]


def verdicts(groups):
    """One :class:`Verdict` per claim, from the groups of ``evaluation.runs.group_runs``."""
    judges = (keeps_its_error, original, ocean, augmentation, equivariance, upscaling, frames, constraint)
    judges += (relaxed_and_strict, relaxed_and_free, relaxed_on_exact_data, learned_deviation)
    groups = chosen(groups)
    at_home = [group for group in groups if not trained_elsewhere(group)]
    found = [judge(at_home) for judge in judges]
    return [*found, other_parameters([group for group in groups if trained_elsewhere(group)])]


# ---------------------------------------------------------------- what is compared


def bare(group):
    """Whether a group is of a net as it is: not augmented, in no frame, no variant, strict."""
    return unchanged(group) and group["relaxed"] is None


def trained_elsewhere(group):
    """Whether its runs are scores of nets that were trained on other data."""
    return any("trained_on" in run for run in group.runs)


def alike(groups, group, symmetry, augment=(), frame=(), variant="", relaxed=None):
    """The groups with these parts that may be compared with ``group``, of its width and then of most seeds first."""
    wanted = {"symmetry": symmetry, "augment": list(augment), "frame": list(frame), "variant": variant}
    wanted["relaxed"] = relaxed
    shared = TERMS if symmetry != group["symmetry"] else (*TERMS, *group.options)
    found = [
        other
        for other in groups
        if all(other[name] == value for name, value in wanted.items())
        and (other.data, other["architecture"]) == (group.data, group["architecture"])
        and all(other[name] == group[name] for name in shared)
    ]
    return sorted(found, key=lambda other: (other["width"] != group["width"], -len(other.runs)))


def pairs(groups):
    """Every bare equivariant group with the plain group that it is judged against."""
    for group in groups:
        if group["symmetry"] != "None" and bare(group):
            for plain in alike(groups, group, "None")[:1]:
                yield group, plain


def relaxed_nets(groups):
    """The relaxed groups; of those alike but for LAMBDA that of the best validation, if it has as many seeds."""
    best = {}
    for group in groups:
        if unchanged(group) and group["relaxed"] is not None and not free(group):
            best.setdefault((group.data, all_but_lambda(group)), []).append(group)
    return [min(likes, key=lambda group: (-len(group.runs), group.mean("valid_rmse"))) for likes in best.values()]


def strict_pairs(groups, exact):
    """The relaxed groups with the strict ones of their symmetry, on data that keep it (``exact``) or that break it."""
    for group in relaxed_nets(groups):
        error = error_of_data(group)
        if exact == (error is not None and error < EXACT):
            for strict in alike(groups, group, group["symmetry"])[:1]:
                yield group, strict


def all_but_lambda(group):
    """What the relaxed groups share that differ in LAMBDA, or in the data."""
    return tuple(group[name] for name in ("architecture", "symmetry", "width", "deviation", *group.options, *TERMS))


def free(group):
    """Whether a relaxed group's kernels are as free as those of the plain net."""
    return group["relaxed"] == 0 and group["deviation"] == "free"


def error_of_data(group):
    """The data's own equivariance error under the symmetry of the net; None where it is not known."""
    return group.mean("data_error", group["symmetry"], "relative")


def name_of(group):
    return f"{group.title} {group.label}"


# ---------------------------------------------------------------- the claims of the paper


def keeps_its_error(groups):
    verdict = Verdict(1, "Equivariant nets keep their error on flows transformed by their symmetry, plain nets do not.")
    for group, plain in pairs(groups):
        symmetry = group["symmetry"]
        if symmetry in NORM:
            units = (1.0, 1.0)
            if symmetry == "Mag":
                units = tuple(group.mean("baselines", "persistence", name, "rmse") for name in ("Mag", "test"))
            own, other = (rmse_difference(net, net, symmetry, "test", units) for net in (group, plain))
            if own is not None and other is not None:
                share = own.estimate / group.mean("scores", "test", "rmse")
                moves = f"RMSE {share:+.2%}"
                if symmetry == "Mag":
                    share = np.max(group.values("equivariance_error", "Mag", "relative") or [np.nan])
                    moves = f"forecast {share:.2%}"
                word = FAILS if not abs(share) <= KEEPS or other.sign < 0 else HOLDS if other.sign > 0 else OPEN
                numbers = f"{moves} from test to {symmetry}, plain net {other} in {other.seeds} seeds"
                verdict.find(word, f"{name_of(group)}: {numbers}")
    return verdict


def original(groups):
    verdict = Verdict(2, "They are better than plain nets on the original test set, with lower ESE.")
    for group, plain in pairs(groups):
        verdict.compare(rmse_difference(group, plain), f"{name_of(group)} less {plain.label}: RMSE")
        verdict.compare(
            seed_difference(group, plain, "scores", "test", "ese"), f"{name_of(group)} less {plain.label}: ESE"
        )
    return verdict


def ocean(groups):
    verdict = Verdict(3, "On ocean currents they are better on future time and on another ocean.")
    for test_set, words in (("test", "future"), ("domain", "domain")):
        before = len(verdict.findings)
        for group, plain in pairs([group for group in groups if group["dataset"] == "Ocean"]):
            difference = rmse_difference(group, plain, test_set)
            verdict.compare(difference, f"{name_of(group)} less {plain.label}: {words} RMSE")
        if len(verdict.findings) == before:
            verdict.unseen.append(f"no pair of ocean runs with a {words} test set and errors by window")
    return verdict


def augmentation(groups):
    verdict = Verdict(
        4, "Augmentation does not help equivariant nets; the augmented plain net is the baseline to beat."
    )
    for group in groups:
        symmetry = group["symmetry"]
        if symmetry == "None" or not bare(group):
            continue
        for other in alike(groups, group, symmetry, augment=[symmetry])[:1]:
            verdict.compare_rmse(group, other, "test", MARGIN)
        for other in alike(groups, group, "None", augment=[symmetry])[:1]:
            verdict.compare_rmse(group, other, symmetry)
    return verdict


def equivariance(groups):
    verdict = Verdict(
        5, "Equivariance errors are near zero, and |T| x error + EE bounds the error on transformed flows."
    )
    bounded, cases = 0, 0
    for group in groups:
        own = group.values("equivariance_error", group["symmetry"], "relative")
        exact = group["symmetry"] in NORM and not (group["variant"] or group["amp"]) and group["relaxed"] is None
        if exact and own:
            word = HOLDS if max(own) < NEARLY_ZERO else FAILS
            verdict.find(word, f"{name_of(group)}: relative error {max(own):.1e}")
        for run in group.runs:
            for symmetry in NORM.keys() & run["equivariance_error"].keys():
                bound = NORM[symmetry] * run["scores"]["test"]["rmse"] + run["equivariance_error"][symmetry]["absolute"]
                bounded += run["scores"][symmetry]["rmse"] <= (1 + SOME) * bound
                cases += 1
    if cases:
        word = HOLDS if bounded == cases else FAILS
        verdict.find(word, f"the bound holds in {bounded} of {cases} pairs of a run and a transformed set")
    return verdict


def upscaling(groups):
    verdict = Verdict(6, "Scale nets stay ahead of plain nets at every upscaling factor.")
    for group, plain in pairs(groups):
        if group["symmetry"] == "Scale":
            factors = {factor for scores in group.values("scores", "Scale", "by_factor") for factor in scores}
            for factor in sorted(factors, key=float):
                difference = seed_difference(group, plain, "scores", "Scale", "by_factor", factor, "rmse")
                if float(factor) > 1:
                    verdict.compare(difference, f"{name_of(group)} less {plain.label}: RMSE at x{factor}")
    return verdict


# ---------------------------------------------------------------- what the layers are worth


def frames(groups):
    verdict = Verdict(7, "A symmetric net is better than a plain net in a frame of reference with the same symmetry.")
    for group in groups:
        if group["symmetry"] in NORM and bare(group):
            for other in alike(groups, group, "None", frame=[group["symmetry"]])[:1]:
                verdict.compare(rmse_difference(group, other), f"{name_of(group)} less {other.label}: RMSE")
    return verdict


def constraint(groups):
    verdict = Verdict(8, "A symmetric net is better than the same net without its constraint.")
    for group in groups:
        if group["symmetry"] != "None" and bare(group):
            for other in alike(groups, group, group["symmetry"], variant="free")[:1]:
                verdict.compare(rmse_difference(group, other), f"{name_of(group)} less {other.label}: RMSE")
    return verdict


def other_parameters(groups):
    verdict = Verdict(13, "On flows of other parameters than they were trained on they are better than plain nets.")
    for group in groups:
        if group["symmetry"] != "None" and bare(group):
            for frame in ([], [group["symmetry"]]):
                for other in alike(groups, group, "None", frame=frame)[:1]:
                    verdict.compare_rmse(group, other, "domain")
    return verdict


# ---------------------------------------------------------------- the second paper: approximate symmetry


def relaxed_and_strict(groups):
    verdict = Verdict(9, "Where the data break a symmetry, relaxed nets are better than strict ones.")
    for (group, strict), test_set in product(strict_pairs(groups, exact=False), ("test", "domain")):
        verdict.compare_rmse(group, strict, test_set)
    return verdict


def relaxed_and_free(groups):
    verdict = Verdict(10, "Relaxed nets are better than nets that are free to break the symmetry.")
    for group in relaxed_nets(groups):
        rivals = alike(groups, group, "None")[:1] + alike(groups, group, "None", variant="norm")[:1]
        rivals += [other for other in alike(groups, group, group["symmetry"], relaxed=0) if free(other)][:1]
        for other, test_set in product(rivals, ("test", "domain")):
            verdict.compare_rmse(group, other, test_set)
    return verdict


def relaxed_on_exact_data(groups):
    verdict = Verdict(11, "Where the data keep the symmetry, relaxed nets are as good as strict ones.")
    for (group, strict), test_set in product(strict_pairs(groups, exact=True), ("test", "domain")):
        verdict.compare_rmse(group, strict, test_set, MARGIN)
    return verdict


def learned_deviation(groups):
    verdict = Verdict(12, "The learned deviation grows with the data's own equivariance error.")
    nets = {}
    for group in groups:
        if unchanged(group) and group["relaxed"] is not None and error_of_data(group) is not None:
            nets.setdefault((group["relaxed"], *all_but_lambda(group)), []).append(group)
    for likes in nets.values():
        if len(likes) >= DATA_SETS:
            from scipy.stats import spearmanr  # takes as long to import as the rest of the report, and is seldom needed

            deviations = [mean([mean(d.values()) for d in group.values("deviations")]) for group in likes]
            rank = spearmanr([error_of_data(group) for group in likes], deviations)
            known = rank.pvalue < 0.05  # False where all deviate alike, for then it is no number
            word = OPEN if not known else HOLDS if rank.statistic > 0 else FAILS
            numbers = f"rank correlation {rank.statistic:+.2f} (p = {rank.pvalue:.1g}) over {len(likes)} data sets"
            verdict.find(word, f"{likes[0].label}: {numbers}")
    return verdict
