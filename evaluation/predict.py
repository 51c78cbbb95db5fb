"""Forecasts of one's own frames by the best weights of a run, in the units of the raw data."""

import numpy as np
import torch

from evaluation.runs import check_run, net_of, tile_of
from flows.arrays import load_array
from flows.store import load_meta
from flows.windows import Windows
from models import ARCHITECTURES
from models.fields import components, of_component
from utils import InputError, forecast, load_weights, replacing


def load_net(folder, device):
    """The config of a run, and its net with the best weights.

    Raises:
        InputError: a run without weights, or one that does not say how its data were standardised.
    """
    config = check_run(folder)
    if "std" not in config:
        raise InputError(f"{folder / 'config.json'} does not say how its data were standardised; train again")
    if not (folder / "metrics.json").exists():
        print(f"{folder} is not finished: these are its best weights so far")
    model = net_of(config, config["fields"]).to(device).eval()
    load_weights(model, folder / "best.pt", device)
    return config, model


@torch.inference_mode()
def predict(folder, source, steps, output, device):
    """Forecast ``steps`` frames and write them as ``.npy``, ``(steps, C, H, W)`` float32, NaN on land.

    Args:
        folder: of a run with weights.
        source: a ``.npy`` or ``.pt`` array, or a window of prepared data, see :func:`raw_frames`.
        output: the file to write.

    Raises:
        InputError: frames that the net cannot read, or a run that does not say how its data were standardised.
    """
    (config, model), frames = load_net(folder, device), raw_frames(source)
    fields, past = config["fields"], config["input_length"]
    channels, multiple = components(fields), ARCHITECTURES[config["architecture"]].size_multiple
    fits = frames.dim() == 4 and frames.shape[1] == channels and len(frames) >= past
    if not fits or 0 in frames.shape or any(side % multiple for side in frames.shape[2:]):
        raise InputError(
            f"{source} has shape {tuple(frames.shape)}, this net wants (T, {channels}, H, W): at least {past} frames "
            f"of {' and '.join(fields)}, H and W multiples of {multiple}"
        )
    if tile_of(config) not in (None, list(frames.shape[2:])):
        raise InputError(f"{source} has shape {tuple(frames.shape)}, this net reads frames of {tile_of(config)} alone")
    frames = frames[-past:]
    mask = ~frames.isnan().any(1).any(0)[None, None]  # land is where a frame that is read has no number
    if frames.isinf().any() or not mask.any():
        raise InputError(f"{source} has infinite values, or no point with numbers in the last {past} frames; mend it")
    mean, std = (per_component(config, name) for name in ("mean", "std"))
    standard = torch.where(mask, (frames - mean) / std, 0)[None].to(device)
    future = forecast(model, standard, steps, None if mask.all() else mask.to(device), config["amp"])[0].cpu()
    future = torch.where(mask, future * std + mean, torch.nan)
    with replacing(output) as temporary, open(temporary, "wb") as file:
        np.save(file, future.numpy())
    print(f"wrote {output}: {tuple(future.shape)} in {config['units'] or 'the units of the raw data'}")


def raw_frames(source):
    """Frames ``(T, C, H, W)`` float32 in the units of the raw data, NaN on land.

    Args:
        source: a ``.npy`` or ``.pt`` file, or ``FOLDER:SPLIT:NUMBER``, the history of a window of prepared data.
    """
    folder, *window = source.rsplit(":", 2)
    if len(window) < 2:
        return torch.from_numpy(np.array(load_array(source), np.float32))
    meta, (split, number) = load_meta(folder), window
    if split not in meta["splits"] or not number.isdigit():
        raise InputError(f"{source}: wanted FOLDER:SPLIT:NUMBER, SPLIT one of {', '.join(meta['splits'])}")
    windows = Windows(folder, meta, split)
    if int(number) >= len(windows):
        raise InputError(f"{source}: {split} has {len(windows)} windows, counted from 0")
    frames, mask = windows.read(torch.tensor([int(number)]), meta["history"], 0)
    frames = frames[0] * per_component(meta, "std") + per_component(meta, "mean")
    return frames if mask is None else torch.where(mask[0], frames, torch.nan)


def per_component(settings, name):
    """The "mean" or "std" of every component, ``(C, 1, 1)``, from the fields' in meta.json or config.json."""
    return torch.tensor(of_component(settings["fields"], settings[name]))[:, None, None]
