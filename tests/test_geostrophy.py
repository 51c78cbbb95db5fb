"""Currents from the sea level: slopes and eddies with known answers, coasts, the equator, a real sea."""

import re
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from prepared import prepare, raw_windows, read_meta, refused

from flows.currents import describe_file
from flows.geostrophy import geostrophic

SEA = Path(__file__).parents[2] / "shared" / "data" / "sealevel_mediterranean"
G, OMEGA, METRES = 9.81, 7.2921e-5, 6.371e6 * np.pi / 180  # the last of a degree of latitude
LATITUDE, LONGITUDE = 36 + 0.25 * np.arange(9), 10 + 0.5 * np.arange(13)  # unequal, and so are their steps
SMALL = ["--tile", 7, "--history", 2, "--horizon", 1, "--gap", 0]


def coriolis(latitude):
    return 2 * OMEGA * np.sin(np.deg2rad(latitude))


def slopes():
    """eta = .02 (latitude - 36) + .01 (longitude - 10) and t times as much in frame t: ``(6, 9, 13)``."""
    east, north = np.meshgrid(LONGITUDE - 10, LATITUDE - 36)
    return np.arange(1, 7)[:, None, None] * (0.02 * north + 0.01 * east)


def currents():
    """Of these slopes, in the inner points ``(6, 2, 7, 11)``; central differences are exact."""
    latitude = LATITUDE[1:-1, None] + 0 * LONGITUDE[1:-1]
    u = -G / coriolis(latitude) * 0.02 / METRES
    v = G / coriolis(latitude) * 0.01 / (METRES * np.cos(np.deg2rad(latitude)))
    return np.arange(1, 7)[:, None, None, None] * np.stack([u, v])


def write(path, height, latitude=LATITUDE, longitude=LONGITUDE, name="adt", unit="m", more=()):
    """A file of sea levels in m, NaN on land, and ``more`` variables like it: (name, values, attributes)."""
    with netCDF4.Dataset(path, "w") as dataset:
        coordinates = {"time": np.arange(len(height)), "latitude": latitude, "longitude": longitude}
        units = {"time": "days since 2005-04-01", "latitude": "degrees_north", "longitude": "degrees_east"}
        for dimension, values in coordinates.items():
            dataset.createDimension(dimension, len(values))
            variable = dataset.createVariable(dimension, "f8", (dimension,))
            variable[:], variable.units = values, units[dimension]
        for other, values, attributes in ((name, height * (100 if unit == "cm" else 1), {"units": unit}), *more):
            variable = dataset.createVariable(other, "f8", tuple(coordinates), fill_value=-32767)
            variable[:] = np.where(np.isnan(values), -32767, values)
            variable.setncatts(attributes)
    return path


