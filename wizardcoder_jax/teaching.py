"""A model of our own as a teacher: answers in this process, many together, each a function of the model and its prompt."""

import asyncio
import hashlib
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from wizardcoder_jax import prompts
from wizardcoder_jax.clients.completion import Completion
from wizardcoder_jax.config import TeacherConfig, default_cache_dir
from wizardcoder_jax.errors import InputError, RefusedPromptError
from wizardcoder_jax.loading import open_model
from wizardcoder_jax.sampling.engine import Answer, Decoding, Engine, Request
from wizardcoder_jax.sharding import RULES, make_mesh

Waiting = tuple[Request, "asyncio.Future[Answer]"]


class ModelTeacher:
    """Answers with the model at `config.model`, as instructions' teachers do.

    One thread runs the engine; what is asked meanwhile takes the slots that become free.

    Args:
        config: model, decoding settings, slots, devices.

    Raises:
        InputError: there is no such model, or it has too few positions.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self._config, self._opened = config, open_model(config.model)
        self._tokenizer = self._opened.tokenizer
        most = self._opened.arch.max_positions
        if config.max_length > most:
            raise InputError(f"teacher.max_length {config.max_length} exceeds the model's {most} positions; lower it")
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._in_progress: dict[int, asyncio.Future[Answer]] = {}  # by the engine's index
        self._num_pulled = 0
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._is_closing = False

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
        digest = hashlib.sha256(f"{draw}\0{prompt}".encode("utf-8", "replace")).digest()
        key = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
        answer = await self._answer(Request(prompt=ids, key=key, max_tokens=self._config.max_tokens))
        return Completion(
            text=self._tokenizer.decode(answer.tokens),
            finish_reason=answer.finish_reason,
            prompt_tokens=len(ids),
            completion_tokens=len(answer.tokens),
            model=os.path.basename(os.path.normpath(self._config.model)),
        )

    async def aclose(self) -> None:
        """Ends the engine; answers in progress are given up."""
        self._is_closing = True
        self._waiting.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _prompt(self, message: str) -> str:
        has_template = self._tokenizer.chat_template is not None
        return self._tokenizer.chat_prompt(message) if has_template else prompts.wizardcoder(message)

    async def _answer(self, request: Request) -> Answer:
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(loop,), daemon=True, name="teacher")
            self._thread.start()
        answered: asyncio.Future[Answer] = loop.create_future()
        self._waiting.put((request, answered))
        return await answered

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for index, answer in self._engine_answers():
                answered = self._in_progress.pop(index)
                if not self._is_closing:
                    loop.call_soon_threadsafe(_settle, answered, answer)
        except Exception as error:
            self._failure = error
            while not self._waiting.empty():
                self._pull(False)
            for answered in self._in_progress.values():
                loop.call_soon_threadsafe(_settle, answered, error)

    def _engine_answers(self) -> Iterator[tuple[int, Answer]]:
        config, rules = self._config, RULES["fsdp_tensor"]
        jax.config.update("jax_compilation_cache_dir", os.path.join(default_cache_dir(), "compiled"))
        mesh, dtype = make_mesh(config.mesh), jnp.dtype(config.compute_dtype)
        decoding = Decoding(
            temperature=config.temperature,
            top_p=config.top_p,
            eos_id=self._tokenizer.eos_id,
            max_length=config.max_length,
        )
        with jax.set_mesh(mesh):
            model = self._opened.weights(rules, mesh, dtype).model
            model = jax.jit(lambda model: model.unstacked())(model) if jax.default_backend() == "cpu" else model
            yield from Engine(model, decoding, config.batch_size, dtype).stream(self._pull, lambda _: self._is_closing)

    def _pull(self, is_idle: bool) -> Request | None:
        try:
            waiting = None if self._is_closing else self._waiting.get(block=is_idle)
        except queue.Empty:
            return None
        if waiting is None:
            return None
        request, answered = waiting
        self._in_progress[self._num_pulled] = answered
        self._num_pulled += 1
        return request


def _settle(answered: "asyncio.Future[Answer]", result: Answer | Exception) -> None:
    if answered.done():
        return
    if isinstance(result, Exception):
        answered.set_exception(result)
    else:
        answered.set_result(result)
