"""Any fields of NetCDF files: a flow of known rotation in every arrangement, masks, gaps, real weather, refusals."""

import re
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from prepared import prepare, raw_windows, read_meta, refused

STORM = Path(__file__).parents[2] / "shared" / "data" / "weather_storm"
X, Y, T = np.arange(11) * 2.5 + 200, np.arange(7) * 1.25 + 20, np.arange(9) * 6
FIELDS = ["--fields", "u,v:vector", "t:scalar"]
SMALL = [*FIELDS, "--name", "storm", "--history", 2, "--horizon", 1, "--gap", 0]


def flow():
    """u, v and t ``(frames, 3, y, x)``: a solid body that turns faster and faster, warmer in the south."""
    t, y, x = np.meshgrid(T, Y, X, indexing="ij")
    rate = 1 + t / 24
    return np.stack([-rate * (y - 23), rate * (x - 210), 280 - y + 0.1 * x + t / 6], 1)


def write(path, frames=None, names=("u", "v", "t"), first=0, last=None, **changes):
    """Variables of some frames in one file; ``changes`` are made to how they are stored."""
    frames = flow() if frames is None else frames
    spec = {
        "dims": ("time", "lat", "lon"),
        "axes": {"time": T[first:last], "lat": Y, "lon": X},
        "units": {"lat": "degrees_north", "lon": "degrees_east"},
        "stored": lambda values: values,
        "dtype": "f8",
        "fill": -9999.0,
        "attributes": {},
        "calendar": "standard",
        **changes,
    }
    with netCDF4.Dataset(path, "w") as dataset:
        values = {name: spec["stored"](frames[first:last, "uvt".index(name)]) for name in names}
        for dimension, size in zip(spec["dims"], values[names[0]].shape, strict=True):
            dataset.createDimension(dimension, size)
        for name, axis in spec["axes"].items():
            variable = dataset.createVariable(name, "f8", (name,))
            variable[:] = axis
            if name in spec["units"]:
                variable.units, variable.calendar = spec["units"][name], spec["calendar"]
        for name in names:
            variable = dataset.createVariable(name, spec["dtype"], spec["dims"], fill_value=spec["fill"])
            variable.set_auto_maskandscale(False)
            variable.setncatts(spec["attributes"])
            variable[:] = np.where(np.isnan(values[name]), spec["fill"], values[name])
    return path


def windows():
    """All windows of the flow in the order of time."""
    return np.stack([flow()[start : start + 3] for start in range(len(T) - 2)])


def all_windows(folder):
    return np.concatenate([raw_windows(folder / "storm", split) for split in ("train", "valid", "test")])


