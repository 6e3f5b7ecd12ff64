"""Teacher that is a local model. Each answer is determined by the prompt and the draw, not by concurrent requests."""

import os
from collections.abc import Mapping, Sequence

from wizardcoder_jax.config import TeacherConfig, default_cache_dir
from wizardcoder_jax.core.errors import RefusedPromptError
from wizardcoder_jax.core.instruction_template import wizardcoder_prompt
from wizardcoder_jax.core.seeded_random import random_key
from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.open_engine import open_engine
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams
from wizardcoder_jax.llm_client.completion import Completion


class ModelTeacher:
    """Teacher that answers with the model at `config.model`.

    Args:
        config: settings of the model, of sampling and of the mesh.

    Raises:
        InputError: there is no such model, its context is too short, or a device has too little memory.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self._config = config
        self._loader = open_engine(
            config.model,
            config.mesh,
            num_slots=config.batch_size,
            max_length=config.max_length,
            compute_dtype=config.compute_dtype,
            cache_dir=default_cache_dir(),
            max_length_setting="teacher.max_length",
        )
        self._tokenizer = self._loader.model.tokenizer
        self._engine = AsyncEngine(self._loader.start)

    @property
    def identity(self) -> str:
        """Kind of teacher, identity of the weights, and compute dtype, as a string for cache keys."""
        return f"model:{self._loader.model.identity}:{self._config.compute_dtype}"

    async def complete(self, messages: Sequence[Mapping[str, str]], draw: str) -> Completion:
        """Return the model's answer to the last message; equal messages with equal draws get equal answers.

        Raises:
            RefusedPromptError: the prompt is so long that no token of an answer fits.
        """
        prompt = self._prompt(messages[-1]["content"])
        ids = tuple(self._tokenizer.encode(prompt))
        if len(ids) >= self._config.max_length:
            reason = f"the prompt has {len(ids)} tokens, which leaves none for the answer; raise teacher.max_length"
            raise RefusedPromptError(reason, finish_reason="length")
        answer = await self._engine.generate(
            GenerationRequest(
                prompt=ids,
                key=random_key(draw, prompt, separator="\0"),
                max_length=min(self._config.max_length, len(ids) + self._config.max_tokens),
                params=SamplingParams(temperature=self._config.temperature, top_p=self._config.top_p),
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
        """End the engine and abandon unfinished answers."""
        await self._engine.aclose()

    def _prompt(self, message: str) -> str:
        has_template = self._tokenizer.chat_template is not None
        return self._tokenizer.chat_prompt(message) if has_template else wizardcoder_prompt(message)
