"""Tables, verdicts and evidence, from runs written by hand and from a real one."""

import csv
import io
import json
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made import write_run

import run_model
from evaluation import report
from evaluation.flags import parse_args
from evaluation.runs import collect, group_runs, load_runs, missing_runs
from models import SYMMETRIES
from utils import InputError, exit_code

ROOT = Path(__file__).parents[1]
EVIDENCE = ROOT / "evaluation" / "evidence"


def change(path, **values):
    """Change values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def same(value, names=("test", "UM", "Mag")):
    """Equal RMSE on all test sets, ESE twice as large."""
    return dict.fromkeys(names, (value, 2 * value))


def run_report(capsys, *arguments):
    assert exit_code(lambda: report.main([str(argument) for argument in arguments])) == 0
    return capsys.readouterr().out


def table(text, title):
    """Rows of a text table as {label: cells}, the label being all that stands before the number of seeds."""
    lines = iter(text.splitlines())
    while next(lines) != title:
        pass
    columns, rows = next(lines).split(), {}
    for line in lines:
        if line and not line.startswith("  "):
            break
        words = line.split()
        if words and not line.startswith("  ("):
            count = len(columns) - (words[0] == "persistence")
            rows[" ".join(words[:-count])] = words[-count:]
    return columns, rows


# ---------------------------------------------------------------- tables


def test_means_over_seeds(tmp_path, capsys):
    values = [0.3, 0.5, 0.7]
    for seed, value in enumerate(values):
        write_run(tmp_path, same(value), symmetry="None", seed=seed, persistence=0.9)
    write_run(tmp_path, same(0.4), symmetry="UM")
    text = run_report(capsys, tmp_path)
    columns, rows = table(text, "RBC: RMSE of 10 forecast frames")
    assert columns == ["n", "test", "UM", "Mag"]
    assert rows["ResNet"] == ["3"] + ["0.500+-0.200"] * 3  # the sample standard deviation: divisor n - 1
    assert rows["ResNet UM"] == ["1"] + ["0.400*"] * 3  # the best, and one seed has no deviation
    assert rows["persistence"] == [f"{statistics.mean([0.9, 0.9, 0.9, 1.0]):.3f}"] * 3
    assert table(text, "RBC: ESE of 10 forecast frames")[1]["ResNet"] == ["3"] + ["1.000+-0.400"] * 3


def test_best_of_an_architecture_and_only_beside_others(tmp_path, capsys):
    write_run(tmp_path, {"test": (0.3, 1.0), "UM": (0.9, 3.0)}, symmetry="None")
    write_run(tmp_path, {"test": (0.4, 2.0), "UM": (0.4, 2.0)}, symmetry="UM")
    write_run(tmp_path, {"test": (0.1, 0.1)}, symmetry="UM", architecture="Unet")
    _, rows = table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")
    assert rows["ResNet"] == ["1", "0.300*", "0.900"]
    assert rows["ResNet UM"] == ["1", "0.400", "0.400*"]
    assert rows["Unet UM"] == ["1", "0.100", "-"]
    markdown = run_report(capsys, tmp_path, "--markdown")
    assert "| ResNet | 1 | **0.300** | 0.900 |" in markdown
    assert "| Unet UM | 1 | 0.100 | - |" in markdown


def test_errors_that_a_forecast_without_a_net_undercuts_say_so(tmp_path, capsys):
    """The mean over the seeds is compared with the best of all baselines, in every table of errors; a tie is behind."""
    baselines = {
        "persistence": {"test": {"rmse": 0.9}, "UM": {"rmse": 0.5}},
        "damped trend": {"test": {"rmse": 0.5}, "UM": {"rmse": 0.9}},
    }
    for symmetry, errors in {"None": (0.5, 0.4), "UM": (0.3, 0.6)}.items():
        for seed, shift in enumerate((-0.15, 0.15)):
            scores = {"test": (errors[0] + shift, 9.0), "UM": (errors[1] + shift, 9.0)}
            folder = write_run(tmp_path, scores, symmetry=symmetry, seed=seed, baselines=baselines)
            errors_of = {name: [rmse**2] for name, (rmse, _) in scores.items()}
            (folder / "windows.json").write_text(json.dumps({"blocks": {"test": [0], "UM": [0]}, **errors_of}))
    text = run_report(capsys, tmp_path)
    _, rows = table(text, "RBC: RMSE of 10 forecast frames")
    assert rows["ResNet"] == ["2", "0.500+-0.212!", "0.400+-0.212*"]
    assert rows["ResNet UM"] == ["2", "0.300+-0.212*", "0.600+-0.212!"]
    assert "!: not ahead of the best forecast without a net" in text
    marked, still = (
        next(line for line in text.splitlines() if line.startswith(f"  {row} ")) for row in ("ResNet", "persistence")
    )
    ends = [[number.end() for number in re.finditer(r"\d(?=[*! ]|$)", line)][-2:] for line in (marked, still)]
    assert ends[0] == ends[1]  # a mark does not push its number out of the column
    _, *spectra = table(text, "RBC: ESE of 10 forecast frames")
    assert "!" not in str(spectra)
    published = next(line for line in text.partition("published")[2].splitlines() if line.startswith("  ResNet  "))
    assert published.split()[2] == "0.50+-0.21!"
    (line,) = (
        line for line in run_report(capsys, tmp_path, "--markdown", "--rmse").splitlines() if "| ResNet |" in line
    )
    assert line == "| ResNet | 2 | 0.500 ± 0.212 † | **0.400 ± 0.212** |"
    differences = run_report(capsys, tmp_path, "--against", "ResNet UM$", "--markdown")
    assert "; †: not ahead of the best forecast without a net)" in differences
    (line,) = (line for line in differences.splitlines() if "| ResNet |" in line)
    assert [cell.endswith("†") for cell in line.replace(" |", "|").split("|")[4:6]] == [True, False]


def test_nothing_is_ahead_of_the_last_frame_of_a_flow_that_stands_still(tmp_path, capsys):
    write_run(tmp_path, same(0.1), persistence=0.0)
    _, rows = table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")
    assert rows["ResNet UM"] == ["1", *["0.100!"] * 3]


@pytest.mark.parametrize(
    "setting",
    [
        "width=0.5",
        "num_epoch=2",
        "kernel_size=5",
        "decay_rate=0.5",
        "input_length=10",
        "train_fraction=0.5",
        "padding=circular",
    ],
)
def test_other_settings_are_another_row(tmp_path, capsys, setting):
    name, value = setting.split("=")
    write_run(tmp_path, same(0.3), symmetry="UM", seed=0)
    write_run(tmp_path, same(0.9), symmetry="UM", seed=1, **{name: value})
    _, rows = table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")
    default = vars(parse_args(["--num_epoch=3"]))[name]
    # these are said where they are not 1, or not the net's own
    usual = "" if name in ("width", "train_fraction", "padding") else f" {name} {default}"
    assert {label: cells[:2] for label, cells in rows.items() if label != "persistence"} == {
        f"ResNet UM{usual}": ["1", "0.300*"],
        f"ResNet UM {name} {value}": ["1", "0.900"],
    }


def test_learning_rates(tmp_path, capsys):
    """A table of its own says what was tried; of the others, rows are of the rate with most seeds, then the best."""
    for rate, valid in ((0.001, 0.7), (0.003, 0.5), (0.01, 0.6)):
        write_run(tmp_path, same(rate), symmetry="UM", learning_rate=rate, valid_rmse=valid)
    write_run(tmp_path, same(0.2), symmetry="None")
    columns, rows = table(run_report(capsys, tmp_path, "--rates"), "RBC: validation by learning rate")
    assert (columns, rows) == (["n", "0.001", "0.003", "0.01"], {"ResNet UM": ["1", "0.700", "0.500*", "0.600"]})
    _, rows = table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")
    assert {label: cells[:2] for label, cells in rows.items() if label != "persistence"} == {
        "ResNet": ["1", "0.200"],
        "ResNet UM": ["1", "0.003*"],
    }
    assert len(run_report(capsys, tmp_path, "--csv").split(",0.01,")) > 1  # the raw numbers are all there
    write_run(tmp_path, same(0.9), symmetry="UM", learning_rate=0.001, seed=1, valid_rmse=0.1)
    _, rows = table(run_report(capsys, tmp_path, "--rates"), "RBC: validation by learning rate")
    assert rows == {"ResNet UM": ["1", "0.700", "0.500*", "0.600"]}  # of the seeds with which most were tried
    _, rows = table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")
    assert rows["ResNet UM"][0] == "2"  # those of 0.001
    for rate in (0.003, 0.01):
        write_run(tmp_path, same(0.9), symmetry="UM", learning_rate=rate, seed=1, valid_rmse=0.8)
    _, rows = table(run_report(capsys, tmp_path, "--rates"), "RBC: validation by learning rate")
    assert [cell[:5] for cell in rows["ResNet UM"]] == ["2", "0.400", "0.650", "0.700"]  # their means
    for rate, seed in ((0.01, 0), (0.001, 1)):  # of two rates without a seed in common neither is the better one
        write_run(tmp_path, same(0.3), symmetry="Mag", learning_rate=rate, seed=seed, valid_rmse=0.4)
    write_run(tmp_path, same(0.1), symmetry="UM", learning_rate=0.003, weight_decay=0, valid_rmse=0.2)
    columns, rows = table(run_report(capsys, tmp_path, "--rates"), "RBC: validation by learning rate/weight decay")
    assert rows["ResNet Mag"] == ["0", "-", "-", "-", "-"]
    assert columns == ["n", *(f"{rate}/0.0004" for rate in (0.001, 0.003, 0.01)), "0.003/0"]
    assert rows["ResNet UM"][0::4] == ["2", "-"]  # without the seed that the others have, it may have diverged
    write_run(tmp_path, same(0.1), symmetry="UM", learning_rate=0.003, weight_decay=0, seed=1, valid_rmse=0.3)
    _, rows = table(run_report(capsys, tmp_path, "--rates"), "RBC: validation by learning rate/weight decay")
    assert [cell[:5] for cell in rows["ResNet UM"]] == ["2", "0.400", "0.650", "0.700", "0.250"]


def test_nets_trained_elsewhere_are_rows_of_their_own(tmp_path, capsys):
    """They have the settings of those trained here, and are told from them only where there are such."""
    for seed in (0, 1):
        folder = write_run(tmp_path, same(0.5), symmetry="UM", seed=seed)
        change(folder / "config.json", trained_on="another")
        folder.rename(tmp_path / f"elsewhere_{seed}")
    assert table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")[1]["ResNet UM"][:2] == [
        "2",
        "0.500+-0.000",
    ]
    write_run(tmp_path, same(0.3), symmetry="UM", seed=0)
    _, rows = table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")
    assert (rows["ResNet UM"][:2], rows["ResNet UM trained elsewhere"][:2]) == (["1", "0.300*"], ["2", "0.500+-0.000"])


def test_differences_from_a_row(tmp_path, capsys):
    """Less the row that is named, of equal windows; a set that has no errors by window is no column."""
    errors = {"blocks": {"test": [0, 1]}, "test": [0.25, 0.25]}
    for symmetry, error, ese in (("None", 0.25, 2.0), ("UM", 0.04, 0.5)):
        for seed in (0, 1):
            scores = {"test": (error**0.5, ese), "Scale": (1, 1)}
            folder = write_run(tmp_path, scores, symmetry=symmetry, valid_rmse=error, seed=seed)
            (folder / "windows.json").write_text(json.dumps(errors | {"test": [error, error]}))
    text = run_report(capsys, tmp_path, "--against", "ResNet$")
    assert "vorticity" not in text  # of runs, or of flows, that have none
    for path, last in zip(sorted(tmp_path.glob("*/metrics.json")), (0.75, 0.75, 1.0, 1.0), strict=True):
        scores = json.loads(path.read_text())["scores"]
        scores["test"]["measures"] = {"vorticity_per_step": [1.0] * 9 + [last]}
        change(path, scores=scores)
    text = run_report(capsys, tmp_path, "--against", "ResNet$")
    assert "ESE test" in text
    assert "vorticity 10 test" in text
    assert "RBC: differences" in text
    assert "RMSE Scale" not in text
    (row,) = (line for line in text.splitlines() if line.startswith("  ResNet UM"))
    differences = "-0.300 [-0.300, -0.300] -1.500 [-1.500, -1.500] +0.250 [+0.250, +0.250]"
    assert row.split()[2:] == f"2 0.040+-0.000 {differences}".split()
    assert "(less ResNet, whose validation is 0.250; 95 % intervals over seeds and blocks of windows: test 2)" in text
    with pytest.raises(SystemExit) as stop:
        report.main([str(tmp_path), "--against", "("])
    assert stop.value.code == 2
    assert "'(' is no regular expression" in capsys.readouterr().err
    for regex, words in (("Moon", "matches no row, such as RBC ResNet"), ("RBC", "matches 2 rows: ResNet, ResNet UM")):
        assert exit_code(lambda regex=regex: report.main([str(tmp_path), "--against", regex])) == 2
        assert f"--against {regex} {words}" in capsys.readouterr().err


def test_what_most_have_is_not_said(tmp_path):
    for width, length in ((1.0, 3), (0.5, 3), (0.25, 4)):
        write_run(tmp_path, same(0.3), symmetry="UM", width=width, output_length=length)
    labels = {group.label for group in group_runs(load_runs(tmp_path))}
    assert labels == {"ResNet UM", "ResNet UM width 0.5", "ResNet UM output_length 4 width 0.25"}


def test_options_of_a_symmetry(tmp_path, monkeypatch):
    """They tell groups apart, and one that is not the default is said, even where it is the only one."""
    runs = [write_run(tmp_path, same(0.3 + seed), symmetry="Mag", seed=seed) for seed in range(3)]
    monkeypatch.setattr(type(SYMMETRIES["Mag"]), "options", classmethod(lambda cls: {"order": 8}))
    for folder, order in zip(runs, (8, 8, 4), strict=True):
        change(folder / "config.json", order=order)
    labels = [group.label for group in group_runs(load_runs(tmp_path))]
    assert labels == ["ResNet Mag", "ResNet Mag order 4"]
    shutil.rmtree(runs[0])
    shutil.rmtree(runs[1])
    assert [group.label for group in group_runs(load_runs(tmp_path))] == ["ResNet Mag order 4"]


def test_data_of_ones_own(tmp_path, capsys):
    """Nobody has published numbers of them: the tables are there, the authors' is not."""
    write_run(tmp_path, {"test": (0.5, 1)}, dataset="mine", symmetry="UM")
    assert exit_code(lambda: report.main([str(tmp_path)])) == 0
    out = capsys.readouterr().out
    assert "mine: RMSE of 10 forecast frames" in out
    assert "authors" not in out


