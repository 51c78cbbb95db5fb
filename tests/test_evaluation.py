"""The measures against closed forms, other formulas and the released values."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.equivariance import equivariance_error
from evaluation.rmse import rmse
from evaluation.score import Remembered, TestSet, equivariance_of
from evaluation.spectrum import (
    energy_spectrum,
    energy_spectrum_error,
    kinetic_energy,
    log_spectrum,
    rings,
    spectrum_error,
    velocity_spectrum,
)
from models import SYMMETRIES

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden" / "spectrum_released.npz"
sizes = st.tuples(st.integers(2, 12), st.integers(2, 12))


# ---------------------------------------------------------------- RMSE


def test_rmse_of_a_constant_error():
    target = torch.randn(3, 4, 2, 5, 7)
    error = torch.tensor([1.0, 2.0, 3.0, 4.0])
    prediction = target + error[:, None, None, None]
    torch.testing.assert_close(rmse(prediction, target, per_step=True), error.double())
    assert rmse(prediction, target).item() == pytest.approx(math.sqrt(30 / 4), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**32))
def test_rmse_is_that_of_numpy(size, seed):
    torch.manual_seed(seed)
    prediction, target = torch.randn(2, 3, 4, 2, *size, dtype=torch.float64)
    mask = torch.rand(3, 1, *size) < 0.7
    mask[:, :, 0, 0] = True
    valid = mask[:, None].expand_as(target).numpy()
    expected = np.sqrt(np.mean((prediction.numpy() - target.numpy())[valid] ** 2))
    assert rmse(prediction, target, mask).item() == pytest.approx(expected)
    per_step = rmse(prediction, target, mask, per_step=True)
    assert per_step.square().mean().sqrt().item() == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(size=sizes, offset=st.floats(-100, 100), seed=st.integers(0, 2**32))
def test_single_precision_loses_nothing_in_the_sums(size, offset, seed):
    """Errors of float32 fields are added in float64: as exact as the fields themselves."""
    torch.manual_seed(seed)
    prediction, target = torch.randn(2, 3, 4, 2, *size)
    prediction, target = prediction + offset, target + offset
    exact = rmse(prediction.double(), target.double()).item()
    assert rmse(prediction, target).item() == pytest.approx(exact, rel=1e-6)
    assert rmse(prediction, target).dtype == torch.float64


def test_rmse_of_many_small_errors():
    """2 million errors of 0.1 beside two of 1000: a float32 sum would lose them."""
    target = torch.zeros(1, 1, 2, 1024, 1024)
    prediction = torch.full_like(target, 0.1)
    prediction[..., 0, 0] = 1000.0
    count = target.numel()
    expected = math.sqrt(((count - 2) * np.float32(0.1).item() ** 2 + 2e6) / count)
    assert rmse(prediction, target).item() == pytest.approx(expected, rel=1e-7)


def test_land_does_not_count():
    target = torch.randn(2, 3, 2, 5, 7)
    mask = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    mask[..., 2:, :] = False
    for land in (1e6, torch.nan):
        prediction = target.clone()
        prediction[..., 2:, :] = land
        assert rmse(prediction, target, mask) == 0
        assert rmse(prediction + 2, target, mask) == pytest.approx(2)


# ---------------------------------------------------------------- spectrum


def standing_wave(height, width, row, column):
    """Frames whose fluctuating kinetic energy is 1 + cos(the mode) / 2: u = +-sqrt of twice that."""
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    energy = 1 + torch.cos(2 * math.pi * (row * y / height + column * x / width)) / 2
    u = (2 * energy).sqrt()
    return torch.stack([torch.stack([u, 0 * u]), torch.stack([-u, 0 * u])])[None], energy


@pytest.mark.parametrize(
    ("size", "mode", "ring"),
    [
        ((64, 64), (0, 5), 5),
        ((64, 64), (7, 0), 7),
        ((64, 64), (3, 4), 5),
        ((64, 64), (-3, 4), 5),
        ((64, 64), (0, 32), 32),  # Nyquist, along x
        ((64, 64), (32, 0), 32),  # along y
        ((64, 64), (32, 32), 45),  # along both: the corner, 32 sqrt(2) = 45.25
        ((63, 63), (0, 31), 31),
        ((63, 63), (31, 0), 31),
        ((63, 63), (-31, 31), 43),
        ((9, 15), (2, 0), 3),  # odd and unequal: 2 * 15 / 9 = 3.33
        ((9, 15), (0, 7), 7),
        ((10, 4), (5, 0), 5),  # even and unequal: Nyquist along y, and along x where 10 / 2 = 5
        ((10, 4), (0, 2), 5),
        ((32, 64), (3, 0), 6),  # half as high, so the third mode along y is as fine as the sixth along x
        ((32, 64), (0, 6), 6),
        ((15, 10), (0, 2), 3),
    ],
)
def test_one_mode_lands_in_one_ring(size, mode, ring):
    frames, energy = standing_wave(*size, *mode)
    torch.testing.assert_close(kinetic_energy(frames)[0], energy)
    spectrum = energy_spectrum(frames)[0]
    assert spectrum[1:].argmax().item() + 1 == ring
    others = spectrum.clone()
    others[[0, ring]] = 0
    assert others.max() < 1e-20 * spectrum[0]
    assert spectrum[0].item() == pytest.approx((size[0] * size[1]) ** 2)  # the mean energy is 1


@settings(max_examples=30, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**32))
def test_parseval_and_the_full_plane(size, seed):
    """Ring means times ring sizes add up to the energy's power; the half plane counts as the full one."""
    torch.manual_seed(seed)
    frames = torch.randn(2, 4, 2, *size, dtype=torch.float64)
    ring, weight, counts = rings(*size)
    torch.testing.assert_close(counts, torch.bincount(ring, weight))
    assert counts.sum() == size[0] * size[1]
    total = (energy_spectrum(frames) * counts).sum(1)
    expected = kinetic_energy(frames).square().sum((1, 2)) * size[0] * size[1]
    torch.testing.assert_close(total, expected)


