import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct import near_duplicates
from wizardcoder_jax.evol_instruct.near_duplicates import (
    NearDuplicateFilter,
    code_shingles,
    estimate_similarity,
    instruction_shingles,
    minhash_signature,
)
from wizardcoder_jax.evol_instruct.records import Record

WORDS = random.Random(0).sample([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"], 700)
CODE = """```python
def tally(rows, key):
    seen = {}
    for row in rows:
        if row[key] > 7:
            seen[row[key]] = seen.get(row[key], 0) + 1
    return sorted(seen.items())
```
"""


def record(number, instruction, output="yes", prefix="seed"):
    id_ = f"{prefix}-{number:016x}"
    return Record(
        id=id_, parent_id=None, seed_id=id_, round=0, method=None, instruction=instruction, output=output, teacher=None
    )


def jaccard(first, second):
    return len(np.intersect1d(first, second)) / len(np.union1d(first, second))


def perturbed(generator, words, rate):
    return [generator.choice(WORDS) if generator.random() < rate else word for word in words]


def many_instructions(num):
    """Return texts of 20 to 60 words, half of them modified copies of an earlier text."""
    generator, texts = random.Random(1), []
    while len(texts) < num:
        if texts and generator.random() < 0.5:
            texts.append(perturbed(generator, generator.choice(texts), generator.choice([0.005, 0.01, 0.02, 0.05, 0.2])))
        else:
            texts.append(generator.choices(WORDS, k=generator.randint(20, 60)))
    return [" ".join(words) for words in texts]


def test_signatures_estimate_the_jaccard_index():
    generator, errors = random.Random(2), []
    for _ in range(200):
        words = generator.choices(WORDS, k=80)
        pair = [instruction_shingles(" ".join(text)) for text in (words, perturbed(generator, words, generator.random() / 4))]
        errors.append(estimate_similarity(*map(minhash_signature, pair)) - jaccard(*pair))
    assert abs(np.mean(errors)) < 0.01 and np.std(errors) < 0.07


def test_the_filter_drops_the_same_records_as_brute_force():
    threshold = 0.8
    texts = many_instructions(2000)
    sets = [instruction_shingles(text) for text in texts]
    owners, kept, near = {}, NearDuplicateFilter(threshold), {"surely": [], "never": []}
    for i, text in enumerate(texts):
        alike = {other for gram in sets[i].tolist() for other in owners.get(gram, ())}
        best = max((jaccard(sets[i], sets[other]) for other in alike), default=0.0)
        dropped = kept.check(record(i, text)) is not None
        if best >= threshold + 0.1:
            near["surely"].append(dropped)
        elif best < threshold - 0.15:
            near["never"].append(dropped)
        if not dropped:
            for gram in sets[i].tolist():
                owners.setdefault(gram, []).append(i)
    assert len(near["surely"]) > 200 and np.mean(near["surely"]) >= 0.99
    assert len(near["never"]) > 1000 and np.mean(near["never"]) <= 0.002


def test_evidence_has_the_earlier_record_and_the_similarity():
    filter_ = NearDuplicateFilter(0.9)
    words = WORDS[:60]
    assert filter_.check(record(10**18, " ".join(words), prefix="evol")) is None
    assert filter_.check(record(2, "A quite different question about rows.", CODE)) is None
    found = filter_.check(record(3, " ".join(words).upper() + "!"))
    assert found == f"instruction 1.00 like that of evol-{10**18:016x}"
    renamed = CODE.replace("seen", "counts").replace("row", "line").replace("    ", "\t")
    assert filter_.check(record(4, "How often is each value above seven?", renamed)) == f"code 1.00 like that of seed-{2:016x}"
    assert (
        filter_.check(record(5, "How often is each value above nine?", CODE.replace("> 7", "< min(9, 3) + len(rows)"))) is None
    )


def test_a_dropped_record_is_not_stored_and_unusual_ids_are_reported_unchanged():
    filter_ = NearDuplicateFilter(0.9)
    odd = Record(**{**record(1, " ".join(WORDS[:50])).__dict__, "id": "seed-of my own"})
    assert filter_.check(odd) is None
    assert filter_.check(record(2, " ".join(WORDS[:50]), CODE)).endswith("like that of seed-of my own")
    assert filter_.check(record(3, " ".join(WORDS[100:150]), CODE)) is None


@pytest.mark.parametrize("text", ["", "?", "Hi", "two words"])
def test_texts_shorter_than_an_ngram_are_compared_too(text):
    filter_ = NearDuplicateFilter(0.9)
    assert filter_.check(record(1, text, "")) is None
    assert (filter_.check(record(2, text, "")) is None) == (text in ("", "?"))


def test_short_answers_and_prose_have_no_code_to_compare():
    assert len(code_shingles("```python\nprint('Hello')\n```")) == 0
    assert len(code_shingles("The answer is that a list is sorted in place, and that nothing is returned. " * 5)) == 0
    assert len(code_shingles(CODE)) > 0


def test_few_ordinary_evolutions_are_dropped_and_all_duplicates():
    evolved = [entry for _, entry in read_records(shared("evol/evol_round1_of_2k.json"))][:600]
    seeds = [entry for _, entry in read_records(shared("codealpaca/code_alpaca_2k.json"))]
    filter_ = NearDuplicateFilter(0.9)
    for i, entry in enumerate(seeds):
        filter_.check(record(i, "\n".join(filter(None, (entry["instruction"], entry["input"]))), entry["output"]))
    dropped = [
        filter_.check(record(10_000 + i, entry["instruction"], entry["output"])) is not None for i, entry in enumerate(evolved)
    ]
    assert 0 < sum(dropped) <= 0.03 * len(evolved)
    passed = [entry for entry, was_dropped in zip(evolved, dropped, strict=True) if not was_dropped]
    assert all(filter_.check(record(20_000 + i, entry["instruction"].upper() + "\n", "")) for i, entry in enumerate(passed))


def test_memory_is_a_few_hundred_bytes_per_record(monkeypatch):
    num = 1 << 11
    monkeypatch.setattr(near_duplicates, "ROWS_PER_CHUNK", num)
    generator, filter_ = random.Random(3), NearDuplicateFilter(0.9)
    texts = [" ".join(generator.sample(WORDS, 12)) for _ in range(num)]
    NearDuplicateFilter(0.9).check(record(num, "Fill all caches before memory is measured."))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i, text in enumerate(texts):
        assert filter_.check(record(i, text)) is None
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown / num <= 150  # for the instructions; code would need as much again


def test_verdicts_are_the_same_in_every_process():
    code = (
        "import random\nfrom tests.evol_instruct.test_near_duplicates import NearDuplicateFilter, many_instructions, record\n"
        "kept = NearDuplicateFilter(0.7)\n"
        "print([kept.check(record(i, text)) for i, text in enumerate(many_instructions(300))])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and "like that of" in outputs.pop()
