"""The smoke plumes against PhiFlow, closed forms and symmetries; the data sets against the release."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simulation.smoke import (
    LEVEL_FRAMES,
    LEVELS,
    TURN,
    Dataset,
    Plume,
    Smoke,
    averaged,
    equivariance_test,
    level_errors,
    levels,
    look_up,
    magnitude,
    mean_difference,
    rotation,
    scale,
    simulate,
    translation,
    twins,
)
from utils import InputError

GOLDEN = Path(__file__).parent / "data" / "phiflow_smoke.npz"
REFERENCE = Path(__file__).parents[2] / "shared" / "smoke" / "phiflow_reference.npz"
PUBLISHED = [0, 0.17, 0.313, 0.435, 0.541, 0.63, 0.709, 0.78, 0.84, 0.896]  # run_equiv_test.py prints them
SMALL = Plume(resolution=0.5)  # 32 x 32

PLUMES = {
    "scale0": Plume(),
    "rotation": Plume(center=(59, 32), buoyancy=(-0.1, 0), velocity_dt=1),
    "translation": Plume(center=(16, 15), right=(0, 0.2), at_walls=0.5),
    "floor": Plume(center=(8, 5), right=(0, 0.2), at_walls=0.5),
    "ceiling": Plume(center=(32, 59), buoyancy=(0, -0.341), velocity_dt=1),
}


def run(plumes, steps):
    flow = Smoke(plumes)
    for _ in range(steps):
        flow.step()
    return flow


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


# ---------------------------------------------------------------- PhiFlow


def phiflow(file, name, at=()):
    """u, v and smoke of a stored flow, float64, shaped as in :class:`Smoke` for one plume."""
    velocity = torch.from_numpy(file[f"{name}_velocity"][at]).double()
    return velocity[None, 0, :-1], velocity[None, 1, :, :-1], torch.from_numpy(file[f"{name}_smoke"][at]).double()[None]


def differences(flow, file, name, at=()):
    """Relative L2 of velocity and smoke."""
    u, v, smoke = phiflow(file, name, at)
    both = [torch.cat((a.flatten(), b.flatten())) for a, b in ((flow.u, flow.v), (u, v))]
    return [relative(*both), relative(flow.smoke, smoke)]


@pytest.mark.parametrize("name", ["scale0", "rotation", "translation"])
def test_flows_of_phiflow(name):
    """To its pressure's 1e-5 and the file's 2e-5, for 20 steps."""
    file, flow = np.load(GOLDEN), Smoke([PLUMES[name]])
    for step in range(1, 21):
        flow.step()
        if step in file["steps"]:
            assert max(differences(flow, file, name, file["steps"].tolist().index(step))) < 4e-5


@pytest.mark.parametrize(("name", "steps"), [("floor", 10), ("ceiling", 40)])
def test_flows_of_phiflow_along_walls(name, steps):
    assert max(differences(run([PLUMES[name]], steps), np.load(GOLDEN), name)) < 4e-5


@pytest.mark.parametrize("name", ["scale0", "rotation", "translation"])
def test_flows_of_the_reference(name):
    """60 steps, for the last 20 from PhiFlow's state after 40: before, its 1e-5 has grown to 1e-4."""
    if not REFERENCE.exists():
        pytest.skip("no ../shared")
    file, flow = np.load(REFERENCE), Smoke([PLUMES[name]])
    index = file["steps"].tolist().index
    for step in range(1, 61):
        flow.step()
        if step in file["steps"]:
            assert max(differences(flow, file, name, index(step))) < (2e-5 if step <= 30 else 3e-4)
        if step == 40:
            for state, given in zip((flow.u, flow.v, flow.smoke), phiflow(file, name, index(40)), strict=True):
                state.copy_(given)


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("resolution", [0.5, 0.55])  # an even and an odd number of cells
def test_projection(resolution):
    """Any flow loses its divergence and nothing flows through walls; what has none is kept."""
    flow = Smoke(3 * [Plume(resolution=resolution)])
    generator = torch.Generator().manual_seed(0)
    flow.u[:, :, 1:-1] = torch.randn(flow.u[:, :, 1:-1].shape, generator=generator, dtype=torch.float64)
    flow.v[:, 1:-1] = torch.randn(flow.v[:, 1:-1].shape, generator=generator, dtype=torch.float64)
    flow._project()
    assert flow.divergence().abs().max() < 1e-12
    for wall in (flow.u[:, :, [0, -1]], flow.v[:, [0, -1]]):
        assert wall.abs().max() == 0
    u, v = flow.u.clone(), flow.v.clone()
    assert min(u.norm(), v.norm()) > 10
    flow._project()
    assert torch.allclose(flow.u, u, atol=1e-13)
    assert torch.allclose(flow.v, v, atol=1e-13)


