"""A whole run compared with an independent implementation of every prompt, draw, verdict and record."""

import hashlib
import json

import pytest

from tests.helpers import loopback_teacher
from tests.helpers.loopback_teacher import LoopbackTeacher
from wizardcoder_jax import evolve

ROUNDS = 3
SEED = 7
LANGUAGES = ("python", "rust")
NAMES = {"python": "Python", "rust": "Rust", "java": "Java"}
WEIGHTS = (1.0, 0.5, 1.0, 2.0, 0.25)
BREADTH_RATE = 0.2

METHODS = {
    "generate": (
        "Add new constraints and requirements to the original problem, adding approximately 10 additional words.",
        "Replace a commonly used requirement in the programming task with a less common and more specific one.",
        "If the original problem can be solved with only a few logical steps, please add more reasoning steps.",
        "Provide a piece of erroneous code as a reference to increase misdirection.",
        "Propose higher time or space complexity requirements, but please refrain from doing so frequently.",
    ),
    "translate": (
        "Add new constraints and requirements to the translation asked for, adding approximately 10 additional words.",
        "Replace a commonly used construct of the code with one that is less common and specific to its language.",
        "If the code can be translated with only a few logical steps, please make it need more reasoning steps.",
        "Provide a piece of erroneous translation as a reference to increase misdirection.",
        "Propose higher time or space complexity requirements for the result, but please refrain from doing so frequently.",
    ),
}
SUBJECTS = {"generate": "programming test question", "translate": "code translation question"}
KEPT = {
    "generate": "",
    "translate": (
        " It must still ask to translate code between the same two programming languages, and must show the code in full. "
        "Reply with the new question alone, without an answer."
    ),
}
LANGUAGE_LINES = {
    "generate": "The new question must ask for a solution in {}.",
    "translate": "It must still ask for a translation into {}.",
}
GUIDANCE = "Give the translation in full, in one fenced block. It must behave as the code does."
EQUALITY = (
    "Here are two Instructions to ChatGPT AI, do you think they are equal to each other, "
    "which meet the following requirements:\n"
    "1. They have same constraints and requirments.\n2. They have same depth and breadth of the inquiry.\n"
    "The First Prompt: {}\nThe Second Prompt: {}\n"
    "Your Judgement (Just answer: Equal or Not Equal. No need to explain the reason.):"
)


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def teacher(prompt):
    """Return (text, finish_reason); some answers copy, leak, announce, refuse, are truncated or use the wrong language."""
    roll = digest(prompt)
    if prompt.startswith(("Please increase", "Please draw")):
        question = next(part for part in prompt.split("\n\n") if part.startswith("Q:"))
        harder = f"{question} Mind case {roll.hex()[:8]}."
        odd = {
            0: question,
            1: f"#Rewritten Test# {harder}",
            2: f"Sure! Here it is:\n{harder}",
            3: "I'm sorry, I can't help.",
            4: " ",
        }
        return odd.get(roll[0] % 24, f"  {harder}\n"), "length" if roll[0] % 24 == 5 else "stop"
    if prompt.startswith("Here are two Instructions"):
        return ("Equal" if roll[0] % 7 == 0 else "Not Equal"), "stop"
    language = "Rust" if roll[1] % 2 else "python"
    odd = {0: "Sorry, that is too hard.", 1: "It is ... .", 2: "No code needed here."}
    return odd.get(roll[0] % 16, f"```{language}\nf('{roll.hex()}')\n```"), "length" if roll[0] % 16 == 3 else "stop"


def eight_bytes(*names):
    return int.from_bytes(digest("/".join(map(str, names)))[:8], "big")


def unit(*names):
    return (eight_bytes(*names) >> 11) / 2**53


def method_of(record_id, round_):
    if unit(SEED, record_id, round_, "breadth") < BREADTH_RATE:
        return 6
    purpose = "method"
    while True:
        drawn = eight_bytes(SEED, record_id, round_, purpose) % 5
        if unit(SEED, record_id, round_, purpose, "taken") * max(WEIGHTS) < WEIGHTS[drawn]:
            return drawn + 1
        purpose += "+"


def evolution_prompt(parent, method, language):
    task, line = parent["task"], LANGUAGE_LINES[parent["task"]].format(NAMES.get(language)) + "\n\n" if language else ""
    if method == 6:
        return (
            f"Please draw inspiration from the given {SUBJECTS[task]} to create a brand new one.{KEPT[task]}\n\n"
            "This new question should belong to the same domain as the given one but be even more rare.\n"
            "The LENGTH and complexity of the new question should be similar to that of the given one.\n"
            "The new question must be reasonable and must be understood and responded by humans.\n\n"
            f"{line}{parent['instruction']}"
        )
    return (
        f"Please increase the difficulty of the given {SUBJECTS[task]} a bit.{KEPT[task]}\n\n"
        "You can increase the difficulty using, but not limited to, the following methods:\n"
        f"{METHODS[task][method - 1]}\n\n{line}{parent['instruction']}"
    )


