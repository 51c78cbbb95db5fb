"""Runs on disk: where they and their data are, what tells them apart, how they are grouped and kept as evidence."""

import csv
import json
import math
import shlex
import statistics
from collections import Counter
from itertools import product
from pathlib import Path

from evaluation.ablation import variant_of
from evaluation.flags import WEIGHT_DECAY
from flows.arguments import DATASETS, folder_name
from models import ARCHITECTURES, SYMMETRIES, build_model
from models.options import DEVIATIONS
from utils import InputError, replacing, write_json

# What two runs must share to be the same run; the rest of config.json only describes. "data" is the id of the prepared
# data.
IDENTITY = ("dataset", "architecture", "symmetry", "kernel_size", "input_length", "output_length", "batch_size")
IDENTITY += ("learning_rate", "decay_rate", "seed", "width", "frame", "variant", "relaxed", "deviation", "augment")
IDENTITY += ("padding", "weight_decay", "penalty", "train_fraction", "amp", "valid_length", "patience")
IDENTITY += ("scale_windows", "data")
LATER = {"padding": "", "weight_decay": WEIGHT_DECAY}  # what runs were before there was the setting
TUNED = ("learning_rate", "weight_decay")  # what validation chooses for every net
# What one experiment fixes: runs that share these and their data differ in the seed only.
SETTINGS = (*(name for name in IDENTITY if name not in ("seed", "data")), "num_epoch")
# What the models of one sweep share; learning rate, batch and lengths may be each model's own, as in the release.
SWEEP = ("dataset", "width", "num_epoch", "train_fraction", "padding", "amp")


# ---------------------------------------------------------------- one run


def data_folder(data_dir, dataset):
    """Where the prepared data of that name are: the paper's two under their names in small letters."""
    return data_dir / folder_name(dataset)


def read_config(folder):
    """config.json of the run in ``folder``; InputError if it is broken or lacks what tells runs apart."""
    path = folder / "config.json"
    symmetry = read_record(path, (*(name for name in IDENTITY if name not in LATER), "num_epoch"))["symmetry"]
    if symmetry not in SYMMETRIES:
        raise InputError(f"{path} has the unknown symmetry {symmetry!r}")
    return LATER | read_record(path, SYMMETRIES[symmetry].options())


def check_run(folder):
    """The config of a run that has weights; InputError where there is none."""
    for name in ("config.json", "best.pt"):
        if not (folder / name).is_file():
            raise InputError(f"no run with weights in {folder}: it has no {name}")
    return read_config(folder)


def read_metrics(folder):
    """metrics.json of the run in ``folder``; InputError if it is broken or lacks a result."""
    needed = ("scores", "baselines", "equivariance_error", "epochs", "stopped_early", "parameters", "valid_rmse")
    return read_record(folder / "metrics.json", needed)


def read_record(path, needed):
    """A JSON object that has all the names ``needed``; InputError if it is broken or lacks one."""
    try:
        record = dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise InputError(f"{path} is broken; train that run again, with --no_resume") from None
    missing = [name for name in needed if name not in record]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it is of another version: train that run again, with --no_resume"
        )
    return record


def net_of(settings, fields):
    """The net that a run's settings (config.json, or the flags as a dict) describe, for data of these fields.

    Raises:
        ValueError: settings that describe none.
    """
    symmetry = variant_of(settings["symmetry"], settings["variant"])
    options = {name: settings[name] for name in symmetry.options()}
    sizes = (settings[name] for name in ("input_length", "kernel_size", "width"))
    relaxed = "" if settings["relaxed"] is None else settings["deviation"]
    periodic = settings["periodic"] if settings["padding"] else ()
    parts = fields, settings["frame"], relaxed, periodic
    return build_model(settings["architecture"], symmetry, *sizes, *parts, **options)


def tile_of(settings):
    """Height and width of the only frames that the net of these settings reads, as a list; None where it reads all."""
    bound = "tile" in variant_of(settings["symmetry"], settings["variant"]).options()
    return settings["tile"] if bound else None


