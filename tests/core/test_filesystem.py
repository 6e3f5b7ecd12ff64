import os

import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import atomic_write, ensure_dir, expand_paths, write_json, write_text
from wizardcoder_jax.core.record_files import write_jsonl

pytestmark = pytest.mark.quick


def test_globs_expand_in_order_without_duplicates(tmp_path):
    for name in ("b1.jsonl", "b0.jsonl", "[x].jsonl"):
        (tmp_path / name).touch()
    names = expand_paths([f"{tmp_path}/b1.jsonl", f"{tmp_path}/b*.jsonl", f"{tmp_path}/[x].jsonl"])
    assert [name.rsplit("/", 1)[1] for name in names] == ["b1.jsonl", "b0.jsonl", "[x].jsonl"]
    with pytest.raises(InputError, match=r"no file matches .*none\*"):
        expand_paths([f"{tmp_path}/b0.jsonl", f"{tmp_path}/none*"])


def test_json_and_text_are_utf8_and_json_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"a": "ä"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "a": "ä"\n}\n'.encode()
    write_text(tmp_path / "a.txt", "ä")
    assert (tmp_path / "a.txt").read_bytes() == "ä".encode()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_during_a_write_leaves_only_the_old_file(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_write(tmp_path / "a.txt") as file:
        file.write(b"half of the ne")
        raise error
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]

    def records():
        yield {"a": 1}
        raise error

    with pytest.raises(error):
        write_jsonl(tmp_path / "b.jsonl.gz", records())
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_error_for_an_unwritable_path_names_it(tmp_path):
    (tmp_path / "file").touch()
    for write_it in (lambda path: ensure_dir(path), lambda path: write_text(path / "a.txt", "")):
        with pytest.raises(InputError, match=r"cannot create the folder .*file/below: Not a directory; choose another"):
            write_it(tmp_path / "file/below")


def test_a_file_that_is_not_regular_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is not a regular file"), atomic_write(tmp_path / "pipe") as file:
        file.write(b"x")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1
