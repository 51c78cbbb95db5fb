"""Measures that other benchmarks print, window by window; the headlines, RMSE and ESE, have files of their own.

* VRMSE: The Well (Ohana et al., NeurIPS 2024, arXiv 2412.00568), with its 1e-7 in the units of the frames given.
* RMSE in three bands of wavenumber: The Well's ``binned_spectral_mse``. Its edges divide the wavenumbers from the
  fundamental of the longer side to Nyquist, in radians per point, into three equal parts of their logarithm; the mean
  counts as low, and the corners of the plane beyond Nyquist in no band.
* Correlation time: PDEArena (Gupta and Brandstetter, TMLR 2023, arXiv 2209.15616): frames until the correlation of
  forecast and truth over space and components, averaged over windows, falls below 0.8.
* Divergence: of the forecast velocity, beside that of the truth: of an incompressible flow both are discretisation.
* RMSE by field, where there are several: of all components, frames and valid points, as the headline.
* Vorticity: rms of the forecast's over that of the truth, by frame: below 1 a forecast is too smooth.

Frames are ``(n, steps, C, H, W)``, masks ``(n, 1, H, W)``, True where a point counts; all sums are in float64.
"""

import torch

from evaluation.spectrum import wavenumbers
from models.fields import SIZES, parts

BANDS = ("low", "mid", "high")
CORRELATED = 0.8
EPSILON = 1e-7  # of The Well, beside a variance


def mean_over_points(values, mask=None):
    """``(n, steps, C, H, W)`` -> ``(n, steps, C)``, the mean over valid points."""
    if mask is None:
        return values.mean((-2, -1))
    mask = mask.unsqueeze(1)
    return torch.where(mask, values, 0).sum((-2, -1)) / mask.sum((-2, -1))


def vrmse(prediction, target, mask=None):
    """RMSE over the standard deviation in space of the truth, averaged over components: ``(n, steps)`` float64."""
    prediction, target = prediction.double(), target.double()
    count = target[0, 0, 0].numel() if mask is None else mask.sum((-2, -1)).unsqueeze(1)
    centred = target - mean_over_points(target, mask)[..., None, None]
    variance = mean_over_points(centred.square(), mask) * count / (count - 1)  # the unbiased one
    error = mean_over_points((prediction - target).square(), mask)
    return (error / (variance + EPSILON)).sqrt().mean(2)


def correlation(prediction, target, mask=None):
    """Pearson's correlation over all components and points: ``(n, steps)`` float64, 0 where a frame is constant."""

    def product(a, b):
        return mean_over_points(a * b, mask).mean(2)

    def centred(frames):
        frames = frames.double()
        return frames - mean_over_points(frames, mask).mean(2)[..., None, None, None]

    p, t = centred(prediction), centred(target)
    size = (product(p, p) * product(t, t)).sqrt()
    return torch.where(size > 0, product(p, t) / size, 0)


def band_errors(prediction, target):
    """Mean squared error in each of the ``BANDS``, over steps and components: ``(n, 3)`` float64. Without land."""
    height, width = target.shape[-2:]
    radius, weight = wavenumbers(height, width, target.device)
    edges = radius.new_tensor([(max(height, width) / 2) ** (i / 3) for i in (1, 2, 3)])
    band = torch.bucketize(radius.flatten(), edges)
    power = torch.fft.rfft2((prediction - target).double()).abs().square().mean((1, 2)).flatten(1) * weight.flatten()
    return power.new_zeros(len(power), 4).index_add_(1, band, power)[:, :3] / (height * width) ** 2


def squared_gradients(frames, fields, mask=None):
    """Mean squares of the first velocity's divergence and vorticity, du/dx + dv/dy and dv/dx - du/dy, per point.

    By central differences between valid points; NaN where no point has valid ones on all sides.

    Returns:
        ``{name: (n, steps)}`` float64, empty where there is no velocity.
    """
    velocity = next((part for kind, part in zip(fields, parts(fields), strict=True) if kind == "vector"), None)
    if velocity is None:
        return {}
    flow = frames[:, :, velocity].double()
    along_x = (flow[..., 1:-1, 2:] - flow[..., 1:-1, :-2]) / 2
    along_y = (flow[..., 2:, 1:-1] - flow[..., :-2, 1:-1]) / 2
    divergence, vorticity = along_x[:, :, 0] + along_y[:, :, 1], along_x[:, :, 1] - along_y[:, :, 0]
    inner = None
    if mask is not None:
        inner = mask[..., 1:-1, 2:] & mask[..., 1:-1, :-2] & mask[..., 2:, 1:-1] & mask[..., :-2, 1:-1]
    squares = mean_over_points(torch.stack([divergence, vorticity], 2).square(), inner)
    return dict(zip(("divergence", "vorticity"), squares.unbind(2), strict=True))


def squared_errors(prediction, target, fields, mask=None):
    """Of every field the sum of squared errors, and how many these are: ``(n, 2 len(fields))`` float64."""
    _, steps, _, height, width = target.shape
    error = (prediction.double() - target.double()).square()
    error = torch.where(mask.unsqueeze(1), error, 0) if mask is not None else error
    points = error.new_full((len(error),), height * width) if mask is None else mask.flatten(1).sum(1).double()
    sums = [error[:, :, part].sum((1, 2, 3, 4)) for part in parts(fields)]
    return torch.stack([*sums, *(points * steps * SIZES[kind] for kind in fields)], 1)


def window_measures(prediction, target, fields, mask=None):
    """All measures of every window, ``{name: (n, numbers)}`` float64, for :func:`summarise`."""
    gradients, of_truth = (squared_gradients(frames, fields, mask) for frames in (prediction, target))
    return {
        "vrmse": vrmse(prediction, target, mask),
        "correlation": correlation(prediction, target, mask),
        "bands": band_errors(prediction, target),
        "by_field": squared_errors(prediction, target, fields, mask),
        **gradients,
        **{f"{name}_of_truth": square for name, square in of_truth.items()},
    }


def summarise(measures, without_land):
    """What metrics.json holds of the measures of all windows.

    Args:
        measures: see :func:`window_measures`.
        without_land: bool ``(n,)``, of windows; of the others wavenumbers mean little.

    Returns:
        dict of numbers and of lists by step; what no window has is left out.
    """
    frames = measures["correlation"].mean(0)
    found = {
        "vrmse": measures["vrmse"].mean().item(),
        "vrmse_per_step": measures["vrmse"].mean(0).tolist(),
        "correlation_per_step": frames.tolist(),
        "correlation_time": int((frames >= CORRELATED).long().cumprod(0).sum()),
        "windows_without_land": int(without_land.sum()),
    }
    sums, counts = measures["by_field"].sum(0).chunk(2)
    if len(sums) > 1:
        found["rmse_per_field"] = (sums / counts).sqrt().tolist()
    bands = measures["bands"][without_land].mean(0).tolist()
    squares = {f"rmse_{band}": square for band, square in zip(BANDS, bands, strict=True)}
    for name in ("divergence", "divergence_of_truth"):
        if name in measures:
            squares[name] = measures[name].nanmean().item()
    if "vorticity" in measures:
        vorticity, of_truth = (measures[name].nanmean(0) for name in ("vorticity", "vorticity_of_truth"))
        ratio = (vorticity / of_truth).sqrt()
        if ratio.isfinite().all():
            found["vorticity_per_step"] = ratio.tolist()
    return found | {name: square**0.5 for name, square in squares.items() if square == square}  # NaN is not
