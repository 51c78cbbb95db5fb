"""The flags of run_model.py, and the names of a run that come from them. No torch: it takes seconds to import."""

import dataclasses
import math
from pathlib import Path

from flows.arguments import DATASETS, Parser, dataset_name
from models.options import DEVIATIONS, FRAMES, NETS, OPTIONS, PADDINGS, match

WEIGHT_DECAY = 4e-4  # of the release
TEST_SETS = ("domain", *(name for name in OPTIONS if name != "None"))  # beside "test"


def parse_args(argv=None, usage=None, **of_run):
    """The flags of the release, with its defaults, then ours. A wrong one ends the program with one line and code 2.

    Args:
        usage: what ``--help`` says before it lists the flags.
        of_run: the settings of the run to ``--evaluate``, which are the defaults then; without them the rest of its
            flags cannot be checked.
    """
    parser = Parser(description=usage, allow_abbrev=False)
    add = parser.add_argument
    add(
        "--dataset",
        type=dataset_name,
        default="RBC",
        help="RBC, Ocean or a name of your own: the folder under --data_dir (default RBC)",
    )
    add("--architecture", default="ResNet", help=f"{', '.join(NETS)} (default ResNet)")
    add("--symmetry", default="UM", help=f"{', '.join(OPTIONS)} (default UM; None is the plain net)")
    add("--kernel_size", type=int, default=3, help="odd side of the kernels (default 3)")
    add("--input_length", type=int, default=24, help="past frames the model reads (default 24)")
    add("--output_length", type=int, default=4, help="roll-out steps in the training loss (default 4)")
    add("--batch_size", type=int, default=16, help="samples per step (default 16)")
    add("--num_epoch", type=int, default=100, help="most epochs; early stopping from 50 on (default 100)")
    add(
        "--learning_rate",
        type=learning_rate,
        default=0.001,
        help="of Adam in the first epoch (default 0.001); best: that, and the weight decay, of the runs in "
        "--results alike in all else whose validation was best, by the mean over the seeds that most of these have",
    )
    add("--decay_rate", type=float, default=0.95, help="factor on the learning rate per epoch (default 0.95)")
    add(
        "--weight_decay",
        type=float,
        default=WEIGHT_DECAY,
        help=f"of Adam: what is added to the gradient, times the weight (default {WEIGHT_DECAY:g})",
    )
    add("--seed", type=int, default=0, help="of weights, order of samples and augmentation (default 0)")

    add("--data_dir", type=Path, default=Path("data"), help="where data_prep.py wrote (default data)")
    add("--results", type=Path, default=Path("results"), help="where the run's folder goes (default results)")
    add(
        "--valid_length", type=int, default=0, help="roll-out steps that choose the best epoch (default: output_length)"
    )
    add("--patience", type=int, default=0, help="stop after so many epochs that were no better (default: from 50 on)")
    add(
        "--train_fraction",
        type=float,
        default=1.0,
        help="train on the last part of the training windows in time, as if the record had begun later, in as many "
        "steps per epoch as on all; validation and test stay as near as they were (default 1, all)",
    )
    add("--width", type=float, default=1.0, help="factor on every hidden width (default 1, the paper's)")
    add(
        "--relaxed",
        type=float,
        metavar="LAMBDA",
        help="let layers learn to leave the symmetry; deviations decay at this rate times the learning rate per step: "
        "0 leaves them free, a large one keeps the net strict (default: strict)",
    )
    add(
        "--deviation",
        default="gains",
        help="of --relaxed: by gains, a few numbers per layer, or free, by kernels of their own (default gains)",
    )
    add(
        "--penalty",
        type=float,
        default=0.0,
        metavar="ALPHA",
        help="of the variants RConv, RSteer and RScale: weight, in the training loss, of how unequal their weights are "
        "(default 0)",
    )
    add("--frame", default="", help=f"symmetries to take out before the net and put back after: {', '.join(FRAMES)}")
    add(
        "--padding",
        default="",
        help="circular: continue frames periodically along the axes that the data have as periodic (default: the net's "
        "own border everywhere)",
    )
    add("--augment", default="", help="train on random transforms: UM, Mag or Rot, several as UM,Mag, or all")
    for symmetry, options in OPTIONS.items():
        for field in dataclasses.fields(options):
            if words := field.metadata.get("words"):
                kind = (
                    {"action": "store_true"} if field.type is bool else {"type": field.type, "default": field.default}
                )
                default = "" if field.type is bool else f" (default {field.default})"
                add(f"--{field.name}", **kind, help=f"{symmetry}: {words}{default}")
    add(
        "--variant",
        default="",
        help="a part of the net changed, or the second paper's own layers: see evaluation/ablation.py and "
        "models/approximate.py",
    )
    add(
        "--test_sets",
        default="",
        help=f"those to score beside test, as in UM,Rot, of {', '.join(TEST_SETS)} (default: all that there are)",
    )
    add(
        "--scale_windows",
        type=int,
        default=32,
        help="about how many windows of the dear test set Scale are scored, evenly spread; 0: all (default 32)",
    )
    add("--device", default="", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    add("--amp", action="store_true", help="bfloat16 in the nets; losses and measures stay in float32 and float64")
    add("--checkpoint", action="store_true", help="save memory: compute roll-out steps again in the backward pass")
    add("--compile", action="store_true", help="compile the net; on a CPU this takes minutes and a C++ compiler")
    add("--num_workers", type=int, default=1, help="threads that read batches ahead (default 1)")
    add("--no_resume", action="store_true", help="remove what this run left behind and start over")
    add("--evaluate", type=Path, metavar="RUN", help="train nothing: score best.pt of this folder, whose net it builds")
    add("--predict", type=Path, metavar="RUN", help="train nothing: forecast --frames with best.pt of this folder")
    add(
        "--frames",
        metavar="FILE",
        help="of --predict: .npy or .pt (T, C, H, W) in the units of the raw data, NaN on land, T at least the net's "
        "input_length; or a window of prepared data, FOLDER:SPLIT:NUMBER such as data/rbc:test:0",
    )
    add(
        "--export",
        type=Path,
        metavar="FILE",
        help="of --predict: forecast nothing, write the net to a .pt2 or .onnx file that other programs can load",
    )
    add("--strict", action="store_true", help="of --evaluate: set what the net of a --relaxed run deviates by to 0")
    add("--steps", type=int, help="frames that --predict forecasts (default: as many as the tests)")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="of --evaluate: scores as .json or, of any other name, a folder like a run's, for evaluation.report; of "
        "--predict: (steps, C, H, W) .npy",
    )
    parser.set_defaults(**of_run)
    args = parser.parse_args(argv)
    try:
        check_modes(args)
        if args.predict is None and (args.evaluate is None or of_run):
            check_args(args)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    return args


