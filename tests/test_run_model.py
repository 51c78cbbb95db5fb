"""The command line of one run, as a user meets it."""

import json
import math
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import data_prep
import run_model
from evaluation.flags import parse_args, run_name
from evaluation.price import peak_memory
from evaluation.runs import load_runs
from evaluation.score import TestSet, equivariance_of
from flows.folder import locked
from flows.windows import Windows
from models import SYMMETRIES, build_model
from models.options import OPTIONS
from utils import exit_code

ROOT = Path(__file__).parents[1]
QUICK = "--architecture Unet --input_length 4 --output_length 2 --batch_size 8 --width 0.125 --num_epoch 2".split()
QUICK += ["--test_sets=UM"]  # the others where a test is about them


def run(data_dir, results, *arguments):
    """Run in this process; returns the exit code."""
    command = [*QUICK, "--data_dir", str(data_dir), "--results", str(results), "--device", "cpu", *arguments]
    return exit_code(lambda: run_model.main(command))


def read(results):
    """config.json and metrics.json of the only run in ``results``."""
    (folder,) = results.iterdir()
    return tuple(json.loads((folder / name).read_text()) for name in ("config.json", "metrics.json"))


FINISHED = "--symmetry", "Mag", "--num_epoch", "1", "--test_sets="  # all


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """Results with one finished run, whose flags are not the defaults."""
    results = tmp_path_factory.mktemp("finished")
    assert run(data_dir, results, *FINISHED) == 0
    return results


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of a copy of it, in ``tmp_path / "results"``, to be changed."""
    shutil.copytree(finished, tmp_path / "results")
    (folder,) = (tmp_path / "results").iterdir()
    return folder


def numbers(results):
    """metrics.json of the only run in ``results``, without what the machine had to do with."""
    return {name: value for name, value in read(results)[1].items() if name != "peak_memory_mib"}


def test_a_net_that_reads_one_frame_has_no_trend_to_beat(data_dir, tmp_path):
    assert run(data_dir, tmp_path / "results", "--symmetry", "None", "--num_epoch", "1", "--input_length", "1") == 0
    assert list(read(tmp_path / "results")[1]["baselines"]) == ["persistence", "damped persistence", "climatology"]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_run(data_dir, tmp_path, capsys, symmetry):
    assert run(data_dir, tmp_path / "results", "--symmetry", symmetry, "--test_sets=") == 0
    out = capsys.readouterr().out
    config, metrics = read(tmp_path / "results")

    # the release's line, last
    scores = metrics["scores"]
    own = "test" if symmetry == "None" else symmetry
    assert out.splitlines()[-1] == (
        f"Model: Unet | Symmetry: {symmetry} | Future RMSE: {scores['test']['rmse']:.3f} | "
        f"Future ESE: {scores['test']['ese']:.3f} | Domain ({own}) RMSE: {scores[own]['rmse']:.3f} | "
        f"Domain ({own}) ESE: {scores[own]['ese']:.3f}"
    )
    assert f"\nUnet {symmetry} seed 0 epoch   2 | train RMSE" in out
    assert set(scores) == {"test", *SYMMETRIES} - {"None"}
    assert set(metrics["baselines"]["persistence"]) == set(scores)
    assert metrics["epochs"] == 2
    assert config["symmetry"] == symmetry
    assert config["torch"] == torch.__version__

    # the promise: an equivariant net forecasts the transformed flow as well as the original
    for name, error in metrics["equivariance_error"].items():
        if name == {"Scale": "Mag"}.get(
            symmetry, symmetry
        ):  # 16 points are too few for scale; its nets are homogeneous
            assert error["relative"] < 1e-4
        else:
            assert error["relative"] > 1e-3
    if symmetry == "UM":
        assert scores["UM"]["rmse"] == pytest.approx(scores["test"]["rmse"], rel=1e-4)
    assert scores["test"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(scores["test"]["rmse_per_step"]))))

    # measures of other benchmarks, of sets whose windows are of one size beside the scores, else by factor
    for name, of in {**scores, **scores["Scale"]["by_factor"]}.items():
        assert ("measures" in of) == (name != "Scale")
    measured, still = scores["test"]["measures"], metrics["baselines"]["persistence"]["test"]["measures"]
    assert still["divergence"] == pytest.approx(still["divergence_of_truth"], rel=0.1)  # waves without divergence
    assert measured["divergence_of_truth"] == still["divergence_of_truth"]
    assert measured["rings_resolved"] > 0
    assert "ese_resolved" not in still
    # finished runs are not run again
    assert run(data_dir, tmp_path / "results", "--symmetry", symmetry) == 0
    again = capsys.readouterr().out
    assert "is finished" in again
    assert "epoch" not in again
    assert again.splitlines()[-1] == out.splitlines()[-1]


def test_equal_commands_give_equal_metrics(data_dir, tmp_path):
    for name in ("a", "b"):
        assert run(data_dir, tmp_path / name) == 0
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")


def test_more_epochs_go_on(data_dir, tmp_path, capsys):
    assert run(data_dir, tmp_path / "parts") == 0
    assert run(data_dir, tmp_path / "parts", "--num_epoch", "3") == 0
    assert "going on after epoch 2" in capsys.readouterr().out
    assert run(data_dir, tmp_path / "whole", "--num_epoch", "3") == 0
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_no_resume_starts_over(data_dir, tmp_path, capsys):
    assert run(data_dir, tmp_path) == 0
    capsys.readouterr()
    assert run(data_dir, tmp_path, "--no_resume") == 0
    assert "epoch   1" in capsys.readouterr().out


def test_settings_get_folders_of_their_own(data_dir, tmp_path):
    settings = ([], ["--augment=all"], ["--seed=1"], ["--width=0.2"], ["--amp"], ["--train_fraction=0.5"])
    settings += (
        ["--symmetry=Scale"],
        ["--symmetry=Scale", "--num_scales=3"],
        ["--symmetry=Scale", "--variant=space"],
        ["--frame=UM"],
        ["--padding=circular"],
    )
    assert len({run_name(parse_args(flags)) for flags in settings}) == len(settings)
    for flags in settings[:2]:
        assert run(data_dir, tmp_path, "--num_epoch=1", *flags) == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("fraction", [0.3, 1])
def test_a_part_of_the_training_windows(data_dir, meta, tmp_path, capsys, fraction):
    every = Windows(data_dir / "rbc", meta, "train")
    assert run(data_dir, tmp_path, "--num_epoch", "1", "--train_fraction", str(fraction)) == 0
    count = round(fraction * len(every))
    assert read(tmp_path)[1]["train_windows"] == count
    assert f"{count} training windows" in capsys.readouterr().out

    some = Windows(data_dir / "rbc", meta, "train")
    some.keep_last(fraction)
    assert torch.equal(some.start, every.start[-count:])
    assert all(every.start[:-count] <= some.start.min())  # a part of the time
    window, whole = some.read(torch.tensor([0]), 4, 2), every.read(torch.tensor([len(every) - count]), 4, 2)
    assert torch.equal(window[0], whole[0])


def test_peak_memory(data_dir, tmp_path):
    assert run(data_dir, tmp_path, "--num_epoch", "1") == 0
    measured = read(tmp_path)[1]["peak_memory_mib"]
    assert measured > 50  # no process that has imported torch is smaller
    assert 0.9 * measured <= peak_memory(torch.device("cpu"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counted so on Linux only")
def test_peak_memory_is_that_of_the_system():
    high_water = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]  # KiB
    assert peak_memory(torch.device("cpu")) >= 0.99 * int(high_water) / 2**10


def test_only_some_test_sets(data_dir, finished, tmp_path, capsys):
    """The others' scores are those of a run that was tested on all."""
    flags = ["--data_dir", data_dir, "--test_sets=rot,Scale", "--scale_windows=5", "--output", tmp_path / "some.json"]
    assert evaluate(finished, *flags) == 0
    scores, every = json.loads((tmp_path / "some.json").read_text())["scores"], read(finished)[1]["scores"]
    assert list(scores) == ["test", "Rot", "Scale"]
    for name in ("test", "Rot"):
        assert scores[name] == every[name]
    rows = scores["Scale"]["by_factor"]
    assert scores["Scale"]["windows"] == len(rows) == 5
    assert {row["windows"] for row in rows.values()} == {1}
    assert "\nScale (5) " in capsys.readouterr().out