# ---------------------------------------------------------------- many runs


def at(record, path):
    """What lies at ``path`` in nested dicts and lists, None where the path ends before."""
    for key in path:
        try:
            record = record[key]
        except (KeyError, IndexError, TypeError):  # TypeError: neither a dict nor a list
            return None
    return record


class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        runs: one dict per run: its config.json, its metrics.json, ``folder`` and, of every epoch, ``seconds`` and
            ``validations``, the RMSE on the validation set.
        data: the id of the data they were trained and tested on.
        title: the data set, with ``data`` where several were given under one name.
        label: the net, with the settings that tell it from its like, but for what is ``TUNED``.
    """

    def __init__(self, runs):
        self.runs = sorted(runs, key=lambda run: run["seed"])
        self.data = runs[0]["data"]
        self.title = self.label = ""

    def __getitem__(self, setting):
        return self.runs[0][setting]

    @property
    def seeds(self):
        return [run["seed"] for run in self.runs]

    @property
    def options(self):
        """Names of the settings that only this symmetry has."""
        return tuple(SYMMETRIES[self["symmetry"]].options())

    def values(self, *path):
        """The number at ``path`` in each run; runs that do not have it are left out."""
        found = [at(run, path) for run in self.runs]
        return [value for value in found if value is not None]

    def skills(self, *path):
        """1 - error / error of the best forecast without a net, of each run; errors at ``path``, such as test, rmse."""
        skills = []
        for run in self.runs:
            error = at(run["scores"], path)
            rivals = [at(of, path) for of in run["baselines"].values()]
            rivals = [rival for rival in rivals if rival is not None]
            if error is not None and rivals:
                skills.append(1 - error / min(rivals) if min(rivals) else -math.inf)  # a flow that stands still
        return skills

    def mean(self, *path):
        """Mean over the seeds, None where no run has the number."""
        values = self.values(*path)
        return statistics.mean(values) if values else None

    def std(self, *path):
        """Sample standard deviation over the seeds (the divisor is n - 1); 0 where there is only one."""
        values = self.values(*path)
        return statistics.stdev(values) if len(values) > 1 else 0.0


def load_runs(*folders):
    """Read every finished run directly below the folders into one dict each, see :class:`Group`.

    Raises:
        InputError: no finished run, a broken file, or two runs of one seed that disagree.
    """
    runs = {}
    for path in sorted(path for folder in folders for path in Path(folder).glob("*/metrics.json")):
        run = load_run(path.parent)
        if run["epochs"] < run["num_epoch"] and not run["stopped_early"]:
            continue  # it was sent on for more epochs and is at it
        key = (settings_of(run), run["seed"])
        if key in runs and runs[key]["scores"] != run["scores"]:
            raise InputError(f"{runs[key]['folder']} and {path.parent} are the same run with other scores; give one")
        runs.setdefault(key, run)
    if not runs:
        raise InputError(f"no finished run in {', '.join(map(str, folders))}; run_model.py makes them")
    return list(runs.values())


def load_run(folder):
    """Read one run; InputError if a file is broken or lacks something."""
    run = {**read_config(folder), **read_metrics(folder), "folder": folder}
    try:
        with open(folder / "log.csv", newline="") as file:
            log = list(csv.DictReader(file))
        run["seconds"], run["validations"] = ([float(row[name]) for row in log] for name in ("seconds", "valid_rmse"))
        complete = "test" in run["scores"] and all({"rmse", "ese"} <= row.keys() for row in run["scores"].values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        complete = False
    if not complete:
        raise InputError(f"{folder} is broken; run it again with --no_resume")
    return run


def settings_of(run):
    """What tells the run's experiment from others, hashable."""
    names = (*SETTINGS, *SYMMETRIES[run["symmetry"]].options())
    values = [tuple(run[name]) if isinstance(run[name], list) else run[name] for name in names]
    return (run["data"], run.get("trained_on"), *values)


