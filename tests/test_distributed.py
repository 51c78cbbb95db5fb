"""Several processes on one machine give the numbers of one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from evaluation.score import TestSet, score, validation_rmse
from flows.store import load_meta
from flows.windows import Windows
from models import SYMMETRIES, build_model
from utils import (
    InputError,
    Training,
    connect,
    exit_code,
    forecast,
    load_checkpoint,
    processes,
    rank,
    shared_roll_out,
    store_of_this_start,
    train,
)

ROOT = Path(__file__).parents[1]
SETTINGS = dict(input_length=4, output_length=2, batch_size=8, num_epoch=1, learning_rate=0.003, decay_rate=0.95)
# Batch norms in the plain net and the one for rotation; land; transforms; whole nets of either skeleton.
NETS = {"UM": "Unet", "Mag": "ResNet", "None": "Unet", "Rot": "Unet", "Scale": "Unet"}
TRAINED = 17  # windows: two batches of 8, and one of 1, of which the last process has none


def open_windows(data_dir, split, land):
    """Windows of 3 tiles in float64, a fifth of their points on land."""
    windows = Windows(data_dir / "rbc", load_meta(data_dir / "rbc"), split)
    windows.frames = windows.frames.double()
    if land:
        windows.mask = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.8
        windows.frames = windows.frames * windows.mask[:, None, None]
    return windows


def fit(data_dir, symmetry, folder):
    """Train a small net in float64 and score it; ``(history, scores by test set)``."""
    torch.manual_seed(0)
    model = build_model(NETS[symmetry], symmetry, input_length=4, width=0.0625).double()
    train_windows, valid_windows, test_windows = (
        open_windows(data_dir, split, land=symmetry == "UM") for split in ("train", "valid", "test")
    )
    train_windows.keep_last(TRAINED / len(train_windows))
    augment = (SYMMETRIES["Mag"],) if symmetry == "UM" else ()
    if rank() == 0:
        folder.mkdir()
    settings = Training(**SETTINGS, augment=augment, checkpoint=symmetry == "Rot" and processes() > 1)
    history = train(model, train_windows, partial(validation_rmse, model, valid_windows, settings), settings, folder)
    for row in history:
        del row["seconds"]
    model.eval()
    factors = torch.tensor([1.0, 1.25, 1.5]).repeat_interleave(len(test_windows))[2 : 2 + len(test_windows)]
    factors[-1] = 1.5  # one window alone: fewer than the processes
    tests = [TestSet(test_windows), TestSet(test_windows, SYMMETRIES["Scale"], factors.double())]
    return history, [
        score({"": partial(forecast, model)}, one, 4, 3, 5, spectra=[""], measured=[""])[""] for one in tests
    ]


def join(number, count, port):
    """Become process ``number`` of ``count``."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return connect(torch.device("cpu"))


