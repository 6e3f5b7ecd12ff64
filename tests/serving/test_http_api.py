"""The server over HTTP, with the official client, our own client, and malformed requests."""

import asyncio
import json
import random
import socket
import string
import threading

import jax
import jax.numpy as jnp
import openai
import pytest

from tests.helpers.model_server import ServerProcess, ServerThread, endless_model
from tests.helpers.scripted_server import ScriptedServer
from wizardcoder_jax import serve
from wizardcoder_jax.config import ServeConfig, ServerConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import wizardcoder_prompt
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import load_engine_weights
from wizardcoder_jax.inference.request import GenerationRequest
from wizardcoder_jax.llm_client.openai_client import OpenAIClient
from wizardcoder_jax.serving import server_lifecycle

QUESTIONS = ["Write a Python function.", "def add(a, b):", "Returns the sum: é 🦙", "x"]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LONG = {"prompt": "def", "max_tokens": 16000, "temperature": 0}  # takes minutes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return endless_model(tmp_path_factory.mktemp("served") / "llama", fim=True)


@pytest.fixture(scope="module")
def server(folder):
    with ServerThread(folder, batch_size=4, max_length=2048, served_name="tiny") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def greedy(folder):
    """Return a function that answers a prompt greedily without a server, and returns the text and tokens."""
    opened, mesh = open_model(str(folder)), make_mesh("1x1")
    with jax.set_mesh(mesh):
        model = load_engine_weights(opened, mesh, jnp.dtype("float32"))
        engine = Engine(model, num_slots=1, max_length=512, eos_ids=[opened.tokenizer.eos_id], dtype=jnp.float32)

    def answer(prompt, num):
        ids = tuple(opened.tokenizer.encode(prompt))
        with jax.set_mesh(mesh):
            ((_, answer),) = engine.generate([GenerationRequest(prompt=ids, key=(0, 0), max_length=len(ids) + num)])
        return opened.tokenizer.decode(answer.tokens), answer.tokens

    return answer


def text_of(chunks, index=0):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index)


def test_greedy_answers_of_the_official_client_are_those_of_the_engine(client, greedy):
    assert [model.id for model in client.models.list()] == ["tiny"]
    for question in QUESTIONS:
        text, tokens = greedy(question, 40)
        found = client.completions.create(model="tiny", prompt=question, max_tokens=40, temperature=0)
        assert (found.choices[0].text, found.choices[0].finish_reason) == (text, "length")
        assert found.usage.completion_tokens == len(tokens) == found.usage.total_tokens - found.usage.prompt_tokens
        text, _ = greedy(wizardcoder_prompt(question), 40)
        messages = [{"role": "user", "content": question}]
        chat = client.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=40, temperature=0)
        assert (chat.choices[0].message.content, chat.choices[0].message.role) == (text, "assistant")


def test_several_prompts_as_texts_or_tokens_are_answered_in_order(client, greedy, folder):
    expected = [greedy(question, 9)[0] for question in QUESTIONS]
    encode = open_model(str(folder)).tokenizer.encode
    settings = {"model": "tiny", "max_tokens": 9, "temperature": 0}
    assert [choice.text for choice in client.completions.create(prompt=QUESTIONS, **settings).choices] == expected
    ids = [encode(question) for question in QUESTIONS]
    found = client.completions.create(prompt=ids, **settings)
    assert [choice.text for choice in found.choices] == expected
    assert found.usage.prompt_tokens == sum(map(len, ids)) and found.usage.completion_tokens == 9 * len(ids)
    assert client.completions.create(prompt=ids[0], **settings).choices[0].text == expected[0]


def test_a_sample_depends_only_on_its_seed_prompt_and_index(client):
    def texts(question, n, **more):
        messages = [{"role": "user", "content": question}]
        found = client.chat.completions.create(model="tiny", messages=messages, n=n, max_tokens=12, **more)
        return [choice.message.content for choice in sorted(found.choices, key=lambda choice: choice.index)]

    first = texts("A", 6, seed=5)
    assert len(set(first)) == 6
    assert texts("A", 3, seed=5) == first[:3]
    assert texts("A", 3, seed=6) != first[:3] and texts("B", 3, seed=5) != first[:3]
    assert texts("A", 1) != texts("A", 1)  # without a seed
    both = client.completions.create(model="tiny", prompt=["A", "B"], n=2, seed=1, max_tokens=12)
    alone = client.completions.create(model="tiny", prompt="B", n=2, seed=1, max_tokens=12)
    assert [choice.text for choice in both.choices[2:]] == [choice.text for choice in alone.choices]


