"""The simulations' numbers, to the last bit, here and on a CPU without the instructions that this one may have."""

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simulation import heat, smoke
from simulation.portable import Poisson, cosine, cosine_transform, product_with_cosines
from simulation.rayleigh_benard import PRESETS, RayleighBenard

# What data sets and results rest on: with another value here, all that was simulated before is another flow.
CHECKSUMS = {
    "convection": "e9eacc5fb3bd0a3a",
    "smoke": "35a082e408a28a8b",
    "averaged smoke": "52091434021476c0",
    "heat": "ea8d1b2f58ce54dc",
}
# Of an old CPU: for torch, its matrix products and transforms, NumPy, its matrix products, and the C library.
OLD = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 FMA3 AVX512F",
    "OPENBLAS_CORETYPE": "Prescott",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
}


def checksums():
    """Of one flow of each simulation."""
    flow = RayleighBenard(PRESETS["tiny"])
    flow.advance_to(20)
    flows = {
        "convection": flow.state.numpy(),
        "smoke": smoke.simulate(replace(smoke.translation("small"), steps=30)).numpy(),
        "averaged smoke": smoke.simulate(replace(smoke.scale("small"), steps=10)).numpy(),
        "heat": heat.simulate(20, 10, 32, 0.1).astype(np.float32),
    }
    return {name: hashlib.sha256(values.tobytes()).hexdigest()[:16] for name, values in flows.items()}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other CPUs may round otherwise")
@pytest.mark.parametrize("environment", [{}, OLD], ids=["this CPU", "an old one"])
def test_flows_to_the_last_bit(environment):
    lines = subprocess.run(
        [sys.executable, "-W", "ignore", __file__],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert lines == [f"{name}: {checksum}" for name, checksum in CHECKSUMS.items()]


def test_cosine():
    angle = np.array([0, 1 / 3, 0.5, 1, 1.5, 63])
    assert cosine(angle) == pytest.approx(np.cos(np.pi * angle), abs=1e-14)
    assert cosine(angle)[[0, 3, 5]].tolist() == [1, -1, -1]


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("inverse", [False, True])
def test_transform_of_other_devices(dim, inverse):
    """The matrix product that a GPU computes is SciPy's transform, to rounding."""
    field = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 6, 10)))
    found, wanted = product_with_cosines(field, dim, inverse), cosine_transform(field, dim, inverse)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("columns", [9, 10])
def test_pressure_solves_the_poisson_equation(periodic, columns):
    outflow = np.random.default_rng(0).standard_normal((2, 8, columns))
    outflow -= outflow.mean((1, 2), keepdims=True)
    solver = Poisson(8, columns, periodic, torch.float64, "cpu")
    p = solver.pressure(torch.from_numpy(outflow)).numpy()
    padded = np.pad(p, ((0, 0), (1, 1), (0, 0)), mode="edge")
    padded = np.pad(padded, ((0, 0), (0, 0), (1, 1)), mode="wrap" if periodic else "edge")
    laplacian = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] - 4 * p
    np.testing.assert_allclose(laplacian, outflow, rtol=0, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("periodic", [True, False])
def test_pressure_on_a_gpu(periodic):
    outflow = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 8, 10)))
    here, there = (Poisson(8, 10, periodic, torch.float64, device) for device in ("cpu", "cuda"))
    torch.testing.assert_close(there.pressure(outflow.cuda()).cpu(), here.pressure(outflow), rtol=0, atol=1e-12)


if __name__ == "__main__":
    for name, checksum in checksums().items():
        print(f"{name}: {checksum}")
