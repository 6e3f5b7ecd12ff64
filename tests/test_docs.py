"""The documentation says nothing that does not exist: flags, presets, files, modules and links; and its site builds."""

import ast
import dataclasses
import functools
import importlib
import re
import shlex
import subprocess
import sys
import typing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from wizardcoder_jax import config

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wizardcoder_jax"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tpu/README.md")), *DOCS]
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
pytestmark = pytest.mark.quick
each_page = pytest.mark.parametrize("page", PAGES, ids=IDS)

COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
EVERY_COMMAND = {"--help", "--config", "--quiet", "--verbose"}  # taken before the settings are parsed
OTHER_PROGRAMS = {  # flags of programs that are not ours
    "--outfile",  # llama.cpp's converter
    "--outtype",
    "--local-dir",  # hf
    "--fix",  # ruff
    "--xla_force_host_platform_device_count",
}
SCRIPTS = {name: ROOT / name for name in ("scripts/supervise.py", "tpu/launch.sh")}
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
CODE_SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# Roots of the repository in which a path in the documentation may begin, and those below the package.
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
PACKAGES = {path.name for path in PACKAGE.iterdir() if path.is_dir()}


@functools.cache
def flags_of(command):
    """All flags of a command, from the fields of its settings."""
    kind = getattr(config, f"{command.capitalize()}Config")
    return EVERY_COMMAND | set(flags_of_settings(kind))


def flags_of_settings(kind, prefix="--"):
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = field.name.replace("_", "-")
        yield prefix + name
        yield f"{prefix}no-{name}"
        for option in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(option):
                yield from flags_of_settings(option, f"{prefix}{name}.")


def blocks_of(text):
    """The lines of fenced and indented code blocks."""
    fenced = [block.split("\n", 1)[1].rsplit("\n", 1)[0] for block in FENCE.findall(text)]
    indented = re.findall(r"(?:^ {4,}\S.*\n?)+", FENCE.sub("", text), re.MULTILINE)
    return [*fenced, *indented]


def commands_in(block):
    """(command, arguments) of each of our commands in a code block."""
    for line in block.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # text that is not a shell command
            continue
        for i, word in enumerate(words):
            if word in COMMANDS and i and words[i - 1] == "wizardcoder":
                yield word, words[i + 1 :]
            elif word.startswith("wizardcoder_jax.") and i and words[i - 1] == "-m":
                yield word.removeprefix("wizardcoder_jax."), words[i + 1 :]


def flags_in(words):
    return [flag for word in words for flag in FLAG.findall(word.partition("=")[0])]


@each_page
def test_every_flag_of_a_command_in_a_code_block_exists(page):
    for block in blocks_of(page.read_text()):
        for command, words in commands_in(block):
            assert command in COMMANDS, command
            unknown = set(flags_in(words)) - flags_of(command)
            assert not unknown, f"{command} has no {', '.join(sorted(unknown))}"


@each_page
def test_every_other_flag_exists(page):
    """On a command's page it is a flag of that command, unless a code span names another one; elsewhere of any command."""
    own = {page.stem} if page.parent.name == "commands" and page.stem in COMMANDS else COMMANDS
    known = OTHER_PROGRAMS.union(*map(flags_of, own)) | script_flags()
    for line in FENCE.sub("", page.read_text()).splitlines():
        if line.startswith("    ") and not line.lstrip().startswith(("*", "-")):
            continue  # an indented code block
        for span in CODE_SPAN.findall(line):
            named = [word for word in span.split() if word in COMMANDS]
            wanted = known.union(*map(flags_of, named))
            unknown = set(flags_in([span])) - wanted
            assert not unknown, f"no {', '.join(sorted(unknown))}: {line}"


@functools.cache
def script_flags():
    """The flags that our scripts take."""
    files = [*(ROOT / "scripts").rglob("*.py"), ROOT / "tpu" / "launch.sh"]
    return {flag for file in files for flag in FLAG.findall(file.read_text())}


@each_page
def test_every_file_and_folder_exists(page):
    for span in CODE_SPAN.findall(FENCE.sub("", page.read_text())):
        for name in re.findall(r"[\w./-]+", span):
            assert path_exists(name), name


def path_exists(name):
    """Whether a file of the repository is where the documentation says; names of other files pass."""
    folder, slash, _ = name.partition("/")
    if not slash or name.startswith(("/", ".")) or re.search(r"[A-Z]{2}", name):  # STEP, DIR: to be filled in
        return True
    if folder in FOLDERS - {"runs", "data", "site", "build"}:
        return (ROOT / name).exists()
    if folder in PACKAGES and name.endswith((".py", "/")):
        return (PACKAGE / name).exists()
    return True


