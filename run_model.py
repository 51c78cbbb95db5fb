"""Train one model on prepared data and test it.

    python run_model.py --dataset=Ocean --architecture=Unet --symmetry=UM    # data/ocean -> results/Ocean_Unet_UM_...
    python run_model.py --architecture=ResNet --symmetry=Mag --width=0.25    # data/rbc, a quarter of the channels
    python run_model.py --evaluate=results/RUN --data_dir=other              # score its best weights on other data
    python run_model.py --predict=results/RUN --frames=x.npy --output=y.npy  # forecast your own frames, in their units
    python run_model.py --predict=results/RUN --export=net.pt2               # the net as a file for other programs
    torchrun --nproc_per_node=4 run_model.py --dataset=Ocean                 # four processes share every batch

A run writes config.json, log.csv, best.pt, last.pt and metrics.json into its own folder. A run that finished is not
run again, one that was killed goes on; --no_resume starts over.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt while modules are imported ends without a traceback

from evaluation.flags import parse_args, run_name, short_name

if __name__ == "__main__":
    parse_args(usage=__doc__)  # the imports below take seconds: for help or a mistyped flag nobody need wait for them

import contextlib
import dataclasses
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import timeit
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from evaluation.ablation import variant_of
from evaluation.baselines import Climatology
from evaluation.baselines import fit as baselines_of
from evaluation.breaking import data_error
from evaluation.compiled import compile_net
from evaluation.export import export
from evaluation.predict import predict
from evaluation.price import alive, available_memory, peak_memory, training_price
from evaluation.relaxation import make_strict, relative_deviations
from evaluation.runs import (
    IDENTITY,
    SETTINGS,
    TUNED,
    check_run,
    comparable,
    data_folder,
    net_of,
    read_config,
    read_metrics,
    tile_of,
)
from evaluation.score import Remembered, TestSet, equivariance_of, score, validation_rmse
from flows.folder import locked, new_folder, wait_for
from flows.store import load_meta, read_elements
from flows.windows import Windows
from models import ARCHITECTURES, SYMMETRIES
from models.approximate import penalised
from models.options import OPTIONS
from utils import (
    TEST_STEPS,
    InputError,
    Training,
    choose_device,
    connect,
    exit_code,
    forecast,
    load_weights,
    processes,
    rank,
    replacing,
    set_precision,
    train,
    tune_cpu,
    wait_for_all,
    write_json,
)

ADAM_BYTES = 16  # of a parameter, its gradient and the two moments that Adam keeps of it


def check_output(path, flag="output"):
    """Refuse a file that exists, or lies in no folder, before the work."""
    if path is not None and (path.exists() or not os.access(path.parent, os.W_OK)):
        raise InputError(f"--{flag} {path} must be a new file in a folder that exists and may be written to")


def take_net_from_run(argv, folder):
    """Parse again, the defaults being those of the run in ``folder``; refuse flags of another net or training."""
    config = check_run(folder)
    of_run = {name: config[name] for name in (*SETTINGS, "seed", *OPTIONS[config["symmetry"]].options())}
    del of_run["scale_windows"]  # runs that one experiment compares share it, but it is of tests
    args = parse_args(argv, **of_run)
    args.tile, args.periodic = config.get("tile"), config.get("periodic")
    for name, value in of_run.items():
        if name not in ("dataset", "batch_size", "amp") and getattr(args, name) != value:
            raise InputError(f"{folder} has {name} {value}; --evaluate cannot change it to {getattr(args, name)}")
    if args.strict and args.relaxed is None:
        raise InputError(f"--strict: the net of {folder} is strict as it is")
    check_output(args.output)
    return args


def check_net(args):
    """Refuse a net that cannot be built."""
    relaxed = "" if args.relaxed is None else args.deviation
    options = {name: getattr(args, name) for name in OPTIONS[args.symmetry].options()}
    try:
        layers = dataclasses.replace(variant_of(args.symmetry, args.variant), relaxed=relaxed, **options)
        ARCHITECTURES[args.architecture].accept(layers)
    except ValueError as error:
        raise InputError(error) from None


def best_settings(args, config):
    """What is ``TUNED`` in the finished runs, but for it and the seed like that of ``config``, that validated best.

    They are compared by their means over the seeds that most settings were run with; see
    :func:`~evaluation.runs.comparable`. Of these runs those that have not ended are waited for.

    Raises:
        InputError: there are no such runs.
    """
    alike, folders, errors = set(IDENTITY) - {"seed", *TUNED} | OPTIONS[args.symmetry].options().keys(), {}, {}
    for path in sorted(args.results.glob("*/config.json")):
        other = read_config(path.parent)
        if all(other[name] == config[name] for name in alike):
            folders.setdefault(tuple(other[name] for name in TUNED), {})[other["seed"]] = path.parent
    for folder in chain(*comparable(folders).values()):  # not for other seeds, which only take the best
        wait_for(folder)
    for settings, by_seed in folders.items():
        for seed, folder in by_seed.items():
            if (folder / "metrics.json").exists():
                errors.setdefault(settings, {})[seed] = read_metrics(folder)["valid_rmse"]
    means = {settings: statistics.mean(values) for settings, values in comparable(errors).items()}
    if not means:
        raise InputError(
            f"--learning_rate best: no finished runs like this one in {args.results}, with a seed that most rates have"
        )
    best = min(means, key=means.get)
    return dict(zip(TUNED, best, strict=True))


def check_data(args, meta, longest):
    """Refuse windows and grids that this model cannot read, and forecasts of the ``longest`` that do not fit."""
    if args.input_length > meta["history"]:
        raise InputError(
            f"--input_length {args.input_length} is more than the {meta['history']} frames before the forecast in "
            f"the prepared data; lower it or prepare with --history {args.input_length}"
        )
    if longest > meta["horizon"]:
        raise InputError(
            f"forecasts of {longest} frames (--output_length {args.output_length}, tests {TEST_STEPS}) do not fit "
            f"the {meta['horizon']} prepared ones; prepare with --horizon {longest}"
        )
    multiple = ARCHITECTURES[args.architecture].size_multiple
    height, width = meta["tile"]
    if height % multiple or width % multiple:
        raise InputError(
            f"{args.architecture} needs tiles whose sides are multiples of {multiple}, the data have {height} x {width}"
        )
    axes = meta.get("periodic", [])
    if args.padding and not axes:
        data = data_folder(args.data_dir, args.dataset)
        raise InputError(f"--padding {args.padding}: the tiles of {data} are not periodic")
    if args.padding and len(axes) == 1 and "Rot" in args.augment:
        raise InputError(f"--augment Rot: turned frames are periodic along another axis than {axes[0]}")


def check_training(args, windows):
    """Refuse a part of the training windows that does not fill a batch."""
    if args.train_fraction < 1 and len(windows) < args.batch_size:
        raise InputError(
            f"--train_fraction {args.train_fraction:g} leaves {len(windows)} training windows, fewer than --batch_size "
            f"{args.batch_size}; raise the former or lower the latter"
        )


def find_run(args, meta):
    """Where this run goes, what it is, and what it has left there already. Writes nothing.

    Returns:
        ``(folder, config, metrics)``: ``metrics`` of a run that is already finished, else None.

    Raises:
        InputError: the folder holds another run.
    """
    about_this_call = ("no_resume", "results", "evaluate", "predict", "frames", "steps", "output", "export", "strict")
    config = {name: value for name, value in vars(args).items() if name not in about_this_call}
    config |= {
        "data_dir": str(args.data_dir),
        "device": str(args.device),
        "data": meta["id"],
        **{name: meta[name] for name in ("fields", "mean", "std", "units")},
        "git": git_revision(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": processes(),
    }
    if args.learning_rate == "best":
        for name, value in best_settings(args, config).items():
            config[name] = value
            setattr(args, name, value)
    folder = args.results / run_name(args)
    if args.no_resume or not (folder / "config.json").exists():
        return folder, config, None
    old = read_config(folder)
    for name in (*IDENTITY, *OPTIONS[args.symmetry].options()):
        if old[name] != config[name]:
            what = f"other data ({old[name]}, now {config[name]})" if name == "data" else f"{name} {old[name]}"
            raise InputError(f"{folder} holds a run with {what}; use another --results, or --no_resume to replace it")
    if not (folder / "metrics.json").exists():
        return folder, config, None
    metrics = read_metrics(folder)
    wants_more = metrics["epochs"] < args.num_epoch and not metrics["stopped_early"]
    return folder, config, None if wants_more else metrics


def git_revision():
    """The commit of this code, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def test_sets(args, meta, windows):
    """The test split, the other domain if there is one, and the transformed test sets: ``{name: TestSet}``.

    Raises:
        InputError: a broken table, a set that was not prepared, or one of which this net could not read a window.
    """
    tests = {name: TestSet(windows[name]) for name in ("test", "domain") if name in windows}
    for name in meta["tables"]["test"]:
        if name in SYMMETRIES and tile_of(vars(args)) is not None and not SYMMETRIES[name].keeps_shape:
            print(f"not tested on {name}: its frames have other sizes than this net reads", flush=True)
        elif name in SYMMETRIES:
            elements = read_elements(data_folder(args.data_dir, args.dataset), meta, name)
            tests[name] = TestSet(windows["test"], SYMMETRIES[name].on(meta["fields"]), elements)
    if args.scale_windows and "Scale" in tests:
        tests["Scale"] = tests["Scale"].thinned(args.scale_windows)
    if args.test_sets:
        missing = [name for name in args.test_sets if name not in tests]
        if missing:
            raise InputError(f"--test_sets {', '.join(missing)}: the prepared data have {', '.join(tests)}")
        tests = {name: tests[name] for name in tests if name in ("test", *args.test_sets)}
    for name, tests_of_name in tests.items():
        if next(tests_of_name.groups(args.input_length, TEST_STEPS), None) is None:
            raise InputError(
                f"no window of the test set {name} is long enough for --input_length {args.input_length}; lower it, or "
                "prepare with a longer --history and --horizon, or with --scale_factors grid"
            )
    return tests


