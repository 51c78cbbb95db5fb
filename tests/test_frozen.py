"""Frozen checkpoints: tiny nets whose weights, input and forecast are committed, so that weights keep their meaning.

Every machine and every later version must reproduce the forecasts. Where a change of meaning is meant, raise
``utils.CHECKPOINT_SCHEMA``, so that older checkpoints are refused in a line, and run ``python -m tests.test_frozen``,
which writes the files that are missing: those of all nets, once they have been removed. (Where a net's weights have
other names than before, ``utils.load_weights`` refuses the older ones as it is.)
"""

import os
import subprocess
import sys
from itertools import count, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models import SKELETONS, SYMMETRIES, build_model
from models.rotation import kernel_basis
from utils import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
FROZEN = Path(__file__).parent / "data" / "frozen"
NETS = [(architecture, symmetry) for architecture in SKELETONS for symmetry in SYMMETRIES]
KINDS = [("vector",), ("scalar",), ("regular",), ("vector", "scalar")]
GROUPS = [(4, False), (8, False), (8, True)]


def tiny(architecture, symmetry):
    return build_model(architecture, symmetry, input_length=2, width=1 / 128)


def path_of(architecture, symmetry):
    return FROZEN / f"{architecture}_{symmetry}.pt"


def freeze():
    """Write the missing files. Biases and running statistics are random: nothing that a net reads is 0 or 1."""
    FROZEN.mkdir(parents=True, exist_ok=True)
    for net in (net for net in NETS if not path_of(*net).exists()):
        for seed in count():
            torch.manual_seed(seed)
            model = tiny(*net).eval()
            for name, tensor in model.state_dict().items():
                if name.endswith(("bias", "running_mean")):
                    nn.init.normal_(tensor)
                if name.endswith("running_var"):
                    nn.init.uniform_(tensor, 0.5, 2)
            frames = torch.randn(1, 2, 2, 16, 16)
            with torch.no_grad():
                forecast = model(frames)
            if forecast.any():  # one channel between ReLUs may be silent
                break
        save_checkpoint(path_of(*net), model=model.state_dict(), frames=frames, forecast=forecast)


def bases():
    """All that weights of the rotation nets refer to."""
    return {
        f"{group} {pair}": kernel_basis(*group, 3, *pair).numpy() for group in GROUPS for pair in product(KINDS, KINDS)
    }


@pytest.mark.parametrize("net", NETS, ids="-".join)
def test_frozen_weights_give_the_frozen_forecast(net):
    state = load_checkpoint(path_of(*net), "cpu")
    model = tiny(*net).eval()
    model.load_state_dict(state["model"])
    with torch.no_grad():
        difference = model(state["frames"]) - state["forecast"]
    assert difference.norm() < 1e-4 * state["forecast"].norm()


@pytest.mark.parametrize("processor", ["Haswell", "Sandybridge", "Nehalem", "Prescott"])
def test_on_another_processor(processor, tmp_path):
    """The linear algebra of another CPU's kernels: the same bases, and the same forecasts of the same weights."""
    environment = {**os.environ, "OPENBLAS_CORETYPE": processor}
    command = [sys.executable, "-m", "tests.test_frozen", str(tmp_path / "bases.npz")]
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if child.returncode < 0:
        pytest.skip(f"this machine cannot run the kernels of {processor}")
    assert child.returncode == 0, child.stderr
    with np.load(tmp_path / "bases.npz") as file:
        for name, basis in bases().items():
            np.testing.assert_allclose(file[name], basis, rtol=0, atol=1e-6, err_msg=name)


if __name__ == "__main__":
    if sys.argv[1:]:
        np.savez(sys.argv[1], **bases())
        for frozen in NETS:
            test_frozen_weights_give_the_frozen_forecast(frozen)
    else:
        freeze()
