"""Scores of forecasts over the windows of a prepared data set, original or transformed."""

from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha1

import numpy as np
import torch
from torch.nn.utils import parametrize

from evaluation.equivariance import equivariance_error
from evaluation.measures import BANDS, summarise, window_measures
from evaluation.spectrum import log_spectrum, resolved_rings, spectrum_error
from models.fields import energetic
from utils import MeanSquare, forecast, gather, processes, share

EQUIVARIANCE_WINDOWS = 64  # windows, evenly spread over the test split, on which equivariance errors are measured


@dataclass(frozen=True)
class TestSet:
    """Windows to forecast, as they are or each transformed by a group element of its own.

    Attributes:
        windows: :class:`flows.windows.Windows`.
        symmetry, elements: window i is transformed by the group element ``elements[i]`` first; None: by nothing.
        chosen: the windows of the set; None: all.
    """

    __test__ = False  # nothing for pytest to collect

    windows: object
    symmetry: object = None
    elements: torch.Tensor | None = None
    chosen: torch.Tensor | None = None

    def __len__(self):
        return len(self.windows if self.chosen is None else self.chosen)

    def thinned(self, count):
        """About ``count`` of the windows, as many of each group element, evenly spread; all, if there are fewer."""
        if count >= len(self):
            return self
        parts = [(self.elements == element).nonzero().flatten() for element in self.elements.unique()]
        kept = [spread(part, max(1, count // len(parts))) for part in parts]
        return replace(self, chosen=torch.cat(kept).sort().values)

    def groups(self, past, steps):
        """Windows whose transforms may share a batch, because they have equal sizes.

        Elements for which the prepared windows are too short (small scale factors) are left out.

        Yields:
            ``(element, index)``: the windows and their element, a tensor ``(1,)``, or None where all may share a batch.
        """
        chosen = torch.arange(len(self.windows)) if self.chosen is None else self.chosen
        if self.symmetry is None or self.symmetry.keeps_shape:
            yield None, chosen
            return
        for element in self.elements[chosen].unique():
            before, after = self.symmetry.source_window(element[None], past, steps)
            if before <= self.windows.history and after <= self.windows.horizon:
                yield element[None], chosen[self.elements[chosen] == element]


def spread(index, count):
    """At most ``count`` entries of ``index``, evenly spread."""
    return index[torch.linspace(0, len(index) - 1, min(count, len(index))).long()]


class Remembered:
    """A forecast that is computed once for equal windows: those turned by 360 degrees, or forecast for two measures.

    Kept are the forecasts of the windows that come first, up to ``room`` bytes of them.
    """

    def __init__(self, forecast, room=2**28):
        self.forecast, self.room, self.kept = forecast, room, {}

    def __call__(self, frames, steps, mask=None):
        masks = [None] * len(frames) if mask is None else mask
        keys = [(steps, *map(digest, window)) for window in zip(frames, masks, strict=True)]
        new = {key: i for i, key in enumerate(keys) if key not in self.kept}
        found = {}
        if new:
            index = list(new.values())
            computed = self.forecast(frames[index], steps, None if mask is None else mask[index])
            found = dict(zip(new, computed, strict=True))
            if self.room >= computed.nbytes:
                self.room -= computed.nbytes
                self.kept |= found
        return torch.stack([found[key] if key in found else self.kept[key] for key in keys])


def digest(tensor):
    """What tells a tensor from others; None of None."""
    return None if tensor is None else sha1(tensor.contiguous().cpu().numpy()).digest()


@torch.inference_mode()
def score(forecasts, tests, past, steps, batch_size, workers=0, spectra=(), measured=()):
    """Score forecasts on every window of a test set, which is read and transformed once for all of them.

    Args:
        forecasts: ``{name: forecast}``; a forecast maps ``(frames, steps, mask)`` to ``(n, steps, C, H, W)``, such as
            ``partial(utils.forecast, model)``.
        tests: :class:`TestSet`.
        past, steps: input frames and forecast frames.
        spectra: names of the forecasts whose energy spectrum errors are wanted, too.
        measured: names of those of which the measures of ``evaluation.measures`` are wanted, too.

    Returns:
        ``{name: scores}``, each a dict of ``rmse``, ``rmse_per_step``, ``window_mse`` (the mean squared error of every
        window, in their order) and, with spectra, ``ese`` (mean spectrum) and ``ese_per_sample``. Where transformed
        windows differ in size, these are means over windows (of squares, for the RMSE), ``windows`` is their number,
        and ``by_factor`` holds the same per group element. Of the measured ones ``measures``, per group element only;
        with spectra these have ``ese_resolved``, the ESE over windows without land and the ``rings_resolved``.
    """
    rows = {}
    for element, index in tests.groups(past, steps):
        size = batch_size if element is None else max(1, int(batch_size / tests.symmetry.enlargement(element)))
        found = score_windows(forecasts, tests, index, past, steps, size, workers, spectra, measured)
        if element is None:
            return found
        for name, row in found.items():
            rows.setdefault(name, {})[f"{element.item():g}"] = {"windows": len(index), **row}
    return {
        name: {**mean_over_windows(of.values()), "windows": sum(row["windows"] for row in of.values()), "by_factor": of}
        for name, of in rows.items()
    }


def score_windows(forecasts, tests, order, past, steps, batch_size, workers, spectra, measured):
    """Scores of the windows ``order``, one of the groups of ``tests``.

    Every process scores a share of them, or all of them if they are fewer than the processes.
    """
    symmetry, elements = tests.symmetry, tests.elements
    enlargement = 1.0 if symmetry is None else symmetry.enlargement(elements[order[:1]])
    fields = tests.windows.fields
    tallies = {name: Tally(name in spectra, name in measured, fields, enlargement) for name in forecasts}
    before, after = (past, steps) if symmetry is None else symmetry.source_window(elements[order[:1]], past, steps)
    whole, divided = len(order), len(order) >= processes() > 1
    if divided:
        order = share(order)
    with parametrize.cached():
        for index, frames, mask in tests.windows.batches(order, batch_size, before, after, workers):
            if symmetry is not None:
                frames, mask = symmetry.transform(elements[index], frames, mask, before - 1, past, steps)
            for name, forecast in forecasts.items():
                tallies[name].add(forecast(frames[:, :past], steps, mask), frames[:, past:], mask)
    return {name: tally.scores(whole if divided else None) for name, tally in tallies.items()}


class Tally:
    """What is kept of a forecast, batch by batch: squared errors and, if wanted, spectra and measures of every window.

    Args:
        spectra, measured: whether they are wanted.
        fields: what the data hold.
        enlargement: how many times more points the windows have than before they were transformed.
    """

    def __init__(self, spectra, measured, fields, enlargement=1.0):
        self.spectra, self.measured, self.fields, self.energy = spectra, measured, fields, energetic(fields)
        self.enlargement, self.side = enlargement, 0
        self.error, self.parts = MeanSquare(), {}

    def add(self, prediction, target, mask):
        self.error.add(prediction, target, mask)
        self.side = max(target.shape[-2:])
        found = {"mse": window_mse(prediction, target, mask)}
        if self.spectra:
            found["predicted"] = log_spectrum(prediction[:, :, self.energy], mask)
            found["true"] = log_spectrum(target[:, :, self.energy], mask)
        if self.measured:
            without_land = torch.ones_like(found["mse"]) if mask is None else mask.flatten(1).all(1).double()
            found |= {"without_land": without_land, **window_measures(prediction, target, self.fields, mask)}
        for name, part in found.items():
            self.parts.setdefault(name, []).append(part)

    def scores(self, whole=None):
        """The scores; of all processes' shares together where ``whole`` says how many windows they are."""
        parts = {name: torch.cat(part) for name, part in self.parts.items()}
        if whole is not None:
            self.error.collect()
            parts = {name: gather(part, whole) for name, part in parts.items()}
        scores = {"rmse": self.error.rmse(), "rmse_per_step": self.error.per_step().sqrt().tolist()}
        scores["window_mse"] = [float(f"{value:.6g}") for value in parts.pop("mse").tolist()]
        spectra = [parts.pop(name) for name in ("predicted", "true") if self.spectra]
        if self.spectra:
            scores["ese"] = spectrum_error(*spectra, "mean").item()
            scores["ese_per_sample"] = spectrum_error(*spectra, "per_sample").item()
        if self.measured:
            without_land = parts.pop("without_land").bool()
            scores["measures"] = summarise(parts, without_land)
            if self.spectra and without_land.any():
                scores["measures"] |= self.resolved(*(part[without_land] for part in spectra))
        return scores

    def resolved(self, predicted, true):
        """The ESE on the rings that the truth resolves, and how many these are."""
        rings = resolved_rings(true, self.side, self.enlargement)
        found = {"rings_resolved": int(rings.sum())}
        if rings.any():
            found["ese_resolved"] = spectrum_error(predicted[:, rings], true[:, rings]).item()
        return found


def window_mse(prediction, target, mask=None):
    """Mean squared error of every window over steps, components and valid points: ``(n,)`` float64."""
    error = (prediction - target).square().mean((1, 2), dtype=torch.float64)
    if mask is None:
        return error.mean((1, 2))
    return torch.where(mask[:, 0], error, 0).sum((1, 2)) / mask[:, 0].sum((1, 2))


def mean_over_windows(rows):
    """One dict of scores from several, each with its number of ``windows``: RMSEs by their squares, the rest as is.

    Measures stay by group element: a wavenumber of one factor is another one of another.
    """
    rows = list(rows)
    weights = np.array([row["windows"] for row in rows])
    means = {}
    for name in rows[0].keys() - {"windows", "window_mse", "measures", *BANDS}:
        values = np.array([row[name] for row in rows])
        if name.startswith("ese"):
            means[name] = float(np.average(values, 0, weights))
        else:
            means[name] = np.sqrt(np.average(values**2, 0, weights)).tolist()
    return means


def validation_rmse(model, windows, settings):
    """RMSE over a roll-out as long as in training, or as the settings (:class:`utils.Training`) want it."""
    model.eval()
    steps = settings.valid_length or settings.output_length
    setting = (settings.input_length, steps, settings.batch_size, settings.num_workers)
    return score({"net": partial(forecast, model, amp=settings.amp)}, TestSet(windows), *setting)["net"]["rmse"]


@torch.inference_mode()
def equivariance_of(forecast, tests, past, steps, batch_size):
    """Equivariance error of a forecast on a few windows of a test set, see :func:`equivariance_error`.

    Where batches must share a group element, also ``by_factor``. None where the set is not transformed, or where the
    transforms of what the forecast reads are all shorter than that (of scale, all factors are below 1).

    Args:
        forecast: as those of :func:`score`, and so are the others.
    """
    symmetry, elements = tests.symmetry, tests.elements
    if symmetry is None:
        return None
    usable = [i for g, i in tests.groups(past, steps) if g is None or symmetry.source_window(g, past, 0)[0] <= past]
    if not usable:
        return None

    def errors(index):
        size = max(1, int(batch_size / symmetry.enlargement(elements[index[:1]])))

        def in_pieces(frames, mask):
            masks = [None] * len(frames) if mask is None else mask.split(size)
            return torch.cat([forecast(f, steps, m) for f, m in zip(frames.split(size), masks, strict=False)])

        frames, mask = tests.windows.read(index, past, 0)
        found = equivariance_error(in_pieces, symmetry, elements[index], frames, mask)
        return {name: error.item() for name, error in found.items() if name not in BANDS or not error.isnan()}

    index = spread(torch.cat(usable).sort().values, EQUIVARIANCE_WINDOWS)
    if symmetry.keeps_shape:
        return errors(index)
    rows = {}
    for element in elements[index].unique():
        group = index[elements[index] == element]
        rows[f"{element.item():g}"] = {"windows": len(group), **errors(group)}
    return {**mean_over_windows(rows.values()), "by_factor": rows}