def test_a_finished_run_says_what_it_was_not_tested_on(data_dir, tmp_path, capsys):
    for sets, words in (("UM", "epoch"), ("Rot,UM", "it was not tested on Rot: --evaluate="), ("UM", "is finished;")):
        assert run(data_dir, tmp_path, f"--test_sets={sets}") == 0
        out = capsys.readouterr().out
        assert words in out
        assert ("not tested" in out) == ("Rot" in sets)


# ---------------------------------------------------------------- scoring again


def evaluate(folder, *arguments):
    (folder,) = folder.iterdir()
    return exit_code(lambda: run_model.main(["--evaluate", str(folder), "--device", "cpu", *map(str, arguments)]))


def test_weights_of_another_net_are_refused(data_dir, copied, capsys):
    """As of a version that built it otherwise: by what scores the run, forecasts with it and goes on with it."""
    frames, output = copied / "frames.npy", copied / "forecast.npy"
    np.save(frames, np.zeros((4, 2, 16, 16), dtype=np.float32))
    state = torch.load(copied / "best.pt", weights_only=True)
    state["model"] = {f"renamed.{name}": weight for name, weight in state["model"].items()}
    torch.save(state, copied / "best.pt")
    torch.save(state, copied / "last.pt")
    assert evaluate(copied.parent, "--data_dir", data_dir) == 2
    assert exit_code(lambda: run_model.main([f"--predict={copied}", f"--frames={frames}", f"--output={output}"])) == 2
    (copied / "metrics.json").unlink()
    assert run(data_dir, copied.parent, *FINISHED) == 2
    errors = capsys.readouterr().err.splitlines()
    assert ["the weights of another net than this version makes" in line for line in errors] == [True] * 3
    assert not output.exists()


def test_scoring_again_gives_the_same_scores(data_dir, finished, tmp_path, capsys):
    files = {path: path.read_bytes() for path in finished.glob("*/*")}
    assert evaluate(finished, "--data_dir", data_dir, "--output", tmp_path / "scores.json") == 0
    metrics, again = read(finished)[1], json.loads((tmp_path / "scores.json").read_text())
    for name in ("scores", "baselines", "equivariance_error", "architecture", "symmetry", "dataset"):
        assert again[name] == metrics[name]
    assert again["run"] == next(finished.iterdir()).name
    assert capsys.readouterr().out.splitlines()[-1].startswith("Model: Unet | Symmetry: Mag | Future RMSE: ")
    assert {path: path.read_bytes() for path in finished.glob("*/*")} == files


