"""Start of the inference service: it loads the model, starts the engine and warms it up."""

import contextlib
from collections.abc import AsyncIterator, Iterator

from wizardcoder_jax.core.instruction_template import WIZARDCODER_CHAT_TEMPLATE
from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.fim import fim_end_ids
from wizardcoder_jax.inference.open_engine import EngineLoader
from wizardcoder_jax.serving.admission import PROGRAMS, AdmissionLimits, InferenceService
from wizardcoder_jax.serving.request_parsing import ServedModel


@contextlib.asynccontextmanager
async def start_service(loader: EngineLoader, name: str, limits: AdmissionLimits) -> AsyncIterator[InferenceService]:
    """Load the model and start its engine in a thread. The engine ends when the context is left.

    Args:
        loader: loader of the model.
        name: name of the model for clients.
        limits: admission limits.
    """
    tokenizer = loader.model.tokenizer
    if tokenizer.chat_template is None:
        tokenizer = tokenizer.with_chat_template(WIZARDCODER_CHAT_TEMPLATE)
    served = ServedModel(name=name, tokenizer=tokenizer, vocab_size=tokenizer.vocab_size, max_length=loader.sizes.max_length)
    engines: list[Engine] = []

    @contextlib.contextmanager
    def make_engine() -> Iterator[Engine]:
        with loader.start(extra_eos_ids=fim_end_ids(loader.model.tokenizer), programs=PROGRAMS) as engine:
            engines.append(engine)
            yield engine

    async_engine = AsyncEngine(make_engine)
    service = InferenceService(
        async_engine, served, limits, lambda: sum(limits.num_slots - engine.num_free_slots for engine in engines)
    )
    try:
        await service.warm_up()
        yield service
    finally:
        await async_engine.aclose()
