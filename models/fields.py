"""Fields: what data and features are made of, and how many numbers each has at a point.

Data say which fields they hold, in the order of their components: ``("vector",)`` is a velocity, C = 2 components;
``("scalar",)`` a temperature, C = 1; ``("vector", "scalar")`` convection with its temperature, C = 3. Every action
moves vectors and scalars as they must be moved, and every net forecasts all of them.
"""

from itertools import accumulate
from typing import NamedTuple

SIZES = {"vector": 2, "scalar": 1}


class Features(NamedTuple):
    """What a layer reads or writes: ``channels`` fields of one ``kind``, such as "regular" for rotation."""

    kind: str
    channels: int


def check(fields):
    """The fields as a tuple.

    Raises:
        ValueError: no field, or one of another kind than ``SIZES``.
    """
    fields = tuple(fields)
    if not fields or not set(fields) <= SIZES.keys():
        raise ValueError(f"fields must be some of {', '.join(SIZES)}, got {', '.join(map(str, fields)) or 'none'}")
    return fields


def components(fields):
    """Number of components C of all fields together."""
    return sum(SIZES[kind] for kind in fields)


def parts(fields):
    """The components of every field, as slices of the component axis."""
    ends = list(accumulate(SIZES[kind] for kind in fields))
    return [slice(end - SIZES[kind], end) for kind, end in zip(fields, ends, strict=True)]


def energetic(fields):
    """The components whose energy a spectrum shows: those of the vectors, or all where there is none."""
    kinds = of_component(fields, fields)
    return [i for i, kind in enumerate(kinds) if kind == "vector" or "vector" not in kinds]


def of_component(fields, values):
    """One of ``values``, which belong to the fields, for every component."""
    return [value for kind, value in zip(fields, values, strict=True) for _ in range(SIZES[kind])]
