"""Windows over prepared frames, the roll-out, the training loop, checkpoints.

Everything here serves every model alike: a model is a map from
``(n, time, 2, H, W)`` to the next frame ``(n, 2, H, W)``.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

# ---------------------------------------------------------------- the user


class InputError(Exception):
    """What the user gave cannot be used. Shown as one line, exit code 2."""


def exit_code(main):
    """Run ``main()`` and return the process's exit code.

    Bad input, a full disk and a missing permission end in one line on stderr and 2;
    an interrupt in one line and 130. Anything else is a defect and keeps its traceback.
    """
    try:
        main()
    except (InputError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError:
        print("error: the device is out of memory; lower --batch_size or --width, or use --device cpu", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def progress(items, total, label, every=15.0):
    """Iterate over ``items`` under a tqdm bar, or plain lines where stderr is no terminal.

    Returns the iterator; its ``note(text)`` shows text behind the bar (a loss, a date).
    ``every`` is the least number of seconds between two plain lines.
    """
    return _Progress(items, total, label, every)


class _Progress:
    def __init__(self, items, total, label, every):
        self.items, self.total, self.label, self.every = items, total, label, every
        self.bar = tqdm(total=total, desc=label, leave=False) if sys.stderr.isatty() else None
        self.text = ""

    def note(self, text):
        self.text = text
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)

    def __iter__(self):
        start = shown = time.monotonic()
        for done, item in enumerate(self.items, 1):
            yield item
            if self.bar is not None:
                self.bar.update()
                continue
            now = time.monotonic()
            if now - shown > self.every:
                shown = now
                left = (now - start) / done * (self.total - done)
                print(f"{self.label}: {done}/{self.total}, {left:.0f} s left {self.text}".rstrip(), file=sys.stderr, flush=True)
        if self.bar is not None:
            self.bar.close()


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside ``path``; it takes the place of ``path`` only if the block succeeds."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Write ``value`` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


# ---------------------------------------------------------------- prepared data

SCHEMA = 1  # of meta.json; raised when its meaning changes


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