def test_scoring_needs_no_more_frames_than_the_tests(data_dir, copied):
    """However long the roll-outs of training and validation were."""
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"output_length": 30, "valid_length": 40}))
    assert evaluate(copied.parent, "--data_dir", data_dir, "--test_sets=test") == 0


def prepare_waves(data_dir, folder, side, history):
    """The waves of ``data_dir``, which repeat every 16 points, prepared again as one tile in ``folder``."""
    flow = np.tile(np.load(data_dir / "waves.npy"), (1, 1, 2, 1))[..., :side, :side]
    folder.mkdir()
    np.save(folder / "flow.npy", flow)
    command = f"rbc --stride 1 --tile {side} --history {history} --horizon 10".split()
    data_prep.main([*command, "--raw", str(folder / "flow.npy"), "--data_dir", str(folder)])
    return folder


def test_scoring_on_another_grid(data_dir, finished, tmp_path):
    other = prepare_waves(data_dir, tmp_path / "other", side=32, history=4)
    assert evaluate(finished, "--data_dir", other, "--output", tmp_path / "scores.json") == 0
    again, (config, metrics) = json.loads((tmp_path / "scores.json").read_text()), read(finished)
    assert again["data"] != config["data"]
    # the same waves: the error differs by the share of windows and of the border, not by much
    assert again["scores"]["test"]["rmse"] == pytest.approx(metrics["scores"]["test"]["rmse"], rel=0.3)
    assert again["scores"]["test"]["rmse"] != metrics["scores"]["test"]["rmse"]


def test_scores_elsewhere_are_reported_like_a_run(data_dir, finished, tmp_path, capsys):
    other = prepare_waves(data_dir, tmp_path / "other", side=32, history=4)
    moved = tmp_path / "moved_width0.25_run"  # a folder, dot or not
    assert evaluate(finished, "--data_dir", other, "--output", moved) == 0
    assert evaluate(finished, "--data_dir", other, "--output", tmp_path / "scores.json") == 0
    scores, (config, metrics) = json.loads((tmp_path / "scores.json").read_text()), read(finished)
    (run,) = load_runs(tmp_path)
    assert (run["trained_on"], run["data"]) == (config["data"], scores["data"])
    assert (run["scores"], run["baselines"]) == (scores["scores"], scores["baselines"])
    assert (run["seed"], run["epochs"]) == (config["seed"], metrics["epochs"])
    capsys.readouterr()
    assert evaluate(finished, "--data_dir", other, "--output", moved) == 2
    assert "must be a new file in a folder that exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--strict --output moved", "--strict: no run was trained like this; --output must end in .json"),
        ("--symmetry UM", "has symmetry Mag; --evaluate cannot change it to UM"),
        ("--width 0.5", "has width 0.125; --evaluate cannot change it to 0.5"),
        ("--seed 7", "has seed 0; --evaluate cannot change it to 7"),
        ("--num_epoch 50", "; --evaluate cannot change it to 50"),
        ("--augment Rot", "; --evaluate cannot change it to ['Rot']"),
        ("--data_dir nowhere", "no prepared data in nowhere"),
        ("--dataset Ocean", "no prepared data in"),
        ("--output .", "--output . must be a new file in a folder that exists"),
        ("--output nowhere/scores.json", "must be a new file in a folder that exists"),
    ],
)
def test_scoring_what_cannot_be_scored(data_dir, finished, capsys, arguments, message):
    assert evaluate(finished, "--data_dir", data_dir, *arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("side", "history", "message"),
    [
        (24, 4, "needs tiles whose sides are multiples of 16, the data have 24 x 24"),
        (16, 3, "--input_length 4 is more than the 3 frames before the forecast"),
    ],
)
def test_scoring_on_data_that_do_not_fit(data_dir, finished, tmp_path, capsys, side, history, message):
    other = prepare_waves(data_dir, tmp_path / "other", side, history)
    capsys.readouterr()
    assert evaluate(finished, "--data_dir", other) == 2
    assert message in capsys.readouterr().err


