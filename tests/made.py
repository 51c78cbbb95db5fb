"""Finished runs as run_model.py leaves them, made without training."""

import json
from pathlib import Path

import torch

import run_model
from evaluation.flags import parse_args
from models import SYMMETRIES


def write_run(results, scores, data="a", persistence=1.0, seconds=(3.0, 1.0, 2.0), **changes):
    """Write a finished run; ``scores`` are (RMSE, ESE) by test set, ``changes`` flags of run_model or metrics."""
    metrics = {
        "parameters": 1234,
        "parameters_alive": None,
        "train_windows": 70,
        "peak_memory_mib": 500.0,
        "epochs": 3,
        "valid_rmse": 0.5,
        "stopped_early": False,
        "data_error": {},
        "deviations": {},
        "baselines": {"persistence": {name: {"rmse": persistence} for name in scores}},
        "equivariance_error": {name: {"absolute": 0.5, "relative": 0.25} for name in scores if name in SYMMETRIES},
    }
    metrics |= {name: changes.pop(name) for name in list(changes) if name in metrics}
    metrics["scores"] = {name: {"rmse": rmse, "ese": ese} for name, (rmse, ese) in scores.items()}
    flags = [f"--{name}={value}" for name, value in {"num_epoch": 3, "device": "cpu", **changes}.items()]
    args = parse_args(flags)
    args.results, args.device = Path(results), torch.device(args.device)
    folder, config, _ = run_model.find_run(
        args, {"id": data, "fields": ["vector"], "mean": [0.0], "std": [1.0], "units": None}
    )
    folder.mkdir(parents=True)
    same = ("dataset", "architecture", "symmetry")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text(json.dumps({name: config[name] for name in same} | metrics))
    log = "".join(f"{i},0.5,{s}\n" for i, s in enumerate(seconds, 1))
    (folder / "log.csv").write_text("epoch,valid_rmse,seconds\n" + log)
    (folder / "best.pt").write_bytes(b"weights")
    return folder