def test_other_data_are_another_table(tmp_path, capsys):
    write_run(tmp_path / "a", same(0.3), data="a")
    write_run(tmp_path / "b", same(0.9), data="b")
    text = run_report(capsys, tmp_path / "a", tmp_path / "b")
    titles = [line for line in text.splitlines() if line.startswith("RBC (data ") and "RMSE" in line]
    assert len(titles) == 2
    assert sorted(table(text, title)[1]["ResNet UM"][1] for title in titles) == ["0.300", "0.900"]


def test_rows_in_the_order_of_the_paper(tmp_path, capsys):
    for architecture in ("Unet", "ResNet"):
        for symmetry, augment in (("Mag", ""), ("UM", ""), ("None", "all"), ("None", "")):
            write_run(tmp_path, same(0.3), architecture=architecture, symmetry=symmetry, augment=augment)
    _, rows = table(run_report(capsys, tmp_path), "RBC: RMSE of 10 forecast frames")
    transforms = "+".join(name for name in SYMMETRIES if name != "None" and SYMMETRIES[name].keeps_shape)
    nets = ["", f" Augm({transforms})", " UM", " Mag"]
    assert list(rows) == [*(f"ResNet{name}" for name in nets), *(f"Unet{name}" for name in nets), "persistence"]


def test_a_reader_that_has_seen_enough(tmp_path):
    write_run(tmp_path, same(0.3), symmetry="UM")
    command = [sys.executable, "-m", "evaluation.report", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_beside_the_published_numbers(tmp_path, capsys):
    names = ("test", "domain", "UM")
    for seed, value in enumerate((0.5, 0.7)):
        write_run(tmp_path, same(value, names), dataset="Ocean", symmetry="UM", architecture="Unet", seed=seed)
    write_run(tmp_path, same(0.4), symmetry="UM")
    write_run(tmp_path, same(0.4), symmetry="None", architecture="Unet", width=0.5)
    write_run(tmp_path, same(0.4), symmetry="None", frame="UM")
    text = run_report(capsys, tmp_path)
    nets = ["ResNet frame UM", "ResNet UM", "Unet width 0.5"]
    assert list(table(text, "RBC: ESE of 10 forecast frames")[1]) == nets
    assert "what it calls RMSE may be an MSE" in text
    ours, ese = "0.60+-0.14", "1.20+-0.28"
    line = next(line for line in text.split("Ocean: beside the published numbers")[1].splitlines() if "Unet UM" in line)
    assert line.split()[2:] == ["2", ours, "0.75+-0.01", ours, "1.32+-0.02", ese, "1.19+-0.02", ese, "1.29+-0.00"]
    convection = text.split("RBC: beside the published numbers")[1].split("\n\n")[0]
    assert convection.count("not reported") == 2  # the paper's nets and width only: one row, test and Rot


def test_errors_and_costs(tmp_path, capsys):
    for seed, error in enumerate((1e-7, 3e-7)):
        errors = {"UM": {"absolute": 1.0, "relative": error}, "Mag": {"absolute": 1.0, "relative": 0.5}}
        write_run(tmp_path, same(0.3), seed=seed, equivariance_error=errors, peak_memory_mib=100.0 + seed)
    text = run_report(capsys, tmp_path)
    assert table(text, "RBC: relative equivariance error")[1]["ResNet UM"] == ["2", "3.0e-07", "5.0e-01"]
    cells = next(line.split() for line in text.split("RBC: cost")[1].splitlines() if "ResNet UM" in line)
    machine = f"{platform.machine()} x {torch.get_num_threads()}".split()
    assert cells[2:] == ["2", "1,234", "3+-0", "2.0", "101", *machine]  # the median of 3, 1 and 2 seconds
    write_run(tmp_path, same(0.3), seed=2, parameters_alive=617)  # of runs that say so
    lines = run_report(capsys, tmp_path).split("RBC: cost")[1].splitlines()
    assert next(line.split() for line in lines if "ResNet UM" in line)[2:5] == ["3", "1,234", "50%"]


def test_equivariance_error_by_wavenumber(tmp_path, capsys):
    """The mean over the seeds; a set that has no bands, as of flows with land, has empty cells."""
    for seed, low in enumerate((0.1, 0.3)):
        errors = {"UM": {"absolute": 1, "relative": 1, "low": low, "mid": 0.02, "high": 3}, "Rot": {"relative": 1}}
        write_run(tmp_path, same(0.3, ("test", "UM", "Rot")), seed=seed, equivariance_error=errors)
    markdown = run_report(capsys, tmp_path, "--measures", "--markdown")
    header, _, row = [line.split("|")[1:-1] for line in markdown.splitlines() if "|" in line][-3:]
    cells = dict(zip(map(str.strip, header), map(str.strip, row), strict=True))
    assert [cells[f"UM {band}"][:7] for band in ("low", "mid", "high")] == ["2.0e-01", "2.0e-02", "3.0e+00"]
    assert {cells[f"Rot {band}"] for band in ("low", "mid", "high")} == {"-"}


@pytest.mark.parametrize("flags", ["--csv --verdicts", "--csv --against Unet", "--rates --against Unet"])
def test_flags_that_would_be_ignored(capsys, flags):
    with pytest.raises(SystemExit):
        report.main(["results", *flags.split()])
    assert re.search("goes with it|not allowed with", capsys.readouterr().err)


def test_csv_holds_every_number(tmp_path, capsys):
    for seed, value in enumerate((0.25, 0.75)):
        write_run(tmp_path, same(value), seed=seed, augment="Mag")
    rows = list(csv.DictReader(io.StringIO(run_report(capsys, tmp_path, "--csv"))))
    found = {(row["measure"], row["set"]): (float(row["mean"]), row["std"], row["n"]) for row in rows}
    assert len(found) == len(rows)
    mean, std, n = found["rmse", "Mag"]
    assert (mean, n) == (0.5, "2")
    assert float(std) == pytest.approx(0.5 / 2**0.5)
    assert found["ese", "test"][0] == 1.0
    assert found["persistence rmse", "UM"][0] == 1.0
    assert found["equivariance_error relative", "UM"][0] == 0.25
    assert found["train_windows", ""] == (70.0, "0.0", "2")
    assert {row["augment"] for row in rows} == {"Mag"}


def write_measures(folder, factor):
    """Measures, all of them ``factor`` times those of persistence, into a run's metrics."""
    metrics = json.loads((folder / "metrics.json").read_text())

    def measured(size, **others):
        names = ("vrmse", "rmse_low", "rmse_mid", "rmse_high", "divergence", "divergence_of_truth")
        numbers = {name: (i + 1) * size for i, name in enumerate(names)}
        return {"vrmse_per_step": [7 * size, 0], "correlation_time": 8, "windows_without_land": 5, **numbers, **others}

    metrics["scores"]["test"] |= {
        "measures": measured(factor, ese_resolved=9 * factor),
        "rmse_per_step": list(range(10)),
    }
    metrics["baselines"]["persistence"]["test"] |= {"measures": measured(1.0)}
    change(folder / "metrics.json", **metrics)


def test_measures(tmp_path, capsys):
    """Runs from before there were measures stand beside the others; sets without any, as by factor, have no table."""
    for seed, factor in enumerate((0.1, 0.3)):
        write_measures(write_run(tmp_path, same(0.3, ("test", "Scale")), symmetry="UM", seed=seed), factor)
    write_run(tmp_path, same(0.4, ("test", "Scale")), symmetry="None")
    markdown = run_report(capsys, tmp_path, "--measures", "--markdown")
    assert markdown.count("measures on") == 1
    assert "the 5 windows without land" in markdown
    header, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if "|" in line]
    cells = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows[1:]}
    ours = cells["ResNet UM"]
    assert (ours["n"], ours["VRMSE 1"], ours["VRMSE 1-10"]) == ("2", "1.400 ± 0.990", "0.200 ± 0.141")
    assert [ours[f"RMSE {frame}"] for frame in (1, 5, 10)] == ["0.000 ± 0.000", "4.000 ± 0.000", "9.000 ± 0.000"]
    assert [ours[f"{band} k"][:5] for band in ("low", "mid", "high")] == ["0.400", "0.600", "0.800"]
    assert (ours["correlated"], ours["divergence"][:5], ours["of truth"][:5]) == ("8.0 ± 0.0", "1.000", "1.200")
    assert ours["ESE resolved"][:5] == "1.800"
    assert set(cells["ResNet"].values()) == {"1", "-"}
    assert (cells["persistence"]["VRMSE 1"], cells["persistence"]["ESE resolved"]) == ("7.000", "-")
    assert "by wavenumber" not in markdown  # of runs that do not have it
    rows = csv.DictReader(io.StringIO(run_report(capsys, tmp_path, "--csv")))
    found = {(row["measure"], row["set"]): float(row["mean"]) for row in rows if row["symmetry"] == "UM"}
    assert (found["vrmse", "test"], found["ese_resolved", "test"]) == (pytest.approx(0.2), pytest.approx(1.8))
    assert found["windows_without_land", "test"] == 5


