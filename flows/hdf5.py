"""Trajectories in HDF5 files: opening, reading, splits."""

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.layouts import LAYOUTS, SPLITS, Layout
from flows.source import descends, even_step, existing, grid_source, refuse_not_finite
from flows.splits import share_trajectories
from models.fields import components
from utils import InputError, progress

SUFFIXES = (".h5", ".hdf5")
NO_DATA = {  # how a file begins that came instead of the data
    b"<": "is a web page, perhaps of a server that was out of order",
    b"version https://git-lfs": "is a pointer of Git LFS to the file; fetch what it points to with git lfs pull",
}


@contextlib.contextmanager
def opened(path):
    """Open an HDF5 file; every error names the file and is an InputError."""
    try:
        import h5py  # only this kind of data needs it
    except ImportError:
        raise InputError("HDF5 files need the package h5py; pip install h5py") from None
    if not h5py.is_hdf5(existing(path)):
        with open(path, "rb") as file:
            start = file.read(64).lstrip()
        reason = next((reason for begin, reason in NO_DATA.items() if start.startswith(begin)), "is no HDF5 file")
        raise InputError(f"{path} {reason}; fetch it again")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}); fetch it again") from error
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is not laid out as it should be: {error}") from error


@dataclass(frozen=True)
class Hdf5File:
    """A file whose layout is known.

    Attributes:
        path, layout: of the file.
        time_step, spacing: as of Sources, None where they are uneven or unknown.
        flip: the slices that make x and y ascend.
    """

    path: Path
    layout: Layout
    time_step: float | None
    spacing: list[float] | None
    flip: tuple[slice, slice]

    def read(self, fields, trajectory, begin, end):
        """Frames ``[begin, end)`` of a trajectory: ``(end - begin, C, H, W)`` float32."""
        with opened(self.path) as file, np.errstate(over="ignore"):  # found as an infinity
            blocks = [self.read_field(file, self.layout.fields[name], trajectory, begin, end) for name in fields]
        block = np.concatenate(blocks, -1)[(slice(None), *self.flip)].transpose(0, 3, 2, 1)
        refuse_not_finite(block, self.path, begin, f" of trajectory {trajectory}")
        return block

    def read_field(self, file, field, trajectory, begin, end):
        """A field as it is stored, but with all axes: ``(end - begin, x, y, components)`` float32."""
        sizes = (end - begin, *self.layout.shape)
        chosen = (trajectory, slice(begin, end), slice(None), slice(None))
        index = tuple(part for part, varies in zip(chosen, field.varies, strict=True) if varies)
        present = [size if varies else 1 for size, varies in zip(sizes, field.varies[1:], strict=True)]
        parts = [np.asarray(file[name][index], np.float32).reshape(*present, -1) for name in field.datasets]
        block = np.broadcast_to(np.concatenate(parts, -1), (*sizes, sum(part.shape[-1] for part in parts)))
        return to_centres(block) if field.staggered else block


