"""The windows of a prepared split, read on the fly."""

import mmap
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from flows.store import checksum, file_checksum, refuse_changed
from utils import InputError, share

CHECKED_BYTES = 2**30  # of a file of frames; one that is larger would take more than a second or two to check


def window_starts(split, length):
    """First frames of the windows of a split, and their tiles.

    ``split`` is a split's entry of ``meta.json``. Windows of ``length`` frames lie inside one
    segment (no gap in time inside a window); they are ordered by start, then tile, and the
    split owns ``count`` of them from the ``first`` on.

    Returns:
        ``(tile, start)``, two int64 tensors of ``count`` entries.
    """
    starts = torch.cat([torch.arange(begin, end - length + 1) for begin, end in split["segments"]])
    flat = torch.arange(split["first"], split["first"] + split["count"])
    tiles = split["shape"][0]
    return flat % tiles, starts[flat // tiles]


class Windows:
    """The windows of one split, read on the fly from frames that are stored once.

    The frames stay memory-mapped; on CUDA they move to the device if they take less than a third of its free memory.
    Mapped frames may be many times the memory of the machine: only those of a batch count as memory of this process.

    Args:
        folder: the prepared data set.
        meta: its ``meta.json``; a checksum of frames that is None is not compared.
        split: "train", "valid", "test" or "domain".
        device: where batches are wanted.

    Raises:
        InputError: the files are not what ``meta`` says.
    """

    def __init__(self, folder, meta, split, device="cpu"):
        entry = meta["splits"][split]
        self.device = torch.device(device)
        self.fields, self.history, self.horizon = tuple(meta["fields"]), meta["history"], meta["horizon"]
        file = Path(folder) / entry["frames"]
        self.frames, self.mapping = _open_array(file, entry["shape"])
        if entry["sha256"] and file.stat().st_size <= CHECKED_BYTES:
            refuse_changed(file, file_checksum(file), entry["sha256"])
        self.mask = None
        if entry["mask"] is not None:
            tiles, _, _, height, width = entry["shape"]
            file = Path(folder) / entry["mask"]
            mask, _ = _open_array(file, [tiles, height, width])
            refuse_changed(file, checksum(mask.numpy()), entry["mask_sha256"])
            self.mask = mask.to(self.device)
        self.tile, self.start = window_starts(entry, self.history + self.horizon)
        if self.device.type == "cuda" and self.frames.nbytes < torch.cuda.mem_get_info(self.device)[0] / 3:
            self.frames = self.frames.to(self.device)

    def __len__(self):
        return len(self.start)

    def blocks(self):
        """A number per window ``(n,)``, shared by windows of one tile that begin in one stretch of a window's length.

        Windows of different blocks share no more than a window's frames; of one block they are nearly the same.
        """
        length = self.history + self.horizon
        return self.tile * (self.frames.shape[1] // length + 1) + self.start // length

    def keep_last(self, fraction):
        """Drop all but the last ``fraction`` of the windows in time; at least one stays."""
        count = max(1, round(fraction * len(self)))
        self.tile, self.start = self.tile[-count:], self.start[-count:]

    def read(self, index, past, future):
        """Read windows ``index`` (n,): the ``past`` frames before the forecast and the ``future`` frames from it on.

        Returns:
            ``(frames, mask)``: ``(n, past + future, C, H, W)`` and ``(n, 1, H, W)`` (None without land), on the device.
        """
        tile = self.tile[index]
        time = self.start[index, None] + torch.arange(self.history - past, self.history + future)
        frames = self.frames[tile[:, None], time]
        if not self.frames.is_cuda and hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)  # the system may keep what was read, this process need not
        if self.device.type == "cuda" and not frames.is_cuda:
            frames = frames.pin_memory().to(self.device, non_blocking=True)
        return frames, None if self.mask is None else self.mask[tile, None]

    def batches(self, order, batch_size, past, future, workers=0, shared=False):
        """Yield ``(index, frames, mask)`` for the windows in ``order``, read ahead by ``workers`` threads.

        ``shared``: of every batch only this process's share, empty where there are more processes than windows.
        """
        chunks = order.split(batch_size)
        if shared:
            chunks = [share(chunk) for chunk in chunks]

        def read(index):
            return index, *self.read(index, past, future)

        if workers == 0:
            yield from map(read, chunks)
            return
        with ThreadPoolExecutor(workers) as pool:
            pending = deque()
            for chunk in chunks:
                pending.append(pool.submit(read, chunk))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


def _open_array(path, shape):
    """A mapped ``.npy`` file: a tensor that must not be written to, and its ``mmap``."""
    try:
        array = np.load(path, mmap_mode="r")  # copy-on-write would have to fit into memory
    except (FileNotFoundError, ValueError, EOFError):
        raise InputError(f"{path} is missing or broken; run data_prep.py again") from None
    if list(array.shape) != shape:
        raise InputError(f"{path} has shape {array.shape}, meta.json says {tuple(shape)}; run data_prep.py again")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array), array.base
