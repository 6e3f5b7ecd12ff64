"""Serves a model: the OpenAI API over HTTP (completions, chat, streaming) and a chat page at /."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.config import ServeConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import WIZARDCODER_CHAT_TEMPLATE
from wizardcoder_jax.serving.loopback import is_loopback

if TYPE_CHECKING:
    from socket import socket

    from jax.sharding import Mesh

    from wizardcoder_jax.hf.load_model import Opened
    from wizardcoder_jax.inference.engine import Engine

KEY_VARIABLE = "WIZARDCODER_API_KEY"
DEFAULT_MAX_LENGTH = 2048


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until a signal comes."""
    config = parse_command_line(ServeConfig, argv)
    key = _key()
    if key is None and not is_loopback(config.host):
        print(f"warning: {config.host} lets other machines in, and no key is asked for; set {KEY_VARIABLE}", file=sys.stderr)

    import jax

    from wizardcoder_jax.core.sharding import make_mesh
    from wizardcoder_jax.hf.load_model import open_model
    from wizardcoder_jax.serving.server_lifecycle import bind

    jax.config.update("jax_compilation_cache_dir", os.path.join(config.cache_dir, "compiled"))
    with bind(config.host, config.port) as bound:
        opened, mesh = open_model(config.model), make_mesh(config.mesh)
        _tell_memory(config, opened, mesh)
        asyncio.run(_serve(config, opened, mesh, bound, key))


def _tell_memory(config: ServeConfig, opened: "Opened", mesh: "Mesh") -> None:
    """Says what the engine will take on each device, before it takes it; refuses where there is not so much."""
    import jax

    from wizardcoder_jax.inference.memory import memory_of

    sizes = _sizes(config, opened)
    with jax.set_mesh(mesh):
        memory = memory_of(opened.sampling_shapes(mesh, sizes["dtype"], int8=config.int8_weights), mesh, **sizes)
    memory.require_room(mesh)
    print(f"serve: {memory} on each device", file=sys.stderr)


async def _serve(config: ServeConfig, opened: "Opened", mesh: "Mesh", bound: "socket", key: str | None) -> None:
    from wizardcoder_jax.inference.async_engine import AsyncEngine
    from wizardcoder_jax.serving.admission import AdmissionLimits, Service
    from wizardcoder_jax.serving.http_routes import make_application
    from wizardcoder_jax.serving.request_parsing import Served
    from wizardcoder_jax.serving.server_lifecycle import Drain, address_of, heeding_signals, run

    tokenizer, max_length = opened.tokenizer, _max_length(config, opened)
    if tokenizer.chat_template is None:
        tokenizer = tokenizer.with_chat_template(WIZARDCODER_CHAT_TEMPLATE)
    name = config.served_name or os.path.basename(os.path.normpath(config.model))
    served = Served(name=name, tokenizer=tokenizer, vocab_size=tokenizer.vocab_size, max_length=max_length)
    limits = AdmissionLimits(num_slots=config.batch_size, max_queue=config.max_queue, max_body_bytes=config.max_body_bytes)
    engines: list[Engine] = []

    @contextlib.contextmanager
    def make_engine() -> Iterator["Engine"]:
        with _made(config, opened, mesh) as engine:
            engines.append(engine)
            yield engine

    live = AsyncEngine(make_engine)
    service = Service(live, served, limits, lambda: sum(config.batch_size - engine.num_free for engine in engines))

    application = make_application(service, key, config.host if is_loopback(bound.getsockname()[0]) else None)

    def announce() -> None:
        print(f"serve: {address_of(bound)} answers with {name} (chat page at /, API at /v1)", file=sys.stderr, flush=True)

    def begin_drain() -> None:
        service.is_draining = True

    try:
        await service.warm_up()
        drain = Drain(begin_drain, service.is_idle, service.has_failed, config.drain_s)
        with heeding_signals(drain):
            await run(application, bound, drain, announce)
    finally:
        await live.aclose()
    if service.has_failed.is_set():
        raise RuntimeError("the engine failed; see above")


@contextlib.contextmanager
def _made(config: ServeConfig, opened: "Opened", mesh: "Mesh") -> Iterator["Engine"]:
    """The engine, in the thread that runs it."""
    import jax

    from wizardcoder_jax.inference.engine import Engine
    from wizardcoder_jax.inference.fim import end_ids
    from wizardcoder_jax.serving.admission import PROGRAMS

    sizes = _sizes(config, opened)
    with jax.set_mesh(mesh):
        model = opened.for_sampling(mesh, sizes["dtype"], int8=config.int8_weights)
        eos_ids = [opened.tokenizer.eos_id, *end_ids(opened.tokenizer)]
        yield Engine(model, eos_ids=eos_ids, programs=PROGRAMS, **sizes)


def _sizes(config: ServeConfig, opened: "Opened") -> dict[str, Any]:
    """Of the engine."""
    import jax.numpy as jnp

    sizes = {"num_slots": config.batch_size, "max_length": _max_length(config, opened)}
    return {**sizes, "dtype": jnp.dtype(config.compute_dtype)}


def _max_length(config: ServeConfig, opened: "Opened") -> int:
    most = opened.arch.max_positions
    if config.max_length is None:
        return min(DEFAULT_MAX_LENGTH, most)
    if config.max_length > most:
        raise InputError(f"max_length {config.max_length} exceeds the model's {most} positions; lower it")
    return config.max_length


def _key() -> str | None:
    """The key that clients must show; None where there is none."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise InputError(f"{KEY_VARIABLE} holds characters that no HTTP header can; set it again")
    return key or None


if __name__ == "__main__":
    run_command(main)
