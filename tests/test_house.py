"""The rooms: imports run one way, files stay small enough to read, every link and snippet of the documents works."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows import flags

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# From the bottom up. A module may import those of lower floors, and those of its own as long as there is no circle.
FLOORS = [
    "models",
    "evaluation.rmse evaluation.spectrum evaluation.measures evaluation.equivariance evaluation.ablation",
    "utils",
    "simulation",
    "flows",
    "evaluation",
    "data_prep run_model",
]
LINES = {"data_prep.py": 400, "utils.py": 600, **{f"flows/{path.name}": 400 for path in (ROOT / "flows").glob("*.py")}}


def modules():
    """``{name: path}`` of all modules of the project, packages as ``package.__init__``."""
    paths = [path for pattern in ("*.py", "*/*.py") for path in ROOT.glob(pattern) if path.parent.name != "tests"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def imports(path, names):
    """Names of the project's modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in wanted:
            found |= {name, f"{name}.__init__"} & names
    return found


def floor(name):
    """The lowest floor that names a module, or its package."""
    for level, members in enumerate(FLOORS):
        if {name, name.split(".")[0]} & set(members.split()):
            return level
    raise AssertionError(f"{name} is in no room")


def arrows():
    paths = modules()
    return {name: imports(path, paths.keys()) - {name} for name, path in paths.items()}


def test_imports_run_one_way():
    for name, used in arrows().items():
        for other in used:
            assert floor(other) <= floor(name), f"{name} imports {other} from above"


def test_no_imports_in_circles():
    left = arrows()
    while left:
        free = {name for name, used in left.items() if not used & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: used for name, used in left.items() if name not in free}


@pytest.mark.parametrize("name", LINES)
def test_files_are_small(name):
    assert len((ROOT / name).read_text().splitlines()) <= LINES[name]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = document.read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = document if not path else (document.parent / path).resolve()
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, link


def test_named_tests_and_files_exist():
    """What the documents call by name, in backquotes: files of the project and tests."""
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    for document in DOCUMENTS:
        for name in re.findall(r"`(test_\w+)`", document.read_text()):
            assert f"def {name}(" in tests, f"{document.name} names {name}"
        for name in re.findall(
            r"`((?:models|evaluation|flows|simulation|tests|docs)/[\w./]+\.\w+)`", document.read_text()
        ):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_commands_of_data_prep_are_right():
    """Those in backquotes or in fences, as far as the command line can tell."""
    commands = []
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        commands += re.findall(r"(?:^|`)python data_prep\.py ([^`#\n]+)", text, re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        assert flags.parse_args(shlex.split(command)).command


def programs():
    """Arguments of Python that start each program of the project, those with a ``__main__``."""
    for name, path in modules().items():
        if "__main__" in path.read_text():
            yield [path.name] if path.parent == ROOT else ["-m", name]


WRONG = ["rbc --raw x.pt --ra 1e6", "ocean --train x.nc --train_box 0 0 1 2", "smoke --set levels"]


@pytest.mark.parametrize("command", [*programs(), *(["data_prep.py", *flags.split()] for flags in WRONG)], ids=" ".join)
def test_flags_are_read_before_slow_imports(command):
    """For help, or a mistyped flag, nobody waits for torch and the like, whatever the program needs later."""
    for flag, code in ((["--help"], 0), (["--colour"], 2)) if len(command) < 3 else (([], 2),):
        words = [sys.executable, "-X", "importtime", *command, *flag]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = done.stderr.splitlines()
        imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
        assert "argparse" in imported
        assert not imported & {"torch", "numpy", "scipy", "matplotlib", "kornia", "netCDF4", "h5py", "tqdm"}
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_readme_python_runs():
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert snippets
    for snippet in snippets:
        done = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250