@settings(max_examples=20, deadline=None)
@given(size=sizes)
def test_rings_of_the_full_plane(size):
    """The rings of the half plane, mirrored, are those of all modes, counted one by one."""
    height, width = size
    counts = {}
    for row in range(height):
        for column in range(width):
            ky = min(row, height - row) / height
            kx = min(column, width - column) / width
            radius = int(math.hypot(ky, kx) * max(size) + 1e-9)
            counts[radius] = counts.get(radius, 0) + 1
    assert {i: int(n) for i, n in enumerate(rings(*size)[2]) if n} == counts


def test_spectrum_in_chunks_and_in_single_precision():
    frames = torch.randn(37, 10, 2, 16, 16, dtype=torch.float64)
    whole = energy_spectrum(frames)
    torch.testing.assert_close(torch.cat([energy_spectrum(frame[None]) for frame in frames]), whole)
    torch.testing.assert_close(energy_spectrum(frames.float()), whole, rtol=1e-4, atol=1e-4)
    assert energy_spectrum(frames.bfloat16()).isfinite().all()


@pytest.mark.parametrize("spectrum", [energy_spectrum, velocity_spectrum])
def test_spectrum_does_not_see_land(spectrum):
    frames = torch.randn(2, 10, 2, 16, 16)
    mask = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    mask[..., :4] = False
    still = torch.where(mask[:, None], frames, 1.0)
    for land in (torch.randn_like(frames), torch.full_like(frames, torch.nan)):
        torch.testing.assert_close(spectrum(torch.where(mask[:, None], frames, land), mask), spectrum(still, mask))
    if spectrum is energy_spectrum:
        torch.testing.assert_close(spectrum(still, mask), spectrum(still))


def test_error_of_a_factor():
    """Velocities times 10 are energies times 100, spectra times 10^4: an ESE of 4 under both definitions."""
    frames = torch.randn(5, 10, 2, 16, 16)
    for definition in ("mean", "per_sample"):
        assert energy_spectrum_error(10 * frames, frames, definition=definition).item() == pytest.approx(4, rel=1e-5)
        assert energy_spectrum_error(frames, frames, definition=definition) == 0


def flow_with_modes(amplitudes, size=32):
    """Frames ``(1, 2, 2, size, size)`` whose kinetic energy is 4 + the sum of a cos(k x), for amplitudes {k: a}."""
    x = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    energy = (4 + sum(a * torch.cos(k * x) for k, a in amplitudes.items())).expand(size, size)
    u = (2 * energy).sqrt()
    return torch.stack([torch.stack([u, 0 * u]), torch.stack([-u, 0 * u])])[None]


