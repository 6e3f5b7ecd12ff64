"""The trees of a run as the page holds them: an index of all that are shown, and their texts in parts.

A small run stands there as JSON that any tool can search; the parts of a larger one are compressed.

A page holds every tree as long as it stays small enough; of larger runs, evenly spaced ones (`choose`).
"""

import base64
import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wizardcoder_jax.reports.lineage.evolve_run import MAX_CHARS, LineageEntry, shown
from wizardcoder_jax.reports.lineage.lineage_counts import LineageCounts

MAX_TEXT_CHARS = 150_000_000  # of all texts on a page
MAX_PLAIN_CHARS = 3_000_000  # of all texts on a page, to be uncompressed
MAX_PACKED_BYTES = 44_000_000  # of all parts, as they stand in the page
PART_CHARS = 1_000_000  # a part is decompressed when one of its trees is asked for, and in searching
TITLE_CHARS = 160
CALL_ID_CHARS = 12  # enough to find the row of the ledger


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forest:
    """What the page holds of the trees.

    Attributes:
        num_trees: shown on the page.
        is_packed: whether index and parts are base64 of compressed JSON, and not JSON.
        index: for each tree its part, title and nodes' [round, method, rule].
        parts: each a list of trees, a tree a list of nodes.
    """

    num_trees: int
    is_packed: bool
    index: str
    parts: Sequence[str]

    @property
    def num_bytes(self) -> int:
        """Their size in the page."""
        return len(self.index) + sum(map(len, self.parts))


def choose(seed_ids: Sequence[str], number: int) -> set[str]:
    """`number` of the seeds, evenly spaced."""
    total = len(seed_ids)
    return {seed_ids[i * total // number] for i in range(number)} if number < total else set(seed_ids)


def plant(counts: LineageCounts, entries: Iterable[LineageEntry], number: int) -> Forest:
    """The trees of `number` seeds.

    Args:
        counts: of all entries.
        entries: of all trees.
        number: of trees to hold.
    """
    chosen = choose(list(counts.trees), number)
    trees: dict[str, list[LineageEntry]] = {seed_id: [] for seed_id in sorted(chosen, key=counts.trees.__getitem__)}
    for entry in entries:
        if entry.seed_id in chosen:
            trees[entry.seed_id].append(_cut(entry))
    index: list[Any] = []
    is_packed = counts.num_chars > MAX_PLAIN_CHARS
    write = _packed if is_packed else _plain
    parts = [write(part) for part in _parts(trees.values(), counts.rules, index)]
    return Forest(num_trees=len(trees), is_packed=is_packed, index=write(index), parts=parts)


def fitting(counts: LineageCounts) -> int:
    """How many trees a page may hold by the length of their texts."""
    total = len(counts.trees)
    return total if counts.num_chars <= MAX_TEXT_CHARS else max(1, total * MAX_TEXT_CHARS // counts.num_chars)


def _cut(entry: LineageEntry) -> LineageEntry:
    """The entry with no more of its texts than is shown, so that a long one takes no memory."""
    return dataclasses.replace(entry, instruction=_marked(entry.instruction), output=_marked(entry.output))


def _marked(text: str) -> str:
    return shown(text) + (f"\n[cut: {len(text):,} characters in all]" if len(text) > MAX_CHARS else "")


def _parts(trees: Iterable[list[LineageEntry]], rules: Sequence[str], index: list[Any]) -> Iterator[list[Any]]:
    """Lists of trees of about PART_CHARS each; a line is added to `index` for each tree."""
    number = {rule: i for i, rule in enumerate(rules)}
    part: list[Any] = []
    num_parts = num_chars = 0
    for tree in trees:
        nodes = [_node(entry, parent, depth, number) for entry, parent, depth in _in_order(tree)]
        title = " ".join(nodes[0]["instruction"][: 2 * TITLE_CHARS].split())[:TITLE_CHARS]
        steps = [[node["round"], node.get("method", 0), node.get("rule", -1)] for node in nodes]
        index.append([num_parts, title, steps])
        part.append(nodes)
        num_chars += sum(len(node["instruction"]) + len(node["output"]) for node in nodes)
        if num_chars >= PART_CHARS:
            yield part
            part, num_chars, num_parts = [], 0, num_parts + 1
    if part:
        yield part


def _in_order(tree: list[LineageEntry]) -> list[tuple[LineageEntry, int | None, int]]:
    """(entry, its parent's place in the list, its depth): each below its parent, what was rejected before what was kept."""
    own = {entry.id for entry in tree}
    children: dict[str | None, list[LineageEntry]] = {}
    for entry in tree:
        parent_id = entry.parent_id if entry.parent_id in own and entry.parent_id != entry.id else None
        children.setdefault(parent_id, []).append(entry)
    placed: list[tuple[LineageEntry, int | None, int]] = []
    waiting: list[tuple[LineageEntry, int | None, int]] = [(entry, None, 0) for entry in reversed(children.pop(None, []))]
    while waiting or children:
        if not waiting:  # a circle, which only a changed file has
            waiting = [(entry, None, 0) for entry in children.pop(next(iter(children)))]
        entry, parent, depth = waiting.pop()
        placed.append((entry, parent, depth))
        below = sorted(children.pop(entry.id, []), key=lambda child: (child.round, child.rule is None), reverse=True)
        waiting += [(child, len(placed) - 1, depth + 1) for child in below]
    return placed


def _node(entry: LineageEntry, parent: int | None, depth: int, rules: Mapping[str, int]) -> dict[str, Any]:
    node = {
        "id": shown(entry.id, 100),
        "parent": parent,
        "depth": depth,
        "round": entry.round,
        "method": entry.method,
        "instruction": entry.instruction,
        "output": entry.output,
        "teacher": None if entry.teacher is None else shown(entry.teacher, 200),
        "tokens": [entry.prompt_tokens, entry.completion_tokens],
        "filters": [shown(name, 100) for name in entry.filters],
        "calls": [shown(call_id, CALL_ID_CHARS) for call_id in entry.call_ids],
        "task": None if entry.task == "generate" else shown(entry.task, 100),
        "language": None if entry.language is None else shown(entry.language, 100),
        "rule": None if entry.rule is None else rules[entry.rule],
        "evidence": shown(entry.evidence, 2000) or None,
    }
    return {name: value for name, value in node.items() if value is not None}


def _plain(value: Any) -> str:
    """JSON that holds no tag, so that nothing in it ends the script element."""
    return _json(value).replace("<", "\\u003c")


def _packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(_json(value).encode("utf-8", "replace"), 6)).decode("ascii")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