@each_page
def test_every_preset_exists(page):
    for name in re.findall(r"configs/\w+\.py", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_every_preset_is_in_the_tables():
    presets = {f"`configs/{path.name}`" for path in (ROOT / "configs").glob("*.py")}
    for page in (ROOT / "README.md", ROOT / "docs" / "presets.md"):
        rows = {line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| `configs/")}
        assert rows == presets, page.name
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert all(f"`{path.stem}`" in changelog for path in (ROOT / "configs").glob("*.py"))


def test_every_command_has_a_page_and_a_row():
    assert {path.stem for path in (ROOT / "docs" / "commands").glob("*.md")} == COMMANDS | {"index"}
    index = (ROOT / "docs" / "commands" / "index.md").read_text()
    assert {command for command in COMMANDS if f"[{command}]({command}.md)" in index} == COMMANDS


@each_page
def test_every_module_and_name_in_it_exists(page):
    for name in re.findall(r"\bwizardcoder_jax(?:\.[A-Za-z]*[a-z]\w*)+", page.read_text()):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_every_class_and_constant_of_the_recipes_exists():
    files = [
        file for folder in ("wizardcoder_jax", "tests") for file in (ROOT / folder).rglob("*.py") if file != Path(__file__)
    ]
    names = {name for file in files for name in re.findall(r"[A-Za-z_]\w*", file.read_text())}
    text = (ROOT / "docs" / "architecture.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    spans = [part for span in CODE_SPAN.findall(FENCE.sub("", text)) for part in span.split(".")]
    wanted = {part for part in spans if re.fullmatch(r"[A-Z]\w+", part)} - {"NAME", "NOTICE", "CHANGELOG"}
    assert not sorted(wanted - names)


@each_page
def test_every_import_in_an_example_works(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wizardcoder_jax"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@each_page
def test_every_link_inside_the_repository_works(page):
    for target in LINK.findall(page.read_text()):
        link = urlsplit(target)
        if link.scheme:
            assert link.scheme in ("http", "https")
            continue
        file = (page.parent / link.path) if link.path else page
        assert file.exists(), target
        if link.fragment:
            assert link.fragment in anchors_of(file), target


def anchors_of(page):
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_notice_names_files_that_exist():
    text = (ROOT / "NOTICE").read_text()
    for group in re.findall(r"\(([^()]*)\)", text):
        for name in re.findall(r"[\w/]+\.(?:py|sh)\b", group):
            foreign = name in ("generate_evol.py", "Evol_Instruct/breadth.py", "src/encoder.py")
            assert foreign or (PACKAGE / name).exists() or (ROOT / name).exists(), name


def test_every_benchmark_and_protocol_is_documented():
    from wizardcoder_jax.benchmarks.catalog import BENCHMARKS
    from wizardcoder_jax.benchmarks.protocols import PROTOCOLS

    page = (ROOT / "docs" / "protocols.md").read_text()
    assert {name for name in PROTOCOLS if f"`{name}`" in page} == set(PROTOCOLS)
    languages = {name.removeprefix("multipl-e-") for name in BENCHMARKS if name.startswith("multipl-e-")}
    assert {name for name in languages if f"`{name}`" in page} == languages
    others = {name for name in BENCHMARKS if not name.startswith("multipl-e-")}
    assert {name for name in others if f"`{name}`" in page} == others


def test_every_elimination_rule_is_documented():
    from wizardcoder_jax.evol_instruct import elimination_rules

    names = {rule.name for rule in (*elimination_rules.INSTRUCTION_RULES, *elimination_rules.RESPONSE_RULES)}
    page = (ROOT / "docs" / "commands" / "evolve.md").read_text()
    assert names and {name for name in names if f"`{name}`" in page} == names


@each_page
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    lines = [line.strip() for part in (*blocks_of(text), *CODE_SPAN.findall(text)) for line in part.splitlines()]
    calls = [line.partition("#")[0].split()[1:] for line in lines if line.startswith("make ")]
    named = {word for words in calls for word in words if "=" not in word and not word.startswith("-")}
    assert named <= targets


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1300


def test_the_site_builds_in_strict_mode_and_fetches_nothing(tmp_path):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    loaded = re.findall(
        r'<(?:script|img|iframe)[^>]*\bsrc="([^"]+)"|<link[^>]*\brel="(?:stylesheet|preconnect)"[^>]*\bhref="([^"]+)"', page
    )
    assert loaded and not [address for found in loaded for address in found if "//" in address]