def test(model, args, meta, windows, tests):
    """Score the model on every one of ``test_sets``, beside forecasts without a net.

    Returns:
        dict: ``scores`` per test set, ``baselines`` by name and test set, ``equivariance_error`` per symmetry,
        ``damping`` of the baselines that have one, ``data_error`` per symmetry, ``deviations`` of a relaxed net's
        layers, and ``window_mse``, the net's error on every window of the sets whose windows are of one size, with
        their ``blocks``. Climatology is that of the tiles trained on, so there is none of another domain, nor where
        frames are interpolated in time (scale).
    """
    model.eval()
    of_net = Remembered(partial(forecast, model, amp=args.amp))
    baselines = baselines_of(windows["train"], args.input_length, TEST_STEPS)
    damping = {name: baseline.damping for name, baseline in baselines.items() if hasattr(baseline, "damping")}
    results = {"scores": {}, "baselines": {}, "equivariance_error": {}, "damping": damping}
    results["data_error"] = data_error(windows["train"], meta)
    results["window_mse"] = {"blocks": {}}
    if args.relaxed is not None:
        results["deviations"] = relative_deviations(model)
    for name, tests_of_name in tests.items():
        print(f"{short_name(args)} testing on {name} ({len(tests_of_name)} windows)", flush=True)
        setting = (tests_of_name, args.input_length, TEST_STEPS, args.batch_size)
        found = score({"net": of_net, **baselines}, *setting, args.num_workers, ["net"], ["net", "persistence"])
        if name not in ("domain", "Scale"):
            climate = dataclasses.replace(tests_of_name, windows=Climatology(tests_of_name.windows, windows["train"]))
            found |= score({"climatology": Climatology.forecast}, climate, *setting[1:], args.num_workers)
        for forecaster, scores in found.items():
            by_factor = scores.get("by_factor", {}).values()
            errors = [scores.pop("window_mse", None), *(row.pop("window_mse") for row in by_factor)]
            if forecaster != "net":
                results["baselines"].setdefault(forecaster, {})[name] = scores
                continue
            results["scores"][name] = scores
            if not by_factor:
                results["window_mse"][name] = errors[0]
                results["window_mse"]["blocks"][name] = tests_of_name.windows.blocks().tolist()
        error = equivariance_of(of_net, *setting)
        if error is not None:
            results["equivariance_error"][name] = error
    return results