def test_pressure_of_one_wave():
    """A gradient of cos(pi k x) cos(pi l y) is all pressure, whatever k and l."""
    flow = Smoke([SMALL])
    x = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    wave = torch.cos(5 * torch.pi * x[:, None]) * torch.cos(2 * torch.pi * x)
    flow.u[0, :, 1:-1], flow.v[0, 1:-1] = wave.diff(dim=1), wave.diff(dim=0)
    flow._project()
    assert max(flow.u.abs().max(), flow.v.abs().max()) < 1e-13


def test_look_up_by_hand():
    field = torch.arange(20, dtype=torch.float64).view(1, 4, 5) + 1
    rows = torch.tensor([[[1, 1.5, 0, -0.5, -0.25, 3.25, 9]]], dtype=torch.float64)
    columns = torch.tensor([[[2, 3.25, -0.5, 1, -0.5, 4.5, 2]]], dtype=torch.float64)
    border = [8, 11.75, 1, 2, 1, 20, 18]
    zeros = [8, 11.75, 0.5, 1, 0.375, 7.5, 0]
    for outside, wanted in (("border", border), ("zeros", zeros)):
        assert look_up(field, rows, columns, outside).flatten().tolist() == pytest.approx(wanted, abs=1e-12)


def test_whole_cells_carry_smoke_unchanged():
    flow = Smoke([replace(SMALL, center=(30, 30))])
    flow.smoke = flow.inflow.clone()
    way = torch.ones(1, 32, 32, dtype=torch.float64)
    assert torch.allclose(flow._carried_smoke(3 * way, way), flow.inflow.roll((1, 3), (1, 2)), atol=1e-12)


def test_maccormack_by_hand():
    """A ramp is carried exactly; beside a peak the correction ends at the values around; at a wall it is none."""
    flow = Smoke([SMALL])
    way, still = torch.full((1, 32, 32), 0.25, dtype=torch.float64), torch.zeros(1, 32, 32, dtype=torch.float64)
    ramp = torch.arange(32, dtype=torch.float64)
    flow.smoke = ramp.expand(1, 32, 32).clone()
    assert torch.allclose(flow._carried_smoke(way, still)[0, :, 2:-2], ramp[2:-2] - 0.25, atol=1e-12)

    flow.smoke = torch.zeros(1, 32, 32, dtype=torch.float64)
    flow.smoke[:, 10] = 1  # there and back: 3/16, 10/16, 3/16 in 9, 10 and 11
    carried = flow._carried_smoke(still, way)[0, :, 5]
    # once and half of what is missing: below 0 in 9, 12/16 + 3/16, 4/16 - 3/32
    assert carried[9:13].tolist() == pytest.approx([0, 15 / 16, 5 / 32, 0], abs=1e-12)

    flow.smoke[:, :3] = torch.tensor([1.0, 2, 0])[:, None]
    way[:, 0], way[:, 1] = 0.5, -1  # 0 gets 1 from the wall, 1 gets nothing from 2: there and back 1/2 in 0
    assert flow._carried_smoke(still, way)[0, 0, 5] == pytest.approx(1, abs=1e-12)  # not 5/4: row 1 does not count


def test_first_step():
    """From rest the velocity is what the projection leaves of the buoyancy at the faces."""
    flow = run([SMALL], 1)
    assert torch.equal(flow.smoke, flow.inflow)
    expected = Smoke([SMALL])
    expected.v[:, 1:-1] = 0.5 * 0.1 * (flow.inflow[:, 1:] + flow.inflow[:, :-1]) / 2  # half a cell to a unit
    expected._project()
    assert torch.allclose(flow.v, expected.v, atol=1e-15)
    assert torch.allclose(flow.u, expected.u, atol=1e-15)
    assert flow.v.max() > 0.01


