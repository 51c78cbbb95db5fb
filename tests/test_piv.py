"""Velocities from particle images, in files written here as OpenPIV, PIVlab and MODULO do; none were at hand."""

import re

import numpy as np
import pytest
from prepared import prepare, raw_windows, read_meta, refused

X, Y = 1.5 * np.arange(11) + 4, 0.5 * np.arange(7) - 1
FRAMES = 10
SMALL = ["--history", 2, "--horizon", 1, "--gap", 0]


def flow(t):
    """u and v ``(2, y, x)``: a solid body that turns with 1 + t."""
    x, y = np.meshgrid(X, Y)
    return (1 + t) * np.stack([-(y - 0.5), x - 11.5])


def columns_of(t):
    """x, y, u, v of all points, rows from the top down as in an image, ``(n, 4)``."""
    x, y = np.meshgrid(X, Y)
    return np.stack([x, y, *flow(t)], -1)[::-1].reshape(-1, 4)


def write_openpiv(folder, first=1, header="# x\ty\tu\tv\tflags\tmask", delimiter="\t", columns=range(6), spoil=None):
    """As openpiv.tools.save does: some of its ``columns``; ``spoil`` changes a frame's."""
    folder.mkdir()
    for t in range(FRAMES):
        table = np.concatenate([columns_of(t), np.zeros((77, 2))], 1)[:, columns]
        if spoil:
            table = spoil(t, table)
        np.savetxt(folder / f"field_{first + t:03d}.txt", table, "%.6e", delimiter, header=header, comments="")
    return folder


def write_pivlab(folder, spoil=None):
    """As PIVlab writes text: two lines about the file, names with units, the kind of vector, and a derived field."""
    folder.mkdir()
    names = "x [m],y [m],u [m/s],v [m/s],Vector type [-],vorticity [1/s]"
    header = (
        f"PIVlab, ASCII chart output - 30-Nov-2026\nFRAME: 1, filenames: A.bmp & B.bmp, conversion factor: 1\n{names}"
    )
    for t in range(FRAMES):
        table = np.concatenate([columns_of(t), np.ones((77, 1)), np.full((77, 1), 2.0 * t)], 1)
        if spoil:
            table = spoil(t, table)
        np.savetxt(folder / f"PIVlab_{t + 1:04d}.txt", table, "%.6e", ",", header=header, comments="")
    return folder


def write_modulo(folder, mesh=True, spoil=None):
    """As in MODULO's tutorials: two columns and a mesh, or four columns."""
    folder.mkdir()
    order = np.random.default_rng(0).permutation(77)
    if mesh:
        np.savetxt(folder / "Mesh.dat", columns_of(0)[order, :2], "%.8f", header="X Y", comments="")
    for t in range(FRAMES):
        table = columns_of(t)[order][:, 2 if mesh else 0 :]
        if spoil:
            table = spoil(t, table)
        header = "U V" if mesh else "X Y U V"
        np.savetxt(folder / f"Res{t + 1:05d}.dat", table, "%.8f", header=header, comments="")
    return folder