def print_scores(metrics):
    """Print the scores of a run, and last the release's line."""
    scores, errors = metrics["scores"], metrics["equivariance_error"]
    print(f"{'test set':10} {'RMSE':>8}  {'best without a net':26} {'ESE':>8} {'equivariance error':>20}")
    for name, row in scores.items():
        error = f"{errors[name]['relative']:.1e}" if name in errors else "-"
        rmse, baseline = min((of[name]["rmse"], label) for label, of in metrics["baselines"].items() if name in of)
        label = f"{name} ({row['windows']})" if "windows" in row else name
        print(f"{label:10} {row['rmse']:8.4f}  {rmse:.4f} {baseline:19} {row['ese']:8.4f} {error:>20}")

    if "deviations" in metrics:
        print("layers deviate by " + ", ".join(f"{name} {size:.1e}" for name, size in metrics["deviations"].items()))

    # The release's other domain is another ocean or, for convection, the test set of the model's own symmetry: then the
    # line says which.
    domain, where = scores.get("domain"), "Domain"
    if domain is None and metrics["dataset"] != "Ocean":
        own = metrics["symmetry"] if metrics["symmetry"] in scores else "test"
        domain, where = scores[own], f"Domain ({own})"
    cells = [f"Model: {metrics['architecture']}", f"Symmetry: {metrics['symmetry']}"]
    for name, row in (("Future", scores["test"]), (where, domain)):
        for measure in ("rmse", "ese"):
            cells.append(f"{name} {measure.upper()}: " + ("-" if row is None else f"{row[measure]:.3f}"))
    print(" | ".join(cells))


