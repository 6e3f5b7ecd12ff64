"""The command-line interface that all commands share: presets and flags, one-line error messages, and exit statuses.

Commands import the packages that they need inside `main`, so that `--help` and usage errors appear immediately, and Ctrl-C
prints one line at any time.
"""

import contextlib
import dataclasses
import io
import logging
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from wizardcoder_jax.config.presets import load_preset
from wizardcoder_jax.config.usage_errors import UsageError, make_hook, option_names, parse_errors
from wizardcoder_jax.core.errors import EXIT_BAD_INPUT, EXIT_RESUMABLE, InputError, StoppedEarlyError
from wizardcoder_jax.core.library_environment import silence_native_logs, use_gcsfs_for_gs
from wizardcoder_jax.core.logging_setup import configure_logging

logger = logging.getLogger(__name__)

Config = TypeVar("Config")
_TYRO = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)


def run_command(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run the `main` of a command and exit with its status: 0 done, 2 bad input, 75 stopped early but resumable, 1 failed.

    SIGTERM, which announces that the machine will be preempted, acts like Ctrl-C unless the command handles it itself.
    """
    status = 0
    signal.signal(signal.SIGTERM, _interrupt)
    configure_logging()
    try:
        main(None)
    except InputError as error:
        status = EXIT_BAD_INPUT
        logger.error("%s", error)
    except StoppedEarlyError as error:
        status = EXIT_RESUMABLE
        logger.warning("%s", error, extra={"prefix": "stopped"})
    except KeyboardInterrupt:
        status = EXIT_RESUMABLE
        logger.warning("interrupted; the same command resumes", extra={"prefix": "stopped"})
    except OSError as error:
        if error.errno is None:
            raise
        status = 1
        logger.error("%s: %s", error.strerror, error.filename or "writing output")
    except Exception:
        if not _has_peers():
            raise
        status = 1
        traceback.print_exc()
        logger.error("this process has failed, and the other processes of this run will end too; start all of them again")
    sys.stdout.flush()
    if status not in (0, EXIT_RESUMABLE) and _has_peers():
        os._exit(status)  # an ordinary exit would wait for the other processes, which wait for this one
    sys.exit(status)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    handle = signal.getsignal(signal.SIGINT)  # an event loop installs its own handler
    if callable(handle):
        handle(signal.SIGINT, frame)
        return
    # A background process may ignore Ctrl-C. In an event loop, raise the exception in a separate callback: inside a task of a
    # library, asyncio would report it a second time as "never retrieved".
    asyncio = sys.modules.get("asyncio")
    loop = asyncio.events._get_running_loop() if asyncio else None
    if loop is None:
        _raise_interrupt()
    else:
        loop.call_soon_threadsafe(_raise_interrupt)


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


def _has_peers() -> bool:
    """Return whether this process is one of several processes of a run (core/distributed.py)."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def parse_command_line(config_type: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Return the settings of a command: those of the preset `--config FILE`, overridden by flags.

    Also installs the log handler at the level of --quiet or --verbose, and silences the start-up messages of libraries.

    Args:
        config_type: dataclass of the command's settings.
        argv: arguments of the command; None means those of the process.

    Raises:
        InputError: an option is unknown, a value is out of range, or the preset belongs to another command.
        SystemExit: with status 0, for --help.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    args = _take_log_level(args)
    use_gcsfs_for_gs()
    if not logger.isEnabledFor(logging.DEBUG):
        silence_native_logs()
    preset_file, args = _take_preset(args)
    preset = load_preset(preset_file, config_type) if preset_file else None
    hook = make_hook(args, [*option_names(config_type), *option_names(_SharedOptions), "--help"])
    complaint = io.StringIO()
    try:
        with parse_errors.on_parse_error(hook), contextlib.redirect_stderr(complaint):
            return _parse(config_type, args, preset)
    except (UsageError, ValueError) as error:  # a ValueError comes from the checks of the settings
        raise InputError(str(error)) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_join_lines(complaint.getvalue())) from None  # an error that usage_errors.py does not handle


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SharedOptions:
    """Options of every command. They are parsed before all other options, so here they only define the help text."""

    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None  # preset (.py or config.json); flags override it
    quiet: bool = False  # show only warnings and errors, and no progress
    verbose: bool = False  # also show debug messages, and the start-up messages of libraries


def _parse(config_type: type[Config], args: Sequence[str], preset: Config | None) -> Config:
    settings: Any = dataclasses.field() if preset is None else dataclasses.field(default=preset)
    without_prefix = tyro.conf.arg(name="")
    command_line = dataclasses.make_dataclass(
        "CommandLine",
        [
            ("settings", Annotated[config_type, without_prefix], settings),
            ("shared", Annotated[_SharedOptions, without_prefix], dataclasses.field(default=_SharedOptions())),
        ],
        kw_only=True,
    )
    return tyro.cli(command_line, args=args, prog=_program_name(), description=config_type.__doc__, config=_TYRO).settings


def _take_log_level(args: list[str]) -> list[str]:
    """Configure logging according to --quiet or --verbose, and return the other arguments."""
    levels = {"--quiet": logging.WARNING, "--verbose": logging.DEBUG}
    chosen = [levels[arg] for arg in args if arg in levels]
    configure_logging(chosen[-1] if chosen else logging.INFO)
    return [arg for arg in args if arg not in levels]


def _take_preset(args: list[str]) -> tuple[str | None, list[str]]:
    """Return the file name that `--config` gives (or None), and the other arguments."""
    for i, arg in enumerate(args):
        if arg == "--config":
            if i + 1 == len(args):
                raise InputError("--config needs a preset file, e.g. --config configs/tiny.py")
            return args[i + 1], args[:i] + args[i + 2 :]
        if arg.startswith("--config="):
            return arg.removeprefix("--config="), args[:i] + args[i + 1 :]
    return None, args


def _join_lines(complaint: str) -> str:
    """Return the text of an error box that tyro printed as one line."""
    lines = [line.strip(" │╭╮╰╯─") for line in complaint.splitlines()]
    return " ".join(line for line in lines if line)


def _program_name() -> str:
    """Return how the user started this command, e.g. "wizardcoder train" or "python -m wizardcoder_jax.train"."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec and not spec.name.endswith("__main__"):
        return f"python -m {spec.name}"
    return os.path.basename(sys.argv[0])  # __main__.py sets it to the program's name and the command
