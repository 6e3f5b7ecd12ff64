"""The lineage page in a real browser: search, differences, keyboard, and hostile records, which must stay text."""

import difflib
import json
import random

import pytest

from tests.helpers.evolved_files import record, rejected, write_run
from tests.helpers.hostile_texts import HOSTILE
from wizardcoder_jax.reports.lineage import lineage_trees, write_lineage_page
from wizardcoder_jax.reports.visible_text import reveal_hidden

NUM_TREES = 300
NAMES = {"method_names": {"1": "constraints", "3": "reasoning"}, "seeds": {"file": "seeds.jsonl"}}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of trees with a seed and one evolution each; every tenth tree also has a rejected evolution."""
    seeds = [record(f"seed-{i}", instruction=f"Write function number{i} in Python.") for i in range(NUM_TREES)]
    children = [
        record(
            *(f"evol-{seed['id']}", seed),
            round_=1 + (i % 10 == 0),
            method=3,
            instruction=seed["instruction"].replace("in Python", "in Rust without recursion"),
            output=f"fn answer{i}() {{}}",
        )
        for i, seed in enumerate(seeds)
    ]
    dropped = [rejected(f"bad-{i}", seeds[i], "sorry", f"I am sorry {i}") for i in range(0, NUM_TREES, 10)]
    return write_lineage_page(write_run(tmp_path_factory.mktemp("run"), [*seeds, *children], dropped, NAMES))


def show(browser, page):
    browser.open(page)
    browser.evaluate("ready")


def find(browser, text):
    """Type into the search field and wait for the results."""
    browser.evaluate("search.focus(), search.select(), 0")
    browser.type_text(text)
    browser.wait_for("!status.textContent.includes('searching') && search.value === searched")


def number_found(browser):
    return int(browser.evaluate("status.textContent").split()[0].replace(",", ""))


def titles(browser):
    return browser.evaluate("[...document.querySelectorAll('.row .title')].map(e => e.textContent)")


def test_search_finds_instructions_responses_ids_methods_and_rules(browser, page):
    show(browser, page)
    assert number_found(browser) == NUM_TREES
    for text, expected in [
        ("number123 ", 1),
        ("RUST NUMBER7", 11),  # 7, 70 to 79
        ("answer250()", 1),
        ("evol-seed-42-call-1", 0),  # the page has only the start of a call's id
        ("evol-seed-42", 1),
        ("bad-20", 2),  # and bad-200
        ("reasoning", NUM_TREES),
        ("sorry 290", 1),
        ("nowhere", 0),
        ("", NUM_TREES),
    ]:
        find(browser, text)
        assert number_found(browser) == expected, text
    find(browser, "answer250()")
    assert browser.evaluate("document.querySelector('.node.found details').open") is True
    assert browser.evaluate("[...document.querySelectorAll('mark')].map(e => e.textContent)") == ["answer250()"]
    assert browser.problems() == [] and browser.requests() == []


def test_the_list_draws_only_visible_rows_and_reaches_every_tree(browser, page):
    show(browser, page)
    assert len(titles(browser)) < 60 and "number0 " in titles(browser)[0]
    browser.evaluate("list.focus()")
    browser.press("End")
    browser.wait_for(f"document.querySelector('.tree').textContent.includes('number{NUM_TREES - 1} ')")
    assert f"number{NUM_TREES - 1} " in titles(browser)[-1] and len(titles(browser)) < 60
    assert browser.evaluate("document.querySelector('[aria-selected=true]').id") == f"row-{NUM_TREES - 1}"


def test_the_page_can_be_used_by_keyboard_alone(browser, page):
    show(browser, page)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.textContent") == "Skip to the trees"
    browser.press("/")
    assert browser.evaluate("document.activeElement.id") == "search"
    browser.type_text("number1")
    browser.wait_for("search.value === searched")
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.getAttribute('role')") == "listbox"
    browser.press("ArrowDown")
    browser.press("j")
    browser.press("k")
    browser.wait_for("document.querySelector('.tree').textContent.includes('number10 ')")
    active = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
    assert "number10 " in browser.evaluate(f"{active}.textContent")
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.className") == "tree"
    browser.press("d")
    browser.wait_for("!document.querySelector('ins')")
    browser.press("/")
    browser.press("Escape")
    browser.wait_for(f"status.textContent.startsWith('{NUM_TREES}')")
    assert browser.problems() == []


def test_differences_to_the_parent_are_shown_word_by_word(browser, page):
    show(browser, page)
    find(browser, "evol-seed-33")
    instruction = "document.querySelectorAll('.node .instruction')[1]"
    assert browser.evaluate(f"[...{instruction}.querySelectorAll('del')].map(e => e.textContent)") == ["Python"]
    assert browser.evaluate(f"[...{instruction}.querySelectorAll('ins')].map(e => e.textContent)") == ["Rust without recursion"]


def test_a_rejected_evolution_is_shown_with_its_rule_and_evidence(browser, page):
    show(browser, page)
    browser.evaluate("document.querySelector('button.rule').click()")
    browser.wait_for(f"status.textContent.startsWith('{NUM_TREES // 10} of')")
    heads = browser.evaluate("[...document.querySelectorAll('.node h3')].map(e => e.textContent)")
    assert heads == ["Seed", "Round 1constraintssorry", "Round 2reasoning"]
    assert browser.evaluate("document.querySelector('.node.dropped .evidence').textContent") == "Evidence: I am sorry 0"


def test_both_texts_can_be_restored_from_their_difference(browser, page):
    show(browser, page)
    draw = random.Random(0)
    alphabet = ["a", "b", "cd", " ", "  ", "\n", ".", "(", "\U0001f600", "\u00e9", "\u05d0"]
    for size in [*range(8), 40, 300, 3000]:
        before, after = ("".join(draw.choices(alphabet, k=size)) for _ in range(2))
        runs = browser.evaluate(f"difference({json.dumps(before)}, {json.dumps(after)})")
        assert "".join(text for kind, text in runs if kind != "added") == before
        assert "".join(text for kind, text in runs if kind != "removed") == after
        assert all(text for _, text in runs)


def test_differences_are_nearly_minimal(browser, page):
    show(browser, page)
    draw = random.Random(1)
    for _ in range(5):
        before = [f"w{draw.randrange(1000)}" for _ in range(200)]
        after = [word for word in before if draw.random() > 0.05]
        after[50:50] = ["new", "words", "here"]
        runs = browser.evaluate(f"difference({json.dumps(' '.join(before))}, {json.dumps(' '.join(after))})")
        same = sum(len(text.split()) for kind, text in runs if kind == "same")
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        assert same >= 0.9 * sum(block.size for block in matcher.get_matching_blocks())


@pytest.mark.parametrize("max_plain_chars", [0, lineage_trees.MAX_PLAIN_CHARS])
def test_hostile_records_stay_text_and_load_nothing(browser, tmp_path, monkeypatch, max_plain_chars):
    monkeypatch.setattr(lineage_trees, "MAX_PLAIN_CHARS", max_plain_chars)
    arabic = "\u0627\u0643\u062a\u0628 \u062f\u0627\u0644\u0629"
    texts = [*HOSTILE, arabic, "</script><script>window.hacked=9</script>", "x" * 1_000_000]
    seeds = [record(f"seed-{i} {text[:30]}", instruction=text or "-", output=text) for i, text in enumerate(texts)]
    children = [
        record(
            f"evol-{i}",
            seed,
            round_=1,
            method=i,
            instruction=text[::-1],
            teacher=text[:99],
            language=text[:20],
            filters=[text[:9]],
        )
        for i, (seed, text) in enumerate(zip(seeds, texts, strict=True))
    ]
    dropped = [
        rejected(f"bad-{i}", seed, text[:50], text, instruction=text)
        for i, (seed, text) in enumerate(zip(seeds, texts, strict=True))
    ]
    summary = {"seeds": {"file": HOSTILE[0]}, "method_names": {"1": HOSTILE[2]}, "cost_usd": "<b>"}
    show(browser, write_lineage_page(write_run(tmp_path, [*seeds, *children], dropped, summary)))
    for position, text in enumerate(texts):
        browser.evaluate(f"choose({position})")
        shown = browser.evaluate("document.querySelector('.node .instruction').textContent")
        assert shown.startswith(reveal_hidden(text[:10_000]).replace("\r", ""))
        browser.evaluate("document.querySelectorAll('.node details').forEach(e => { e.open = true })")
    find(browser, "onerror")
    find(browser, "(")
    find(browser, "\\")
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.problems() == [] and browser.requests() == []
    for tag in ("style", "img", "link", "base", "iframe"):
        assert browser.evaluate(f"document.querySelectorAll('{tag}').length") == (tag == "style")
    attributes = "[...document.querySelectorAll('*')].some(e => e.getAttributeNames().some(n => n.startsWith('on')))"
    assert browser.evaluate(attributes) is False


@pytest.mark.parametrize("kept", [[], [record("seed-0")]])
def test_runs_without_evolutions_open(browser, tmp_path, kept):
    show(browser, write_lineage_page(write_run(tmp_path, kept)))
    assert number_found(browser) == len(kept) and browser.problems() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_color_schemes(browser, page, scheme):
    with browser.color_scheme(scheme):
        show(browser, page)
        find(browser, "sorry 290")
        text = ["body", "h2", "td", "dt", "summary", "ins", "del", "mark", "button.rule", ".note", ".interval", ".evidence"]
        nodes = [".badge.fail", ".badge.method", ".node.dropped .instruction", ".facts", ".row .title", ".row .step.dropped"]
        ratios = browser.contrasts([*text, *nodes])
    assert min(ratios.values()) >= 4.5, ratios  # WCAG 2.1, AA


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_the_window(browser, page, width):
    with browser.window(width, 800):
        show(browser, page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_a_page_of_thousands_of_trees_opens_and_can_be_searched(browser, tmp_path):
    text = "Write a function that sorts a list of numbers without recursion. " * 8
    seeds = [record(f"seed-{i}", instruction=f"{i} {text}", output=text) for i in range(4000)]
    children = [record(f"evol-{i}", seed, round_=1, method=1, instruction=f"{text} {i}") for i, seed in enumerate(seeds)]
    show(browser, write_lineage_page(write_run(tmp_path, [*seeds, *children])))
    assert browser.evaluate("document.getElementById('index').type") == "text/plain"  # compressed
    find(browser, "evol-3999")
    assert number_found(browser) == 1


def test_typing_keeps_the_search_in_view_and_a_selected_tree_scrolls_into_view(browser, page):
    with browser.window(390, 700):
        show(browser, page)
        browser.evaluate("search.scrollIntoView()")
        find(browser, "answer250")
        assert -1 < browser.evaluate("search.getBoundingClientRect().top") < 700  # scrolling stops at whole device pixels
    find(browser, "")
    browser.evaluate("list.focus(), scrollTo(0, document.documentElement.scrollHeight)")
    browser.press("ArrowDown")
    browser.wait_for("document.querySelector('.tree').textContent.includes('number1 ')")
    assert 0 <= browser.evaluate("document.querySelector('.node').getBoundingClientRect().top") < 900


def test_the_link_of_a_record_finds_it(browser, page):
    browser.open(page, "#evol-seed-77")
    browser.evaluate("ready")
    assert number_found(browser) == 1
    assert browser.evaluate("document.querySelector('.node.found .facts a').textContent") == "evol-seed-77"
    browser.evaluate("document.querySelector('.node .facts a').click()")
    browser.wait_for("search.value === 'seed-77' && searched === 'seed-77'")
    assert browser.evaluate("document.querySelectorAll('.node.found').length") == 2  # the id evol-seed-77 contains seed-77
    browser.open(page, "#trees")
    browser.evaluate("ready")
    assert number_found(browser) == NUM_TREES and browser.problems() == []