def test_rmse_by_field(tmp_path, capsys):
    """Beside the other table where the data have several fields; a run from before there was such a number is empty."""
    write_run(tmp_path, same(0.4, ("test",)), symmetry="None")
    assert "by field" not in run_report(capsys, tmp_path, "--rmse")
    for seed, error in enumerate((0.1, 0.3)):
        folder = write_run(tmp_path, same(0.3, ("test",)), symmetry="UM", seed=seed)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["scores"]["test"]["measures"] = {"rmse_per_field": [error, 2 * error]}
        metrics["baselines"]["persistence"]["test"]["measures"] = {"rmse_per_field": [0.5, 0.35]}
        change(folder / "metrics.json", **metrics)
    markdown = run_report(capsys, tmp_path, "--rmse", "--markdown").partition("RMSE by field")[2]
    assert [line for line in markdown.splitlines() if line.startswith("| ")] == [
        "| | n | test 1 | test 2 |",
        "| ResNet | 1 | - | - |",
        "| ResNet UM | 2 | 0.200 ± 0.141 | 0.400 ± 0.283 † |",
        "| persistence |  | 0.500 | 0.350 |",
    ]


def test_measures_of_runs_without(capsys):
    assert exit_code(lambda: report.main([str(EVIDENCE / "ablation"), "--measures"])) == 2
    assert "no run with measures" in capsys.readouterr().err


