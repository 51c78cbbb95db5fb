"""The NetCDF reader: real files against a direct read, one field in every encoding, gaps, regions, refusals."""

import contextlib
import re
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from prepared import digest, prepare, read_meta, read_windows, refused, vortices

from flows.classic import refuse_damaged_classic
from flows.currents import SPEED_UNITS, read_stored, unit_of
from flows.netcdf import fill_values
from flows.ocean import ocean_source, open_record, unbroken
from utils import InputError

OCEAN = Path(__file__).parents[2] / "shared" / "data" / "ocean"
needs_ocean = pytest.mark.skipif(not OCEAN.exists(), reason="no ../shared")
SMALL = ["--history", 3, "--horizon", 2, "--tile", 8, "--gap", 0, "--max_land", 0.3]
GRID = ("time", "latitude", "longitude")
CURRENTS = ("eastward_sea_water_velocity", "northward_sea_water_velocity")


def write(path, field, **changes):
    """Write ``(T, 2, H, W)`` currents, NaN on land, as a CMEMS-like file; ``changes`` make it another kind of file.

    Args:
        times, latitude, longitude, depth: coordinates; None leaves the coordinate variable out.
        time_units, calendar: of the times.
        names, standard_names, long_names, units: of u and v.
        dimensions: of u and v, with ``depth`` and ``extra`` (of ``extra`` entries) if wanted.
        dtype, fill, missing, attributes: how values are stored; ``fill`` "undeclared" writes -999 and does not say so.
        pack, offset: scale factor and offset of packed values; -1 of ``unsigned`` integers is their largest.
        format, unlimited, chunks: of the file, its time and its currents.
    """
    frames, _, height, width = field.shape
    spec = {
        "times": np.arange(frames),
        "latitude": np.arange(height) - 40.0,
        "longitude": np.arange(width) + 10.0,
        "depth": [0.5],
        "time_units": "days since 2002-01-01",
        "calendar": "standard",
        "names": ("uo", "vo"),
        "standard_names": CURRENTS,
        "long_names": ("", ""),
        "units": "m s-1",
        "dimensions": GRID,
        "extra": 1,
        "dtype": "f8",
        "fill": np.nan,
        "missing": None,
        "attributes": {},
        "pack": None,
        "offset": 0,
        "unsigned": False,
        "unlimited": False,
        "chunks": None,
        "surface": 0,
        "format": "NETCDF4",
        **changes,
    }
    sizes = {
        "time": frames,
        "latitude": height,
        "longitude": width,
        "depth": len(spec["depth"]),
        "extra": spec["extra"],
    }
    units = {"time": spec["time_units"], "latitude": "degrees_north", "longitude": "degrees_east", "depth": "m"}
    with netCDF4.Dataset(path, "w", format=spec["format"]) as dataset:
        for name, size in sizes.items():
            dataset.createDimension(name, None if name == "time" and spec["unlimited"] else size)
        for name in units:
            values = spec["times" if name == "time" else name]
            if values is not None:
                variable = dataset.createVariable(name, "f8", (name,))
                variable[:] = values
                variable.units = units[name]
        if spec["times"] is not None:
            dataset["time"].calendar = spec["calendar"]
        for component, name in enumerate(spec["names"]):
            write_component(dataset, name, component % 2, field, spec)
    return path


def write_component(dataset, name, component, field, spec):
    fill = None if spec["fill"] == "undeclared" or spec["missing"] is not None else spec["fill"]
    chunks = {"chunksizes": spec["chunks"]} if spec["chunks"] else {}
    variable = dataset.createVariable(name, spec["dtype"], spec["dimensions"], fill_value=fill, **chunks)
    variable.set_auto_maskandscale(False)
    labels = {"standard_name": spec["standard_names"], "long_name": spec["long_names"], "units": [spec["units"]] * 2}
    variable.setncatts({key: texts[component] for key, texts in labels.items() if texts[component]})
    variable.setncatts(spec["attributes"])
    values = field[:, component] * (100 if spec["units"] == "cm/s" else 1)
    if spec["pack"]:
        variable.setncatts({"scale_factor": spec["pack"], "add_offset": spec["offset"]})
        values = np.rint((values - spec["offset"]) / spec["pack"])
    if spec["unsigned"]:
        variable.setncattr("_Unsigned", "true")
        values = np.where(values < 2**15, values, values - 2**16)
    hole = -999 if spec["fill"] == "undeclared" else spec["fill"]
    if spec["missing"] is not None:
        variable.missing_value = np.array(spec["missing"], spec["dtype"])
        hole = np.max(spec["missing"])
    values = np.where(np.isnan(values), hole, values)
    values = values[tuple(slice(None) if dimension in spec["dimensions"] else 0 for dimension in GRID)]
    stored = [dimension for dimension in spec["dimensions"] if dimension in GRID]
    values = values.transpose([sorted(stored, key=GRID.index).index(dimension) for dimension in stored])
    index = [slice(None) if dimension in GRID else 0 for dimension in spec["dimensions"]]
    if "depth" in spec["dimensions"]:
        variable[:] = 77  # at the other depths
        index[spec["dimensions"].index("depth")] = spec["surface"]
    variable[tuple(index)] = values


def quantise(field):
    """To multiples of 2^-10 m/s, which int16 and float32 hold exactly, also in cm/s."""
    return np.rint(field * 1024) / 1024


@pytest.fixture(scope="module", params=["vortices", "agulhas"])
def field(request):
    """12 frames of 17 x 26 points with a coast."""
    if request.param == "vortices":
        flow = quantise(vortices(17, 26).astype(np.float64))
        flow[:, :, 12:, 3:7] = np.nan
        return flow
    if not OCEAN.exists():
        pytest.skip("no ../shared")
    files = sorted((OCEAN / "globcurrent_agulhas").glob("*.nc"))[:12]
    return quantise(np.stack([direct_read(file)[0] for file in files])[:, :, 12:29, 10:36])