def test_inflow():
    flow = Smoke([Plume(), Plume(radius=7), Plume(center=(12, 32.5))])
    assert flow.inflow.sum((1, 2)).tolist() == [80, 142, 78]
    assert flow.inflow[0, :, 32].nonzero().flatten().tolist() == list(range(10))  # rows along y
    assert flow.inflow[2, 32].nonzero().flatten().tolist() == list(range(7, 17))


def test_buoyancy_left_right_and_along_walls():
    flow = Smoke([Plume(buoyancy=(1, 2), right=(3, 4), at_walls=0.5), Plume(buoyancy=(5, 6))])
    bx, by = flow.buoyancy[0]
    assert bx[20, [0, 1, 31, 32, 62, 63]].tolist() == [0.5, 1, 1, 3, 3, 1.5]
    assert by[[0, 1, 62, 63], 31].tolist() == [1, 2, 2, 1]
    assert by[[0, 1, 62, 63], 32].tolist() == [2, 4, 4, 2]
    assert (flow.buoyancy[1] == torch.tensor([5, 6])[:, None, None]).all()


def test_no_divergence_and_no_smoke_but_what_flows_in():
    """No value leaves the range that was there, but by the inflow. The sum is not kept, nor is it by PhiFlow."""
    flow, total = Smoke([Plume(center=(32, 25)), Plume(center=(20, 32), buoyancy=(0.02, 0.03), velocity_dt=1)]), 0
    for _ in range(20):
        largest = flow.smoke.amax((1, 2))
        flow.step()
        total = total + flow.inflow.sum((1, 2))
        assert flow.smoke.min() >= 0
        assert (flow.smoke.amax((1, 2)) <= largest + 1).all()
        assert flow.smoke[flow.inflow > 0].min() >= 1
        assert flow.divergence().abs().max() < 1e-12
    kept = flow.smoke.sum((1, 2)) / total
    assert kept.min() > 0.9
    assert kept.max() < 1
    assert flow.velocity().amax((1, 2, 3)).min() > 1


# ---------------------------------------------------------------- symmetries


def mirrored(plume):
    (x, y), (bx, by) = plume.center, plume.buoyancy
    rx, ry = plume.right or plume.buoyancy
    return replace(plume, center=(64 - x, y), buoyancy=(-rx, ry), right=(-bx, by))


def fields(flow, i=0):
    """u, v, smoke of one plume in cell centres, ``(3, S, S)``."""
    return torch.cat((flow.velocity()[i], flow.smoke[i, None]))


def test_quarter_turned_plumes_give_quarter_turned_flows():
    plume = Plume(center=(25, 10), buoyancy=(0.02, 0.1), velocity_dt=1, resolution=0.5, at_walls=0.7)
    flow = run([plume.turned(turns) for turns in range(4)], 30)
    upright = fields(flow)
    assert upright[1].max() > 2
    for turns in range(1, 4):
        assert torch.allclose(fields(flow, turns), TURN.quarter(turns, upright[None])[0], rtol=0, atol=1e-10)
        assert relative(torch.rot90(upright, -turns, (-2, -1)), TURN.quarter(turns, upright[None])[0]) > 0.5


def test_mirrored_plumes_give_mirrored_flows():
    plume = Plume(center=(25, 10), buoyancy=(0.02, 0.1), right=(-0.01, 0.2), resolution=0.5)
    flow = run([plume, mirrored(plume)], 30)
    u, v, smoke = fields(flow).flip(-1)
    assert torch.allclose(fields(flow, 1), torch.stack((-u, v, smoke)), rtol=0, atol=1e-10)
    assert relative(fields(flow, 1), fields(flow)) > 0.5


def test_together_or_alone():
    plumes = [
        Plume(resolution=0.5),
        Plume(center=(16, 20), radius=8, buoyancy=(0.05, 0.02), right=(0, 0.2), resolution=0.5, velocity_dt=1),
        Plume(center=(40, 50), buoyancy=(0, -0.3), at_walls=0.5, resolution=0.5, dt=0.5),
    ]
    together = run(plumes, 20)
    for i, plume in enumerate(plumes):
        alone = run([plume], 20)
        for name in ("u", "v", "smoke"):
            assert torch.allclose(getattr(together, name)[i], getattr(alone, name)[0], rtol=0, atol=1e-12)


