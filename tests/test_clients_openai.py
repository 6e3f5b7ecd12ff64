import threading

import pytest
from loopback_teacher import LoopbackTeacher, chat_body

from wizardcoder_jax.clients.openai import MAX_RETRY_AFTER_S, OpenAIClient
from wizardcoder_jax.config import ApiConfig, TeacherConfig
from wizardcoder_jax.errors import InputError, StoppedEarlyError
from wizardcoder_jax.instructions.teachers.openai import OpenAITeacher

KEY = "sk-loopback-0123456789abcdef"
QUESTION = [{"role": "user", "content": "Write f."}]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def ask(server, delays=None, **settings):
    teacher = OpenAITeacher(
        TeacherConfig(base_url=server.base_url, **settings), sleep=(delays if delays is not None else []).append
    )
    try:
        return teacher.complete(QUESTION)
    finally:
        teacher.close()


def test_the_answer_and_its_usage_come_back():
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


def test_usage_that_the_server_does_not_report_is_unknown_not_zero():
    with LoopbackTeacher([(200, JSON, chat_body("x"))]) as server:
        completion = ask(server)
    assert completion.prompt_tokens is None


def test_a_null_content_is_an_empty_text():
    body = b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'
    with LoopbackTeacher([(200, JSON, body)]) as server:
        assert ask(server).text == ""


def test_retry_after_is_honoured():
    delays = []
    with LoopbackTeacher([(429, {"Retry-After": "0"}, b""), (429, {"Retry-After": "7"}, b"")]) as server:
        ask(server, delays)
    assert delays == [0.0, 7.0]


def test_a_server_that_asks_for_too_long_a_wait_stops_the_run_resumably():
    with LoopbackTeacher([(429, {"Retry-After": str(MAX_RETRY_AFTER_S + 1)}, b"quota")]) as server:
        with pytest.raises(StoppedEarlyError, match="429"):
            ask(server)
        assert len(server.requests) == 1


def test_server_errors_are_retried_with_growing_delays():
    delays = []
    with LoopbackTeacher([(500, {}, b"oops"), (503, {}, b""), (502, {}, b""), (None, {}, b"")]) as server:
        ask(server, delays)
        assert len(server.requests) == 5
    assert all(0.25 * 2**i <= delay <= 0.5 * 2**i for i, delay in enumerate(delays))


def test_a_server_that_keeps_failing_stops_the_run_resumably():
    with LoopbackTeacher([(500, {}, b"down")] * 3) as server:
        with pytest.raises(StoppedEarlyError, match=r"500: down .3 attempts"):
            ask(server, max_attempts=3)
        assert len(server.requests) == 3


def test_an_address_where_nobody_listens_stops_the_run_resumably():
    with LoopbackTeacher() as server:
        pass
    with pytest.raises(StoppedEarlyError, match="cannot be reached"):
        ask(server, max_attempts=2)


def test_a_server_that_does_not_answer_in_time_is_retried():
    with LoopbackTeacher(hold_after=0) as server, pytest.raises(StoppedEarlyError, match=r"no answer within 0.05 s"):
        ask(server, max_attempts=2, timeout_s=0.05)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_one_clear_line_and_nothing_is_retried(status):
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
        (b"<html><body>Welcome</body></html>", "text/html, not JSON: <html>"),
        (b"\xff\xfe", "not JSON"),
        (b'{"choices": [7]}', "without choices"),
        (b"[]", "without choices"),
        (b'{"error": "x"}', "without choices"),
        (b'{"choices": [{"text": "x"}]}', "without a message text"),
        (b'{"choices": [{"message": {"content": 7}}]}', "without a message text"),
    ],
)
def test_an_answer_that_is_no_completion_is_named(body, named):
    with LoopbackTeacher([(200, {"Content-Type": "text/html"}, body)]) as server:
        with pytest.raises(InputError, match=named):
            ask(server)
        assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://me:pw@host/v1", "http://host/v1?api_key=x", "host:8000/v1", "ftp://host", ""])
def test_an_unusable_address_is_refused_before_any_call(url):
    with pytest.raises(InputError, match=r"base_url"):
        OpenAITeacher(TeacherConfig(base_url=url))


