"""Serve a model: the OpenAI API over HTTP (completions, chat, streaming) and a chat page at /."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from wizardcoder_jax.config import ServeConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import WIZARDCODER_CHAT_TEMPLATE
from wizardcoder_jax.serving.loopback import is_loopback

if TYPE_CHECKING:
    from socket import socket

    from wizardcoder_jax.inference.engine import Engine
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
    from wizardcoder_jax.serving.server_lifecycle import bind

    with bind(config.host, config.port) as bound:
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
    from wizardcoder_jax.inference.async_engine import AsyncEngine
    from wizardcoder_jax.inference.fim import fim_end_ids
    from wizardcoder_jax.serving.admission import PROGRAMS, AdmissionLimits, Service
    from wizardcoder_jax.serving.http_routes import make_application
    from wizardcoder_jax.serving.request_parsing import Served
    from wizardcoder_jax.serving.server_lifecycle import Drain, address_of, heeding_signals, run

    tokenizer = loader.model.tokenizer
    if tokenizer.chat_template is None:
        tokenizer = tokenizer.with_chat_template(WIZARDCODER_CHAT_TEMPLATE)
    name = config.served_name or os.path.basename(os.path.normpath(config.model))
    served = Served(name=name, tokenizer=tokenizer, vocab_size=tokenizer.vocab_size, max_length=loader.sizes.max_length)
    limits = AdmissionLimits(num_slots=config.batch_size, max_queue=config.max_queue, max_body_bytes=config.max_body_bytes)
    engines: list[Engine] = []

    @contextlib.contextmanager
    def make_engine() -> Iterator["Engine"]:
        with loader.start(extra_eos_ids=fim_end_ids(loader.model.tokenizer), programs=PROGRAMS) as engine:
            engines.append(engine)
            yield engine

    async_engine = AsyncEngine(make_engine)
    service = Service(
        async_engine, served, limits, lambda: sum(config.batch_size - engine.num_free_slots for engine in engines)
    )

    application = make_application(service, key, config.host if is_loopback(bound.getsockname()[0]) else None)

    def announce() -> None:
        logger.info("serve: %s answers with %s (chat page at /, API at /v1)", address_of(bound), name)

    def begin_drain() -> None:
        service.is_draining = True

    try:
        await service.warm_up()
        drain = Drain(begin_drain, service.is_idle, service.has_failed, config.drain_s)
        with heeding_signals(drain):
            await run(application, bound, drain, announce)
    finally:
        await async_engine.aclose()
    if service.has_failed.is_set():
        raise RuntimeError("the engine failed; see above")


def _read_key() -> str | None:
    """Return the key that clients must send; None if they need none."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise InputError(f"{KEY_VARIABLE} contains characters that are not allowed in an HTTP header; choose another key")
    return key or None


if __name__ == "__main__":
    run_command(main)