def test_the_chunks_of_a_stream_join_to_the_whole_answer(client):
    for question in QUESTIONS:
        settings = {"model": "tiny", "n": 2, "seed": 3, "max_tokens": 70, "stop": ["zz", " I", "e"]}
        chat = {**settings, "messages": [{"role": "user", "content": question}]}
        whole = client.chat.completions.create(**chat)
        chunks = list(client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True}))
        for choice in whole.choices:
            assert text_of(chunks, choice.index) == choice.message.content
            mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
            assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason] == [mine[-1].finish_reason]
            assert mine[0].delta.role == "assistant"
        assert chunks[-1].usage == whole.usage and not chunks[-1].choices
        assert all(chunk.usage is None for chunk in chunks[:-1])
        bare = {**settings, "prompt": question}
        texts = ["", ""]
        for chunk in client.completions.create(**bare, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == [choice.text for choice in client.completions.create(**bare).choices]


def test_a_stop_string_ends_the_text_and_the_token_count(client, greedy, folder):
    text, tokens = greedy("def", 60)
    stop = text[20:24]
    found = client.completions.create(model="tiny", prompt="def", max_tokens=60, temperature=0, stop=stop)
    assert found.choices[0].text == text.split(stop)[0] and found.choices[0].finish_reason == "stop"
    decode = open_model(str(folder)).tokenizer.decode
    assert found.usage.completion_tokens == next(n for n in range(60) if stop in decode(tokens[:n]))


def test_log_probabilities_are_reported_for_every_token(client):
    messages = [{"role": "user", "content": "A"}]
    settings = {"model": "tiny", "messages": messages, "max_tokens": 20, "seed": 1, "logprobs": True, "top_logprobs": 3}
    found = client.chat.completions.create(**settings)
    entries = found.choices[0].logprobs.content
    assert len(entries) == found.usage.completion_tokens
    whole = b"".join(bytes(entry.bytes) for entry in entries)
    assert whole.decode("utf-8", "replace") == found.choices[0].message.content
    for entry in entries:
        numbers = [top.logprob for top in entry.top_logprobs]
        assert len(numbers) == 3 and numbers == sorted(numbers, reverse=True) and entry.logprob <= numbers[0] <= 0
    chunks = list(client.chat.completions.create(**settings, stream=True))
    streamed = [e for chunk in chunks for c in chunk.choices if c.logprobs for e in c.logprobs.content]
    assert [e.logprob for e in streamed] == [e.logprob for e in entries]
    bare = client.completions.create(model="tiny", prompt="A", max_tokens=7, logprobs=2, temperature=0).choices[0].logprobs
    assert len(bare.tokens) == len(bare.token_logprobs) == len(bare.top_logprobs) == len(bare.text_offset) == 7
    assert all(max(top.values()) == own for top, own in zip(bare.top_logprobs, bare.token_logprobs, strict=True))


def test_a_suffix_makes_a_fill_in_the_middle_prompt(client, greedy):
    text, _ = greedy("<fim_prefix>def f(<fim_suffix>): pass<fim_middle>", 12)
    found = client.completions.create(model="tiny", prompt="def f(", suffix="): pass", max_tokens=12, temperature=0)
    assert found.choices[0].text == text


def test_a_conversation_is_formatted_by_the_chat_template(client, greedy):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Add"}, {"type": "text", "text": " two."}]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Now."},
    ]
    prompt = "Be brief.\n\n### Instruction:\nAdd two.\n\n### Response:Yes.<|endoftext|>### Instruction:\nNow.\n\n### Response:"
    found = client.chat.completions.create(model="tiny", messages=messages, max_tokens=9, temperature=0)
    assert found.choices[0].message.content == greedy(prompt, 9)[0]