def write_factors(folder, factors, persistence=1.0, steps=(0.3,) * 10):
    """Scores by upscaling factor ``{factor: (RMSE, ESE)}``, and RMSEs by frame, into a run's metrics."""
    scores = {name: {"rmse": 0.3, "ese": 0.3} for name in ("test", "Scale")}
    scores["test"]["rmse_per_step"] = steps
    scores["Scale"]["by_factor"] = {factor: {"rmse": rmse, "ese": ese} for factor, (rmse, ese) in factors.items()}
    still = {name: {"rmse": persistence} for name in ("test", "Scale")}
    still["Scale"]["by_factor"] = {factor: {"rmse": persistence} for factor in factors}
    change(folder / "metrics.json", scores=scores, baselines={"persistence": still})


def test_skill_by_factor(tmp_path, capsys):
    """Every skill is of its own run's persistence; only plain nets of a scale net's sweep stand beside it."""
    for seed, persistence in enumerate((0.5, 1.0)):
        folder = write_run(tmp_path, {"test": (0.3, 1)}, symmetry="Scale", architecture="Unet", seed=seed)
        steps = [(0.1 + 0.2 * seed) * (i + 1) for i in range(10)]
        write_factors(folder, {"10": (0.25, 1.25), "1.5": (0.4, 1.0)}, persistence, steps)
    folder = write_run(tmp_path, {"test": (0.3, 1)}, symmetry="None", architecture="Unet")
    write_factors(folder, {"10": (0.3, 1.5), "1.5": (2.0, 1.0)})
    for others in ({"width": 0.5}, {"augment": "UM"}, {"architecture": "ResNet"}):
        folder = write_run(tmp_path, {"test": (0.3, 1)}, **{"symmetry": "None", "architecture": "Unet", **others})
        write_factors(folder, {"1.5": (0.1, 0.1)})
    text = run_report(capsys, tmp_path, "--factors")
    columns, rows = table(text, "RBC: skill by upscaling factor")
    assert columns == ["n", "x1.5", "x10"]
    assert rows == {
        "Unet Scale": ["2", "0.40+-0.28*", "0.62+-0.18"],  # means of .2 and .6, of .5 and .75
        "Unet": ["1", "-1.00", "0.70*"],
    }
    _, rows = table(text, "RBC: ESE by upscaling factor")
    assert rows["Unet Scale"] == ["2", "1.00+-0.00", "1.25+-0.00*"]
    columns, rows = table(text, "RBC: RMSE by forecast frame on test")
    assert columns == ["n", *map(str, range(1, 11))]
    assert rows["Unet Scale"][:3] == ["2", "0.20+-0.14*", "0.40+-0.28"]  # means of .1 and .3, of .2 and .6
    assert rows["Unet"][:3] == ["1", "0.30", "0.30*"]
    rows = csv.DictReader(io.StringIO(run_report(capsys, tmp_path, "--csv")))
    found = {(row["measure"], row["set"], row["n"]): float(row["mean"]) for row in rows if row["symmetry"] == "Scale"}
    assert found["rmse", "Scale x10", "2"] == 0.25
    assert found["persistence rmse", "Scale x10", "2"] == 0.75


