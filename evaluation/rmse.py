"""Root mean square error of forecasts, over all samples, components and valid points."""

import torch


def fill_land(frames, mask=None):
    """Frames ``(n, T, C, H, W)`` with 0 where ``mask`` ``(n, 1, H, W)`` says land and the file had no number (NaN)."""
    return frames if mask is None else torch.where(mask.unsqueeze(1) | frames.isfinite(), frames, 0)


def squared_error(prediction, target, mask=None):
    """Sums from which an RMSE over many batches is made, in float64 on the device of the input.

    Args:
        prediction, target: ``(n, steps, C, H, W)``.
        mask: ``(n, 1, H, W)``, True where a point counts; all points by default.

    Returns:
        ``(sums, count)``: the squared errors summed per step, ``(steps,)``, and the number of values in each sum.
    """
    error = (prediction - target).square()
    if mask is None:
        return error.sum((0, 2, 3, 4), dtype=torch.float64), prediction[:, 0].numel()
    error = torch.where(mask.unsqueeze(1), error, 0)  # not a product: what does not count may be NaN
    return error.sum((0, 2, 3, 4), dtype=torch.float64), mask.sum(dtype=torch.float64) * prediction.shape[2]


def rmse(prediction, target, mask=None, per_step=False):
    """Root mean square error, one number or, with ``per_step``, one per forecast step; shapes as in squared_error."""
    sums, count = squared_error(prediction, target, mask)
    return (sums / count).sqrt() if per_step else (sums.mean() / count).sqrt()
