"""The report in a real headless browser: hostile answers stay text, and the keyboard is enough."""

import time

import pytest

from tests.helpers.result_files import entry, results, write_json, write_problems, write_samples
from wizardcoder_jax.report import main
from wizardcoder_jax.reports.visible_text import reveal_hidden

HOSTILE = [
    "<script>window.hacked = 1; alert(1)</script>",
    "</pre></details></script><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked=3'><img src='http://192.0.2.1/x.png'>",
    "\"><svg onload=window.hacked=4> ' onmouseover='window.hacked=5' x='",
    "<style>*{display:none}</style><link rel=stylesheet href='http://192.0.2.1/x.css'>",
    "<!-- --!> <![CDATA[ ]]> <plaintext> <textarea> <title>",
    "&lt;b&gt; &amp;lt; &#60;script&#62; javascript:alert(1)",
    "\0\x01\x1b[31mred\x1b[0m\x7f\x85\r\n\u2028\u202eevil\u2066\ufeff\ufffe",
    "lone \ud800 and \udfff surrogates",
    "<base href='http://192.0.2.1/'><meta http-equiv=refresh content='0;url=http://192.0.2.1/'>",
    "a" * 400_000,
    "\n" * 5000 + "\t\U0001f600\u0301" * 50,
    "{{7*7}} ${7*7} `${window.hacked=6}` %s",
]
TASKS = [f"T/{i}" for i in range(12)]


