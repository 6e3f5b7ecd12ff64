"""Many clients at once: each gets its own answers, none is lost. WIZARDCODER_LOAD_S=60 makes it a minute."""

import os
import threading
import time

from tests.helpers.model_server import Server, endless_model

NUM_CLIENTS = 64
LOAD_S = float(os.environ.get("WIZARDCODER_LOAD_S", "3"))


def test_64_clients_at_once_lose_nothing(tmp_path):
    with Server(endless_model(tmp_path / "llama"), "--batch-size", "16", "--max-length", "256") as server:

        def ask(i):
            body = {"prompt": f"Client {i}", "max_tokens": 5 + i % 20, "seed": i, "temperature": 0}
            return server.post("/v1/completions", body)[::2]

        expected = [ask(i)[1]["choices"][0]["text"] for i in range(NUM_CLIENTS)]
        found = [[] for _ in range(NUM_CLIENTS)]

        def go_on(i):
            until = time.monotonic() + LOAD_S
            while time.monotonic() < until:
                found[i].append(ask(i))

        threads = [threading.Thread(target=go_on, args=(i,)) for i in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(found)
        for i, answers in enumerate(found):
            for status, answer in answers:
                assert (status, answer["choices"][0]["text"]) == (200, expected[i])
                assert answer["usage"]["completion_tokens"] == 5 + i % 20
        answered = NUM_CLIENTS + sum(map(len, found))
        assert server.metric('requests_total{path="/v1/completions",code="200"}') == answered
        server.wait_for("slots_busy", 0)
        assert server.end() == 0
        print(f"{answered} answers")
