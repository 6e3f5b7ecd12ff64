"""The real application over HTTP in a thread, with an engine that says what a test wants."""

import asyncio
import threading

from tests.helpers import tiny_models
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.engine import RequestUpdate
from wizardcoder_jax.inference.request import Generation
from wizardcoder_jax.serving.admission import AdmissionLimits, Service
from wizardcoder_jax.serving.http_routes import make_application
from wizardcoder_jax.serving.request_parsing import Served
from wizardcoder_jax.serving.server_lifecycle import Drain, address_of, bind, run

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


class ScriptedServer:
    """A context manager. `answer` is what is said next; `prompts` holds what was asked; a step is `step_s` long.

    `failure` ends the engine, `refusal` a request.
    """

    def __init__(self, key=None):
        tokenizer = Tokenizer(tiny_models.train_tokenizer(), {"eos_token": tiny_models.EOS}, TEMPLATE)
        served = Served(name="scripted <b>", tokenizer=tokenizer, vocab_size=tokenizer.vocab_size, max_length=10**6)
        self._tokenizer, self._key, self._num_held = tokenizer, key, 0
        self._service = (served, AdmissionLimits(num_slots=4, max_queue=4, max_body_bytes=10**6))
        self.answer, self.prompts, self.step_s, self.failure, self.refusal = "", [], 0.0, None, None
        self.num_left = 0  # answers that their clients did not wait for

    @property
    def has_failed(self):
        return self.failure is not None

    async def stream(self, request, owner=None):
        self.prompts.append(self._tokenizer.decode(request.prompt))
        if self.refusal is not None:
            raise self.refusal
        tokens = self._tokenizer.encode(self.answer)
        is_over = False
        try:
            for start in range(0, len(tokens), 16):
                await asyncio.sleep(self.step_s)
                if self.failure is not None:
                    raise self.failure
                yield RequestUpdate(request_id=1, tokens=tokens[start : start + 16])
            is_over = True
            yield RequestUpdate(request_id=1, tokens=[], generation=Generation(tokens=tokens, finish_reason="stop"))
        finally:
            self.num_left += not is_over

    def __enter__(self):
        self._is_ready, self._bound = threading.Event(), bind("127.0.0.1", 0)
        self.url = address_of(self._bound)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._is_ready.wait(60), "it does not start"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._bound.close()

    async def _run(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        service = Service(self, *self._service, lambda: 0)
        drain = Drain(lambda: None, service.is_idle, self._over, 0)
        await run(make_application(service, self._key), self._bound, drain, self._is_ready.set)