def test_no_run_to_score(finished, data_dir, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    assert evaluate(tmp_path) == 2
    assert "no run with weights in" in capsys.readouterr().err
    shutil.copy(next(finished.glob("*/config.json")), tmp_path / "run")
    assert evaluate(tmp_path) == 2
    assert "it has no best.pt" in capsys.readouterr().err
    (tmp_path / "run" / "best.pt").write_bytes(b"broken")
    assert evaluate(tmp_path, "--data_dir", data_dir) == 2
    assert "best.pt is no checkpoint" in capsys.readouterr().err
    (tmp_path / "run" / "config.json").write_text('{"architecture": "Unet", "symmetry": "Mag"}')
    assert evaluate(tmp_path, "--data_dir", data_dir) == 2
    assert "config.json lacks dataset, kernel_size" in capsys.readouterr().err
    assert exit_code(lambda: run_model.main(["--output", str(tmp_path / "scores.json")])) == 2
    assert "--output goes with --evaluate or --predict" in capsys.readouterr().err


# ---------------------------------------------------------------- forecasts of one's own frames


def predict(folder, *arguments):
    (folder,) = folder.iterdir()
    return exit_code(lambda: run_model.main(["--predict", str(folder), "--device", "cpu", *map(str, arguments)]))


def test_forecasts_in_the_units_of_the_raw_data(data_dir, meta, finished, tmp_path, capsys):
    """From an array and from a window of prepared data: the net's forecast of the standardised frames, scaled back."""
    windows = Windows(data_dir / "rbc", meta, "test")
    frames, _ = windows.read(torch.tensor([7]), meta["history"], 0)
    (folder,), (mean,), (std,) = finished.iterdir(), meta["mean"], meta["std"]
    assert std != 1
    model = build_model("Unet", "Mag", 4, width=0.125).eval()
    model.load_state_dict(torch.load(folder / "best.pt", weights_only=True)["model"])
    with torch.no_grad():
        past, expected = list(frames.unbind(1)), []
        for _ in range(5):
            past.append(model(torch.stack(past[-4:], 1)))
            expected.append(past[-1][0] * std + mean)
    np.save(tmp_path / "mine.npy", frames[0] * std + mean)
    for i, source in enumerate((tmp_path / "mine.npy", f"{data_dir}/rbc:test:7")):
        output = tmp_path / f"{i}.npy"
        assert predict(finished, "--frames", source, "--steps", 5, "--output", output) == 0
        assert f"wrote {output}: (5, 2, 16, 16)" in capsys.readouterr().out
        np.testing.assert_allclose(np.load(output), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_land_of_ones_own_frames(finished, tmp_path):
    """It is where there is no number, and stays so; nothing of it reaches the flow."""
    frames = np.random.default_rng(0).standard_normal((6, 2, 16, 32)).astype(np.float32)
    land = np.zeros((16, 32), bool)
    land[4:7, 10:20] = True
    outputs = []
    for name, fill in (("nan", np.nan), ("mixed", frames)):
        np.save(tmp_path / f"{name}.npy", np.where(land, fill, frames))
        assert predict(finished, "--frames", tmp_path / f"{name}.npy", "--output", tmp_path / f"{name}_out.npy") == 0
        outputs.append(np.load(tmp_path / f"{name}_out.npy"))
    assert np.isnan(outputs[0][..., land]).all()
    assert np.isfinite(outputs[0][..., ~land]).all()
    assert np.isfinite(outputs[1]).all()
    frames[0] = np.nan  # which a net of four frames does not read
    np.save(tmp_path / "early.npy", frames)
    assert predict(finished, "--frames", tmp_path / "early.npy", "--output", tmp_path / "out.npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), outputs[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output y.npy", "--predict wants --frames"),
        ("--frames x.npy", "--predict wants --frames"),
        ("--frames x.npy --output y.txt", "an --output that ends in .npy"),
        ("--frames x.npy --output y.npy --steps 0", "--steps from 1 on"),
        ("--frames nowhere.npy --output y.npy", "nowhere.npy is not there"),
        (
            "--frames small.npy --output y.npy",
            "has shape (3, 2, 16, 16), this net wants (T, 2, H, W): at least 4 frames",
        ),
        ("--frames odd.npy --output y.npy", "H and W multiples of 16"),
        ("--frames flat.npy --output y.npy", "has shape (4, 2, 0, 16)"),
        ("--frames {data}/rbc:later:0 --output y.npy", "SPLIT one of train, valid, test"),
        ("--frames {data}/rbc:test:999 --output y.npy", "windows, counted from 0"),
        ("--frames x.npy --output nowhere/y.npy", "must be a new file in a folder that exists"),
        ("--frames void.npy --output y.npy", "infinite values, or no point with numbers in the last 4 frames"),
        ("--frames endless.npy --output y.npy", "infinite values"),
    ],
)
def test_what_cannot_be_forecast(data_dir, finished, tmp_path, capsys, monkeypatch, arguments, message):
    finished = finished.resolve()
    monkeypatch.chdir(tmp_path)
    shapes = {"x": (4, 2, 16, 16), "small": (3, 2, 16, 16), "odd": (4, 2, 16, 17), "flat": (4, 2, 0, 16)}
    for name, shape in shapes.items():
        np.save(f"{name}.npy", np.zeros(shape, np.float32))
    for name, value in {"void": np.nan, "endless": np.inf}.items():
        frames = np.zeros((4, 2, 16, 16), np.float32)
        frames[1, :, :: 1 if name == "void" else 16] = value
        np.save(f"{name}.npy", frames)
    assert predict(finished, *arguments.format(data=data_dir).split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("y.npy").exists()


@pytest.mark.parametrize("symmetry", ["UM", *(pytest.param(s, marks=pytest.mark.slow) for s in ("None", "Rot"))])
def test_low_precision(data_dir, tmp_path, symmetry):
    rmse = []
    for precision in ([], ["--amp"]):
        assert run(data_dir, tmp_path / str(precision), "--num_epoch", "1", "--symmetry", symmetry, *precision) == 0
        rmse.append(read(tmp_path / str(precision))[1]["scores"]["test"]["rmse"])
    assert rmse[0] == pytest.approx(rmse[1], rel=0.05)


def test_the_best_learning_rate(data_dir, finished, tmp_path, capsys, monkeypatch):
    """And weight decay, by the mean over the seeds that most settings have, of runs alike in all else."""
    flags = (*FINISHED, "--learning_rate", "best", "--seed", "9")
    assert run(data_dir, tmp_path, *flags) == 2
    assert "--learning_rate best: no finished runs like this one" in capsys.readouterr().err
    settings, results = read(finished)

    def write(name, error, **changes):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**settings, **changes}))
        (tmp_path / name / "metrics.json").write_text(json.dumps({**results, "valid_rmse": error}))

    # the last one diverged with seed 2, with whose error it would be the best
    errors = {0.001: [0.3, 0.3, 0.3], 0.002: [0.1, 0.4, 0.6], 0.004: [0.35, 0.35, 0.35, 0.0], 0.008: [0.1, 0.4]}
    for rate, by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            write(f"{rate} {seed}", error, learning_rate=rate, seed=seed, weight_decay=10 * rate)
    write("another net", 0.0, learning_rate=0.9, width=0.5)
    running = (tmp_path / "0.001 2" / "metrics.json").rename(tmp_path / "metrics.json")  # the best, if it had ended
    waited = []

    def end(folder):
        waited.append(folder.name)
        if folder.name == "0.001 2":
            running.rename(folder / "metrics.json")

    monkeypatch.setattr(run_model, "wait_for", end)
    assert run(data_dir, tmp_path, *flags) == 0
    assert set(waited) == {f"{rate} {seed}" for rate in (0.001, 0.002, 0.004) for seed in range(3)}
    (folder,) = tmp_path.glob("*_seed9_*")
    config = json.loads((folder / "config.json").read_text())
    assert (config["learning_rate"], config["weight_decay"]) == (0.001, 0.01)
    assert "_lr0.001_" in folder.name
    assert "_weightdecay0.01" in folder.name
    for rate in range(5):
        write(f"another rate {rate}", 0.0, learning_rate=0.9, weight_decay=rate, seed=rate + 10)
    assert run(data_dir, tmp_path, *flags, "--no_resume") == 2
    assert "with a seed that most rates have" in capsys.readouterr().err


