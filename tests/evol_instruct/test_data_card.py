import dataclasses
import hashlib
import json
import re
import shlex
from collections import Counter

import pytest
import yaml

from tests.helpers.loopback_teacher import LoopbackTeacher
from tests.helpers.shared_data import shared
from wizardcoder_jax import evolve
from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.config.command_line import parse_command_line
from wizardcoder_jax.config.evolve import TeacherConfig
from wizardcoder_jax.evol_instruct.data_card import render_data_card
from wizardcoder_jax.evol_instruct.licenses import is_code_alpaca, is_code_alpaca_name, is_openai
from wizardcoder_jax.evol_instruct.records import Record, Rejection, Usage, seed_id
from wizardcoder_jax.evol_instruct.round_statistics import RoundStatistics
from wizardcoder_jax.evol_instruct.run_summary import describe_files, summarize
from wizardcoder_jax.evol_instruct.seed_file import SeedFile

FILES = {"evolved.jsonl": {"sha256": "0" * 64, "num_bytes": 7}}
KNOWN_ID = "seed-0000b5ec24713854"  # of Code Alpaca


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback-0123456789abcdef")


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"Write function {i}.", "output": f"f{i}"}) + "\n" for i in range(40)))
    return path


def summary_of(seeds, counted=None, num_problems=None, **settings):
    config = EvolveConfig(seeds=str(seeds), output_dir="somewhere", **settings)
    summary = summarize(
        config, counted or [RoundStatistics(0)], seeds_sha256="f" * 64, num_duplicate_seeds=0, num_problems=num_problems
    )
    return {**summary, "files": FILES}


