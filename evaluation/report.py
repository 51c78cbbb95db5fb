"""The paper's tables, and the verdict on each of its claims, from finished runs.

    python -m evaluation.report results/                 # tables for a terminal; several folders may be given
    python -m evaluation.report results/ --markdown      # or --csv, one line per number
    python -m evaluation.report results/ --verdicts      # is each claim of the paper reproduced, and by which numbers
    python -m evaluation.report results/ --measures      # other measures: VRMSE, bands of wavenumber, correlation time
    python -m evaluation.report results/ --rates         # which learning rate was the best on validation
    python -m evaluation.report results/ --against "UM$" # differences from the row that this matches, with intervals
    python -m evaluation.report results/ --factors       # scale nets and plain nets at every upscaling factor
    python -m evaluation.report results/ --figures DIR   # draw them by factor, number of samples and layer
    python -m evaluation.report results/ --collect evaluation/evidence/NAME      # keep the runs' numbers, no weights
    python -m evaluation.report --readme README.md       # write the tables between the README's markers again

Runs that differ in the seed only are one row, mean +- sample standard deviation over n seeds. A marker in the README,
<!-- report: FOLDER... [--verdicts | --measures | ...] --> ... <!-- end -->, holds the command's own arguments.
"""

import argparse
import re
from pathlib import Path

from flows.arguments import Parser


def regex(word):
    """An argparse type: a regular expression."""
    try:
        re.compile(word)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{word!r} is no regular expression: {error}") from None
    return word


def parser_of_results(**options):
    """The arguments that a marker in the README may have, too."""
    parser = Parser(**options)
    parser.add_argument("results", type=Path, nargs="*", help="folders that hold runs")
    subject = parser.add_mutually_exclusive_group()
    for name, words in {
        "verdicts": "judge the paper's claims instead (evaluation/claims.py)",
        "rmse": "the RMSE tables alone",
        "measures": "measures of other benchmarks instead (docs/measures.md)",
        "rates": "validation by learning rate instead",
        "factors": "compare scale nets with plain nets by upscaling factor, and by frame, instead",
    }.items():
        subject.add_argument(f"--{name}", action="store_const", dest="subject", const=name, help=words)
    subject.add_argument(
        "--against", type=regex, default="", metavar="REGEX", help="differences from the row that it matches, instead"
    )
    parser.add_argument(
        "--match", type=regex, default="", metavar="REGEX", help="only rows whose data set and label it matches"
    )
    parser.set_defaults(subject="scores")
    return parser


def parse_args(argv=None):
    parser = parser_of_results(description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_const", dest="form", const="markdown", default="text")
    form.add_argument("--csv", action="store_const", dest="form", const="csv", help="one line per number")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="draw skill by upscaling factor, errors by number of samples, how far relaxed nets leave their symmetry",
    )
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="copy the runs' config, log and metrics there")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write the reports between a file's markers again")
    args = parser.parse_args(argv)
    if args.form == "csv" and (args.against or args.subject != "scores"):
        parser.error("--csv prints every number there is; of the other flags only --match goes with it")
    return args


if __name__ == "__main__":
    parse_args()  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

import csv
import io
import statistics
import sys
from dataclasses import dataclass, field
from functools import cache, partial

from evaluation.claims import verdicts
from evaluation.document import rewritten
from evaluation.measures import BANDS
from evaluation.paired import rmse_difference, seed_difference
from evaluation.runs import (
    SETTINGS,
    TUNED,
    alike_but_for_tuning,
    chosen,
    collect,
    comparable,
    group_runs,
    load_runs,
    missing_runs,
    scale_and_plain,
    unchanged,
)
from models import SYMMETRIES
from utils import TEST_STEPS, InputError, exit_code, replacing