def write_page(place, contents, samples=(), tasks=TASKS):
    write_problems(place / "problems.jsonl", tasks)
    named = [str(write_json(place / f"{i}.json", content)) for i, content in enumerate(contents)]
    texts = ["--samples", *(str(write_samples(place / f"{i}.jsonl", own)) for i, own in enumerate(samples))] if samples else []
    more = ["--benchmark-file", str(place / "problems.jsonl"), "--output", str(place / "report.html")]
    main(["--results", *named, *texts, *more])
    return place / "report.html"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two results of twelve problems: four gained, two lost."""
    place = tmp_path_factory.mktemp("compared")
    before = {task: [i in (0, 1, 8)] for i, task in enumerate(TASKS)}
    after = {task: [i in (2, 3, 4, 5, 8)] for i, task in enumerate(TASKS)}
    after["T/11"] = [entry(False, reason="exception:KeyError", detail="KeyError: 'x'")]
    answers = {(task, 0): (f"raw of {task}", f"code of {task}") for task in TASKS}
    return write_page(place, [results(before), results(after)], [answers, answers])


def visible_tasks(browser):
    return browser.value(
        "[...document.querySelectorAll('.problem')].filter(p => p.checkVisibility())"
        ".map(p => p.querySelector('.name').textContent)"
    )


def focused(browser):
    return browser.value(
        "document.activeElement.closest('.problem')?.querySelector('.name').textContent ?? document.activeElement.type"
    )


def test_hostile_texts_stay_text_and_nothing_is_fetched(browser, tmp_path):
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
    assert browser.value("typeof window.hacked") == "undefined"
    assert browser.complaints() == [] and browser.requests() == []
    counts = {
        tag: browser.value(f"document.querySelectorAll('{tag}').length") for tag in ("script", "style", "img", "link", "base")
    }
    assert counts == {"script": 1, "style": 1, "img": 0, "link": 0, "base": 0}
    assert browser.value("document.querySelectorAll('.problem').length") == len(HOSTILE)
    assert (
        browser.value("[...document.querySelectorAll('*')].some(e => e.getAttributeNames().some(n => n.startsWith('on')))")
        is False
    )
    texts = browser.value("[...document.querySelectorAll('.problem pre')].map(p => p.textContent)")
    for text in HOSTILE:
        assert reveal_hidden(text[:10_000]) in texts


def test_the_policy_of_the_page_stops_a_script_even_if_one_got_in(browser, compared, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(compared.read_text().replace("<header>", "<header><script>window.hacked = 1</script>"))
    browser.open(broken)
    assert browser.value("typeof window.hacked") == "undefined"
    assert visible_tasks(browser) == TASKS  # our own script ran


def test_the_keyboard_is_enough(browser, compared):
    browser.open(compared)
    browser.press("Tab")
    assert browser.value("document.activeElement.textContent") == "Skip to the problems"
    browser.press("Enter")
    browser.press("j")
    assert focused(browser) == "T/0"
    browser.press("j")
    assert focused(browser) == "T/1"
    browser.press("Enter")
    assert browser.value("document.querySelector('#b0-1').open") is True
    assert "raw of T/1" in browser.value("document.querySelector('#b0-1').innerText")
    browser.press("Tab")  # into the prompt, which the keyboard can scroll
    assert browser.value("document.activeElement.tagName") == "PRE" and focused(browser) == "T/1"
    browser.press("j")
    assert focused(browser) == "T/2"
    browser.press("k")
    assert focused(browser) == "T/1"
    browser.press("/")
    assert focused(browser) == "search"
    browser.write("KeyError")
    assert visible_tasks(browser) == ["T/11"]
    assert browser.value("document.querySelector('[role=status]').textContent") == "1 of 12 problems"
    assert browser.complaints() == []


def test_filters_show_the_problems_they_name(browser, compared):
    browser.open(compared)
    choose = "document.querySelector('input[value={}]').click()"
    shown = {}
    for state in ("all", "failed", "passed", "flipped"):
        browser.value(choose.format(state))
        shown[state] = [int(task.removeprefix("T/")) for task in visible_tasks(browser)]
    assert shown["all"] == list(range(12))
    assert shown["passed"] == [0, 1, 2, 3, 4, 5, 8]
    assert shown["flipped"] == [0, 1, 2, 3, 4, 5]
    assert shown["failed"] == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]


def test_a_link_opens_its_problem_even_where_a_filter_hides_it(browser, compared):
    browser.open(compared)
    browser.value("document.querySelector('input[value=flipped]').click()")
    browser.value("location.hash = 'b0-9'")
    browser.value("new Promise(done => setTimeout(done, 50))")
    assert focused(browser) == "T/9"
    assert browser.value("document.querySelector('#b0-9').open && document.querySelector('#b0-9').checkVisibility()") is True
    browser.open(compared, "#b0-3")
    assert focused(browser) == "T/3"


CONTRAST = """
(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const back = (element) => {
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour.length === 3 || colour[3] > 0 ? colour : back(element.parentElement);
  };
  const contrast = (element) => {
    const [a, b] = [parse(getComputedStyle(element).color), back(element)].map(light).sort((p, q) => q - p);
    return (a + 0.05) / (b + 0.05);
  };
  const selectors = ["body", "h2", "td", "th", ".note", ".interval", "a", ".badge.mixed", ".badge.fail", "pre", "h5",
    ".badge.pass", ".legend li"];
  return selectors.map((s) => [s, contrast(document.querySelector(s))]);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(browser, tmp_path, scheme):
    tasks = {task: [True, False, i > 5] for i, task in enumerate(TASKS)}
    answers = {(task, i): ("raw", "code") for task in TASKS for i in range(3)}
    page = write_page(tmp_path, [results(tasks), results(tasks)], [answers, answers])
    browser.prefer(scheme)
    browser.open(page, "#b0-1")
    ratios = dict(browser.value(CONTRAST))
    assert min(ratios.values()) >= 4.5, ratios  # WCAG 2.1, AA
    dark = sum(map(int, browser.value("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(","))) < 384
    assert dark == (scheme == "dark")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_the_window(browser, compared, width):
    browser.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    browser.open(compared, "#b0-1")
    assert browser.value("document.documentElement.scrollWidth") <= width
    browser.send("Emulation.clearDeviceMetricsOverride")


def test_a_page_of_200_samples_for_each_of_164_problems_opens(browser, tmp_path):
    tasks = [f"T/{i}" for i in range(164)]
    content = results({task: [False, True] * 100 for task in tasks})
    code = "def f(x):\n    return x  # <&>\n" * 60
    samples = {(task, i): (f"{i} {code}", f"{i} {code}") for task in tasks for i in range(200)}
    page = write_page(tmp_path, [content], [samples], tasks)
    start = time.monotonic()
    browser.open(page)
    assert browser.value("document.querySelectorAll('.problem').length") == 164
    assert time.monotonic() - start < 20
    assert page.stat().st_size < 40_000_000
