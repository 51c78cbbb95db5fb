"""The Fourier neural operator: exact shifts of a periodic box, modes that know no grid, and what it goes with."""

import math

import pytest
import torch

import run_model
from models import SYMMETRIES, build_model
from models.fourier import LAYERS, MODES, PROJECTION, WIDTH, SpectralConv2d
from utils import exit_code

EXACT, BROKEN = 1e-12, 1e-3
SIZES = [(16, 32), (9, 30), (64, 12), (1, 5)]


def make(architecture="FNO", width=0.25, seed=0, **options):
    torch.manual_seed(seed)
    return build_model(architecture, "None", 3, width=width, **options).double().eval()


def error(net, g, act, x):
    """max |f(g x) - g f(x)| / max |f(x)|."""
    with torch.no_grad():
        expected = act(g, net(x)[:, None])[:, 0]
        return ((net(act(g, x)) - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("fields", [("vector",), ("scalar",), ("vector", "scalar")], ids="+".join)
@pytest.mark.parametrize("size", SIZES)
def test_shifts_of_a_periodic_box_are_exact(size, fields):
    """Of any grid, finer or coarser than its modes. The convolutions, which pad with zeros, are the control."""
    action = SYMMETRIES["None"].on(fields)
    x = torch.randn(2, 3, action.components, *size, dtype=torch.float64)
    g = torch.tensor([[3, -2], [-7, 5]])
    assert error(make(fields=fields), g, action.act, x) < EXACT
    assert error(make("ConvNet", fields=fields), g, action.act, x) > BROKEN


def band_limited(size, coefficients):
    """``(1, channels, H, W)``: the sum of cosines with numbers of waves (row, column) on a grid of that size."""
    y, x = torch.meshgrid(*(torch.arange(n).double() / n for n in size), indexing="ij")
    field = 0
    for (row, column), amplitudes in coefficients.items():
        field = field + amplitudes[:, None, None] * torch.cos(2 * math.pi * (row * y + column * x) + amplitudes[0])
    return field[None]


def test_a_layer_does_the_same_at_every_resolution():
    """On a field whose waves every grid holds, the points that two grids share get the same values."""
    torch.manual_seed(0)
    modes = [(0, 0), (1, 0), (0, 3), (2, -3), (-3, 2), (3, 3)]
    coefficients = {mode: torch.randn(4, dtype=torch.float64) for mode in modes}
    layer = SpectralConv2d(4, 5).double()
    fine = layer(band_limited((48, 64), coefficients))
    for size in ((24, 32), (8, 8), (12, 16)):
        coarse = layer(band_limited(size, coefficients))
        steps = 48 // size[0], 64 // size[1]
        torch.testing.assert_close(coarse, fine[:, :, :: steps[0], :: steps[1]], rtol=0, atol=1e-12)
    wave = {(0, MODES): torch.ones(4, dtype=torch.float64)}
    assert layer(band_limited((48, 64), wave)).abs().max() < 1e-12  # beyond its modes there is nothing
    for nyquist in ((4, 0), (0, 4)):  # a finer grid could not tell which wave it is
        assert layer(band_limited((8, 8), {nyquist: torch.ones(4, dtype=torch.float64)})).abs().max() < 1e-12


def test_a_net_does_nearly_the_same_at_every_resolution():
    """What activations add beyond the band is alike once the grid holds it: the error falls to rounding."""
    torch.manual_seed(0)
    coefficients = {mode: torch.randn(6, dtype=torch.float64) for mode in [(0, 0), (1, 0), (0, 2), (1, -1)]}
    net, finest = make(), 128

    def forecast(size):
        with torch.no_grad():
            return net(band_limited((size, size), coefficients).unflatten(1, (3, 2)))

    reference = forecast(finest)
    errors = [
        (forecast(n) - reference[..., :: finest // n, :: finest // n]).abs().max().item() for n in (8, 16, 32, 64)
    ]
    assert errors[0] > 1e-4  # an eighth of the grid is not enough
    assert all(finer < 0.1 * coarser for coarser, finer in zip(errors[:2], errors[1:], strict=False))
    assert errors[-1] < 1e-8


def test_number_of_parameters():
    width, projection, components = WIDTH // 2, PROJECTION // 2, 3
    lifting = (5 * components + 1) * width
    layer = 2 * (2 * MODES * MODES) * width**2 + (width + 1) * width
    ends = (width + 1) * projection + (projection + 1) * components
    net = build_model("fno", "None", 5, width=0.5, fields=("scalar", "vector"))
    assert sum(p.numel() for p in net.parameters()) == lifting + LAYERS * layer + ends


def test_every_parameter_learns():
    net = make()
    net(torch.randn(2, 3, 2, 32, 32, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize(("frame", "g"), [("UM", [[3.0, -4.0]]), ("Mag", [1.7]), ("Rot", [90.0])])
def test_frames_of_reference(frame, g):
    x, g = torch.randn(1, 3, 2, 16, 16, dtype=torch.float64), torch.tensor(g, dtype=torch.float64)
    assert error(make(frame=[frame]), g, SYMMETRIES[frame].act, x) < EXACT
    assert error(make(), g, SYMMETRIES[frame].act, x) > BROKEN


def test_in_bfloat16():
    net, x = make().float(), torch.randn(1, 3, 2, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = net(x).float()
    torch.testing.assert_close(found, net(x).detach(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    "flags", ["--symmetry=UM", "", "--symmetry=None --relaxed=1", "--symmetry=None --variant=replicate"]
)
def test_what_it_does_not_go_with(flags, capsys):
    assert exit_code(lambda: run_model.main(["--architecture=FNO", *flags.split()])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "FNO is a plain net: it goes with symmetry None" in line


def test_no_net_of_layers_it_has_not():
    with pytest.raises(ValueError, match="FNO is a plain net"):
        build_model("FNO", "Rot", 3)


def test_a_run(data_dir, tmp_path):
    flags = (
        "--architecture FNO --symmetry None --frame UM --input_length 4 --output_length 2 --batch_size 8 --width 0.1"
    )
    flags += f" --num_epoch 1 --device cpu --data_dir {data_dir} --results {tmp_path}"
    assert exit_code(lambda: run_model.main(flags.split())) == 0
