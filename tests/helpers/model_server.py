"""Starts servers of a tiny model, in a thread of the test or in a separate process."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import torch

from tests.helpers import tiny_models
from tests.helpers.http_client import HttpClient
from wizardcoder_jax.config import ServeConfig
from wizardcoder_jax.core.filesystem import read_text
from wizardcoder_jax.inference.open_engine import open_engine
from wizardcoder_jax.serving import server_lifecycle
from wizardcoder_jax.serving.admission import AdmissionLimits
from wizardcoder_jax.serving.http_routes import make_application
from wizardcoder_jax.serving.start_service import start_service

START_S = 300
POSITIONS = 16384


def endless_model(folder, fim=False):
    """Save a model whose greedy answers never end; `fim` adds fill-in-the-middle tokens."""
    theirs = tiny_models.llama(vocab_size=393, max_position_embeddings=POSITIONS)
    with torch.no_grad():
        theirs.lm_head.weight[0] = 0.0  # makes the end-of-text token less likely than others
    tiny_models.save_folder(theirs, folder)
    if fim:
        tokenizer = json.loads(read_text(str(folder / "tokenizer.json")))
        for i, name in enumerate(("<fim_suffix>", "<fim_middle>")):
            token = {**tokenizer["added_tokens"][1], "id": 390 + i, "content": name}
            tokenizer["added_tokens"].append(token)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


class ServerProcess(HttpClient):
    """Context manager that runs `serve` in a separate process. `url` is set inside the context; `log` is its stderr so far."""

    def __init__(self, model, *flags, **environment):
        self._command = [sys.executable, "-m", "wizardcoder_jax.serve", "--model", str(model), "--port", "0", *flags]
        self._environment = {**os.environ, **environment}
        self.log, self._changed = "", threading.Condition()

    def __enter__(self):
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True, env=self._environment)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for_log("serve: http")
        self.url = re.search(r"serve: (http://\S+)", self.log)[1]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self.log += line
                self._changed.notify_all()

    def wait_for_log(self, text):
        """Wait until the server has logged `text`."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.log, START_S), self.log

    def terminate(self):
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)


class ServerThread(HttpClient):
    """Context manager that runs the server in a thread of this process. `url` is set inside the context."""

    def __init__(self, model, **settings):
        self._config = config = ServeConfig(model=str(model), port=0, **settings)
        sizes = {"num_slots": config.batch_size, "max_queue": config.max_queue, "max_body_bytes": config.max_body_bytes}
        self._limits = AdmissionLimits(**sizes)

    def __enter__(self):
        self._is_ready, self._failure = threading.Event(), None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._is_ready.wait(START_S), "the server does not start"
        assert self._failure is None, self._failure
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._shutdown.set)
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the server does not end"

    def _run(self):
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._is_ready.set()

    async def _serve(self):
        config = self._config
        loader = open_engine(
            config.model,
            config.mesh,
            num_slots=config.batch_size,
            max_length=config.max_length,
            compute_dtype=config.compute_dtype,
            cache_dir=config.cache_dir,
        )
        self._loop, self._shutdown = asyncio.get_running_loop(), asyncio.Event()
        with server_lifecycle.bind_socket(config.host, config.port) as bound:
            self.url = server_lifecycle.url_of(bound)
            async with start_service(loader, config.served_name or "tiny", self._limits) as service:
                application = make_application(service, key=None, loopback_host=config.host)
                shutdown = SimpleNamespace(wait=self._shutdown.wait)  # signals only reach the main thread
                await server_lifecycle.serve_until_shutdown(application, bound, shutdown, self._is_ready.set)
