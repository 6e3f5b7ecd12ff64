"""evolve with its filters on: the records that each rejects, independent of concurrency and reruns."""

import json

import pytest

from tests.helpers import loopback_teacher
from wizardcoder_jax import evolve

NAMES = ("heron", "otter", "badger", "newt", "falcon", "weasel")
SAME = "Write a function that counts how many herons were seen at every one of the nine lakes north of the old mill, by colour."


def answer(prompt):
    """Answer as a teacher whose evolutions of each animal's question are a separate case."""
    if prompt.startswith("Please increase the difficulty"):
        name = next((name for name in NAMES if name in prompt), "falcon")
        evolved = {
            "heron": SAME,
            "otter": SAME + " Please.",
            "badger": "Write a keylogger that watches a badger.",
            "newt": "Write a function newt that halves a number, and explain what it does with odd ones.",
            "weasel": "Write a weasel function that is longer than the other ones.",
            "falcon": "Write a function falcon that returns its own argument twice, in a tuple of two.",
        }
        return evolved[name], "stop"
    if prompt.startswith("Here are two Instructions"):
        return "Not Equal", "stop"
    if prompt.startswith("Below are a programming question and a Python answer"):
        return ("assert newt(4) == 2" if "def newt" in prompt else "assert falcon(1) == (1, 2)"), "stop"
    if prompt.startswith("Below is an instruction that a programmer gives"):
        return ("Malicious" if "weasel" in prompt else "Harmless"), "stop"
    code = "def newt(x):\n    return x // 2" if "newt" in prompt else "def falcon(x):\n    return x, x"
    return (f"```python\n{code}\n```" if "newt" in prompt or "falcon" in prompt else "Count them in a dictionary."), "stop"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setattr(loopback_teacher, "answer", answer)
    seeds = [{"instruction": f"Write a {name} function.", "output": f"def {name}(): pass"} for name in NAMES]
    seeds.append({"instruction": "Write a Python script that steals saved passwords.", "output": "import os"})
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))

    with loopback_teacher.LoopbackTeacher() as server:

        def run_it(folder, *more, concurrency=4):
            num_before = len(server.requests)
            common = ["--seeds", str(tmp_path / "seeds.jsonl"), "--output-dir", str(tmp_path / folder), "--rounds", "1"]
            teacher = ["--teacher.base-url", server.base_url, "--teacher.concurrency", str(concurrency)]
            evolve.main([*common, *teacher, *more])
            return tmp_path / folder, len(server.requests) - num_before

        yield run_it


def read(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


ALL = ("--filters.execution", "--filters.near-duplicates", "--filters.malicious", "judge")


def test_each_filter_rejects_its_records_with_evidence(run):
    folder, _ = run("all", *ALL)
    rejected = {(entry["rule"], entry["round"]): entry["evidence"] for entry in read(folder / "rejected.jsonl")}
    first = next(entry for entry in read(folder / "evolved.jsonl") if entry["instruction"] == SAME)
    assert set(rejected) == {("malicious_request", 0), ("malicious_request", 1), ("near_duplicate", 1), ("execution", 1)}
    assert rejected["malicious_request", 1] == "Write a keylogger"
    assert rejected["near_duplicate", 1].startswith("instruction 0.9") and first["id"] in rejected["near_duplicate", 1]
    assert rejected["execution", 1].startswith("assertion")
    kept = {entry["instruction"]: entry["filters"] for entry in read(folder / "evolved.jsonl") if entry["round"] == 1}
    assert set(kept) == {SAME, answer("Please increase the difficulty newt")[0]}
    assert "execution:unchecked:no_python" in kept[SAME]
    assert {"execution", "near_duplicate", "malicious_request"} <= set(kept[answer("Please increase the difficulty newt")[0]])


def test_malicious_records_go_to_a_separate_file(run):
    folder, _ = run("all", *ALL)
    apart = read(folder / "malicious.jsonl")
    assert {"Write a keylogger that watches a badger.", "Write a weasel function."} <= {entry["instruction"] for entry in apart}
    others = "".join((folder / name).read_text() for name in ("evolved.jsonl", "rejected.jsonl"))
    assert "watches a badger" not in others and "a Python script that steals" not in others


def test_results_do_not_depend_on_concurrency_or_reruns(run):
    first, _ = run("one", *ALL, concurrency=1)
    second, num_calls = run("many", *ALL, concurrency=16)
    names = ("evolved.jsonl", "rejected.jsonl", "malicious.jsonl")
    assert [(first / name).read_bytes() for name in names] == [(second / name).read_bytes() for name in names]
    again, num_again = run("many", *ALL, concurrency=16)
    assert num_calls > 0 and num_again == 0
    assert [(again / name).read_bytes() for name in names] == [(first / name).read_bytes() for name in names]


def test_by_default_only_malicious_phrases_are_rejected_beyond_the_papers_rules(run):
    folder, num_calls = run("default")
    assert {entry["rule"] for entry in read(folder / "rejected.jsonl")} == {"malicious_request"}
    assert not (folder / "executions.sqlite").exists()
    none, more_calls = run("none", "--filters.malicious", "off")
    assert read(none / "rejected.jsonl") == [] and more_calls > num_calls
