"""What every door shares: presets and flags, one clear line for a bad input, exit statuses.

Doors import their rooms inside `main`, so that `--help` and a bad flag answer at once and Ctrl-C is one line at any time.
"""

import contextlib
import io
import logging
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from wizardcoder_jax.config.presets import load_preset
from wizardcoder_jax.core.errors import EXIT_BAD_INPUT, EXIT_RESUMABLE, InputError, StoppedEarlyError
from wizardcoder_jax.core.logging_setup import configure_logging

Config = TypeVar("Config")
_TYRO = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)


def run_command(main: Callable[[Sequence[str] | None], None]) -> None:
    """Runs a door's `main` and ends the process: 0 done, 2 bad input, 75 stopped early but resumable.

    SIGTERM, with which machines are taken away, is Ctrl-C to a door that does not handle it in its own way.
    """
    status = 0
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main(None)
    except InputError as error:
        status = _complain(f"error: {error}", EXIT_BAD_INPUT)
    except StoppedEarlyError as error:
        status = _complain(f"stopped: {error}", EXIT_RESUMABLE)
    except KeyboardInterrupt:
        status = _complain("stopped: interrupted; the same command resumes", EXIT_RESUMABLE)
    except OSError as error:
        if error.errno is None:
            raise
        status = _complain(f"error: {error.strerror}: {error.filename or 'writing output'}", 1)
    except Exception:
        if not _has_peers():
            raise
        traceback.print_exc()
        status = _complain("error: this process ends, and so will the others of its run; start them all again", 1)
    sys.stdout.flush()
    if status not in (0, EXIT_RESUMABLE) and _has_peers():
        os._exit(status)  # an ordinary exit would wait for the others, which wait for this one
    sys.exit(status)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    handle = signal.getsignal(signal.SIGINT)  # an event loop has its own
    if not callable(handle):  # a process in the background may ignore Ctrl-C
        raise KeyboardInterrupt
    handle(signal.SIGINT, frame)


def _has_peers() -> bool:
    """Whether this process is one of several of a run (processes.py)."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _complain(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")  # in one piece
    sys.stderr.flush()
    return status


def parse_command_line(config_type: type[Config], argv: Sequence[str] | None = None) -> Config:
    """A door's settings: the preset of `--config FILE`, then flags over it.

    Args:
        config_type: the door's dataclass.
        argv: arguments; None for the process's own.

    Raises:
        InputError: a flag is unknown, a value out of range, or the preset not one for this door.
        SystemExit: with status 0, for --help.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    args = _take_log_level(args)
    preset_file, args = _take_preset(args)
    preset = load_preset(preset_file, config_type) if preset_file else None
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config: Any = tyro.cli(config_type, args=args, default=preset, prog=_program_name(), config=_TYRO)
            return config
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_one_line(complaint.getvalue())) from None


def _take_log_level(args: list[str]) -> list[str]:
    """Configure logging by --quiet or --verbose, and return the other arguments."""
    levels = {"--quiet": logging.WARNING, "--verbose": logging.DEBUG}
    chosen = [levels[arg] for arg in args if arg in levels]
    configure_logging(chosen[-1] if chosen else logging.INFO)
    return [arg for arg in args if arg not in levels]


def _one_line(complaint: str) -> str:
    """Tyro's boxed complaint as one line: the title, then the text up to the pointer to --help."""
    lines = [line.strip(" │╭╮╰╯─") for line in complaint.splitlines()]
    return " ".join(line for line in lines if line).replace("For full helptext, see", "; see")


def _program_name() -> str:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else os.path.basename(sys.argv[0])


def _take_preset(args: list[str]) -> tuple[str | None, list[str]]:
    for i, arg in enumerate(args):
        if arg == "--config":
            if i + 1 == len(args):
                raise InputError("--config needs a preset file, e.g. --config configs/tiny.py")
            return args[i + 1], args[:i] + args[i + 2 :]
        if arg.startswith("--config="):
            return arg.removeprefix("--config="), args[:i] + args[i + 1 :]
    return None, args