def group_runs(runs):
    """Put runs into labelled :class:`Group` s, in the order of the paper's tables.

    The order: data, ResNet before U-Net; the plain net, its augmented version, the equivariant nets, with their usual
    options first.
    """
    together = {}
    for run in runs:
        together.setdefault(settings_of(run), []).append(run)
    groups = [Group(members) for members in together.values()]
    for group in groups:
        names = {other.data for other in groups if other["dataset"] == group["dataset"]}
        group.title = group["dataset"] + (f" (data {group.data})" if len(names) > 1 else "")
        key = (group["dataset"], group.data, net(group))
        alike = [other for other in groups if (other["dataset"], other.data, net(other)) == key]
        group.label = net(group)
        usual = {
            "width": 1,
            "train_fraction": 1,
            "amp": False,
            "frame": [],
            "variant": "",
            "padding": "",
            "relaxed": None,
            "deviation": DEVIATIONS[0],
            "penalty": 0.0,
            **SYMMETRIES[group["symmetry"]].options(),
        }
        for name in (*(name for name in SETTINGS if name not in TUNED), *group.options):
            # What is usual is not said; where nothing is, what most of its kind have.
            common = usual[name] if name in usual else majority([other[name] for other in alike])
            if group[name] != common:
                value = "+".join(group[name]) if isinstance(group[name], list) else group[name]
                group.label += f" {name} {value}" if name != "amp" else " amp" * group["amp"]
        native = [other for other in groups if other.data == group.data and "trained_on" not in other.runs[0]]
        group.label += " trained elsewhere" if native and group not in native else ""

    def order(group):
        tables = {"architecture": list(ARCHITECTURES), "symmetry": list(SYMMETRIES)}
        architecture, symmetry = (names.index(group[name]) for name, names in tables.items())
        dataset = group["dataset"] not in DATASETS, group["dataset"] != DATASETS[0], group["dataset"]
        usual = SYMMETRIES[group["symmetry"]].options()
        changed = sum(group[name] != value for name, value in usual.items())
        settings = [(value is not None, value) for value in settings_of(group.runs[0])]  # strict before relaxed
        return dataset, group.data, architecture, symmetry, changed, settings

    return sorted(groups, key=order)


def alike_but_for_tuning(groups):
    """Lists of the groups that differ in nothing but what is ``TUNED``."""
    likes = {}
    for group in groups:
        likes.setdefault(settings_of({**group.runs[0], **dict.fromkeys(TUNED)}), []).append(group)
    return [*likes.values()]


def comparable(errors):
    """Errors ``{settings: {seed: error}}`` as lists, over the seeds that most of the settings were run with.

    A setting without one of these is left out: its training diverged, or has not ended.
    """
    counts = Counter(seed for by_seed in errors.values() for seed in by_seed)
    seeds = {seed for seed, count in counts.items() if count > len(errors) / 2}
    return {
        settings: [by_seed[seed] for seed in sorted(seeds)]
        for settings, by_seed in errors.items()
        if seeds and by_seed.keys() >= seeds
    }


def chosen(groups):
    """The groups without those that were only to find a learning rate and a weight decay.

    Of groups alike but for these, that of most seeds stays, of these that of the best validation.
    """
    best = [
        min(like, key=lambda group: (-len(group.runs), group.mean("valid_rmse")))
        for like in alike_but_for_tuning(groups)
    ]
    return [group for group in groups if group in best]


def unchanged(group):
    """Whether a group is of the net of its symmetry: not augmented, in no frame, no variant; strict or relaxed."""
    return not (group["augment"] or group["frame"] or group["variant"])


def majority(values):
    """What more than half of the values are, None if there is no such value."""
    return next((value for value in values if 2 * values.count(value) > len(values)), None)


def net(group):
    """Architecture, symmetry and augmentation in the words of the tables."""
    augmented = f"Augm({'+'.join(group['augment'])})" if group["augment"] else ""
    return " ".join(word for word in (group["architecture"], group["symmetry"], augmented) if word not in ("", "None"))


