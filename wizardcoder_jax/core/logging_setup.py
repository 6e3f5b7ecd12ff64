"""The format of everything that commands write to standard error, through the standard `logging` module.

Modules log with `logger = logging.getLogger(__name__)`. Only commands install the handler, so that importing the package
changes no logger.
"""

import logging
import sys

PACKAGE_LOGGER = "wizardcoder_jax"
LOGGERS = (PACKAGE_LOGGER, "__main__")  # `python -m wizardcoder_jax.train` runs the command's module as "__main__"


class StderrHandler(logging.Handler):
    """A handler that writes each record as one line to the current `sys.stderr`, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            line = self.format(record)
            tqdm = sys.modules.get("tqdm")
            if tqdm is not None:
                tqdm.tqdm.write(f"{line}\n", file=sys.stderr, end="")  # one write: other processes may use the terminal
            else:
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class LineFormatter(logging.Formatter):
    """A formatter that leaves info messages unchanged and prefixes others with their level: "warning: the disk is full".

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
    """Return whether the user wants only warnings and errors, and no progress."""
    return logging.getLogger(PACKAGE_LOGGER).level > logging.INFO