def test_other_windows_of_scale_are_another_test(data_dir, copied, capsys):
    assert run(data_dir, copied.parent, *FINISHED, "--scale_windows", "3") == 2
    assert "holds a run with scale_windows 32" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["--seed 1", "--history 5 --horizon 11"])
def test_other_data_are_refused(data_dir, copied, tmp_path, capsys, change):
    """The same frames with other group elements, or cut into other windows, are other data"""
    command = "rbc --stride 1 --tile 16 --history 6 --horizon 10 --raw".split()
    data_prep.main([*command, str(data_dir / "waves.npy"), *change.split(), "--data_dir", str(tmp_path)])
    files = {path: path.read_bytes() for path in copied.iterdir()}
    assert run(tmp_path, copied.parent, *FINISHED) == 2
    assert "holds a run with other data" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in copied.iterdir()} == files


def test_a_second_process_is_refused(data_dir, tmp_path, capsys):
    flags = [*QUICK, "--num_epoch", "1"]
    folder = tmp_path / run_name(parse_args(flags))
    folder.mkdir()
    with locked(folder):
        assert run(data_dir, tmp_path, "--num_epoch", "1") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"another process is at {folder}" in line
        assert not [*folder.iterdir()]
    assert run(data_dir, tmp_path, "--num_epoch", "1") == 0
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_test_set_without_a_window_is_met_before_training(data_dir, tmp_path, capsys, monkeypatch):
    """Elements so small that every window would need more frames than were prepared."""
    read_elements = run_model.read_elements
    changed = {"Scale": lambda elements: torch.full_like(elements, 0.5)}
    monkeypatch.setattr(
        run_model, "read_elements", lambda *where: changed.get(where[-1], lambda e: e)(read_elements(*where))
    )
    assert run(data_dir, tmp_path / "results", "--test_sets=Scale") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no window of the test set Scale is long enough for --input_length 4" in line
    assert not (tmp_path / "results").exists()


def test_no_equivariance_error_of_factors_that_read_too_much(data_dir, meta):
    windows = Windows(data_dir / "rbc", meta, "test")
    tests = TestSet(windows, SYMMETRIES["Scale"], torch.full((len(windows),), 0.5))
    assert equivariance_of(None, tests, 4, 10, 8) is None


@pytest.mark.parametrize("name", ["UM", "Scale"])
def test_a_forecast_that_overflows_has_an_equivariance_error(data_dir, meta, name):
    """One that is no number, of large factors alone as well: only bands that flows do not have are left out."""
    windows = Windows(data_dir / "rbc", meta, "test")
    elements = torch.tensor([1.0, 2.0] * len(windows))[: len(windows)]
    tests = TestSet(windows, SYMMETRIES[name], elements if name == "Scale" else torch.ones(len(windows), 2))

    def forecast(frames, steps, mask):
        overflows = name == "UM" or frames.shape[-1] > windows.frames.shape[-1]
        return frames[:, -1:].expand(-1, steps, -1, -1, -1) * (math.nan if overflows else 1)

    found = equivariance_of(forecast, tests, 4, 1, 8)
    assert math.isnan(found["relative"])
    if name == "Scale":
        assert [math.isnan(row["relative"]) for row in found["by_factor"].values()] == [False, True]