# RMSE and ESE, mean and std over 5 seeds, on future time and on another domain, from the README of the authors' code
# (Rose-STL-Lab/Equivariant-Net, e6f4c84): ocean currents of 2021 and 2022.
AUTHORS_OCEAN = {
    ("ResNet", "None"): {"test": ((0.82, 0.02), (1.09, 0.13)), "domain": ((1.42, 0.02), (1.23, 0.14))},
    ("ResNet", "UM"): {"test": ((0.80, 0.01), (1.10, 0.02)), "domain": ((1.29, 0.01), (1.19, 0.03))},
    ("ResNet", "Mag"): {"test": ((0.79, 0.01), (1.01, 0.01)), "domain": ((1.29, 0.00), (1.02, 0.03))},
    ("ResNet", "Rot"): {"test": ((0.78, 0.01), (0.88, 0.01)), "domain": ((1.26, 0.01), (0.98, 0.01))},
    ("ResNet", "Scale"): {"test": ((0.76, 0.03), (0.98, 0.04)), "domain": ((1.25, 0.02), (1.00, 0.03))},
    ("Unet", "None"): {"test": ((0.78, 0.03), (1.17, 0.08)), "domain": ((1.30, 0.02), (1.25, 0.05))},
    ("Unet", "UM"): {"test": ((0.75, 0.01), (1.19, 0.02)), "domain": ((1.32, 0.02), (1.29, 0.00))},
    ("Unet", "Mag"): {"test": ((0.74, 0.01), (0.94, 0.01)), "domain": ((1.27, 0.02), (1.00, 0.03))},
    ("Unet", "Rot"): {"test": ((0.74, 0.02), (0.63, 0.00)), "domain": ((1.08, 0.02), (0.85, 0.01))},
    ("Unet", "Scale"): {"test": ((0.75, 0.00), (0.89, 0.04)), "domain": ((1.12, 0.00), (0.98, 0.02))},
}
# Of the paper's table for convection only this is known to us, from issue 3 of that repository.
PAPER_RBC = {("ResNet", "Rot"): {"test": ((0.65, None), None), "Rot": ((0.76, None), None)}}
PUBLISHED = {"Ocean": AUTHORS_OCEAN, "RBC": PAPER_RBC}
VORTICITY = ("measures", "vorticity_per_step", TEST_STEPS - 1)  # of a set's scores: that of the last frame
CAVEAT = {
    "Ocean": "theirs: the authors' README, other years and boxes; what it calls RMSE may be an MSE",
    "RBC": "theirs: the paper on rbc_data.pt, as far as known; the release, mended, gave .15 where it says .65",
}
MEASURES = ("rmse", "ese")
BEHIND = "not ahead of the best forecast without a net"
NUMBERS = ("vrmse", "correlation_time", *(f"rmse_{band}" for band in BANDS), "divergence", "divergence_of_truth")
NUMBERS += ("windows_without_land", "rings_resolved", "ese_resolved")
MISSING = """missing beside the others of the same sweep (a net that was never run takes the settings of another of its
architecture; run.sh may have better ones):"""


# ---------------------------------------------------------------- numbers


@dataclass
class Number:
    """Mean and standard deviation over n runs; ``best`` of its column and architecture."""

    mean: float
    std: float | None = None
    n: int = 1
    best: bool = False
    form: str = ".3f"

    def text(self, plus_minus, of=1):
        """In words; ``of`` is the number of runs in the row, said where this number has fewer."""
        words = format(self.mean, self.form)
        if self.std is not None:
            words += plus_minus + format(self.std, self.form)
        return words + (f" (n={self.n})" if self.n < of else "")


def number(group, *path, form=".3f"):
    """The group's number at ``path``, None where no run has it."""
    return number_of(group.values(*path), form)