@pytest.fixture(scope="module")
def reference(field, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    assert prepare("ocean", "--train", write(folder / "a.nc", field), "--data_dir", folder, *SMALL) == 0
    return folder / "ocean"


def direct_read(path):
    """Independent read of the surface, ``(T, 2, H, W)`` float64 with NaN, rows as in the file."""
    with netCDF4.Dataset(path) as dataset:
        names = [
            name for name in dataset.variables if name in ("uo", "vo") or name.endswith("eulerian_current_velocity")
        ]
        components = [np.ma.filled(dataset[name][:].astype(np.float64), np.nan) for name in names]
    return np.stack([c[:, 0] if c.ndim == 4 else c for c in components], 1)


def assert_same(reference, tmp_path, *files, flags=()):
    """Preparing ``files`` gives the arrays and the splits of the reference."""
    assert prepare("ocean", "--train", *files, "--data_dir", tmp_path, *SMALL, *flags) == 0
    folder = tmp_path / "ocean"
    for file in reference.glob("*.np?"):
        np.testing.assert_array_equal(*(content(folder / file.name) for folder in (folder, reference)))
    keys = ("splits", "mean", "std", "time_step", "orientation", "units")
    assert [read_meta(folder)[key] for key in keys] == [read_meta(reference)[key] for key in keys]


def content(file):
    loaded = np.load(file)
    return loaded["elements"] if file.suffix == ".npz" else loaded


# ---------------------------------------------------------------- one field, many encodings

ENCODINGS = {
    "int16": {"dtype": "i2", "pack": 2.0**-10, "fill": -32768},
    "int16 with packed valid range": {
        "dtype": "i2", "pack": 2.0**-10, "fill": -32768, "attributes": {"valid_min": -5.0, "valid_max": 5.0},
    },
    "int16 meant to be unsigned": {
        "dtype": "i2", "pack": 2.0**-10, "offset": -32.0, "unsigned": True, "fill": -1, "format": "NETCDF3_CLASSIC",
    },
    "int16 without a declared fill": {"dtype": "i2", "pack": 2.0**-10, "missing": -32767},
    "float32": {"dtype": "f4"},
    "default fill": {"dtype": "f4", "fill": netCDF4.default_fillvals["f4"]},
    "-999": {"dtype": "f4", "fill": -999.0},
    "missing_value 1e20": {"dtype": "f4", "missing": 1e20},
    "two missing values": {"dtype": "f4", "missing": [-999.0, 1e20]},
    "cm/s": {"units": "cm/s", "dtype": "f4"},
    "no units": {"units": ""},
    "spelling of units": {"units": "meters second-1"},
    "depth of one": {"dimensions": ("time", "depth", "latitude", "longitude")},
    "many depths": {"dimensions": ("time", "depth", "latitude", "longitude"), "depth": [90, 40, 0.5, 20], "surface": 2},
    "negative depths": {"dimensions": ("depth", "time", "latitude", "longitude"), "depth": [-50, -1], "surface": 1},
    "dimension of one": {"dimensions": ("extra", "time", "latitude", "longitude")},
    "order of dimensions": {"dimensions": ("longitude", "time", "latitude")},
    "hours in another calendar": {
        "times": 24 * np.arange(12) + 1e-5, "time_units": "hours since 2002-01-01", "calendar": "proleptic_gregorian",
    },
    "classic": {"format": "NETCDF3_CLASSIC"},
    "64 bit offset": {"format": "NETCDF3_64BIT_OFFSET"},
    "64 bit data, unlimited": {"format": "NETCDF3_64BIT_DATA", "unlimited": True},
    "known names": {"names": ("water_u", "water_v"), "standard_names": ("", "")},
    "capital names": {"names": ("U", "V"), "standard_names": ("", "")},
    "GlobCurrent names": {
        "names": ("eastward_eulerian_current_velocity", "northward_eulerian_current_velocity"),
        "standard_names": ("", ""),
    },
    "geostrophic": {
        "names": ("a", "b"), "standard_names": [f"surface_geostrophic_{name}" for name in CURRENTS],
    },
    "longitudes up to 360": {"longitude": np.arange(26) + 370.0},
}  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encoding(encoding, field, reference, tmp_path):
    file = write(tmp_path / "a.nc", field, **ENCODINGS[encoding])
    assert_same(reference, tmp_path, file)


def test_depth_by_its_direction(field, reference, tmp_path):
    """A vertical axis of another name, in other units, says so by its attribute ``positive``."""
    deep = {"dimensions": ("time", "depth", "latitude", "longitude"), "depth": [90, 40, 0.5, 20], "surface": 2}
    file = write(tmp_path / "a.nc", field, **deep)
    with netCDF4.Dataset(file, "a") as dataset:
        dataset.renameVariable("depth", "zc")
        dataset["zc"].setncatts({"units": "centimeters", "positive": "down"})
    assert_same(reference, tmp_path, file)


def test_latitude_and_longitude_descending(field, reference, tmp_path):
    """Rows and columns are turned round; u and v keep their signs."""
    north_up = {"latitude": np.arange(17)[::-1] - 40.0, "longitude": np.arange(26)[::-1] + 10.0}
    file = write(tmp_path / "a.nc", field[..., ::-1, ::-1], **north_up)
    assert_same(reference, tmp_path, file)


def test_longitudes_wrap(field, reference, tmp_path):
    longitude = (np.arange(26) + 170.0 + 180) % 360 - 180
    assert_same(reference, tmp_path, write(tmp_path / "a.nc", field, longitude=longitude))


def test_names_of_the_user(field, reference, tmp_path):
    file = write(tmp_path / "a.nc", field, names=("p", "q"), standard_names=("", ""))
    assert prepare("ocean", "--train", file, "--data_dir", tmp_path, *SMALL) == 2
    assert_same(reference, tmp_path, file, flags=("--u_var", "p", "--v_var", "q"))


def daily_files(folder, field, **changes):
    return [write(folder / f"{k:02}.nc", frame[None], times=[k], **changes) for k, frame in enumerate(field)]


def test_shuffled_daily_files(field, reference, tmp_path):
    """In any order, of any row order, with coordinates in single precision or a turn further, some given twice, by
    other names of one calendar."""
    files = daily_files(tmp_path, field)
    write(files[5], field[5:6, :, ::-1], times=[5], latitude=np.float32(np.arange(17)[::-1] - 40.0 + 1e-6))
    write(files[8], field[8:9], times=[8], longitude=np.arange(26) + 370.0, calendar="proleptic_gregorian")
    write(files[9], field[9:10], times=[9], calendar="gregorian")
    files = [files[k] for k in np.random.default_rng(0).permutation([*range(12), 3, 7])]
    assert_same(reference, tmp_path, *files)


def test_duplicates_are_counted(field, tmp_path, capsys):
    files = daily_files(tmp_path, field)
    assert prepare("ocean", "--train", *files, files[3], files[3], "--data_dir", tmp_path, *SMALL) == 0
    assert "2 duplicates" in capsys.readouterr().out


def test_shuffled_times_in_one_file(field, reference, tmp_path):
    order = np.random.default_rng(1).permutation(12)
    assert_same(reference, tmp_path, write(tmp_path / "a.nc", field[order], times=order))


def test_scalar_time(field, reference, tmp_path):
    """Files without a time dimension, dated by a coordinate."""
    files = daily_files(tmp_path, field, dimensions=("extra", "latitude", "longitude"))
    assert_same(reference, tmp_path, *files)


def test_blocks_of_time_do_not_show(field, reference, tmp_path, monkeypatch):
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 5 * 2 * 8 * 17 * 26)
    assert_same(reference, tmp_path, write(tmp_path / "a.nc", field))


