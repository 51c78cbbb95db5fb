"""Regular arrays, as of convection: ``.pt`` tensors and ``.npy`` arrays."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from flows.source import existing, grid_source, refuse_not_finite
from models.fields import components
from utils import InputError


def load_array(path):
    """Open a ``.pt`` tensor or a ``.npy`` array as a numpy array, memory-mapped where the format allows it.

    Raises:
        InputError: what is there is no floating-point array, or holds Python objects (which are never loaded).
    """
    raw = {".pt": load_tensor, ".npy": load_npy}.get(existing(path).suffix, refuse_suffix)(path)
    if raw.dtype.kind != "f":
        raise InputError(f"{path} holds {raw.dtype} values, wanted floating-point numbers; convert it first")
    return raw


def refuse_suffix(path):
    """Stands for the loader of a format there is none for."""
    raise InputError(f"{path} is neither .pt nor .npy; save the tensor or array in one of these formats")


def load_tensor(path):
    """A saved tensor as a numpy array; code in its pickle is not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file draws warnings before its error
            # torch maps its present format, which is a zip archive, and not the one before
            raw = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except Exception as error:  # a damaged or malicious pickle raises almost anything
        raise InputError(
            f"{path} cannot be loaded ({type(error).__name__}): it is damaged or holds more than a tensor; "
            "save the tensor alone with torch.save"
        ) from error
    if not isinstance(raw, torch.Tensor):
        raise InputError(f"{path} holds a {type(raw).__name__}, wanted one tensor; save the tensor alone")
    try:
        return raw.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{path} holds a {raw.dtype} tensor that numpy cannot read; save it as float32") from error


def load_npy(path):
    """A saved array as a memory map; pickled objects are not loaded."""
    try:
        raw = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises almost anything
        raise InputError(f"{path} is no readable .npy array ({error}); save it with numpy.save") from error
    if not isinstance(raw, np.ndarray):
        raise InputError(f"{path} holds several arrays, wanted one; save it with numpy.save")
    return raw


def array_sources(args):
    """The record of one array, as ``{"train": Source}``."""
    return {"train": array_source([load_array(args.raw)], args.raw, args.stride, args.tile, args.fields)}


def array_source(arrays, file, stride, tile, fields=("vector",)):
    """Tiles of regular arrays, row by row, as in the release's preparation of the convection data.

    Args:
        arrays: ``(T, C_i, H, W)`` floating, whose components together are those of ``fields``; memory maps are never
            read as a whole.
        file: the name of the first.
        stride: every ``stride``-th point is kept in both directions, without averaging.
        tile: side of the square tiles; they must fill the field.

    Raises:
        InputError: sizes that do not fit; on reading, a frame with NaN or infinity.
    """
    first, wanted = arrays[0], components(fields)
    if any(raw.ndim != 4 for raw in arrays) or sum(raw.shape[1] for raw in arrays) != wanted or 0 in first.shape:
        raise InputError(
            f"{file} has shape {first.shape}, wanted (T, {wanted}, H, W): frames of {' and '.join(fields)}; say what "
            "its components are with --fields"
        )
    thinned = [raw[:, :, ::stride, ::stride] for raw in arrays]
    height, width = thinned[0].shape[2:]
    if height % tile or width % tile or height < tile or width < tile:
        raise InputError(f"{file} is {height} x {width} after --stride {stride}, wanted multiples of --tile {tile}")

    def read(begin, end):
        with np.errstate(over="ignore"):  # found as an infinity
            block = np.concatenate([np.asarray(raw[begin:end], np.float32) for raw in thinned], 1)
        refuse_not_finite(block, file, begin)
        return block

    return grid_source(
        read,
        (height, width),
        tile,
        segments=[(0, len(first))],
        frame_bytes=sum(raw[:1].nbytes for raw in arrays),
        fields=fields,
        files=[Path(file).name],
        notes=[f"{file}: {len(first)} frames of {first.shape[2]} x {first.shape[3]} points, stride {stride}"],
    )
