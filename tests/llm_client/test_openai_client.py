import asyncio
import contextlib
import time

import pytest

from tests.helpers.loopback_teacher import LoopbackTeacher, chat_body
from wizardcoder_jax.config import ApiConfig, TeacherConfig
from wizardcoder_jax.core.errors import InputError, RefusedPromptError, StoppedEarlyError
from wizardcoder_jax.evol_instruct.teachers.openai_teacher import OpenAITeacher
from wizardcoder_jax.llm_client.circuit_breaker import FAILURES_TO_OPEN
from wizardcoder_jax.llm_client.completion import Completion
from wizardcoder_jax.llm_client.openai_client import OpenAIClient
from wizardcoder_jax.llm_client.retries import MAX_RETRY_AFTER_S

pytestmark = pytest.mark.quick

KEY = "sk-loopback-0123456789abcdef"
QUESTION = [{"role": "user", "content": "Write f."}]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


class Delays(list):
    """A replacement for `sleep` that returns at once and records the requested seconds."""

    async def __call__(self, seconds):
        self.append(seconds)


def ask(server, delays=None, **settings):
    async def ask_once():
        teacher = OpenAITeacher(
            TeacherConfig(base_url=server.base_url, **settings), sleep=Delays() if delays is None else delays
        )
        async with contextlib.aclosing(teacher):
            return await teacher.complete(QUESTION, "draw")

    return asyncio.run(ask_once())


def complete_all(server, *requests, sleep=None, **settings):
    """Return the completions of `requests`, sent one after another by one client."""

    async def ask_all():
        client = OpenAIClient(ApiConfig(base_url=server.base_url, **settings), sleep=sleep or Delays())
        async with contextlib.aclosing(client):
            return [await client.complete(request) for request in requests]

    return asyncio.run(ask_all())


def test_complete_returns_the_answer_and_its_usage():
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    with LoopbackTeacher([(200, JSON, chat_body("def f", "length", usage))]) as server:
        completion = ask(server, model="m", temperature=0.5, top_p=0.9, max_tokens=7)
    assert (completion.text, completion.finish_reason, completion.model) == ("def f", "length", "loopback-1")
    assert (completion.prompt_tokens, completion.completion_tokens) == (3, 2)
    assert server.requests == [{"model": "m", "messages": QUESTION, "temperature": 0.5, "top_p": 0.9, "max_tokens": 7}]
    assert server.authorizations == [f"Bearer {KEY}"]


def test_a_local_server_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with LoopbackTeacher() as server:
        ask(server)
    assert server.authorizations == [None]


def test_unreported_usage_is_none_rather_than_zero():
    with LoopbackTeacher([(200, JSON, chat_body("x"))]) as server:
        completion = ask(server)
    assert completion.prompt_tokens is None


def test_a_null_content_is_an_empty_text():
    body = b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'
    with LoopbackTeacher([(200, JSON, body)]) as server:
        assert ask(server).text == ""


def test_retry_after_is_honored():
    delays = Delays()
    with LoopbackTeacher([(429, {"Retry-After": "0.5"}, b""), (429, {"Retry-After": "7"}, b"")]) as server:
        ask(server, delays)
    assert delays == [0.5, 7.0]


