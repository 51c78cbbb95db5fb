"""Currents from the slope of the sea: the Coriolis force balances the pressure gradient.

    u = -g/f d(eta)/dy,    v = g/f d(eta)/dx,    f = 2 Omega sin(latitude)

on a sphere (Gill, Atmosphere-Ocean Dynamics, 1982). It holds away from the equator, over days and tens of kilometres;
eta is a sea level above the geoid, or its anomaly, whose currents are anomalies, too.
"""

import numpy as np

from utils import InputError

GRAVITY = 9.81  # m/s^2
OMEGA = 7.2921e-5  # of the earth, in radians per second
RADIUS = 6.371e6  # of the earth, in m
EQUATOR = 5.0  # degrees around it where f is too small


def geostrophic(height, latitude, longitude):
    """Geostrophic currents of the inner points, by central differences.

    No slope is taken on one side of a point only: along a coast u or v is missing, or both.

    Args:
        height: the sea level in m, ``(T, H, W)``, NaN on land; rows run north, columns east.
        latitude, longitude: of the rows and columns, in degrees.

    Returns:
        ``(T, 2, H - 2, W - 2)`` in m/s, NaN where the point has no value or a neighbour on either side has none.
    """
    rows, columns = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)
    factor = GRAVITY / (2 * OMEGA * np.sin(rows[1:-1]))
    north = RADIUS * (rows[2:] - rows[:-2])
    east = RADIUS * np.cos(rows[1:-1]) * (columns[2:] - columns[:-2])
    u = -factor * (height[:, 2:, 1:-1] - height[:, :-2, 1:-1]) / north
    v = factor * (height[:, 1:-1, 2:] - height[:, 1:-1, :-2]) / east
    return np.where(np.isnan(height[:, None, 1:-1, 1:-1]), np.nan, np.stack([u, v], 1))


def refuse_equator(latitude):
    """InputError if rows lie too near the equator, or are too few to have inner ones."""
    if len(latitude) < 3:
        raise InputError(f"{len(latitude)} rows of a sea level have no slope; wanted at least 3")
    near = latitude[np.abs(latitude) < EQUATOR]
    if near.size:
        raise InputError(
            f"the rows at {near[0]:g} to {near[-1]:g} are within {EQUATOR:g} degrees of the equator, where currents do "
            "not follow from the sea level; leave them out, as with --train_box"
        )