def test_no_scale_net(tmp_path, capsys):
    write_run(tmp_path, same(0.3), symmetry="None")
    assert exit_code(lambda: report.main([str(tmp_path), "--factors"])) == 2
    assert "no scale net tested by factor" in capsys.readouterr().err


def test_text_fits_a_terminal(tmp_path, capsys):
    for architecture in ("ResNet", "Unet"):
        for symmetry in SYMMETRIES:
            for seed in range(3):
                scores = same(0.3 + seed, ("test", "domain", "UM", "Mag"))
                write_run(tmp_path, scores, dataset="Ocean", architecture=architecture, symmetry=symmetry, seed=seed)
    for arguments in ([tmp_path], [tmp_path, "--verdicts"]):
        text = run_report(capsys, *arguments)
        assert max(map(len, text.splitlines())) <= 120


# ---------------------------------------------------------------- missing runs


def test_missing_runs(tmp_path, capsys):
    settings = {"data_dir": "data/quick", "width": 0.25}
    for symmetry, seed in (("None", 0), ("None", 1), ("UM", 0), ("UM", 1), ("Mag", 1)):
        rate = 0.005 if symmetry == "Mag" else 0.001  # a model's own rate makes it no sweep of its own
        write_run(tmp_path, same(0.3), symmetry=symmetry, seed=seed, learning_rate=rate, **settings)
    write_run(tmp_path, same(0.3), symmetry="None", architecture="Unet", seed=0, **settings)
    write_run(tmp_path, same(0.3), symmetry="UM", seed=7, width=0.5)  # another sweep
    write_run(tmp_path, same(0.3), symmetry="UM", seed=7, padding="circular", **settings)  # another one
    write_run(tmp_path, same(0.3), symmetry="None", augment="UM", seed=0, **settings)  # another one

    commands = missing_runs(group_runs(load_runs(tmp_path)))
    expected = {("ResNet", "Mag", 0)} | {("Unet", "None", 1)}
    expected |= {("Unet", symmetry, seed) for symmetry in ("UM", "Mag") for seed in (0, 1)}
    found = {}
    for command in commands:
        program, script, *flags = shlex.split(command)
        assert (program, script) == ("python", "run_model.py")
        args = parse_args(flags)
        found[args.architecture, args.symmetry, args.seed] = args
        assert (args.width, str(args.data_dir), args.results, args.num_epoch) == (0.25, "data/quick", tmp_path, 3)
    assert found.keys() == expected
    assert len(commands) == len(expected)
    assert found["ResNet", "Mag", 0].learning_rate == 0.005
    text = run_report(capsys, tmp_path)
    assert all(command in text for command in commands)


