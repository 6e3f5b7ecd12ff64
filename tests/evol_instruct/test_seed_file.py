import json

import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct.seed_file import SeedFile, read_seeds

pytestmark = pytest.mark.quick


def written(tmp_path, *lines):
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_an_input_is_joined_to_the_instruction(tmp_path):
    path = written(tmp_path, {"instruction": "Sort", "input": "3 1", "output": "1 3"}, {"instruction": "A", "output": "b"})
    (first, second), repeats = read_seeds(path)
    assert (first.instruction, second.instruction, repeats) == ("Sort\n3 1", "A", 0)


def test_the_id_of_a_seed_is_a_hash_of_its_content(tmp_path):
    (seed,), _ = read_seeds(written(tmp_path, {"instruction": "Add 1 to x.", "input": "", "output": "x + 1"}))
    # printf 'Add 1 to x.\0x + 1' | sha256sum | cut -c1-16
    assert seed.id == "seed-1594e8e05ff8e5ce"
    assert (seed.seed_id, seed.parent_id, seed.method, seed.round) == (seed.id, None, None, 0)


def test_duplicate_seeds_are_skipped_and_counted(tmp_path):
    a, b = {"instruction": "A", "output": "1"}, {"instruction": "A", "output": "2"}
    seeds, repeats = read_seeds(written(tmp_path, a, b, {**a, "input": ""}, a))
    assert [seed.output for seed in seeds] == ["1", "2"]
    assert repeats == 2


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"prompt": "A", "output": "1"}, "instruction"),
        ({"instruction": "A"}, "output"),
        ({"instruction": "A", "output": 7}, "output"),
        ({"instruction": ["A"], "output": "x"}, "instruction"),
        ({"instruction": "A", "input": {}, "output": "x"}, "input"),
        ({"instruction": " ", "output": "x"}, "instruction"),
        ({"instruction": "\ud800", "output": "x"}, "surrogate"),
        ('{"instruction": "A", ', "malformed"),
        ("[1]\n", "seeds.jsonl"),
        ({"instruction": "A", "output": "x", "task": "explan"}, "explan.*one of generate, explain, summarise"),
        ({"instruction": "A", "output": "x", "task": ["explain"]}, '"task" is list'),
        ({"instruction": "A", "output": "x", "language": "en"}, '"language" is .en.*python, javascript'),
        ({"instruction": "A", "output": "x", "task": "translate", "target_language": 3}, '"target_language" is int'),
    ],
)
def test_the_error_for_an_invalid_seed_names_file_line_and_field(tmp_path, bad, named):
    path = written(tmp_path, {"instruction": "fine", "output": "fine"}, bad)
    with pytest.raises(InputError, match=named) as caught:
        read_seeds(path)
    assert "seeds.jsonl:2" in str(caught.value)


def test_a_file_without_seeds_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no seeds"):
        read_seeds(written(tmp_path))


def test_a_seed_may_specify_task_and_languages_by_any_alias(tmp_path):
    entries = [
        {"instruction": "A", "output": "1"},
        {"instruction": "A", "output": "1", "task": "explain", "language": "C++"},
        {"instruction": "A", "output": "1", "task": "translate", "language": "py", "target_language": "JS"},
        {"instruction": "A", "output": "1", "task": "translate", "language": "py"},
        {"instruction": "A", "output": "1", "task": None, "language": None},
        {"instruction": "A", "output": "1", "task": "", "language": ""},
    ]
    seeds, repeats = read_seeds(written(tmp_path, *entries))
    assert [(seed.task, seed.language) for seed in seeds] == [
        ("generate", None),
        ("explain", "cpp"),
        ("translate", "javascript"),
        ("translate", None),
    ]
    assert repeats == 2 and len({seed.id for seed in seeds}) == 4
    assert (seeds[2].to_json()["task"], seeds[2].to_json()["language"], seeds[2].to_json()["call_ids"]) == (
        *("translate", "javascript"),
        [],
    )


def test_a_seed_file_can_be_read_repeatedly_with_the_same_count_of_duplicates(tmp_path):
    seeds = SeedFile(written(tmp_path, *[{"instruction": "A", "output": "1"}] * 3))
    assert list(seeds) == list(seeds)
    assert seeds.num_repeats == 2
