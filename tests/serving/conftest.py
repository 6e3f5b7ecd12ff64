import logging

import pytest


@pytest.fixture
def server_log(caplog):
    """The log records of the server, also after a command has installed its own handler in this process."""
    logger = logging.getLogger("wizardcoder_jax.serving")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