def test_chunks_are_read_once(field, tmp_path, monkeypatch):
    """However few frames a block has: chunks of five frames are read whole and kept while the blocks pass through."""
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 1)
    reads = []
    monkeypatch.setattr(
        "flows.currents.read_stored",
        lambda variable, part, *frames: reads.append((variable.name, *frames)) or read_stored(variable, part, *frames),
    )
    source = ocean_source(open_record([write(tmp_path / "a.nc", field, chunks=(5, 17, 26))], 8), 1)
    layers = [(name, first, first + 5) for first in (0, 5, 10) for name in ("uo", "vo")]
    assert reads == layers
    reads.clear()
    blocks = [source.read(begin, begin + 2) for begin in range(0, 12, 2)]
    whole = ocean_source(open_record([write(tmp_path / "b.nc", field)], 8), 1).read(0, 12)
    np.testing.assert_array_equal(np.concatenate(blocks, 1), whole)
    assert reads[:6] == layers


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize(("variables", "padding"), [("a", 0), ("ab", 2)])
def test_classic_files_are_as_long_as_their_header_says(format, variables, padding, tmp_path):
    """Three int16 an entry: 6 bytes, and 2 more if there is another variable; those at the very end may be missing."""
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=format) as dataset:
        dataset.createDimension("time", None)
        dataset.createDimension("x", 3)
        dataset.note = "odd"
        for name in variables:
            dataset.createVariable(name, "i2", ("time", "x"))[:] = np.arange(15).reshape(5, 3)
    whole = (tmp_path / "a.nc").read_bytes()
    for end in (len(whole), len(whole) - padding):
        (tmp_path / "a.nc").write_bytes(whole[:end])
        refuse_damaged_classic(tmp_path / "a.nc")
    wanted = len(whole) - padding
    for end in (wanted - 1, len(whole) // 2, 40, 5):
        (tmp_path / "a.nc").write_bytes(whole[:end])
        with pytest.raises(InputError, match=f"has {end} bytes of {wanted}|header ends too soon"):
            refuse_damaged_classic(tmp_path / "a.nc")
    width = 8 if format == "NETCDF3_64BIT_DATA" else 4
    (tmp_path / "a.nc").write_bytes(whole[:4] + width * b"\xff" + whole[4 + width :])
    with pytest.raises(InputError, match="number of frames was never written"):
        refuse_damaged_classic(tmp_path / "a.nc")


# ---------------------------------------------------------------- land, gaps, regions


def test_land_stored_as_zeros(field, reference, tmp_path, capsys):
    """Without a fill value it is found where nothing ever moves, unless the user knows better."""
    still = np.nan_to_num(field)
    file = write(tmp_path / "a.nc", still)
    assert_same(reference, tmp_path, file)
    share = f"{(still == 0).all((0, 1)).mean():.1%}"
    assert f"warning: u and v are 0 in all frames at {share} of the points: land" in capsys.readouterr().out
    assert prepare("ocean", "--train", file, "--data_dir", tmp_path, *SMALL, "--keep_zeros") == 0
    assert "warning" not in capsys.readouterr().out
    train = read_meta(tmp_path / "ocean")["splits"]["train"]
    assert (train["mask"], train["shape"][0]) == (None, 6)


def test_reference_equals_the_field(field, reference):
    """Every window, from the field by hand: tiles from the south-west corner, land 0, one scale for u and v."""
    meta = read_meta(reference)
    corners = [(y, x) for y in (0, 8) for x in (0, 8, 16)]
    tiles = [field[:, :, y : y + 8, x : x + 8] for y, x in corners]
    tiles = [tile for tile in tiles if np.isnan(tile).any((0, 1)).mean() <= 0.3]
    windows = np.stack([np.nan_to_num(tile[t : t + 5]) for t in range(8) for tile in tiles])
    found = np.concatenate([read_windows(reference, name) for name in ("train", "valid", "test")])
    assert meta["mean"] == [0]
    np.testing.assert_allclose(found, windows / meta["std"], rtol=1e-6)
    begin, end = meta["splits"]["train"]["segments"][0]
    valid = np.concatenate([tile[begin:end][..., ~np.isnan(tile).any((0, 1))].ravel() for tile in tiles])
    assert meta["std"] == pytest.approx([np.sqrt(np.mean(valid**2))], rel=1e-6)
    mask = np.load(reference / meta["splits"]["train"]["mask"])
    np.testing.assert_array_equal(mask, [~np.isnan(tile).any((0, 1)) for tile in tiles])
    assert not np.load(reference / "train.npy")[
        ~np.broadcast_to(mask[:, None, None], meta["splits"]["train"]["shape"])
    ].any()
    assert meta["splits"]["train"]["land"] == pytest.approx(1 - mask.mean())


def test_no_mask_where_all_is_valid(tmp_path, capsys):
    flow = vortices(17, 26)
    flow[:, :, 12:, 3:7] = np.nan
    command = ("ocean", "--train", write(tmp_path / "a.nc", flow), "--data_dir", tmp_path, *SMALL[:-2])
    assert prepare(*command) == 0
    assert "5 kept, 1 dropped with land above 0" in capsys.readouterr().out
    splits = read_meta(tmp_path / "ocean")["splits"]
    assert all(split["mask"] is None and split["land"] == 0 and split["shape"][0] == 5 for split in splits.values())


def test_land_is_what_is_missing_in_any_frame(tmp_path):
    flow = vortices(8, 8)
    flow[4, 0, 2, 3] = flow[6, 1, 5, 5] = np.nan
    file = write(tmp_path / "a.nc", flow)
    assert not ocean_source(open_record([file], 8), 0.3).read(0, 12)[..., [2, 5], [3, 5]].any()
    assert prepare("ocean", "--train", file, "--data_dir", tmp_path, *SMALL) == 0
    mask = np.load(tmp_path / "ocean" / "test_mask.npy")
    assert np.argwhere(~mask).tolist() == [[0, 2, 3], [0, 5, 5]]
    for name in ("train", "valid", "test"):
        assert not np.load(tmp_path / "ocean" / f"{name}.npy")[:, :, :, ~mask[0]].any()


@pytest.mark.parametrize("missing", ["no file", "no values"])
def test_no_window_crosses_a_missing_day(missing, tmp_path):
    flow = vortices(8, 8, 30)
    files = daily_files(tmp_path, flow)
    if missing == "no file":
        del files[11]
    else:
        write(files[11], np.full((1, 2, 8, 8), np.nan), times=[11])
    assert prepare("ocean", "--train", *files, "--data_dir", tmp_path, *SMALL, "--splits", 6, 6, 6) == 0
    meta = read_meta(tmp_path / "ocean")
    starts = [t for t in range(26) if not t <= 11 < t + 5]
    found = np.concatenate([read_windows(tmp_path / "ocean", name) for name in ("train", "valid", "test")])
    expected = np.stack([flow[t : t + 5] for t in starts[:18]]) / meta["std"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert [len(split["segments"]) for split in meta["splits"].values()] == [1, 2, 1]
    assert meta["splits"]["valid"]["begin"] == "2002-01-07"
    assert meta["splits"]["valid"]["end"] == "2002-01-21"
    assert "land" not in meta
    assert meta["splits"]["test"]["mask"] is None


def test_a_wrong_day_is_named(tmp_path, monkeypatch):
    """Its content is another day's: the flow jumps there and back. A gap in time is no jump."""
    monkeypatch.setattr("flows.source.BLOCK_BYTES", 4 * 2 * 8 * 8 * 8)
    flow = vortices(8, 8, 40)
    flow[25] = flow[5]
    keep = [*range(10), *range(20, 40)]
    source = ocean_source(open_record([write(tmp_path / "a.nc", flow[keep], times=keep)], 8), 0)
    warnings = [note for note in source.notes if note.startswith("warning")]
    assert [re.search("usual to (.*);", note)[1] for note in warnings] == ["2002-01-26", "2002-01-27"]


def test_regions(tmp_path, capsys):
    """Regions of unlike sizes, at their common times; tiles by place, then region."""
    flows = [quantise(vortices(rows, columns, 20)) for rows, columns in ((16, 8), (9, 25))]
    flows[1] = flows[1][2:] + 0.25
    write(tmp_path / "a.nc", flows[0], latitude=np.arange(16) + 20.0)
    write(tmp_path / "b.nc", flows[1][:10], times=np.arange(2, 12))
    write(tmp_path / "c.nc", flows[1][10:], times=np.arange(12, 20))
    files = [tmp_path / f"{name}.nc" for name in "cab"]
    assert prepare("ocean", "--train", *files, "--data_dir", tmp_path, *SMALL) == 0
    first, second = flows[0][2:], flows[1]
    tiles = [first[:, :, :8], second[:, :, :8, :8], first[:, :, 8:], second[:, :, :8, 8:16], second[:, :, :8, 16:24]]
    windows = np.stack([tile[t : t + 5] for t in range(14) for tile in tiles])
    found = np.concatenate([read_windows(tmp_path / "ocean", name) for name in ("train", "valid", "test")])
    np.testing.assert_allclose(found, windows / read_meta(tmp_path / "ocean")["std"], rtol=1e-6)
    assert "2 not in every region" in capsys.readouterr().out


def test_domain(field, reference, tmp_path):
    """Another ocean, of another land, scaled as the training is."""
    other = quantise(2 * vortices(8, 16, 9).astype(np.float64))
    other[:, :, :2, :2] = np.nan
    files = write(tmp_path / "a.nc", field), write(tmp_path / "b.nc", other)
    assert prepare("ocean", "--train", files[0], "--test", files[1], "--data_dir", tmp_path, *SMALL) == 0
    meta = read_meta(tmp_path / "ocean")
    split = meta["splits"]["domain"]
    assert meta["std"] == read_meta(reference)["std"]
    assert meta["source"] == {"train": ["a.nc"], "train_box": None, "test": ["b.nc"], "test_box": None}
    assert (split["count"], split["first"], split["shape"]) == (10, 0, [2, 9, 2, 8, 8])
    assert np.load(tmp_path / "ocean" / split["mask"]).sum() == 124
    windows = np.nan_to_num([other[t : t + 5, :, :, x : x + 8] for t in range(5) for x in (0, 8)]) / meta["std"]
    np.testing.assert_allclose(read_windows(tmp_path / "ocean", "domain"), windows, rtol=1e-6)


@pytest.mark.parametrize("turn", [0, 360])
@pytest.mark.parametrize("descending", [False, True])
def test_boxes(descending, turn, tmp_path):
    """Two parts of one grid, whichever way it runs and longitudes are counted; nothing else of it matters."""
    field = quantise(vortices(20, 40, 20))
    parts = field[:, :, 3:12, 5:13], field[:, :, 10:20, 30:40]
    hole = field.copy()
    hole[:, :, :, 20:28] = np.nan
    degrees = np.arange(20) - 40.0, np.arange(40) + 10.0 + turn
    flip = slice(None, None, -1) if descending else slice(None)
    latitude, longitude = (values[flip] for values in degrees)
    file = write(tmp_path / "a.nc", hole[:, :, flip, flip], latitude=latitude, longitude=longitude)
    boxes = "--train_box", 15, 22.5, -37, -29, "--test_box", 39.9 - 360, 60 - 360, -30, 10
    assert prepare("ocean", "--train", file, "--data_dir", tmp_path / "boxes", *boxes, *SMALL) == 0
    files = [write(tmp_path / f"{name}.nc", part) for name, part in zip("bc", parts, strict=True)]
    assert prepare("ocean", "--train", files[0], "--test", files[1], "--data_dir", tmp_path / "parts", *SMALL) == 0
    found, expected = (read_meta(tmp_path / name / "ocean") for name in ("boxes", "parts"))
    source = found.pop("source")
    assert source["train_box"] == [15, 22.5, -37, -29]
    assert source["test_box"] == [39.9 - 360, -300, -30, 10]
    assert source["train"] == source["test"] == ["a.nc"]
    del expected["source"]
    assert found == expected
    for name in found["splits"]:
        np.testing.assert_array_equal(*(read_windows(tmp_path / f / "ocean", name) for f in ("boxes", "parts")))


@pytest.mark.parametrize("first", [0, 18])
@pytest.mark.parametrize("turns", [1, 1.1])
@pytest.mark.parametrize("descending", [False, True])
def test_box_across_the_edges_of_the_globe(descending, turns, first, tmp_path):
    """Longitudes 9 degrees apart, once round the globe or a little more, from 0 or 18 on."""
    longitude = first + 9 * np.arange(int(40 * turns))
    field = quantise(vortices(8, 40))[..., longitude // 9 % 40]
    flip = slice(None, None, -1) if descending else slice(None)
    file = write(tmp_path / "a.nc", field[..., flip], longitude=longitude[flip])
    part = np.roll(quantise(vortices(8, 40)), 5, -1)[..., :11]
    region = open_record([file], 8, box=[-45, 45, -90, 90]).regions[0]
    assert region.files[0].longitude.tolist() == list(range(-45, 46, 9))
    np.testing.assert_array_equal(region.read(0, 12), part)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (("--train_box", 40, 50, 0, 10), "0 to 10 is not one piece of the grid, which is -40 to -33"),
        (("--train_box", 24, 11, -41, -30), "which is 10 to 25 and has 10 to 11 and 24 to 25 of it"),
        (("--train_box", 10, 14, -41, -30), "the grid is 8 x 5, smaller than --tile 8"),
        (("--train_box", 10, 14, -30, -41), "--train_box is WEST EAST SOUTH NORTH, got 10 14 -30 -41"),
        (("--train_box", 10, 14, -30, "nan"), "'nan' is not an angle in degrees"),
        (("--test_box", 10, 14, -41, -30), "--test_box has places to train on"),
        (("--train_box", 10, 18, -41, -30, "--test_box", 17, 25, -41, -30), "--test_box has places to train on"),
        (("--train_box", 10, 18, -41, -30, "--test_box", 0, 360, -41, -30), "--test_box has places to train on"),
    ],
)
def test_boxes_that_are_none(boxes, message, tmp_path, capsys):
    file = write(tmp_path / "a.nc", vortices(8, 16))
    assert message in refused(capsys, tmp_path, "ocean", "--train", file, *boxes, *SMALL)


@pytest.mark.parametrize("given", [(), ("--train_box",), ("--test_box",), ("--train_box", "--test_box")])
def test_the_sea_trained_on_is_no_other_domain(given, tmp_path, capsys):
    file = write(tmp_path / "a.nc", vortices(8, 16))
    boxes = [word for flag in given for word in (flag, 10, 18, -41, -30)]
    line = refused(capsys, tmp_path, "ocean", "--train", file, "--test", file, *boxes, *SMALL)
    assert "--test has a.nc, which is trained on; give --train_box and --test_box, apart" in line


def test_steps_need_not_be_exact():
    """Times in single precision jitter; months differ by days."""
    months = np.array([0, 31, 59, 90, 120, 151, 181, 212])
    for times in (months, np.arange(8) + np.resize([0, 1e-4], 8)):
        _, segments = unbroken(np.rint(86400 * times))
        assert segments == [(0, 8)]


def test_forecast_of_many_runs_is_refused(tmp_path):
    """A dimension of several model runs is not the time."""
    file = write(tmp_path / "a.nc", vortices(8, 8), dimensions=("extra", "time", "latitude", "longitude"), extra=2)
    with netCDF4.Dataset(file, "a") as dataset:
        runs = dataset.createVariable("runs", "f8", ("extra",))
        runs.setncatts({"units": "days since 2002-01-01", "standard_name": "forecast_reference_time"})
    with pytest.raises(InputError, match="dimension extra of uo has 2 entries"):
        ocean_source(open_record([file], 8), 0)


# ---------------------------------------------------------------- the real files


def test_rtofs(tmp_path, capsys):
    """A real file, prepared from end to end, against a few lines of NetCDF and NumPy."""
    file = Path(__file__).parent / "data" / "wa_RTOFS_global.nc"
    command = ["--tile", 16, "--max_land", 0.3, "--history", 6, "--horizon", 4, "--data_dir", tmp_path]
    assert prepare("ocean", "--train", file, *command) == 0
    out, meta = capsys.readouterr().out, read_meta(tmp_path / "ocean")
    assert "warning" not in out
    assert "frames shared" not in out
    with netCDF4.Dataset(file) as dataset:
        flow = np.stack([dataset[name][:].astype("f8").filled(np.nan) for name in ("water_u", "water_v")], 1)
    tiles = np.stack([flow[:, :, y : y + 16, x : x + 16] for y, x in ((0, 0), (0, 16), (16, 0))])
    valid = np.isfinite(tiles).all((1, 2))
    assert meta["time_step"] == 3 * 3600
    for name, first, frames, begin in (
        ("train", 0, 32, "2024-10-28T03:00:00"),
        ("valid", 33, 15, "2024-11-01T06:00:00"),
        ("test", 49, 15, "2024-11-03T06:00:00"),
    ):
        np.testing.assert_array_equal(np.load(tmp_path / "ocean" / f"{name}_mask.npy"), valid)
        expected = np.where(valid[:, None, None], tiles[:, first : first + frames], 0)
        found = np.load(tmp_path / "ocean" / f"{name}.npy") * np.float64(meta["std"])
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert meta["splits"][name]["begin"] == begin
    moving = tiles[:, :32].transpose(1, 2, 0, 3, 4)[..., valid]
    assert meta["std"] == pytest.approx([np.sqrt(np.mean(moving**2))], rel=1e-6)


@needs_ocean
def test_globcurrent(tmp_path, capsys):
    """366 daily files; the last is a copy of the first, and is named."""
    files = sorted((OCEAN / "globcurrent_agulhas").glob("*.nc"))
    flow = np.concatenate([direct_read(file) for file in files])
    command = ["--tile", 32, "--max_land", 0.2, "--gap", 50, "--data_dir", tmp_path]
    assert prepare("ocean", "--train", *files, *command) == 0
    out = capsys.readouterr().out
    assert re.findall("usual to (.*);", out) == ["2003-01-01"]
    assert "upside down" not in out
    meta = read_meta(tmp_path / "ocean")
    assert meta["time_step"] == 86400
    assert meta["splits"]["train"]["land"] == pytest.approx(0.155, abs=0.001)
    for name, first in (("train", "2002-01-01"), ("valid", "2002-07-15"), ("test", "2002-10-09")):
        split = meta["splits"][name]
        assert split["begin"] == first
        begin = next(k for k, file in enumerate(files) if file.name.startswith(first.replace("-", "")))
        expected = np.nan_to_num([flow[begin : begin + split["shape"][1], :, :32, x : x + 32] for x in (0, 32)])
        np.testing.assert_allclose(np.load(tmp_path / "ocean" / f"{name}.npy") * meta["std"], expected, rtol=1e-6)


@needs_ocean
def test_cmems(tmp_path):
    """The paper's product on its own grid, one day: tiles without land as they are in the file."""
    file = next((OCEAN / "cmems_glo12").glob("*_100W-020E_10N-65N.nc"))
    source = ocean_source(open_record([file], 64), 0)
    flow = direct_read(file)
    tiles = [flow[:, :, y : y + 64, x : x + 64] for y in range(0, 598, 64) for x in range(0, 1378, 64)]
    tiles = [tile for tile in tiles if not np.isnan(tile).any()]
    np.testing.assert_array_equal(source.read(0, 1), tiles)
    assert (source.tiles, source.mask, source.dates) == (len(tiles), None, ["2024-01-01"])


@needs_ocean
def test_cmems_means_of_five_days(tmp_path):
    file = next((OCEAN / "cmems_glo12").glob("*_5day.nc"))
    command = ["--tile", 16, "--history", 2, "--horizon", 1, "--gap", 0, "--data_dir", tmp_path, "--splits", 1, 1, 1]
    assert prepare("ocean", "--train", file, *command) == 0
    flow, meta = direct_read(file), read_meta(tmp_path / "ocean")
    tiles = [flow[:, :, y : y + 16, x : x + 16] for y in range(0, 160, 16) for x in range(0, 345, 16)]
    tiles = [tile for tile in tiles if not np.isnan(tile).any()]
    assert meta["time_step"] == 5 * 86400
    np.testing.assert_allclose(np.load(tmp_path / "ocean" / "train.npy") * meta["std"],
                               np.stack(tiles)[:, :3], rtol=1e-5, atol=1e-7)  # fmt: skip


@needs_ocean
@pytest.mark.parametrize("name", ["argo_float_uv.nc", "drifter_uv.nc", "ship_uv.nc"])
def test_toolbox_layout(name):
    """One point, at the surface of up to 50 depths."""
    source = ocean_source(open_record([OCEAN / "toolbox_layout" / name], 1), 0)
    np.testing.assert_array_equal(source.read(0, 5)[0], direct_read(OCEAN / "toolbox_layout" / name))
    assert source.time_step == 6 * 3600


@needs_ocean
@pytest.mark.parametrize("name", ["ORCA025-N06_20000104d05U.nc", "ORCA025-N06_20000104d05V.nc"])
def test_c_grid_is_refused(name, tmp_path, capsys):
    line = refused(capsys, tmp_path, "ocean", "--train", OCEAN / "nemo_cgrid" / name)
    assert "curvilinear" in line
    assert name in line


# ---------------------------------------------------------------- refusals


def altered(change, **changes):
    """A writer of a file that ``change(dataset)`` has altered."""

    def write_altered(path):
        write(path, vortices(8, 8), **changes)
        with netCDF4.Dataset(path, "a") as dataset:
            change(dataset)

    return write_altered


def plain(**changes):
    return lambda path: write(path, vortices(8, 8), **changes)


def truncated(**changes):
    def write_truncated(path):
        write(path, vortices(8, 8), **changes)
        path.write_bytes(path.read_bytes()[:-100])

    return write_truncated


def land(field, region):
    field[(..., *region)] = np.nan
    return field


def two_regions(path):
    write(path, vortices(8, 8))
    write(path.with_name("b.nc"), vortices(9, 9), times=np.arange(100, 112))


def curvilinear(path, indices=False):
    with netCDF4.Dataset(path, "w") as dataset:
        for name, size in (("time", 12), ("y", 8), ("x", 8)):
            dataset.createDimension(name, size)
            if indices and size == 8:
                dataset.createVariable(name, "i4", (name,)).axis = name.upper()
                dataset[name][:] = np.arange(8)
        for name, units in (("nav_lat", "degrees_north"), ("nav_lon", "degrees_east")):
            dataset.createVariable(name, "f4", ("y", "x")).units = units
        for name in ("uo", "vo"):
            dataset.createVariable(name, "f4", ("time", "y", "x"))


def staggered(path):
    """An Arakawa C-grid on latitudes and longitudes: u and v have coordinates of their own."""
    with netCDF4.Dataset(path, "w") as dataset:
        for name, size in (("time", 12), ("lat", 8), ("lon", 8), ("lat_v", 8), ("lon_u", 8)):
            dataset.createDimension(name, size)
            units = {"t": "days since 2000-01-01", "la": "degrees_north", "lo": "degrees_east"}
            variable = dataset.createVariable(name, "f8", (name,))
            variable.units = next(unit for start, unit in units.items() if name.startswith(start))
            variable[:] = np.arange(size)
        dataset.createVariable("u", "f4", ("time", "lat", "lon_u"))
        dataset.createVariable("v", "f4", ("time", "lat_v", "lon"))


def grouped(path):
    with netCDF4.Dataset(write(path, vortices(8, 8), names=()), "a") as dataset:
        for name in ("uo", "vo"):
            dataset.createVariable(f"currents/{name}", "f4", ("time", "latitude", "longitude"))


def two_calendars(path):
    write(path, vortices(8, 8))
    write(path.with_name("b.nc"), vortices(8, 8), times=np.arange(12, 24), calendar="noleap")


def called(*labels, attribute="long_names", names=("u", "v")):
    """A writer of a file of which only one attribute says that it holds no currents."""
    return plain(**{"names": names, "standard_names": ("", ""), attribute: labels})


def rotated(dataset):
    """A rotated pole: its coordinates are 1-D, but not latitudes and longitudes."""
    for name in ("latitude", "longitude"):
        dataset[name].setncatts({"units": "degrees", "standard_name": f"grid_{name}", "axis": name[:2].upper()})
        dataset.renameVariable(name, f"r{name[:3]}")


def strings(path):
    with netCDF4.Dataset(write(path, vortices(8, 8), names=()), "a") as dataset:
        for name in ("uo", "vo"):
            dataset.createVariable(name, str, ("time", "latitude", "longitude"))


REFUSALS = {
    "zero bytes": (lambda path: path.touch(), "no readable NetCDF"),
    "text": (lambda path: path.write_text("uo vo"), "no readable NetCDF"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "nothing": (lambda path: None, "is not there"),
    "truncated": (truncated(), "no readable NetCDF"),
    "truncated classic": (truncated(format="NETCDF3_CLASSIC"), "truncated or damaged"),
    "truncated CDF-5": (truncated(format="NETCDF3_64BIT_DATA", unlimited=True), "truncated or damaged"),
    "no currents": (plain(names=("so", "thetao"), standard_names=("", "")), "no eastward and northward current.*so, t"),
    "many variables": (
        plain(names=[f"tracer{k}" for k in range(99)], standard_names=("", "")), "longitude, depth, t.*r5 and 93 more$",
    ),
    "groups": (grouped, r"groups \(currents\) are not read, bring them to the top: ncks -G : FILE flat.nc"),
    "only u": (plain(names=("uo",)), "uo without vo"),
    "only v": (plain(names=("b",), standard_names=CURRENTS[1:]), "b without its other component"),
    "winds by name": (plain(names=("u10", "v10"), standard_names=("", "")), "u10 is a wind"),
    "winds by attribute": (plain(names=("u", "v"), standard_names=("eastward_wind", "northward_wind")), "u is a wind"),
    "x and y": (plain(standard_names=("sea_water_x_velocity", "sea_water_y_velocity")), "grid's x or y"),
    "x and y by long name": (plain(standard_names=("", ""), long_names=("Sea water x velocity", "")), "grid's x or y"),
    "velocity x": (called("Velocity X", "Velocity Y"), "u runs along the grid's x or y"),
    "along the grid": (called("velocity along model grid", ""), "u runs along the grid's x or y"),
    "sea ice": (called("sea_ice_velocity_east", "", attribute="standard_names"), "u is a drift of sea ice"),
    "Stokes drift": (called("", "Stokes drift V"), "v is the Stokes drift"),
    "tides": (
        called(*(f"{name}_due_to_tides" for name in CURRENTS), attribute="standard_names", names=("uo", "vo")),
        "uo is a part of the current",
    ),
    "standard errors": (called(f"{CURRENTS[0]} standard_error", "", attribute="standard_names"), "u is an error"),
    "fluxes": (called("zonal heat flux", ""), "u is a flux"),
    "components exchanged": (called("Northward current", ""), "u is 'northward current', wanted the eastward"),
    "two pairs": (
        plain(names=("uo", "vo", "u", "v"), standard_names=("", "")), "several currents .*uo, vo, u, v.*--u_var"
    ),
    "curvilinear": (curvilinear, "curvilinear .nav_lat is 2-D"),
    "curvilinear with indices": (lambda path: curvilinear(path, indices=True), "curvilinear .nav_lat is 2-D"),
    "C-grid": (staggered, "C-grid"),
    "rotated pole": (altered(rotated), "uo has no latitude: none of .*degrees_north"),
    "no latitude": (plain(latitude=None), "uo has no latitude: none of .*degrees_north"),
    "ensemble": (plain(dimensions=("extra", "time", "latitude", "longitude"), extra=3), "dimension extra of uo has 3"),
    "no rows": (plain(dimensions=("time", "longitude", "extra")), "has no latitude"),
    "latitude missing": (plain(latitude=np.full(8, np.nan)), "latitude has missing or impossible"),
    "longitude in disorder": (plain(longitude=[0, 2, 1, 3, 4, 5, 6, 7]), "longitude is not monotonic"),
    "no time": (plain(times=None, dimensions=("extra", "latitude", "longitude")), "no time axis"),
    "times missing": (plain(times=np.full(12, np.nan)), "time has missing values"),
    "no date": (plain(time_units="days since the flood"), "is no date"),
    "no calendar": (plain(calendar="lunar"), "is no date"),
    "units": (plain(units="knots"), "uo is in 'knots', wanted m/s or cm/s"),
    "text for a number": (altered(lambda d: d["uo"].setncattr("scale_factor", "one")), "scale_factor of uo is 'one'"),
    "text for a current": (strings, "wanted numbers"),
    "undeclared fill": (
        lambda path: write(path, land(vortices(8, 8), (0, 0)), fill="undeclared"), "speed of 1412.* m/s on 2002-01-01"
    ),
    "km/h as m/s": (lambda path: write(path, 90 * vortices(8, 8)), "wanted at most 20"),
    "infinity": (lambda path: write(path, vortices(8, 8) / np.array([1, 0])[:, None, None]), "speed of inf"),
    "still": (lambda path: write(path, 0 * vortices(8, 8)), "no point is valid: all are missing or 0"),
    "all land": (lambda path: write(path, land(vortices(8, 8), ())), "no point is valid"),
    "too much land": (
        lambda path: write(path, land(vortices(8, 8), (slice(4),))), "--max_land 0.3, the least 0.500; --max_land 0.500"
    ),
    "small grid": (lambda path: write(path, vortices(8, 7)), "the grid is 8 x 7, smaller than --tile 8"),
    "too few frames": (lambda path: write(path, vortices(8, 8, 6)), "found 6 frames, .*wanted 7"),
    "too many gaps": (plain(times=np.arange(12) + 9 * (np.arange(12) // 4)), "found 12 frames, at most 4 without"),
    "two calendars": (two_calendars, "a.nc counts days in the calendar standard, .*b.nc in noleap"),
    "no common time": (two_regions, "no time in common: 2002-01-01 to 2002-01-12; 2002-04-11"),
}  # fmt: skip
OF_ALL_FILES = (
    *("still", "all land", "too much land", "small grid", "too few frames", "too many gaps", "no common time"),
)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case, tmp_path, capsys):
    make, message = REFUSALS[case]
    make(tmp_path / "a.nc")
    files = sorted(tmp_path.glob("*.nc")) or [tmp_path / "a.nc"]
    line = refused(capsys, tmp_path, "ocean", "--train", *files, *SMALL)
    assert re.search(message, line), line
    assert "a.nc" in line or case in OF_ALL_FILES


def test_what_the_library_raises(tmp_path, capsys, monkeypatch):
    """Such as for a structure of arrays of structures, which it does not open."""

    def raises(path):
        raise TypeError("nested structured dtype arrays not supported")

    monkeypatch.setattr("flows.netcdf.netCDF4.Dataset", raises)
    (tmp_path / "a.nc").write_bytes(b"\x89HDF\r\n\x1a\n")
    line = refused(capsys, tmp_path, "ocean", "--train", tmp_path / "a.nc")
    assert line.endswith("a.nc is no readable NetCDF file: nested structured dtype arrays not supported")


def test_names_exchanged(tmp_path, capsys):
    file = write(tmp_path / "a.nc", vortices(8, 8))
    line = refused(capsys, tmp_path, "ocean", "--train", file, "--u_var", "vo", "--v_var", "uo", *SMALL)
    assert "vo is 'northward_sea_water_velocity', wanted the eastward component; exchange --u_var and --v_var" in line


def test_grids_are_checked_before_currents_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flows.ocean.survey", None)
    files = write(tmp_path / "a.nc", vortices(8, 8)), write(tmp_path / "b.nc", vortices(8, 7))
    line = refused(capsys, tmp_path, "ocean", "--train", files[0], "--test", files[1], *SMALL)
    assert "the grid is 8 x 7, smaller than --tile 8" in line


def test_unknown_variable(tmp_path, capsys):
    file = write(tmp_path / "a.nc", vortices(8, 8))
    line = refused(capsys, tmp_path, "ocean", "--train", file, "--u_var", "uo", "--v_var", "vv", *SMALL)
    assert "no variable vv; there are time, latitude, longitude, depth, uo, vo" in line


def test_test_files_of_another_step(tmp_path, capsys):
    files = (
        write(tmp_path / "a.nc", vortices(8, 8)),
        write(tmp_path / "b.nc", vortices(8, 8), time_units="hours since 2000-1-1"),
    )
    line = refused(capsys, tmp_path, "ocean", "--train", files[0], "--test", files[1], *SMALL)
    assert "step by 3600 s, wanted 86400 s" in line


def test_test_file_too_short(tmp_path, capsys):
    files = write(tmp_path / "a.nc", vortices(8, 8)), write(tmp_path / "b.nc", vortices(8, 8, 1))
    line = refused(capsys, tmp_path, "ocean", "--train", files[0], "--test", files[1], *SMALL)
    assert "found 1 frames" in line


def test_bad_file_among_good_ones_leaves_the_old_data(tmp_path, capsys):
    files = daily_files(tmp_path, vortices(8, 8))
    command = ("ocean", "--train", *files, "--data_dir", tmp_path / "data", *SMALL)
    assert prepare(*command) == 0
    before = digest(tmp_path / "data" / "ocean")
    files[7].write_bytes(files[7].read_bytes()[:3000])
    assert prepare(*command) == 2
    assert "07.nc" in capsys.readouterr().err
    assert digest(tmp_path / "data" / "ocean") == before


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA", "NETCDF4"])
def test_no_damage_ends_in_a_traceback(format, tmp_path):
    """Random bytes and random ends: the right field, or an InputError."""
    whole = write(tmp_path / "a.nc", vortices(8, 8), format=format, dtype="f4").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, 1500, random.integers(1, 8)):
            damaged[place] = random.integers(256)
        (tmp_path / "a.nc").write_bytes(damaged[: random.choice([len(damaged), random.integers(len(damaged))])])
        with contextlib.suppress(InputError):
            ocean_source(open_record([tmp_path / "a.nc"], 8), 0).read(0, 1)


@pytest.mark.parametrize("time", ["/s", " s-1", " s^-1", ".s-1", " s**-1", " sec-1", " per second", "/seconds"])
@pytest.mark.parametrize("metre", ["m", "cm", "meter", "centimetres"])
def test_spellings_of_units(metre, time):
    assert unit_of(Labelled(units=metre + time), SPEED_UNITS) == (100 if metre.startswith("c") else 1)


@pytest.mark.parametrize("units", ["m", "s", "m s", "m/s2", "m2 s-1", "km/s", "mm/s", "m/h", "degrees", "1"])
def test_other_units(units):
    with pytest.raises(InputError, match="wanted m/s or cm/s"):
        unit_of(Labelled(units=units), SPEED_UNITS)


def test_fill_of_integers_meant_to_be_unsigned():
    """Stated as stored or as meant, it is what is stored; without one of its own NetCDF's default is missing, too."""
    variable = Labelled(missing_value=np.array([65535, -2]), _Unsigned="true")
    variable.dtype = np.dtype("i2")
    assert fill_values(variable).tolist() == [-1, -2, -32767]


class Labelled:
    """A variable that has attributes only."""

    name = "uo"

    def __init__(self, **attributes):
        self.attributes = attributes

    def ncattrs(self):
        return list(self.attributes)

    def getncattr(self, name):
        return self.attributes[name]