def test_a_key_that_no_header_can_hold_is_refused(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        OpenAITeacher(TeacherConfig())
    assert "sk-" not in str(caught.value)


def test_an_answer_without_any_choice_is_asked_for_again():
    with LoopbackTeacher([(200, JSON, b'{"choices": []}')] * 2) as server:
        assert ask(server).text
        assert len(server.requests) == 3
    empty = [(200, JSON, b'{"choices": []}')] * 2
    with LoopbackTeacher(empty) as server, pytest.raises(StoppedEarlyError, match="without choices"):
        ask(server, max_attempts=2)


def test_a_bare_prompt_goes_to_the_completions_endpoint():
    with LoopbackTeacher() as server:
        client = OpenAIClient(ApiConfig(base_url=server.base_url))
        completion = client.complete({"model": "m", "prompt": "def f():", "max_tokens": 5})
        client.close()
    assert server.paths == ["/v1/completions"]
    assert server.requests == [{"model": "m", "prompt": "def f():", "max_tokens": 5}]
    assert completion.text.startswith(("def f", "I am sorry")) and completion.prompt_tokens == 2


def test_a_model_that_calls_the_limit_otherwise_is_asked_again_with_its_name():
    refusal = b'{"error": {"message": "Unsupported parameter: max_tokens. Use max_completion_tokens instead."}}'
    with LoopbackTeacher([(400, JSON, refusal)]) as server:
        client = OpenAIClient(ApiConfig(base_url=server.base_url))
        for _ in range(2):
            client.complete({"model": "m", "messages": QUESTION, "max_tokens": 7})
        client.close()
    limits = [{name: value for name, value in request.items() if "tokens" in name} for request in server.requests]
    assert limits == [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_completion_tokens": 7}]
    with LoopbackTeacher([(400, JSON, refusal)] * 9) as server:
        with pytest.raises(InputError, match="400"):
            ask(server)
        assert len(server.requests) == 2


def ask_together(server, num_callers, client):
    """What each caller got: a completion's text or an error."""
    results = [None] * num_callers

    def call(i):
        try:
            results[i] = client.complete({"model": "m", "prompt": f"p{i}"}).text
        except (InputError, StoppedEarlyError) as error:
            results[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(num_callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    client.close()
    return results


def test_a_dead_server_is_tried_by_one_caller_for_all():
    with LoopbackTeacher([(500, {}, b"down")] * 1000) as server:
        client = OpenAIClient(ApiConfig(base_url=server.base_url, concurrency=16, max_attempts=8), sleep=lambda _: None)
        results = ask_together(server, 16, client)
        num_requests = len(server.requests)
    assert all(isinstance(result, StoppedEarlyError) for result in results)
    assert num_requests <= 16 + 8  # without the gate: 16 * 8


def test_a_server_that_comes_back_answers_all():
    with LoopbackTeacher([(503, {}, b"down")] * 5) as server:
        client = OpenAIClient(ApiConfig(base_url=server.base_url, concurrency=8), sleep=lambda _: None)
        assert all(isinstance(result, str) for result in ask_together(server, 8, client))


def test_while_a_server_asks_to_wait_nobody_asks_it():
    waiting, release = threading.Event(), threading.Event()

    def sleep(seconds):
        assert seconds == 9
        waiting.set()
        release.wait(timeout=30)

    with LoopbackTeacher([(429, {"Retry-After": "9"}, b"")]) as server:
        client = OpenAIClient(ApiConfig(base_url=server.base_url), sleep=sleep)
        first = threading.Thread(target=lambda: client.complete({"model": "m", "prompt": "a"}))
        first.start()
        assert waiting.wait(timeout=30)
        second = threading.Thread(target=lambda: client.complete({"model": "m", "prompt": "b"}))
        second.start()
        second.join(timeout=0.2)
        assert second.is_alive() and len(server.requests) == 1
        release.set()
        for thread in (first, second):
            thread.join(timeout=30)
        assert [request["prompt"] for request in server.requests][:2] == ["a", "a"] and len(server.requests) == 3
        client.close()


def test_being_throttled_while_others_are_answered_is_no_failure():
    turned_away, other = (429, {"Retry-After": "0"}, b""), {"model": "m", "prompt": "other"}
    with LoopbackTeacher([turned_away, None] * 10) as server:
        client = OpenAIClient(ApiConfig(base_url=server.base_url, max_attempts=2), sleep=lambda _: client.complete(other))
        assert client.complete({"model": "m", "prompt": "p"}).text
        client.close()
        assert len(server.requests) == 21
    with LoopbackTeacher([turned_away] * 10) as server:
        with pytest.raises(StoppedEarlyError, match="429"):
            ask(server, max_attempts=2)
        assert len(server.requests) == 2
