"""Records: instructions with their responses and lineage. A record is a seed (round 0) or evolved from another record."""

import dataclasses
import hashlib
from typing import Any

from wizardcoder_jax.evol_instruct.code_tasks import GENERATE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts and cost of a record, summed over the calls to the teacher model that it needed."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    num_calls: int = 0
    usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            num_calls=self.num_calls + other.num_calls,
            usd=self.usd + other.usd,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """An instruction, its response and its lineage.

    Attributes:
        id: "seed-..." or "evol-..." with a hash of the content, so that equal content has the same id in every run.
        parent_id: id of the record that this record was evolved from; None for a seed.
        seed_id: id of the seed that this record descends from; for a seed, its own id.
        round: number of the round that created the record; 0 for a seed.
        method: number of the evolution method, 1 to 6; None for a seed.
        teacher: name of the model that wrote the record, as reported by the server; None for a seed.
        filters: names of the rules that the record passed.
        task: kind of coding task, one of TASK_NAMES; all descendants of a seed have the same task.
        language: programming language that the instruction asks for; None if it is not specified.
        call_ids: ledger keys of the record's calls to the teacher model, in the order of the calls.
    """

    id: str
    parent_id: str | None
    seed_id: str
    round: int
    method: int | None
    instruction: str
    output: str
    teacher: str | None
    usage: Usage = Usage()
    filters: tuple[str, ...] = ()
    task: str = GENERATE
    language: str | None = None
    call_ids: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as a line of evolved.jsonl."""
        return {
            "id": self.id,
            "parent_id": self.parent_id,
            "seed_id": self.seed_id,
            "round": self.round,
            "method": self.method,
            "instruction": self.instruction,
            "output": self.output,
            "teacher": self.teacher,
            "usage": {"prompt_tokens": self.usage.prompt_tokens, "completion_tokens": self.usage.completion_tokens},
            "filters": list(self.filters),
            "task": self.task,
            "language": self.language,
            "call_ids": list(self.call_ids),
        }

    @staticmethod
    def from_json(entry: dict[str, Any]) -> "Record":
        """Return the record in a line of evolved.jsonl. Its cost is 0 USD, because the line does not include the cost."""
        usage = Usage(**entry["usage"], num_calls=len(entry["call_ids"]))
        lists = {name: tuple(entry[name]) for name in ("filters", "call_ids")}
        return Record(**{**entry, "usage": usage, **lists})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """A rejected record, with the rule that it failed and the evidence."""

    record: Record
    rule: str
    evidence: str

    def to_json(self) -> dict[str, Any]:
        """Return the rejection as a line of rejected.jsonl."""
        return {**self.record.to_json(), "rule": self.rule, "evidence": self.evidence}


def seed_record(id_: str, instruction: str, output: str, *, task: str = GENERATE, language: str | None = None) -> Record:
    """Return a seed, i.e. a record of round 0 without a parent."""
    return Record(
        id=id_,
        parent_id=None,
        seed_id=id_,
        round=0,
        method=None,
        instruction=instruction,
        output=output,
        teacher=None,
        task=task,
        language=language,
    )


def seed_id(instruction: str, output: str, task: str = GENERATE, language: str | None = None) -> str:
    """Return the id of a seed: a hash of instruction (joined with any input), output, and task and language if specified."""
    optional = [*([task] if task != GENERATE else []), *([f"language={language}"] if language else [])]
    return "seed-" + hashlib.sha256("\0".join([instruction, output, *optional]).encode()).hexdigest()[:16]


def evolved_id(parent_id: str, round_: int, instruction: str, output: str) -> str:
    """Return the id of a record evolved from `parent_id` in round `round_`."""
    content = f"{parent_id}\0{round_}\0{instruction}\0{output}"
    return "evol-" + hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded as UTF-8, with question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