def learning_rate(word):
    """An argparse type: a number, or "best"."""
    return word if word == "best" else float(word)


def check_modes(args):
    """Refuse flags of another mode than that of ``args``."""
    if args.evaluate is not None and args.predict is not None:
        raise ValueError("--evaluate and --predict are two calls")
    if args.export is not None:
        if args.predict is None or args.frames is not None or args.output is not None:
            raise ValueError("--export goes with --predict RUN, without --frames and --output")
        if args.export.suffix not in (".pt2", ".onnx"):
            raise ValueError(f"--export {args.export} must end in .pt2 or .onnx")
    elif args.predict is not None:
        complete = args.frames is not None and args.output is not None and args.output.suffix == ".npy"
        if not complete or (args.steps is not None and args.steps < 1):
            raise ValueError("--predict wants --frames to read, an --output that ends in .npy and --steps from 1 on")
    elif args.frames is not None or args.steps is not None or (args.output is not None and args.evaluate is None):
        raise ValueError("--output goes with --evaluate or --predict, --frames and --steps with --predict")
    if args.strict and args.evaluate is None:
        raise ValueError("--strict goes with --evaluate")
    if args.strict and args.output is not None and args.output.suffix != ".json":
        raise ValueError("--strict: no run was trained like this; --output must end in .json")