LAYOUTS = {
    "OpenPIV": write_openpiv,
    "OpenPIV without a mask": lambda folder: write_openpiv(folder, columns=range(5)),
    "commas": lambda folder: write_openpiv(folder, header="x,y,u,v", delimiter=",", columns=range(4)),
    "no header": lambda folder: write_openpiv(folder, first=0, header="", columns=range(4)),
    "two lines of words": lambda folder: write_openpiv(folder, header="# PIV 25 Hz\n# x y u v", columns=range(4)),
    "named columns": lambda folder: write_openpiv(
        folder, header="u [px/s],y [mm],flags (0 valid),x [mm],v [px/s]", delimiter=",", columns=[2, 1, 4, 0, 3]
    ),
    "PIVlab": write_pivlab,
    "MODULO with a mesh": write_modulo,
    "MODULO with four columns": lambda folder: write_modulo(folder, mesh=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_flow(layout, tmp_path, capsys):
    folder = LAYOUTS[layout](tmp_path / "frames")
    assert prepare("jet", "--raw", folder, *SMALL, "--data_dir", tmp_path) == 0
    meta = read_meta(tmp_path / "jet")
    assert (meta["fields"], meta["tile"], meta["spacing"]) == (["vector"], [7, 11], [0.5, 1.5])
    found = np.concatenate([raw_windows(tmp_path / "jet", split) for split in ("train", "valid", "test")])
    expected = np.stack([[flow(t) for t in range(start, start + 3)] for start in range(FRAMES - 2)])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    u, v = np.moveaxis(found[:, 0], 1, 0)  # the rotation is that of the frame, counted from what was prepared
    rate = np.broadcast_to(1 + np.arange(8)[:, None, None], (8, 6, 10))
    np.testing.assert_allclose(-np.diff(u, axis=1)[:, :, 1:] / 0.5, rate, atol=1e-3)
    np.testing.assert_allclose(np.diff(v, axis=2)[:, 1:] / 1.5, rate, atol=1e-3)
    out = capsys.readouterr().out
    assert "10 frames of 7 x 11 vectors" in out
    assert "points 0.5 apart along y, 1.5 along x\n" in out
    assert "one tile, the whole grid of 7 x 11" in out


def flagged(t, table):
    """The corner of x and y least is masked in all frames; one vector is invalid, one interpolated in frame 4."""
    table = table.copy()
    corner = (table[:, 0] == X[0]) & (table[:, 1] == Y[0])
    table[corner, 2:4], table[corner, 5] = 0, 1
    if t == 4:
        for x, y, flag in ((X[9], Y[2], 1), (X[6], Y[3], 2)):
            point = (table[:, 0] == x) & (table[:, 1] == y)
            table[point, 4] = flag
            if flag == 1:
                table[point, 2:4] = np.nan
    return table


def test_invalid_vectors_are_masked(tmp_path, capsys):
    folder = write_openpiv(tmp_path / "frames", spoil=flagged)
    assert prepare("jet", "--raw", folder, *SMALL, "--data_dir", tmp_path) == 0
    assert "masked: 2.6% of the points are invalid in some frame, 1.4% of all vectors" in capsys.readouterr().out
    mask = np.ones((7, 11), bool)
    mask[0, 0] = mask[2, 9] = False
    np.testing.assert_array_equal(np.load(tmp_path / "jet" / "test_mask.npy"), mask[None])
    found = raw_windows(tmp_path / "jet", "train")
    expected = np.stack([[flow(t) for t in range(start, start + 3)] for start in range(len(found))])
    np.testing.assert_allclose(found[..., mask], expected[..., mask], atol=1e-4)
    assert not np.load(tmp_path / "jet" / "train.npy")[..., ~mask].any()
    assert prepare("jet", "--raw", folder, *SMALL, "--tile", 4, "--data_dir", tmp_path) == 0
    assert "tiles of 4 x 4: 1 kept, 1 dropped with land above 0" in capsys.readouterr().out


def test_flags_without_a_mask(tmp_path):
    spoil = at(7, setting(3, 4, 1))  # x[3] of the uppermost row
    folder = write_openpiv(tmp_path / "frames", columns=range(5), spoil=spoil)
    assert prepare("jet", "--raw", folder, *SMALL, "--data_dir", tmp_path) == 0
    np.testing.assert_array_equal(np.argwhere(~np.load(tmp_path / "jet" / "test_mask.npy")), [[0, 6, 3]])


def test_masked_vectors_of_pivlab(tmp_path):
    """Its 0 is masked, its 1 valid and its 2 interpolated."""

    def masked(t, table):
        table = table.copy()
        table[3, 2:4], table[3, 4] = np.nan, 0
        table[5, 4] = 2
        return table

    folder = write_pivlab(tmp_path / "frames", spoil=masked)
    assert prepare("jet", "--raw", folder, *SMALL, "--data_dir", tmp_path) == 0
    np.testing.assert_array_equal(np.argwhere(~np.load(tmp_path / "jet" / "test_mask.npy")), [[0, 6, 3]])


def test_frames_of_every_second_number(tmp_path):
    folder = write_openpiv(tmp_path / "frames")
    for number in range(2, 11, 2):
        (folder / f"field_{number:03d}.txt").unlink()
    (folder / "notes.txt").write_text("an experiment\n")
    assert prepare("jet", "--raw", folder, *SMALL, "--data_dir", tmp_path) == 0
    assert read_meta(tmp_path / "jet")["source"]["train"] == ["field_001.txt", "field_009.txt"]


def test_numbers_are_not_sorted_as_words(tmp_path):
    folder = write_openpiv(tmp_path / "frames")
    for t in range(FRAMES):
        (folder / f"field_{t + 1:03d}.txt").rename(folder / f"field{t + 1}.txt")
    assert prepare("jet", "--raw", folder, *SMALL, "--data_dir", tmp_path) == 0
    np.testing.assert_allclose(raw_windows(tmp_path / "jet", "test")[-1, -1], flow(9), atol=1e-4)


# ---------------------------------------------------------------- refusals


def at(frame, change):
    """Changes the columns of one frame."""
    return lambda t, table: change(table.copy()) if t == frame else table


def setting(row, column, value):
    def change(table):
        table[row, column] = value
        return table

    return change


def remove(name):
    def write(folder):
        write_openpiv(folder)
        (folder / name).unlink()

    return write


def replace_by(name, content):
    def write(folder):
        write_openpiv(folder)
        (folder / name).write_bytes(content)

    return write


def second_series(folder):
    write_openpiv(folder)
    (folder / "mean_001.txt").write_text("0 0 1 1\n")


BAD_FOLDERS = {
    "nothing": (lambda folder: None, "is not a folder"),
    "a file": (lambda folder: folder.touch(), "is not a folder"),
    "empty": (lambda folder: folder.mkdir(), "holds no numbered frames"),
    "a missing frame": (remove("field_005.txt"), "frame 5 of field_ is missing"),
    "two series": (second_series, r"several series of frames \(field_, mean_\)"),
    "an empty frame": (replace_by("field_003.txt", b""), "field_003.txt is no table of numbers: it holds no numbers"),
    "bytes": (replace_by("field_003.txt", b"\xff\xfe\x00\x01"), "field_003.txt is no table of numbers"),
    "a web page": (replace_by("field_003.txt", b"<html>\n503\n</html>\n"), "field_003.txt is no table of numbers"),
    "a line cut short": (
        replace_by("field_003.txt", b"1 2 3 4 0 0\n1 2 3"),
        "field_003.txt is no table of numbers: .*columns changed",
    ),
    "a frame cut short": (
        lambda folder: write_openpiv(folder, spoil=at(3, lambda table: table[:40])),
        re.escape("field_004.txt has (40, 6) numbers, wanted (77, 6)"),
    ),
    "three columns": (
        lambda folder: write_openpiv(folder, columns=range(3)),
        "field_001.txt has 3 columns, wanted x, y, u, v, perhaps flags and mask",
    ),
    "a column of the mesh's": (
        lambda folder: write_modulo(folder, spoil=at(2, lambda table: table[:, :1])),
        re.escape("Res00003.dat has (77, 1) numbers, wanted (77, 2) as in the first frame or the mesh"),
    ),
    "flags from a frame on": (
        lambda folder: write_openpiv(folder, spoil=lambda t, table: table if t > 4 else table[:, :4]),
        re.escape("field_006.txt has (77, 6) numbers, wanted (77, 4)"),
    ),
    "four columns beside a mesh": (
        lambda folder: np.savetxt(write_modulo(folder, mesh=False) / "Mesh.dat", columns_of(0)[:, :2]),
        "Res00001.dat has 4 columns, wanted u and v",
    ),
    "a mesh of one column": (
        lambda folder: np.savetxt(write_modulo(folder) / "Mesh.dat", columns_of(0)[:, :1]),
        "Mesh.dat has 1 column, wanted x and y",
    ),
    "beyond float32": (
        lambda folder: write_openpiv(folder, columns=range(4), spoil=at(8, setting(3, 2, 1e60))),
        "field_009.txt has vectors that are not finite",
    ),
    "other points": (
        lambda folder: write_openpiv(folder, spoil=at(3, setting(0, 0, 4.1))),
        "field_004.txt has other points than .*field_001.txt",
    ),
    "an irregular grid": (
        lambda folder: write_openpiv(folder, spoil=lambda t, table: setting(0, 0, 4.1)(table)),
        "field_001.txt has no regular grid .77 points, 12 values of x, 7 of y",
    ),
    "a point twice": (
        lambda folder: write_openpiv(folder, spoil=lambda t, table: setting(0, slice(0, 2), table[1, :2])(table)),
        "has no regular grid",
    ),
    "uneven columns": (
        lambda folder: write_openpiv(folder, spoil=lambda t, table: np.where(table == X[-1], 30, table)),
        "has no regular grid .77 points, 11 values of x, 7 of y",
    ),
    "NaN": (
        lambda folder: write_openpiv(folder, columns=range(4), spoil=at(8, setting(3, 2, np.nan))),
        "field_009.txt has vectors that are not finite and not flagged",
    ),
    "NaN in the first vector": (
        lambda folder: write_modulo(folder, spoil=at(2, setting(0, 0, np.nan))),
        "Res00003.dat has vectors that are not finite and not flagged",
    ),
    "NaN that is interpolated": (
        lambda folder: write_openpiv(folder, spoil=at(8, lambda table: setting(3, [2, 4], [np.nan, 2])(table))),
        "field_009.txt has vectors that are not finite and not flagged",
    ),
    "a flag of others": (
        lambda folder: write_openpiv(folder, spoil=at(1, setting(3, 4, -2))),
        re.escape("field_002.txt has a flag -2; wanted 0 (valid), 1 (invalid) or 2 (interpolated); of PIVlab "),
    ),
    "all flagged": (
        lambda folder: write_openpiv(folder, spoil=at(1, setting(slice(None), 4, 1))),
        "every point is invalid in some frame",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder(case, tmp_path, capsys):
    write, message = BAD_FOLDERS[case]
    write(tmp_path / "frames")
    line = refused(capsys, tmp_path, "jet", "--raw", tmp_path / "frames", *SMALL)
    assert re.search(message, line)