def test_missing_runs_take_the_options_of_their_symmetry(tmp_path):
    write_run(tmp_path, same(0.3), symmetry="None", seed=1)
    folder = write_run(tmp_path, same(0.3), symmetry="Rot", seed=0, rotation_order=4)
    change(folder / "config.json", reflections=True)
    commands = missing_runs(group_runs(load_runs(tmp_path)))
    assert len(commands) == 2
    for command in commands:
        args = parse_args(shlex.split(command)[2:])
        own = args.symmetry == "Rot"
        assert (args.rotation_order, args.reflections, args.seed) == ((4, True, 1) if own else (8, False, 0))


def test_nets_that_were_trained_elsewhere_are_not_missing(tmp_path):
    for settings in ({"symmetry": "None"}, {"symmetry": "UM"}, {"symmetry": "UM", "seed": 1}):
        change(write_run(tmp_path, same(0.3), **settings) / "config.json", trained_on="home")
    assert missing_runs(group_runs(load_runs(tmp_path))) == []


def test_nothing_is_missing(tmp_path, capsys):
    for symmetry in ("None", "UM"):
        write_run(tmp_path, same(0.3), symmetry=symmetry)
    assert "missing" not in run_report(capsys, tmp_path)


# ---------------------------------------------------------------- bad input


