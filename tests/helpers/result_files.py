"""Writes results, samples and problem files in the formats of the evaluate and sample commands."""

import json


def write_problems(path, task_ids):
    """Write a problem file in the format of HumanEval."""
    record = {"entry_point": "f", "canonical_solution": "    return 1\n", "test": "def check(candidate):\n    pass\n"}
    path.write_text("".join(json.dumps({"task_id": t, "prompt": f"def f():  # {t}\n", **record}) + "\n" for t in task_ids))
    return path


def entry(passed, index=0, **more):
    return {"sample_index": index, "passed": passed, "reason": "passed" if passed else "assertion", "seconds": 0.1, **more}


def results(problems, **changes):
    """Return the content of a results file; `problems` maps a task id to its entries, or to whether each sample passed."""
    entries_by_task = {
        task_id: [each if isinstance(each, dict) else entry(each, i) for i, each in enumerate(entries)]
        for task_id, entries in problems.items()
    }
    rates = [sum(each["passed"] for each in entries) / len(entries) for entries in entries_by_task.values()]
    mean = sum(rates) / len(rates)
    return {
        "benchmark": "humaneval",
        "benchmark_version": "problems.jsonl sha256:0123456789ab",
        "protocol": "chat",
        "num_problems": len(entries_by_task),
        "num_samples": min(map(len, entries_by_task.values())),
        "pass_at_k": {"1": mean},
        "confidence_95": {"1": [max(0.0, mean - 0.1), min(1.0, mean + 0.1)]},
        "sandbox": {"tier": "bubblewrap", "forgeable_verdicts": 0},
        "environment": {"python": "3.11.7"},
        "samples_meta": {"model": "our-model", "temperature": 0.2, "seed": 0},
        "problems": entries_by_task,
        **changes,
    }


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def write_samples(path, texts):
    """Write a samples file; `texts` maps (task id, index) to (raw, completion)."""
    rows = [
        {"task_id": task_id, "sample_index": index, "completion": completion, "raw": raw}
        for (task_id, index), (raw, completion) in texts.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
