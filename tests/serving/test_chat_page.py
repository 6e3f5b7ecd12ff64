"""The chat page in a headless browser: hostile answers stay text, and the keyboard is enough to use it."""

import threading

import pytest

from tests.helpers.browser import KEYS, Browser
from tests.helpers.hostile_texts import HOSTILE
from tests.helpers.scripted_server import ScriptedServer

CODE = 'def add(a, b):\n    """Sum."""\n    # of two\n    return a + 1 if f"{b}" else 0'
ANSWER = f"Here it is:\n\n```python\n{CODE}\n```\n\nAnd in C:\n```c\nint x = 1; // one\n```\nDone."


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


def visit(browser, url):
    browser.send("Page.navigate", url="about:blank")
    browser.events.clear()
    browser.send("Page.navigate", url=url)
    browser.wait_for("document.readyState === 'complete' && document.title !== 'wizardcoder_jax'")


def send(browser, text):
    browser.type_text(text)
    code, number, _ = KEYS["Enter"]
    for kind in ("rawKeyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="Enter", code=code, windowsVirtualKeyCode=number, modifiers=2)


def ask(browser, text):
    before = browser.evaluate("document.querySelectorAll('.assistant').length")
    send(browser, text)
    browser.wait_for(f"document.querySelectorAll('.assistant').length > {before} && document.querySelector('.busy') === null")


def texts(browser, selector):
    return browser.evaluate(f"[...document.querySelectorAll('{selector}')].map(element => element.textContent)")


def test_an_answer_is_streamed_and_its_code_is_highlighted(browser, server):
    visit(browser, server.url)
    assert browser.evaluate("document.activeElement.id") == "prompt"
    assert texts(browser, "h1") == ["scripted <b>"]
    server.answer, server.steps = ANSWER, threading.Semaphore(1)
    send(browser, "Add <two>\nnumbers")
    browser.wait_for("document.querySelector('.busy .text')?.textContent.startsWith('Here')")
    assert browser.evaluate("document.querySelector('#turns').getAttribute('aria-busy')") == "true"
    server.steps.release(1000)
    browser.wait_for("document.querySelector('.busy') === null")
    assert texts(browser, ".user .text") == ["Add <two>\nnumbers"]
    assert texts(browser, "code") == [CODE, "int x = 1; // one"]
    assert texts(browser, ".assistant .text") == ["Here it is:", "And in C:", "Done."]
    assert texts(browser, ".keyword") == ["def", "return", "if", "else", "int"]
    assert texts(browser, ".comment") == ["# of two", "// one"]
    assert texts(browser, ".string") == ['"""Sum."""', 'f"{b}"']
    assert texts(browser, "#status") == ["Answer complete."]
    assert browser.problems() == []
    assert all(url.startswith((server.url, "data:")) for url in browser.requests())


def test_hostile_answers_stay_text_and_fetch_nothing(browser, server):
    visit(browser, server.url)
    for text in [text for text in HOSTILE if not any("\ud800" <= c <= "\udfff" for c in text)]:
        body = text[:3000].replace("`", "'")
        server.answer = f"{body}\n```python\n{body}\n```\n```{body[:20]}\nx"
        ask(browser, f"Say {body}")
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.problems() == []
    allowed = (f"{server.url}/", f"{server.url}/v1/models", f"{server.url}/v1/chat/completions", "data:,")
    assert set(browser.requests()) <= set(allowed)
    counts = {tag: browser.evaluate(f"document.querySelectorAll('{tag}').length") for tag in ("script", "style", "img", "svg")}
    assert counts == {"script": 1, "style": 1, "img": 0, "svg": 0}
    assert not [text for text in texts(browser, "code") if "\u202e" in text]


def test_the_content_security_policy_blocks_injected_scripts(browser, server):
    visit(browser, server.url)
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hacked=1>')")
    browser.evaluate(
        "{const s = document.createElement('script'); s.textContent = 'window.hacked = 2'; document.body.append(s)}"
    )
    # The image's error event would have fired by the time that a fetch of the page itself has completed.
    browser.evaluate("fetch('/healthz').then((response) => response.text())")
    assert browser.evaluate("typeof window.hacked") == "undefined"


def test_earlier_turns_and_settings_are_sent_with_each_request(browser, server):
    visit(browser, server.url)
    browser.evaluate("document.querySelector('#toggle').click()")
    assert browser.evaluate("document.querySelector('#toggle').getAttribute('aria-expanded')") == "true"
    browser.evaluate("document.querySelector('#system').value = 'Be brief.'; document.querySelector('#prompt').focus()")
    server.answer = "First."
    ask(browser, "One")
    server.answer = "Second."
    ask(browser, "Two")
    assert server.prompts == [
        "system: Be brief.\nuser: One\n",
        "system: Be brief.\nuser: One\nassistant: First.\nuser: Two\n",
    ]
    browser.evaluate("document.querySelector('#new').click()")
    assert texts(browser, ".turn") == [] and browser.evaluate("document.activeElement.id") == "prompt"
    ask(browser, "Three")
    assert server.prompts[-1] == "system: Be brief.\nuser: Three\n"
    browser.evaluate("document.querySelector('#temperature').value = 7")
    ask(browser, "Four")
    assert texts(browser, "[role=alert]") == ["temperature must be a number from 0 to 2, got 7"]
    assert browser.evaluate("document.querySelector('#prompt').value") == "Four"  # not lost


def test_escape_stops_an_answer_and_cancels_it_on_the_server(browser, server):
    visit(browser, server.url)
    server.answer, server.steps = "word " * 4000, threading.Semaphore(3)
    send(browser, "Go on")
    browser.wait_for("document.querySelector('.busy .text')?.textContent.length > 10")
    browser.press("Escape")
    browser.wait_for("document.querySelector('.busy') === null")
    assert texts(browser, "#status") == ["Stopped."]
    assert browser.evaluate("document.querySelector('#stop').hidden && document.activeElement.id === 'prompt'")
    assert server.abandoned.wait(120)


def test_code_and_answers_are_copied_unchanged(browser, server):
    visit(browser, server.url)
    server.answer = ANSWER
    ask(browser, "Add")
    browser.evaluate("window.copies = []; navigator.clipboard.writeText = async (text) => { window.copies.push(text); }; 0")
    browser.evaluate("for (const button of document.querySelectorAll('.assistant button')) button.click()")
    browser.wait_for("window.copies.length === 3")
    assert browser.evaluate("window.copies") == [ANSWER, CODE, "int x = 1; // one"]
    labels = browser.evaluate("[...document.querySelectorAll('.assistant button')].map(b => b.getAttribute('aria-label'))")
    assert labels == ["Copy the answer", "Copy the code", "Copy the code"]


def test_a_failure_during_an_answer_is_shown_below_the_partial_text(browser, server, server_log):
    visit(browser, server.url)
    server.answer, server.steps = "word " * 4000, threading.Semaphore(3)
    send(browser, "Go on")
    browser.wait_for("document.querySelector('.busy .text')?.textContent.length > 10")
    server.failure = RuntimeError("of the test")
    server.steps.release(1)
    browser.wait_for("document.querySelector('.error') !== null")
    assert texts(browser, ".error") == ["internal server error; see the log of the server"]
    assert texts(browser, ".assistant .text")[0].startswith("word")
    assert "RuntimeError: of the test" in server_log.text


def test_the_page_asks_for_a_key_if_the_server_requires_one(browser):
    with ScriptedServer(key="k") as server:
        server.answer = "Hello."
        browser.send("Page.navigate", url=server.url)
        browser.wait_for("document.readyState === 'complete' && document.querySelector('#prompt') !== null")
        browser.evaluate("document.querySelector('#prompt').focus()")
        ask(browser, "Hi")
        assert browser.evaluate("document.activeElement.id") == "key"
        browser.type_text("k")
        browser.evaluate("document.querySelector('#prompt').focus()")
        ask(browser, "")
        assert texts(browser, ".assistant .text") == ["Hello."]


def test_every_control_has_a_name_and_the_page_fits_on_a_phone(browser, server):
    visit(browser, server.url)
    server.answer = ANSWER + "x" * 500
    ask(browser, "y" * 300)
    browser.evaluate("document.querySelector('#toggle').click()")
    unnamed = browser.evaluate(
        "[...document.querySelectorAll('button, input, textarea')].filter(e => !e.closest('[hidden]'))"
        ".filter(e => !(e.getAttribute('aria-label') || e.closest('label') || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert unnamed == []
    browser.send("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    browser.send("Emulation.clearDeviceMetricsOverride")
