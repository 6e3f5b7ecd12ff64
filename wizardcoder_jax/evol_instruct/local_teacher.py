"""A model of our own as a teacher: answers in this process, many together, each a function of the model and its prompt."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wizardcoder_jax.config import TeacherConfig, default_cache_dir
from wizardcoder_jax.core.errors import InputError, RefusedPromptError
from wizardcoder_jax.core.instruction_template import wizardcoder_prompt
from wizardcoder_jax.core.seeded_random import random_key
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.memory import memory_of
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams
from wizardcoder_jax.llm_client.completion import Completion


class ModelTeacher:
    """Answers with the model at `config.model`, as instructions' teachers do.

    Args:
        config: model, decoding settings, slots, devices.

    Raises:
        InputError: there is no such model, it has too few positions, or memory is too small for it.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self._config, self._opened = config, open_model(config.model)
        self._tokenizer = self._opened.tokenizer
        most = self._opened.arch.max_positions
        if config.max_length > most:
            raise InputError(f"teacher.max_length {config.max_length} exceeds the model's {most} positions; lower it")
        self._mesh, self._dtype = make_mesh(config.mesh), jnp.dtype(config.compute_dtype)
        self._sizes: dict[str, Any] = {"num_slots": config.batch_size, "max_length": config.max_length, "dtype": self._dtype}
        with jax.set_mesh(self._mesh):
            memory = memory_of(self._opened.sampling_shapes(self._mesh, self._dtype), self._mesh, **self._sizes)
        memory.require_room(self._mesh)
        self._engine = AsyncEngine(self._made)

    @property
    def identity(self) -> str:
        """The kind, the weights and how exactly they are computed with."""
        return f"model:{self._opened.identity}:{self._config.compute_dtype}"

    async def complete(self, messages: Sequence[Mapping[str, str]], draw: str) -> Completion:
        """The model's answer to the last message; equal messages with equal draws have equal answers.

        Raises:
            RefusedPromptError: the prompt leaves no room for an answer.
        """
        prompt = self._prompt(messages[-1]["content"])
        ids = tuple(self._tokenizer.encode(prompt))
        if len(ids) >= self._config.max_length:
            reason = f"a prompt of {len(ids)} tokens leaves no room in teacher.max_length; raise it"
            raise RefusedPromptError(reason, finish_reason="length")
        answer = await self._engine.answer(
            GenerationRequest(
                prompt=ids,
                key=random_key(draw, prompt, separator="\0"),
                max_length=min(self._config.max_length, len(ids) + self._config.max_tokens),
                decoding=SamplingParams(temperature=self._config.temperature, top_p=self._config.top_p),
            )
        )
        return Completion(
            text=self._tokenizer.decode(answer.tokens),
            finish_reason=answer.finish_reason,
            prompt_tokens=len(ids),
            completion_tokens=len(answer.tokens),
            model=os.path.basename(os.path.normpath(self._config.model)),
        )

    async def aclose(self) -> None:
        """Ends the engine; answers in progress are given up."""
        await self._engine.aclose()

    def _prompt(self, message: str) -> str:
        has_template = self._tokenizer.chat_template is not None
        return self._tokenizer.chat_prompt(message) if has_template else wizardcoder_prompt(message)

    @contextlib.contextmanager
    def _made(self) -> Iterator[Engine]:
        jax.config.update("jax_compilation_cache_dir", os.path.join(default_cache_dir(), "compiled"))
        with jax.set_mesh(self._mesh):
            model = self._opened.for_sampling(self._mesh, self._dtype)
            yield Engine(model, eos_ids=[self._tokenizer.eos_id], **self._sizes)
