import json
import random

import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.evol_instruct import round_statistics
from wizardcoder_jax.evol_instruct.difficulty import measure_difficulty, parse_python
from wizardcoder_jax.evol_instruct.diversity import measure_diversity
from wizardcoder_jax.evol_instruct.length_histogram import LengthHistogram
from wizardcoder_jax.evol_instruct.records import Record, Rejection, Usage
from wizardcoder_jax.evol_instruct.round_statistics import RoundStatistics


def record(number, round_=0, instruction="Sort a list.", output="def f(x):\n    return sorted(x)", **more):
    return Record(
        id=f"{round_}-{number}",
        parent_id=f"{round_ - 1}-{number}" if round_ else None,
        seed_id=f"0-{number}",
        round=round_,
        method=number % 5 + 1 if round_ else None,
        instruction=instruction,
        output=output,
        teacher="t" if round_ else None,
        usage=Usage(prompt_tokens=3, completion_tokens=5, num_calls=2),
        **more,
    )


def statistics_of(outcomes, round_=0):
    made = RoundStatistics(round_)
    for outcome in outcomes:
        made.add(outcome)
    return made


def test_every_outcome_is_counted_once():
    outcomes = [record(i, 1, task="repair" if i % 2 else "generate", language="rust" if i < 3 else None) for i in range(10)]
    outcomes[7:] = [Rejection(record=r, rule="sorry" if r.id == "1-9" else "empty", evidence="e") for r in outcomes[7:]]
    found = statistics_of(outcomes, 1).to_json()
    assert (found["round"], found["pool"], found["kept"], found["rejected"]) == (1, 10, 7, {"empty": 2, "sorry": 1})
    assert found["methods"] == {"1": 2, "2": 2, "3": 1, "4": 1, "5": 1}
    assert found["methods_rejected"] == {"3": 1, "4": 1, "5": 1}
    assert found["tasks"] == {"generate": 4, "repair": 3}
    assert found["languages"] == {"not said": 4, "rust": 3}
    assert found["usage"] == {"prompt_tokens": 30, "completion_tokens": 50}
    assert sum(number for _, number in found["lengths"]["output"]["histogram"]) == 7


def test_statistics_do_not_depend_on_the_order_of_outcomes(monkeypatch):
    monkeypatch.setattr(round_statistics, "SAMPLE_SIZE", 20)
    draw = random.Random(0)
    outcomes = [
        record(i, 1, instruction=" ".join(draw.choices("abcdefgh", k=1 + i % 9)), output="x = 1\n" * i) for i in range(200)
    ]
    first = statistics_of(outcomes, 1).to_json()
    draw.shuffle(outcomes)
    assert statistics_of(outcomes, 1).to_json() == first
    assert first["num_sampled"] == 20


def test_the_sample_is_bounded_and_follows_the_same_seeds_through_the_rounds(monkeypatch):
    monkeypatch.setattr(round_statistics, "SAMPLE_SIZE", 10)
    rounds = [statistics_of([record(i, n) for i in range(500)], n) for n in range(3)]
    ids = [[sampled.id.partition("-")[2] for sampled in one._sample] for one in rounds]
    assert ids[0] == ids[1] == ids[2] and len(ids[0]) == 10
    assert all(len(one._heap) == 10 for one in rounds)


def test_difficulty_is_compared_with_the_parent():
    before = statistics_of([record(i) for i in range(5)])
    longer = "Sort a list. It must be stable. Do not use sorted."
    after = statistics_of([record(i, 1, instruction=longer, output="for i in x:\n    print(i)") for i in range(5)], 1)
    found = after.to_json([before])["difficulty"]
    assert found["instruction_sentences"] == {"mean": 3.0, "change": 2.0, "num": 5}
    assert found["instruction_constraints"] == {"mean": 2.0, "change": 2.0, "num": 5}
    assert found["code_complexity"] == {"mean": 2.0, "change": 1.0, "num": 5}
    assert before.to_json()["difficulty"]["instruction_words"] == {"mean": 3.0, "change": None, "num": 5}


def test_a_round_without_records_has_no_means():
    found = statistics_of([Rejection(record=record(1, 1), rule="empty", evidence="e")], 1).to_json([statistics_of([])])
    assert found["lengths"]["output"] == {"mean": None, "p10": None, "p50": None, "p90": None, "histogram": []}
    assert {entry["mean"] for entry in found["difficulty"].values()} == {None}
    assert set(found["diversity"].values()) == {None}
    json.dumps(found)


