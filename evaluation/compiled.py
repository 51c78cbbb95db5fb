"""Nets that torch compiles: for a GPU with Triton, for a CPU with a C++ compiler."""

import torch

from utils import InputError

NEEDED = {"cuda": "Triton", "cpu": "a C++ compiler, such as g++ or what the variable CXX names"}


def compile_net(model, device, graphs=False):
    """Have torch compile a net, in place, when it is called; what cannot be compiled runs as it is.

    Args:
        graphs: launch all kernels of a pass at once, as a CUDA graph: for small nets. The next pass overwrites a
            forecast in float32 that was not copied.

    Raises:
        InputError: nothing can be compiled here, which shows within seconds.
    """
    torch._dynamo.config.suppress_errors = False
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception:  # of many kinds, with pages of text
        raise InputError(f"--compile: torch cannot compile here; it needs {NEEDED[device.type]}") from None
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = 64  # training and testing want more than 8: batches of several sizes
    # On a CPU the gradient of replicated borders has other strides than torch expects where it chose the layout.
    model.compile(options={"layout_optimization": device.type == "cuda", "triton.cudagraphs": graphs})
