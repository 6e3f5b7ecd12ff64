import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.resume_log import ResumeLog

pytestmark = pytest.mark.quick


class InterruptionError(Exception):
    pass


def interrupt(output, fingerprint="a", resume=True, new=()):
    """Open a log, add records and stop before the end; return the records it had."""
    with pytest.raises(InterruptionError), ResumeLog(str(output), fingerprint, resume=resume) as log:
        before = list(log.records)
        for record in new:
            log.append(record)
        raise InterruptionError
    return before


def test_a_later_run_finds_the_records_of_unfinished_work(tmp_path):
    output = tmp_path / "new" / "out.json"
    interrupt(output, new=[{"i": 0}])
    assert interrupt(output, new=[{"i": 1}]) == [{"i": 0}]
    assert interrupt(output) == [{"i": 0}, {"i": 1}]


def test_a_truncated_line_loses_only_its_record(tmp_path):
    output = tmp_path / "out.json"
    interrupt(output, new=[{"i": 0}])
    with open(tmp_path / ".out.json.journal", "a") as file:
        file.write('{"i": ')
    assert interrupt(output, new=[{"i": 2}]) == [{"i": 0}]
    assert interrupt(output) == [{"i": 0}, {"i": 2}]


def test_other_work_and_overwriting_start_over(tmp_path):
    output = tmp_path / "out.json"
    interrupt(output, new=[{"i": 0}])
    assert interrupt(output, fingerprint="b", new=[{"i": 1}]) == []
    assert interrupt(output, fingerprint="b", resume=False) == []
    assert interrupt(output, fingerprint="b") == []


@pytest.mark.parametrize("content", ["", "\n", "[]\n", '{"i": 0}\n{"i": 1}\n', "\x00\x00"])
def test_a_file_that_is_not_a_log_of_this_work_is_discarded(tmp_path, content):
    (tmp_path / ".out.json.journal").write_text(content)
    assert interrupt(tmp_path / "out.json", new=[{"i": 0}]) == []
    assert interrupt(tmp_path / "out.json") == [{"i": 0}]


def test_work_that_fails_before_its_first_record_leaves_no_file(tmp_path):
    interrupt(tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_removed_at_the_end_and_kept_after_an_error(tmp_path):
    output = tmp_path / "out.json"
    with pytest.raises(RuntimeError), ResumeLog(str(output), "a", resume=True) as log:
        log.append({"i": 0})
        raise RuntimeError
    with ResumeLog(str(output), "a", resume=True) as log:
        assert log.records == [{"i": 0}]
    assert list(tmp_path.iterdir()) == []


def test_no_local_log_is_written_for_an_object_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ResumeLog("gs://bucket/out.json", "a", resume=True) as log:
        log.append({"i": 0})
        assert log.records == [{"i": 0}]
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_an_unwritable_path_names_it(tmp_path):
    (tmp_path / ".out.json.journal").mkdir()
    with pytest.raises(InputError, match=r"out\.json\.journal.*another output path"):
        ResumeLog(str(tmp_path / "out.json"), "a", resume=False)