def test_our_own_client_gets_the_same_answers(server, greedy):
    async def ask(request):
        client = OpenAIClient(ServerConfig(base_url=f"{server.url}/v1"))
        try:
            return await client.complete({"model": "tiny", "max_tokens": 9, "temperature": 0, **request})
        finally:
            await client.aclose()

    chat = asyncio.run(ask({"messages": [{"role": "user", "content": "x"}], "n": 1, "seed": 0, "top_p": 1.0}))
    assert (chat.text, chat.finish_reason, chat.completion_tokens) == (
        greedy(wizardcoder_prompt("x"), 9)[0],
        "length",
        9,
    )
    assert asyncio.run(ask({"prompt": "x", "stop": ["never"]})).text == greedy("x", 9)[0]


def test_an_answer_is_cut_off_at_the_maximum_length(client):
    text = "a" * 2000
    found = client.completions.create(model="tiny", prompt=text, max_tokens=2000, temperature=0)
    assert found.usage.total_tokens == 2048 and found.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_frees_its_slots(server, stream):
    server.wait_for("slots_busy", 0)
    body = json.dumps({**LONG, "stream": stream, "n": 3}).encode()
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as connection:
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        server.wait_for("slots_busy", 3)
    server.wait_for("slots_busy", 0)
    server.wait_for("queue_length", 0)


