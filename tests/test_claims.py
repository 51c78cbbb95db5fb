"""Verdicts by rules fixed beforehand: intervals of paired differences, and what holds, fails or stays open."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from made import write_run

from evaluation import claims, report
from evaluation.paired import interval, rmse_difference, seed_difference
from evaluation.runs import group_runs, load_runs
from utils import exit_code

BLOCKS = np.repeat(np.arange(12), 5)  # 60 windows, of which five each are nearly the same


def write(folder, rmse, seed=0, noise=0.02, sets=("test",), **settings):
    """A run whose errors scatter about ``rmse`` (a number, or one by test set) from block to block and seed to seed."""
    by_set = rmse if isinstance(rmse, dict) else dict.fromkeys(sets, rmse)
    windows = {"blocks": {name: BLOCKS.tolist() for name in by_set}}
    for name, value in by_set.items():
        rng = np.random.default_rng(seed)  # the same windows for all nets
        scatter = 1 + noise * rng.standard_normal(12)[BLOCKS] + noise * rng.standard_normal()
        windows[name] = (value**2 * scatter).tolist()
    ese = settings.pop("ese", 1.0)
    scores = {name: (math.sqrt(np.mean(windows[name])), ese) for name in by_set}
    path = write_run(folder, scores, seed=seed, **settings)
    (path / "windows.json").write_text(json.dumps(windows))
    return path


def five(folder, rmse, **settings):
    for seed in range(5):
        write(folder, rmse, seed, **settings)


def judged(folder, number):
    """The word and the findings of one claim, those of one seed last."""
    verdict = claims.verdicts(group_runs(load_runs(folder)))[number - 1]
    assert verdict.number == number
    assert [f"open: what one seed says, {verdict.alone} of {len(verdict.findings) + verdict.alone}"] * bool(
        verdict.alone
    ) == [line for line in verdict.lines() if "one seed" in line]
    return verdict.word.split(" (")[0], [word for word, _ in verdict.findings] + ["open"] * verdict.alone


# ---------------------------------------------------------------- intervals


def groups_of(folder):
    return {group["symmetry"]: group for group in group_runs(load_runs(folder))}


def test_what_two_nets_share_cancels(tmp_path):
    """Windows and seeds that are hard for both widen neither's interval: what is left of it is a share of .1."""
    five(tmp_path, 0.5, symmetry="None", noise=0.1)
    five(tmp_path, 0.4, symmetry="UM", noise=0.1)
    groups = groups_of(tmp_path)
    found = rmse_difference(groups["UM"], groups["None"])
    assert found.low < found.estimate < found.high < 0
    assert found.estimate == pytest.approx(-0.1, rel=0.1)
    assert found.high - found.low < 0.03
    assert (found.seeds, found.blocks, found.sign) == (5, 12, -1)
    back = rmse_difference(groups["None"], groups["UM"])
    assert (back.estimate, back.sign) == (pytest.approx(-found.estimate), 1)


def test_the_interval_is_as_wide_as_the_scatter(tmp_path):
    """Errors that differ by block, with variance s^2 of the squared error: t s / sqrt(12 - 1) / 2 r to either side."""
    scatter = 0.2
    for seed in range(5):
        for symmetry in ("None", "UM"):
            path = write(tmp_path, 1.0, seed, noise=0, symmetry=symmetry)
            errors = json.loads((path / "windows.json").read_text())
            if symmetry == "UM":
                block = np.random.default_rng(3).standard_normal(12)
                block = (block - block.mean()) / block.std()
                errors["test"] = (1 + scatter * block[BLOCKS]).tolist()
                (path / "windows.json").write_text(json.dumps(errors))
    groups = groups_of(tmp_path)
    found = rmse_difference(groups["UM"], groups["None"])
    half = scipy.stats.t.ppf(0.975, 11) * scatter / math.sqrt(11) / 2
    assert found.estimate == pytest.approx(0, abs=1e-6)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.sign == 0


@pytest.mark.parametrize(
    ("seeds", "blocks", "scatter"),
    [(2, 1, (1, 0, 0)), (5, 1, (1, 0, 1)), (5, 7, (1, 0, 0)), (5, 7, (0, 1, 0)), (5, 7, (1, 1, 1)), (3, 18, (1, 1, 0))],
)
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, blocks, scatter):
    """Of the mean of normal tables, 0 in truth, that scatter by seed, by block and by both."""
    rng, held, by_seed_alone, draws = np.random.default_rng(0), 0, 0, 500
    for _ in range(draws):
        shapes = (seeds, 1), (1, blocks), (seeds, blocks)
        table = sum(size * rng.standard_normal(shape) for size, shape in zip(scatter, shapes, strict=True))
        table = table + np.zeros((seeds, blocks))
        found, alone = interval(table.mean(1), table.mean(0)), interval(table.mean(1))
        held += found.low <= 0 <= found.high
        by_seed_alone += alone.low <= 0 <= alone.high
    assert held >= 0.93 * draws
    if scatter == (0, 1, 0):
        assert by_seed_alone < 0.1 * draws  # seeds know nothing of other windows