def test_error_of_known_spectra():
    """Halving the amplitude of one mode takes log10(4) from its ring and nothing from the others.

    The fluctuation of every ring is kept above zero by a mode of its own, so no ring falls under the floor.
    """
    modes = {k: 0.1 for k in range(1, 17)}
    true = torch.cat([flow_with_modes(modes), flow_with_modes(modes)])
    changed = torch.cat([flow_with_modes({**modes, 5: 0.05}), flow_with_modes(modes)])
    compared = log_spectrum(true).shape[1]
    assert compared == 21  # rings 1 to 21 of 0 to 22 = 16 sqrt(2)
    step = torch.zeros(2, compared, dtype=torch.float64)
    step[0, 4] = -math.log10(4)
    inner = slice(0, 16)  # rings beyond the Nyquist wavenumber hold rounding only
    torch.testing.assert_close(
        (log_spectrum(changed) - log_spectrum(true))[:, inner], step[:, inner], rtol=1e-6, atol=1e-6
    )
    halves = {"mean": math.log10(4) / 2 / math.sqrt(16), "per_sample": math.log10(4) / math.sqrt(32)}
    for definition, expected in halves.items():
        ese = spectrum_error(log_spectrum(changed)[:, inner], log_spectrum(true)[:, inner], definition)
        assert ese.item() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(size=st.tuples(st.integers(6, 17), st.integers(6, 17)), seed=st.integers(0, 2**32))
def test_error_is_that_of_numpy(size, seed):
    """Worked out apart: the full plane by numpy's FFT, every ring by hand."""
    rng = np.random.default_rng(seed)
    prediction, target = rng.normal(size=(2, 3, 5, 2, *size))
    height, width = size
    ky, kx = (np.fft.fftfreq(n) * max(size) for n in (height, width))
    ring = np.floor(np.hypot(ky[:, None], kx[None]) + 1e-9).astype(int)

    def log_power(frames):
        energy = frames.var(axis=1).sum(axis=1) / 2
        power = np.abs(np.fft.fft2(energy)) ** 2
        return np.log10([[plane[ring == r].mean() for r in range(1, ring.max())] for plane in power])

    difference = log_power(prediction) - log_power(target)
    fields = torch.from_numpy(prediction), torch.from_numpy(target)
    expected = {"mean": difference.mean(0), "per_sample": difference}
    for definition, values in expected.items():
        ese = energy_spectrum_error(*fields, definition=definition).item()
        assert ese == pytest.approx(np.sqrt(np.mean(values**2)), rel=1e-9)
        single = energy_spectrum_error(*(field.float() for field in fields), definition=definition).item()
        assert single == pytest.approx(ese, rel=1e-3, abs=1e-4)


def test_definitions_differ_as_they_should():
    prediction = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert spectrum_error(prediction, torch.zeros(2, 2), "mean") == 0
    assert spectrum_error(prediction, torch.zeros(2, 2), "per_sample").item() == pytest.approx(math.sqrt(0.5))
    with pytest.raises(ValueError, match='must be "mean" or "per_sample"'):
        spectrum_error(prediction, prediction, "median")


def test_a_still_forecast_has_a_finite_error():
    frames = torch.randn(2, 10, 2, 16, 16)
    assert energy_spectrum_error(torch.zeros_like(frames), frames).isfinite()


