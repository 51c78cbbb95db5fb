"""Heat in a periodic box: the exact solution, its symmetries, and the set that is made of it."""

import math

import numpy as np
import pytest
import torch
from prepared import prepare, raw_windows, read_meta, refused

from flows.store import load_meta
from models import SYMMETRIES
from simulation.heat import WAVES, diffuse, random_fields, simulate

EXACT, BROKEN = 1e-12, 1e-3
FIELD = random_fields(2, 48, 0)
SMALL = ["heat", "--points", 16, "--history", 3, "--horizon", 2]


@pytest.mark.parametrize("size", [(16, 24), (9, 15), (8, 7)])
@pytest.mark.parametrize("mode", [(0, 0), (1, 0), (0, 2), (3, 2), (-2, 3)])
def test_a_mode_decays_as_it_must(size, mode):
    y, x = np.meshgrid(*(np.arange(n) / n for n in size), indexing="ij")
    wave = np.cos(2 * math.pi * (mode[0] * y + mode[1] * x) - 0.3)
    decay = math.exp(-0.7 * (2 * math.pi) ** 2 * sum((m / n) ** 2 for m, n in zip(mode, size, strict=True)))
    np.testing.assert_allclose(diffuse(wave, 0.7), decay * wave, rtol=0, atol=EXACT)


def test_it_solves_the_heat_equation():
    """The rate of change, by a central difference in time, is the Laplacian, by one in space as the waves get long."""
    y, x = np.meshgrid(np.arange(400), np.arange(400), indexing="ij")
    wave = np.sin(2 * math.pi * (2 * x + y) / 400) + np.cos(2 * math.pi * 3 * y / 400)
    rate = (diffuse(wave, 1 + 1e-3) - diffuse(wave, 1 - 1e-3)) / 2e-3
    now = diffuse(wave, 1)
    laplacian = sum(np.roll(now, shift, axis) - now for shift in (1, -1) for axis in (0, 1))
    assert np.abs(rate - laplacian).max() < 1e-3 * np.abs(rate).max()


def test_later_is_later_of_later():
    np.testing.assert_allclose(diffuse(diffuse(FIELD, 0.4), 1.1), diffuse(FIELD, 1.5), rtol=0, atol=EXACT)
    np.testing.assert_allclose(diffuse(FIELD, 0), FIELD, rtol=0, atol=EXACT)
    assert np.abs(diffuse(diffuse(FIELD, 0.4), 1.1) - diffuse(FIELD, 1.1)).max() > BROKEN


def finer(field, factor):
    """s(factor x) on the same grid: the field ``factor`` times beside and above itself."""
    y, x = (factor * np.arange(n) % n for n in field.shape[-2:])
    return field[..., y[:, None], x]


ACTIONS = {
    "shift": (lambda s: np.roll(s, (5, -7), (-2, -1)), 1),
    "quarter turn": (lambda s: np.rot90(s, 1, (-2, -1)), 1),
    "mirror": (lambda s: s[..., ::-1], 1),
    "another zero": (lambda s: s + 3, 1),
    "magnitude": (lambda s: -2.5 * s, 1),
    "twice as fine": (lambda s: finer(s, 2), 4),
    "three times as fine": (lambda s: finer(s, 3), 9),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_symmetries(name):
    """What acts on the field at the start acts on it later, in scale after lambda^2 times as long."""
    act, faster = ACTIONS[name]
    expected = act(diffuse(FIELD, 0.3 * faster))
    np.testing.assert_allclose(diffuse(act(FIELD), 0.3), expected, rtol=0, atol=EXACT)


def test_what_is_no_symmetry():
    """Scale without its time, and what is not linear: the controls."""
    assert np.abs(diffuse(finer(FIELD, 2), 0.3) - finer(diffuse(FIELD, 0.3), 2)).max() > BROKEN
    assert np.abs(diffuse(FIELD**3, 0.3) - diffuse(FIELD, 0.3) ** 3).max() > BROKEN


def test_fields_to_start_from():
    np.testing.assert_allclose(FIELD.mean((1, 2)), 0, rtol=0, atol=EXACT)
    np.testing.assert_allclose(np.square(FIELD).mean((1, 2)), 1, rtol=0, atol=EXACT)
    power = np.abs(np.fft.fft2(FIELD[0]))
    radius = np.hypot(*np.meshgrid(*2 * [48 * np.fft.fftfreq(48)]))
    assert power[radius > WAVES + 1e-9].max() < 1e-10 < power[radius == WAVES].min()


def test_a_simulation_begins_with_its_fields():
    frames, start = simulate(2, 3, 48, 0.4), random_fields(2, 48, 0)
    expected = np.stack([start, diffuse(start, 0.4), diffuse(start, 0.8)], 1)
    np.testing.assert_allclose(frames[:, :, 0], expected, rtol=0, atol=EXACT)


def test_the_set(tmp_path, capsys):
    """Every window of every split solves the equation; whole trajectories are in one split each."""
    assert prepare(*SMALL, "--diffusivity", 0.1, "--data_dir", tmp_path) == 0
    assert "periodic in y and x; frames 1 apart" in capsys.readouterr().out
    meta = load_meta(tmp_path / "heat")
    assert (meta["fields"], meta["tile"], meta["periodic"]) == (["scalar"], [16, 16], ["y", "x"])
    expected = simulate(50, 14, 16, 0.1)
    begin = 0
    for split, count in (("train", 40), ("valid", 5), ("test", 5)):
        assert len(meta["splits"][split]["segments"]) == count
        assert meta["splits"][split]["parameters"] == {"diffusivity": count * [0.1]}
        windows = raw_windows(tmp_path / "heat", split).reshape(count, 10, 5, 1, 16, 16)
        for start in (0, 9):
            flow = expected[begin : begin + count, start : start + 5]
            np.testing.assert_allclose(windows[:, start], flow, rtol=0, atol=1e-5)
        begin += count
    assert begin == 50


def test_the_seed_draws_the_fields(tmp_path):
    ids = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert prepare(*SMALL, "--seed", seed, "--data_dir", tmp_path / name) == 0
        ids.append(read_meta(tmp_path / name / "heat")["splits"]["train"]["sha256"])
    assert ids[0] == ids[1] != ids[2]


def test_transformed_test_sets_are_solutions_too(tmp_path):
    """Of the actions that test sets have, those on scalars alone: a window that was moved still solves the equation."""
    assert prepare(*SMALL, "--data_dir", tmp_path) == 0
    frames = torch.from_numpy(raw_windows(tmp_path / "heat", "test")[:4])
    for name in ("None", "UM", "Mag", "Rot"):
        action = SYMMETRIES[name].on(("scalar",))
        moved = action.act(action.sample(4, torch.Generator().manual_seed(0)), frames)
        assert not torch.equal(moved, frames)
        np.testing.assert_allclose(diffuse(moved[:, 0].numpy(), 0.1), moved[:, 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "flags",
    ["--diffusivity 0", "--diffusivity -1", "--diffusivity nan", "--diffusivity inf", "--points 15", "--points x"],
)
def test_wrong_flags(flags, tmp_path, capsys):
    line = refused(capsys, tmp_path, "heat", *flags.split())
    assert flags.split()[0] in line
