"""The lineage page: every record is in its tree, and the page stays small."""

import base64
import json
import re
import zlib
from pathlib import Path

import pytest

from tests.helpers.evolved_files import record, rejected, write_run
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.report import main
from wizardcoder_jax.reports.lineage import lineage_trees, write_lineage_page
from wizardcoder_jax.reports.lineage.evolve_run import MAX_CHARS, EvolveRun
from wizardcoder_jax.reports.lineage.lineage_counts import count_entries, length_bin

pytestmark = pytest.mark.quick


def data_of(page):
    """Return the index and the parts in the page, by element id."""
    return dict(
        re.findall(r'<script type="(?:text/plain|application/json)" id="(index|part-\d+)">(.*?)</script>', page, re.DOTALL)
    )


def unpack(text):
    return json.loads(text if text.startswith("[") else zlib.decompress(base64.b64decode(text)))


def index_and_trees(page):
    """Return the page's index and all its trees."""
    found = {name: unpack(text) for name, text in data_of(page).items()}
    index = found.pop("index")
    return index, [tree for part in found.values() for tree in part]


def write_and_read(folder):
    return Path(write_lineage_page(folder)).read_text()


def family(number):
    """Return (kept, rejected): a seed with two evolutions, and a failed one."""
    seed = record(f"seed-{number}", instruction=f"Task {number}.")
    failed = rejected(f"bad-{number}", seed, "sorry")
    first = record(f"a-{number}", seed, round_=2, method=3, instruction=f"Task {number}, harder.")
    second = record(f"b-{number}", first, round_=3, method=5, instruction=f"Task {number}, much harder.")
    return [seed, first, second], [failed]


def run_of(folder, number, **more):
    families = [family(i) for i in range(number)]
    kept = [members[i] for i in range(3) for members, _ in families]
    return write_run(folder, kept, [line for _, dropped in families for line in dropped], **more)


def test_every_record_is_listed_below_its_parent(tmp_path):
    _, found = index_and_trees(write_and_read(run_of(tmp_path, 5)))
    assert [tree[0]["id"] for tree in found] == [f"seed-{i}" for i in range(5)]
    for i, tree in enumerate(found):
        assert [(node["id"], node.get("parent"), node["depth"]) for node in tree] == [
            (f"seed-{i}", None, 0),
            (f"bad-{i}", 0, 1),
            (f"a-{i}", 0, 1),
            (f"b-{i}", 2, 2),
        ]


def test_the_same_files_give_the_same_page(tmp_path):
    pages = [write_and_read(run_of(tmp_path / name, 9)) for name in "ab"]
    assert pages[0] == pages[1]


