"""What the rotation nets make of any angle.

    python -m evaluation.rotation                   # untrained nets; about a minute
    python -m evaluation.rotation results/*/        # the nets of these runs, beside each other

Under quarter turns they are exact, border and all. Between them the grid does not turn with the flow: this table has
the relative errors |f(R x) - R f(x)| / |f(x)| of nets in the disc, for smooth vortices of a radius of 4 cells that are
turned in theory, not on the grid. The spline by which f(x) is turned has an error of 1e-3 to 1e-4.
"""

import sys
from pathlib import Path

from flows.arguments import Parser


def parse_args(argv=None):
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="*", help="folders of runs with weights, of nets that read a velocity (default: none)")
    add("--architecture", nargs="+", help="(default: all that layers of rotation make)")
    add("--angle", type=float, nargs="+", default=[90, 45, 22.5, 15], help="in degrees (default 90 45 22.5 15)")
    add("--width", type=float, default=0.125, help="factor on every hidden width (default 0.125)")
    add("--kernel_size", type=int, default=3, help="odd side of the kernels (default 3)")
    add("--seeds", type=int, default=3, help="flows to average over, each of another net where untrained (default 3)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

import numpy as np
import scipy.ndimage
import torch

from evaluation.predict import load_net
from models import SKELETONS, build_model, match
from utils import InputError, exit_code

NETS = {"None": ("None", {}), **{f"C_{n}": ("Rot", {"rotation_order": n}) for n in (4, 8, 16)}}


def vortices(frames, size, angle, seed):
    """Moving vortices with a radius of 4 cells, turned by ``angle`` degrees exactly: ``(1, frames, 2, size, size)``."""
    rng, radians = np.random.default_rng(seed), np.deg2rad(angle)
    cos, sin = np.cos(radians), np.sin(radians)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    x, y = cos * x + sin * y, cos * y - sin * x  # R^-1 x
    flow = np.zeros((1, frames, 2, size, size))
    for _ in range(20):
        (cx, cy), velocity, strength = rng.uniform(-size / 4, size / 4, 2), rng.normal(size=2), rng.normal()
        for t in range(frames):
            dx, dy = x - cx - velocity[0] * t / 2, y - cy - velocity[1] * t / 2
            stream = strength * np.exp(-(dx**2 + dy**2) / 32)
            u, v = -dy * stream, dx * stream
            flow[0, t] += np.stack([cos * u - sin * v, sin * u + cos * v])
    return torch.from_numpy(flow)


def turn_by_splines(frame, angle):
    """R w(R^-1 x) of one frame ``(1, 2, H, H)`` by quintic splines, far better than the nets are equivariant."""
    radians, size = np.deg2rad(angle), frame.shape[-1]
    cos, sin = np.cos(radians), np.sin(radians)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    places = np.stack([cos * y - sin * x, cos * x + sin * y]) + (size - 1) / 2
    u, v = (scipy.ndimage.map_coordinates(c, places, order=5, mode="nearest") for c in frame[0].numpy())
    return torch.from_numpy(np.stack([cos * u - sin * v, sin * u + cos * v]))[None]


def disc(size):
    """The points, of ``size`` x ``size``, that any rotation keeps well inside the frame."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return torch.from_numpy(x**2 + y**2 < (0.45 * size) ** 2)


def untrained(architecture, symmetry, input_length, width, seed=0, kernel_size=3, **options):
    """A net with its initial weights, in evaluation mode, whose batch norms have seen vortices; float64."""
    torch.manual_seed(seed)
    model = build_model(architecture, symmetry, input_length, kernel_size, width, **options).double().train()
    with torch.no_grad():
        for other in range(10, 14):
            model(vortices(input_length, 64, 0, other))
    return model.eval()


def rotation_error(model, angle, seed=0, size=64):
    """|f(R x) - R f(x)| / |f(x)| in the disc, of smooth vortices and any angle."""
    with torch.no_grad():
        expected = turn_by_splines(model(vortices(model.input_length, size, 0, seed)), angle)
        difference = model(vortices(model.input_length, size, angle, seed)) - expected
    inside = disc(size)
    return (difference[..., inside].norm() / expected[..., inside].norm()).item()


def trained(folder):
    """The net of a run, float64; InputError if it has no weights, or reads anything but a velocity on any grid."""
    config, model = load_net(folder, torch.device("cpu"))
    if config["fields"] != ["vector"] or model.symmetry.tile is not None:
        raise InputError(f"{folder} is of a net that does not read velocities alone, or only on its own grid")
    return model.double()


def nets(args):
    """What each line of the table is of, and its nets: one per flow, of a run the same."""
    for folder in args.runs:
        yield folder.name, [trained(folder)] * args.seeds
    if args.runs:
        return
    for architecture in args.architecture or SKELETONS:
        for name, (symmetry, options) in NETS.items():
            try:
                architecture = match(architecture, SKELETONS, "architecture")
                sizes = {"input_length": 5, "width": args.width, "kernel_size": args.kernel_size}
                models = [untrained(architecture, symmetry, seed=k, **sizes, **options) for k in range(args.seeds)]
            except ValueError as error:
                raise InputError(error) from None
            yield f"{architecture:8}{name}", models


def main(argv=None):
    args = parse_args(argv)
    if args.seeds < 1:
        raise InputError(f"--seeds must be positive, got {args.seeds}")
    width = max([15, *(len(folder.name) + 1 for folder in args.runs)])
    print(f"{'degrees':{width}}" + "".join(f"{angle:8g}" for angle in args.angle))
    for name, models in nets(args):
        errors = [np.mean([rotation_error(net, angle, k) for k, net in enumerate(models)]) for angle in args.angle]
        print(f"{name:{width}}" + "".join(f"{error:8.3f}" for error in errors), flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