def to_centres(faces):
    """Means in the centres of cells, from values on their lower faces ``(T, x, y, 2)``; no flow through the walls."""
    u, v = np.moveaxis(faces, -1, 0)
    after_u, after_v = np.pad(u[:, 1:], ((0, 0), (0, 1), (0, 0))), np.pad(v[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
    return np.stack([u + after_u, v + after_v], -1) / 2


def describe_file(path, layout):
    """Hdf5File of a path.

    Raises:
        InputError: it cannot be read, or a field has not the shape that its description gives it.
    """
    with opened(path) as file:
        found = LAYOUTS[layout](file, path)
        for name, values in found.parameters.items():
            if not np.isfinite(values).all():
                raise InputError(
                    f"the parameter {name} is not finite in trajectory {int(np.isfinite(values).argmin())}"
                )
        if found.time is not None and not (np.diff(found.time) > 0).all():  # NaN is not
            raise InputError("its times do not ascend; sort the frames first")
        if 0 in (found.trajectories, found.frames, *found.shape):
            raise InputError("holds no trajectory; fetch it again")
        for name, field in found.fields.items():
            sizes = (found.trajectories, found.frames, *found.shape)
            wanted = tuple(size for size, varies in zip(sizes, field.varies, strict=True) if varies)
            together = field.kind == "vector" and len(field.datasets) == 1
            allowed = [(*wanted, 2)] if together else [wanted, (*wanted, 1)]
            for stored in (file[dataset] for dataset in field.datasets):
                if stored.shape not in allowed:
                    raise InputError(f"{name} has shape {stored.shape}, wanted {allowed[0]}")
                if stored.dtype.kind not in "fiu":
                    raise InputError(f"{name} has values of type {stored.dtype}, wanted real numbers")
    flip = tuple(slice(None, None, -1 if descends(values) else 1) for values in (found.x, found.y))
    steps = [even_step(values) for values in (found.y, found.x)]
    spacing = [abs(step) for step in steps] if all(steps) else None
    return Hdf5File(Path(path), found, even_step(found.time), spacing, flip)


def find_files(paths):
    """HDF5 files in the order of their names; folders stand for all that are in them.

    Raises:
        InputError: a folder without any, or a file that is given twice: its trajectories would be in two splits.
    """
    found = []
    for path in map(Path, paths):
        inside = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path} holds no file that ends with {' or '.join(SUFFIXES)}")
        found += inside
    files = [path.resolve() for path in found]
    twice = next((path for path, file in zip(found, files, strict=True) if files.count(file) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice, perhaps by its folder or a link")
    return found


def hdf5_sources(args):
    """Sources of the splits that files bring; where they bring none, trajectories are shared out.

    Segments are trajectories, the first ones of all files before the second ones, so that whoever takes some takes them
    from all files.

    Args:
        args: ``command``, the layout; ``raw``, files and folders of files; ``fields``, their names, None for all that
            vary in time; ``stride`` and ``tile``, see :func:`flows.source.grid_source`; ``splits``.

    Raises:
        InputError: files that cannot be read, or do not go together.
    """
    paths = find_files(args.raw)
    files = [describe_file(path, args.command) for path in progress(paths, len(paths), "files")]
    first = files[0]
    fields = args.fields or [name for name, field in first.layout.fields.items() if field.varies[1]]
    for file in files:
        missing = [name for name in fields if name not in file.layout.fields]
        if missing:
            raise InputError(f"{file.path} has no field {missing[0]}; it has {', '.join(file.layout.fields)}")
        if file.layout.shape != first.layout.shape:
            sizes = " and ".join(f"{x} x {y}" for x, y in (file.layout.shape, first.layout.shape))
            raise InputError(f"{file.path} and {first.path} have different grids, {sizes}; prepare them one by one")
    splits = {file.layout.split for file in files}
    if len(splits) == 1:
        return share_trajectories(source_of(files, files, fields, args), args.splits)
    if splits != set(SPLITS):
        found = ", ".join(sorted(map(str, splits)))
        raise InputError(f"found files of {found}; wanted those of {', '.join(SPLITS)}, or of one split")
    by_split = {split: [file for file in files if file.layout.split == split] for split in SPLITS}
    return {split: source_of(members, files, fields, args) for split, members in by_split.items()}


def source_of(files, all_files, fields, args):
    """Source of all trajectories of ``files``; what ``all_files`` do not share is not known."""
    trajectories = [(file, number) for file in files for number in range(file.layout.trajectories)]
    ends = [0, *itertools.accumulate(file.layout.frames for file, _ in trajectories)]
    order = sorted(range(len(trajectories)), key=lambda i: trajectories[i][1] / trajectories[i][0].layout.trajectories)
    layout, (width, height) = files[0].layout, files[0].layout.shape
    kinds = tuple(layout.fields[name].kind for name in fields)
    time_step, spacing = (same(getattr(file, name) for file in all_files) for name in ("time_step", "spacing"))
    boundaries = {axis: same(file.layout.boundaries.get(axis) for file in all_files) for axis in ("x", "y")}
    boundaries = {axis: kind for axis, kind in boundaries.items() if kind}
    known = set.intersection(*(set(file.layout.parameters) for file in all_files))
    left_out = [name for name in layout.fields if name not in fields]
    notes = [
        f"{len(files)} files, {len(order)} trajectories of {layout.frames} frames of {height} x {width} points",
        f"fields: {', '.join(f'{name} ({kind})' for name, kind in zip(fields, kinds, strict=True))}"
        + (f"; left out: {', '.join(left_out)}" if left_out else ""),
        *layout.notes,
    ]
    if boundaries:
        notes.append("ends of the grid: " + ", ".join(f"{axis} {kind}" for axis, kind in boundaries.items()))
    if spacing is None and layout.x is not None:
        notes.append("warning: points are not evenly spaced, or not alike in all files")
    if time_step is None and layout.time is not None:
        notes.append("warning: frames are not evenly spaced in time, or not alike in all files")

    def read(begin, end):
        i = int(np.searchsorted(ends, begin, "right")) - 1
        file, number = trajectories[i]
        return file.read(fields, number, begin - ends[i], end - ends[i])

    return grid_source(
        read,
        (height, width),
        args.tile,
        args.stride,
        spacing=spacing,
        boundaries=boundaries,
        segments=[(ends[i], ends[i + 1]) for i in order],
        frame_bytes=8 * components(kinds) * height * width,
        fields=kinds,
        files=[file.path.name for file in files],
        time_step=time_step,
        parameters={
            name: [file.layout.parameters[name][number] for file, number in (trajectories[i] for i in order)]
            for name in sorted(known)
        },
        notes=notes,
    )


def same(values):
    """The value that all have, or None."""
    first, *others = values
    return first if all(other == first for other in others) else None