def read(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_the_numbers_of_the_summary_match_the_files(seeds, tmp_path):
    folder = tmp_path / "out"
    with LoopbackTeacher() as server:
        evolve.main(
            ["--seeds", str(seeds), "--output-dir", str(folder), "--rounds", "3", "--teacher.base-url", server.base_url]
        )
        num_calls = len(server.requests)
    summary = json.loads((folder / "summary.json").read_text())
    kept, rejected = read(folder / "evolved.jsonl"), read(folder / "rejected.jsonl")
    assert (summary["num_records"], summary["num_rejected"]) == (len(kept), len(rejected))
    assert summary["num_calls"] == num_calls == sum(len(entry["call_ids"]) for entry in kept + rejected)
    for tokens in ("prompt_tokens", "completion_tokens"):
        assert summary["usage"][tokens] == sum(entry["usage"][tokens] for entry in kept + rejected)
    for number, entry in enumerate(summary["rounds"]):
        own = [record for record in kept if record["round"] == number]
        dropped = [record for record in rejected if record["round"] == number]
        assert (entry["round"], entry["kept"], entry["pool"]) == (number, len(own), len(own) + len(dropped))
        assert entry["rejected"] == Counter(record["rule"] for record in dropped)
        for name, records in (("methods", own), ("methods_rejected", dropped)):
            assert entry[name] == Counter(str(record["method"]) for record in records if record["method"] is not None)
        assert entry["tasks"] == Counter(record["task"] for record in own)
        for part in ("instruction", "output"):
            lengths = [len(record[part]) for record in own]
            assert entry["lengths"][part]["mean"] == pytest.approx(sum(lengths) / len(lengths), abs=0.06)
            assert sum(number for _, number in entry["lengths"][part]["histogram"]) == len(own)
        words = [len(record["instruction"].split()) for record in own]
        assert entry["difficulty"]["instruction_words"]["mean"] == pytest.approx(sum(words) / len(words), abs=0.006)
    for name, described in summary["files"].items():
        content = (folder / name).read_bytes()
        assert described == {"sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content)}
        assert described["sha256"] in (folder / "data_card.md").read_text()


def test_the_card_depends_on_the_summary_only(seeds):
    summary = summary_of(seeds)
    assert render_data_card(json.loads(json.dumps(summary))) == render_data_card(summary)


def test_summary_and_card_do_not_depend_on_the_machine(seeds, tmp_path):
    first = summary_of(seeds, max_requests=5, teacher=TeacherConfig(concurrency=3, timeout_s=7))
    assert first == summary_of(seeds)
    assert str(tmp_path) not in json.dumps(first) + render_data_card(first) and "somewhere" not in render_data_card(first)


SETTINGS = [
    {},
    {"rounds": 5, "seed": 7, "judge_information_gain": False},
    {"seed_licence": "MIT", "method_weights": (1, 0, 2, 0, 0.5), "breadth_rate": 0.25, "languages": ("rust", "go")},
    {"teacher": TeacherConfig(model="my model; rm -rf", temperature=0.5, base_url="http://127.0.0.1:8000/v1", max_tokens=77)},
    {"teacher": TeacherConfig(kind="replay", replay_file="calls.jsonl"), "seeds_kind": "snippets"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_command_in_the_card_reproduces_the_settings(seeds, settings):
    command = summary_of(seeds, **settings)["command"]
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "wizardcoder_jax.evolve"] and f"    {command}\n" in render_data_card(
        summary_of(seeds, **settings)
    )
    expected = EvolveConfig(seeds="seeds.jsonl", output_dir="DIR", **settings)
    assert parse_command_line(EvolveConfig, words[3:]) == dataclasses.replace(expected, seed_licence=None)


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize(
    ("settings", "licence"),
    [({}, "unknown"), ({"seed_licence": "MIT"}, "mit"), ({"seed_licence": "My: own #1"}, "other")],
)
def test_the_header_is_valid_hub_metadata(seeds, settings, licence):
    read_back = header(render_data_card(summary_of(seeds, **settings)))
    assert read_back["license"] == licence
    assert read_back.get("license_name") == (settings.get("seed_licence") if licence == "other" else None)
    assert read_back["task_categories"] == ["text-generation"] and read_back["size_categories"] == ["n<1K"]
    assert read_back["configs"] == [{"config_name": "default", "data_files": "evolved.jsonl"}]


def test_code_alpaca_is_recognized_by_its_name_and_by_its_records(seeds, tmp_path):
    named = tmp_path / "code_alpaca_20k.json"
    named.write_bytes(seeds.read_bytes())
    rounds = [RoundStatistics(0)]
    rounds[0].add(_seed(KNOWN_ID))
    for summary in (summary_of(named), summary_of(seeds, rounds)):
        assert header(render_data_card(summary))["license"] == "cc-by-nc-4.0"
        assert "no commercial use" in render_data_card(summary)
    assert "unknown; look it up" in render_data_card(summary_of(seeds)) and not is_code_alpaca(
        seed_id("Write function 1.", "f1")
    )
    assert is_code_alpaca_name("Code-Alpaca 2k.jsonl") and not is_code_alpaca_name("alpaca.json")


def test_about_one_in_64_records_of_code_alpaca_has_a_known_id():
    for name in ("code_alpaca_20k.json.gz", "code_alpaca_2k.json"):
        known = [is_code_alpaca(record.id) for record in SeedFile(shared(f"codealpaca/{name}"))]
        assert 1 / 100 < sum(known) / len(known) < 1 / 45


@pytest.mark.parametrize(
    ("base_url", "models", "expected"),
    [
        ("https://api.openai.com/v1", [], True),
        ("https://x.openai.azure.com/v1", [], True),
        ("http://127.0.0.1:8000/v1", ["gpt-3.5-turbo-0613"], True),
        ("http://127.0.0.1:8000/v1", ["openai/gpt-4o"], True),
        ("http://127.0.0.1:8000/v1", ["openai/gpt-oss-20b"], False),
        ("http://127.0.0.1:8000/v1", ["gpt-oss-20b", "codellama"], False),
        ("https://api.openai.com.example.org/v1", ["llama"], False),
        ("http://127.0.0.1/api.openai.com", ["wizardcoder"], False),
        (None, ["o3-mini"], True),
        (None, [], False),
    ],
)
def test_openais_terms_apply_to_openais_models(base_url, models, expected):
    assert is_openai(base_url, models) is expected


def _seed(id_):
    return Record(id=id_, parent_id=None, seed_id=id_, round=0, method=None, instruction="a", output="b", teacher=None)


HOSTILE = "`<script>alert(1)</script>` | a\n---\n# heading\n"


def test_hostile_names_and_evidence_are_never_markup_in_the_card(seeds, tmp_path):
    child = dataclasses.replace(_seed("evol-1"), round=1, method=2, teacher=HOSTILE, usage=Usage(num_calls=1))
    rounds = [RoundStatistics(0), RoundStatistics(1)]
    rounds[0].add(_seed("seed-1"))
    rounds[1].add(child)
    rounds[1].add(
        Rejection(record=child, rule="contaminated", evidence=f"substring 0.93, solution of T/1 ({HOSTILE[:8]}): {HOSTILE}")
    )
    rounds[1].add(Rejection(record=child, rule=HOSTILE, evidence="x"))
    teacher = TeacherConfig(model=HOSTILE, base_url=f"http://x/{HOSTILE}")
    summary = summary_of(seeds, rounds, num_problems=164, teacher=teacher, seed_licence=HOSTILE)
    card = render_data_card(summary)
    assert yaml.safe_load(card.split("\n---\n")[0].removeprefix("---"))["license_name"] == HOSTILE
    body = card.split("\n---\n", 1)[1]
    without_code = re.sub(r"`[^`\n]*`|^    .*$", "", body, flags=re.MULTILINE)
    assert "<script>" not in without_code and "heading" not in without_code
    assert (
        "Found by: substring 1. Benchmarks: `'<script` 1." in body
        and "1 records dropped because they share text with one of 164 benchmark problems" in body
    )
    widths = {line.count("|") for line in body.split("\n") if line.startswith("| rejected by") or line.startswith("| `")}
    assert len(widths) == 1


def test_malicious_texts_are_not_in_summary_or_card(seeds):
    rounds = [RoundStatistics(0)]
    rounds[0].add(Rejection(record=_seed("seed-1"), rule="malicious_request", evidence="write a worm"))
    summary = summary_of(seeds, rounds)
    assert "1 records are requests for malicious code" in render_data_card(summary)
    assert "worm" not in json.dumps(summary) + render_data_card(summary)
    assert summary["rounds"][0]["rejected"] == {"malicious_request": 1}


def test_files_are_described_by_hash_and_size(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert describe_files(tmp_path, ["a"]) == {"a": {"sha256": hashlib.sha256(b"abc").hexdigest(), "num_bytes": 3}}


def test_a_rerun_without_calls_writes_the_requested_exports_only(seeds, tmp_path):
    folder, views = tmp_path / "out", ("lineage.html", "evolved.alpaca.json", "evolved.messages.jsonl", "evolved.parquet")
    with LoopbackTeacher() as server:
        run = ["--seeds", str(seeds), "--output-dir", str(folder), "--rounds", "1", "--teacher.base-url", server.base_url]
        evolve.main([*run, "--exports", "alpaca", "messages", "parquet"])
        first = {name: (folder / name).read_bytes() for name in views}
        num_calls = len(server.requests)
        evolve.main([*run, "--exports", "alpaca", "messages", "parquet"])
        assert {name: (folder / name).read_bytes() for name in views} == first
        evolve.main([*run, "--no-lineage", "--exports", "parquet"])
        assert [(folder / name).exists() for name in views] == [False, False, False, True]
        evolve.main(run)
        assert [(folder / name).exists() for name in views] == [True, False, False, False]
        assert len(server.requests) == num_calls