@pytest.mark.skipif(not GOLDEN.is_file(), reason="golden values of the release not at hand")
def test_released_spectrum():
    """Our spectrum with the centre moved to where the release has it is the release's, and so is each ESE.

    The release sums rings as differences of cumulative sums of float32 energies. With its rounding the agreement is
    exact; without, it holds for all rings that stand above that rounding.
    """
    with np.load(GOLDEN) as file:
        golden = {key: file[key] for key in file.files}
    axis = torch.arange(64) - 31.5  # the zero frequency lies at 32
    radius = torch.hypot(axis[:, None], axis[None]).flatten()
    ring, order = radius.long(), torch.from_numpy(np.argsort(radius.numpy()))
    counts = torch.bincount(ring)
    log_spectra = {}
    for name in ("true", "pred"):
        frames, released = torch.from_numpy(golden[name]), torch.from_numpy(golden[f"log10_spectrum_{name}"])
        power = torch.fft.fftshift(torch.fft.fft2(kinetic_energy(frames)).abs().square(), (-2, -1)).flatten(1)
        ours = (torch.zeros(4, 45).double().index_add_(1, ring, power) / counts).log10()[:, 1:-1]
        torch.testing.assert_close(ours[released > -3], released[released > -3], rtol=1e-5, atol=1e-5)

        fluctuation = golden[name] - golden[name].mean(1, keepdims=True)
        energy = torch.from_numpy((fluctuation**2).mean(1).sum(1) / 2).double()
        power = torch.fft.fftshift(torch.fft.fft2(energy).abs().square(), (-2, -1)).flatten(1)
        sums = power[:, order].cumsum(1)[:, counts.cumsum(0) - 1].diff(dim=1)[:, :-1]
        log_spectra[name] = (sums / counts[1:-1]).log10()
        torch.testing.assert_close(log_spectra[name], released, rtol=1e-5, atol=1e-5)
    for definition, key in (("mean", "ese_mean"), ("per_sample", "ese_per_sample")):
        ese = spectrum_error(log_spectra["pred"], log_spectra["true"], definition)
        assert ese.item() == pytest.approx(float(golden[key]), rel=1e-3)  # as far as the rounding of weak rings goes
        ours = energy_spectrum_error(*(torch.from_numpy(golden[k]) for k in ("pred", "true")), definition=definition)
        assert ours.item() == pytest.approx(float(golden[key]), rel=0.1)  # half a cell apart


# ---------------------------------------------------------------- equivariance


def test_equivariance_error_in_closed_form():
    """f(w) = w + a is off by c of |w + a + c| under uniform motion if it forgets to move: f(w) = a."""
    frames = torch.randn(4, 3, 2, 5, 7)
    c = torch.tensor([[3.0, 4.0]]).expand(4, 2)

    def constant(frames, mask):
        return torch.ones_like(frames[:, -1:])

    errors = equivariance_error(constant, SYMMETRIES["UM"], c, frames)
    assert errors["absolute"].item() == pytest.approx(math.sqrt((9 + 16) / 2))
    assert errors["relative"].item() == pytest.approx(math.sqrt(25 / (16 + 25)))

    def last(frames, mask):
        return frames[:, -1:]

    assert equivariance_error(last, SYMMETRIES["UM"], c, frames)["absolute"] == 0


def test_equivariance_error_of_nothing():
    """The factor 0 leaves nothing to compare with: the error is 0, not NaN. Nor does land without numbers count."""
    frames = torch.randn(2, 3, 2, 5, 7)
    mask = torch.rand(2, 1, 5, 7) < 0.7
    frames = torch.where(mask[:, None], frames, torch.nan)

    def damped(frames, mask):
        return 0.9 * frames[:, -1:]

    for g in (torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.5])):
        errors = equivariance_error(damped, SYMMETRIES["Mag"], g, frames, mask)
        assert errors["absolute"] < 1e-6 > errors["relative"]  # nor are they NaN


def test_equivariance_error_by_wavenumber():
    """f(w) = w + mean(u) cos(k x) is off by c_u cos(k x) under uniform motion: in the band of k, over w there."""
    x = 2 * math.pi * torch.arange(32).double() / 32
    waves = {"low": 2, "mid": 4, "high": 10}
    flow = torch.zeros(3, 2, 2, 32, 32, dtype=torch.float64)
    flow[:, :, 0] = sum(3 * torch.cos(k * x) for k in waves.values())
    c = torch.tensor([[1.0, 0.5]]).double().expand(3, 2)
    mask = torch.ones(3, 1, 32, 32, dtype=torch.bool)
    mask[2, 0, 5, 5] = False  # land: of this window nothing counts
    flow[2] *= 7
    for name, k in waves.items():

        def forecast(frames, mask, k=k):
            last = frames[:, -1:].clone()
            last[:, :, 0] += last[:, :, 0].mean((-2, -1), keepdim=True) * torch.cos(k * x)
            return last

        errors = equivariance_error(forecast, SYMMETRIES["UM"], c, flow, mask)
        expected = math.sqrt(0.5 / (9 / 2 + (1.25 if name == "low" else 0)))  # the mean counts as low
        assert errors[name].item() == pytest.approx(expected, rel=1e-6)
        assert all(errors[other] < 1e-6 for other in waves.keys() - {name})
    errors = equivariance_error(forecast, SYMMETRIES["UM"], c, flow, mask & (x > 1))
    assert errors["low"].isnan()
    assert errors["relative"] > 0