@pytest.mark.parametrize("slow", [False, True])
def test_slow_bfloat16_is_told(data_dir, tmp_path, capsys, monkeypatch, slow):
    monkeypatch.setattr(run_model, "bfloat16_is_slow", lambda device: slow)
    assert run(data_dir, tmp_path, "--num_epoch", "1", "--amp") == 0
    assert ("--amp will be slow" in capsys.readouterr().out) == slow


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"epochs": 1'])
def test_broken_results(data_dir, copied, capsys, name, content):
    (copied / name).write_text(content)
    assert run(data_dir, copied.parent, *FINISHED) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} is broken; train that run again" in line or f"{name} lacks " in line


@pytest.mark.parametrize("name", ["train.npy", "test.npy", "test_um.npz"])
def test_broken_data_are_met_before_training(data_dir, tmp_path, capsys, name):
    shutil.copytree(data_dir / "rbc", tmp_path / "data" / "rbc")
    (tmp_path / "data" / "rbc" / name).write_bytes(b"broken")
    assert run(tmp_path / "data", tmp_path / "results") == 2
    assert f"{name} is missing or broken; run data_prep.py again" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_other_group_elements_are_met_before_training(data_dir, tmp_path, capsys):
    folder = tmp_path / "data" / "rbc"
    shutil.copytree(data_dir / "rbc", folder)
    with np.load(folder / "test_um.npz") as file:
        np.savez(folder / "test_um.npz", elements=file["elements"][::-1].copy())
    assert run(tmp_path / "data", tmp_path / "results") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "test_um.npz does not match its sha256" in line
    assert not (tmp_path / "results").exists()


# The sweep of the release, line for line.
RELEASE = """
--dataset=RBC --architecture=ResNet --symmetry=None --output_length=3 --learning_rate=0.001
--dataset=RBC --architecture=Unet --symmetry=None --output_length=4 --learning_rate=0.001
--dataset=RBC --architecture=ResNet --symmetry=UM --output_length=3 --learning_rate=0.001
--dataset=RBC --architecture=Unet --symmetry=Mag --output_length=4 --learning_rate=0.005
--dataset=Ocean --architecture=ResNet --symmetry=None --output_length=4 --learning_rate=0.001 --input_length=24 \
--batch_size=32 --decay_rate=0.9 --seed=0
--dataset=Ocean --architecture=Unet --symmetry=Mag --output_length=6 --learning_rate=0.001 --input_length=21 \
--batch_size=32 --decay_rate=0.9 --seed=0
--dataset=Ocean --architecture=Unet --symmetry=UM --output_length=3 --learning_rate=0.0001 --input_length=26 \
--batch_size=16 --decay_rate=0.9 --kernel_size=5 --seed=0
--dataset=Ocean --architecture=ResNet --symmetry=Scale --output_length=3 --learning_rate=0.0001 --input_length=26 \
--batch_size=32 --decay_rate=0.9 --kernel_size=5 --seed=0
"""


@pytest.mark.parametrize("line", RELEASE.strip().splitlines())
def test_command_lines_of_the_release(line):
    args = parse_args(line.split())
    for flag in line.split():
        name, value = flag.removeprefix("--").split("=")
        assert str(getattr(args, name)) == value
    defaults = parse_args([])
    assert (defaults.dataset, defaults.symmetry, defaults.architecture, defaults.output_length) == (
        "RBC",
        "UM",
        "ResNet",
        4,
    )
    assert (defaults.input_length, defaults.batch_size, defaults.num_epoch, defaults.decay_rate) == (24, 16, 100, 0.95)


def test_command_lines_of_run_sh():
    lines = [line.strip() for line in (ROOT / "run.sh").read_text().splitlines() if line.strip().startswith("run --")]
    assert len(lines) >= 20
    for line in lines:
        flags = [word for word in line.split()[1:] if "$" not in word]
        parse_args(flags)  # would exit on a flag that does not exist


def run_sh(*arguments, **environment):
    command = ["sh", ROOT / "run.sh", *map(str, arguments)]
    environment = {**os.environ, "PYTHON": sys.executable} | {name: str(value) for name, value in environment.items()}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_run_sh_says_what_is_missing(tmp_path):
    done = run_sh(DATA_DIR=tmp_path / "data", RESULTS=tmp_path / "results")
    assert done.returncode == 2
    assert "data_prep.py rbc" in done.stdout
    assert "data_prep.py ocean" in done.stdout
    assert not list(tmp_path.iterdir())
    assert run_sh("quickly").returncode == 2


MODES = [(), *((name,) for name in "quick evidence seas temperatures heat samples wide ablation smoke".split())]