def test_the_page_of_a_large_run_shows_evenly_spaced_trees_and_counts_all(tmp_path, monkeypatch):
    folder = run_of(tmp_path, 100)
    chars = count_entries(EvolveRun(str(folder)).entries()).num_chars
    monkeypatch.setattr(lineage_trees, "MAX_TEXT_CHARS", chars // 10)
    page = write_and_read(folder)
    index, found = index_and_trees(page)
    assert [tree[0]["id"] for tree in found] == [f"seed-{10 * i}" for i in range(10)] and len(index) == 10
    assert "it shows 10 of the 100 trees" in page
    assert "100 seeds and 200 records evolved" in page and "\u2212100 " in page


def test_a_page_of_texts_that_compress_badly_shows_fewer_trees(tmp_path, monkeypatch):
    folder = run_of(tmp_path, 200)
    whole = write_and_read(folder)
    limit = sum(map(len, data_of(whole).values())) // 2
    monkeypatch.setattr("wizardcoder_jax.reports.lineage.lineage_page.MAX_PACKED_BYTES", limit)
    page = write_and_read(folder)
    assert sum(map(len, data_of(page).values())) <= limit
    assert 20 < len(index_and_trees(page)[1]) < 200


def test_parts_are_small_and_the_index_names_the_part_of_each_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(lineage_trees, "PART_CHARS", 200)
    page = write_and_read(run_of(tmp_path, 20))
    index, _ = index_and_trees(page)
    sizes = [len(unpack(text)) for name, text in data_of(page).items() if name != "index"]
    assert len(sizes) > 3 and [entry[0] for entry in index] == [i for i, size in enumerate(sizes) for _ in range(size)]


def test_only_the_data_of_larger_runs_are_compressed(tmp_path, monkeypatch):
    folder = run_of(tmp_path, 30)
    plain = write_and_read(folder)
    assert '"id":"a-17"' in plain and "Task 17, harder." in plain
    monkeypatch.setattr(lineage_trees, "MAX_PLAIN_CHARS", 100)
    packed = write_and_read(folder)
    assert "Task 17, harder." not in packed and index_and_trees(packed) == index_and_trees(plain)


def test_malicious_requests_are_withheld_even_if_the_file_contains_them(tmp_path):
    seed = record("seed-0")
    dropped = rejected("bad", seed, "malicious_request", "Write a worm", instruction="Write a worm", output="worm()")
    page = write_and_read(write_run(tmp_path, [seed], [dropped]))
    (tree,) = index_and_trees(page)[1]
    assert (tree[1]["instruction"], tree[1]["output"]) == ("[withheld: malicious.jsonl]",) * 2
    assert "worm" not in json.dumps(tree) + page


def test_a_rejected_seed_has_its_own_tree(tmp_path):
    alone = {**record("seed-9"), "rule": "contaminated", "evidence": "B/1"}
    page = write_and_read(write_run(tmp_path, [record("seed-0")], [alone]))
    assert [[node["id"] for node in tree] for tree in index_and_trees(page)[1]] == [["seed-0"], ["seed-9"]]


def test_long_texts_are_cut_with_a_note(tmp_path):
    seed = record("seed-0", output="x" * 1_000_000)
    (tree,) = index_and_trees(write_and_read(write_run(tmp_path, [seed])))[1]
    assert tree[0]["output"] == "x" * MAX_CHARS + "\n[cut: 1,000,000 characters in all]"


def test_no_record_is_lost_to_cycles_and_unknown_parents(tmp_path):
    seed = record("seed-0")
    strange = [
        record("x", seed, round_=1, parent_id="y"),
        record("y", seed, round_=1, parent_id="x"),
        record("z", seed, round_=2, parent_id="z"),
        record("w", seed, round_=2, parent_id="nobody"),
        record("v", round_=2, seed_id="unknown"),
    ]
    found = index_and_trees(write_and_read(write_run(tmp_path, [seed, *strange])))[1]
    assert sorted(node["id"] for tree in found for node in tree) == ["seed-0", "v", "w", "x", "y", "z"]


def test_empty_runs_and_runs_without_evolutions_have_pages(tmp_path):
    assert "no round; 0 outcomes rejected" in write_and_read(write_run(tmp_path / "a", [record("seed-0")]))
    assert index_and_trees(write_and_read(write_run(tmp_path / "b", []))) == ([], [])


def test_rules_are_listed_in_the_order_in_which_evolve_checks_them(tmp_path):
    seed = record("seed-0")
    kept = record("a", seed, round_=1, filters=["zebra", "apple", "mango"])
    dropped = [rejected(f"bad-{rule}", seed, rule) for rule in ("apple", "last", "mango", "zebra")]
    assert count_entries(EvolveRun(str(write_run(tmp_path, [seed, kept], dropped))).entries()).rules == [
        "zebra",
        "apple",
        "mango",
        "last",
    ]


def test_every_length_is_in_the_bin_that_covers_it():
    for length in (2, 3, 16, 17, 100, 4096, 5000):
        bin_ = length_bin(length)
        assert 2 ** (bin_ / 2) <= length + 1e-6 and length < 2 ** ((bin_ + 1) / 2)
    assert length_bin(0) == length_bin(1) == 0


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": 5}', r'evolved.jsonl:2: "id" is int, expected a string'),
        ('{"id": "a", "seed_id": "s", "round": true}', r'evolved.jsonl:2: "round" is bool, expected an integer'),
        ('{"id": "a", "seed_id": "s", "round": 1}', r'evolved.jsonl:2: "instruction" is missing'),
        ("[]", r"evolved.jsonl:2"),
        ("{", r"evolved.jsonl:2: malformed JSON"),
    ],
)
def test_a_line_that_is_not_a_record_is_refused_with_file_and_line(tmp_path, line, complaint):
    folder = write_run(tmp_path, [record("seed-0")])
    with (folder / "evolved.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=complaint):
        write_lineage_page(folder)


def test_the_command_writes_the_page_to_the_given_path(tmp_path):
    folder = run_of(tmp_path / "run", 2)
    main(["--lineage", str(folder)])
    main(["--lineage", str(folder), "--output", str(tmp_path / "other.html")])
    assert (folder / "lineage.html").read_bytes() == (tmp_path / "other.html").read_bytes()
    with pytest.raises(InputError, match="has no evolved"):
        main(["--lineage", str(tmp_path)])
    with pytest.raises(InputError, match="--lineage DIR writes a separate page"):
        main(["--lineage", str(folder), "--results", "x.json"])
