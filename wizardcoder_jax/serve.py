"""Serve a model: the OpenAI API over HTTP (completions, chat, streaming) and a chat page at /."""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wizardcoder_jax.config import ServeConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.serving.loopback import is_loopback

if TYPE_CHECKING:
    from socket import socket

    from wizardcoder_jax.inference.open_engine import EngineLoader

logger = logging.getLogger(__name__)
KEY_VARIABLE = "WIZARDCODER_API_KEY"


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until the process receives SIGTERM or SIGINT."""
    config = parse_command_line(ServeConfig, argv)
    key = _read_key()
    if key is None and not is_loopback(config.host):
        logger.warning("%s is reachable from other machines, and clients need no key; set %s", config.host, KEY_VARIABLE)

    from wizardcoder_jax.inference.open_engine import open_engine
    from wizardcoder_jax.serving.server_lifecycle import bind_socket

    with bind_socket(config.host, config.port) as bound:
        loader = open_engine(
            config.model,
            config.mesh,
            num_slots=config.batch_size,
            max_length=config.max_length,
            compute_dtype=config.compute_dtype,
            cache_dir=config.cache_dir,
            int8_weights=config.int8_weights,
        )
        logger.info("serve: %s on each device", loader.memory)
        asyncio.run(_serve(config, loader, bound, key))


async def _serve(config: ServeConfig, loader: "EngineLoader", bound: "socket", key: str | None) -> None:
    from wizardcoder_jax.serving.admission import AdmissionLimits
    from wizardcoder_jax.serving.http_routes import make_application
    from wizardcoder_jax.serving.server_lifecycle import GracefulShutdown, handle_signals, serve_until_shutdown, url_of
    from wizardcoder_jax.serving.start_service import start_service

    name = config.served_name or os.path.basename(os.path.normpath(config.model))
    limits = AdmissionLimits(num_slots=config.batch_size, max_queue=config.max_queue, max_body_bytes=config.max_body_bytes)
    async with start_service(loader, name, limits) as service:
        application = make_application(service, key, config.host if is_loopback(bound.getsockname()[0]) else None)

        def announce() -> None:
            logger.info("serve: %s answers with %s (chat page at /, API at /v1)", url_of(bound), name)

        def stop_admission() -> None:
            service.is_draining = True

        shutdown = GracefulShutdown(stop_admission, service.is_idle, service.has_failed, config.drain_s)
        with handle_signals(shutdown):
            await serve_until_shutdown(application, bound, shutdown, announce)
    if service.has_failed.is_set():
        raise RuntimeError("the engine failed; see the error above")


def _read_key() -> str | None:
    """Return the API key that clients must send, or None if they need none."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise InputError(f"{KEY_VARIABLE} contains characters that are not allowed in an HTTP header; choose another key")
    return key or None


if __name__ == "__main__":
    run_command(main)
