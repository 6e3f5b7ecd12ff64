"""A server of a tiny model, as its users start it, in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import torch

from tests.helpers import tiny_models
from wizardcoder_jax.core.filesystem import read_text

START_S = 180
POSITIONS = 16384


def endless_model(folder, fim=False):
    """A model whose greedy answers do not end by themselves."""
    theirs = tiny_models.llama(vocab_size=393, max_position_embeddings=POSITIONS)
    with torch.no_grad():
        theirs.lm_head.weight[0] = 0.0  # of the end of text: others have likelier ones
    tiny_models.save_folder(theirs, folder)
    if fim:
        tokenizer = json.loads(read_text(str(folder / "tokenizer.json")))
        for i, name in enumerate(("<fim_suffix>", "<fim_middle>")):
            token = {**tokenizer["added_tokens"][1], "id": 390 + i, "content": name}
            tokenizer["added_tokens"].append(token)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


class Server:
    """A context manager. `url` is known inside; `log` is what it wrote so far."""

    def __init__(self, model, *flags, **environment):
        self._command = [sys.executable, "-m", "wizardcoder_jax.serve", "--model", str(model), "--port", "0", *flags]
        self._environment = {**os.environ, **environment}
        self.log = ""

    def __enter__(self):
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True, env=self._environment)
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(START_S), f"it does not start: {self.log}"
        found = re.search(r"serve: (http://\S+)", self.log)
        assert found, self.log
        self.url = found[1]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()

    def _read(self):
        for line in self.process.stderr:
            self.log += line
            if line.startswith("serve: http"):
                self._ready.set()
        self._ready.set()

    def end(self, timeout_s=60):
        """Asks it to end; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def get(self, path, **headers):
        """(status, headers, body) of a GET."""
        return self._send(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path, body, **headers):
        """(status, headers, body) of a POST; `body` as JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Type": "application/json", **headers}
        return self._send(urllib.request.Request(self.url + path, content, named))

    def _send(self, request):
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, headers, content = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, headers, content = error.code, error.headers, error.read()
        is_json = headers.get("Content-Type", "").startswith("application/json")
        return status, headers, json.loads(content) if is_json else content.decode()

    def metric(self, name):
        """The value of a gauge or counter."""
        found = re.search(rf"^wizardcoder_{re.escape(name)} (\S+)$", self.get("/metrics")[2], re.MULTILINE)
        assert found, name
        return float(found[1])

    def wait_for(self, name, value, timeout_s=60):
        """Until a metric has a value."""
        deadline = time.monotonic() + timeout_s
        while self.metric(name) != value:
            assert time.monotonic() < deadline, (name, self.metric(name))
            time.sleep(0.05)