def test_one_seed_has_no_interval(tmp_path):
    for symmetry, rmse in (("None", 0.5), ("UM", 0.4)):
        write(tmp_path, rmse, symmetry=symmetry, noise=0, ese=rmse)
    groups = groups_of(tmp_path)
    of_ese = seed_difference(groups["UM"], groups["None"], "scores", "test", "ese")
    for found in (rmse_difference(groups["UM"], groups["None"]), of_ese):
        assert (found.sign, found.seeds) == (0, 1)
        assert str(found) == "-0.100 (no interval)"
    assert judged(tmp_path, 2) == ("open", ["open", "open"])


def test_only_common_seeds_count(tmp_path):
    for seed in (0, 1, 2):
        write(tmp_path, 0.5, seed, symmetry="None")
    for seed in (1, 2, 3):
        write(tmp_path, 0.4, seed, symmetry="UM", ese=0.5)
    groups = groups_of(tmp_path)
    assert rmse_difference(groups["UM"], groups["None"]).seeds == 2
    found = seed_difference(groups["UM"], groups["None"], "scores", "test", "ese")
    assert (found.estimate, found.low, found.high, found.seeds) == (-0.5, -0.5, -0.5, 2)


def test_runs_without_errors_by_window(tmp_path):
    write_run(tmp_path, {"test": (0.5, 1)}, symmetry="None")
    write(tmp_path, 0.4, symmetry="UM")
    groups = groups_of(tmp_path)
    assert rmse_difference(groups["UM"], groups["None"]) is None


# ---------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("own", "plain", "word"),
    [
        (0.3, 0.5, "reproduced"),
        (0.301, 0.5, "reproduced"),  # within half a percent
        (0.302, 0.5, "not reproduced"),
        (0.298, 0.5, "not reproduced"),  # getting better is no keeping
        (0.3, 0.4, "open"),  # the plain net loses nothing, either
        (0.3, 0.3, "not reproduced"),  # it gains
    ],
)
def test_claim_1(tmp_path, own, plain, word):
    five(tmp_path, {"test": 0.4, "UM": plain}, symmetry="None")
    five(tmp_path, {"test": 0.3, "UM": own}, symmetry="UM")
    assert judged(tmp_path, 1)[0] == word


def test_claim_1_counts_magnitude_in_units_of_persistence(tmp_path):
    """And takes the equivariance error of the net that should keep it: factors weigh the windows anew."""
    for relative, word in ((1e-6, "holds"), (0.01, "fails"), (math.nan, "fails")):
        folder = tmp_path / str(relative)
        for symmetry, factor in (("None", 1.4), ("Mag", 1.23)):  # persistence has 20 % more
            for seed in range(5):
                errors = {"Mag": {"absolute": 0.0, "relative": relative if symmetry == "Mag" else 0.3}}
                rmses = {"test": 0.3, "Mag": 0.3 * factor}
                path = write(folder, rmses, seed, symmetry=symmetry, equivariance_error=errors)
                metrics = json.loads((path / "metrics.json").read_text())
                metrics["baselines"] = {"persistence": {"test": {"rmse": 1.0}, "Mag": {"rmse": 1.2}}}
                (path / "metrics.json").write_text(json.dumps(metrics))
        assert judged(folder, 1)[1] == [word]


def test_claim_2(tmp_path):
    five(tmp_path, 0.5, symmetry="None", ese=0.8)
    five(tmp_path, 0.4, symmetry="UM", ese=0.9)
    assert judged(tmp_path, 2) == ("partly reproduced", ["holds", "fails"])
    five(tmp_path, 0.5, symmetry="Mag", ese=0.7)
    assert judged(tmp_path, 2)[1] == ["holds", "fails", "open", "holds"]


def test_claim_3(tmp_path):
    five(tmp_path, 0.5, symmetry="None", dataset="Ocean")
    five(tmp_path, 0.4, symmetry="UM", dataset="Ocean")
    assert judged(tmp_path, 3) == ("partly reproduced", ["holds"])  # no domain
    five(tmp_path / "both", {"test": 0.5, "domain": 0.8}, symmetry="None", dataset="Ocean")
    five(tmp_path / "both", {"test": 0.4, "domain": 0.9}, symmetry="UM", dataset="Ocean")
    assert judged(tmp_path / "both", 3) == ("partly reproduced", ["holds", "fails"])