@pytest.mark.parametrize("header", ["0", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
def test_a_retry_after_without_a_pause_still_backs_off(header):
    delays = Delays()
    with LoopbackTeacher([(429, {"Retry-After": header}, b"")] * 3) as server:
        ask(server, delays)
    assert len(delays) == 3 and all(0.25 * 2**i <= delay for i, delay in enumerate(delays))


def test_the_default_retries_outlast_an_outage_of_20_seconds():
    delays = Delays()
    with LoopbackTeacher([(500, {}, b"")] * 6) as server:
        ask(server, delays)
    assert sum(delays) > 20


def test_a_server_that_asks_for_too_long_a_pause_stops_the_run_resumably():
    with LoopbackTeacher([(429, {"Retry-After": str(MAX_RETRY_AFTER_S + 1)}, b"quota")]) as server:
        with pytest.raises(StoppedEarlyError, match="429"):
            ask(server)
        assert len(server.requests) == 1


def test_server_errors_are_retried_with_growing_delays():
    delays = Delays()
    with LoopbackTeacher([(500, {}, b"oops"), (503, {}, b""), (502, {}, b""), (None, {}, b"")]) as server:
        ask(server, delays)
        assert len(server.requests) == 5
    assert all(0.25 * 2**i <= delay <= 0.5 * 2**i for i, delay in enumerate(delays))


def test_a_server_that_keeps_failing_stops_the_run_resumably():
    with LoopbackTeacher([(500, {}, b"down")] * 3) as server:
        with pytest.raises(StoppedEarlyError, match=r"500: down .3 attempts"):
            ask(server, max_attempts=3)
        assert len(server.requests) == 3


def test_an_unreachable_address_stops_the_run_resumably():
    with LoopbackTeacher() as server:
        pass
    with pytest.raises(StoppedEarlyError, match="cannot be reached"):
        ask(server, max_attempts=2)


def test_a_request_that_times_out_is_retried():
    with LoopbackTeacher(hold_after=0) as server, pytest.raises(StoppedEarlyError, match=r"did not answer within 0.05 s"):
        ask(server, max_attempts=2, timeout_s=0.05)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_one_clear_line_without_retries(status):
    with LoopbackTeacher([(status, JSON, f"wrong key {KEY[:8]}***".encode())]) as server:
        with pytest.raises(InputError, match="check OPENAI_API_KEY") as caught:
            ask(server)
        assert len(server.requests) == 1
    assert KEY[:8] not in str(caught.value) and "\n" not in str(caught.value)


def test_other_client_errors_are_final_and_quote_the_body_but_never_the_key():
    with LoopbackTeacher([(404, JSON, f"no model\nfor {KEY}".encode())]) as server:
        with pytest.raises(InputError, match=r"404: no model for \[key\]"):
            ask(server)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"<html><body>Welcome</body></html>", "with text/html, not JSON: <html>"),
        (b"\xff\xfe", "not JSON"),
        (b'{"choices": [7]}', "without a valid choice"),
        (b"[]", "without a valid choice"),
        (b'{"error": "x"}', "without a valid choice"),
        (b'{"choices": [{"text": "x"}]}', "choice that has no text"),
        (b'{"choices": [{"message": {"content": 7}}]}', "choice that has no text"),
    ],
)
def test_the_error_for_an_answer_that_is_not_a_completion_describes_it(body, named):
    with LoopbackTeacher([(200, {"Content-Type": "text/html"}, body)]) as server:
        with pytest.raises(InputError, match=named):
            ask(server)
        assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://me:pw@host/v1", "http://host/v1?api_key=x", "host:8000/v1", "ftp://host", ""])
def test_an_invalid_address_is_rejected_before_any_call(url):
    with pytest.raises(InputError, match=r"base_url"):
        OpenAITeacher(TeacherConfig(base_url=url))


