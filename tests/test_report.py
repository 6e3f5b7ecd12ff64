"""The report command does not overwrite files other than HTML pages."""

import json

import pytest

from wizardcoder_jax import report
from wizardcoder_jax.core.errors import InputError


@pytest.fixture
def run_dir(tmp_path):
    """Output folder of an evolve run with a single seed."""
    record = {
        "id": "seed-1",
        "seed_id": "seed-1",
        "parent_id": None,
        "round": 0,
        "method": None,
        "instruction": "Add two numbers.",
        "input": "",
        "output": "1 + 2",
    }
    (tmp_path / "evolved.jsonl").write_text(json.dumps(record) + "\n")
    return tmp_path


def write_report(run_dir, output, *flags):
    report.main(["--lineage", str(run_dir), "--output", str(output), *flags])


def test_an_existing_page_is_replaced(run_dir):
    page = run_dir / "page.html"
    write_report(run_dir, page)
    first = page.read_text()
    write_report(run_dir, page)
    assert page.read_text() == first and first.startswith("<!doctype html>")


def test_another_file_is_only_replaced_with_overwrite(run_dir):
    results = run_dir / "results.json"
    results.write_text('{"pass_at_k": {}}')
    with pytest.raises(InputError, match=r"results\.json exists and is not an HTML page; choose another --output, or"):
        write_report(run_dir, results)
    assert results.read_text() == '{"pass_at_k": {}}'
    write_report(run_dir, results, "--overwrite")
    assert results.read_text().startswith("<!doctype html>")
