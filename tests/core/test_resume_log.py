import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.resume_log import ResumeLog


class CutError(Exception):
    pass


def stopped(output, fingerprint="a", resume=True, more=()):
    """Opens a journal, adds records and stops before the end; returns the records it had."""
    with pytest.raises(CutError), ResumeLog(str(output), fingerprint, resume=resume) as journal:
        before = list(journal.records)
        for record in more:
            journal.append(record)
        raise CutError
    return before


def test_records_of_unfinished_work_are_there_next_time(tmp_path):
    output = tmp_path / "new" / "out.json"
    stopped(output, more=[{"i": 0}])
    assert stopped(output, more=[{"i": 1}]) == [{"i": 0}]
    assert stopped(output) == [{"i": 0}, {"i": 1}]


def test_a_line_cut_short_costs_that_record_alone(tmp_path):
    output = tmp_path / "out.json"
    stopped(output, more=[{"i": 0}])
    with open(tmp_path / ".out.json.journal", "a") as file:
        file.write('{"i": ')
    assert stopped(output, more=[{"i": 2}]) == [{"i": 0}]
    assert stopped(output) == [{"i": 0}, {"i": 2}]


def test_other_work_and_no_resume_start_anew(tmp_path):
    output = tmp_path / "out.json"
    stopped(output, more=[{"i": 0}])
    assert stopped(output, fingerprint="b", more=[{"i": 1}]) == []
    assert stopped(output, fingerprint="b", resume=False) == []
    assert stopped(output, fingerprint="b") == []


@pytest.mark.parametrize("content", ["", "\n", "[]\n", '{"i": 0}\n{"i": 1}\n', "\x00\x00"])
def test_a_file_that_is_no_journal_of_this_work_is_dropped(tmp_path, content):
    (tmp_path / ".out.json.journal").write_text(content)
    assert stopped(tmp_path / "out.json", more=[{"i": 0}]) == []
    assert stopped(tmp_path / "out.json") == [{"i": 0}]


def test_work_that_fails_before_its_first_record_leaves_nothing(tmp_path):
    stopped(tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_the_journal_goes_with_the_end_of_the_work_and_stays_after_an_error(tmp_path):
    output = tmp_path / "out.json"
    with pytest.raises(RuntimeError), ResumeLog(str(output), "a", resume=True) as journal:
        journal.append({"i": 0})
        raise RuntimeError
    with ResumeLog(str(output), "a", resume=True) as journal:
        assert journal.records == [{"i": 0}]
    assert list(tmp_path.iterdir()) == []


def test_beside_an_object_nothing_is_written_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ResumeLog("gs://bucket/out.json", "a", resume=True) as journal:
        journal.append({"i": 0})
        assert journal.records == [{"i": 0}]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / ".out.json.journal").mkdir()
    with pytest.raises(InputError, match=r"out\.json\.journal.*another output path"):
        ResumeLog(str(tmp_path / "out.json"), "a", resume=False)
