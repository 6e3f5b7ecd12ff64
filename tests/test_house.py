"""The import rules of the house, over the real tree: who may import whom, and where each third-party library may occur."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wizardcoder_jax"

GROUND = {"arch", "chips", "cli", "compiler", "config", "errors", "files", "infilling", "journal", "processes", "progress"}
GROUND |= {"prompts", "sharding"}
ROOMS = {  # room -> the rooms below it
    "clients": set(),
    "instructions": {"clients"},
    "data": set(),
    "model": set(),
    "benchmarks": set(),
    "sandbox": set(),
    "report": set(),
    "hf": {"model"},
    "training": {"model", "data"},
    "sampling": {"model"},
    "loading": {"hf", "training", "model"},  # turns a MODEL argument of any kind into a model
    "scoring": {"benchmarks", "sandbox"},  # problems to prompts, answers to programs
    "results": {"benchmarks", "sandbox"},  # verdicts to the results file
    "teaching": {"clients", "loading", "sampling", "hf", "training", "model"},  # a model of our own as a teacher
    "serving": {"sampling", "hf", "model"},  # an engine behind HTTP
    "trials": {"instructions", "sandbox"},  # runs what the teacher answers
    "examination": {"scoring", "benchmarks", "sandbox", "sampling", "model", "hf", "training"},  # pass@1 while it trains
    "subject": {"loading", "hf", "training", "model"},  # what a run trains
    "planning": {"loading", "sampling", "training", "hf", "model"},  # whether it fits, how fast it is
    "measures": {"examination", "subject", "data", "training", "model"},  # what is measured meanwhile
}
PACKAGED_DOORS = {"report"}  # a room's own __main__.py: python -m wizardcoder_jax.report
DOORS = {"evolve", "train", "sample", "evaluate", "convert", "export", "decontaminate", "plan", "serve", "doctor", "reproduce"}

FENCES = {  # third-party library -> where alone it may be imported: rooms, doors or files
    "seqio": {"data"},
    "tensorflow": {"data"},
    "tensorflow_text": {"data"},
    "tensorflow_datasets": {"data"},
    "flax": {"model", "training"},
    "orbax": {"training/checkpoint.py"},
    "tensorstore": {"training/arrays.py"},
    "safetensors": {"hf"},
    "gguf": {"hf"},
    "tyro": {"cli.py"},
    "huggingface_hub": {"hf", "files.py"},
    "etils": {"files.py", "training/checkpoint.py"},
    "torch": {"hf/torch_files.py"},
    "transformers": set(),
    "aiohttp": {"clients", "serving"},
    "jax": {
        "model",
        "hf",
        "training",
        "sampling",
        "planning",
        "examination.py",
        "loading.py",
        "measures.py",
        "subject.py",
        "teaching.py",
        "processes.py",
        "sharding.py",
        *(f"{door}.py" for door in DOORS),
    },
}
STANDARD_LIBRARY = set(sys.stdlib_module_names) | {"__future__"}
GROUND_THIRD_PARTIES = {
    "cli": {"tyro"},
    "files": {"etils", "huggingface_hub", "pyarrow"},
    "processes": {"jax", "numpy"},
    "progress": {"tqdm"},
    "sharding": {"jax"},
}


def imports(tree, own_package):
    """Full names of all that a syntax tree imports; `from a import b` counts as a.b, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = own_package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def room_of(file):
    return Path(file).parts[0].removesuffix(".py")


def violations(file, source):
    """What `file` (relative to the package) imports against the rules."""
    room, package = room_of(file), ".".join(["wizardcoder_jax", *Path(file).parts[:-1]])
    is_door = room in DOORS or file in {f"{door}/__main__.py" for door in PACKAGED_DOORS}
    allowed = GROUND | {room} | (ROOMS.keys() if is_door else ROOMS.get(room, set()))
    found = []
    for name in imports(ast.parse(source), package):
        top, *rest = name.split(".")
        if top == "wizardcoder_jax":
            if (room in GROUND and rest[0] not in GROUND) or rest[0] not in allowed or "__main__" in rest:
                found.append(f"{file} imports {name}")
            continue
        fence = FENCES.get(top)
        if fence is not None and not fence & {room, file}:
            found.append(f"{file} imports {name}")
        if room in GROUND and top not in STANDARD_LIBRARY | GROUND_THIRD_PARTIES.get(room, set()):
            found.append(f"{file} imports {name}")
    return list(dict.fromkeys(found))


