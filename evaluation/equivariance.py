"""Equivariance error: how far a forecast of the transformed flow is from the transformed forecast."""

import torch

from evaluation.measures import BANDS, band_errors
from evaluation.rmse import fill_land, rmse


def equivariance_error(forecast, symmetry, g, frames, mask=None):
    """EE_T(f) = |T f(x) - f(T x)|, root mean square over samples, steps, components and points (the paper's claim 5).

    The error on transformed data is at most |T| times the error on the original data plus this number. Arguments and
    what is compared: :func:`both_ways`.

    Returns:
        dict of scalar float64 tensors: ``absolute``, in the units of the flow; ``relative``, divided by the root mean
        square of T f(x), 0 where both are 0; ``low``, ``mid`` and ``high``, the same in the bands of wavenumber of
        :mod:`evaluation.measures`, over the samples without land: NaN where there are none.
    """
    found, wanted, mask = both_ways(forecast, symmetry, g, frames, mask)

    def relative(error, size):
        return torch.where(error == 0, 0, error / size)

    still = torch.zeros_like(wanted)
    error = rmse(found, wanted, mask)
    without_land = found.new_ones(len(found)) if mask is None else mask.flatten(1).all(1)
    weights = without_land.double() / without_land.sum()
    bands = [(weights @ band_errors(forecasts, wanted)).sqrt() for forecasts in (found, still)]
    return {
        "absolute": error,
        "relative": relative(error, rmse(wanted, still, mask)),
        **dict(zip(BANDS, relative(*bands), strict=True)),
    }


def both_ways(forecast, symmetry, g, frames, mask=None):
    """The forecast of the transformed flow, f(T x), beside the transformed forecast, T f(x).

    T moves the sequence of frames and forecasts as one; what is compared is the future of the moved sequence and the
    forecast from its past. (Under a change of scale the two are not the same frames: time is stretched too.)

    Args:
        forecast: f, maps frames ``(n, T, C, H, W)`` and their mask to forecasts ``(n, steps, C, H, W)``.
        symmetry: has ``act_on_window`` and ``act_on_mask``, as the members of ``models.SYMMETRIES``.
        g: the group elements, one per sample; for scale one factor, at least 1.
        frames: x, ``(n, T, C, H, W)``.
        mask: ``(n, 1, H, W)``, True where a point counts; None where all do.

    Returns:
        ``(f(T x), T f(x), mask)``: forecasts ``(n, steps, C, H, W)`` and the transformed mask.
    """
    frames = fill_land(frames, mask)
    past, forecasts = frames.shape[1], forecast(frames, mask)
    sequence = torch.cat([frames, forecasts], 1)
    moved = symmetry.act_on_window(g, sequence, past - 1, past, forecasts.shape[1])
    moved_mask = symmetry.act_on_mask(g, mask, frames)
    return forecast(moved[:, :past], moved_mask), moved[:, past:], moved_mask