def number_of(values, form=".3f"):
    """The mean of ``values`` with their standard deviation, None if there are none."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return Number(statistics.mean(values), std, len(values), form=form)


@dataclass
class Table:
    """A title, column names, rows of (label, cells), and a note; a cell is a Number, a text or None."""

    title: str
    columns: list
    rows: list
    note: str = ""
    blocks: list = field(default_factory=list)  # rows at which another architecture begins
    behind: set = field(default_factory=set)  # (row, column) of errors that a forecast without a net undercuts


# ---------------------------------------------------------------- tables


def tables_of(groups):
    """All tables of the groups of one data set."""
    tables = [*rmse_tables(groups), score_table(groups, "ese")]
    tables += [authors_table(groups), equivariance_table(groups), cost_table(groups)]
    return [table for table in tables if table is not None]


def table_of(groups, title, columns, cells, note=""):
    """A table with one row per group, its number of seeds first."""
    rows = [(group.label, [str(len(group.runs)), *cells(group)]) for group in groups]
    kinds = [group["architecture"] for group in groups]
    blocks = [i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]]
    return Table(f"{groups[0].title}: {title}", ["n", *columns], rows, note, blocks)


def test_sets(groups):
    """The test sets that any run has: original, other domain, transformed."""
    names = {name for group in groups for run in group.runs for name in run["scores"]}
    return [name for name in ("test", "domain", *SYMMETRIES) if name in names]


def add_persistence(table, cells):
    """Add a last row: ``cells``, of all runs, without their deviations."""
    table.blocks.append(len(table.rows))
    table.rows.append(("persistence", ["", *(cell and Number(cell.mean, form=cell.form) for cell in cells)]))


def rmse_tables(groups):
    """RMSE on every test set and, of data of several fields, by field."""
    by_field = ("measures", "rmse_per_field")
    fields = max((len(found) for group in groups for found in group.values("scores", "test", *by_field)), default=0)
    if not fields:
        return [score_table(groups, "rmse")]
    places = [(name, *by_field, i) for name in test_sets(groups) for i in range(fields)]

    def cells(group):
        return [number(group, "scores", *place) for place in places]

    columns = [f"{name} {i + 1}" for name, *_, i in places]
    note = "each in its own standard deviations, in the order of the data's fields"
    table = table_of(groups, "RMSE by field", columns, cells, note)
    mark_best(groups, table, min)
    mark_behind(groups, table, dict(zip(columns, places, strict=True)))
    still = [number_of([v for group in groups for v in group.values("baselines", "persistence", *at)]) for at in places]
    add_persistence(table, still)
    return [score_table(groups, "rmse"), table]


def score_table(groups, measure):
    """RMSE or ESE on every test set, the best of each column and architecture marked; RMSE with persistence."""
    names = test_sets(groups)
    table = table_of(
        groups,
        f"{measure.upper()} of 10 forecast frames",
        names,
        lambda group: [number(group, "scores", name, measure) for name in names],
    )
    mark_best(groups, table, min)
    if measure == "rmse":
        mark_behind(groups, table, {name: (name, "rmse") for name in names})
        table.blocks.append(len(table.rows))
        for baseline in dict.fromkeys(name for group in groups for run in group.runs for name in run["baselines"]):
            found = [[v for group in groups for v in group.values("baselines", baseline, n, "rmse")] for n in names]
            cells = [Number(statistics.mean(values)) if values else None for values in found]
            table.rows.append((baseline, ["", *cells]))
    return table


def mark_best(groups, table, best_of):
    """Mark the ``best_of`` (min or max) every column among the nets of one architecture, where there are several."""
    for architecture in {group["architecture"] for group in groups}:
        rows = [
            cells for group, (_, cells) in zip(groups, table.rows, strict=True) if group["architecture"] == architecture
        ]
        for column in list(zip(*rows, strict=True))[1:]:
            present = [cell for cell in column if cell is not None]
            if len(present) > 1:
                best_of(present, key=lambda cell: cell.mean).best = True


def mark_behind(groups, table, places):
    """Mark where a net has no skill: ``places`` in the scores are the errors that columns, by name, are made of."""
    for column, place in places.items():
        for row, group in enumerate(groups):
            skills = group.skills(*place)
            if skills and statistics.mean(skills) <= 0:
                table.behind.add((row, table.columns.index(column)))


def factor_tables(groups):
    """Scale nets beside the plain nets of their sweeps.

    Skill and ESE by upscaling factor, RMSE by forecast frame on the original flows.
    """
    tested = scale_and_plain(groups)
    if not tested:
        return []
    found = {factor for group in tested for scores in group.values("scores", "Scale", "by_factor") for factor in scores}
    factors = sorted(found, key=float)

    def skills(group):
        return [number_of(group.skills("Scale", "by_factor", factor, "rmse"), form=".2f") for factor in factors]

    def errors(group):
        return [number(group, "scores", "Scale", "by_factor", factor, "ese", form=".2f") for factor in factors]

    steps = {f"{i + 1}": ("test", "rmse_per_step", i) for i in range(TEST_STEPS)}

    def frames(group):
        return [number(group, "scores", *place, form=".2f") for place in steps.values()]

    columns = [f"x{factor}" for factor in factors]
    rivals = dict.fromkeys(name for group in tested for run in group.runs for name in run["baselines"])
    note = f"1 - RMSE / RMSE of {' or '.join(rivals)}, over 10 frames; 0 is no forecast"
    skill = table_of(tested, "skill by upscaling factor", columns, skills, note)
    spectrum = table_of(tested, "ESE by upscaling factor", columns, errors)
    by_frame = table_of(tested, "RMSE by forecast frame on test", steps, frames)
    mark_best(tested, skill, max)
    mark_best(tested, spectrum, min)
    mark_best(tested, by_frame, min)
    mark_behind(tested, by_frame, steps)
    return [skill, spectrum, by_frame]


def measure_tables(groups):
    """Measures of other benchmarks (``evaluation.measures``) on every test set of equal windows, with persistence."""
    errors = {
        "VRMSE 1": ("measures", "vrmse_per_step", 0),
        f"VRMSE 1-{TEST_STEPS}": ("measures", "vrmse"),
        **{f"RMSE {frame}": ("rmse_per_step", frame - 1) for frame in (1, TEST_STEPS // 2, TEST_STEPS)},
        **{f"{band} k": ("measures", f"rmse_{band}") for band in BANDS},
    }
    columns = errors | {
        "correlated": ("measures", "correlation_time"),
        "divergence": ("measures", "divergence"),
        "of truth": ("measures", "divergence_of_truth"),
        f"vorticity {TEST_STEPS}": VORTICITY,
        "ESE resolved": ("measures", "ese_resolved"),
    }

    def cells(some, *path):
        found = [[value for group in some for value in group.values(*path, *where)] for where in columns.values()]
        forms = [".1f" if name == "correlated" else ".3f" for name in columns]
        return [number_of(values, form) for values, form in zip(found, forms, strict=True)]

    def table_on(name, counts):
        note = (
            f"by forecast frame; RMSE in bands of k, and ESE, of the {' or '.join(map(str, sorted(counts)))} windows "
            "without land; docs/measures.md"
        )
        table = table_of(groups, f"measures on {name}", columns, lambda group: cells([group], "scores", name), note)
        mark_behind(groups, table, {column: (name, *where) for column, where in errors.items()})
        add_persistence(table, cells(groups, "baselines", "persistence", name))
        return table

    names = test_sets(groups)
    counts = [
        {n for of in groups for n in of.values("scores", name, "measures", "windows_without_land")} for name in names
    ]
    # a set without was measured by factor only, or before there were measures
    tables = [table_on(name, found) for name, found in zip(names, counts, strict=True) if found]
    bands = [(name, band) for name in names for band in BANDS if name in SYMMETRIES]

    def by_band(group):
        return [number(group, "equivariance_error", *band, form=".1e") for band in bands]

    if any(by_band(group).count(None) < len(bands) for group in groups):
        note = "|T f(x) - f(T x)| / |T f(x)| in bands of k, of windows without land; docs/measures.md"
        columns = [f"{name} {band}" for name, band in bands]
        tables.append(table_of(groups, "equivariance error by wavenumber", columns, by_band, note))
    return tables


def rates_table(groups):
    """Validation of the nets with which several learning rates or weight decays were tried, over the same seeds."""
    likes = [like for like in alike_but_for_tuning(groups) if len(like) > 1]
    if not likes:
        return []

    def tuned(group):
        return tuple(group[name] for name in TUNED)

    tried = sorted({tuned(group) for like in likes for group in like}, key=lambda settings: (-settings[1], settings[0]))
    several = len({decay for _, decay in tried}) > 1
    columns = [f"{rate:g}" + f"/{decay:g}" * several for rate, decay in tried]
    rows = []
    for like in likes:
        errors = {tuned(group): {run["seed"]: run["valid_rmse"] for run in group.runs} for group in like}
        compared = comparable(errors)
        found = {settings: number_of(values) for settings, values in compared.items()}
        if found:
            min(found.values(), key=lambda cell: cell.mean).best = True
        seeds = max(map(len, compared.values()), default=0)
        rows.append((like[0].label, [str(seeds), *(found.get(settings) for settings in tried)]))
    note = "RMSE of roll-outs over --valid_length frames; the other seeds take the best"
    title = f"{groups[0].title}: validation by learning rate" + "/weight decay" * several
    return [Table(title, ["n", *columns], rows, note)]


def difference_table(groups, reference):
    """Differences of every row from the one that ``reference`` matches, a regular expression as of ``--match``.

    Raises:
        InputError: more than one row matches.
    """
    found = [group for group in groups if re.search(reference, f"{group.title} {group.label}")]
    if not found:
        return []
    if len(found) > 1:
        raise InputError(f"--against {reference} matches {len(found)} rows: {', '.join(g.label for g in found[:5])}")
    (own,) = found
    others = [group for group in groups if group is not own]
    columns = {f"RMSE {name}": [rmse_difference(group, own, name) for group in others] for name in test_sets(groups)}
    by_seed = {"ESE test": ("ese",), f"vorticity {TEST_STEPS} test": VORTICITY}
    for name, path in by_seed.items():
        columns[name] = [seed_difference(group, own, "scores", "test", *path) for group in others]
    columns = {name: cells for name, cells in columns.items() if any(cells)}  # windows of many sizes have no errors
    rows = dict(zip(others, zip(*columns.values(), strict=True), strict=True))
    valid = format(own.mean("valid_rmse"), ".3f")
    counts = [
        f"{name.removeprefix('RMSE ')} {max(cell.blocks for cell in cells if cell)}"
        for name, cells in columns.items()
        if name not in by_seed
    ]
    over = f"seeds and blocks of windows: {', '.join(counts)}" if counts else "seeds"
    note = f"less {own.label}, whose validation is {valid}; 95 % intervals over {over}"

    def cells(group):
        return [number(group, "valid_rmse"), *(cell and str(cell) for cell in rows[group])]

    table = table_of(others, "differences", ["validation", *columns], cells, note)
    mark_behind(others, table, {name: (name.removeprefix("RMSE "), "rmse") for name in columns if name not in by_seed})
    return [table]


def authors_table(groups):
    """Ours beside what is published, for the paper's nets at its width on all data; None where there is no such net."""
    published = PUBLISHED.get(groups[0]["dataset"], {})
    groups = [group for group in groups if group["width"] == group["train_fraction"] == 1 and unchanged(group)]
    if not groups or not published:
        return None
    names = list(dict.fromkeys(name for row in published.values() for name in row))
    measures = MEASURES if groups[0]["dataset"] == "Ocean" else MEASURES[:1]
    columns = [f"{measure.upper()} {name}" for measure in measures for name in names]

    def cells(group):
        row = []
        for i, measure in enumerate(measures):
            for name in names:
                theirs = published.get((group["architecture"], group["symmetry"]), {}).get(name)
                row.append(number(group, "scores", name, measure, form=".2f"))
                row.append("not reported" if theirs is None else Number(*theirs[i], n=5, form=".2f"))
        return row

    headers = [word for column in columns for word in (column, "theirs")]
    table = table_of(groups, "beside the published numbers", headers, cells, CAVEAT[groups[0]["dataset"]])
    mark_behind(groups, table, {f"RMSE {name}": (name, "rmse") for name in names})
    return table


