"""Everything on standard error has one format, and only commands install the handler."""

import logging
import subprocess
import sys

import pytest

from tests.helpers.processes import REPOSITORY
from wizardcoder_jax.core.logging_setup import configure_logging, is_quiet

pytestmark = pytest.mark.quick

logger = logging.getLogger("wizardcoder_jax.core.test")


@pytest.fixture(autouse=True)
def restored_level():
    yield
    configure_logging(logging.INFO)


def log_at_every_level():
    logger.debug("details")
    logger.info("information")
    logger.warning("the disk is almost full")
    logger.error("the disk is full")
    logger.warning("budget is spent", extra={"prefix": "stopped"})


def test_info_messages_have_no_prefix_and_other_levels_are_named(capsys):
    configure_logging()
    log_at_every_level()
    captured = capsys.readouterr()
    lines = ["information", "warning: the disk is almost full", "error: the disk is full", "stopped: budget is spent"]
    assert (captured.out, captured.err.splitlines()) == ("", lines)


@pytest.mark.parametrize(("level", "num_lines"), [(logging.WARNING, 3), (logging.DEBUG, 5)])
def test_the_level_selects_the_lines(capsys, level, num_lines):
    configure_logging(level)
    log_at_every_level()
    assert len(capsys.readouterr().err.splitlines()) == num_lines
    assert is_quiet() == (level == logging.WARNING)


def test_importing_the_package_changes_no_logger_and_no_environment_variable():
    code = (
        "import importlib, logging, os, pkgutil\n"
        "before, handlers = dict(os.environ), list(logging.root.handlers)\n"
        "import wizardcoder_jax.config.command_line, wizardcoder_jax.core\n"
        "for module in pkgutil.iter_modules(wizardcoder_jax.core.__path__, 'wizardcoder_jax.core.'):\n"
        "    if module.name.rpartition('.')[2] not in ('distributed', 'sharding'): importlib.import_module(module.name)\n"
        "assert dict(os.environ) == before and logging.root.handlers == handlers\n"
        "assert not logging.getLogger('wizardcoder_jax').handlers"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.returncode == 0, done.stderr
