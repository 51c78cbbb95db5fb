"""A run's net as a file: the same forecasts, for any number of samples and any grid."""

import json
from itertools import product

import pytest
import torch

import run_model
from evaluation.flags import parse_args
from models import SKELETONS, SYMMETRIES
from utils import exit_code, save_checkpoint

MEAN, STD = 0.5, 2.0


@pytest.fixture
def finished(tmp_path):
    """Makes the folder of a finished run, and returns it with its net."""

    def make(architecture, symmetry, frame="", variant="", padding=""):
        flags = f"--architecture={architecture} --symmetry={symmetry} --frame={frame} --input_length=4 --width=0.03"
        flags += f" --variant={variant}" + f" --padding={padding}" * bool(padding)
        flags += {"Rot": " --rotation_order=4", "Scale": " --num_scales=2 --scale_interaction=1"}.get(symmetry, "")
        args = parse_args(flags.split())
        args.device, args.tile, args.periodic = torch.device("cpu"), [32, 48], ["x", "y"] if padding else []
        meta = {"id": "a", "fields": ["vector"], "mean": [MEAN], "std": [STD], "units": None}
        args.results = tmp_path
        folder, config, _ = run_model.find_run(args, meta)
        folder.mkdir()
        model = run_model.make_model(args, ["vector"])
        (folder / "config.json").write_text(json.dumps(config))
        save_checkpoint(folder / "best.pt", model=model.state_dict())
        return folder, model.eval()

    return make


def export(folder, path):
    return exit_code(lambda: run_model.main([f"--predict={folder}", f"--export={path}"]))


CASES = [("ConvNet", "None", "")]  # a net that knows units: in those of motion and magnitude they cancel
CASES += [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in [("ConvNet", "None", "UM,Mag,Rot"), *product(SKELETONS, SYMMETRIES, [""])]
]


@pytest.mark.parametrize(("architecture", "symmetry", "frame"), CASES)
def test_an_exported_net_forecasts_the_same(finished, tmp_path, capsys, architecture, symmetry, frame):
    """In the units of the raw data, for other numbers of samples and grids than it was traced with."""
    folder, model = finished(architecture, symmetry, frame)
    assert export(folder, tmp_path / "net.pt2") == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 'net.pt2'}: (n, 4, 2, H, W)" in out
    assert f"{folder} is not finished: these are its best weights so far" in out
    net = torch.export.load(tmp_path / "net.pt2").module()
    with torch.no_grad():
        for shape in ((1, 4, 2, 32, 32), (5, 4, 2, 64, 48)):
            frames = STD * torch.randn(shape) + MEAN
            expected = model((frames - MEAN) / STD) * STD + MEAN
            assert (net(frames) - expected).norm() <= 1e-5 * expected.norm()
            assert (net(frames + 0.1) - expected).norm() > 1e-4 * expected.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, and those of what it calls
@pytest.mark.parametrize("padding", ["", "circular"])
@pytest.mark.parametrize(("architecture", "symmetry"), [*product(SKELETONS, SYMMETRIES)])
def test_an_onnx_file_forecasts_the_same(finished, tmp_path, architecture, symmetry, padding):
    """By onnxruntime, for other numbers of samples and grids than the net was traced with; half a minute a net."""
    for needed in ("onnx", "onnxscript"):
        pytest.importorskip(needed)
    runtime = pytest.importorskip("onnxruntime")
    folder, model = finished(architecture, symmetry, padding=padding)
    assert export(folder, tmp_path / "net.onnx") == 0
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    (read,) = session.get_inputs()
    for shape in ((1, 4, 2, 32, 32), (5, 4, 2, 64, 48)):
        frames = STD * torch.randn(shape) + MEAN
        (found,) = session.run(None, {read.name: frames.numpy()})
        with torch.no_grad():
            expected = model((frames - MEAN) / STD) * STD + MEAN
        assert (torch.from_numpy(found) - expected).norm() <= 1e-5 * expected.norm()


def test_an_fno_is_refused(finished, tmp_path, capsys):
    folder, _ = finished("FNO", "None")
    assert export(folder, tmp_path / "net.pt2") == 2
    assert capsys.readouterr().err == "error: --export does not take an FNO\n"


def test_nets_of_one_grid_are_exported_for_it(finished, tmp_path, capsys):
    folder, model = finished("ConvNet", "None", variant="RConv")
    assert export(folder, tmp_path / "net.pt2") == 0
    assert f"wrote {tmp_path / 'net.pt2'}: (n, 4, 2, 32, 48)" in capsys.readouterr().out
    net = torch.export.load(tmp_path / "net.pt2").module()
    with torch.no_grad():
        frames = STD * torch.randn(5, 4, 2, 32, 48) + MEAN
        expected = model((frames - MEAN) / STD) * STD + MEAN
        assert (net(frames) - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--export=net.pt2", "--export goes with --predict RUN"),
        ("--predict=run --export=net.pt2 --frames=x.npy", "--export goes with --predict RUN, without --frames"),
        ("--predict=run --export=net.pth", "--export net.pth must end in .pt2 or .onnx"),
        ("--predict=run --evaluate=run --export=net.pt2", "--evaluate and --predict are two calls"),
        ("--predict=run --export=net.pt2", "no run with weights in run"),
    ],
)
def test_bad_input(capsys, flags, message):
    assert exit_code(lambda: run_model.main(flags.split())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_onnx_of_what_torch_cannot_write(finished, tmp_path, capsys, monkeypatch):
    folder, _ = finished("ConvNet", "None")
    capsys.readouterr()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)

    def fails(*arguments, **options):
        raise RuntimeError("pages of text")

    monkeypatch.setattr(torch.onnx, "export", fails)
    assert export(folder, tmp_path / "net.onnx") == 2
    assert capsys.readouterr().err == "error: torch cannot write this net as ONNX; export it to a .pt2 file\n"
    assert not (tmp_path / "net.onnx").exists()


def test_onnx_where_there_is_none(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    folder, _ = finished("ConvNet", "None")
    assert export(folder, tmp_path / "net.onnx") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "ONNX needs onnx and onnxscript: pip install onnx onnxscript" in line
    assert not (tmp_path / "net.onnx").exists()
    assert export(folder, tmp_path / "nowhere" / "net.pt2") == 2
    assert "--export" in capsys.readouterr().err