def make_model(args, fields):
    """The net of ``args`` for data of these fields, on its device, its weights drawn from the seed.

    Raises:
        InputError: there is no such net, the device has no room for it, or it cannot be compiled there as it should.
    """
    net = partial(net_of, vars(args), fields)
    try:
        with torch.device("meta"):  # shapes without numbers
            parameters = sum(parameter.numel() for parameter in net().parameters())
    except ValueError as error:
        raise InputError(error) from None
    except (RuntimeError, OverflowError):  # more than can be counted
        parameters = math.inf
    gigabytes, room = ADAM_BYTES * parameters / 1e9, available_memory(args.device) / 1e9
    if gigabytes > room:
        raise InputError(
            f"--width {args.width:g} makes {parameters:.3g} parameters: {gigabytes:.3g} GB with their gradients and "
            f"moments, {args.device} has {room:.3g} GB; lower it"
        )
    set_precision(args.amp)
    torch.manual_seed(args.seed)
    model = net()
    if args.penalty and not penalised(model):
        raise InputError("--penalty goes with the variants RConv, RSteer and RScale")
    model.to(args.device)
    if args.compile:
        compile_net(model, args.device)
    return model


def bfloat16_is_slow(device):
    """Whether a product of two matrices takes longer in bfloat16 than in float32: on CPUs without the instructions."""

    def shortest(dtype):
        factor = torch.ones(256, 256, dtype=dtype)
        return min(timeit.repeat(lambda: factor @ factor, number=1, repeat=5))

    return device.type == "cpu" and shortest(torch.bfloat16) > shortest(torch.float32)


def evaluate(args):
    """Score the best weights of the run ``args.evaluate`` on prepared data, and leave the run as it is."""
    if args.output is not None and args.output.suffix != ".json" and not (args.evaluate / "metrics.json").is_file():
        raise InputError(f"{args.evaluate} is not finished, so it cannot be a run elsewhere; --output FILE.json can be")
    data = data_folder(args.data_dir, args.dataset)
    meta = load_meta(data)
    check_data(args, meta, TEST_STEPS)
    if tile_of(vars(args)) not in (None, meta["tile"]):
        raise InputError(f"{args.evaluate} reads frames of {args.tile} points alone, {data} has {meta['tile']}")
    if args.padding and set(args.periodic) != set(meta["periodic"]):
        there, here = (" and ".join(axes) for axes in (args.periodic, meta["periodic"]))
        raise InputError(f"{args.evaluate} continues frames along {there}, the tiles of {data} are periodic in {here}")
    trained_on = read_config(args.evaluate).get("fields", ["vector"])
    if meta["fields"] != trained_on:
        raise InputError(
            f"{args.evaluate} forecasts {' and '.join(trained_on)}, {data} has {' and '.join(meta['fields'])}"
        )
    names = [name for name in ("train", "test", "domain") if name in meta["splits"]]
    windows = {name: Windows(data, meta, name, args.device) for name in names}
    tests = test_sets(args, meta, windows)
    model = make_model(args, meta["fields"])
    load_weights(model, args.evaluate / "best.pt", args.device)
    if args.strict:
        make_strict(model)
    metrics = {
        "run": args.evaluate.resolve().name,
        "dataset": args.dataset,
        "architecture": args.architecture,
        "symmetry": args.symmetry,
        "data": meta["id"],
        **test(model, args, meta, windows, tests),
    }
    if args.output is not None and rank() == 0:
        if args.output.suffix == ".json":
            write_json(args.output, metrics)
        else:
            write_transferred(args.evaluate, args.output, metrics, meta)
    return print_scores(metrics)