REFUSED = [  # (body of a chat or completion, status, part of the message)
    ({"prompt": "x", "model": "gpt-4"}, 404, "is not served here; use 'tiny'"),
    ({"prompt": "a" * 5000}, 400, "has 5000 tokens, but prompt and answer together are limited to 2048"),
    ({"prompt": "x", "temperature": "hot"}, 400, "temperature must be a number from 0 to 2, got 'hot'"),
    ({"prompt": "x", "temperature": 10**400}, 400, "temperature must be"),
    ({"prompt": "x", "top_p": -0.1}, 400, "top_p must be"),
    ({"prompt": "x", "max_tokens": 0}, 400, "max_tokens must be an integer from 1"),
    ({"prompt": "x", "max_tokens": True}, 400, "max_tokens must be"),
    ({"prompt": "x", "n": 129}, 400, "n must be"),
    ({"prompt": ["x"] * 30, "n": 128}, 400, "3840 answers exceed the limit of 260"),
    ({"prompt": "x", "stop": ["a"] * 17}, 400, "stop must be"),
    ({"prompt": "x", "stop": ""}, 400, "stop must be"),
    ({"prompt": "x", "seed": 2**64}, 400, "seed must be"),
    ({"prompt": "x", "logprobs": 6}, 400, "logprobs must be an integer from 0 to 5"),
    ({"prompt": "x", "echo": True}, 400, "echo is not supported"),
    ({"prompt": "x", "logit_bias": {"1": 5}}, 400, "logit_bias is not supported"),
    ({"prompt": [1, 10**9]}, 400, "a token id outside 0 to"),
    ({"prompt": [1, -1]}, 400, "a token id outside 0 to"),
    ({"prompt": [1, "x"]}, 400, "prompt must be"),
    ({"prompt": [[]]}, 400, "prompt must be"),
    ({"prompt": {}}, 400, "prompt must be"),
    ({}, 400, "prompt must be"),
    ({"prompt": "x", "stream_options": {}}, 400, "stream_options requires stream"),
    ({"messages": []}, 400, "messages must be a list of at least one message"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0].role must be"),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content must be"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "'image_url' is not supported"),
    ({"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, "tools is not supported"),
    ({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}, 400, "top_logprobs requires logprobs"),
    ({"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}, 400, "response_format"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSED)
def test_an_invalid_request_is_refused_with_an_explanation(server, body, status, message):
    found, _, response = server.post(CHAT if "messages" in body else COMPLETIONS, body)
    assert found == status and message in response["error"]["message"]
    assert set(response["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"prompt": NaN}',
        b'{"prompt": "x", "temperature": 1e999}',
        b'{"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_body_that_is_not_valid_json_is_refused(server, content):
    for path in (CHAT, COMPLETIONS):
        status, _, response = server.post(path, content)
        assert status == 400 and response["error"]["message"]


def test_http_errors_have_the_standard_statuses(server):
    assert server.post(COMPLETIONS, {"prompt": "x"}, **{"Content-Type": "text/plain"})[0] == 415
    assert server.post(COMPLETIONS, b"x" * (5 * 2**20))[0] == 413
    status, headers, response = server.get(COMPLETIONS)
    assert (status, headers["Allow"]) == (405, "POST") and response["error"]["message"]
    assert server.get("/v2")[0] == 404
    assert server.get("/v1/models/tiny")[2]["id"] == "tiny" and server.get("/v1/models/other")[0] == 404
    assert server.post(COMPLETIONS, b"\x1f\x8bnonsense", **{"Content-Encoding": "gzip"})[0] == 415


def test_a_request_whose_host_header_names_another_machine_is_refused(server):
    port = server.url.rsplit(":", 1)[1]
    for host in ("localhost", f"localhost:{port}", "LOCALHOST:9", f"127.0.0.1:{port}", "[::1]", "127.0.0.2"):
        assert server.get("/healthz", Host=host)[0] == 200, host
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[",
        "",
    ):
        for path in ("/", "/healthz", "/metrics", "/v1/models", "/nowhere"):
            status, _, response = server.get(path, Host=host)
            assert status in (400, 403), (host, path)
            assert status == 400 or response["error"]["code"] == "wrong_host"
        assert server.post(COMPLETIONS, {"prompt": "x"}, Host=host)[0] in (400, 403)


KEYS = ["model", "prompt", "suffix", "messages", "n", "seed", "stop", "stream", "stream_options", "user", "echo", "tools"]
KEYS += ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs"]
KEYS += ["max_tokens", "max_completion_tokens"]


def mutated(draw):
    """Return a random request body, which is nearly always invalid."""
    odd = [None, True, -1, 0, 1, 2**70, 1e308, -0.5, "", "x", "\0", "🦙", [], {}, [[]], [None], {"a": 1}, ["x", 1], "a" * 3000]
    body = {"prompt": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    for key in draw.sample(KEYS, draw.randrange(1, 5)):
        body[key] = draw.choice(odd)
    if draw.random() < 0.2:
        body["messages"] = [{"role": draw.choice(odd), "content": draw.choice(odd)}]
    if draw.random() < 0.2:
        content = bytearray(json.dumps(body).encode())
        content[draw.randrange(len(content))] = draw.randrange(256)
        return bytes(content[: draw.randrange(1, len(content) + 1)])
    return json.dumps(body).encode()


def test_fuzzed_requests_are_answered_or_refused_and_never_fail_the_server(server, server_log):
    draw, statuses = random.Random(0), []
    for _ in range(400):
        statuses.append(server.post(draw.choice([CHAT, COMPLETIONS]), mutated(draw))[0])
    assert set(statuses) <= {200, 400, 404}, set(statuses)
    assert statuses.count(400) > 200
    assert server.get("/healthz")[0] == 200
    assert not [record for record in server_log.records if record.exc_info]


def test_the_server_survives_bytes_that_are_not_http(server):
    draw = random.Random(1)
    for _ in range(30):
        noise = "".join(draw.choices(string.printable, k=200)).encode()
        with socket.create_connection(server.url.removeprefix("http://").split(":"), timeout=5) as connection:
            connection.sendall(draw.choice([b"GET /", b"POST /v1/completions HTTP/1.1\r\n", b""]) + noise)
    assert server.get("/healthz")[0] == 200


def test_the_metrics_count_requests_and_tokens(server):
    server.post(COMPLETIONS, {"prompt": "def", "max_tokens": 5, "temperature": 0})
    before = {name: server.metric(name) for name in ("prompt_tokens_total", "completion_tokens_total", "request_seconds_count")}
    server.post(COMPLETIONS, {"prompt": ["def", "def"], "max_tokens": 5, "temperature": 0})
    assert server.metric("completion_tokens_total") == before["completion_tokens_total"] + 10
    assert server.metric("request_seconds_count") == before["request_seconds_count"] + 1
    assert server.metric('request_seconds_bucket{le="+Inf"}') == server.metric("request_seconds_count")
    assert server.metric("time_to_first_token_seconds_count") > 0 and server.metric("slots") == 4


def test_a_full_queue_is_refused_and_sigterm_lets_answers_in_progress_finish(folder):
    flags = ("--batch-size", "1", "--max-queue", "1", "--max-length", "3000", "--drain-s", "300")
    with ServerProcess(folder, *flags, WIZARDCODER_API_KEY="secret-of-the-test") as server:
        key = {"Authorization": "Bearer secret-of-the-test"}
        found = []
        body = {**LONG, "max_tokens": 2500}
        threads = [threading.Thread(target=lambda: found.append(server.post(COMPLETIONS, body, **key))) for _ in range(2)]
        for thread in threads:
            thread.start()
        server.wait_for("queue_length", 1)
        status, headers, response = server.post(COMPLETIONS, body, **key)
        assert (status, response["error"]["code"]) == (429, "queue_full") and int(headers["Retry-After"]) >= 1

        for wrong in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic secret-of-the-test"}):
            status, _, response = server.post(COMPLETIONS, body, **wrong)
            assert (status, response["error"]["code"]) == (401, "invalid_api_key")
            assert server.get("/v1/models", **wrong)[0] == 401
        assert server.get("/healthz")[0] == 200 and server.get("/v1/models", **key)[0] == 200

        server.process.terminate()
        server.wait_for_log("finishing requests in progress")
        status, headers, _ = server.get("/healthz")
        assert status == 503
        assert server.post(COMPLETIONS, body, **key)[0] == 503
        assert server.process.wait(300) == 0
        for thread in threads:
            thread.join()
        assert [status for status, _, _ in found] == [200, 200]
        assert all(answer["usage"]["completion_tokens"] == 2500 for _, _, answer in found)
        assert "secret" not in server.log


def test_a_request_that_the_engine_refuses_does_not_affect_others():
    with ScriptedServer() as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        server.answer, server.refusal = "yes", InputError("no room for it")
        with pytest.raises(openai.BadRequestError, match="no room for it"):
            client.completions.create(model="scripted <b>", prompt="x")
        server.refusal = None
        assert client.completions.create(model="scripted <b>", prompt="x").choices[0].text == "yes"
        server.failure = ZeroDivisionError("of the test")
        with pytest.raises(openai.InternalServerError):
            client.completions.create(model="scripted <b>", prompt="x")
        with pytest.raises(openai.InternalServerError):
            client.with_options(base_url=server.url).get("/healthz", cast_to=object)


def test_the_first_signal_starts_a_drain_and_the_second_ends_the_process(monkeypatch):
    calls = []
    monkeypatch.setattr(server_lifecycle.os, "_exit", lambda status: calls.append(status))

    async def signal_twice():
        is_idle, has_failed = asyncio.Event(), asyncio.Event()
        shutdown = server_lifecycle.GracefulShutdown(lambda: calls.append("drain"), is_idle, has_failed, drain_s=300)
        waiting = asyncio.create_task(shutdown.wait())
        shutdown.handle_signal(15)
        shutdown.handle_signal(15)
        assert not waiting.done()
        is_idle.set()
        await waiting

    asyncio.run(signal_twice())
    assert calls[:2] == ["drain", 128 + 15]


@pytest.mark.slow
def test_a_second_signal_ends_the_server_process_at_once(folder):
    with ServerProcess(folder, "--batch-size", "1", "--max-length", "16384") as server:

        def ask():
            with pytest.raises(OSError):
                server.post(COMPLETIONS, LONG)

        thread = threading.Thread(target=ask)
        thread.start()
        server.wait_for("slots_busy", 1)
        server.process.terminate()
        server.wait_for_log("signal again")
        assert server.terminate() == 128 + 15
        thread.join()


def test_unusable_settings_are_reported_before_a_model_is_loaded(folder, tmp_path):
    with pytest.raises(InputError, match="99999"):
        serve.main(["--model", str(folder), "--port", "99999"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1 port {port} .*; choose another"):
            serve.main(["--model", str(tmp_path / "missing"), "--port", port])
    with pytest.raises(InputError, match="max_length 99999 exceeds the model's 16384 positions"):
        serve.main(["--model", str(folder), "--port", "0", "--max-length", "99999"])
    assert ServeConfig(model="x").host == "127.0.0.1"
