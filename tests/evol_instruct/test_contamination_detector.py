import collections
import gzip
import json
import random

import pytest

from tests.helpers.disguises import disguised, parts, renamed, verbatim
from tests.helpers.shared_data import DATA_DIR, shared
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord

WORDS = random.Random(0).sample([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"], 700)
PROMPT = "def f():\n    " + " ".join(WORDS[:40])
CODE = """def tally(rows, key):
    seen = {}
    for row in rows:
        seen[row[key]] = seen.get(row[key], 7) * 3
    return seen
"""


def write(folder, name, entries):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    with (gzip.open if name.endswith(".gz") else open)(folder / name, "wt") as file:
        file.write(lines)


@pytest.fixture
def detector(tmp_path):
    write(tmp_path / "nested", "a.jsonl", [{"task_id": "T/0", "prompt": PROMPT, "test": "assert " + " ".join(WORDS[100:140])}])
    write(tmp_path, "b.jsonl.gz", [{"task_id": 7, "text": " ".join(WORDS[80:90]), "code": CODE}])
    return ContaminationDetector(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "tier", "task_id"),
    [
        (" ".join(WORDS[500:700]), None, None),
        ("Please: " + ", ".join(WORDS[10:30]).upper(), "ngram", "T/0"),
        (" ".join(WORDS[10:29]), None, None),
        ("x\n\t" + PROMPT.replace("    ", "\t").replace(" ", "\n# "), "substring", "T/0"),
        ("before " + " ".join(WORDS[80:90]) + " after", "substring", "7"),
        (" ".join(WORDS[80:86]), None, None),
        (" ".join(WORDS[105:125]), "ngram", "T/0"),
        (CODE.upper(), "substring", "7"),
        (renamed(CODE, CODE).replace("    ", "\t"), "code", "7"),
        (renamed(CODE, CODE).replace("7", "8"), None, None),
        ("return x", None, None),
        ("", None, None),
    ],
)
def test_a_match_has_the_tier_the_problem_and_the_text(detector, text, tier, task_id):
    matches = detector.find_matches(text)
    assert [(match.tier, match.task_id) for match in matches] == ([] if tier is None else [(tier, task_id)])
    assert all(match.text[:20] in " ".join(text.split()) for match in matches)
    assert detector.find_evidence(text) == (str(matches[0]) if matches else None)


def test_a_letter_whose_lower_case_is_longer_does_not_shift_the_evidence(detector):
    assert detector.find_evidence("İİİ " + " ".join(WORDS[80:90]).upper()).endswith(" ".join(WORDS[80:90]).upper())


@pytest.mark.parametrize("piece", ['\\\\"', "'", '"""', "'x", "# ", "def f(a=", "[", "\\ud800"])
def test_many_unclosed_quotes_are_scanned_in_linear_time(detector, piece):
    assert detector.find_matches('"' + piece * 30_000 + "\n" + CODE)[0].task_id == "7"


def test_the_rule_checks_the_response_and_text_that_spans_instruction_and_response(detector):
    first, second = " ".join(WORDS[80:85]), " ".join(WORDS[85:90])
    check = detector.rule.check
    assert check(CandidateRecord(parent_instruction="", instruction=f"{first} {second}")) is not None
    assert check(CandidateRecord(parent_instruction="", instruction=first)) is None
    assert check(CandidateRecord(parent_instruction="", instruction=first, response="none of it")) is None
    assert check(CandidateRecord(parent_instruction="", instruction=first, response=second)) is not None
    assert check(CandidateRecord(parent_instruction="", instruction="x", response=f"{first} {second}")) is not None


def test_boilerplate_of_a_benchmark_is_not_evidence(tmp_path):
    header = " ".join(WORDS[:30])
    lines = [{"prompt": f"{header} {' '.join(WORDS[100 + 30 * i : 130 + 30 * i])}"} for i in range(15)]
    write(tmp_path, "p.jsonl", lines)
    detector = ContaminationDetector(str(tmp_path))
    assert detector.find_evidence(header) is None
    assert detector.find_evidence(lines[3]["prompt"]) is not None


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.jsonl", '{"question": "x"}\n', "contains no problems"),
        ("p.jsonl", '{"instruction": "x", "text": "y"}\n', "contains no problems"),
        ("p.json", '{"text": "settings"}', "contains no problems"),
        ("p.txt", "x", "contains no problems"),
        ("p.jsonl", "{", "malformed JSON"),
        ("p.jsonl", '{"prompt": "x"}\n{"question": "y"}\n', r"p\.jsonl:2: no field \"prompt\" or \"text\""),
    ],
)
def test_a_folder_without_problems_or_with_a_damaged_file_is_refused(tmp_path, name, content, complaint):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=complaint) as caught:
        ContaminationDetector(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_error_names_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        ContaminationDetector(str(tmp_path / "absent"))


@pytest.fixture(scope="module")
def all_benchmarks():
    shared("humaneval/HumanEval.jsonl.gz")
    return ContaminationDetector(str(DATA_DIR))


def test_every_benchmark_layout_is_read_and_other_files_are_skipped(all_benchmarks):
    folders = collections.Counter(problem.benchmark.split("/")[0] for problem in all_benchmarks.problems)
    assert folders == {
        "humaneval": 164,
        "humanevalplus": 164,
        "mbpp": 974 + 427,
        "mbppplus": 378,
        "ds1000": 500,
        "multipl-e": 638,
    }
    assert {name.split("/")[0] for name in all_benchmarks.skipped_files} == {"codealpaca", "evol", "hf_configs"}
    assert {problem.task_id for problem in all_benchmarks.problems} >= {
        "HumanEval/0",
        "Mbpp/2",
        "1",
        "Numpy/292",
        "HumanEval_23_strlen",
    }


@pytest.mark.parametrize(
    "step",
    [pytest.param(4, id="every fourth problem"), pytest.param(1, id="all problems", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(("name", "first", "end"), [("humaneval/HumanEval.jsonl.gz", 0, 164), ("mbpp/mbpp.jsonl", 10, 210)])
def test_nearly_all_planted_leaks_are_found(all_benchmarks, name, first, end, step):
    problems = [problem for _, problem in read_records(shared(name))][first:end:step]
    missed = collections.defaultdict(list)
    for problem in problems:
        own = str(problem["task_id"])
        for kinds, max_share in ((verbatim, 0.01), (disguised, 0.05)):
            for kind, text in kinds(problem):
                missed[kind, max_share] += [] if all_benchmarks.find_matches(text) else [own]
    assert len(problems) == -(-(end - first) // step)
    too_many = {kind: names for (kind, max_share), names in missed.items() if len(names) > max_share * len(problems)}
    assert too_many == {}


def test_the_evidence_names_the_planted_problem(all_benchmarks):
    for _, problem in read_records(shared("humaneval/HumanEval.jsonl.gz")):
        prompt = parts(problem)[1]
        found = {match.task_id for match in all_benchmarks.find_matches(prompt)}
        assert problem["task_id"] in found
        assert len({name.replace("_", "/").split("/")[1] for name in found if name.startswith("HumanEval")}) <= 3


def test_few_records_of_an_ordinary_dataset_are_flagged(all_benchmarks):
    records = [record for _, record in read_records(shared("codealpaca/code_alpaca_2k.json"))]
    texts = ["\n".join((record["instruction"], record["input"], record["output"])) for record in records]
    assert sum(all_benchmarks.find_evidence(text) is not None for text in texts) <= 0.005 * len(texts)