def check_args(args):
    """Bring names to their canonical spelling and refuse values that cannot be meant."""
    args.dataset = next((name for name in DATASETS if name.lower() == args.dataset.lower()), args.dataset)
    args.architecture = match(args.architecture, NETS, "architecture")
    args.symmetry = match(args.symmetry, OPTIONS, "symmetry")
    options = OPTIONS[args.symmetry]
    args.deviation = match(args.deviation, DEVIATIONS, "deviation")
    relaxed = "" if args.relaxed is None else args.deviation
    # refuses what it cannot build
    dataclasses.replace(options, relaxed=relaxed, **{name: getattr(args, name) for name in options.options()})
    for name, (default, symmetry) in {n: (v, s) for s in OPTIONS for n, v in OPTIONS[s].options().items()}.items():
        if name not in options.options() and getattr(args, name) != default:
            raise ValueError(f"--{name} is of --symmetry {symmetry}, not of {args.symmetry}")
    if args.variant == "free" and args.relaxed is not None:
        raise ValueError("--variant free has no constraint that --relaxed could relax")
    if args.variant == "normless" and args.architecture == "ConvNet":
        raise ValueError("--variant normless: the ConvNet has no norms without it; choose another architecture")
    args.padding = args.padding and match(args.padding, PADDINGS, "padding")
    args.frame = [name for name in FRAMES if name in names_of(args.frame, FRAMES, "frame")]
    if args.relaxed is not None and args.symmetry in args.frame:
        raise ValueError(
            f"--frame {args.symmetry} would keep the symmetry that --relaxed relaxes; leave one of them out"
        )
    transforms = [name for name in OPTIONS if name != "None" and OPTIONS[name].keeps_shape]
    if "scale" in str(args.augment).lower().split(","):
        raise ValueError("--augment Scale: samples of a batch would differ in size; choose others, or all others")
    args.augment = transforms if args.augment == "all" else names_of(args.augment, transforms, "symmetry")
    for name in ("input_length", "output_length", "batch_size", "num_epoch", "learning_rate", "decay_rate", "width"):
        value = getattr(args, name)
        if value != "best" and not 0 < value < float("inf"):
            raise ValueError(f"--{name} must be positive, got {value}")
    if args.kernel_size < 1 or args.kernel_size % 2 == 0:
        raise ValueError(f"--kernel_size must be odd and positive, got {args.kernel_size}")
    if args.relaxed is not None and not 0 <= args.relaxed < math.inf:
        raise ValueError(f"--relaxed must be a number from 0 on, got {args.relaxed}")
    for name in ("weight_decay", "penalty"):
        if not 0 <= getattr(args, name) < math.inf:
            raise ValueError(f"--{name} must be a number from 0 on, got {getattr(args, name)}")
    if args.relaxed is None and args.deviation != DEVIATIONS[0]:
        raise ValueError("--deviation goes with --relaxed")
    if not 0 < args.train_fraction <= 1:
        raise ValueError(f"--train_fraction must be above 0 and at most 1, got {args.train_fraction}")
    args.test_sets = names_of(args.test_sets, ("test", *TEST_SETS), "test set")
    for name in ("num_workers", "seed", "patience", "valid_length", "scale_windows"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name} must not be negative, got {getattr(args, name)}")
    if args.seed >= 2**63:
        raise ValueError(f"--seed must be below 2^63, got {args.seed}")


def names_of(words, names, what):
    """The ``names`` in a list of words, or in a text that separates them by commas; ValueError if one is unknown."""
    words = [word for word in words.split(",") if word] if isinstance(words, str) else words
    return [match(word, names, what) for word in words]


def run_name(args):
    """The folder of a run: the settings in the release's order, then what differs from its defaults."""
    rate = args.learning_rate if args.learning_rate == "best" else f"{args.learning_rate:g}"
    name = (
        f"{args.dataset}_{args.architecture}_{args.symmetry}_bz{args.batch_size}_inp{args.input_length}"
        f"_pred{args.output_length}_lr{rate}_decay{args.decay_rate:g}_kernel{args.kernel_size}_seed{args.seed}"
    )
    if args.width != 1:
        name += f"_width{args.width:g}"
    for option, default in OPTIONS[args.symmetry].options().items():
        if getattr(args, option) != default:
            name += f"_{option}{getattr(args, option)}"
    if args.frame:
        name += "_frame" + "+".join(args.frame)
    if args.variant:
        name += f"_{args.variant}"
    if args.padding:
        name += f"_{args.padding}"
    if args.relaxed is not None:
        name += f"_relaxed{args.relaxed:g}" + f"_{args.deviation}" * (args.deviation != DEVIATIONS[0])
    if args.weight_decay != WEIGHT_DECAY:
        name += f"_weightdecay{args.weight_decay:g}"
    if args.penalty:
        name += f"_penalty{args.penalty:g}"
    if args.augment:
        name += "_augment" + "+".join(args.augment)
    if args.train_fraction != 1:
        name += f"_train{args.train_fraction:g}"
    if args.valid_length:
        name += f"_valid{args.valid_length}"
    if args.patience:
        name += f"_patience{args.patience}"
    return name + ("_amp" if args.amp else "")


def short_name(args):
    """What tells the lines of this run from those of its neighbours in a sweep."""
    return f"{args.architecture} {args.symmetry} seed {args.seed}"
