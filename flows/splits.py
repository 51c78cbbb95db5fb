"""Which windows, and so which frames, make up train, valid and test."""

import itertools
from dataclasses import dataclass

from utils import InputError

PROPORTIONS = (8000, 1000, 1000)  # of windows, or of trajectories, where nothing else is wanted
# The second paper's, of its plumes and its jet: at which frames of a flow the windows of each split start.
STARTS = {"train": (0, 160), "valid": (160, 200), "test": (200, 250), "domain": (0, 100)}


@dataclass(frozen=True)
class Split:
    """Windows ``[first, first + count)`` of those in the source's frame ``ranges``, which hold no frame but theirs."""

    ranges: list[tuple[int, int]]
    first: int
    count: int


def count_starts(segments, window):
    """Number of frames at which a window can start."""
    return sum(max(0, end - begin - window + 1) for begin, end in segments)


def cut(segments, tiles, window, begin, count):
    """The Split that owns the windows ``[begin, begin + count)``, numbered by first frame, then tile."""
    first_start, last_start = begin // tiles, (begin + count - 1) // tiles
    ranges, seen = [], 0
    for start, stop in segments:
        starts = count_starts([(start, stop)], window)
        low, high = max(first_start - seen, 0), min(last_start - seen, starts - 1)
        if low <= high:
            ranges.append((start + low, start + high + window))
        seen += starts
    return Split(ranges, begin % tiles, count)


def plan_splits(segments, tiles, window, gap, wanted):
    """Cut the windows of a source into train, valid and test, in the order of time.

    Args:
        segments: frame ranges without a gap in time.
        tiles: windows per first frame.
        window: frames of a window.
        gap: window starts (times ``tiles`` windows) left out between two splits.
        wanted: three numbers of windows; where there are fewer, all windows are cut in these proportions.

    Returns:
        ``{"train": Split, "valid": Split, "test": Split}``

    Raises:
        InputError: fewer than three window starts besides the gaps.
    """
    available = count_windows(segments, tiles, window, gap, 3) - 2 * gap * tiles
    counts = list(wanted) if sum(wanted) <= available else proportional(available, wanted)
    splits, begin = {}, 0
    for name, count in zip(("train", "valid", "test"), counts, strict=True):
        splits[name] = cut(segments, tiles, window, begin, count)
        begin += count + gap * tiles
    return splits


def plan(sources, window, gap, wanted):
    """Which windows make up the splits.

    Args:
        sources: ``{split: Source}``, see :func:`flows.store.write_dataset`.
        window, gap, wanted: as of :func:`plan_splits`; without ``wanted`` a source is cut in ``PROPORTIONS``, and of
            sources that bring their splits all windows are taken.

    Returns:
        ``({split: Source}, {split: Split})``
    """
    limits = dict(zip(("train", "valid", "test"), wanted or 3 * [None], strict=True))
    limits["domain"] = limits["test"]
    plans = {}
    if "valid" not in sources:
        train = sources["train"]
        plans = plan_splits(train.segments, train.tiles, window, gap, wanted or PROPORTIONS)
        sources = {**dict.fromkeys(plans, train), **sources}
    for name, source in sources.items():
        if name not in plans:
            plans[name] = first_windows(source.segments, source.tiles, window, limits[name])
    return sources, plans


def proportional(total, wanted):
    """Three counts that add up to ``total``, which is 3 or more, in the proportions ``wanted``; each is 1 or more."""
    counts = [1 + (total - 3) * count // sum(wanted) for count in wanted]
    counts[0] += total - sum(counts)
    return counts


def share_trajectories(source, wanted):
    """Give whole trajectories to train, valid and test, so that these have no frame in common.

    Args:
        source: Source whose segments are trajectories.
        wanted: three proportions; None for ``PROPORTIONS``.

    Returns:
        ``{"train": Source, "valid": Source, "test": Source}``; of fewer than three trajectories ``{"train": source}``,
        which is to be cut in time.
    """
    if len(source.segments) < 3:
        return {"train": source}
    ends = [0, *itertools.accumulate(proportional(len(source.segments), wanted or PROPORTIONS))]
    parts = zip(("train", "valid", "test"), itertools.pairwise(ends), strict=True)
    return {name: source.part(*part) for name, part in parts}


def segments_by_start(starts, count, held_out, window):
    """Segments of several flows, one behind the other, for splits whose windows start at given frames.

    Args:
        starts: ``{split: (first, end)}``, see :data:`STARTS`.
        count: number of flows; each has as many frames as the last window wants (:func:`frames_of`).
        held_out: numbers of those that only domain sees.
        window: frames of a window.

    Yields:
        ``(split, its flows, their segments)``
    """
    length = frames_of(starts, window)
    for split, (begin, end) in starts.items():
        members = [i for i in range(count) if (i in held_out) == (split == "domain")]
        yield split, members, [(i * length + begin, i * length + end - 1 + window) for i in members]


def frames_of(starts, window):
    """How many frames of a flow windows with these starts reach."""
    return max(end for _, end in starts.values()) - 1 + window


def shared_frames(splits):
    """How many frames of a source two of its Splits both hold: ``{("train", "valid"): 49, ...}``, those that do."""
    shared = {}
    for (a, first), (b, second) in itertools.combinations(splits.items(), 2):
        pairs = itertools.product(first.ranges, second.ranges)
        count = sum(max(0, min(end, stop) - max(begin, start)) for (begin, end), (start, stop) in pairs)
        if count:
            shared[a, b] = count
    return shared


def first_windows(segments, tiles, window, wanted=None):
    """The first ``wanted`` windows of a source, or all if there are fewer or it is None."""
    available = count_windows(segments, tiles, window, 0, 1)
    return cut(segments, tiles, window, 0, min(wanted or available, available))


def count_windows(segments, tiles, window, gap, parts):
    """Number of windows; InputError if they do not make ``parts`` splits with ``gap`` starts between them."""
    starts, needed = count_starts(segments, window), parts + (parts - 1) * gap
    if starts < needed:
        frames = [end - begin for begin, end in segments]
        raise InputError(
            f"found {sum(frames)} frames, at most {max(frames)} without a gap in time, wanted {window + needed - 1}: "
            f"{parts} split(s) of windows of {window}; give more frames or lower --history, --horizon or --gap"
        )
    return starts * tiles
