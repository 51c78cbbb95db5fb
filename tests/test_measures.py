"""The measures of other benchmarks: in closed form, and against a few lines of NumPy."""

import math

import numpy as np
import pytest
import torch
from test_evaluation import flow_with_modes

from evaluation.measures import band_errors, correlation, squared_gradients, summarise, vrmse, window_measures
from evaluation.score import Tally, window_mse
from evaluation.spectrum import log_spectrum, resolved_rings

VELOCITY = ("vector",)


def wave(size, mode, amplitude=1.0, phase=0.0):
    """``(H, W)``: a cosine with ``mode`` waves along y and x."""
    y, x = torch.meshgrid(*(torch.arange(n).double() / n for n in size), indexing="ij")
    return amplitude * torch.cos(2 * math.pi * (mode[0] * y + mode[1] * x) - phase)


def with_land(shape, seed=0):
    """Random forecasts and truths, and a mask whose windows have different land."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target = (torch.randn(shape, generator=generator) + 3 for _ in range(2))
    mask = torch.rand(shape[0], 1, *shape[-2:], generator=generator) < 0.7
    land = ~mask.unsqueeze(1).expand(shape)
    return prediction.masked_fill(land, torch.nan), target.masked_fill(land, 1e6), mask


# ---------------------------------------------------------------- against NumPy


def test_vrmse_and_correlation_are_those_of_numpy():
    """Window by window and frame by frame over the valid points only, whatever is on land."""
    prediction, target, mask = with_land((3, 4, 2, 5, 7))
    errors, correlations = vrmse(prediction, target, mask), correlation(prediction, target, mask)
    for i in range(3):
        p, t = (frames[i][..., mask[i, 0]].double().numpy() for frames in (prediction, target))
        expected = np.sqrt(((p - t) ** 2).mean(-1) / (t.var(-1, ddof=1) + 1e-7)).mean(-1)
        np.testing.assert_allclose(errors[i], expected, rtol=1e-12)
        expected = [np.corrcoef(p[step].ravel(), t[step].ravel())[0, 1] for step in range(4)]
        np.testing.assert_allclose(correlations[i], expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (32, 64), (9, 6)])
def test_bands_are_those_of_numpy(size):
    """The full plane, every mode by hand; with the corners they add up to the mean squared error."""
    prediction, target = torch.randn(2, 3, 4, 2, *size, dtype=torch.float64)
    longer = max(size)
    ky, kx = (2 * np.pi * np.fft.fftfreq(n) for n in size)
    k = np.hypot(ky[:, None], kx[None])
    edges = np.geomspace(2 * np.pi / longer, np.pi, 4)
    power = np.abs(np.fft.fft2((prediction - target).numpy())) ** 2 / math.prod(size) ** 2
    bands = [(0, edges[1]), (edges[1], edges[2]), (edges[2], np.pi)]
    expected = [[plane[:, :, (k >= a - 1e-9) & (k < b - 1e-9)].sum(-1).mean() for a, b in bands] for plane in power]
    found = band_errors(prediction, target)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    corners = power[..., k >= np.pi - 1e-9].sum(-1).mean((1, 2))
    np.testing.assert_allclose(found.sum(1).numpy() + corners, window_mse(prediction, target), rtol=1e-12)


def test_rmse_by_field_is_that_of_numpy():
    """Over all valid points of all windows together; as many points weigh the same; of one field it is the headline."""
    prediction, target, mask = with_land((3, 4, 3, 5, 7))
    fields = ("scalar", "vector")
    errors = [(p - t).numpy()[..., m[0].numpy()] for p, t, m in zip(prediction, target, mask, strict=True)]
    expected = [np.sqrt(np.mean(np.concatenate([e[:, part].ravel() for e in errors]) ** 2)) for part in ([0], [1, 2])]
    assert summary_of(prediction, target, fields, mask)["rmse_per_field"] == pytest.approx(expected, rel=1e-6)
    whole, of_truth = prediction.nan_to_num(), target.clamp(max=9)
    expected = (whole - of_truth).double().square().mean((0, 1, 3, 4)).tolist()
    by_field = [expected[0] ** 0.5, ((expected[1] + expected[2]) / 2) ** 0.5]
    assert summary_of(whole, of_truth, fields)["rmse_per_field"] == pytest.approx(by_field, rel=1e-6)
    assert "rmse_per_field" not in summary_of(prediction[:, :, :2], target[:, :, :2], VELOCITY, mask)


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("size", "mode", "band"),
    [
        ((64, 64), (0, 0), 0),
        ((64, 64), (0, 3), 0),  # the edges are 32^(1/3) = 3.2 and 32^(2/3) = 10.1
        ((64, 64), (4, 0), 1),
        ((64, 64), (6, -8), 1),
        ((64, 64), (0, 11), 2),
        ((64, 64), (31, 0), 2),
        ((64, 64), (32, 0), None),  # Nyquist
        ((64, 64), (24, 24), None),  # a corner
        ((16, 16), (2, 0), 1),  # on the edge 8^(1/3)
        ((32, 64), (1, 0), 0),  # as long as the second mode along x
        ((32, 64), (2, 0), 1),
    ],
)
def test_an_error_of_one_mode_is_in_one_band(size, mode, band):
    target = torch.randn(1, 1, 2, *size, dtype=torch.float64)
    error = torch.stack([wave(size, mode, 0.6), 0 * wave(size, mode)])
    mean_square = 0.36 / (1 if mode == (0, 0) else 2) / 2  # of two components
    expected = torch.zeros(3, dtype=torch.float64)
    if band is not None:
        expected[band] = mean_square
    torch.testing.assert_close(band_errors(target + error, target)[0], expected, rtol=1e-12, atol=1e-15)


def test_vrmse_of_waves():
    """A cosine of amplitude a has the variance a^2 / 2; an error of amplitude e has a VRMSE of e / a, whatever a is."""
    size, points = (8, 12), 96
    waves = [wave(size, (1, 0), a) for a in (1.0, 100.0)]
    target = torch.stack(waves)[None, None]
    error = torch.stack([wave(size, (0, 2), 0.3), wave(size, (0, 2), 50.0)])
    unbiased = math.sqrt((points - 1) / points)
    assert vrmse(target + error, target).item() == pytest.approx((0.3 + 0.5) / 2 * unbiased, rel=1e-6)
    assert vrmse(target + 7, target + 7).item() == 0
    assert vrmse(0 * target, target).item() == pytest.approx(unbiased, rel=1e-6)  # the mean is no forecast: 1


def test_correlation_of_waves_out_of_phase():
    """It is the cosine of the phase, whatever amplitudes and means are."""
    size = (6, 10)
    degrees = torch.arange(0, 181, 30).double()
    target = wave(size, (0, 1)).expand(1, len(degrees), 1, *size)
    shifted = torch.stack([wave(size, (0, 1), 3.0, math.radians(d)) + 5 for d in degrees])[None, :, None]
    torch.testing.assert_close(correlation(shifted, target)[0], degrees.deg2rad().cos(), rtol=0, atol=1e-12)
    assert correlation(0 * target + 2, target).abs().max() == 0


def summary_of(prediction, target, fields=VELOCITY, mask=None):
    whole = torch.ones(len(target), dtype=torch.bool) if mask is None else mask.flatten(1).all(1)
    return summarise(window_measures(prediction, target, fields, mask), whole)


@pytest.mark.parametrize(("rate", "frames"), [(3, 10), (10, 3), (36, 1), (37, 0), (350, 3)])
def test_correlation_time_of_a_wave_that_runs_too_fast(rate, frames):
    """cos(rate k) >= 0.8 up to 36.87 degrees; a correlation that comes back later does not count."""
    size = (4, 12)
    phases = [math.radians(rate * step) for step in range(1, 11)]
    prediction = torch.stack([wave(size, (0, 1), 1.0, phase).expand(2, *size) for phase in phases])[None]
    target = wave(size, (0, 1)).expand_as(prediction)
    found = summary_of(prediction, target)
    assert found["correlation_time"] == frames
    assert found["correlation_per_step"] == pytest.approx(np.cos(phases), abs=1e-12)


def linear(a, b, turn=1.0, height=6, width=9):
    """u = a x - y, v = turn x + b y, beside a scalar: a divergence of a + b and a vorticity of turn + 1 everywhere."""
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    return torch.stack([7 * x, a * x - y, turn * x + b * y])[None, None]


def divergence(*arguments):
    return squared_gradients(*arguments)["divergence"]


def test_divergence_and_vorticity_of_linear_flows():
    fields = ("scalar", "vector")
    for a, b in ((0.0, 0.0), (0.5, -0.5), (0.25, 0.5), (0.25, -0.5)):
        assert divergence(linear(a, b), fields).item() == pytest.approx((a + b) ** 2, abs=1e-12)
        assert squared_gradients(linear(a, b, 2), fields)["vorticity"].item() == pytest.approx(9)
    assert squared_gradients(linear(1, 1), ("scalar", "scalar", "scalar")) == {}
    forecast = torch.cat([linear(0.3, 0.1, turn) for turn in (1, 2, -1)], 1)
    found = summary_of(forecast, linear(0.3, -0.3).expand(-1, 3, -1, -1, -1), fields)
    assert found["vorticity_per_step"] == pytest.approx([1, 1.5, 0])  # that of the truth is 2
    assert "vorticity_per_step" not in summary_of(forecast, torch.zeros_like(forecast), fields)  # a truth without
    assert found["divergence"] == pytest.approx(0.4)
    assert found["divergence_of_truth"] == pytest.approx(0, abs=1e-12)


def test_divergence_beside_land():
    """Differences across land do not count; where there are no others there is no divergence."""
    flow, mask = linear(0.5, 0.25), torch.ones(1, 1, 6, 9, dtype=torch.bool)
    mask[..., 2, 3] = False
    flow[..., 2, 3] = torch.nan
    assert divergence(flow, ("scalar", "vector"), mask).item() == pytest.approx(0.5625)
    mask[..., ::2, :] = False
    assert divergence(flow, ("scalar", "vector"), mask).isnan().all()
    assert not summary_of(flow, flow, ("scalar", "vector"), mask).keys() & {"divergence", "vorticity_per_step"}


# ---------------------------------------------------------------- the ESE, where it means something


def tally(prediction, target, mask=None, **options):
    kept = Tally(True, True, VELOCITY, **options)
    for i in range(len(target)):  # batches of one
        kept.add(*(None if x is None else x[i : i + 1] for x in (prediction, target, mask)))
    return kept.scores()


def test_land_hides_what_a_forecast_lacks():
    """The bias of the ESE on tiles with land, in closed form.

    A cosine of amplitude b in the forecast's energy where the truth has a is 2 log10(b / a) off. With land on the
    western half what is left of the energy, mean 4, has in an odd mode k the power |a N / 4 + 4 M|^2, where the mask's
    own mode M = -2 / (1 - exp(-2 pi i k / N)) is the same in truth and forecast, and hides the difference.
    """
    n, k, a, b = 32, 5, 0.1, 0.001
    true, forecast = (flow_with_modes({k: amplitude}, n) for amplitude in (a, b))
    without = (log_spectrum(forecast) - log_spectrum(true))[0, k - 1].item()
    assert without == pytest.approx(2 * math.log10(b / a), rel=1e-9)

    mask = torch.ones(1, 1, n, n, dtype=torch.bool)
    mask[..., : n // 2] = False
    edge = 4 * -2 / (1 - np.exp(-2j * np.pi * k / n))
    expected = 2 * math.log10(abs((b * n / 4 + edge) / (a * n / 4 + edge)))
    biased = (log_spectrum(forecast, mask) - log_spectrum(true, mask))[0, k - 1].item()
    assert biased == pytest.approx(expected, rel=1e-9)
    assert abs(biased) < 0.1 < 3 < abs(without)


def test_resolved_ese_is_over_windows_without_land():
    """A forecast is ten times too energetic in the window with land: the headline sees it, this one does not."""
    true = torch.cat([flow_with_modes({k: 0.1 for k in range(1, 17)})] * 3)
    forecast = true * torch.tensor([1, 10**0.5, 1])[:, None, None, None, None]
    mask = torch.ones(3, 1, 32, 32, dtype=torch.bool)
    mask[1, ..., :3] = False
    scores = tally(forecast, true, mask)
    assert scores["ese"] > 0.5
    assert scores["measures"]["ese_resolved"] == 0
    assert scores["measures"]["windows_without_land"] == 2
    assert scores["measures"]["rmse_low"] == 0
    mask[..., 0, 0] = False
    measures = tally(forecast, true, mask)["measures"]
    assert measures["windows_without_land"] == 0
    assert not measures.keys() & {"ese_resolved", "rmse_low", "rmse_mid", "rmse_high"}
    assert measures["vrmse"] > 0


def test_resolved_ese_leaves_rounding_out():
    """Truth and forecast have five waves, the forecast each 1 % too strong; beyond there is nothing but rounding."""
    modes = {k: 0.1 for k in range(1, 6)}
    true = flow_with_modes(modes).float()
    forecast = flow_with_modes({k: 1.01 * a for k, a in modes.items()}).float()
    scores = tally(forecast, true)
    assert scores["measures"]["rings_resolved"] == 5
    assert scores["measures"]["ese_resolved"] == pytest.approx(2 * math.log10(1.01), rel=1e-3)
    assert scores["ese"] > 10 * scores["measures"]["ese_resolved"]
    assert tally(true[:, :1], true[:, :1])["measures"]["rings_resolved"] == 0  # one frame does not fluctuate


@pytest.mark.parametrize(("enlargement", "rings"), [(1, 16), (1.25**2, 12), (4, 8), (9, 5)])
def test_resolved_ese_ends_at_the_nyquist_wavenumber_of_the_source(enlargement, rings):
    """Of 32 points that were 32 / f: what is finer is interpolation. Corners of the plane do not count."""
    true = flow_with_modes({k: 0.1 for k in range(1, 17)})
    true = true + 1e-3 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resolved_rings(log_spectrum(true), 32, enlargement).nonzero().flatten(), torch.arange(rings))
    assert tally(true, true, enlargement=enlargement)["measures"]["rings_resolved"] == rings


def test_rounding_of_a_moving_flow_is_not_resolved():
    """With a mean motion ten times the fluctuation, as the test set UM draws, float32 rounds a hundred times more."""
    rest = flow_with_modes({k: 0.1 for k in range(1, 4)})
    moving = (rest + 25).float()
    assert resolved_rings(log_spectrum(moving), 32).sum() == 3