def equivariance_table(groups):
    """|T f(x) - f(T x)| relative to |T f(x)|, the largest of the seeds."""
    names = [name for name in test_sets(groups) if name in SYMMETRIES]

    def cells(group):
        found = [group.values("equivariance_error", name, "relative") for name in names]
        return [Number(max(values), n=len(values), form=".1e") if values else None for values in found]

    note = "|T f(x) - f(T x)| / |T f(x)| of roll-outs over 10 frames; the largest of the seeds"
    return table_of(groups, "relative equivariance error", names, cells, note)


def cost_table(groups):
    """Parameters, epochs, time and memory."""

    def cells(group):
        seconds = [value for run in group.runs for value in run["seconds"]]
        memory = group.values("peak_memory_mib")
        alive = group.mean("parameters_alive")
        return [
            f"{group['parameters']:,}",
            *([alive and f"{alive / group['parameters']:.0%}"] if pruned else []),
            number(group, "epochs", form=".4g"),
            f"{statistics.median(seconds):.1f}" if seconds else None,
            f"{max(memory):.0f}" if memory else None,
            ", ".join(dict.fromkeys(machine(run) for run in group.runs)),
        ]

    pruned = any(group.values("parameters_alive") for group in groups)
    columns = ["parameters", *["alive"] * pruned, "epochs", "s/epoch", "peak MiB", "machine"]
    note = (
        "alive: above 1e-6 after training; " * pruned
        + "s/epoch: median, validation included; peak MiB: tensors on a GPU, the whole process on a CPU"
    )
    return table_of(groups, "cost", columns, cells, note)