def test_one_seed_decides_nothing(tmp_path):
    """Nor does it where a claim holds unless an interval says no."""
    exact = {"data_error": {"Rot": {"relative": 0.0}}}
    for settings in ({}, {"augment": "Rot"}, {"relaxed": 1}):
        write(tmp_path, {"test": 0.4, "Rot": 0.4}, symmetry="Rot", **exact, **settings)
    assert judged(tmp_path, 4) == ("open", ["open"])
    assert judged(tmp_path, 11) == ("open", ["open"])


@pytest.mark.parametrize(("spread", "word"), [(0.01, "holds"), (0.1, "open")])
def test_noise_is_no_sign_of_being_as_good(tmp_path, spread, word):
    """Seeds of the one net alternate: an interval that holds 0 is enough only where it is narrow."""
    settings = {"symmetry": "UM", "data_error": {"UM": {"relative": 0.0}}}
    for seed in range(5):
        write(tmp_path, 0.4, seed, **settings)
        write(tmp_path, 0.4 + spread * (-1) ** seed * (seed != 4), seed, augment="UM", **settings)
        write(tmp_path, 0.4 + spread * (-1) ** seed * (seed != 4), seed, relaxed=1, **settings)
    assert judged(tmp_path, 4)[1] == judged(tmp_path, 11)[1] == [word]


def test_broken_errors_by_window(tmp_path, capsys):
    for symmetry in ("None", "UM"):
        path = write(tmp_path, 0.4, symmetry=symmetry)
    (path / "windows.json").write_text('{"blocks": {"te')
    assert exit_code(lambda: report.main([str(tmp_path), "--verdicts"])) == 2
    assert "windows.json is broken" in capsys.readouterr().err


def test_claim_4(tmp_path):
    five(tmp_path, {"test": 0.4, "UM": 0.4}, symmetry="UM")
    assert judged(tmp_path, 4) == ("not decided", [])
    five(tmp_path, {"test": 0.5, "UM": 0.5}, symmetry="None", augment="UM,Mag")  # not by this symmetry alone
    assert judged(tmp_path, 4) == ("not decided", [])
    five(tmp_path, {"test": 0.5, "UM": 0.5}, symmetry="None", augment="UM")
    five(tmp_path, {"test": 0.4, "UM": 0.4}, symmetry="UM", augment="UM")
    assert judged(tmp_path, 4) == ("reproduced", ["holds", "holds"])
    five(tmp_path, {"test": 0.4, "Mag": 0.4}, symmetry="Mag")
    five(tmp_path, {"test": 0.3, "Mag": 0.3}, symmetry="Mag", augment="Mag")
    assert judged(tmp_path, 4) == ("partly reproduced", ["holds", "holds", "fails"])


@pytest.mark.parametrize(
    ("relative", "rmse", "findings"),
    [(9e-5, 0.5, ["holds", "holds"]), (2e-4, 0.5, ["fails", "holds"]), (9e-5, 0.7, ["holds", "fails"])],
)
def test_claim_5(tmp_path, relative, rmse, findings):
    """RMSE 0.3 on the original, |T| = 2, EE 0.05: the bound is 0.65, and 2 % more are allowed."""
    errors = {"Mag": {"absolute": 0.05, "relative": relative}}
    write_run(tmp_path, {"test": (0.3, 1), "Mag": (rmse, 1)}, symmetry="Mag", equivariance_error=errors)
    assert judged(tmp_path, 5)[1] == findings


@pytest.mark.parametrize("number", [7, 8])
def test_what_a_layer_is_worth(tmp_path, number):
    rival = {7: {"symmetry": "None", "frame": "UM"}, 8: {"symmetry": "UM", "variant": "free"}}[number]
    five(tmp_path, 0.4, symmetry="UM")
    assert judged(tmp_path, number) == ("not decided", [])
    five(tmp_path, 0.5, **rival)
    assert judged(tmp_path, number) == ("reproduced", ["holds"])
    five(tmp_path / "worse", 0.6, symmetry="UM")
    five(tmp_path / "worse", 0.5, **rival)
    assert judged(tmp_path / "worse", number) == ("not reproduced", ["fails"])


