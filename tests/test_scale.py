"""Scale: the action against closed forms, the layers on analytic flows (nothing interpolated), the test sets."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import entry_of
from torch import nn

import data_prep
import run_model
from evaluation.ablation import VARIANTS
from evaluation.baselines import persistence
from evaluation.equivariance import equivariance_error
from evaluation.score import TestSet, score
from flows.windows import Windows
from models import SKELETONS, SYMMETRIES, build_model
from models.fields import Features
from models.scale import (
    Lifting,
    Scale,
    ScaleConv2d,
    ScaleDownsampling,
    ScaleUpsampling,
    dilated_taps,
    interpolation,
    resize,
)
from utils import exit_code

ACTION = SYMMETRIES["Scale"]
STEP = 2**-0.5  # lambda of one step of the scale axis


def factors(f, n=1):
    return torch.full((n,), float(f), dtype=torch.float64)


# ---------------------------------------------------------------- analytic flows


def flow(shortest, seed=0, waves=12, speed=0.5):
    """A divergence-free flow w(x, y, t): waves of ``shortest`` cells and more, ``speed`` cells a frame or less.

    Their superpositions at unequal angles hold vortices. Returns a function of broadcastable float64 tensors; the
    components are on the axis before the last two.
    """
    rng = np.random.default_rng(seed)
    k = 2 * np.pi / shortest / np.linspace(1, 3, waves)
    angle, phase, c = rng.uniform(0, 2 * np.pi, (3, waves))
    omega = k * speed * np.cos(c)

    def w(x, y, t):
        u = v = 0.0
        for i in range(waves):
            wave = torch.cos(k[i] * (math.cos(angle[i]) * x + math.sin(angle[i]) * y) - omega[i] * t + phase[i])
            u, v = u + math.sin(angle[i]) * wave, v - math.cos(angle[i]) * wave
        return torch.stack([u, v], -3)

    return w


def patches(w, points, scale, side=21, frames=20):
    """Patches ``(n, frames, 2, side, side)`` of T w, with T of lambda = ``scale``, about the points that T moves.

    So the centre of a patch, whatever the scale, lies at the same place of w.
    """
    cells = scale * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    x, y = (points[:, i, None, None, None] + cells for i in (0, 1))
    t = scale**2 * torch.arange(1 - frames, 1, dtype=torch.float64)[:, None, None]
    return scale * w(x, y.transpose(-1, -2), t)


POINTS = 100 * torch.rand(24, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def central(x):
    """The value at the centre of a patch: of its central cell, or the mean of its four central cells."""
    side = x.shape[-1]
    middle = slice((side - 1) // 2, side // 2 + 1)
    return x[..., middle, middle].mean((-2, -1))


def one_step_error(net, shortest, levels, power=1, side=21):
    """Relative error of ``F'(sigma_i) = lambda^power F(sigma_(i - 1))`` at the centre, features F' of T w and F of w.

    ``levels`` are the slice of i that does not see the ends of the scale axis.
    """
    with torch.no_grad():
        w = flow(shortest)
        original, moved = (central(net(patches(w, POINTS, scale, side))) for scale in (1, STEP))
    expected = STEP**power * original[:, :, levels.start - 1 : levels.stop - 1]
    return ((moved[:, :, levels] - expected).norm() / expected.norm()).item()


def lifted_layer(num_scales, kernel_size=3, symmetry=ACTION):
    torch.manual_seed(0)
    symmetry = dataclasses.replace(symmetry, num_scales=num_scales)
    lift, features = symmetry.lift(20)
    return nn.Sequential(lift, symmetry.convolution(features, Features("hidden", 8), kernel_size)).double()


# Relative errors measured, by the shortest wavelength in cells:
#
#                                     4      8     16     32
# scale convolution, 3 x 3         .039   .005  .0007  .0001
# scale convolution, 5 x 5         .043   .005  .0006  .0001
# halving                          .255   .044   .008   .001
# doubling                         .084   .017   .005   .001
# plain convolution, 3 x 3         .285   .168   .071   .041
# the release's lifting, 3 x 3    1.042   .543   .415   .414
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_features_move_along_the_scale_axis(kernel_size):
    net, levels = lifted_layer(5, kernel_size), slice(2, 4)
    errors = [one_step_error(net, shortest, levels) for shortest in (8, 12, 16, 32)]
    assert errors[0] < 0.05
    assert all(later < earlier / 1.5 for earlier, later in zip(errors, errors[1:], strict=False))
    assert errors[-1] < 1e-3


def test_features_of_two_layers_move_along_the_scale_axis():
    first = lifted_layer(7)
    torch.manual_seed(1)
    net = nn.Sequential(first, ScaleConv2d(8, 8, 3, Scale(num_scales=7).sigmas, 3).double())
    errors = [one_step_error(net, shortest, slice(3, 5)) for shortest in (8, 16, 32)]
    assert errors[0] < 0.05
    assert all(later < earlier / 1.5 for earlier, later in zip(errors, errors[1:], strict=False))


def test_other_layers_do_not():
    """The controls: one kernel for all levels (a plain convolution), lags that do not grow, the release's lifting."""
    torch.manual_seed(0)
    plain = nn.Sequential(Lifting(20, [1.0] * 5), ScaleConv2d(6, 8, 3, [1.0] * 5, 3)).double()
    for net, least in ((plain, 0.1), (lifted_layer(5, symmetry=VARIANTS["Scale"]["release"]), 0.3)):
        assert one_step_error(net, 8, slice(2, 4)) > least
    lags = lifted_layer(5, symmetry=VARIANTS["Scale"]["space"])[
        0
    ]  # the flow itself is read alike; its changes in time are not
    assert one_step_error(nn.Sequential(lags, Changes()), 16, slice(2, 4)) > 0.3
    lags = lifted_layer(5)[0]
    assert one_step_error(nn.Sequential(lags, Changes()), 16, slice(2, 4)) < 0.05