def test_nothing_to_report(tmp_path, capsys):
    assert exit_code(lambda: report.main([str(tmp_path)])) == 2
    assert "no finished run" in capsys.readouterr().err
    assert exit_code(lambda: report.main([])) == 2
    assert "which results?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{}"),
        ("metrics.json", "[]"),
        ("metrics.json", ""),
        ("config.json", "{}"),
        ("config.json", '{"symmetry": "Color"}'),
        ("log.csv", "epoch\n1\n"),
    ],
)
def test_broken_runs(tmp_path, capsys, name, content):
    folder = write_run(tmp_path, same(0.3))
    (folder / name).write_text(content)
    assert exit_code(lambda: report.main([str(tmp_path)])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    wanted = ("is broken; run it again",) if name == "log.csv" else (f"{name} is broken", f"{name} lacks ")
    assert any(words in line for words in wanted)


def test_the_same_run_twice(tmp_path, capsys):
    write_run(tmp_path / "a", same(0.3))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert len(load_runs(tmp_path / "a", tmp_path / "copy")) == 1
    write_run(tmp_path / "b", same(0.4))
    with pytest.raises(InputError, match="are the same run with other scores"):
        load_runs(tmp_path / "a", tmp_path / "b")


def test_runs_that_go_on_are_not_finished(tmp_path):
    write_run(tmp_path, same(0.3), seed=0)
    write_run(tmp_path, same(0.3), seed=1, epochs=2)
    write_run(tmp_path, same(0.3), seed=2, epochs=2, stopped_early=True)
    assert sorted(run["seed"] for run in load_runs(tmp_path)) == [0, 2]


# ---------------------------------------------------------------- evidence


def test_collect(tmp_path, capsys):
    for seed in (0, 1):
        write_run(tmp_path / "results", same(0.3 + seed), seed=seed, data_dir=str(tmp_path / "private"))
    kept = tmp_path / "kept"
    assert "2 runs" in run_report(capsys, tmp_path / "results", "--collect", kept)
    files = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    names = [path.name for path in (tmp_path / "results").iterdir()]
    assert files == {f"{run}/{name}" for run in names for name in ("config.json", "log.csv", "metrics.json")}
    for path in kept.glob("*/*"):
        text = path.read_text()
        assert "private" not in text
        assert str(tmp_path) not in text
    assert run_report(capsys, kept) == run_report(capsys, tmp_path / "results")
    assert "2 runs" in run_report(capsys, tmp_path / "results", "--collect", kept)  # again, over what is there


def test_collect_keeps_data_apart(tmp_path):
    write_run(tmp_path / "a", same(0.3), data="a")
    write_run(tmp_path / "b", same(0.3), data="b", seed=1)
    collect(load_runs(tmp_path / "a"), tmp_path / "kept")
    before = sorted(tmp_path.glob("kept/*"))
    with pytest.raises(InputError, match="were run on different data; keep them apart"):
        collect(load_runs(tmp_path / "b"), tmp_path / "kept")
    assert sorted(tmp_path.glob("kept/*")) == before


def test_reports_in_a_readme(tmp_path, capsys):
    write_run(tmp_path / "results", same(0.3))
    readme = tmp_path / "README.md"
    text = "a\n<!-- report: results -->\nold\n<!-- end -->\nb\n<!-- report: results --verdicts -->\n<!-- end -->\nc\n"
    readme.write_text(text)
    run_report(capsys, "--readme", readme)
    first = readme.read_text()
    tables, judgement = (
        run_report(capsys, tmp_path / "results", "--markdown", *more).rstrip() for more in ([], ["--verdicts"])
    )
    assert first == (
        f"a\n<!-- report: results -->\n\n{tables}\n\n<!-- end -->\n"
        f"b\n<!-- report: results --verdicts -->\n\n{judgement}\n\n<!-- end -->\nc\n"
    )
    run_report(capsys, "--readme", readme)
    assert readme.read_text() == first


@pytest.mark.parametrize(
    "text",
    [
        "<!-- report: results -->\n",
        "<!-- report: results -->\n<!-- report: results -->\n<!-- end -->\n",
    ],
)
def test_markers_that_are_not_closed(tmp_path, capsys, text):
    write_run(tmp_path / "results", same(0.3))
    (tmp_path / "README.md").write_text(text)
    assert exit_code(lambda: report.main(["--readme", str(tmp_path / "README.md")])) == 2
    assert "<!-- end -->" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text


@pytest.mark.parametrize(
    "name", ["README.md", "docs/results.md", "docs/relaxed.md", "docs/what-the-layers-are-worth.md"]
)
def test_documents_show_the_committed_evidence(name):
    text = (ROOT / name).read_text()
    assert "<!-- report:" in text
    shown, lines = report.with_reports(text, ROOT).split("\n"), text.split("\n")  # of long texts pytest takes minutes
    assert shown == lines, f"run python -m evaluation.report --readme {name}"


def test_committed_evidence_is_whole():
    """Every committed run can be read, is alone with its data, and names no place of the machine it was made on."""
    folders = {path.parent.parent for path in EVIDENCE.rglob("config.json")}
    for folder in folders:
        runs = load_runs(folder)
        assert len(runs) == len(list(folder.glob("*/config.json")))
        assert len({(group["dataset"], group.data) for group in group_runs(runs)}) == len({r["dataset"] for r in runs})
    for path in EVIDENCE.rglob("*.json"):
        assert "data_dir" not in path.read_text()
        assert platform.node() not in path.read_text()
    assert not [path for path in EVIDENCE.rglob("*") if path.suffix in (".pt", ".tmp")]


def test_evidence_is_not_ignored():
    path = "evaluation/evidence/quick/RBC_ResNet_UM/metrics.json"
    done = subprocess.run(["git", "-C", ROOT, "check-ignore", "--quiet", path], check=False)
    assert done.returncode != 0


# ---------------------------------------------------------------- with run_model


def test_report_of_a_real_run(data_dir, tmp_path, capsys):
    command = "--architecture Unet --input_length 4 --output_length 2 --width 0.125 --num_epoch 1 --device cpu".split()
    command += ["--data_dir", str(data_dir), "--results", str(tmp_path)]
    assert exit_code(lambda: run_model.main(command)) == 0
    capsys.readouterr()
    (path,) = tmp_path.glob("*/metrics.json")
    metrics = json.loads(path.read_text())
    text = run_report(capsys, tmp_path)
    columns, rows = table(text, "RBC: RMSE of 10 forecast frames")
    assert columns == ["n", *metrics["scores"]]
    best = {
        name: min(of[name]["rmse"] for of in metrics["baselines"].values() if name in of) for name in metrics["scores"]
    }
    cells = [f"{row['rmse']:.3f}" + "!" * (row["rmse"] >= best[name]) for name, row in metrics["scores"].items()]
    assert rows["Unet UM width 0.125"] == ["1", *cells]
    assert rows["persistence"] == [f"{row['rmse']:.3f}" for row in metrics["baselines"]["persistence"].values()]
    assert f"{metrics['parameters']:,}" in text
