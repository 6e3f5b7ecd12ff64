import gzip
import json
import os
import random
from pathlib import Path

import pytest

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import read_records
from wizardcoder_jax.instructions.decontaminate import NGRAM_TOKENS, Contamination

DATA = Path(os.environ.get("WIZARDCODER_DATA", Path(__file__).parents[2] / "shared" / "data"))
WORDS = random.Random(0).sample([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"], 700)


def benchmark(tmp_path):
    folder = tmp_path / "benchmarks" / "nested"
    folder.mkdir(parents=True)
    problem = {
        "task_id": "T/0",
        "prompt": "def f():\n    " + " ".join(WORDS[:40]),
        "canonical_solution": " ".join(WORDS[40:80]),
    }
    (folder / "a.jsonl").write_text(json.dumps(problem) + "\n")
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps({"task_id": 7, "text": " ".join(WORDS[80:90]), "code": "return x"}) + "\n")
    return str(tmp_path / "benchmarks")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" ".join(WORDS[500:700]), None),
        ("Please: " + ", ".join(WORDS[10 : 10 + NGRAM_TOKENS]).upper(), "a.jsonl: T/0"),
        (" ".join(WORDS[10 : 9 + NGRAM_TOKENS]), None),
        ("x\n\t" + "\n".join(WORDS[50 : 50 + NGRAM_TOKENS]), "a.jsonl: T/0"),
        ("before " + " ".join(WORDS[80:90]) + " after", "b.jsonl.gz: 7"),
        (" ".join(WORDS[80:89]), None),
        ("return x", None),
    ],
)
def test_shared_text_is_found_whatever_its_case_and_punctuation(tmp_path, text, found):
    evidence = Contamination(benchmark(tmp_path)).find(text)
    assert (evidence is None) if found is None else evidence.startswith(found)


def test_boilerplate_of_a_benchmark_is_no_evidence(tmp_path):
    header = " ".join(WORDS[:30])
    lines = [{"prompt": f"{header} {' '.join(WORDS[100 + 30 * i : 130 + 30 * i])}"} for i in range(15)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    contamination = Contamination(str(tmp_path))
    assert contamination.find(header) is None
    assert contamination.find(lines[3]["prompt"]) is not None


@pytest.mark.parametrize(("name", "content"), [("p.jsonl", '{"question": "x"}\n'), ("p.txt", "x"), ("p.jsonl", "{")])
def test_a_folder_without_problems_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=str(tmp_path)):
        Contamination(str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        Contamination(str(tmp_path / "absent"))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmarks in WIZARDCODER_DATA")
def test_real_problems_are_found_and_ordinary_instructions_are_not():
    contamination = Contamination(str(DATA))
    humaneval = [problem for _, problem in read_records(DATA / "humaneval" / "HumanEval.jsonl.gz")]
    assert all(contamination.find(problem["prompt"].replace("    ", "\t")) for problem in humaneval)
    mbpp = [problem for _, problem in read_records(DATA / "mbpp" / "mbpp.jsonl")][10:210]
    assert sum(contamination.find(problem["text"]) is not None for problem in mbpp) >= 196
    seeds = [seed for _, seed in read_records(DATA / "codealpaca" / "code_alpaca_2k.json")]
    flagged = sum(bool(contamination.find(seed["instruction"]) or contamination.find(seed["output"])) for seed in seeds)
    assert flagged <= 0.005 * len(seeds)