def test_equivariance_error_where_all_windows_have_land():
    """Bands of wavenumber that no window has are left out of metrics.json, which knows no NaN."""
    frames = torch.randn(3, 2, 2, 8, 8)
    for mask, names in ((None, {"low", "mid", "high"}), (torch.rand(3, 1, 8, 8) < 0.7, set())):

        def read(index, past, steps, mask=mask):
            return frames[index], None if mask is None else mask[index]

        tests = TestSet(SimpleNamespace(read=read), SYMMETRIES["UM"], torch.ones(3, 2), torch.arange(3))
        found = equivariance_of(lambda past, steps, mask: past[:, -1:], tests, 2, 1, 2)
        assert found.keys() == {"absolute", "relative"} | names


def test_error_on_transformed_data_is_bounded():
    """The paper's bound: |f(T x) - T y| <= |T| |f(x) - y| + EE."""
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 2, 6, 6), torch.randn(4, 1, 2, 6, 6)
    symmetry, factor = SYMMETRIES["Mag"], torch.full((4,), 1.7)

    def forecast(frames, mask):
        return frames[:, -1:].tanh()

    transformed_error = rmse(forecast(symmetry.act(factor, x), None), symmetry.act(factor, y))
    error = rmse(forecast(x, None), y)
    assert transformed_error <= 1.7 * error + equivariance_error(forecast, symmetry, factor, x)["absolute"]


# ---------------------------------------------------------------- on a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_measures_on_a_gpu():
    """They stay where their input is and equal those of the CPU."""
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 40, 10, 2, 24, 32)
    mask = torch.rand(40, 1, 24, 32) < 0.8
    c = SYMMETRIES["UM"].sample(40)

    def measures(device):
        p, t, m = (tensor.to(device) for tensor in (prediction, target, mask))

        def forecast(frames, mask):
            return frames[:, -1:].tanh()

        found = [rmse(p, t, m), rmse(p, t, m, per_step=True), energy_spectrum_error(p, t, m), log_spectrum(p, m)]
        found += equivariance_error(forecast, SYMMETRIES["UM"], c.to(device), p, m).values()
        assert all(value.device.type == device for value in found)
        return [value.cpu() for value in found]

    for gpu, cpu in zip(measures("cuda"), measures("cpu"), strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- what is forecast


def test_equal_windows_are_forecast_once():
    """Equal are those of equal frames, land and steps. Where there is no room the result is the same."""
    seen = []

    def double(frames, steps, mask=None):
        seen.append(len(frames))
        return 2 * frames[:, -1:].expand(-1, steps, -1, -1, -1)

    frames = torch.randn(5, 3, 2, 4, 4)
    frames[3] = frames[1]
    mask = torch.rand(5, 1, 4, 4) > 0.5
    once = Remembered(double)
    for _ in range(2):
        torch.testing.assert_close(once(frames, 2), double(frames, 2), rtol=0, atol=0)
    assert seen == [4, 5, 5]
    once(frames, 3)
    once(frames, 2, mask)  # whose third window has another land than its twin
    once(frames.flip(0), 2, mask.flip(0))
    assert seen[3:] == [4, 5]
    crowded, seen[:] = Remembered(double, room=100), []
    for _ in range(2):
        torch.testing.assert_close(crowded(frames, 2), double(frames, 2), rtol=0, atol=0)
    assert seen == [4, 5, 4, 5]


def test_a_thinned_test_set():
    """As many windows of each element, the first and last among them; all where there are fewer than wanted."""
    elements = torch.tensor([1.0, 2.0, 3.0])[torch.arange(60) % 3]
    tests = TestSet(range(60), SYMMETRIES["Scale"], elements)
    thin = tests.thinned(10)
    assert len(thin) == 9
    assert thin.chosen.tolist() == [0, 1, 2, 27, 28, 29, 57, 58, 59]
    assert tests.thinned(60) is tests
    assert len(tests.thinned(1)) == 3