ARRANGEMENTS = {
    "as CF has it": {},
    "latitude descending": {
        "axes": {"time": T, "lat": Y[::-1], "lon": X},
        "stored": lambda values: values[:, ::-1],
    },
    "longitude descending": {
        "axes": {"time": T, "lat": Y, "lon": X[::-1]},
        "stored": lambda values: values[:, :, ::-1],
    },
    "longitude first": {"dims": ("lon", "time", "lat"), "stored": lambda values: values.transpose(2, 0, 1)},
    "longitudes that jump": {"axes": {"time": T, "lat": Y, "lon": (X - 30 + 180) % 360 - 180}},
    "a level of one": {"dims": ("time", "level", "lat", "lon"), "stored": lambda values: values[:, None]},
    "a member of one": {
        "dims": ("member", "step", "lat", "lon"),
        "axes": {"step": T, "lat": Y, "lon": X},
        "stored": lambda values: values[None],
    },
    "half steps": {"axes": {"time": T / 12, "lat": Y, "lon": X}},
    "names only": {"dims": ("step", "y", "x"), "axes": {"step": T, "y": Y, "x": X}, "units": {}},
    "x first by name": {
        "dims": ("step", "x", "y"),
        "axes": {"step": T, "y": Y, "x": X},
        "units": {},
        "stored": lambda values: values.transpose(0, 2, 1),
    },
    "an index": {"dims": ("timestep", "south_north", "west_east"), "axes": {"timestep": T}},
    "no coordinates": {"dims": ("a", "b", "c"), "axes": {}},
    "packed": {
        "dtype": "i2",
        "fill": -32767,
        "attributes": {"scale_factor": 0.01, "add_offset": 200.0},
        "stored": lambda values: np.rint((values - 200) * 100),
    },
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_every_arrangement_is_the_same_flow(name, tmp_path):
    changes = ARRANGEMENTS[name]
    assert prepare("netcdf", "--raw", write(tmp_path / "a.nc", **changes), *SMALL, "--data_dir", tmp_path) == 0
    np.testing.assert_allclose(all_windows(tmp_path), windows(), atol=6e-3 if name == "packed" else 1e-4)
    meta = read_meta(tmp_path / "storm")
    assert (meta["fields"], meta["tile"]) == (["vector", "scalar"], [7, 11])
    known = "axes" not in changes or {"y", "lat"} & set(changes["axes"])
    assert meta.get("spacing") == ([1.25, 2.5] if known else None)
    assert meta["time_step"] == {"no coordinates": 1, "half steps": 0.5}.get(name, 6)


def packed(dataset, name, axes, values, step, offset, **attributes):
    """A variable of 16 bits, of a depth of one if it has four axes."""
    variable = dataset.createVariable(name, "i2", axes, fill_value=-32767)
    variable.set_auto_maskandscale(False)
    variable.setncatts({"scale_factor": step, "add_offset": offset, **attributes})
    stored = np.where(np.isnan(values), -32767, np.rint((values - offset) / step))
    variable[:] = stored[:, None] if len(axes) == 4 else stored


@pytest.mark.parametrize(
    ("temperature", "axes", "raw"),
    [
        ("thetao", ("time", "depth", "latitude", "longitude"), {"offset": 21.0, "units": "degrees_C"}),
        ("analysed_sst", ("time", "latitude", "longitude"), {"offset": 273.15, "units": "kelvin"}),
    ],
)
def test_temperatures_of_the_sea(temperature, axes, raw, tmp_path):
    """As the analyses of Copernicus (thetao) and GHRSST (analysed_sst) store them, beside currents in another file."""
    frames, offset = flow(), raw["offset"]
    frames[:, 2] += offset - 270
    frames[:, :, 0, 0] = np.nan
    for file, names in (("currents.nc", ("uo", "vo")), ("temperature.nc", (temperature,))):
        with netCDF4.Dataset(tmp_path / file, "w") as dataset:
            for name, values, units in (
                ("time", T, "hours since 1981-01-01 00:00:00"),
                ("latitude", Y, "degrees_north"),
                ("longitude", X, "degrees_east"),
                ("depth", [0.494], "m"),
            ):
                dataset.createDimension(name, len(values))
                dataset.createVariable(name, "f8", (name,))[:] = values
                dataset[name].units = units
            for name in names:
                if name in ("uo", "vo"):
                    packed(dataset, name, axes, frames[:, "uv".index(name[0])], 0.01, 0.0, units="m s-1")
                else:
                    packed(dataset, name, axes, frames[:, 2], 0.01, offset, units=raw["units"])
    fields = ["--fields", "uo,vo:vector", f"{temperature}:scalar", "--name", "sea"]
    small = ["--history", 2, "--horizon", 1, "--gap", 0, "--data_dir", tmp_path]
    files = [tmp_path / "temperature.nc", tmp_path / "currents.nc"]
    assert prepare("netcdf", "--raw", *files, *fields, *small) == 0
    found = np.concatenate([raw_windows(tmp_path / "sea", split) for split in ("train", "valid", "test")])
    expected = np.stack([frames[start : start + 3] for start in range(len(T) - 2)])
    mask = np.load(tmp_path / "sea" / "train_mask.npy")[0]
    assert not mask[0, 0]
    assert mask.sum() == mask.size - 1
    np.testing.assert_allclose(found[..., mask], expected[..., mask], atol=6e-3)
    meta = read_meta(tmp_path / "sea")
    assert (meta["fields"], meta["time_step"]) == (["vector", "scalar"], 6 * 3600)


def test_rotation_of_what_was_prepared(tmp_path):
    """v grows eastwards, u falls northwards; both at the rate of the frame."""
    assert prepare("netcdf", "--raw", write(tmp_path / "a.nc"), *SMALL, "--data_dir", tmp_path) == 0
    dy, dx = read_meta(tmp_path / "storm")["spacing"]
    u, v, _ = np.moveaxis(all_windows(tmp_path)[:, 0], 1, 0)
    rate = np.broadcast_to((1 + T[:7] / 24)[:, None, None], (7, 6, 10))
    np.testing.assert_allclose(-np.diff(u, axis=1)[:, :, 1:] / dy, rate, atol=1e-4)
    np.testing.assert_allclose(np.diff(v, axis=2)[:, 1:] / dx, rate, atol=1e-4)


def test_variables_and_times_in_any_files(tmp_path):
    paths = [
        write(tmp_path / "z.nc", names=("u", "t"), last=4),
        write(tmp_path / "v.nc", names=("v",)),
        write(tmp_path / "a.nc", names=("u", "t"), first=4),
    ]
    assert prepare("netcdf", "--raw", *paths, *SMALL, "--data_dir", tmp_path) == 0
    np.testing.assert_allclose(all_windows(tmp_path), windows(), atol=1e-4)
    assert read_meta(tmp_path / "storm")["source"]["train"] == ["a.nc", "v.nc", "z.nc"]


def test_dates_and_gaps(tmp_path):
    times = np.array([0, 6, 12, 18, 48, 54, 60, 66, 72])
    units = {"time": "hours since 1996-01-05", "lat": "degrees_north", "lon": "degrees_east"}
    path = write(tmp_path / "a.nc", axes={"time": times, "lat": Y, "lon": X}, units=units)
    assert prepare("netcdf", "--raw", path, *SMALL, "--data_dir", tmp_path) == 0
    meta = read_meta(tmp_path / "storm")
    assert meta["time_step"] == 6 * 3600
    assert meta["splits"]["train"]["begin"] == "1996-01-05"
    assert meta["splits"]["test"]["end"] == "1996-01-08"
    np.testing.assert_allclose(all_windows(tmp_path), windows()[[0, 1, 4, 5, 6]], atol=1e-4)


def test_what_is_missing(tmp_path, capsys):
    """A fixed border and a single hole are masked in all frames; a frame without any v is a gap in time."""
    frames = flow()
    frames[:, :, :, 0] = np.nan
    frames[3, 2, 5, 6] = np.nan
    frames[5, 1] = np.nan
    assert prepare("netcdf", "--raw", write(tmp_path / "a.nc", frames), *SMALL, "--data_dir", tmp_path) == 0
    out = capsys.readouterr().out
    assert "masked: 9.1% of the points are missing in all frames, 10.4% in some" in out  # 7 and 8 of 77
    assert "missing frames: 1 without a value, 0 gaps in time" in out
    mask = np.ones((7, 11), bool)
    mask[:, 0], mask[5, 6] = False, False
    np.testing.assert_array_equal(np.load(tmp_path / "storm" / "train_mask.npy"), mask[None])
    found = all_windows(tmp_path)
    assert len(found) == 4  # 0, 1, 2, and 6 after the gap
    np.testing.assert_allclose(found[..., mask], windows()[[0, 1, 2, 6]][..., mask], atol=1e-4)
    assert not np.load(tmp_path / "storm" / "test.npy")[..., ~mask].any()


def test_tiles_with_little_masked(tmp_path, capsys):
    frames = flow()
    frames[:, :, 0, 0] = np.nan
    command = ["netcdf", "--raw", write(tmp_path / "a.nc", frames), *SMALL, "--tile", 4, "--data_dir", tmp_path]
    assert prepare(*command) == 0
    assert (
        "tiles of 4 x 4: 1 kept, 1 dropped with land above 0; left over: 3 rows and 3 columns"
        in capsys.readouterr().out
    )
    assert prepare(*command, "--max_land", 0.2) == 0
    assert "2 kept" in capsys.readouterr().out


def test_blocks_of_time_do_not_show(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 1)
    frames = flow()
    frames[5, 1] = np.nan
    paths = [write(tmp_path / "a.nc", frames, last=4), write(tmp_path / "b.nc", frames, first=4)]
    assert prepare("netcdf", "--raw", *paths, *SMALL, "--data_dir", tmp_path) == 0
    np.testing.assert_allclose(all_windows(tmp_path), windows()[[0, 1, 2, 6]], atol=1e-4)


@pytest.mark.skipif(not STORM.exists(), reason="no ../shared")
def test_a_real_storm(tmp_path, capsys):
    """Wind and temperature in three files; v lacks the frames 17 and 37, t the frame 17; a border is never there."""
    paths = [STORM / f"{name}storm.cdf" for name in "TVU"]
    command = ["--name", "storm", "--history", 6, "--horizon", 4, "--gap", 0]
    assert prepare("netcdf", "--raw", *paths, *FIELDS, *command, "--data_dir", tmp_path) == 0
    out = capsys.readouterr().out
    assert "masked: 18.9% of the points are missing in all frames, 18.9% in some" in out
    assert "missing frames: 2 without a value" in out
    meta = read_meta(tmp_path / "storm")
    assert (meta["spacing"], meta["time_step"], meta["tile"]) == ([1.25, 2.5], 6, [33, 36])
    raw = {}
    for name in "uvt":
        with netCDF4.Dataset(STORM / f"{name.upper()}storm.cdf") as dataset:
            assert np.all(np.diff(dataset["lat"][:]) > 0)
            raw[name] = dataset[name][:].filled(np.nan)
    raw = np.stack([raw[name] for name in "uvt"], 1)
    starts = [*range(8), *range(18, 28), *range(38, 55)]  # 10 frames of 0-16, 18-36, 38-63
    expected = np.stack([raw[start : start + 10] for start in starts])
    mask = np.load(tmp_path / "storm" / "train_mask.npy")[0]
    assert mask.mean() == pytest.approx(1 - 0.18855, abs=1e-5)
    np.testing.assert_allclose(all_windows(tmp_path)[..., mask], expected[..., mask], rtol=1e-5, atol=1e-4)
    # the wind of the middle latitudes is from the west, and it is colder in the north
    wind, temperature = expected[..., mask].mean((0, 1, 3))[0], np.nanmean(expected[:, :, 2], (0, 1, 3))
    assert wind > 1
    assert temperature[0] - temperature[-1] > 20


# ---------------------------------------------------------------- refusals


def infinite():
    frames = flow()
    frames[4, 1, 3, 2] = np.inf
    return frames


def all_missing():
    frames = flow()
    frames[:, 1] = np.nan
    return frames


def cut_short(path):
    write(path)
    path.write_bytes(path.read_bytes()[:-3000])


BAD_FILES = {
    "nothing": (lambda path: None, "is not there"),
    "text": (lambda path: path.write_text("u v t"), "is no readable NetCDF file"),
    "truncated": (cut_short, "is no readable NetCDF file"),
    "no v": (lambda path: write(path, names=("u", "t")), "no file has a variable v; there are lat, lon, t, time, u"),
    "no points": (
        lambda path: write(path, axes={"time": T, "lat": Y, "lon": X[:0]}, stored=lambda values: values[..., :0]),
        "has no points: its grid is 7 x 0",
    ),
    "no frames": (lambda path: write(path, first=9), "no frames"),
    "two axes": (
        lambda path: write(path, dims=("lat", "lon"), axes={"lat": Y, "lon": X}, stored=lambda values: values[0]),
        "has the axes lat, lon, wanted time, y and x",
    ),
    "several levels": (
        lambda path: write(
            path, dims=("time", "level", "lat", "lon"), stored=lambda values: values[:, None].repeat(3, 1)
        ),
        "has 3 entries along level besides time, y and x",
    ),
    "depth for time": (
        lambda path: write(path, dims=("depth", "lat", "lon"), axes={"depth": T, "lat": Y, "lon": X}),
        "has the axes depth, lat, lon, wanted time, y and x",
    ),
    "times that descend": (
        lambda path: write(path, axes={"time": T[::-1], "lat": Y, "lon": X}),
        "times of [uvt] do not ascend",
    ),
    "a time of NaN": (
        lambda path: write(path, axes={"time": np.where(T == 12, np.nan, T), "lat": Y, "lon": X}),
        "times of [uvt] do not ascend",
    ),
    "a grid that turns back": (
        lambda path: write(path, axes={"time": T, "lat": np.abs(Y - 24), "lon": X}),
        "lat is not monotonic",
    ),
    "an infinite value": (lambda path: write(path, infinite()), "v has an infinite value"),
    "no value of v": (lambda path: write(path, all_missing()), "no point has u, v, t in all frames"),
    "words": (
        lambda path: write(path, axes={"time": T, "lat": Y, "lon": X}, units={"time": "weeks since the war"}),
        "is no date",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case, tmp_path, capsys):
    create, message = BAD_FILES[case]
    create(tmp_path / "a.nc")
    line = refused(capsys, tmp_path, "netcdf", "--raw", tmp_path / "a.nc", *SMALL)
    assert re.search(message, line)


def test_files_that_do_not_go_together(tmp_path, capsys):
    first = write(tmp_path / "a.nc", last=5)
    again = write(tmp_path / "b.nc", first=4)
    other = write(tmp_path / "c.nc", first=5, axes={"time": T[5:], "lat": Y + 1, "lon": X})
    late = write(tmp_path / "d.nc", names=("t",), axes={"time": T + 6, "lat": Y, "lon": X})
    motion = write(tmp_path / "e.nc", names=("u", "v"))
    dates = {"time": "hours since 1996-01-05"}
    leap, noleap = (
        write(tmp_path / f"{calendar}.nc", first=first, last=last, units=dates, calendar=calendar)
        for calendar, first, last in (("standard", 0, 5), ("noleap", 5, 9))
    )
    undated = [write(tmp_path / f"{name}.nc", axes={}, last=5) for name in "fg"]
    for paths, message in (
        ((first, again), "both hold [uvt] of one time"),
        ((first, other), "have different grids"),
        ((leap, noleap), "have different grids or calendars"),
        ((motion, late), "t and u have different grids or times"),
        (undated, "do not say when theirs is"),
    ):
        assert re.search(message, refused(capsys, tmp_path, "netcdf", "--raw", *paths, *SMALL))


@pytest.mark.parametrize("word", ["u:vector", "u,v:scalar", "u,v", "u,v:tensor", ":scalar", "u,:vector"])
def test_fields_that_are_none(word, tmp_path, capsys):
    line = refused(capsys, tmp_path, "netcdf", "--raw", "a.nc", "--name", "storm", "--fields", word)
    assert f"{word!r} is not like u,v:vector or t:scalar" in line
