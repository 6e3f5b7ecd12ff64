"""The results page in a real browser: hostile answers stay text, filters and keys work, and text is readable."""

import pytest

from tests.helpers.hostile_texts import HOSTILE
from tests.helpers.result_files import entry, results, write_json, write_problems, write_samples
from wizardcoder_jax.report import main
from wizardcoder_jax.reports.visible_text import reveal_hidden

TASKS = [f"T/{i}" for i in range(12)]


def write_page(folder, contents, samples=(), tasks=TASKS):
    """Write a page of results with their samples, and return its path."""
    write_problems(folder / "problems.jsonl", tasks)
    files = [str(write_json(folder / f"{i}.json", content)) for i, content in enumerate(contents)]
    texts = ["--samples", *(str(write_samples(folder / f"{i}.jsonl", own)) for i, own in enumerate(samples))] if samples else []
    more = ["--benchmark-file", str(folder / "problems.jsonl"), "--output", str(folder / "report.html")]
    main(["--results", *files, *texts, *more])
    return folder / "report.html"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two results of twelve problems: four gained, two lost."""
    folder = tmp_path_factory.mktemp("compared")
    before = {task: [i in (0, 1, 8)] for i, task in enumerate(TASKS)}
    after = {task: [i in (2, 3, 4, 5, 8)] for i, task in enumerate(TASKS)}
    after["T/11"] = [entry(False, reason="exception:KeyError", detail="KeyError: 'x'")]
    answers = {(task, 0): (f"raw of {task}", f"code of {task}") for task in TASKS}
    return write_page(folder, [results(before), results(after)], [answers, answers])


@pytest.fixture(scope="module")
def compared_samples(tmp_path_factory):
    """Two results with three samples per problem, so that there are curves and mixed badges."""
    problems = {task: [True, False, i > 5] for i, task in enumerate(TASKS)}
    answers = {(task, i): ("raw", "code") for task in TASKS for i in range(3)}
    return write_page(tmp_path_factory.mktemp("samples"), [results(problems), results(problems)], [answers, answers])


def visible_tasks(browser):
    return browser.evaluate(
        "[...document.querySelectorAll('.problem')].filter(p => p.checkVisibility())"
        ".map(p => p.querySelector('.name').textContent)"
    )


def focused(browser):
    return browser.evaluate(
        "document.activeElement.closest('.problem')?.querySelector('.name').textContent ?? document.activeElement.type"
    )


def test_hostile_texts_stay_text_and_load_nothing(browser, tmp_path):
    tasks = [f"T/{i} {text[:60]}" for i, text in enumerate(HOSTILE)]
    problems = {
        task: [entry(False, reason=f"exception:{text[:50]}", detail=text)] for task, text in zip(tasks, HOSTILE, strict=True)
    }
    meta = {"model": HOSTILE[0], "temperature": HOSTILE[2], "top_p": HOSTILE[7], "seed": HOSTILE[8]}
    hostile = {"samples_meta": meta, "sandbox": {"tier": HOSTILE[3]}, "environment": {"python": HOSTILE[4]}}
    score = {"num_problems": 1, "pass_at_k": {"1": 0.0}, "confidence_95": {"1": [0, 0]}}
    first = results(problems, libraries=dict.fromkeys(HOSTILE, score), **hostile)
    second = results({task: [True] for task in tasks}, samples_meta={"model": "other"})
    samples = {(task, 0): (text, text) for task, text in zip(tasks, HOSTILE, strict=True)}
    browser.open(write_page(tmp_path, [first, second], [samples, samples], tasks))
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.problems() == [] and browser.requests() == []
    counts = {
        tag: browser.evaluate(f"document.querySelectorAll('{tag}').length")
        for tag in ("script", "style", "img", "link", "base")
    }
    assert counts == {"script": 1, "style": 1, "img": 0, "link": 0, "base": 0}
    assert browser.evaluate("document.querySelectorAll('.problem').length") == len(HOSTILE)
    assert (
        browser.evaluate("[...document.querySelectorAll('*')].some(e => e.getAttributeNames().some(n => n.startsWith('on')))")
        is False
    )
    texts = browser.evaluate("[...document.querySelectorAll('.problem pre')].map(p => p.textContent)")
    for text in HOSTILE:
        assert reveal_hidden(text[:10_000]) in texts


def test_the_content_security_policy_blocks_an_injected_script(browser, compared, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(compared.read_text().replace("<header>", "<header><script>window.hacked = 1</script>"))
    browser.open(broken)
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert visible_tasks(browser) == TASKS  # the page's own script ran


def test_the_page_can_be_used_by_keyboard_alone(browser, compared):
    browser.open(compared)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.textContent") == "Skip to the problems"
    browser.press("Enter")
    browser.press("j")
    assert focused(browser) == "T/0"
    browser.press("j")
    assert focused(browser) == "T/1"
    browser.press("Enter")
    assert browser.evaluate("document.querySelector('#b0-1').open") is True
    assert "raw of T/1" in browser.evaluate("document.querySelector('#b0-1').innerText")
    browser.press("Tab")  # into the prompt, which the keyboard can scroll
    assert browser.evaluate("document.activeElement.tagName") == "PRE" and focused(browser) == "T/1"
    browser.press("j")
    assert focused(browser) == "T/2"
    browser.press("k")
    assert focused(browser) == "T/1"
    browser.press("/")
    assert focused(browser) == "search"
    browser.type_text("KeyError")
    assert visible_tasks(browser) == ["T/11"]
    assert browser.evaluate("document.querySelector('[role=status]').textContent") == "1 of 12 problems"
    assert browser.problems() == []


def test_each_filter_shows_its_problems(browser, compared):
    browser.open(compared)
    choose = "document.querySelector('input[value={}]').click()"
    shown = {}
    for state in ("all", "failed", "passed", "flipped"):
        browser.evaluate(choose.format(state))
        shown[state] = [int(task.removeprefix("T/")) for task in visible_tasks(browser)]
    assert shown["all"] == list(range(12))
    assert shown["passed"] == [0, 1, 2, 3, 4, 5, 8]
    assert shown["flipped"] == [0, 1, 2, 3, 4, 5]
    assert shown["failed"] == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]


def test_a_link_opens_its_problem_even_if_a_filter_hides_it(browser, compared):
    browser.open(compared)
    browser.evaluate("document.querySelector('input[value=flipped]').click()")
    browser.evaluate("location.hash = 'b0-9'")
    browser.wait_for("document.activeElement.closest('#b0-9')")
    assert focused(browser) == "T/9"
    assert browser.evaluate("document.querySelector('#b0-9').open && document.querySelector('#b0-9').checkVisibility()") is True
    browser.open(compared, "#b0-3")
    assert focused(browser) == "T/3"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_color_schemes(browser, compared_samples, tmp_path, scheme):
    with browser.color_scheme(scheme):
        browser.open(compared_samples, "#b0-1")
        text = ["body", "h2", "td", "th", ".note", ".interval", "a", "pre", "h5", ".legend li"]
        ratios = browser.contrasts([*text, ".badge.mixed", ".badge.fail", ".badge.pass"])
        assert min(ratios.values()) >= 4.5, ratios  # WCAG 2.1, AA
        color = browser.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()")
        assert (sum(map(int, color.split(","))) < 384) == (scheme == "dark")
        browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_the_window(browser, compared, width):
    with browser.window(width, 800):
        browser.open(compared, "#b0-1")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_a_page_of_many_samples_opens(browser, large_results_page):
    browser.open(large_results_page)
    assert browser.evaluate("document.querySelectorAll('.problem').length") == 164