# ---------------------------------------------------------------- data sets


def test_translation_set():
    dataset = translation()
    assert dataset.shape == (35, 310, 3, 64, 64)
    assert dataset.plumes[:6:5] == tuple(Plume(center=(x, 5), right=(0, 0.2), at_walls=0.5) for x in (8, 16))
    held_out = {"{}_{}".format(*dataset.plumes[i].center) for i in dataset.held_out}
    assert held_out == set("32_20 32_5 24_20 16_25 24_5 16_10 40_20 8_25 24_25 40_10".split())


def test_rotation_set():
    dataset = rotation()
    assert dataset.shape == (35, 309, 3, 64, 64)
    assert [plume.center for plume in dataset.plumes[:4]] == [(32, 5), (59, 32), (32, 59), (5, 32)]
    buoyancy = np.array([plume.buoyancy for plume in dataset.plumes[:4]])
    assert buoyancy == pytest.approx(np.array([(0, 0.01), (-0.02, 0), (0, -0.033), (0.04, 0)]))
    assert {plume.velocity_dt for plume in dataset.plumes} == {1}
    numbers = [
        round(100 * max(map(abs, plume.buoyancy)) / (1.1 if plume.center[1] == 59 else 1)) for plume in dataset.plumes
    ]
    assert numbers == [*range(1, 32), *range(33, 37)]
    assert {numbers[i] for i in dataset.held_out} == {5, 6, 10, 13, 14, 15, 18, 20, 21, 24}


def test_scale_set():
    dataset = scale()
    assert dataset.shape == (38, 309, 3, 64, 64)
    assert [dataset.plumes[i].cells for i in (0, 1, 5, 37)] == [64, 70, 96, 300]
    assert [plume.cells for plume in dataset.plumes] == [int(64 * f) for f in np.linspace(1, 5, 41)[:38]]
    assert set(dataset.held_out) == {5, 30, 16, 23, 33, 6, 17, 22, 21, 32}


