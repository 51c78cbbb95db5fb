"""Is each claim of the paper reproduced? Rules and tolerances that were fixed before the runs were made.

Every rule compares means over the seeds. An equivariant group is judged against the plain net of the same architecture
in the same sweep (same data, width, epochs, training windows and precision). A claim is *reproduced* if all its
findings hold, *not reproduced* if none does, *partly* reproduced in between or where a part of it could not be looked
at, and *not decided* where no runs bear on it.

The tolerances:

1. A net keeps its error if the RMSE on its own transformed test set is within 2 % (``KEEPS``) of that on the original
   one; the plain net loses it if its RMSE there is at least 10 % (``LOSES``) higher. A finding holds if both do.
   Exact symmetries only: UM, Rot (quarter turns), and Mag, where both errors are first divided by those of
   persistence, because the strength of the flow changes with the factor.
2. On the original test set, one finding each: RMSE at most the plain net's plus one standard deviation of their
   difference, the root of the sum of both variances over seeds (0 with one seed); ESE below the plain net's.
3. Ocean, one finding each: RMSE on future time, and on the other domain, below the plain net's. Without a domain set
   the claim is reproduced partly at best.
4. Augmenting an equivariant net with its own symmetry lowers its RMSE on the original test set by no more than 2 %
   (``KEEPS``) or one standard deviation of the difference, whichever is more. And the equivariant net's RMSE on its
   transformed set is at most that of the plain net augmented with this symmetry, plus one standard deviation. Without
   runs for both the claim is reproduced partly at best.
5. The largest relative equivariance error of every float32 run under its own exact symmetry is below 1e-4
   (``NEARLY_ZERO``). And for every net and every exact symmetry, RMSE(transformed) <= |T| RMSE(original) + EE with
   |T| = 1 (UM, Rot) or 2 (Mag, the largest factor drawn); 2 % are allowed, since EE is measured on some windows only.
6. The scale net's RMSE, and its ESE, are below the plain net's at every upscaling factor above 1.
"""

import math
from dataclasses import dataclass, field

from evaluation.runs import sweep

KEEPS = 0.02
LOSES = 0.10
NEARLY_ZERO = 1e-4
NORM = {"UM": 1, "Mag": 2, "Rot": 1}  # |T|, of the exact symmetries


@dataclass
class Verdict:
    """A claim, the findings ``(holds, numbers)`` that decide it, and what was not there to look at."""

    number: int
    claim: str
    findings: list = field(default_factory=list)
    unseen: list = field(default_factory=list)

    def find(self, holds, numbers):
        self.findings.append((bool(holds), numbers))

    @property
    def word(self):
        held = sum(holds for holds, _ in self.findings)
        if not self.findings:
            return "not decided"
        if held == 0:
            return "not reproduced"
        whole = held == len(self.findings) and not self.unseen
        return ("reproduced" if whole else "partly reproduced") + f" ({held} of {len(self.findings)} findings hold)"

    def lines(self):
        return [
            *(f"{'holds' if holds else 'fails'}: {numbers}" for holds, numbers in self.findings),
            *(f"not looked at: {reason}" for reason in self.unseen),
        ]


def verdicts(groups):
    """One :class:`Verdict` per claim, from the groups of ``evaluation.runs.group_runs``."""
    groups = [group for group in groups if not group["frame"] and not group["variant"]]
    return [judge(groups) for judge in (keeps_its_error, original, ocean, augmentation, equivariance, upscaling)]


# ---------------------------------------------------------------- what is compared


def pairs(groups):
    """Every equivariant group, not augmented, with the plain group (the one of most seeds) it is judged against."""
    found = []
    for group in groups:
        if group["symmetry"] != "None" and not group["augment"]:
            plain = [other for other in rivals(groups, group) if other["symmetry"] == "None" and not other["augment"]]
            if plain:
                found.append((group, max(plain, key=lambda other: len(other.runs))))
    return found


def rivals(groups, group):
    """The groups of the same architecture and sweep, augmented ones included."""
    return [
        other
        for other in groups
        if other is not group and other["architecture"] == group["architecture"] and sweep(other) == sweep(group)
    ]


def name_of(group):
    return f"{group.title} {group.label}"


def error(group, test_set="test", measure="rmse"):
    return group.mean("scores", test_set, measure)


def spread(a, b, test_set):
    """Standard deviation of the difference of two RMSEs over seeds."""
    return math.hypot(*(group.std("scores", test_set, "rmse") for group in (a, b)))


def change(group, symmetry):
    """Relative change of the RMSE from the original to the transformed test set, Mag in units of persistence."""
    ratio = error(group, symmetry) / error(group)
    if symmetry == "Mag":
        persistence = [group.mean("baselines", "persistence", name, "rmse") for name in ("test", "Mag")]
        ratio *= persistence[0] / persistence[1]
    return ratio - 1


# ---------------------------------------------------------------- the claims


def keeps_its_error(groups):
    verdict = Verdict(1, "Equivariant nets keep their error on flows transformed by their symmetry, plain nets do not.")
    for group, plain in pairs(groups):
        symmetry = group["symmetry"]
        if symmetry in NORM and error(group, symmetry) is not None and error(plain, symmetry) is not None:
            own, other = change(group, symmetry), change(plain, symmetry)
            numbers = f"{name_of(group)}: RMSE {own:+.2%} from test to {symmetry}, plain net {other:+.1%}"
            verdict.find(abs(own) <= KEEPS and other >= LOSES, numbers)
    if not verdict.findings:
        verdict.unseen.append("no equivariant net beside its plain net, tested on its transformed set")
    return verdict


