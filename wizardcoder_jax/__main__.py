"""The `wizardcoder` program: `wizardcoder COMMAND ...` is the same as `python -m wizardcoder_jax.COMMAND ...`."""

import ast
import difflib
import importlib
import logging
import sys
from pathlib import Path

from wizardcoder_jax.core.errors import EXIT_BAD_INPUT
from wizardcoder_jax.core.logging_setup import configure_logging

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the command that the first argument names, and exit with its status."""
    program = "wizardcoder" if Path(sys.argv[0]).stem == "wizardcoder" else "python -m wizardcoder_jax"
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    commands = list_commands()
    if name in ("-h", "--help", "help"):
        print(_help(program, commands))
        sys.exit(0)
    if name not in commands:
        configure_logging()
        logger.error("%s see %s --help", _describe_problem(name, list(commands)), program)
        sys.exit(EXIT_BAD_INPUT)

    from wizardcoder_jax.config.command_line import run_command

    sys.argv = [f"{program} {name}", *sys.argv[2:]]
    run_command(lambda argv: importlib.import_module(f"wizardcoder_jax.{name}").main(argv))


def list_commands() -> dict[str, str]:
    """Return the first line of each command's docstring by command name, without importing any command."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    docstrings = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in files}
    return {name: docstring.partition("\n")[0] for name, docstring in docstrings.items()}


def _describe_problem(name: str, commands: list[str]) -> str:
    problem = f"unknown command {name!r}" if name else "missing command"
    similar = difflib.get_close_matches(name, commands, n=1)
    return f"{problem}; did you mean {similar[0]}?" if similar else f"{problem}; choose one of {', '.join(commands)};"


def _help(program: str, commands: dict[str, str]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {summary}" for name, summary in commands.items()]
    usage = [f"usage: {program} COMMAND [OPTIONS]", "", "commands:", *lines, ""]
    return "\n".join([*usage, f"`{program} COMMAND --help` lists the options of a command."])


if __name__ == "__main__":
    main()
