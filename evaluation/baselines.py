"""Forecasts without a net: what a net must beat before it is called a forecast.

Each maps ``(frames, steps, mask)``, frames ``(n, T, C, H, W)``, to ``(n, steps, C, H, W)``. Values are standardised, so
that 0 is the mean (of a current, no current).
"""

from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar

FITTED_ON = 256  # training windows, evenly spread


def persistence(frames, steps, mask=None):
    """Nothing changes: the last frame, ``steps`` times."""
    return frames[:, -1:].expand(-1, steps, -1, -1, -1)


@dataclass(frozen=True)
class DampedPersistence:
    """The last frame decays towards 0 by the factor ``damping`` a step."""

    damping: float

    def __call__(self, frames, steps, mask=None):
        return frames[:, -1:] * powers(self.damping, steps, frames)


@dataclass(frozen=True)
class DampedTrend:
    """The last change goes on, smaller by the factor ``damping`` every step."""

    damping: float

    def __call__(self, frames, steps, mask=None):
        change = frames[:, -1:] - frames[:, -2:-1]
        return frames[:, -1:] + change * powers(self.damping, steps, frames).cumsum(1)


def powers(damping, steps, like):
    """damping^1 ... damping^steps, ``(1, steps, 1, 1, 1)``."""
    exponents = torch.arange(1, steps + 1, device=like.device, dtype=like.dtype)
    return (damping**exponents)[None, :, None, None, None]


def fit(windows, past, steps):
    """The damped forecasts whose ``damping`` in [0, 1] has the least squared error over ``steps`` training frames.

    Args:
        windows: of training.
        past: frames that a forecast may read; one has no trend.
        steps: frames to forecast.

    Returns:
        ``{name: forecast}``, with persistence.
    """
    index = torch.linspace(0, len(windows) - 1, min(FITTED_ON, len(windows))).long().unique()
    sums = 0
    read = min(past, 2)
    for _, frames, mask in windows.batches(index, 32, read, steps):
        frames = frames.double() if mask is None else torch.where(mask.unsqueeze(1), frames.double(), 0)
        before, now, future = frames[:, 0], frames[:, read - 1], frames[:, read:]
        pairs = [(now, now), (now - before, now - before)]
        pairs += [(now, w) for w in future.unbind(1)] + [(now - before, w - now) for w in future.unbind(1)]
        sums = sums + torch.stack([(a * b).sum() for a, b in pairs]).cpu()
    size, change, products, gains = sums[0], sums[1], sums[2 : 2 + steps], sums[2 + steps :]

    def error(weights, square, products):  # |weight a - b|^2 summed over steps, up to |b|^2
        return (weights**2 * square - 2 * weights * products).sum().item()

    exponents = torch.arange(1, steps + 1, dtype=torch.float64)
    persist = minimize_scalar(lambda d: error(d**exponents, size, products), bounds=(0, 1), method="bounded")
    fitted = {
        "persistence": persistence,
        "damped persistence": DampedPersistence(round(float(persist.x), 4)),
    }
    if read == 2:
        trend = minimize_scalar(
            lambda d: error((d**exponents).cumsum(0), change, gains), bounds=(0, 1), method="bounded"
        )
        fitted["damped trend"] = DampedTrend(round(float(trend.x), 4))
    return fitted


class Climatology:
    """Windows whose first frame is replaced by the mean of the training frames at its place.

    So it is transformed as the flow is, and :meth:`forecast` finds it. For windows of the tiles trained on.

    Args:
        windows: to be forecast.
        train: :class:`flows.windows.Windows` whose frames are averaged.
    """

    def __init__(self, windows, train):
        self.windows, self.mean = windows, train.frames.mean(1, dtype=torch.float32).to(windows.device)
        self.history, self.horizon, self.fields = windows.history, windows.horizon, windows.fields

    def __len__(self):
        return len(self.windows)

    def batches(self, order, batch_size, past, future, workers=0):
        for index, frames, mask in self.windows.batches(order, batch_size, past, future, workers):
            frames[:, 0] = self.mean[self.windows.tile[index]]
            yield index, frames, mask

    @staticmethod
    def forecast(frames, steps, mask=None):
        return frames[:, :1].expand(-1, steps, -1, -1, -1)
