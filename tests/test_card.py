"""The table of all nets on a card, on this CPU and tiny: the same code."""

import json

import pytest
import torch

from evaluation import card, speed
from models import SKELETONS, SYMMETRIES
from utils import exit_code


@pytest.mark.slow
def test_the_table(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(speed.PEAK, "cpu", (64, 1, 8))
    monkeypatch.setattr(card, "PRECISIONS", {"float32": ({}, False), "bf16": ({"amp": True}, True)})
    flags = f"--device=cpu --size 32 --batch 1 2 --width=0.03 --json={tmp_path}/card.json"
    assert exit_code(lambda: card.main(flags.split())) == 0
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert table[0].split() == "| net | grid | batch | float32 | bf16 |".split()
    assert len(table) == 3 + 2 * len(SKELETONS) * len(SYMMETRIES)
    cells = json.loads((tmp_path / "card.json").read_text())["cells"]
    assert len(cells) == 2 * (len(table) - 3)
    for cell in cells:
        assert cell["seconds"] > 0
        assert cell["operations"] > 0
        if cell["precision"] == "float32":
            assert (cell["equivariance"] < 1e-4) == (cell["net"][1] in ("UM", "Mag", "Rot"))


def test_a_net_that_fails_leaves_its_cell_empty(capsys, monkeypatch):
    """So does one that the memory is too small for, which torch says with a RuntimeError, too."""
    monkeypatch.setitem(speed.PEAK, "cpu", (64, 1, 8))
    monkeypatch.setattr(card, "PRECISIONS", {"float32": ({}, False)})

    def cell(net, setting):
        if net[1] == "UM":
            raise torch.OutOfMemoryError("no memory\nof many lines")
        return {"seconds": 1, "operations": 1, "equivariance": 0}

    monkeypatch.setattr(card, "cell", cell)
    assert exit_code(lambda: card.main("--device=cpu --size 32 --batch 1".split())) == 0
    out = capsys.readouterr().out
    assert out.count("float32: no memory\n") == len(SKELETONS)
    rows = out.split("\n\n")[-1].splitlines()[3:]
    assert [row for row in rows if row.endswith(" - |")] == [row for row in rows if " UM " in row]


def test_no_time_left(capsys, monkeypatch):
    monkeypatch.setitem(speed.PEAK, "cpu", (64, 1, 8))
    monkeypatch.setattr(card, "PRECISIONS", {"float32": ({}, False)})
    assert exit_code(lambda: card.main("--device=cpu --minutes=0".split())) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| peak, TFLOP/s ")
    assert exit_code(lambda: card.main("--size 20".split())) == 2
    assert "--size multiples of 16" in capsys.readouterr().err
