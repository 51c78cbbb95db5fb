"""Compiled nets are the nets, for any number of samples; without a compiler there is one line."""

import copy
import shutil

import pytest
import torch
import torch._inductor.config

import run_model
from evaluation.compiled import compile_net
from models import SYMMETRIES, build_model
from utils import exit_code

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")  # torch's own, where it first compiles
NETS = [("FNO", "None"), *((name, symmetry) for name in ("ConvNet", "ResNet", "Unet") for symmetry in SYMMETRIES)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks at it
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # dynamo instantiates autograd functions
@pytest.mark.parametrize(("architecture", "symmetry"), NETS)
def test_compiled_nets_are_the_same_functions(architecture, symmetry, monkeypatch):
    """Forecasts, gradients and the statistics of batch norms, of two numbers of samples; one to 18 minutes a net."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = build_model(architecture, symmetry, 3, width=0.0625).double()
    compiled = copy.deepcopy(net)
    compile_net(compiled, torch.device("cpu"))
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)  # nothing may run as it is
    for samples in (2, 3):
        x = torch.randn(samples, 3, 2, 16, 16, dtype=torch.float64, requires_grad=True)
        results = []
        for model in (net, compiled):
            model.zero_grad()
            forecast = model.train()(x)
            found = [forecast, *torch.autograd.grad(forecast.square().sum(), [x, *model.parameters()])]
            with torch.no_grad():
                results.append([*found, model.eval()(x), *model.buffers()])
        for ours, expected in zip(*reversed(results), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10 * max(1, expected.abs().max().item()))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_without_a_compiler(data_dir, tmp_path, capsys, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    results = tmp_path / "results"
    flags = ["--architecture=Unet", "--input_length=4", "--output_length=1", "--batch_size=8", "--width=0.05"]
    flags += ["--num_epoch=1", "--device=cpu", "--test_sets=test", f"--data_dir={data_dir}", f"--results={results}"]
    assert exit_code(lambda: run_model.main([*flags, "--compile"])) == 2
    assert "--compile: torch cannot compile here; it needs a C++ compiler" in capsys.readouterr().err
    assert not results.exists()
    assert exit_code(lambda: run_model.main(flags)) == 0
    (run,) = results.iterdir()
    evaluation = [f"--evaluate={run}", f"--data_dir={data_dir}", "--device=cpu", "--compile"]
    assert exit_code(lambda: run_model.main(evaluation)) == 2  # it is not ignored there
    assert "torch cannot compile here" in capsys.readouterr().err
