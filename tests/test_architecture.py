"""The import rules of the package, read from its folder names, and the names that must be unique in it."""

import ast
import collections
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wizardcoder_jax"

# Each package may import the packages in the rows above its own, so that imports have no cycles.
LAYERS = (
    ("core", "config"),
    ("models", "data", "benchmarks", "sandbox", "llm_client"),
    ("checkpoints",),
    ("hf",),
    ("inference",),
    ("evol_instruct", "evaluation", "serving"),
    ("training",),
    ("planning",),
    ("reports",),
)
# Packages in the same row do not import each other, except that config imports core.
HEIGHT = {package: height for height, row in enumerate(LAYERS) for package in row}

# Third-party library -> the only packages, commands or files that may import it.
LIBRARIES = {
    "seqio": {"data"},
    "tensorflow": {"data"},
    "tensorflow_text": {"data"},
    "tensorflow_datasets": {"data"},
    "orbax": {"checkpoints"},
    "tensorstore": {"checkpoints"},
    "safetensors": {"hf"},
    "gguf": {"hf"},
    "torch": {"hf"},
    "tyro": {"config"},
    "aiohttp": {"llm_client", "serving"},
    "prometheus_client": {"serving"},
    "pydantic": {"serving"},
}
# Packages that start without jax: evolve, evaluate and report need them, and so does a machine without an accelerator.
WITHOUT_JAX = {"config", "data", "benchmarks", "sandbox", "llm_client", "reports"}
STANDARD_LIBRARY = set(sys.stdlib_module_names) | {"__future__"}


def imports(tree, own_package):
    """Full names of the imports of a syntax tree; `from a import b` yields a.b, which may be a module."""
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


def package_of(file):
    """The package of a file, whose path is relative to wizardcoder_jax/; None for a command."""
    parts = Path(file).parts
    return parts[0] if len(parts) > 1 else None


def may_import(importer, imported):
    """Whether files of one package may import another package."""
    if importer is None or importer == imported:
        return True
    if HEIGHT[importer] == HEIGHT[imported]:
        return (importer, imported) == ("config", "core")
    return HEIGHT[importer] > HEIGHT[imported]


def violations(file, source):
    """The imports of a file (relative to wizardcoder_jax/) that violate the rules."""
    package = package_of(file)
    found = []
    for name in imports(ast.parse(source), ".".join(["wizardcoder_jax", *Path(file).parts[:-1]])):
        top, *rest = name.split(".")
        if top == "wizardcoder_jax":
            imports_command = rest[0] not in HEIGHT
            if imports_command or not may_import(package, rest[0]):
                found.append(f"{file} imports {name}")
        elif (top in LIBRARIES and package not in LIBRARIES[top]) or (
            top in ("jax", "flax", "optax") and package in WITHOUT_JAX
        ):
            found.append(f"{file} imports {name}")
    return list(dict.fromkeys(found))


def package_files():
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def commands():
    return sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


def test_every_import_follows_the_rules():
    assert [line for file in package_files() for line in violations(file, (PACKAGE / file).read_text())] == []


def test_every_folder_has_a_layer_and_every_file_at_the_top_is_a_command():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(HEIGHT)
    for command in commands():
        tree = ast.parse((PACKAGE / f"{command}.py").read_text())
        assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, command


def test_basenames_are_unique_but_for_commands_and_their_settings():
    paths = collections.defaultdict(list)
    for file in package_files():
        if Path(file).name not in ("__init__.py", "__main__.py"):
            paths[Path(file).name].append(file)
    repeated = {name: files for name, files in paths.items() if len(files) > 1}
    assert repeated == {name: [name, f"config/{name}"] for name in repeated} or all(
        sorted(files) == [f"config/{name}", name] for name, files in repeated.items()
    )


def test_public_class_names_are_unique():
    places = collections.defaultdict(list)
    for file in package_files():
        for node in ast.parse((PACKAGE / file).read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(file)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("data/x.py", "from wizardcoder_jax.models.layers import Mlp"),
        ("data/x.py", "from wizardcoder_jax import models"),
        ("data/x.py", "from ..models import layers"),
        ("models/x.py", "from wizardcoder_jax.training import objectives"),
        ("benchmarks/x.py", "def f():\n  from wizardcoder_jax.sandbox.sandbox import Sandbox"),
        ("core/x.py", "from wizardcoder_jax.config import TrainConfig"),
        ("config/x.py", "from wizardcoder_jax.models import layers"),
        ("llm_client/x.py", "from wizardcoder_jax.evol_instruct import methods"),
        ("hf/x.py", "from wizardcoder_jax.training import optimizers"),
        ("checkpoints/x.py", "from wizardcoder_jax.training import optimizers"),
        ("reports/x.py", "from wizardcoder_jax.report import main"),
        ("reproduce.py", "from wizardcoder_jax.train import main"),
        ("evol_instruct/x.py", "import aiohttp"),
        ("training/x.py", "import seqio.utils"),
        ("training/step.py", "import orbax.checkpoint as ocp"),
        ("models/x.py", "import importlib\nimportlib.import_module('torch')"),
        ("evaluate.py", "import tyro"),
        ("data/x.py", "from jax import lax"),
        ("reports/x.py", "import jax.numpy as jnp"),
    ],
)
def test_a_forbidden_import_is_found(file, source):
    assert violations(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("data/x.py", "import seqio\nfrom wizardcoder_jax.core import errors\nfrom .packing import pack"),
        ("hf/x.py", "import gguf, jax\nfrom wizardcoder_jax.models.transformer import Transformer"),
        ("config/x.py", "from wizardcoder_jax.core.errors import InputError"),
        ("evolve.py", "from wizardcoder_jax.evol_instruct import rounds"),
        ("report.py", "from wizardcoder_jax.benchmarks import score"),
        ("training/x.py", "from wizardcoder_jax.evaluation import benchmark_evaluator"),
    ],
)
def test_an_allowed_import_is_accepted(file, source):
    assert violations(file, source) == []


def test_presets_import_settings_only():
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


def test_every_command_prints_its_help_without_importing_jax_or_tensorflow():
    output = run(
        "import importlib, sys\n"
        f"for command in {commands()}:\n"
        "    try: importlib.import_module(f'wizardcoder_jax.{command}').main(['--help'])\n"
        "    except SystemExit as stop: assert not stop.code, (command, stop.code)\n"
        f"    loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "    assert not loaded, (command, loaded)"
    )
    assert output.count("show this help message") == len(commands())


def test_commands_without_a_model_start_in_under_two_seconds_of_cpu_time():
    for command in ("evolve", "decontaminate", "evaluate", "sample", "report"):
        code = (
            f"import time\nfrom wizardcoder_jax.{command} import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: print(time.process_time())"
        )
        assert float(run(code).splitlines()[-1]) < 2


def test_loading_a_model_or_a_checkpoint_imports_no_optimizer_code():
    output = run(
        "import sys\n"
        "import wizardcoder_jax.hf.load_model, wizardcoder_jax.checkpoints.reader\n"
        "print([name for name in sys.modules if name.startswith('wizardcoder_jax.training')])"
    )
    assert output.strip() == "[]"


def test_importing_the_package_has_no_side_effects():
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
