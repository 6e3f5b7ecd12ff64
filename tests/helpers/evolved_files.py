"""Writes output folders of the evolve command without running it."""

import json


def record(id_, parent=None, *, round_=0, method=None, instruction="Sort a list.", output="sorted(x)", **more):
    """Return a line of evolved.jsonl; `parent` is another record."""
    return {
        "id": id_,
        "parent_id": parent and parent["id"],
        "seed_id": parent["seed_id"] if parent else id_,
        "round": round_,
        "method": method,
        "instruction": instruction,
        "output": output,
        "teacher": "gpt-test" if round_ else None,
        "usage": {"prompt_tokens": 7 * round_, "completion_tokens": 11 * round_},
        "filters": ["empty", "sorry"] if round_ else [],
        "task": "generate",
        "language": None,
        "call_ids": [f"{id_}-call-{i}" for i in range(2)] if round_ else [],
        **more,
    }


def rejected(id_, parent, rule, evidence="because", **more):
    """Return a line of rejected.jsonl."""
    return {**record(id_, parent, round_=parent["round"] + 1, method=1, **more), "rule": rule, "evidence": evidence}


def write_run(folder, kept, dropped=(), summary=None):
    """Create `folder` with the files of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("evolved.jsonl", kept), ("rejected.jsonl", dropped)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
