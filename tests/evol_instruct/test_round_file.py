import dataclasses

import pytest

from wizardcoder_jax.evol_instruct.records import Record, seed_id
from wizardcoder_jax.evol_instruct.round_file import RoundFile, RoundReader, iter_newest_records

pytestmark = pytest.mark.quick


def seed(number):
    id_ = seed_id(str(number), "")
    return Record(id=id_, parent_id=None, seed_id=id_, round=0, method=None, instruction=str(number), output="", teacher=None)


def evolved(parent, round_):
    return dataclasses.replace(parent, id=f"{parent.id}-{round_}", round=round_)


def test_a_record_can_be_read_as_soon_as_it_is_written_and_after_the_round_is_over(tmp_path):
    round_file = RoundFile(tmp_path / "round-00.jsonl")
    early, late = RoundReader(round_file), RoundReader(round_file)
    with round_file.open_for_writing():
        assert early.peek() is None
        for i in range(3):
            round_file.add(seed(i))
            assert early.peek() == seed(i) and early.pop() == seed(i)
            assert early.pop() is None
        assert not (tmp_path / "round-00.jsonl").exists()
        round_file.add(seed(3))
    assert early.pop() == seed(3)
    assert [late.pop() for _ in range(5)] == [*map(seed, range(4)), None]
    early.close()
    late.close()
    assert (tmp_path / "round-00.jsonl").read_text().count("\n") == 4


def test_the_newest_record_of_a_seed_is_known_once_the_round_before_has_its_outcome(tmp_path):
    rounds = [RoundFile(tmp_path / f"round-0{i}.jsonl") for i in range(3)]
    newest = iter_newest_records(rounds)
    with rounds[0].open_for_writing():
        assert next(newest) is None
        rounds[0].add(seed(0))
        rounds[0].add(None)  # rejected: it is in no pool
        rounds[0].add(seed(1))
        rounds[0].add(seed(2))
    with rounds[1].open_for_writing(), rounds[2].open_for_writing():
        for kept in (None, evolved(seed(1), 1), evolved(seed(2), 1)):
            rounds[1].add(kept)
        assert next(newest) is None  # round 2 has no outcome yet
        rounds[2].add(None)
        assert next(newest) == seed(0)
        assert next(newest) is None
        rounds[2].add(None)
        assert next(newest) == evolved(seed(1), 1)
        rounds[2].add(evolved(seed(2), 2))
        assert next(newest) == evolved(seed(2), 2)
    assert list(newest) == []