def relaxed_and_rivals(folder, relaxed, strict, plain, error=None, **settings):
    """Five seeds of a relaxed rotation net, of the strict and of the plain one, on data of that error."""
    settings |= {"data_error": {} if error is None else {"Rot": {"relative": error}}}
    five(folder, relaxed, symmetry="Rot", relaxed=1, **settings)
    five(folder, strict, symmetry="Rot", **settings)
    five(folder, plain, symmetry="None", **settings)


@pytest.mark.parametrize(
    ("error", "rmse", "broken", "exact"),
    [
        (None, (0.4, 0.5), ["holds"], []),
        (0.2, (0.5, 0.4), ["fails"], []),
        (0.001, (0.4, 0.5), [], ["holds"]),
        (0.001, (0.5, 0.4), [], ["fails"]),
        (0.001, (0.4, 0.4), [], ["holds"]),
        (0.001, (0.419, 0.4), [], ["fails"]),  # surely, though by little
    ],
)
def test_relaxed_against_strict(tmp_path, error, rmse, broken, exact):
    """Where the data break the symmetry the relaxed net must be better, where they keep it not worse."""
    relaxed_and_rivals(tmp_path, *rmse, 0.6, error)
    assert judged(tmp_path, 9)[1] == broken
    assert judged(tmp_path, 11)[1] == exact


def test_relaxed_against_strict_on_another_domain(tmp_path):
    relaxed_and_rivals(tmp_path, {"test": 0.4, "domain": 0.5}, {"test": 0.5, "domain": 0.4}, 0.6)
    assert judged(tmp_path, 9) == ("partly reproduced", ["holds", "fails"])


def test_relaxed_against_free(tmp_path):
    relaxed_and_rivals(tmp_path, 0.4, 0.5, 0.6)
    assert judged(tmp_path, 10) == ("reproduced", ["holds"])
    five(tmp_path, 0.3, symmetry="Rot", relaxed=0, deviation="free")
    assert judged(tmp_path, 10) == ("partly reproduced", ["holds", "fails"])
    five(tmp_path, 0.3, symmetry="None", variant="norm", architecture="ConvNet")  # another net
    assert len(judged(tmp_path, 10)[1]) == 2


def test_relaxed_against_the_published_plain_net(tmp_path):
    relaxed_and_rivals(tmp_path, 0.4, 0.5, 0.6, architecture="ConvNet")
    five(tmp_path, 0.3, symmetry="None", variant="norm", architecture="ConvNet")
    assert judged(tmp_path, 10) == ("partly reproduced", ["holds", "fails"])


def test_the_other_domain_counts(tmp_path):
    relaxed, strict, plain = ({"test": 0.4, "domain": domain} for domain in (0.5, 0.3, 0.3))
    relaxed_and_rivals(tmp_path, relaxed, strict, plain | {"test": 0.5}, 0.001)
    assert judged(tmp_path, 10)[1] == ["holds", "fails"]
    assert judged(tmp_path, 11)[1] == ["holds", "fails"]


def test_of_relaxed_nets_the_best_on_validation_is_compared(tmp_path):
    relaxed_and_rivals(tmp_path, 0.6, 0.5, 0.7, valid_rmse=0.5)
    five(tmp_path, 0.4, symmetry="Rot", relaxed=0.1, valid_rmse=0.4)
    five(tmp_path, 0.3, symmetry="Rot", relaxed=10, valid_rmse=0.6)
    write(tmp_path, 0.2, symmetry="Rot", relaxed=100, valid_rmse=0.1)  # one seed
    five(tmp_path, 0.1, symmetry="Rot", relaxed=0.1, rotation_order=4)  # its strict net was not trained
    (interval,) = claims.verdicts(group_runs(load_runs(tmp_path)))[8].findings
    assert interval[0] == "holds"
    assert "ResNet Rot relaxed 0.1 less ResNet Rot: RMSE on test -0.099" in interval[1]


@pytest.mark.parametrize(
    ("deviations", "word"),
    [
        (range(7), "reproduced"),
        (range(6, -1, -1), "not reproduced"),
        ((3, 0, 4, 1, 2, 6, 5), "open"),
        ([1] * 7, "open"),
    ],
)
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_claim_12(tmp_path, deviations, word):
    for level, deviation in enumerate(deviations):
        settings = {"symmetry": "Rot", "relaxed": 1, "dataset": f"level{level}", "data": str(level)}
        deviations = {"a": deviation, "b": deviation + 1}
        write(tmp_path, 0.4, data_error={"Rot": {"relative": level / 10}}, deviations=deviations, **settings)
        if level == 5:
            assert judged(tmp_path, 12) == ("not decided", [])
    assert judged(tmp_path, 12)[0] == word