@pytest.mark.parametrize("mode", MODES)
def test_run_sh_lists_its_runs(tmp_path, mode):
    """One command a line and seed, each of which run_model.py understands; nothing is made."""
    data = tmp_path / "my data"
    done = run_sh(*mode, "--list", DATA_DIR=data, RESULTS=tmp_path / "results", SEEDS="0 7")
    assert done.returncode == 0, done.stderr
    runs = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(words[:2] == [sys.executable, "run_model.py"] for words in runs)
    args = [parse_args(words[2:]) for words in runs]
    assert len({run_name(arg) for arg in args}) == len(args) >= 6
    assert {arg.seed for arg in args} == {0, 7}
    chosen = mode in (("evidence",), ("seas",), ("smoke",), ("samples",))  # by the runs of seed 0, for the others
    assert {arg.seed for arg in args if arg.learning_rate == "best"} == ({7} if chosen else set())
    # The small sweeps make their convection, but not currents.
    plumes = {"smoke_rotation", "smoke_scale", "smoke_translation", *(f"smoke_levels_{level}" for level in range(10))}
    temperatures = {"rbc_vector", "rbc_scalar", "rbc_both"}  # the storm has to be prepared first
    own = {"smoke": {"RBC", *plumes}, "seas": {"Ocean"}, "temperatures": temperatures, "heat": {"heat"}}
    assert {arg.dataset for arg in args} == (own.get(mode[0], {"RBC"}) if mode else {"RBC", "Ocean"})
    assert all(arg.data_dir.is_relative_to(data) for arg in args)
    assert not list(tmp_path.iterdir())
    (data / "ocean").mkdir(parents=True)
    (data / "ocean" / "meta.json").touch()
    listed = run_sh(*mode, "--list", DATA_DIR=data).stdout
    assert ("--dataset=Ocean" in listed) == (mode in ((), ("quick",), ("evidence",), ("seas",), ("smoke",)))


def test_run_sh_says_how_to_get_the_seas(tmp_path):
    done = run_sh("seas", DATA_DIR=tmp_path / "data", RESULTS=tmp_path / "results")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: no {tmp_path}/data/seas/ocean: docs/results.md has the command")
    assert not list(tmp_path.iterdir())


def test_run_sh_scores_the_finished_nets_elsewhere(tmp_path):
    data, results = tmp_path / "my data", tmp_path / "results"
    settings = {"DATA_DIR": data, "RESULTS": results}
    done = run_sh("transfer", **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: no finished run in {results}/evidence: sh run.sh evidence makes them\n"
    assert not list(tmp_path.iterdir())
    for name in ("RBC_1", "RBC_half", "RBC_2", "Ocean_1"):
        (results / "evidence" / name).mkdir(parents=True)
        if "half" not in name:
            (results / "evidence" / name / "metrics.json").touch()
    (results / "transfer" / "rbc_seed_RBC_2").mkdir(parents=True)  # is done
    lines = run_sh("transfer", "--list", **settings).stdout.splitlines()
    args = [run_model.parse_args(shlex.split(line)[2:]) for line in lines]
    assert len({arg.dataset for arg in args}) == 5
    assert [(arg.dataset, arg.evaluate.name) for arg in args[:2]] == [("rbc_seed", "RBC_1"), ("rbc_ra3e6", "RBC_1")]
    assert all(arg.output == results / "transfer" / f"{arg.dataset}_{arg.evaluate.name}" for arg in args)
    assert {(arg.data_dir, arg.test_sets) for arg in args} == {(data / "quick", "domain")}
    (results / "seas" / "Ocean_1").mkdir(parents=True)
    (results / "seas" / "Ocean_1" / "metrics.json").touch()
    (data / "seas" / "mediterranean").mkdir(parents=True)
    (data / "seas" / "mediterranean" / "meta.json").touch()
    lines = run_sh("seas", "--list", **settings).stdout.splitlines()
    *runs, arg = [run_model.parse_args(shlex.split(line)[2:]) for line in lines]
    assert {arg.dataset for arg in runs} == {"Ocean", "mediterranean"}
    assert (arg.evaluate.name, arg.dataset, arg.test_sets) == ("Ocean_1", "mediterranean", "test")


@pytest.mark.parametrize("code", [0, 2])
def test_quick_runs_what_it_lists(tmp_path, code):
    """Two at a time; a run that fails does not stop the others, and is not forgotten."""
    data, python, calls = tmp_path / "my data", tmp_path / "python", tmp_path / "calls"
    (data / "quick" / "rbc").mkdir(parents=True)
    (data / "quick" / "rbc" / "meta.json").touch()
    python.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\ncase $* in *=Mag*) exit {code} ;; esac\n')
    python.chmod(0o755)
    settings = {"PYTHON": python, "DATA_DIR": data, "RESULTS": tmp_path / "results"}
    done = run_sh("quick", **settings)
    assert done.returncode == code
    assert done.stdout.count(" of 10 runs done, about ") == 10
    assert "== 10 of 10 runs done, about 0 minutes left" in done.stdout
    listed = run_sh("quick", "--list", **settings).stdout.splitlines()
    done = calls.read_text().splitlines()
    assert done[-1].startswith("-m evaluation.report")
    assert sorted(done[:-1]) == sorted(" ".join(shlex.split(line)[1:]) for line in listed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset Moon", "no prepared data in"),
        ("--frame Scale", "unknown frame 'Scale'; choose from UM, Mag, Rot"),
        ("--padding mirror", "unknown padding 'mirror'; choose from circular"),
        ("--test_sets UM,Color", "unknown test set 'Color'; choose from test, domain, UM, Mag, Rot, Scale"),
        ("--test_sets domain", "--test_sets domain: the prepared data have test, UM, Mag, Rot, Scale"),
        ("--scale_windows -1", "--scale_windows must not be negative"),
        ("--variant drift", "symmetry UM has no variant 'drift'; it has free"),
        ("--symmetry Color", "unknown symmetry 'Color'"),
        ("--architecture VGG", "unknown architecture 'VGG'"),
        ("--augment Color", "unknown symmetry 'Color'"),
        ("--kernel_size 4", "--kernel_size must be odd and positive, got 4"),
        ("--input_length 0", "--input_length must be positive, got 0"),
        ("--learning_rate -1", "--learning_rate must be positive, got -1.0"),
        ("--weight_decay -1", "--weight_decay must be a number from 0 on, got -1.0"),
        ("--learning_rate nan", "--learning_rate must be positive, got nan"),
        ("--width 0", "--width must be positive, got 0.0"),
        ("--num_epoch 0", "--num_epoch must be positive, got 0"),
        ("--seed -1", "must not be negative"),
        ("--seed 99999999999999999999", "--seed must be below 2^63"),
        ("--symmetry UM --rotation_order 4", "--rotation_order is of --symmetry Rot, not of UM"),
        ("--variant free --relaxed 1", "--variant free has no constraint"),
        ("--architecture ConvNet --symmetry Rot --variant normless", "the ConvNet has no norms"),
        ("--symmetry Scale --input_length 1", "input_length must be at least 2"),
        ("--train_fraction 0", "--train_fraction must be above 0 and at most 1, got 0.0"),
        ("--train_fraction 0.01", "leaves 1 training windows, fewer than --batch_size 8"),
        ("--width 1e9", "--width 1e+09 makes inf parameters"),
        ("--width 200 --architecture ResNet", "lower it"),
        ("--train_fraction 1.5", "--train_fraction must be above 0 and at most 1, got 1.5"),
        ("--device tpu7", "--device must be cpu, cuda or cuda:N, got tpu7"),
        ("--device meta", "--device must be cpu, cuda or cuda:N, got meta"),
        ("--device cuda:99", "CUDA devices"),
        ("--input_length 7", "--input_length 7 is more than the 6 frames before the forecast"),
        ("--output_length 11", "forecasts of 11 frames"),
        ("--data_dir nowhere", "no prepared data in nowhere"),
        ("--dataset Ocean", "no prepared data in"),
    ],
)
def test_bad_input(data_dir, tmp_path, capsys, arguments, message):
    assert run(data_dir, tmp_path / "results", *arguments.split()) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("arguments", ["--colour", "--seed x", "--output_length 2.5", "--dataset data/rbc"])