@pytest.mark.parametrize("number", [1, 2, 10, 1000])
def test_quantiles_of_lengths_are_accurate_to_one_bin(number):
    draw = random.Random(number)
    values = sorted(int(2 ** draw.uniform(0, 14)) for _ in range(number))
    lengths = LengthHistogram()
    for value in values:
        lengths.add(value)
    found = lengths.to_json()
    for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
        true = values[max(0, -int(-share * number // 1) - 1)]
        assert true / 2**0.26 - 1 <= found[name] <= true * 2**0.26 + 1, name
    assert found["mean"] == round(sum(values) / number, 1)
    firsts = [first for first, _ in found["histogram"]]
    assert firsts == sorted(set(firsts)) and sum(n for _, n in found["histogram"]) == number


@pytest.mark.parametrize(
    ("code", "complexity", "nesting"),
    [
        ("x = 1", 1, 0),
        ("def f():\n  return 1", 1, 1),
        ("def f(a):\n  if a and b or c:\n    return 1\n  return 2", 4, 2),
        ("for i in x:\n  while i:\n    try:\n      g()\n    except E:\n      pass", 4, 3),
        ("x = [i for i in y if i if j]", 4, 0),
        ("match x:\n  case 1:\n    pass\n  case _:\n    pass", 3, 1),
    ],
)
def test_complexity_counts_decisions_and_nesting_counts_blocks(code, complexity, nesting):
    found = measure_difficulty("Do it.", f"Here it is:\n```python\n{code}\n```\nDone.")
    assert (found.code_complexity, found.code_nesting) == (complexity, nesting)


@pytest.mark.parametrize(
    "output",
    [
        "hello",
        "",
        "I am sorry.",
        "```java\nint x = 1;\n```",
        "x = (",
        "(" * 5000 + ")" * 5000,
        "-" * 100_000 + "1",
        "\0",
        "x = '\ud800'",
    ],
)
def test_texts_without_python_have_no_code_measures(output):
    assert parse_python(output) is None
    assert measure_difficulty("Sort.", output).code_nodes is None


def test_deeply_nested_code_raises_no_error():
    for depth in (50, 90, 1000, 5000):
        measure_difficulty("Sort.", "x = " + "[" * depth + "]" * depth)
        measure_difficulty("Sort.", "x = " + "not " * depth + "y")
        measure_difficulty("Sort.", "x = " + "a." * depth + "y")


def test_diversity_distinguishes_copies_from_different_texts():
    copies, different = [["sort", "a", "list"]] * 20, [[f"w{i}", f"v{i}", f"u{i}"] for i in range(20)]
    same, other = measure_diversity(copies, None), measure_diversity(different, {"w0", "v0", "u0"})
    assert (same["mean_pairwise_jaccard"], other["mean_pairwise_jaccard"]) == (1.0, 0.0)
    assert (same["distinct_1"], other["distinct_1"], other["distinct_2"]) == (0.05, 1.0, 1.0)
    assert (same["new_vocabulary"], other["new_vocabulary"]) == (None, 0.95)


def test_a_real_evolved_round_is_measured_as_harder_than_its_seeds():
    with open(shared("codealpaca/code_alpaca_2k.json")) as seeds, open(shared("evol/evol_round1_of_2k.json")) as evolved:
        texts = [json.load(seeds), json.load(evolved)]
    rounds = [
        statistics_of([record(i, n, entry["instruction"], entry["output"]) for i, entry in enumerate(own)], n)
        for n, own in enumerate(texts)
    ]
    easy, hard = (one.to_json(rounds[:i]) for i, one in enumerate(rounds))
    for name in ("instruction_words", "instruction_constraints", "code_nodes", "code_complexity", "code_nesting"):
        assert hard["difficulty"][name]["mean"] > 1.2 * easy["difficulty"][name]["mean"], name
    assert hard["lengths"]["output"]["p50"] > 2 * easy["lengths"]["output"]["p50"]


def test_contamination_is_counted_by_tier_and_benchmark():
    evidence = [
        "substring 1.00, prompt of HumanEval/3 (humaneval/HumanEval.jsonl.gz): sort (a): b",
        "code 0.91, solution of Mbpp/7 (mbpp/mbpp.jsonl): def f(x)",
        "code 0.88, solution of HumanEval/9 (humaneval/HumanEval.jsonl.gz): def g(x)",
        "T/1 in other words",
    ]
    found = statistics_of(
        [Rejection(record=record(i, 1), rule="contaminated", evidence=text) for i, text in enumerate(evidence)]
    )
    assert found.tiers == {"substring": 1, "code": 2, "other": 1}
    assert found.benchmarks == {"humaneval/HumanEval.jsonl.gz": 2, "mbpp/mbpp.jsonl": 1, "other": 1}
