"""Folders that are written whole or not at all, by one process at a time."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from utils import InputError


@contextlib.contextmanager
def locked(path):
    """Keep other processes away from a file or folder, which need not exist, by a hidden file beside it.

    The system frees that lock however this process ends.

    Raises:
        InputError: another process is at it.
    """
    lock = lock_of(path)
    while True:
        with open(lock, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process is at {path}; wait for it, or write elsewhere") from None
            except OSError:
                pass  # a file system without locks
            if not lock.exists() or not os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                continue  # who had it has removed it meanwhile
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def wait_for(path):
    """Return when no other process is at a file or folder, see :func:`locked`."""
    with contextlib.suppress(OSError), open(lock_of(path)) as file:  # there may be no lock, or no locks at all
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which is at {path}", flush=True)
            fcntl.flock(file, fcntl.LOCK_SH)


def lock_of(path):
    path = Path(path)
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def new_folder(target):
    """Yield a hidden folder beside ``target`` that takes its place only if the block succeeds.

    Raises:
        InputError: there is something else, or another process at it, or no room.
    """
    target = Path(target).resolve()  # a link to another disk stays one
    partial, old = (target.with_name(f".{target.name}.{state}") for state in ("partial", "old"))
    created = not target.parent.exists()
    if target.is_file():
        raise InputError(f"{target} is a file, wanted a folder or nothing; choose another name")
    if target.is_dir() and any(target.iterdir()) and not (target / "meta.json").is_file():
        raise InputError(
            f"{target} holds other files than prepared data, which would replace them; choose another name"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock_of(target).touch()
    except OSError as error:
        raise InputError(f"cannot write into {target.parent}: {error.strerror}; choose another folder") from error
    try:
        with locked(target):
            put_back(old, target)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                yield partial
                if target.exists():
                    print(f"replacing the earlier {target}")
                    shutil.rmtree(old, ignore_errors=True)
                    target.rename(old)
                partial.rename(target)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                put_back(old, target)
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        if created and not any(target.parent.iterdir()):
            target.parent.rmdir()


def put_back(old, target):
    """Undo a replacement that was cut short between its two steps."""
    if old.exists() and not target.exists():
        old.rename(target)
