"""A small prepared data set: waves that travel, so that a net can learn them in seconds."""

import numpy as np
import pytest
import torch

import data_prep
from flows.store import load_meta

torch.set_num_threads(1)  # the tensors of the tests are too small to share


def waves(frames=60, height=16, width=48, seed=0):
    """Divergence-free travelling waves ``(frames, 2, height, width)``, float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    time = np.arange(frames)[:, None, None]
    flow = np.zeros((frames, 2, height, width))
    for kx, ky, omega in [(1, 1, 0.3), (2, 1, -0.2), (1, 2, 0.25)]:
        phase = 2 * np.pi * (kx * x + ky * y) / 16 - omega * time + rng.uniform(0, 2 * np.pi)
        flow[:, 0] += ky * np.cos(phase)
        flow[:, 1] -= kx * np.cos(phase)
    return flow.astype(np.float32)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """``data_dir/rbc``: three tiles of 16 x 16, windows of 6 + 10 frames."""
    folder = tmp_path_factory.mktemp("prepared")
    np.save(folder / "waves.npy", waves())
    command = "rbc --stride 1 --tile 16 --history 6 --horizon 10 --gap 0".split()
    data_prep.main([*command, "--raw", str(folder / "waves.npy"), "--data_dir", str(folder)])
    return folder


@pytest.fixture(scope="session")
def meta(data_dir):
    return load_meta(data_dir / "rbc")
