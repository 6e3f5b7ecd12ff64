"""Runs the real HTTP application in a thread, with a fake engine whose answers a test can set."""

import asyncio
import threading

from tests.helpers import tiny_models
from tests.helpers.http_client import HttpClient
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.engine import RequestUpdate
from wizardcoder_jax.inference.request import Generation
from wizardcoder_jax.serving.admission import AdmissionLimits, InferenceService
from wizardcoder_jax.serving.http_routes import make_application
from wizardcoder_jax.serving.request_parsing import ServedModel
from wizardcoder_jax.serving.server_lifecycle import GracefulShutdown, bind_socket, serve_until_shutdown, url_of

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
STEP_TOKENS = 64


class ScriptedServer(HttpClient):
    """Context manager that runs a server with a fake engine, controlled by these attributes.

    Attributes:
        answer: the text of the next answers.
        prompts: the prompts so far.
        steps: if set, a semaphore that each step of STEP_TOKENS tokens acquires first.
        failure: if set, the error that ends the engine.
        refusal: if set, the error that each request raises.
        abandoned: set when a client has disconnected before its answer was complete.
    """

    def __init__(self, key=None):
        tokenizer = Tokenizer(tiny_models.train_tokenizer(), {"eos_token": tiny_models.EOS}, TEMPLATE)
        served = ServedModel(name="scripted <b>", tokenizer=tokenizer, vocab_size=tokenizer.vocab_size, max_length=10**6)
        self._tokenizer, self._key = tokenizer, key
        self._service = (served, AdmissionLimits(num_slots=4, max_queue=4, max_body_bytes=10**6))
        self.answer, self.prompts, self.steps, self.failure, self.refusal = "", [], None, None, None
        self.abandoned = threading.Event()

    @property
    def has_failed(self):
        return self.failure is not None

    async def stream(self, request, owner=None):
        """Yield the scripted answer, as `AsyncEngine.stream` does."""
        self.prompts.append(self._tokenizer.decode(request.prompt))
        if self.refusal is not None:
            raise self.refusal
        tokens = self._tokenizer.encode(self.answer)
        is_complete = False
        try:
            for start in range(0, len(tokens), STEP_TOKENS):
                while self.steps is not None and not self.steps.acquire(blocking=False):
                    await asyncio.sleep(0.002)
                if self.failure is not None:
                    raise self.failure
                yield RequestUpdate(request_id=1, tokens=tokens[start : start + STEP_TOKENS])
            is_complete = True
            yield RequestUpdate(request_id=1, tokens=[], generation=Generation(tokens=tokens, finish_reason="stop"))
        finally:
            if not is_complete:
                self.abandoned.set()

    def __enter__(self):
        self._is_ready, self._bound = threading.Event(), bind_socket("127.0.0.1", 0)
        self.url = url_of(self._bound)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._is_ready.wait(60), "the server does not start"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()
        self._bound.close()

    async def _run(self):
        self._loop, self._is_over = asyncio.get_running_loop(), asyncio.Event()
        service = InferenceService(self, *self._service, lambda: 0)
        shutdown = GracefulShutdown(lambda: None, service.is_idle, self._is_over, 0)
        application = make_application(service, self._key)
        await serve_until_shutdown(application, self._bound, shutdown, self._is_ready.set)