def test_a_key_that_is_invalid_in_a_header_is_rejected(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        OpenAITeacher(TeacherConfig())
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("count", [2**31, 10**30, 10**400, -1, 1.5, True, "12"])
def test_an_impossible_token_count_is_treated_as_unreported(count):
    body = chat_body("x", usage={"prompt_tokens": count, "completion_tokens": 3})
    with LoopbackTeacher([(200, JSON, body)]) as server:
        assert ask(server).prompt_tokens is None


@pytest.mark.parametrize(
    "body", [b'{"choices": null}', b'{"choices": [{}]}', b'{"choices": [null]}', b'{"error": {"code": 502, "message": "busy"}}']
)
def test_an_answer_with_an_error_or_nothing_instead_of_a_choice_is_retried(body):
    with LoopbackTeacher([(200, JSON, body)]) as server:
        assert ask(server).text
        assert len(server.requests) == 2


def test_quoted_answers_have_no_control_characters():
    with LoopbackTeacher([(404, JSON, b"no \x1b[31mmodel\x00")]) as server, pytest.raises(InputError) as caught:
        ask(server)
    assert "no ?[31mmodel?;" in str(caught.value)


def test_an_answer_without_choices_is_retried():
    with LoopbackTeacher([(200, JSON, b'{"choices": []}')] * 2) as server:
        assert ask(server).text
        assert len(server.requests) == 3
    empty = [(200, JSON, b'{"choices": []}')] * 2
    with LoopbackTeacher(empty) as server, pytest.raises(StoppedEarlyError, match="without a valid choice"):
        ask(server, max_attempts=2)


def test_a_bare_prompt_goes_to_the_completions_endpoint():
    with LoopbackTeacher() as server:
        [completion] = complete_all(server, {"model": "m", "prompt": "def f():", "max_tokens": 5})
    assert server.paths == ["/v1/completions"]
    assert server.requests == [{"model": "m", "prompt": "def f():", "max_tokens": 5}]
    assert completion.text.startswith(("def f", "I am sorry")) and completion.prompt_tokens == 2


def test_max_tokens_is_renamed_for_models_that_require_the_newer_name():
    refusal = b'{"error": {"message": "Unsupported parameter: max_tokens. Use max_completion_tokens instead."}}'
    with LoopbackTeacher([(400, JSON, refusal)]) as server:
        complete_all(server, *[{"model": "m", "messages": QUESTION, "max_tokens": 7}] * 2)
    limits = [{name: value for name, value in request.items() if "tokens" in name} for request in server.requests]
    assert limits == [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_completion_tokens": 7}]
    with LoopbackTeacher([(400, JSON, refusal)] * 9) as server:
        with pytest.raises(InputError, match="400"):
            ask(server)
        assert len(server.requests) == 2


def test_a_prompt_that_violates_a_policy_fails_alone():
    said = b'{"error": {"message": "The response was filtered", "type": null, "code": "content_filter", "status": 400}}'
    with LoopbackTeacher([(400, JSON, said)]) as server, pytest.raises(RefusedPromptError) as refused:
        ask(server)
    assert refused.value.finish_reason == "content_filter"


def ask_together(server, num_callers, **settings):
    """Return the result of each concurrent caller: a completion or an error."""

    async def ask_all():
        client = OpenAIClient(ApiConfig(base_url=server.base_url, concurrency=num_callers, **settings), sleep=Delays())
        async with contextlib.aclosing(client):
            requests = ({"model": "m", "prompt": f"p{i}"} for i in range(num_callers))
            return await asyncio.gather(*map(client.complete, requests), return_exceptions=True)

    return asyncio.run(ask_all())


def test_one_caller_probes_a_dead_server_for_all():
    with LoopbackTeacher([(500, {}, b"down")] * 1000) as server:
        results = ask_together(server, 16, max_attempts=8)
        num_requests = len(server.requests)
    assert all(isinstance(result, StoppedEarlyError) for result in results)
    assert num_requests <= 16 + 8 + FAILURES_TO_OPEN  # without the circuit breaker, there would be 16 * 8


def test_all_callers_are_answered_once_the_server_recovers():
    with LoopbackTeacher([(503, {}, b"down")] * 5) as server:
        assert all(isinstance(result, Completion) for result in ask_together(server, 8))


def test_nobody_sends_requests_while_the_server_asks_for_a_pause():
    async def run(server):
        waiting, release = asyncio.Event(), asyncio.Event()

        async def sleep(seconds):
            assert seconds == 9
            waiting.set()
            await release.wait()

        async with contextlib.aclosing(OpenAIClient(ApiConfig(base_url=server.base_url), sleep=sleep)) as client:
            first = asyncio.create_task(client.complete({"model": "m", "prompt": "a"}))
            await asyncio.wait_for(waiting.wait(), timeout=30)
            second = asyncio.create_task(client.complete({"model": "m", "prompt": "b"}))
            await asyncio.wait([second], timeout=0.2)
            assert not second.done() and len(server.requests) == 1
            release.set()
            await asyncio.gather(first, second)

    with LoopbackTeacher([(429, {"Retry-After": "9"}, b"")]) as server:
        asyncio.run(run(server))
        assert [request["prompt"] for request in server.requests] == ["a", "a", "b"]


def test_answers_to_earlier_requests_do_not_shorten_the_pause():
    async def run(server):
        waiting, release = asyncio.Event(), asyncio.Event()

        async def sleep(_):
            waiting.set()
            await release.wait()

        async with contextlib.aclosing(OpenAIClient(ApiConfig(base_url=server.base_url), sleep=sleep)) as client:
            before = asyncio.create_task(client.complete({"model": "m", "prompt": "before"}))
            assert await asyncio.to_thread(server.held.acquire, timeout=30)
            turned_away = asyncio.create_task(client.complete({"model": "m", "prompt": "turned away"}))
            await asyncio.wait_for(waiting.wait(), timeout=30)
            server.release()
            await before
            after = asyncio.create_task(client.complete({"model": "m", "prompt": "after"}))
            await asyncio.wait([after], timeout=0.2)
            assert len(server.requests) == 2
            release.set()
            await asyncio.gather(turned_away, after)

    with LoopbackTeacher([None, (429, {"Retry-After": "9"}, b"")], hold=lambda number: number == 1) as server:
        asyncio.run(run(server))
        assert [request["prompt"] for request in server.requests] == ["before", "turned away", "turned away", "after"]


def test_being_throttled_while_others_are_answered_is_not_a_failed_attempt():
    turned_away = (429, {"Retry-After": "0"}, b"")

    async def run(server):
        async def sleep(_):
            await client.complete({"model": "m", "prompt": "other"})

        async with contextlib.aclosing(
            OpenAIClient(ApiConfig(base_url=server.base_url, max_attempts=2), sleep=sleep)
        ) as client:
            assert (await client.complete({"model": "m", "prompt": "p"})).text

    with LoopbackTeacher([turned_away, None] * 10) as server:
        asyncio.run(run(server))
        assert len(server.requests) == 21
    with LoopbackTeacher([turned_away] * 10) as server:
        with pytest.raises(StoppedEarlyError, match="429"):
            ask(server, max_attempts=2)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{",  # body too short
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n" + chat_body("x"),  # body too long
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 20",
        b"no HTTP at all\r\n\r\n",
        b"",
    ],
)
def test_a_broken_answer_is_retried(raw):
    with LoopbackTeacher([raw] * 2) as server:
        assert ask(server).text
        assert len(server.requests) == 3
    with LoopbackTeacher([raw] * 9) as server, pytest.raises(StoppedEarlyError, match=r"2 attempts") as caught:
        ask(server, max_attempts=2)
    assert "\n" not in str(caught.value)


def test_truncated_json_is_retried():
    with LoopbackTeacher([(200, JSON, chat_body("x" * 100)[:60])] * 2) as server:
        assert ask(server).text
        assert len(server.requests) == 3


def test_the_timeout_also_limits_an_answer_that_arrives_slowly():
    # The whole body would take longer than the timeout.
    with LoopbackTeacher(drip_s=0.1) as server, pytest.raises(StoppedEarlyError, match=r"did not answer within 0.3 s"):
        ask(server, max_attempts=2, timeout_s=0.3)


def test_a_redirect_is_not_followed_with_the_key():
    with (
        LoopbackTeacher() as other,
        LoopbackTeacher([(307, {"Location": f"{other.base_url}/chat/completions"}, b"")]) as server,
    ):
        with pytest.raises(InputError, match="307"):
            ask(server)
        assert other.requests == []


def test_the_proxy_of_the_environment_is_used(monkeypatch):
    with LoopbackTeacher() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("REQUEST_METHOD", raising=False)

        class Server:
            base_url = "http://teacher.invalid/v1"

        assert ask(Server).text
        assert proxy.paths == ["http://teacher.invalid/v1/chat/completions"]
        monkeypatch.setenv("no_proxy", "teacher.invalid")
        with pytest.raises(StoppedEarlyError, match="cannot be reached"):
            ask(Server, max_attempts=1)


def test_retries_count_against_the_request_limit_and_waiting_callers_respect_the_circuit_breaker():
    async def run(server):
        config = ApiConfig(base_url=server.base_url, concurrency=8, requests_per_minute=600, max_attempts=20)
        async with contextlib.aclosing(OpenAIClient(config, sleep=lambda _: asyncio.sleep(0))) as client:
            requests = ({"model": "m", "prompt": f"p{i}", "max_tokens": 5} for i in range(8))
            return await asyncio.gather(*map(client.complete, requests))

    with LoopbackTeacher([(503, {}, b"down")] * 12) as server:
        began = time.monotonic()
        assert len(asyncio.run(run(server))) == 8
        assert len(server.requests) == 20
        assert time.monotonic() - began >= 0.9  # 10 requests at once, then one every 0.1 s


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            400,
            b'{"error": {"message": "The maximum context length is 4096 tokens.", "code": "context_length_exceeded"}}',
        ),
        (400, b'{"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096."}'),
        (400, b'{"error": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}}'),
        (413, b"<html>Request Entity Too Large</html>"),
    ],
)
def test_a_prompt_too_long_for_the_model_fails_alone_but_a_short_one_reveals_a_wrong_setting(status, said):
    async def run(server):
        async with contextlib.aclosing(OpenAIClient(ApiConfig(base_url=server.base_url))) as client:
            requests = [{"model": "m", "prompt": text} for text in ("x" * 5000, "short")]
            return [await asyncio.gather(client.complete(request), return_exceptions=True) for request in requests]

    with LoopbackTeacher([(status, JSON, said)]) as server:
        [[refused], [answered]] = asyncio.run(run(server))
        assert isinstance(refused, RefusedPromptError) and isinstance(answered, Completion)
    with LoopbackTeacher([(status, JSON, said)]) as server, pytest.raises(InputError, match="sampling settings"):
        ask(server)