def test_flags_that_do_not_exist(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run_model.main(arguments.split())
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_what_is_not_finished_is_no_run_elsewhere(data_dir, copied, tmp_path, capsys):
    (copied / "metrics.json").unlink()
    flags = [f"--evaluate={copied}", f"--data_dir={data_dir}", "--device=cpu", f"--output={tmp_path / 'elsewhere'}"]
    assert exit_code(lambda: run_model.main(flags)) == 2
    assert "is not finished, so it cannot be a run elsewhere" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_results_that_cannot_be_written(data_dir, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(data_dir, tmp_path / "file") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_as_a_program(data_dir, tmp_path):
    command = [sys.executable, ROOT / "run_model.py", *QUICK, "--data_dir", data_dir, "--results", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Model: Unet | Symmetry: UM | Future RMSE: 0.")


WRONG = ["--width 0", "--symmetry Color", "--symmetry Rot --rotation_order 3", "--frames x.npy", "--steps 5"]


@pytest.mark.parametrize("flags", ["--help", *WRONG, "--data_dir nowhere"])
def test_flags_are_read_before_torch(flags):
    """Help and mistyped flags need not wait for it; with flags that are right it comes."""
    command = [sys.executable, "-X", "importtime", ROOT / "run_model.py", *flags.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert imported & {"torch", "scipy"} == ({"torch", "scipy"} if flags == "--data_dir nowhere" else set())
    assert done.returncode == (0 if flags == "--help" else 2)


def test_what_flags_know_of_symmetries():
    """The options that flags are made from are those of the nets."""
    assert list(OPTIONS) == list(SYMMETRIES)
    for name, symmetry in SYMMETRIES.items():
        assert isinstance(symmetry, type(OPTIONS[name]))
        assert symmetry.options() == OPTIONS[name].options()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux shows what a process has loaded")
@pytest.mark.parametrize("program", ["run_model.py", "data_prep.py"])
def test_interrupted_while_modules_load(program, tmp_path):
    process = subprocess.Popen([sys.executable, ROOT / program], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == ""
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
def test_killed_ten_times(data_dir, tmp_path):
    """kill -9 at random moments, start again: at the end the metrics of a run that was left alone."""
    flags = [*QUICK, "--data_dir", data_dir, "--device", "cpu", "--symmetry", "Mag", "--num_epoch", "40"]
    command = [sys.executable, ROOT / "run_model.py", *flags, "--results"]
    start = time.monotonic()
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    whole = time.monotonic() - start

    moments, kills = random.Random(0), 0
    while kills < 10:
        process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.PIPE, text=True)
        while not process.stdout.readline().startswith(("Unet", "RBC", "going on")):
            pass  # importing torch is no moment of training
        time.sleep(moments.uniform(0, whole / 8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kills += 1
    subprocess.run([*command, tmp_path / "killed"], check=True, capture_output=True)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    assert not [*tmp_path.glob("killed/*/.*")]