class Changes(nn.Module):
    """Those channels of the lifted flow that are differences in time."""

    def forward(self, x):
        return x[:, 2:]


class Rates(nn.Module):
    """What the projection averages: the output of every level, times its weight."""

    def __init__(self, projection):
        super().__init__()
        self.projection = projection

    def forward(self, x):
        return self.projection.conv(x) * self.projection.weights


@pytest.mark.parametrize(("variant", "power"), [("", 3), ("drift", 3), ("increment", 1), ("next-frame", 1)])
def test_the_rate_of_change_scales_with_the_third_power(variant, power):
    """R(T w) = lambda^3 R(w), one lambda from w and two from dt."""
    torch.manual_seed(0)
    symmetry = VARIANTS["Scale"].get(variant, ACTION)
    lift, features = symmetry.lift(20)
    net = nn.Sequential(lift, Rates(symmetry.output(features, 3))).double()
    assert one_step_error(net, 8, slice(2, 4), power=power) < 0.05
    assert one_step_error(net, 8, slice(2, 4), power=4 - power) > 0.3


@pytest.mark.parametrize(("layer", "side"), [(ScaleDownsampling, 22), (ScaleUpsampling, 21)])
def test_layers_that_change_the_grid(layer, side):
    """The centre stays where it is. (A halved grid has half the cells per wavelength.)"""
    torch.manual_seed(0)
    lift, features = ACTION.lift(20)
    net = nn.Sequential(lift, layer(features.channels, 8, 3, ACTION.sigmas, ACTION.scale_interaction)).double()
    errors = [one_step_error(net, shortest, slice(2, 4), side=side) for shortest in (8, 16, 32)]
    assert errors[0] < 0.05
    assert all(later < earlier / 1.5 for earlier, later in zip(errors, errors[1:], strict=False))


# ---------------------------------------------------------------- whole nets


def net(architecture, input_length=10, width=0.125, seed=0, symmetry=ACTION, **options):
    torch.manual_seed(seed)
    return build_model(architecture, symmetry, input_length, width=width, **options).double().eval()


