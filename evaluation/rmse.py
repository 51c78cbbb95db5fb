"""Root mean square error of forecasts, over all samples, components and points on water."""

import torch


def squared_error(prediction, target, mask=None):
    """Sums from which an RMSE over many batches is made, in float64 on the device of the input.

    Args:
        prediction, target: ``(n, steps, 2, H, W)``.
        mask: ``(n, 1, H, W)``, True where a point counts; all points by default.

    Returns:
        ``(sums, count)``: the squared errors summed per step, ``(steps,)``, and the number of values in each sum.
    """
    error = (prediction - target).square()
    if mask is None:
        return error.sum((0, 2, 3, 4), dtype=torch.float64), prediction[:, 0].numel()
    error = error * mask.unsqueeze(1)
    return error.sum((0, 2, 3, 4), dtype=torch.float64), mask.sum(dtype=torch.float64) * prediction.shape[2]


def rmse(prediction, target, mask=None, per_step=False):
    """Root mean square error, one number or, with ``per_step``, one per forecast step; shapes as in squared_error."""
    sums, count = squared_error(prediction, target, mask)
    return (sums / count).sqrt() if per_step else (sums.mean() / count).sqrt()