@pytest.mark.parametrize("make", [translation, rotation, scale, magnitude])
def test_sets_are_long_enough_for_the_windows_of_the_paper(make):
    for size, cells in (("paper", 64), ("small", 32)):
        dataset = make(size)
        plumes, frames, *rest = dataset.shape
        assert frames >= 281
        assert rest == [3, cells, cells]
        assert 0 < len(dataset.held_out) < plumes / 2
    # small: every third plume at half the resolution
    paper = make()
    assert dataset.plumes == tuple(replace(plume, resolution=plume.resolution / 2) for plume in paper.plumes[::3])
    assert dataset.held_out == tuple(i // 3 for i in paper.held_out if i % 3 == 0)


def test_levels():
    assert LEVELS[0] == (1, 1, 1, 1)
    assert LEVELS[3] == (1, 4, 7, 10)
    assert LEVELS[9] == (1, 10, 19, 28)
    dataset = levels(3)
    assert dataset.shape == (12, 50, 3, 64, 64)
    assert [plume.center for plume in dataset.plumes[:4]] == [(32, 5), (59, 32), (32, 59), (5, 32)]
    assert [plume.center for plume in dataset.plumes[4:8]] == [(24, 5), (59, 24), (40, 59), (5, 40)]  # to the left
    assert [plume.center for plume in dataset.plumes[8:]] == [(40, 5), (59, 40), (24, 59), (5, 24)]
    assert dataset.held_out == tuple(range(4, 12))
    buoyancy = np.array([plume.buoyancy for plume in dataset.plumes])
    assert buoyancy == pytest.approx(np.array([(0, 0.01), (-0.025, 0), (0, -0.04), (0.055, 0)] * 3))
    assert equivariance_test().shape == (50, 50, 3, 64, 64)
    assert equivariance_test().plumes[10].buoyancy == pytest.approx((0, 0.055))


def test_small_sets_have_the_units_of_the_paper():
    """Half the cells, about the same velocities (the coarse disc is a tenth larger): units, not cells."""
    paper, small = (simulate(replace(twins(0, size), steps=20)).double() for size in ("paper", "small"))
    paper = averaged(averaged(paper, 32).mT, 32).mT
    assert relative(small[:, :, :2], paper[:, :, :2]) < 0.25


# ---------------------------------------------------------------- frames


def test_frames_are_the_states_after_the_skipped_steps():
    plumes = (SMALL, Plume(), replace(SMALL, center=(20, 20)))
    frames = simulate(Dataset(plumes, steps=5, skip=2, size=32))
    assert frames.shape == (3, 3, 3, 32, 32)
    assert frames.dtype == torch.float32
    flow, fine = Smoke(plumes[::2]), Smoke(plumes[1:2])
    for step in range(5):
        flow.step()
        fine.step()
        if step >= 2:
            for i, plume in enumerate((0, 2)):
                wanted = fields(flow, i).float()
                assert torch.equal(frames[plume, step - 2, 2], wanted[2])
                assert torch.equal(frames[plume, step - 2, :2], 2 * wanted[:2])  # half a cell to a unit
            means = fields(fine).view(3, 32, 2, 32, 2).mean((2, 4))
            assert torch.allclose(frames[1, step - 2].double(), means, atol=1e-6)


def test_frames_on_faces():
    plumes = [replace(SMALL, buoyancy=(0.05, 0.1))]
    frames = simulate(Dataset(tuple(plumes), steps=3, size=32), faces=True)
    flow = run(plumes, 3)
    assert torch.allclose(frames[0, 2, 0].double(), 2 * flow.u[0, :, :-1], atol=1e-6)
    assert torch.allclose(frames[0, 2, 1].double(), 2 * flow.v[0, :-1], atol=1e-6)
    assert frames[0, 2, 0, :, 0].abs().max() == frames[0, 2, 1, 0].abs().max() == 0
    with pytest.raises(InputError, match="frames of 16 cells have no faces of a box of 32 cells"):
        simulate(Dataset(tuple(plumes), size=16), faces=True)


def test_frames_into_a_file(tmp_path):
    dataset = Dataset((SMALL, replace(SMALL, resolution=0.25)), steps=4, skip=1, size=16)
    out = np.lib.format.open_memmap(tmp_path / "smoke.npy", "w+", np.float32, dataset.shape)
    assert simulate(dataset, out=out) is out
    out.flush()
    assert np.array_equal(np.load(tmp_path / "smoke.npy"), simulate(dataset).numpy())
    with pytest.raises(InputError, match=r"out has the shape \(2, 3, 3, 16, 15\); the frames have \(2, 3, 3, 16, 16\)"):
        simulate(dataset, out=out[..., :15])


def test_threads_are_left_as_they_were():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        simulate(Dataset((SMALL,), steps=1, size=32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("cells", "size"), [(7, 4), (70, 64), (300, 64), (12, 12), (5, 8)])
def test_averaging(cells, size):
    """Against a grid on which both have whole numbers of cells."""
    values = np.random.default_rng(0).standard_normal(cells)
    wanted = np.repeat(values, size).reshape(size, cells).mean(1)
    found = averaged(torch.from_numpy(values), size).numpy()
    assert found == pytest.approx(wanted, abs=1e-12)
    assert cells != size or np.array_equal(found, values)


# ---------------------------------------------------------------- how much each symmetry is broken


def test_mean_difference_by_hand():
    frames = torch.zeros(3, 5, 3, 2, 2)
    frames[1, :, 0] = 3
    frames[2, 2, 1] = -10
    frames[:, :, 2] = torch.rand(3, 5, 2, 2)  # smoke does not count
    assert mean_difference(frames) == pytest.approx((3 * 5 + 10) / 2 / 5 / 2)


def turned_back(frames):
    return torch.stack([TURN.quarter(-turns, flow) for turns, flow in enumerate(frames)])


@pytest.mark.parametrize("level", [1, 9])
def test_published_level(level):
    """To its three digits, and the true one, which is less by 0.2 percent."""
    plumes = tuple(equivariance_test().plumes[i] for i in LEVELS[level])
    frames = simulate(replace(equivariance_test(), plumes=plumes), faces=True)[:, LEVEL_FRAMES]
    assert round(mean_difference(frames), 3) == PUBLISHED[level]
    true = mean_difference(turned_back(simulate(twins(level)))[:, LEVEL_FRAMES])
    assert true == pytest.approx(PUBLISHED[level], rel=5e-3)
    assert true < mean_difference(frames)


@pytest.mark.slow
def test_published_levels():
    published, true = level_errors()
    assert [round(level, 3) for level in published] == PUBLISHED
    assert true == pytest.approx(PUBLISHED, rel=5e-3, abs=1e-7)
    assert true == sorted(true)


def early(dataset, steps=25):
    """The first frames of a data set, float64."""
    return simulate(replace(dataset, steps=dataset.skip + steps)).double()


def test_rotation_dial():
    """One buoyancy, the four walls: the same flow at equal factors, and the less so, the less equal they are."""
    errors = []
    for factor in (1, 1.1, 1.5):
        dataset = rotation(factors=(1, 1 / 2, factor / 3, 1 / 4))  # of .01, .02, .03, .04
        plumes = tuple(replace(plume, resolution=0.5) for plume in dataset.plumes[:4])
        errors.append(mean_difference(turned_back(early(Dataset(plumes, skip=1, size=32), 40))))
    assert errors[0] < 1e-7
    assert 10 * errors[0] < errors[1] < errors[2] / 3


def test_translation_dial():
    """A plume in the middle of either half; at ratio 1 each is the mirror image of the other, walls included."""
    errors = []
    for ratio in (1, 1.5, 2, 3):
        plumes = tuple(
            replace(plume, resolution=0.5)
            for plume in translation(ratio=ratio).plumes
            if plume.center in ((16, 15), (48, 15))
        )
        left, right = early(Dataset(plumes, size=32))[..., :2, :, :]
        mirror = right.flip(-1) * torch.tensor([-1.0, 1])[:, None, None]
        errors.append(mean_difference(torch.stack((left, mirror))))
    assert errors[0] < 1e-7
    assert 0.01 < errors[1] < errors[2] < errors[3]


def test_scale_dial():
    """A plume and one 1.5 times as large: the finer both are, the more they are alike."""
    errors = []
    for refinement in (0.5, 1, 2):
        plumes = tuple(scale(refinement=refinement).plumes[i] for i in (0, 5))
        errors.append(mean_difference(early(Dataset(plumes, skip=1, size=16), 12)))
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2] > 0


def test_magnitude_dial():
    """The frames of a plume m times as strong are m times those of one."""
    errors = []
    for fixed in (0, 0.3, 1):
        dataset = magnitude("small", fixed)
        strengths = torch.tensor([1 / plume.dt for plume in dataset.plumes]).view(-1, 1, 1, 1, 1)
        same_place = [i for i, plume in enumerate(dataset.plumes) if plume.center == (8, 5)]
        assert len(same_place) > 1
        errors.append(mean_difference((early(dataset) / strengths)[same_place]))
    assert errors[0] < 1e-6
    assert 0.01 < errors[1] < errors[2]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0}, "radius is 0; it must be a positive number"),
        ({"dt": -1}, "dt is -1"),
        ({"velocity_dt": float("nan")}, "velocity_dt is nan"),
        ({"resolution": float("inf")}, "resolution is inf"),
        ({"resolution": 0.05}, "resolution 0.05 makes a box of 3 cells; it takes 4 or more"),
        ({"at_walls": -1}, "at_walls is -1; it must be 0 or more"),
        ({"center": (1, 2, 3)}, r"center is \(1, 2, 3\); it must be two finite numbers"),
        ({"buoyancy": (0, float("nan"))}, "buoyancy is"),
        ({"right": (0, float("inf"))}, "right is"),
    ],
)
def test_plumes_that_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        replace(Plume(), **change)


def test_refusals():
    with pytest.raises(InputError, match=r"plumes of resolutions \[0.5, 1\] cannot be stepped together"):
        Smoke([Plume(), SMALL])
    with pytest.raises(InputError, match="an inflow covers no cell"):
        Smoke([Plume(), Plume(center=(-9, 5))])
    with pytest.raises(InputError, match="another buoyancy on the right cannot be turned"):
        Plume(right=(0, 0.2)).turned(1)
    with pytest.raises(InputError, match="size is tiny; it must be one of paper, small"):
        translation("tiny")


# ---------------------------------------------------------------- minutes


@pytest.mark.slow
def test_long_flows_stay_finite():
    """The whole set of strongest plumes: chaos, but bounded, and without divergence."""
    flow = run([plume for plume in rotation("small").plumes], 310)
    assert flow.velocity().isfinite().all()
    assert flow.divergence().abs().max() < 1e-12
    assert flow.velocity().abs().max() < 32