@pytest.mark.parametrize("architecture", SKELETONS)
@settings(max_examples=10, deadline=None)
@given(
    c=st.floats(1e-3, 1e3),
    input_length=st.sampled_from([2, 3, 5, 10]),
    symmetry=st.sampled_from([ACTION, *VARIANTS["Scale"].values()]),
    seed=st.integers(0, 2**32),
)
def test_nets_are_homogeneous(architecture, c, input_length, seed, symmetry):
    """Not only by the unit that is taken out before them: their layers are."""
    model = net(architecture, input_length, seed=seed, symmetry=symmetry)
    model.frames = []
    x = torch.randn(2, input_length, 2, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        forecast = model(x)
        assert (model(c * x) - c * forecast).abs().max() < 1e-10 * c * forecast.abs().max()


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize("symmetry", [ACTION, VARIANTS["Scale"]["increment"]])
def test_a_steady_flow_stays_steady(architecture, symmetry):
    x = torch.randn(2, 1, 2, 16, 32, dtype=torch.float64).expand(2, 10, 2, 16, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(architecture, symmetry=symmetry)(x), x[:, -1])
        assert (net(architecture, symmetry=VARIANTS["Scale"]["drift"])(x) - x[:, -1]).abs().max() > 1e-4


@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize("options", [{"num_scales": 1}, {"num_scales": 2}, {"num_scales": 4, "scale_interaction": 5}])
def test_numbers_of_scales(architecture, options):
    x = torch.randn(1, 10, 2, 32, 48, dtype=torch.float64)
    assert net(architecture, **options)(x).shape == (1, 2, 32, 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_scales": 0}, "num_scales must be at least 1, got 0"),
        ({"scale_interaction": 2}, "scale_interaction must be odd and positive, got 2"),
    ],
)
def test_options_that_cannot_be_meant(options, message):
    with pytest.raises(ValueError, match=message):
        build_model("Unet", "Scale", 5, **options)


# ---------------------------------------------------------------- resampling


