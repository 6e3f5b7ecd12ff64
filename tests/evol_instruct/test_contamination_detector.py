import collections
import gzip
import json
import random

import pytest

from tests.helpers.disguises import disguised, parts, renamed, verbatim
from tests.helpers.shared_data import DATA_DIR, shared
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import read_records
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
def contamination(tmp_path):
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
def test_evidence_names_the_tier_the_problem_and_the_text(contamination, text, tier, task_id):
    hits = contamination.hits(text)
    assert [(hit.tier, hit.task_id) for hit in hits] == ([] if tier is None else [(tier, task_id)])
    assert all(hit.text[:20] in " ".join(text.split()) for hit in hits)
    assert contamination.find(text) == (str(hits[0]) if hits else None)


def test_a_letter_that_grows_in_lower_case_hides_nothing(contamination):
    assert contamination.find("İİİ " + " ".join(WORDS[80:90]).upper()).endswith(" ".join(WORDS[80:90]).upper())


@pytest.mark.parametrize("piece", ['\\\\"', "'", '"""', "'x", "# ", "def f(a=", "[", "\\ud800"])
def test_a_long_text_of_quotes_that_nothing_closes_is_read_in_one_pass(contamination, piece):
    assert contamination.hits('"' + piece * 30_000 + "\n" + CODE)[0].task_id == "7"


def test_the_rule_sees_the_response_and_what_crosses_from_the_instruction_into_it(contamination):
    first, second = " ".join(WORDS[80:85]), " ".join(WORDS[85:90])
    check = contamination.rule.check
    assert check(CandidateRecord(parent_instruction="", instruction=f"{first} {second}")) is not None
    assert check(CandidateRecord(parent_instruction="", instruction=first)) is None
    assert check(CandidateRecord(parent_instruction="", instruction=first, response="none of it")) is None
    assert check(CandidateRecord(parent_instruction="", instruction=first, response=second)) is not None
    assert check(CandidateRecord(parent_instruction="", instruction="x", response=f"{first} {second}")) is not None


def test_boilerplate_of_a_benchmark_is_no_evidence(tmp_path):
    header = " ".join(WORDS[:30])
    lines = [{"prompt": f"{header} {' '.join(WORDS[100 + 30 * i : 130 + 30 * i])}"} for i in range(15)]
    write(tmp_path, "p.jsonl", lines)
    contamination = ContaminationDetector(str(tmp_path))
    assert contamination.find(header) is None
    assert contamination.find(lines[3]["prompt"]) is not None


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.jsonl", '{"question": "x"}\n', "holds no problems"),
        ("p.jsonl", '{"instruction": "x", "text": "y"}\n', "holds no problems"),
        ("p.json", '{"text": "settings"}', "holds no problems"),
        ("p.txt", "x", "holds no problems"),
        ("p.jsonl", "{", "malformed JSON"),
        ("p.jsonl", '{"prompt": "x"}\n{"question": "y"}\n', r"p\.jsonl:2: no \"prompt\" or \"text\""),
    ],
)
def test_a_folder_without_problems_or_with_a_damaged_file_is_refused(tmp_path, name, content, complaint):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=complaint) as caught:
        ContaminationDetector(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        ContaminationDetector(str(tmp_path / "absent"))


@pytest.fixture(scope="module")
def everything():
    shared("humaneval/HumanEval.jsonl.gz")
    return ContaminationDetector(str(DATA_DIR))


def test_every_layout_of_a_benchmark_is_read_and_other_files_are_passed_over(everything):
    folders = collections.Counter(problem.benchmark.split("/")[0] for problem in everything.problems)
    assert folders == {
        "humaneval": 164,
        "humanevalplus": 164,
        "mbpp": 974 + 427,
        "mbppplus": 378,
        "ds1000": 500,
        "multipl-e": 638,
    }
    assert {name.split("/")[0] for name in everything.passed_over} == {"codealpaca", "evol", "hf_configs"}
    assert {problem.task_id for problem in everything.problems} >= {
        "HumanEval/0",
        "Mbpp/2",
        "1",
        "Numpy/292",
        "HumanEval_23_strlen",
    }


@pytest.mark.parametrize(("name", "first", "end"), [("humaneval/HumanEval.jsonl.gz", 0, 164), ("mbpp/mbpp.jsonl", 10, 210)])
def test_nearly_all_planted_leaks_are_caught(everything, name, first, end):
    problems = [problem for _, problem in read_records(shared(name))][first:end]
    missed = collections.defaultdict(list)
    for problem in problems:
        own = str(problem["task_id"])
        for kinds, most in ((verbatim, 0.01), (disguised, 0.05)):
            for kind, text in kinds(problem):
                missed[kind, most] += [] if everything.hits(text) else [own]
    assert len(problems) == end - first
    assert {kind: names for (kind, most), names in missed.items() if len(names) > most * len(problems)} == {}


def test_the_problem_is_named_that_was_planted(everything):
    for _, problem in read_records(shared("humaneval/HumanEval.jsonl.gz")):
        prompt = parts(problem)[1]
        found = {hit.task_id for hit in everything.hits(prompt)}
        assert problem["task_id"] in found
        assert len({name.replace("_", "/").split("/")[1] for name in found if name.startswith("HumanEval")}) <= 3


def test_few_records_of_an_ordinary_data_set_are_flagged(everything):
    records = [record for _, record in read_records(shared("codealpaca/code_alpaca_2k.json"))]
    texts = ["\n".join((record["instruction"], record["input"], record["output"])) for record in records]
    assert sum(everything.find(text) is not None for text in texts) <= 0.005 * len(texts)