def test_relaxed_nets_are_not_the_strict_ones_of_the_other_claims(tmp_path):
    relaxed_and_rivals(tmp_path, {"test": 0.4, "Rot": 0.5}, {"test": 0.5, "Rot": 0.5}, {"test": 0.6, "Rot": 0.8})
    assert judged(tmp_path, 1)[1] == ["holds"]
    assert len(judged(tmp_path, 2)[1]) == 2
    assert len(judged(tmp_path, 5)[1]) == 2  # the strict net, and the bound


def test_only_equal_terms_are_compared(tmp_path):
    five(tmp_path, 0.3, symmetry="UM")
    for seed, other in enumerate(
        (
            {"patience": 3},
            {"architecture": "Unet"},
            {"augment": "UM"},
            {"train_fraction": 0.5},
            {"scale_windows": 0},
            {"padding": "circular"},
        )
    ):
        write(tmp_path, 0.5, seed, symmetry="None", **other)
    groups = group_runs(load_runs(tmp_path))
    assert [*claims.pairs(groups)] == []
    five(tmp_path, 0.5, symmetry="None", width=0.5)
    five(tmp_path, 0.5, symmetry="None", learning_rate=0.01)  # of each the one that it wants; its own width comes first
    ((group, plain),) = claims.pairs(group_runs(load_runs(tmp_path)))
    assert (group["symmetry"], plain["symmetry"], plain["width"]) == ("UM", "None", 1)


def test_of_the_learning_rates_tried_the_best_on_validation_counts(tmp_path):
    """Two seeds each, so that the better test error of the other rate does not count; then that of most seeds."""
    for seed in (0, 1):
        write(tmp_path, 0.4, seed, symmetry="UM", learning_rate=0.001, valid_rmse=0.5)
        write(tmp_path, 0.2, seed, symmetry="UM", learning_rate=0.01, valid_rmse=0.6)
        write(tmp_path, 0.5, seed, symmetry="None", learning_rate=0.001, valid_rmse=0.6)
        write(tmp_path, 0.3, seed, symmetry="None", learning_rate=0.003, valid_rmse=0.5)
    assert judged(tmp_path, 2) == ("not reproduced", ["fails", "open"])
    for seed in (2, 3):
        write(tmp_path, 0.5, seed, symmetry="None", learning_rate=0.001, valid_rmse=0.6)
    assert judged(tmp_path, 2) == ("partly reproduced", ["holds", "open"])


def moved(folder, rmse, **settings):
    """Five runs that were trained on other data than they are scored on."""
    for seed in range(5):
        path = write(folder, {"test": 0.5, "domain": rmse}, seed, **settings) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_on": "b"}))


def test_claim_13(tmp_path):
    five(tmp_path, {"test": 0.4, "domain": 0.9}, symmetry="UM")  # trained and tested on the same data: not looked at
    five(tmp_path, {"test": 0.5, "domain": 0.8}, symmetry="None")
    assert judged(tmp_path, 13) == ("not decided", [])
    elsewhere = {"dataset": "other", "data": "c"}
    moved(tmp_path, 0.6, symmetry="UM", **elsewhere)
    moved(tmp_path, 0.7, symmetry="None", **elsewhere)
    assert judged(tmp_path, 13) == ("reproduced", ["holds"])
    moved(tmp_path, 0.5, symmetry="None", frame="UM", **elsewhere)
    assert judged(tmp_path, 13) == ("partly reproduced", ["holds", "fails"])
    assert len(judged(tmp_path, 2)[1]) == 2  # of the pair at home alone


def test_verdicts_are_printed(tmp_path, capsys):
    for seed in range(3):
        write(tmp_path, {"test": 0.4, "UM": 0.8}, seed, symmetry="None", noise=0)
        write(tmp_path, {"test": 0.3, "UM": 0.3}, seed, symmetry="UM", noise=0)
    for flag in ((), ("--markdown",)):
        assert exit_code(lambda flag=flag: report.main([str(tmp_path), "--verdicts", *flag])) == 0
    out = capsys.readouterr().out
    assert "Claim 1: reproduced (1 holds)" in out
    assert "holds: RBC ResNet UM: RMSE +0.00% from test to UM, plain net +0.400 [+0.400, +0.400] in 3 seeds" in out
    words = (
        "holds: RBC ResNet UM less ResNet: RMSE -0.100 [-0.100, -0.100] (3 seeds, 12 blocks of windows, fewer than 5)"
    )
    assert words in out
    assert "Claim 3" not in out
    assert out.splitlines()[-1].startswith("- Not decided: 3, 4, 6, ")
    assert "- **Claim 1: reproduced" in out