def package_files():
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def test_every_import_keeps_the_rules():
    assert [line for file in package_files() for line in violations(file, (PACKAGE / file).read_text())] == []


def test_every_file_is_a_door_a_room_or_the_ground():
    assert {room_of(file) for file in package_files()} <= DOORS | ROOMS.keys() | GROUND | {"__init__"}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("data/x.py", "from wizardcoder_jax.model.layers import Mlp"),
        ("data/x.py", "from wizardcoder_jax import model"),
        ("data/x.py", "from ..model import layers"),
        ("model/x.py", "from wizardcoder_jax.training import loss"),
        ("benchmarks/x.py", "def f():\n  from wizardcoder_jax.sandbox.runner import Sandbox"),
        ("report/x.py", "import wizardcoder_jax.benchmarks.score"),
        ("report/x.py", "from wizardcoder_jax.report.__main__ import main"),
        ("reproduce.py", "from wizardcoder_jax.report import __main__"),
        ("data/__main__.py", "from wizardcoder_jax.benchmarks import score"),
        ("instructions/x.py", "import aiohttp"),
        ("clients/x.py", "from wizardcoder_jax.instructions import rules"),
        ("loading.py", "from wizardcoder_jax.data.cache import prepare"),
        ("config/x.py", "from wizardcoder_jax.model import layers"),
        ("config/x.py", "import numpy"),
        ("reproduce.py", "from wizardcoder_jax.train import main"),
        ("training/x.py", "import seqio.utils"),
        ("hf/x.py", "from flax import nnx"),
        ("training/step.py", "import orbax.checkpoint as ocp"),
        ("hf/x.py", "import importlib\nimportlib.import_module('torch')"),
        ("evaluate.py", "import tyro"),
        ("instructions/x.py", "import jax.numpy as jnp"),
        ("data/x.py", "from jax import lax"),
        ("instructions/x.py", "from etils import epath"),
    ],
)
def test_a_forbidden_import_is_found(file, source):
    assert violations(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("data/x.py", "import seqio\nfrom wizardcoder_jax import prompts\nfrom .packing import pack"),
        ("hf/x.py", "import gguf, jax\nfrom wizardcoder_jax.model.transformer import Transformer"),
        ("evolve.py", "from wizardcoder_jax.instructions import rounds"),
        ("report/__main__.py", "from wizardcoder_jax.benchmarks import score"),
        ("files.py", "from etils import epath\nfrom wizardcoder_jax.errors import InputError"),
    ],
)
def test_an_allowed_import_is_let_through(file, source):
    assert violations(file, source) == []


def test_presets_import_settings_alone():
    names = {name for path in (ROOT / "configs").glob("*.py") for name in imports(ast.parse(path.read_text()), "configs")}
    own = {name.split(".")[1] for name in names if name.startswith("wizardcoder_jax.")}
    other = {name.split(".")[0] for name in names} - {"wizardcoder_jax"}
    assert own == {"config"} and other <= STANDARD_LIBRARY


HEAVY = "('jax', 'jaxlib', 'flax', 'tensorflow', 'seqio', 'torch', 'transformers')"


def run(code):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def existing_doors():
    """Module names below the package."""
    packaged = [f"{door}.__main__" for door in PACKAGED_DOORS]
    return sorted([*packaged, *(door for door in DOORS if (PACKAGE / f"{door}.py").exists())])


@pytest.mark.parametrize("door", existing_doors())
def test_help_is_given_without_jax_and_tensorflow(door):
    said = run(
        "import sys\n"
        f"from wizardcoder_jax.{door} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    assert "--help" in said


def test_the_doors_without_a_model_start_in_under_two_seconds_of_cpu_time():
    for door in ("evolve", "decontaminate", "evaluate", "sample", "report.__main__"):
        code = (
            f"import time\nfrom wizardcoder_jax.{door} import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: print(time.process_time())"
        )
        assert float(run(code).splitlines()[-1]) < 2


def test_importing_the_package_does_nothing_else(tmp_path):
    code = (
        "import builtins, os, socket, sys\n"
        "def hook(event, args):\n"
        "  if event.startswith(('socket.', 'subprocess.', 'os.system', 'os.mkdir', 'os.putenv')): raise AssertionError(event)\n"
        "  if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'): raise AssertionError(args)\n"
        "sys.dont_write_bytecode = True\n"
        "before = set(sys.modules)\n"
        "sys.addaudithook(hook)\n"
        "import wizardcoder_jax\n"
        "print(sorted(set(sys.modules) - before - {'wizardcoder_jax'}))"
    )
    assert run(code).strip() == "[]"