def sweep(group):
    """What the group shares with those that it may be compared with, augmented or not."""
    return group.data, *(group[name] for name in SWEEP)


def scale_and_plain(groups):
    """The scale nets that were tested by upscaling factor and the plain nets of their sweeps; none augmented."""
    tested = [group for group in groups if not group["augment"] and group.values("scores", "Scale", "by_factor")]
    sweeps = {(group["architecture"], sweep(group)) for group in tested if group["symmetry"] == "Scale"}
    return [
        group
        for group in tested
        if group["symmetry"] in ("None", "Scale") and (group["architecture"], sweep(group)) in sweeps
    ]


def missing_runs(groups):
    """Command lines of the runs that a sweep lacks.

    A sweep's models are all its architectures with all its symmetries, and its seeds are those of any of its models;
    augmented runs are a sweep of their own. A model's settings are those of its largest group; a model that has not
    been run at all gets the settings of the first of its architecture. Nets that were trained elsewhere are left out.
    """
    sweeps = {}
    for group in groups:
        if "trained_on" in group.runs[0]:
            continue
        names = ("variant", "relaxed", "penalty")
        key = (sweep(group), tuple(group["augment"]), tuple(group["frame"]), *(group[name] for name in names))
        sweeps.setdefault(key, []).append(group)
    commands = []
    for members in sweeps.values():
        seeds = sorted({seed for group in members for seed in group.seeds})
        models = product(*(dict.fromkeys(group[name] for group in members) for name in ("architecture", "symmetry")))
        for architecture, symmetry in models:
            if ARCHITECTURES[architecture].plain and symmetry != "None":
                continue
            same = [group for group in members if group["architecture"] == architecture]
            found = [group for group in same if group["symmetry"] == symmetry]
            group = max(found or same[:1], key=lambda group: len(group.runs))
            have = group.seeds if found else []
            commands += [command_line(group, symmetry, seed) for seed in seeds if seed not in have]
    return commands


def command_line(group, symmetry, seed):
    """The command that makes a run with the group's settings, another seed and perhaps another symmetry."""
    run = {**group.runs[0], "symmetry": symmetry, "seed": seed}
    run |= {name: ",".join(group[name]) for name in ("augment", "frame")}
    names = ["dataset", "architecture", "symmetry", "seed", *SETTINGS]
    names += group.options if symmetry == group["symmetry"] else ()
    if "data_dir" in run:  # collected runs no longer say where their data lay
        run["results"] = run["folder"].parent
        names += ["data_dir", "results"]
    flags = []
    for name in dict.fromkeys(names):
        if isinstance(run[name], bool):
            flags += [f"--{name}"] * run[name]
        elif run[name] not in ("", None):
            flags.append(f"--{name}={run[name]}")
    return shlex.join(["python", "run_model.py", *flags])


def collect(runs, folder):
    """Copy config.json, log.csv and metrics.json of runs into ``folder``; no weights, no places of this machine.

    metrics.json comes last, so a run that was cut off in between does not count as finished.

    Raises:
        InputError: runs on different data under one name, here or with those that are already there.
    """
    folder = Path(folder)
    kept = load_runs(folder) if any(folder.glob("*/metrics.json")) else []
    data = {}
    for run in (*kept, *runs):
        first = data.setdefault(run["dataset"], run)
        if first["data"] != run["data"]:
            raise InputError(f"{first['folder']} and {run['folder']} were run on different data; keep them apart")
    for run in runs:
        source, target = run["folder"], folder / run["folder"].name
        target.mkdir(parents=True, exist_ok=True)
        config = json.loads((source / "config.json").read_text())
        config.pop("data_dir", None)
        write_json(target / "config.json", config)
        for name in ("log.csv", "windows.json", "metrics.json"):
            if not (source / name).exists():
                continue  # of runs from before it was kept
            with replacing(target / name) as temporary:
                temporary.write_bytes((source / name).read_bytes())