@settings(max_examples=50, deadline=None)
@given(
    coefficients=st.tuples(*[st.floats(-3, 3)] * 3),
    size=st.integers(3, 12),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_interpolation_is_exact_for_parabolas(coefficients, size, shares):
    def parabola(x):
        return sum(c * x**power for power, c in enumerate(coefficients))

    positions = (size - 1) * torch.tensor(shares, dtype=torch.float64)
    values = interpolation(positions, size) @ parabola(torch.arange(size, dtype=torch.float64))
    torch.testing.assert_close(values, parabola(positions))


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("sigma", [0.5, 0.5**0.5, 1, 2**0.5, 2, 8**0.5, 4])
def test_dilated_taps(kernel_size, sigma):
    """They read sigma cells apart: sums, first and second moments of a kernel; mirror images stay mirror images."""
    matrix, dilation = dilated_taps(kernel_size, sigma)
    taps, half = matrix.shape[1], kernel_size // 2
    base = torch.arange(-half, half + 1, dtype=torch.float64)
    grid = dilation * torch.arange(-(taps // 2), taps // 2 + 1, dtype=torch.float64)
    for power in range(3):
        torch.testing.assert_close(matrix @ grid**power, (sigma * base) ** power)
    torch.testing.assert_close(matrix.flip(0, 1), matrix)
    if sigma <= 2:  # with the default levels no tap is zero for every kernel
        assert matrix.abs().amax(0).min() > 0
    if sigma == 1:
        assert torch.equal(matrix, torch.eye(kernel_size, dtype=torch.float64))


def test_layer_against_its_definition():
    """Level by level, neighbour by neighbour, tap by tap: read the padded features at sigma times the taps' places."""
    torch.manual_seed(0)
    sigmas = Scale(num_scales=4).sigmas
    layer = ScaleConv2d(2, 3, 3, sigmas, 3, activation=False).double()
    weight = layer.parametrizations.weight.original
    x = torch.randn(1, 2, 4, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        y = layer(x)
        for level, sigma in enumerate(sigmas):
            axis, dilation = dilated_taps(3, sigma)
            radius = dilation * (axis.shape[1] // 2)
            expected = torch.zeros_like(y[:, :, level])
            for neighbour in range(3):
                source = x[:, :, min(max(level + neighbour - 1, 0), 3)]
                padded = nn.functional.pad(source, (radius,) * 4, mode="replicate")
                for row in range(axis.shape[1]):
                    for column in range(axis.shape[1]):
                        tap = torch.einsum("oikl,k,l->oi", weight[:, neighbour], axis[:, row], axis[:, column])
                        cells = padded[..., dilation * row :, dilation * column :][..., :6, :7]
                        expected += torch.einsum("oi,nihw->nohw", tap, cells)
            torch.testing.assert_close(y[:, :, level], expected)


def test_lifting_reads_the_flow_and_its_changes():
    """On w = a + b t + c t^2 the lags of a part of a frame are exact too; the oldest frame stands for older ones."""
    t = torch.arange(-7, 1, dtype=torch.float64)
    a, b, c = torch.randn(3, 2, 1, 1, dtype=torch.float64)

    def w(time):
        return a + b * time + c * time**2

    lifted = Lifting(8, [0.25, 1.0, 2.0, 4.0])(torch.stack([w(time) for time in t])[None].expand(1, 8, 2, 3, 5))
    assert lifted.shape == (1, 6, 4, 3, 5)
    for level, lag in enumerate([0.25, 1.0, 2.0, 4.0]):
        older = max(-2 * lag, -7)
        expected = torch.stack([w(0), w(0) - w(-lag), w(-lag) - w(older)]).flatten(0, 1).expand(6, 3, 5)
        torch.testing.assert_close(lifted[0, :, level], expected)


# ---------------------------------------------------------------- the action


def ramp(frames, height, width, first=0):
    """A flow linear in x, y and t, cell-centred: interpolation reproduces it inside. ``(1, frames, 2, H, W)``."""
    t = torch.arange(first, first + frames, dtype=torch.float64)[:, None, None]
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5 - height / 2
    x = torch.arange(width, dtype=torch.float64) + 0.5 - width / 2
    return torch.stack([2 * x - y + 3 * t, x + 5 * y - t], 1)[None]


@pytest.mark.parametrize("f", [0.5, 0.75, 1, 1.25, 1.5, 2, 3, 5])
def test_action_on_a_ramp(f):
    """w(x / f, t / f^2) / f about the present, on unequal sides, which are cut to multiples of 16 about the centre."""
    before, after = ACTION.source_window(factors(f), 4, 3)
    frames = ramp(before + after, 48, 80, first=1 - before)
    moved = ACTION.act_on_window(factors(f), frames, before - 1, 4, 3)
    sides = [int(f * side) // 16 * 16 for side in (48, 80)]
    assert moved.shape == (1, 7, 2, *sides)
    y = (torch.arange(sides[0], dtype=torch.float64)[:, None] + 0.5 - sides[0] / 2) / f
    x = (torch.arange(sides[1], dtype=torch.float64) + 0.5 - sides[1] / 2) / f
    t = torch.arange(-3, 4, dtype=torch.float64)[:, None, None] / f**2
    expected = torch.stack([2 * x - y + 3 * t, x + 5 * y - t], 1)[None] / f
    edge = math.ceil(f)  # beyond the outermost cell centres interpolation has only the border
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    # The antialiasing filter has its mean a little off the centre where cells meet unequally.
    tolerance = 1e-9 if f >= 1 else 0.02
    assert (moved[inside] - expected[inside]).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("f", [0.75, 1, 1.25, 2, 3])
@pytest.mark.parametrize(("past", "future"), [(1, 0), (1, 3), (4, 0), (10, 10)])
def test_source_windows_are_as_long_as_needed(f, past, future):
    before, after = ACTION.source_window(factors(f), past, future)
    assert ACTION.act_on_window(factors(f), ramp(before + after, 16, 32), before - 1, past, future).shape[1] == (
        past + future
    )
    if before > 1:
        with pytest.raises(ValueError, match="needs frames -"):
            ACTION.act_on_window(factors(f), ramp(before + after - 1, 16, 32), before - 2, past, future)
    if after > 0:
        with pytest.raises(ValueError, match=f"there are 0 to {before + after - 2}"):
            ACTION.act_on_window(factors(f), ramp(before + after - 1, 16, 32), before - 1, past, future)


def test_action_about_the_last_frame():
    frames = torch.randn(2, 4, 2, 32, 48)
    assert torch.equal(ACTION.act(factors(1, 2), frames), frames)
    doubled = ACTION.act(factors(2, 2), frames)
    assert doubled.shape == (2, 13, 2, 64, 96)
    window = ACTION.act_on_window(factors(2, 2), frames, present=3, past=13, future=0)
    assert torch.equal(doubled, window)
    with pytest.raises(ValueError, match="must share one positive factor"):
        ACTION.act(torch.tensor([1.0, 2.0]), frames)


def test_action_keeps_a_smooth_flow():
    """Against the flow itself at the scaled coordinates."""
    w = flow(24)
    centre = torch.zeros(1, 2, dtype=torch.float64)
    moved = ACTION.act(factors(2), patches(w, centre, 1, side=48, frames=4))
    expected = patches(w, centre, 0.5, side=96, frames=13)
    inside = (..., slice(4, -4), slice(4, -4))
    assert (moved[inside] - expected[inside]).norm() < 0.02 * expected[inside].norm()


def test_shrinking_does_not_alias():
    """The finest checkerboard is nothing on half the grid."""
    board = (-1.0) ** (torch.arange(32)[:, None] + torch.arange(48))
    moved = ACTION.act(factors(0.5), board.expand(1, 5, 2, 32, 48))
    assert moved.shape == (1, 2, 2, 16, 16)
    assert moved.abs().max() < 0.05


@pytest.mark.parametrize("f", [0.5, 1, 1.5, 3])
def test_water_is_what_is_read_from_water_only(f):
    mask = torch.ones(1, 1, 32, 48, dtype=torch.bool)
    mask[..., 10:13, 20:24] = False
    moved = ACTION.act_on_mask(factors(f), mask, None)
    frames = torch.where(mask[:, None], 1.0, math.nan).expand(1, 1, 2, 32, 48)
    clean = torch.where(mask[:, None], 1.0, 0.0).expand(1, 1, 2, 32, 48)
    assert moved.shape[-2:] == ACTION.act(factors(f), frames).shape[-2:]
    torch.testing.assert_close(ACTION.act(factors(f), clean)[:, 0, :1][moved], torch.full((moved.sum(),), 1 / f))
    assert 0 < (~moved).sum() < 4 * max(f, 1) ** 2 * 30


def test_factors_are_seeded():
    generator = torch.Generator().manual_seed(0)
    drawn = ACTION.sample(5000, generator)
    assert drawn.unique().tolist() == [1, 1.25, 1.5, 2, 3]
    assert min((drawn == f).sum() for f in drawn.unique()) > 900
    assert torch.equal(drawn, ACTION.sample(5000, torch.Generator().manual_seed(0)))
    release = Scale(release_factors=True).sample(5000, generator)
    assert (release.min(), release.max()) == (0.5, 5)
    assert torch.equal(release * 4, (release * 4).round())


@settings(max_examples=30, deadline=None)
@given(height=st.integers(3, 40), width=st.integers(3, 40), f=st.sampled_from([0.5, 0.75, 1.25, 1.5, 2.0, 3.0]))
def test_resizing_keeps_the_centre(height, width, f):
    """Whatever the sides and what is cropped: it commutes with mirrors, and a slope of 1 a cell becomes one of 1/f."""
    maps = torch.randn(1, 2, height, width, dtype=torch.float64)
    large = resize(maps, f)
    rows, columns = large.shape[-2:]
    assert all(n % 16 == 0 or n < 16 for n in (rows, columns))
    torch.testing.assert_close(resize(maps.flip(-1, -2), f), large.flip(-1, -2))
    if f > 1:
        slope = resize(torch.arange(width, dtype=torch.float64).expand(1, 1, height, width), f)
        expected = (width - 1) / 2 + (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2) / f
        inside = (expected > 0) & (expected < width - 1)
        torch.testing.assert_close(slope[..., inside], expected[inside].expand(1, 1, rows, -1))


# ---------------------------------------------------------------- test sets


@pytest.fixture(scope="module")
def ramp_dir(tmp_path_factory):
    """Prepared frames 0, 1, 2 ... everywhere: one tile of 16 x 32, windows of 6 + 4 frames."""
    folder = tmp_path_factory.mktemp("ramp")
    frames = np.broadcast_to(np.arange(30, dtype=np.float32)[:, None, None, None], (30, 2, 16, 32))
    np.save(folder / "test.npy", frames[None])
    return folder


@pytest.fixture
def ramp_windows(ramp_dir):
    split = entry_of(ramp_dir, "test", [[0, 30]], first=0, count=21)
    return Windows(ramp_dir, {"fields": ["vector"], "history": 6, "horizon": 4, "splits": {"test": split}}, "test")


def test_scores_by_factor(ramp_windows):
    """Persistence on w = t: after s steps it is s / f^2 / f off, in every window."""
    elements = torch.tensor([1.0, 2.0, 3.0])[torch.arange(21) % 3]
    scores = score({"still": persistence}, TestSet(ramp_windows, ACTION, elements), 3, 4, 4)["still"]
    assert list(scores["by_factor"]) == ["1", "2", "3"]
    for f, row in ((float(f), row) for f, row in scores["by_factor"].items()):
        assert row["windows"] == 7
        np.testing.assert_allclose(row["rmse_per_step"], np.arange(1, 5) / f**3, rtol=1e-5)
    mean = np.sqrt(np.mean([row["rmse"] ** 2 for row in scores["by_factor"].values()]))
    assert scores["rmse"] == pytest.approx(mean)


def test_windows_that_would_be_too_short_are_not_drawn(ramp_windows):
    elements = torch.tensor([0.5, 0.75, 1.0])[torch.arange(21) % 3]
    drawn = list(TestSet(ramp_windows, ACTION, elements).groups(3, 2))
    assert [element.item() for element, _ in drawn] == [0.75, 1]  # 1/2 would need 9 + 8 frames of 6 + 4
    index = torch.cat([index for _, index in drawn])
    assert sorted(index.tolist()) == [i for i in range(21) if i % 3]


@pytest.mark.parametrize("f", [1, 1.5, 2])
def test_equivariance_error_knows_that_time_is_stretched(f):
    """On a flow linear in time linear extrapolation is equivariant; a forecast blind to the rate is not."""
    frames = ramp(6, 16, 32, first=-5).mean((-1, -2), keepdim=True).expand(1, 6, 2, 16, 32)

    def extrapolate(frames, mask):
        return frames[:, -1:] + torch.arange(1, 5)[:, None, None, None] * (frames[:, -1:] - frames[:, -2:-1])

    def blind(frames, mask):
        return frames[:, -1:] + torch.arange(1, 5)[:, None, None, None]

    assert equivariance_error(extrapolate, ACTION, factors(f), frames)["relative"] < 1e-10
    assert (equivariance_error(blind, ACTION, factors(f), frames)["relative"] > 0.1) == (f > 1)


def test_a_run_tests_every_factor(data_dir, tmp_path):
    flags = "--architecture Unet --symmetry Scale --input_length 4 --output_length 2 --batch_size 8 --width 0.125"
    flags += f" --num_scales 3 --num_epoch 1 --device cpu --data_dir {data_dir} --results {tmp_path}"
    assert exit_code(lambda: run_model.main(flags.split())) == 0
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    table = np.load(data_dir / "rbc" / "test_scale.npz")["elements"]
    drawn = {f"{f:g}": int((table == f).sum()) for f in np.unique(table)}
    for part in (metrics["scores"], metrics["baselines"]["persistence"]):
        assert {f: row["windows"] for f, row in part["Scale"]["by_factor"].items()} == drawn
    assert {"rmse", "ese", "windows"} < set(metrics["scores"]["Scale"]["by_factor"]["3"])
    errors = metrics["equivariance_error"]["Scale"]["by_factor"]
    assert errors["1"]["relative"] == 0
    assert errors["3"]["relative"] > 0


def test_factors_of_the_release(tmp_path, capsys):
    np.save(tmp_path / "raw.npy", np.random.default_rng(0).standard_normal((60, 2, 32, 64), np.float32))
    command = f"rbc --raw {tmp_path}/raw.npy --stride 1 --tile 32 --history 6 --horizon 10 --data_dir {tmp_path}"
    data_prep.main([*command.split(), "--scale_factors", "release"])
    table = np.load(tmp_path / "rbc" / "test_scale.npz")["elements"]
    assert set(table) - {1, 1.25, 1.5, 2, 3}
    assert 0.5 <= table.min() <= table.max() <= 5


def test_factors_of_the_release_want_large_tiles(capsys):
    arguments = "rbc --raw x.npy --tile 16 --scale_factors release".split()
    assert exit_code(lambda: data_prep.main(arguments)) == 2
    assert "--tile must be at least 32, got 16" in capsys.readouterr().err


@pytest.mark.parametrize("flags", ["--augment Scale", "--augment UM,scale"])
def test_augmentation_by_scale_is_refused(flags, capsys):
    assert exit_code(lambda: run_model.main(flags.split())) == 2
    assert "--augment Scale: samples of a batch would differ in size" in capsys.readouterr().err
