"""What a net is said to cost before it is trained, and that saying so changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import run_model
from evaluation.price import alive, training_price
from flows.windows import Windows
from models import build_model
from utils import Training

SETTINGS = Training(input_length=4, output_length=2, batch_size=8, num_epoch=1, learning_rate=0.01, decay_rate=1.0)


def test_parameters_alive():
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[0, 1e-8, 1e-3], [-1, -1e-7, -2e-6]])
        model.bias[:] = 0
    assert alive(model) == 3


@pytest.mark.parametrize("flags", ["--symmetry=Rot --rotation_order=4", "--symmetry=UM --augment=all --relaxed=0.1"])
def test_a_run_is_the_same_with_and_without(data_dir, tmp_path, monkeypatch, capsys, flags):
    """Batch norm, augmentation and deviations included: the log but for the seconds, and the weights bit by bit."""
    common = "--architecture=Unet --input_length=4 --output_length=2 --batch_size=8 --width=0.03 --num_epoch=1"
    files, folders = [], (tmp_path / "with", tmp_path / "without")
    for results in folders:
        where = f"--data_dir={data_dir} --results={results} --device=cpu --test_sets=test"
        command = f"{common} {where} {flags}".split()
        run_model.main(command)
        (folder,) = results.iterdir()
        rows = [line.rpartition(",")[0] for line in (folder / "log.csv").read_text().splitlines()]
        files.append([rows, *((folder / name).read_bytes() for name in ("best.pt", "windows.json"))])
        monkeypatch.setattr(run_model, "training_price", lambda *arguments: (0, 0.0))
    assert files[0] == files[1]
    assert capsys.readouterr().out.count(" of training per epoch") == 2


def test_the_price_of_a_batch_larger_than_all(data_dir, meta):
    """A step then has all the windows, and no more."""
    windows, model = Windows(Path(data_dir) / "rbc", meta, "train"), build_model("ConvNet", "None", 4, width=0.125)
    all_at_once, *others = (
        training_price(model, windows, replace(SETTINGS, batch_size=size))[0] for size in (len(windows), 10**4)
    )
    assert others == [all_at_once]


def test_the_price_of_a_step(data_dir, meta):
    """Two per tap, pair of channels, sample and point; as many for each gradient, but for that of the given frames."""
    windows, model = Windows(Path(data_dir) / "rbc", meta, "train"), build_model("ConvNet", "None", 4, width=0.125)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    random = torch.get_rng_state()
    operations, seconds = training_price(model, windows, SETTINGS)
    channels = (8, 16, 16, 16, 16, 2)
    per_layer = [2 * 9 * reads * writes * 8 * 16 * 16 for reads, writes in zip(channels, channels[1:], strict=False)]
    assert operations == 2 * 3 * sum(per_layer) - per_layer[0]
    assert seconds > 0
    assert all(map(torch.equal, before, model.state_dict().values()))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
