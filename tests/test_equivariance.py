"""The promise: f(g x) = g f(x) to rounding for whole nets of every architecture, whatever the data's fields, with land.

What is exact and what is not stands in docs/symmetries.md; ``python -m tests.test_equivariance`` writes its table.
"""

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from models import FRAMES, SKELETONS, SYMMETRIES, build_model
from utils import roll_out

DOCS = Path(__file__).parents[1] / "docs" / "symmetries.md"
FIELDS = [("vector",), ("scalar",), ("vector", "scalar")]
FRAMED = [(), *((name,) for name in FRAMES), FRAMES]
EXACT, BROKEN = 1e-10, 1e-6


def elements(name, fields, far=False):
    """Group elements for a batch of two, near or far from the identity."""
    moving = sum(SYMMETRIES["UM"].on(fields).moving)
    return {
        "UM": torch.tensor([[1.0, -0.7], [-0.5, 2.0]])[:, :moving] * (100 if far else 1),
        "Mag": torch.tensor([[0.5, 1.6], [1.8, 0.3]])[:, : len(fields)].squeeze(1) * (1e-3 if far else 1),
        "Rot": torch.tensor([90.0, 270.0]) * (2 if far else 1),
    }[name].double()


def error(net, name, fields, far=False, steps=1):
    """|f(g x) - g f(x)| / |g f(x)| of a roll-out over land, the larger of two samples."""
    symmetry, g = SYMMETRIES[name].on(fields), elements(name, fields, far)
    generator = torch.Generator().manual_seed(7)
    height = max(8, net.size_multiple)
    mask = torch.rand(2, 1, height, 2 * height, generator=generator) < 0.8
    x = torch.randn(2, net.input_length, symmetry.components, *mask.shape[2:], generator=generator).double()
    x = x * mask[:, None]
    with torch.no_grad():
        expected = symmetry.act(g, roll_out(net, x, steps, mask))
        forecast = roll_out(net, symmetry.act(g, x), steps, symmetry.act_on_mask(g, mask, x))
    return ((forecast - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


def make(architecture, symmetry, fields, frame=(), training=False):
    """A small net whose biases and running statistics are large and random: no symmetry holds by their accident."""
    torch.manual_seed(0)
    net = build_model(architecture, symmetry, 3, width=0.03, fields=fields, frame=frame).double()
    for name, tensor in net.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            nn.init.normal_(tensor)
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
    return net.train(training)


def is_exact(symmetry, frame, name):
    """What the theory says: nets keep their own symmetry and those of their frames; scale nets keep magnitude, too."""
    return name in (symmetry, *frame) or (symmetry, name) == ("Scale", "Mag")


@pytest.mark.parametrize("fields", FIELDS, ids="+".join)
@pytest.mark.parametrize("architecture", SKELETONS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_nets_keep_what_they_should_and_nothing_else(symmetry, architecture, fields):
    """Whatever is not exact is a control: a test that it passed by accident could not fail."""
    for frame in FRAMED:
        net = make(architecture, symmetry, fields, frame)
        for name in FRAMES:
            found = error(net, name, fields)
            if is_exact(symmetry, frame, name):
                assert found < EXACT, (frame, name)
                if frame in ((), FRAMES):
                    assert error(net, name, fields, far=True) < EXACT, (frame, name)
            else:
                assert found > BROKEN, (frame, name)


@pytest.mark.parametrize("symmetry", ["None", "Rot"])
def test_in_training_mode(symmetry):
    """Batch norms take their statistics from the batch, over the group as over the samples."""
    for architecture, fields in itertools.product(SKELETONS, FIELDS):
        net = make(architecture, symmetry, fields, ("UM", "Mag"), training=True)
        turned = torch.full((2,), 90.0)
        x = torch.randn(2, 3, SYMMETRIES["Rot"].on(fields).components, 16, 16).double()
        rotation = SYMMETRIES["Rot"].on(fields)
        with torch.no_grad():
            expected = rotation.act(turned, net(x)[:, None])[:, 0]
            found = (net(rotation.act(turned, x)) - expected).norm() / expected.norm()
        assert (found < EXACT) == (symmetry == "Rot")


def table():
    """What every net keeps exactly, as Markdown: the largest error of all architectures and fields decides."""
    lines = ["| `--symmetry` | `--frame` | uniform motion | magnitude | quarter turns |", "|---|---|---|---|---|"]
    for symmetry, frame in itertools.product(SYMMETRIES, FRAMED):
        cells = []
        for name in FRAMES:
            nets = [(make(a, symmetry, fields, frame), fields) for a, fields in itertools.product(SKELETONS, FIELDS)]
            cells.append("exact" if max(error(net, name, fields) for net, fields in nets) < EXACT else "-")
        lines.append(f"| {symmetry} | {','.join(frame) or '-'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_table_in_the_docs_is_that_of_the_theory():
    """The table was measured; the tests above measure that theory and nets agree."""
    rows = [line.strip("| ").split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    rows = {(row[0], row[1]): row[2:] for row in rows if row[0] in SYMMETRIES and len(row) == 5}
    assert len(rows) == len(SYMMETRIES) * len(FRAMED)
    for symmetry, frame in itertools.product(SYMMETRIES, FRAMED):
        expected = ["exact" if is_exact(symmetry, frame, name) else "-" for name in FRAMES]
        assert rows[symmetry, ",".join(frame) or "-"] == expected


if __name__ == "__main__":
    begin, end = "<!-- tests.test_equivariance -->\n", "<!-- end -->"
    before, _, rest = DOCS.read_text().partition(begin)
    DOCS.write_text(f"{before}{begin}\n{table()}\n\n{end}{rest.partition(end)[2]}")