def write_transferred(run, folder, metrics, meta):
    """Write what ``--evaluate`` measured as a run, whose config.json names the data it was ``trained_on``."""
    config = read_config(run)
    config |= {"trained_on": config["data"], "dataset": metrics["dataset"], "data": meta["id"]}
    metrics = read_metrics(run) | metrics
    windows = metrics.pop("window_mse")
    with new_folder(folder) as temporary:
        write_json(temporary / "config.json", config)
        shutil.copy(run / "log.csv", temporary)
        write_windows(temporary, windows)
        write_json(temporary / "metrics.json", metrics)


def write_windows(folder, errors):
    """Write windows.json, on one line: it is long."""
    with replacing(folder / "windows.json") as temporary:
        temporary.write_text(json.dumps(errors) + "\n")


def main(argv=None):
    args = parse_args(argv, __doc__)
    if args.evaluate is not None:
        args = take_net_from_run(argv, args.evaluate)
    args.device = connect(choose_device(args.device))
    if args.predict is not None:
        check_run(args.predict)
        check_output(args.output)
        check_output(args.export, "export")
        if args.export is not None:
            return export(args.predict, args.export)
        return predict(args.predict, args.frames, args.steps or TEST_STEPS, args.output, args.device)
    check_net(args)
    if args.evaluate is not None:
        return evaluate(args)
    data = data_folder(args.data_dir, args.dataset)
    meta = load_meta(data)
    check_data(args, meta, max(args.output_length, args.valid_length, TEST_STEPS))
    args.tile, args.periodic = meta["tile"], meta.get("periodic", [])
    folder, config, metrics = find_run(args, meta)
    if metrics is not None:
        print(f"{folder} is finished; --no_resume runs it again")
        missing = ",".join(name for name in args.test_sets if name not in metrics["scores"])
        if missing:
            print(f"it was not tested on {missing}: --evaluate='{folder}' --test_sets={missing} does that")
        return print_scores(metrics)

    windows = {name: Windows(data, meta, name, args.device) for name in meta["splits"]}
    epoch_windows = len(windows["train"])
    windows["train"].keep_last(args.train_fraction)
    check_training(args, windows["train"])
    tests = test_sets(args, meta, windows)
    model = make_model(args, meta["fields"])
    if args.amp and bfloat16_is_slow(args.device):
        print("--amp will be slow: this CPU has no instructions for bfloat16, float32 is faster here")

    settings = Training(
        **{
            name: getattr(args, name)
            for name in Training.__dataclass_fields__
            if hasattr(args, name) and name != "augment"
        },
        name=short_name(args),
        epoch_windows=epoch_windows,
        augment=tuple(SYMMETRIES[name].on(meta["fields"]).fitting(*meta["tile"]) for name in args.augment),
    )
    wait_for_all()  # who is late must not find half a folder
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) if rank() == 0 else contextlib.nullcontext():
        if rank() == 0:
            if args.no_resume:
                for name in ("metrics.json", "last.pt", "best.pt", "log.csv"):
                    (folder / name).unlink(missing_ok=True)
            write_json(folder / "config.json", config)
        wait_for_all()
        metrics = train_and_test(args, model, meta, windows, tests, settings, folder)
        windows_mse = metrics.pop("window_mse")
        if rank() == 0:
            write_windows(folder, windows_mse)
            write_json(folder / "metrics.json", metrics)
    return print_scores(metrics)


def train_and_test(args, model, meta, windows, tests, settings, folder):
    """Train in ``folder``, test the best weights; returns what metrics.json holds."""
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{folder.name}: {len(windows['train'])} training windows, {args.device}", flush=True)
    operations, seconds = training_price(model, windows["train"], settings)
    print(
        f"{short_name(args)}: {parameters:,} parameters, {operations / 1e9:.3g} GFLOP per training step, "
        f"{peak_memory(args.device):.0f} MiB, about {seconds:.2g} s of training per epoch",
        flush=True,
    )
    validate = partial(validation_rmse, model, windows["valid"], settings)
    history = train(model, windows["train"], validate, settings, folder)
    best = load_weights(model, folder / "best.pt", args.device)
    return {
        "dataset": args.dataset,
        "architecture": args.architecture,
        "symmetry": args.symmetry,
        "parameters": parameters,
        "parameters_alive": alive(model),
        "train_windows": len(windows["train"]),
        "peak_memory_mib": peak_memory(args.device),
        "epochs": len(history),
        "stopped_early": len(history) < args.num_epoch,
        "best_epoch": best["epoch"],
        "valid_rmse": history[best["epoch"] - 1]["valid_rmse"],
        **test(model, args, meta, windows, tests),
    }


if __name__ == "__main__":
    tune_cpu()
    sys.exit(exit_code(main))