def original(groups):
    verdict = Verdict(2, "They are at least as good as plain nets on the original test set, with lower ESE.")
    for group, plain in pairs(groups):
        allowed = spread(group, plain, "test")
        numbers = f"{name_of(group)}: RMSE {error(group):.3f}, plain net {error(plain):.3f} + {allowed:.3f}"
        verdict.find(error(group) <= error(plain) + allowed, numbers)
        own, other = error(group, measure="ese"), error(plain, measure="ese")
        verdict.find(own < other, f"{name_of(group)}: ESE {own:.3f}, plain net {other:.3f}")
    if not verdict.findings:
        verdict.unseen.append("no equivariant net beside its plain net")
    return verdict


def ocean(groups):
    verdict = Verdict(3, "On ocean currents they are better on future time and on another ocean.")
    seen = set()
    for group, plain in pairs(groups):
        for test_set, words in (("test", "future"), ("domain", "domain")):
            own, other = error(group, test_set), error(plain, test_set)
            if group["dataset"] == "Ocean" and own is not None and other is not None:
                seen.add(words)
                verdict.find(own < other, f"{name_of(group)}: {words} RMSE {own:.3f}, plain net {other:.3f}")
    for words in ("future", "domain"):
        if words not in seen:
            verdict.unseen.append(f"no pair of ocean runs with a {words} test set")
    return verdict


def augmentation(groups):
    verdict = Verdict(
        4, "Augmentation does not help equivariant nets; the augmented plain net is the baseline to beat."
    )
    asked = set()
    for group in groups:
        symmetry = group["symmetry"]
        if symmetry == "None" or group["augment"]:
            continue
        for other in rivals(groups, group):
            if other["symmetry"] == symmetry and other["augment"] == [symmetry]:
                asked.add("gain")
                allowed = max(KEEPS * error(group), spread(group, other, "test"))
                numbers = f"{name_of(group)}: RMSE {error(group):.3f}, augmented {error(other):.3f}"
                verdict.find(error(other) >= error(group) - allowed, numbers)
            own, theirs = error(group, symmetry), error(other, symmetry)
            if other["symmetry"] == "None" and symmetry in other["augment"] and own is not None and theirs is not None:
                asked.add("baseline")
                allowed = spread(group, other, symmetry)
                numbers = f"{name_of(group)}: RMSE on {symmetry} {own:.3f}, {other.label} {theirs:.3f} + {allowed:.3f}"
                verdict.find(own <= theirs + allowed, numbers)
    if "gain" not in asked:
        verdict.unseen.append("no equivariant net trained also with --augment by its own symmetry")
    if "baseline" not in asked:
        verdict.unseen.append("no plain net with --augment beside an equivariant one")
    return verdict


def equivariance(groups):
    verdict = Verdict(
        5, "Equivariance errors are near zero, and |T| x error + EE bounds the error on transformed flows."
    )
    bounded, cases = 0, 0
    for group in groups:
        own = group.values("equivariance_error", group["symmetry"], "relative")
        if group["symmetry"] in NORM and own and not group["amp"]:
            verdict.find(max(own) < NEARLY_ZERO, f"{name_of(group)}: relative error {max(own):.1e}")
        for run in group.runs:
            for symmetry in NORM.keys() & run["equivariance_error"].keys():
                bound = NORM[symmetry] * run["scores"]["test"]["rmse"] + run["equivariance_error"][symmetry]["absolute"]
                bounded += run["scores"][symmetry]["rmse"] <= (1 + KEEPS) * bound
                cases += 1
    if cases:
        verdict.find(bounded == cases, f"the bound holds in {bounded} of {cases} pairs of a run and a transformed set")
    if not verdict.findings:
        verdict.unseen.append("no run has equivariance errors")
    return verdict


def upscaling(groups):
    verdict = Verdict(6, "Scale nets stay ahead of plain nets at every upscaling factor.")
    for group, plain in pairs(groups):
        if group["symmetry"] != "Scale":
            continue
        for measure in ("rmse", "ese"):
            both = [(factor, *values) for factor, *values in by_factor(group, plain, measure) if float(factor) > 1]
            if both:
                cells = ", ".join(f"x{factor} {own:.3f} / {other:.3f}" for factor, own, other in both)
                numbers = f"{name_of(group)} / plain net: {measure.upper()} {cells}"
                verdict.find(all(own < other for _, own, other in both), numbers)
    if not verdict.findings:
        verdict.unseen.append("no scale net beside its plain net with scores by factor")
    return verdict


def by_factor(group, plain, measure):
    """``(factor, own, other)`` for every upscaling factor that both were tested on, in ascending order."""
    factors = sorted(
        {factor for scores in group.values("scores", "Scale", "by_factor") for factor in scores}, key=float
    )
    means = [(f, *(g.mean("scores", "Scale", "by_factor", f, measure) for g in (group, plain))) for f in factors]
    return [row for row in means if None not in row]
