import json
import os

import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct.code_snippets import MAX_LINES, SnippetFile

pytestmark = pytest.mark.quick

LONG = "".join(f"x{i} = {i}\n" for i in range(400))


def written(path, *entries):
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return str(path)


@pytest.fixture
def sources(tmp_path):
    """A folder of source files."""
    folder = tmp_path / "src"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name, content in [
        *[("a.py", LONG), ("deep/b.rs", "fn main() {}\n"), (".git/c.py", "hidden = 1\n"), ("notes.txt", "words\n")],
        *[("deep/copy.rs", "fn  main() {}"), ("deep/empty.py", ""), ("deep/rule.css", "----\n")],
    ]:
        (folder / name).write_text(content)
    return folder


def test_a_folder_has_one_snippet_per_source_file_with_its_language(sources):
    snippets = SnippetFile(str(sources), 0)
    first, second = snippets
    assert (first.language, second.language, second.code) == ("python", "rust", "fn main() {}")
    assert snippets.num_repeats == 3  # the copy, and two without a letter


def test_pipes_and_broken_or_circular_links_are_skipped(sources):
    before = list(SnippetFile(str(sources), 0))
    (sources / "nowhere.py").symlink_to("/no/such/file.py")
    (sources / "itself.py").symlink_to(sources / "itself.py")
    (sources / "deep" / "up").symlink_to(sources)
    os.mkfifo(sources / "pipe.py")
    assert list(SnippetFile(str(sources), 0)) == before


def test_snippets_are_1_to_15_consecutive_lines_that_depend_on_the_run_seed_only(sources, tmp_path):
    drawn = {seed: next(iter(SnippetFile(str(sources / "a.py"), seed))).code for seed in range(60)}
    lengths = {code.count("\n") + 1 for code in drawn.values()}
    assert all(f"\n{code}\n" in f"\n{LONG}" for code in drawn.values())
    assert min(lengths) < 4 and MAX_LINES - 2 < max(lengths) <= MAX_LINES
    assert len(set(drawn.values())) > 50
    elsewhere = tmp_path / "moved"
    os.rename(sources, elsewhere)
    assert [next(iter(SnippetFile(str(elsewhere / "a.py"), seed))).code for seed in range(60)] == list(drawn.values())


def test_reading_the_same_files_again_gives_the_same_snippets(sources):
    snippets = SnippetFile(str(sources), 0)
    first, digest, repeats = list(snippets), snippets.sha256(), snippets.num_repeats
    assert (list(snippets), snippets.sha256(), snippets.num_repeats) == (first, digest, repeats)
    assert SnippetFile(str(sources), 1).sha256() != digest


def test_a_glob_selects_files(sources):
    assert [snippet.language for snippet in SnippetFile(str(sources / "**" / "*.rs"), 0)] == ["rust"]


@pytest.mark.parametrize("field", ["snippet", "code", "content"])
def test_records_may_have_their_code_in_any_of_three_fields(tmp_path, field):
    path = written(tmp_path / "s.jsonl", {field: "x = 1", "language": "Py"}, {field: "y = 2", "language": "klingon"})
    assert [(s.code, s.language) for s in SnippetFile(path, 0)] == [("x = 1", "python"), ("y = 2", None)]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"instruction": "A", "output": "b"}, "no field"),
        ({"code": 3}, '"code" is int'),
        ({"code": "x = 1", "language": 3}, '"language" is int'),
        ({"code": "x = \ud800"}, "surrogate"),
    ],
)
def test_the_error_for_an_invalid_record_names_file_line_and_field(tmp_path, entry, named):
    path = written(tmp_path / "s.jsonl", {"code": "fine = 1"}, entry)
    with pytest.raises(InputError, match=named) as caught:
        list(SnippetFile(path, 0))
    assert "s.jsonl:2" in str(caught.value)


def test_the_error_names_a_path_without_code(tmp_path):
    with pytest.raises(InputError, match="no files match"):
        list(SnippetFile(str(tmp_path / "nothing"), 0))
    with pytest.raises(InputError, match="has no snippets"):
        list(SnippetFile(str(tmp_path), 0))
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    with pytest.raises(InputError, match=r"latin.py: not UTF-8 at byte 5"):
        list(SnippetFile(str(tmp_path), 0))