def evolved(parent, round_):
    """Return (the compared fields of the record, the rule that it fails or None)."""
    task, method = parent["task"], method_of(parent["id"], round_)
    drawn = LANGUAGES[eight_bytes(SEED, parent["seed_id"], "language") % 2]
    language = drawn if task == "generate" else parent["language"]
    raw, finish = teacher(evolution_prompt(parent, method, language))
    instruction, output, calls = raw.strip(), "", 1
    failures = {
        "empty": not instruction,
        "truncated": finish == "length",
        "refused": instruction.startswith("I'm sorry"),
        "identical_to_parent": instruction == parent["instruction"],
        "leaked_template": "#Rewritten Test#" in instruction,
        "announced": instruction.startswith("Sure!"),
    }
    rule = next((rule for rule, failed in failures.items() if failed), None)
    if rule is None:
        output, finish = teacher(f"{instruction}\n\n{GUIDANCE}" if task == "translate" else instruction)
        calls = 2
        failures = {
            "truncated": finish == "length",
            "sorry": output.startswith("Sorry"),
            "only_punctuation_or_stop_words": output == "It is ... .",
            "no_code": task == "translate" and "```" not in output,
            "wrong_language": "```" in output and language is not None and not output.lower().startswith(f"```{language}\n"),
        }
        rule = next((rule for rule, failed in failures.items() if failed), None)
    if rule is None:
        calls = 3
        rule = "no_information_gain" if teacher(EQUALITY.format(parent["instruction"], instruction))[0] == "Equal" else None
    content = f"{parent['id']}\0{round_}\0{instruction}\0{output}"
    record = {
        **{
            "id": "evol-" + digest(content).hex()[:16],
            "parent_id": parent["id"],
            "seed_id": parent["seed_id"],
            "round": round_,
        },
        **{"method": method, "instruction": instruction, "output": output, "task": task, "language": language},
        "num_calls": calls,
    }
    return record, rule


def seed_record(entry):
    task, language = entry.get("task", "generate"), entry.get("target_language")
    said = (f"\0{task}" if task != "generate" else "") + (f"\0language={language}" if language else "")
    id_ = "seed-" + digest(f"{entry['instruction']}\0{entry['output']}{said}").hex()[:16]
    fields = {"id": id_, "parent_id": None, "seed_id": id_, "round": 0, "method": None, "task": task, "language": language}
    return {**fields, "instruction": entry["instruction"], "output": entry["output"], "num_calls": 0}


def expected(entries):
    kept = [seed_record(entry) for entry in entries]
    rejected, pool = [], list(kept)
    for round_ in range(1, ROUNDS + 1):
        for i, parent in enumerate(pool):
            record, rule = evolved(parent, round_)
            if rule is None:
                kept.append(record)
                pool[i] = record
            else:
                rejected.append({**record, "rule": rule})
    return kept, rejected


ENTRIES = [
    *({"instruction": f"Q: write function number {i}.", "output": f"f{i}"} for i in range(60)),
    *({"instruction": f"Q: port f({i}) to Java.", "output": "x", "task": "translate"} for i in range(30)),
    *({"instruction": f"Q: port g({i}).", "output": "x", "task": "translate", "target_language": "rust"} for i in range(30)),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the output folders of the same run with 1 and with 64 calls in flight."""
    folder = tmp_path_factory.mktemp("method")
    (folder / "seeds.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    with pytest.MonkeyPatch.context() as patch, LoopbackTeacher() as server:
        patch.setattr(loopback_teacher, "answer", teacher)
        patch.setenv("OPENAI_API_KEY", "sk-none")
        for concurrency in (1, 64):
            flags = {
                **{"--seeds": folder / "seeds.jsonl", "--output-dir": folder / str(concurrency), "--rounds": ROUNDS},
                **{"--seed": SEED, "--breadth-rate": BREADTH_RATE, "--teacher.base-url": server.base_url},
                "--teacher.concurrency": concurrency,
            }
            lists = ["--languages", *LANGUAGES, "--method-weights", *map(str, WEIGHTS)]
            evolve.main([*(str(part) for item in flags.items() for part in item), *lists])
    return folder / "1", folder / "64"


def read(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def compared_fields(entry):
    names = ["id", "parent_id", "seed_id", "round", "method", "instruction", "output", "task", "language", "rule"]
    return {name: entry[name] for name in names if name in entry} | {"num_calls": len(entry["call_ids"])}


def test_every_record_and_every_rejection_matches_the_independent_implementation(runs):
    kept, rejected = expected(ENTRIES)
    assert [compared_fields(entry) for entry in read(runs[0] / "evolved.jsonl")] == kept
    assert [compared_fields(entry) for entry in read(runs[0] / "rejected.jsonl")] == rejected


def test_the_run_covers_every_rule_method_task_and_language(runs):
    """Check that the comparison with the independent implementation leaves nothing out."""
    kept, rejected = expected(ENTRIES)
    assert {entry["rule"] for entry in rejected} == {
        *("empty", "truncated", "refused", "identical_to_parent", "leaked_template", "announced", "sorry", "no_code"),
        *("only_punctuation_or_stop_words", "wrong_language", "no_information_gain"),
    }
    last = [entry for entry in kept if entry["round"] == ROUNDS]
    assert {entry["method"] for entry in last} == {1, 2, 3, 4, 5, 6}
    assert {(entry["task"], entry["language"]) for entry in last} == {
        *(("generate", "python"), ("generate", "rust"), ("translate", None), ("translate", "rust")),
    }


def test_concurrency_does_not_change_any_byte(runs):
    one, many = runs
    names = [path.relative_to(one) for path in one.rglob("*") if path.is_file() and path.suffix in (".jsonl", ".md", ".json")]
    different = [name for name in names if (one / name).read_bytes() != (many / name).read_bytes()]
    assert len(names) >= 8 and [str(name) for name in different] == ["config.json"]  # which has the concurrency