@pytest.mark.parametrize(
    ("name", "unit", "turned"),
    [("adt", "m", False), ("sla", "cm", False), ("zos", "meters", True), ("SSH", "m", False)],
)
def test_currents_of_a_slope(name, unit, turned, tmp_path, capsys):
    """Absolute values in m/s; rows and columns that descend in the file are those of the currents all the same."""
    height, latitude, longitude = slopes(), LATITUDE, LONGITUDE
    if turned:
        height, latitude, longitude = height[:, ::-1, ::-1], LATITUDE[::-1], LONGITUDE[::-1]
    path = write(tmp_path / "a.nc", height, latitude, longitude, name, unit)
    assert prepare("ocean", "--train", path, *SMALL, "--data_dir", tmp_path) == 0
    out = capsys.readouterr().out
    assert f"no currents in the files: geostrophic ones, from the slope of {name}" in out
    assert "region(s) of 7 x 11 points" in out
    assert "tiles of 7 x 7: 1 kept" in out
    assert read_meta(tmp_path / "ocean")["units"] == "m/s"
    found = np.concatenate([raw_windows(tmp_path / "ocean", split) for split in ("train", "valid", "test")])
    expected = np.stack([currents()[start : start + 3, :, :, :7] for start in range(4)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected[0, 0, 0, 0, 0] == pytest.approx(-0.020461, abs=1e-6)
    assert expected[0, 0, 1, 0, 0] == pytest.approx(0.012686, abs=1e-6)


@pytest.mark.parametrize("south", [False, True])
def test_an_eddy(south):
    """A hill of Gaussian shape: clockwise in the north, against the clock in the south, as fast as theory has it."""
    latitude, longitude = 40 + 0.02 * np.arange(-60, 61), 5 + 0.03 * np.arange(-70, 71)
    if south:
        latitude = -latitude[::-1]
    centre = -40 if south else 40
    east, north = np.meshgrid(longitude - 5, latitude - centre)
    height = 0.3 * np.exp(-(north**2 + east**2) / (2 * 0.4**2))
    u, v = geostrophic(height[None], latitude, longitude)[0]
    inner = (slice(1, -1), slice(1, -1))
    f = coriolis(latitude)[1:-1, None]
    slope = height[inner] / 0.4**2 / METRES
    along_row = METRES * np.cos(np.deg2rad(latitude))[1:-1, None] / METRES
    np.testing.assert_allclose(u, G / f * slope * north[inner], atol=2e-3)
    np.testing.assert_allclose(v, -G / f * slope * east[inner] / along_row, atol=2e-3)
    assert np.abs(u).max() == pytest.approx(0.43, abs=0.01)  # m/s
    rotation = (v * east[inner] * along_row - u * north[inner]).sum()
    assert (rotation > 0) == south


def test_no_slope_is_taken_on_one_side_of_a_coast():
    height = slopes()
    height[:, 4, 6] = np.nan
    found = geostrophic(height, LATITUDE, LONGITUDE)
    missing = np.zeros((2, 7, 11), bool)
    missing[0, [2, 3, 4], 5] = True  # the point, and those south and north of it
    missing[1, 3, [4, 5, 6]] = True  # the point, and those west and east of it
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(missing, found.shape))
    np.testing.assert_allclose(found[:, ~missing], currents()[:, ~missing], rtol=1e-9)


def test_land_is_where_u_or_v_is_missing(tmp_path):
    height = slopes()
    height[:, 4, 6] = np.nan
    command = ["ocean", "--train", write(tmp_path / "a.nc", height), *SMALL, "--max_land", 0.3]
    assert prepare(*command, "--data_dir", tmp_path) == 0
    mask = np.ones((7, 7), bool)
    mask[[2, 3, 4, 3, 3], [5, 5, 5, 4, 6]] = False
    np.testing.assert_array_equal(np.load(tmp_path / "ocean" / "train_mask.npy"), mask[None])


def test_stored_currents_are_taken_before_sea_levels(tmp_path, capsys):
    u = 0 * slopes() + np.arange(6)[:, None, None] / 10 + 0.1
    more = (("ugos", u, {"units": "m/s"}), ("vgos", -u, {"units": "m/s"}))
    path = write(tmp_path / "a.nc", slopes(), more=more)
    assert prepare("ocean", "--train", path, *SMALL, "--data_dir", tmp_path) == 0
    assert "geostrophic" not in capsys.readouterr().out
    train = raw_windows(tmp_path / "ocean", "train")
    np.testing.assert_allclose(train[0, 1], np.stack([u[1, :7, :7], -u[1, :7, :7]]), rtol=1e-5)
    assert read_meta(tmp_path / "ocean")["splits"]["train"]["shape"][-2:] == [7, 7]


def test_of_two_sea_levels_that_above_the_geoid(tmp_path, capsys):
    path = write(tmp_path / "a.nc", 2 * slopes(), name="sla", more=(("adt", slopes(), {"units": "m"}),))
    assert prepare("ocean", "--train", path, *SMALL, "--data_dir", tmp_path) == 0
    assert "from the slope of adt" in capsys.readouterr().out
    np.testing.assert_allclose(raw_windows(tmp_path / "ocean", "train")[0, 0], currents()[0, :, :, :7], rtol=1e-5)


def test_a_box_of_a_sea_level(tmp_path):
    """The currents are those of the box's inner points."""
    path = write(tmp_path / "a.nc", slopes())
    command = ["ocean", "--train", path, *SMALL, "--tile", 4, "--train_box", 11, 13.5, 36.5, 37.75]
    assert prepare(*command, "--data_dir", tmp_path) == 0
    found = raw_windows(tmp_path / "ocean", "train")[0, 0]
    np.testing.assert_allclose(found, currents()[0, :, 2:6, 2:6], rtol=1e-5)


def test_the_southern_hemisphere_is_no_equator(tmp_path):
    path = write(tmp_path / "a.nc", slopes(), latitude=LATITUDE - 76)
    assert prepare("ocean", "--train", path, *SMALL, "--data_dir", tmp_path) == 0
    file = describe_file(path)
    np.testing.assert_allclose(file.latitude, LATITUDE[1:-1] - 76)
    np.testing.assert_allclose(file.longitude, LONGITUDE[1:-1])


def speedy():
    height = slopes()
    height[3, 4, 6] = 9e3
    return height


REFUSALS = {
    "the equator": ({"latitude": LATITUDE - 36}, "rows at 0.25 to 1.75 are within 5 degrees of the equator"),
    "across the equator": ({"latitude": LATITUDE - 41}, "rows at -4.75 to -3.25 are within 5 degrees"),
    "another unit": ({"unit": "dbar"}, "adt is in 'dbar', wanted m or cm"),
    "half a pair": ({"more": (("uo", slopes(), {"units": "m/s"}),)}, "uo without vo"),
    "half a pair by its standard name": (
        {"more": (("x", slopes(), {"standard_name": "eastward_sea_water_velocity"}),)},
        "x without its other component",
    ),
    "no sea level": ({"name": "depth_of_the_sea"}, "no eastward and northward current by its names"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, tmp_path, capsys):
    changes, message = REFUSALS[case]
    path = write(tmp_path / "a.nc", slopes(), **changes)
    assert re.search(message, refused(capsys, tmp_path, "ocean", "--train", path, *SMALL))


def test_other_refusals(tmp_path, capsys):
    path = write(tmp_path / "a.nc", speedy())
    assert "wanted at most 20" in refused(capsys, tmp_path, "ocean", "--train", path, *SMALL)
    path = write(tmp_path / "a.nc", slopes()[:, :2], LATITUDE[:2])
    assert "0 rows of a sea level have no slope" in refused(capsys, tmp_path, "ocean", "--train", path, *SMALL)
    paths = [write(tmp_path / "a.nc", slopes()), write(tmp_path / "b.nc", slopes(), LATITUDE + 10, name="sla")]
    line = refused(capsys, tmp_path, "ocean", "--train", *paths, *SMALL)
    assert "hold different things, adt and sla" in line


@pytest.mark.skipif(not SEA.exists(), reason="no ../shared")
def test_a_real_sea(tmp_path, capsys):
    """Of each component alone the numbers of a direct calculation; both are there at a few points less."""
    path = SEA / "dt_med_allsat_phy_l4_2005T2.nc"
    with netCDF4.Dataset(path) as dataset:
        height, latitude, longitude = (dataset[name][:].filled(np.nan) for name in ("adt", "latitude", "longitude"))
    found = geostrophic(np.asarray(height, np.float64), *(np.asarray(a, np.float64) for a in (latitude, longitude)))
    std = np.nanstd(found, axis=(0, 2, 3))
    assert [f"{number:.3f}" for number in (*std, np.nanmax(np.abs(found)))] == ["0.106", "0.099", "0.812"]
    command = ["--tile", 16, "--max_land", 0.2, "--history", 10, "--horizon", 5, "--data_dir", tmp_path]
    assert prepare("ocean", "--train", path, *command) == 0
    out = capsys.readouterr().out
    assert "1 region(s) of 126 x 342 points, 91 common frames" in out
    assert "tiles of 16 x 16: 38 kept" in out
    divergence, reversed_rows = read_meta(tmp_path / "ocean")["orientation"].values()
    assert divergence < 0.15 * reversed_rows
