"""Many concurrent clients. WIZARDCODER_LOAD_ROUNDS=100 sends more requests than the default suite."""

import os
import threading

from tests.helpers.model_server import ServerThread, endless_model

NUM_CLIENTS = 64
NUM_ROUNDS = int(os.environ.get("WIZARDCODER_LOAD_ROUNDS", "3"))


def test_64_concurrent_clients_each_get_their_own_answers(tmp_path):
    with ServerThread(endless_model(tmp_path / "llama"), batch_size=16, max_length=256) as server:

        def ask(i):
            body = {"prompt": f"Client {i}", "max_tokens": 5 + i % 20, "seed": i, "temperature": 0}
            return server.post("/v1/completions", body)[::2]

        expected = [ask(i)[1]["choices"][0]["text"] for i in range(NUM_CLIENTS)]
        answers = [[] for _ in range(NUM_CLIENTS)]

        def ask_repeatedly(i):
            for _ in range(NUM_ROUNDS):
                answers[i].append(ask(i))

        threads = [threading.Thread(target=ask_repeatedly, args=(i,)) for i in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, found in enumerate(answers):
            assert len(found) == NUM_ROUNDS
            for status, answer in found:
                assert (status, answer["choices"][0]["text"]) == (200, expected[i])
                assert answer["usage"]["completion_tokens"] == 5 + i % 20
        num_answers = NUM_CLIENTS * (1 + NUM_ROUNDS)
        assert server.metric('requests_total{code="200",path="/v1/completions"}') == num_answers
        server.wait_for("slots_busy", 0)
