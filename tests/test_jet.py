"""The second paper's jet, in files written here with its names; none were at hand."""

import re

import numpy as np
import pytest
import torch
from prepared import prepare, raw_windows, read_meta, refused

DOMAIN = ["1_5", "2_3", "2_5", "2_7", "3_2", "3_7"]  # test_domain_task of the release
OTHERS = [f"{a}_{b}" for a in (1, 2, 3) for b in range(1, 9) if f"{a}_{b}" not in DOMAIN]


@pytest.fixture
def parts(tmp_path):
    """24 random parts of 290 frames, ``{"1_1": (290, 2, 5, 3), ...}``, and their folder."""
    folder, draw = tmp_path / "JetFlow", torch.Generator().manual_seed(0)
    folder.mkdir()
    parts = {name: torch.randn(290, 2, 5, 3, generator=draw) + 1 for name in sorted(DOMAIN + OTHERS)}
    for name, part in parts.items():
        torch.save(part, folder / f"raw_data_{name}.pt")
    return folder, parts


def test_splits_of_the_release(parts, tmp_path, capsys):
    """Nets read frames s + 2 to s + 11 and forecast s + 12 to s + 31: s in the ranges of the release."""
    folder, parts = parts
    assert prepare("jet", "--raw", folder, "--data_dir", tmp_path) == 0
    meta = read_meta(tmp_path / "jet")
    assert (meta["tile"], meta["history"], meta["horizon"], meta["fields"]) == ([5, 3], 12, 20, ["vector"])
    assert "24 parts, 6 for domain only" in capsys.readouterr().out
    for split, names, first, last in (
        ("train", OTHERS, 0, 159),
        ("valid", OTHERS, 160, 199),
        ("test", OTHERS, 200, 249),
        ("domain", DOMAIN, 0, 99),
    ):
        expected = np.stack([parts[name][s : s + 32] for name in names for s in range(first, last + 1)])
        np.testing.assert_allclose(raw_windows(tmp_path / "jet", split), expected, atol=1e-5)


def spoilt(part):
    part[7, 0, 2, 1] = torch.nan
    return part


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (None, "", "raw_data_2_4.pt is missing; the second paper's jet has 24 files"),
        (lambda part: part[:280], "", "raw_data_2_4.pt has shape (280, 2, 5, 3), wanted (281 or more, 2, 5, 3)"),
        (lambda part: part, "--history 30", "raw_data_1_1.pt has shape (290, 2, 5, 3), wanted (299 or more, 2, 5, 3)"),
        (lambda part: part[..., :2], "", "raw_data_2_4.pt has shape (290, 2, 5, 2), wanted (281 or more, 2, 5, 3)"),
        (lambda part: part[0], "", "raw_data_2_4.pt has shape (2, 5, 3), wanted"),
        (spoilt, "", "raw_data_2_4.pt has a value that is not finite in frame 7"),
        (lambda part: part.int(), "", "raw_data_2_4.pt holds int32 values"),
        (lambda part: part, "--gap 3", "the second paper's jet has its own splits"),
    ],
)
def test_bad_files(parts, change, flags, message, tmp_path, capsys):
    folder, parts = parts
    path = folder / "raw_data_2_4.pt"
    path.unlink()
    if change:
        torch.save(change(parts["2_4"]).clone(), path)
    line = refused(capsys, tmp_path, "jet", "--raw", folder, *flags.split())
    assert re.search(re.escape(message), line)