def machine(run):
    """The GPU's name, or the kind of processor and its threads."""
    words = run.get("machine") or "?"
    return words if str(run.get("device", "")).startswith("cuda") else f"{words} x {run.get('threads', '?')}"


# ---------------------------------------------------------------- formats


def cell_text(cell, of, plus_minus, best):
    """A cell in words, ``best.format(words)`` if it is the best of its column; ``of`` as in :meth:`Number.text`."""
    if not isinstance(cell, Number):
        return "-" if cell is None else cell
    words = cell.text(plus_minus, of)
    return best.format(words) if cell.best else words


def cell_rows(table, plus_minus, best, behind):
    """Every row of a table as a list of texts, the label first; ``behind`` is put after errors that are that."""
    rows = []
    for i, (label, cells) in enumerate(table.rows):
        texts = [cell_text(cell, int(cells[0] or 1), plus_minus, best) for cell in cells]
        rows.append([label, *(text + behind * ((i, j) in table.behind) for j, text in enumerate(texts))])
    return rows


def as_text(table):
    """Lines for a terminal; the best of a column carries a star, what is behind a forecast without a net a !."""
    rows = [["", *table.columns], *cell_rows(table, "+-", "{}*", "!")]
    marks = [[len(cell) - len(cell.rstrip("*!")) for cell in column] for column in zip(*rows, strict=True)]
    rows = [[cell + " " * (max(of) - of[i]) for cell, of in zip(row, marks, strict=True)] for i, row in enumerate(rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [table.title]
    for i, row in enumerate(rows):
        if i - 1 in table.blocks:
            lines.append("")
        cells = "".join(f"{cell:>{width + 2}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append(f"  {row[0]:{widths[0]}}{cells}".rstrip())
    return "\n".join([*lines, f"  ({table.note})"] if table.note else lines)


def as_markdown(table):
    """A Markdown table under a bold title; the best of a column is bold, what is behind carries a dagger."""
    note = "; ".join(filter(None, [table.note, table.behind and f"†: {BEHIND}"]))
    lines = [f"**{table.title}**" + (f" ({note})" if note else ""), ""]
    lines += ["| | " + " | ".join(table.columns) + " |", "|---|" + "---:|" * len(table.columns)]
    lines += [f"| {' | '.join(row)} |" for row in cell_rows(table, " ± ", "**{}**", " †")]
    return "\n".join(lines)


def as_csv(groups):
    """One line per number: what was run, the measure, the test set, mean, std and n."""
    options = list(dict.fromkeys(name for group in groups for name in group.options))
    settings = [*SETTINGS, *options]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["data", *settings, "measure", "set", "mean", "std", "n"])
    for group in groups:
        sets = test_sets([group])
        paths = [("scores", name, measure) for name in sets for measure in (*MEASURES, "ese_per_sample")]
        paths += [("baselines", "persistence", name, "rmse") for name in sets]
        paths += [("equivariance_error", name, size) for name in sets for size in ("absolute", "relative", *BANDS)]
        paths += [("scores", name, "measures", measure) for name in sets for measure in NUMBERS]
        paths += [(name,) for name in ("parameters", "parameters_alive", "train_windows", "epochs", "peak_memory_mib")]
        what = [
            "+".join(group[name]) if isinstance(group[name], list) else group.runs[0].get(name, "") for name in settings
        ]
        factors = sorted({f for scores in group.values("scores", "Scale", "by_factor") for f in scores}, key=float)
        by_factor = [("Scale", "by_factor", factor) for factor in factors]
        paths += [("scores", *which, measure) for which in by_factor for measure in (*MEASURES, "ese_per_sample")]
        paths += [("baselines", "persistence", *which, "rmse") for which in by_factor]
        for path in paths:
            cell = number(group, *path)
            if cell is not None:
                path = path[path[0] == "baselines" :]
                measure = f"{path[0]} {path[-1]}" if path[0] in ("persistence", "equivariance_error") else path[-1]
                where = " x".join(name for name in path[1:-1] if name not in ("by_factor", "measures"))
                writer.writerow(
                    [group.data, *what, measure, where, cell.mean, "" if cell.std is None else cell.std, cell.n]
                )
    return file.getvalue().rstrip("\n")


def verdict_lines(groups, markdown):
    """The verdicts as text: a line per claim, and under it one per finding; in Markdown these fold away.

    Claims without any share a last line.
    """
    lines, undecided = [], []
    for verdict in verdicts(groups):
        if not verdict.findings:
            undecided.append(str(verdict.number))
            continue
        head = f"Claim {verdict.number}: {verdict.word}"
        if markdown:
            lines += [f"- **{head}.** {verdict.claim}", "  <details><summary>findings</summary>", ""]
            lines += [*(f"  - {line}" for line in verdict.lines()), "", "  </details>"]
        else:
            lines += [head, f"  {verdict.claim}", *(f"    {line}" for line in verdict.lines())]
    if undecided:
        why = "no runs here bear on them, or none that kept their errors by window"
        lines.append("- " * markdown + f"Not decided: {', '.join(undecided)} ({why})")
    return "\n".join(lines)


def read(*folders):
    """Groups of the finished runs in ``folders``."""
    return group_runs(load_runs(*folders))


def report_of(every, form="text", subject="scores", match="", against=""):
    """The report on groups of runs as one string.

    Args:
        every: of :func:`read`.
        form: "text", "markdown" or "csv".
        subject: "scores" (with errors of equivariance and costs), "rmse", "measures", "rates", "factors" or "verdicts".
            Tables but "rates" have each net with its best learning rate.
        against: see :func:`difference_table`; if given, these tables in place of the subject's.
        match: a regular expression that the data set and the label of a row must match, such as "RBC Unet".

    Raises:
        InputError: a ``match`` of none; no scale net for "factors", no measures for "measures".
    """
    groups = [group for group in every if re.search(match, f"{group.title} {group.label}")]
    if not groups:
        raise InputError(f"--match {match} matches none of {', '.join(f'{g.title} {g.label}' for g in every[:5])} ...")
    if subject == "verdicts":
        return verdict_lines(groups, form == "markdown")
    if form == "csv":
        return as_csv(groups)
    if subject != "rates":
        groups = chosen(groups)
    render = as_markdown if form == "markdown" else as_text
    experiments = {}
    for group in groups:
        experiments.setdefault(group.title, []).append(group)
    tables = {
        "scores": tables_of,
        "rmse": rmse_tables,
        "measures": measure_tables,
        "rates": rates_table,
        "factors": factor_tables,
    }[subject]
    if against:
        tables = partial(difference_table, reference=against)
    parts = [render(table) for members in experiments.values() for table in tables(members)]
    if not parts:
        if against:
            raise InputError(f"--against {against} matches no row, such as {groups[0].title} {groups[0].label}")
        lack = {
            "measures": "run with measures (earlier runs have none)",
            "rates": "net of several learning rates",
            "factors": "scale net tested by factor",
        }
        raise InputError(f"no {lack[subject]} among the rows, such as {groups[0].title} {groups[0].label}")
    if form == "text":
        parts.append(
            "+-: standard deviation over n seeds; *: best of its column among the nets of one architecture\n"
            f"!: {BEHIND}"
        )
        commands = missing_runs(groups)
        if commands and subject == "scores":
            parts.append("\n".join([MISSING, *(f"  {command}" for command in commands)]))
    return "\n\n".join(parts)


def draw(folders, path):
    """Draw what the runs in ``folders`` are enough for into the folder ``path``."""
    from evaluation import summary  # matplotlib takes a second to import, and is needed here only

    paths = summary.draw(folders, path)
    for written in paths:
        print(f"wrote {written}")
    if not paths:
        print("nothing to draw: no net is relaxed, tested by upscaling factor or trained on several numbers of windows")


# ---------------------------------------------------------------- the README


def with_reports(text, root):
    """``text`` with its reports written again; folders in markers are relative to ``root``."""
    read_once = cache(read)  # several reports are on the same runs

    def write(arguments):
        args = parser_of_results().parse_args(arguments)
        every = read_once(*(root / folder for folder in args.results))
        return report_of(every, "markdown", args.subject, args.match, args.against)

    return rewritten(text, "report", write)


def main(argv=None):
    args = parse_args(argv)
    if args.readme is not None:
        folder = args.readme.resolve().parent
        text = with_reports(args.readme.read_text(), folder.parent if folder.name == "docs" else folder)
        with replacing(args.readme) as temporary:
            temporary.write_text(text)
        return
    if not args.results:
        raise InputError("which results? name the folders that hold the runs, such as results/")
    if args.collect is not None:
        runs = load_runs(*args.results)
        collect(runs, args.collect)
        print(f"{len(runs)} runs in {args.collect}")
        return
    if args.figures is not None:
        draw(args.results, args.figures)
        return
    print(report_of(read(*args.results), args.form, args.subject, args.match, args.against))


if __name__ == "__main__":
    sys.exit(exit_code(main))
