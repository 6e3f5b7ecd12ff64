import logging

import pytest


@pytest.fixture
def server_log(caplog):
    """Log records of the server, even after a command has installed its log handler in this process."""
    logger = logging.getLogger("wizardcoder_jax.serving")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
