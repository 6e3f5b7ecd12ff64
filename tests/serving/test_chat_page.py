"""The chat page in a real headless browser: hostile answers stay text, and the keyboard is enough."""

import time

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
    wait(browser, "document.readyState === 'complete' && document.title !== 'wizardcoder_jax'")


def wait(browser, expression, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not browser.evaluate(expression):
        assert time.monotonic() < deadline, (expression, browser.evaluate("document.body.innerText"))
        time.sleep(0.02)


def send(browser, text):
    browser.type_text(text)
    code, number, _ = KEYS["Enter"]
    for kind in ("rawKeyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="Enter", code=code, windowsVirtualKeyCode=number, modifiers=2)


def ask(browser, text):
    before = browser.evaluate("document.querySelectorAll('.assistant').length")
    send(browser, text)
    wait(browser, f"document.querySelectorAll('.assistant').length > {before} && document.querySelector('.busy') === null")


def texts(browser, selector):
    return browser.evaluate(f"[...document.querySelectorAll('{selector}')].map(element => element.textContent)")


def test_an_answer_is_streamed_and_its_code_is_highlighted(browser, server):
    visit(browser, server.url)
    assert browser.evaluate("document.activeElement.id") == "prompt"
    assert texts(browser, "h1") == ["scripted <b>"]
    server.answer, server.step_s = ANSWER, 0.05
    send(browser, "Add <two>\nnumbers")
    wait(browser, "document.querySelector('.busy .text')?.textContent.startsWith('Here')")
    assert browser.evaluate("document.querySelector('#turns').getAttribute('aria-busy')") == "true"
    wait(browser, "document.querySelector('.busy') === null")
    assert texts(browser, ".user .text") == ["Add <two>\nnumbers"]
    assert texts(browser, "code") == [CODE, "int x = 1; // one"]
    assert texts(browser, ".assistant .text") == ["Here it is:", "And in C:", "Done."]
    assert texts(browser, ".keyword") == ["def", "return", "if", "else", "int"]
    assert texts(browser, ".comment") == ["# of two", "// one"]
    assert texts(browser, ".string") == ['"""Sum."""', 'f"{b}"']
    assert texts(browser, "#status") == ["Answer complete."]
    assert browser.problems() == []
    assert all(url.startswith((server.url, "data:")) for url in browser.requests())


def test_hostile_answers_stay_text_and_nothing_is_fetched(browser, server):
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


def test_the_policy_of_the_page_stops_a_script_even_if_one_got_in(browser, server):
    visit(browser, server.url)
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hacked=1>')")
    browser.evaluate(
        "{const s = document.createElement('script'); s.textContent = 'window.hacked = 2'; document.body.append(s)}"
    )
    time.sleep(0.2)
    assert browser.evaluate("typeof window.hacked") == "undefined"


def test_several_turns_and_the_settings_reach_the_model(browser, server):
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


def test_escape_stops_an_answer_and_the_server_is_told(browser, server):
    visit(browser, server.url)
    server.answer, server.step_s = "word " * 4000, 0.05
    send(browser, "Go on")
    wait(browser, "document.querySelector('.busy .text')?.textContent.length > 10")
    browser.press("Escape")
    wait(browser, "document.querySelector('.busy') === null")
    assert texts(browser, "#status") == ["Stopped."]
    assert browser.evaluate("document.querySelector('#stop').hidden && document.activeElement.id === 'prompt'")
    deadline = time.monotonic() + 30
    while not server.num_left:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_code_and_answers_are_copied_as_they_were_written(browser, server):
    visit(browser, server.url)
    server.answer = ANSWER
    ask(browser, "Add")
    browser.evaluate("window.copies = []; navigator.clipboard.writeText = async (text) => { window.copies.push(text); }; 0")
    browser.evaluate("for (const button of document.querySelectorAll('.assistant button')) button.click()")
    wait(browser, "window.copies.length === 3")
    assert browser.evaluate("window.copies") == [ANSWER, CODE, "int x = 1; // one"]
    labels = browser.evaluate("[...document.querySelectorAll('.assistant button')].map(b => b.getAttribute('aria-label'))")
    assert labels == ["Copy the answer", "Copy the code", "Copy the code"]


def test_a_failure_in_the_middle_is_told_and_what_came_stays(browser, server, capfd):
    visit(browser, server.url)
    server.answer, server.step_s = "word " * 4000, 0.05
    send(browser, "Go on")
    wait(browser, "document.querySelector('.busy .text')?.textContent.length > 10")
    server.failure = RuntimeError("of the test")
    wait(browser, "document.querySelector('.error') !== null")
    assert texts(browser, ".error") == ["the server failed; its log says why"]
    assert texts(browser, ".assistant .text")[0].startswith("word")
    assert "RuntimeError: of the test" in capfd.readouterr().err


def test_a_key_is_asked_for_where_the_server_wants_one(browser):
    with ScriptedServer(key="k") as server:
        server.answer = "Hello."
        browser.send("Page.navigate", url=server.url)
        wait(browser, "document.readyState === 'complete' && document.querySelector('#prompt') !== null")
        browser.evaluate("document.querySelector('#prompt').focus()")
        ask(browser, "Hi")
        assert browser.evaluate("document.activeElement.id") == "key"
        browser.type_text("k")
        browser.evaluate("document.querySelector('#prompt').focus()")
        ask(browser, "")
        assert texts(browser, ".assistant .text") == ["Hello."]


def test_every_control_has_a_name_and_a_phone_shows_it_all(browser, server):
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