def every_net(number, count, port, data_dir, folder):
    """What each process of ``count`` runs."""
    join(number, count, port)
    results = {symmetry: fit(data_dir, symmetry, folder / symmetry) for symmetry in NETS}
    (folder / f"{number}.json").write_text(json.dumps(results))


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def alone(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, {symmetry: fit(data_dir, symmetry, folder / symmetry) for symmetry in NETS}


def assert_close(one, other):
    """Equal structures whose numbers differ by 1e-9 at most, relatively."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), [other[name] for name in one]
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_close(*pair)
    else:
        assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_numbers_of_one_process(alone, data_dir, tmp_path, count):
    """Loss curves, scores and weights, whatever the shares: uneven, empty, groups smaller than the processes."""
    multiprocessing.spawn(every_net, (count, free_port(), data_dir, tmp_path), nprocs=count)
    folder, expected = alone
    for number in range(count):
        for symmetry, result in json.loads((tmp_path / f"{number}.json").read_text()).items():
            assert_close(result, expected[symmetry])
    for symmetry in NETS:
        one, other = (load_checkpoint(f / symmetry / "last.pt", "cpu")["model"] for f in (folder, tmp_path))
        for name, tensor in one.items():  # statistics of batch norm included
            torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-9)


def the_second_fails(number, count, port, folder, killed):
    """Process 1 meets bad input, or is killed, while the others train; what they print and return goes to a file."""

    def main():
        join(number, count, port)
        forecaster = shared_roll_out(build_model("Unet", "None", input_length=4, width=0.0625))
        if number == 1 and killed:
            os._exit(0)
        if number == 1:
            raise InputError("a disk that only this machine has is full")
        forecaster(torch.randn(2, 4, 2, 16, 16), 1, None, False).sum().backward()

    with open(folder / f"{number}.err", "w") as sys.stderr:
        code = exit_code(main)
    (folder / f"{number}.code").write_text(str(code))
    os._exit(0)  # as after a crash: nothing is tidied up


@pytest.mark.slow
def test_the_first_to_fail_speaks_for_all(tmp_path):
    multiprocessing.spawn(the_second_fails, (3, free_port(), tmp_path, False), nprocs=3)
    assert [(tmp_path / f"{number}.code").read_text() for number in range(3)] == ["2", "2", "2"]
    lines = [(tmp_path / f"{number}.err").read_text() for number in range(3)]
    assert lines == ["", "error: a disk that only this machine has is full\n", ""]


@pytest.mark.slow
def test_the_loss_of_a_process_is_no_defect(tmp_path):
    multiprocessing.spawn(the_second_fails, (3, free_port(), tmp_path, True), nprocs=3)
    assert [(tmp_path / f"{number}.code").read_text() for number in (0, 2)] == ["2", "2"]
    lines = [(tmp_path / f"{number}.err").read_text() for number in (0, 2)]
    message = "error: another process of this run has ended; the same command goes on from the last epoch\n"
    assert sorted(lines) == ["", message]


def test_processes_that_are_started_again_do_not_meet_the_old_ones():
    store = distributed.HashStore()
    store.set("start", "a start that was cut short")
    with ThreadPoolExecutor(3) as pool:
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
            parts = []
            for number in order:
                parts.append(pool.submit(store_of_this_start, store, number, 3))
                time.sleep(0.1)
            parts = [part.result(timeout=60) for part in parts]
            assert not any(part.check(["address"]) for part in parts)
            parts[0].set("address", "of this start")
            assert all(part.check(["address"]) for part in parts)


# ---------------------------------------------------------------- the command line

QUICK = "--architecture Unet --symmetry None --input_length 4 --output_length 2 --batch_size 8 --width 0.125".split()


def torchrun(*arguments, flags=(), epochs=2, launch=subprocess.run):
    """Start ``run_model.py`` in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *flags]
    command += [ROOT / "run_model.py", *QUICK, f"--num_epoch={epochs}", "--device=cpu", *arguments]
    return launch(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(results, name="metrics.json"):
    """A JSON file of the only run in ``results``."""
    (path,) = results.glob(f"*/{name}")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_run_of_two_processes(data_dir, tmp_path):
    """One set of files, one report, the scores of one process up to rounding; a failure is told once."""
    done = torchrun("--data_dir", data_dir, "--results", tmp_path / "two", epochs=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Model: Unet") == 1
    command = [sys.executable, ROOT / "run_model.py", *QUICK, "--num_epoch=1", "--device=cpu", "--data_dir", data_dir]
    subprocess.run([*command, "--results", tmp_path / "one"], check=True, capture_output=True)
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    for name, scores in one["scores"].items():
        assert two["scores"][name]["rmse"] == pytest.approx(scores["rmse"], rel=1e-4)
        assert two["scores"][name]["ese"] == pytest.approx(scores["ese"], rel=1e-3)
    assert read(tmp_path / "two", "config.json")["processes"] == 2

    (folder,) = (tmp_path / "two").iterdir()
    (folder / "metrics.json").unlink()
    (folder / "last.pt").write_bytes(b"broken")
    done = torchrun("--data_dir", data_dir, "--results", tmp_path / "two", epochs=1)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: {folder / 'last.pt'} is no checkpoint of this program; remove it or use --no_resume"
    ]


@pytest.mark.slow
def test_a_killed_process_is_started_again(data_dir, tmp_path):
    """torchrun starts both processes again, they go on from last.pt and end with the numbers of a run left alone."""
    torchrun("--data_dir", data_dir, "--results", tmp_path / "whole", epochs=60).check_returncode()
    setting = ("--data_dir", data_dir, "--results", tmp_path / "killed")
    run = torchrun(*setting, flags=["--max_restarts=1"], epochs=60, launch=subprocess.Popen)
    while not run.stdout.readline().startswith("epoch   3"):
        pass
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert "RuntimeError" not in errors
    assert read(tmp_path / "killed")["scores"] == read(tmp_path / "whole")["scores"]
