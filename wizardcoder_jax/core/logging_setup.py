"""What every command writes on standard error, in one format through the standard `logging` module.

Modules log with `logger = logging.getLogger(__name__)`. Only commands install the handler: importing the package changes no
logger.
"""

import logging
import sys

PACKAGE_LOGGER = "wizardcoder_jax"
LOGGERS = (PACKAGE_LOGGER, "__main__")  # `python -m wizardcoder_jax.train` runs the command's module as "__main__"


class StderrHandler(logging.Handler):
    """Write one line a record to the current `sys.stderr`, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            line = self.format(record)
            tqdm = sys.modules.get("tqdm")
            if tqdm is not None:
                tqdm.tqdm.write(line, file=sys.stderr)
            else:
                sys.stderr.write(f"{line}\n")  # in one piece: other processes may write to the same terminal
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class LineFormatter(logging.Formatter):
    """Format information as it is, and put the level before everything else: "warning: the disk is almost full".

    A call can choose another prefix with `extra={"prefix": "stopped"}`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        prefix = getattr(record, "prefix", None if record.levelno == logging.INFO else record.levelname.lower())
        message = super().format(record)
        return message if prefix is None else f"{prefix}: {message}"


def configure_logging(level: int = logging.INFO) -> None:
    """Send this package's log records of at least `level` to standard error. Calling it again only changes the level."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
            handler = StderrHandler()
            handler.setFormatter(LineFormatter())
            logger.addHandler(handler)
            logger.propagate = False


def is_quiet() -> bool:
    """Whether the user asked for warnings and errors only; progress is not shown then."""
    return logging.getLogger(PACKAGE_LOGGER).level > logging.INFO
