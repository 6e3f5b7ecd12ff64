"""Data of the trees on the lineage page: an index of the trees, and their records, split into parts of about PART_CHARS.

The page's script reads a part only when one of its trees is needed. Index and parts of a small run are plain JSON, which any
tool can search; those of a larger run are compressed. If a run is too large for one page, the page contains an evenly spaced
selection of its trees (`choose_seeds`).
"""

import base64
import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wizardcoder_jax.reports.lineage.evolve_run import MAX_CHARS, LineageEntry, excerpt
from wizardcoder_jax.reports.lineage.lineage_counts import LineageCounts

MAX_TEXT_CHARS = 150_000_000  # maximum number of characters of all texts on a page
MAX_PLAIN_CHARS = 3_000_000  # maximum number of characters of all texts on a page without compression
MAX_PACKED_BYTES = 44_000_000  # maximum size of index and parts in the page, in bytes
PART_CHARS = 1_000_000  # approximate number of characters of the texts in one part
TITLE_CHARS = 160  # maximum length of a tree's title in characters
CALL_ID_CHARS = 12  # length of a shortened call id, long enough to find the call in the ledger


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeData:
    """Serialized trees, as the page's script reads them.

    Attributes:
        num_trees: number of trees on the page.
        is_packed: whether `index` and `parts` are compressed JSON in base64; otherwise they are plain JSON.
        index: a list with one entry per tree: number of its part, title, and [round, method, rule] of each node.
        parts: lists of trees; a tree is a list of nodes, one per record.
    """

    num_trees: int
    is_packed: bool
    index: str
    parts: Sequence[str]

    @property
    def num_bytes(self) -> int:
        """Size of index and parts in the page, in bytes."""
        return len(self.index) + sum(map(len, self.parts))


def max_trees(counts: LineageCounts) -> int:
    """Return the number of trees whose texts have at most MAX_TEXT_CHARS characters in total, at least 1."""
    total = len(counts.trees)
    return total if counts.num_chars <= MAX_TEXT_CHARS else max(1, total * MAX_TEXT_CHARS // counts.num_chars)


def choose_seeds(seed_ids: Sequence[str], number: int) -> set[str]:
    """Choose `number` seeds, evenly spaced in `seed_ids`."""
    total = len(seed_ids)
    return {seed_ids[i * total // number] for i in range(number)} if number < total else set(seed_ids)


def pack_trees(counts: LineageCounts, entries: Iterable[LineageEntry], number: int) -> TreeData:
    """Serialize an evenly spaced selection of the trees.

    Args:
        counts: counts of all entries.
        entries: entries of all trees.
        number: number of trees to include.
    """
    chosen = choose_seeds(list(counts.trees), number)
    trees: dict[str, list[LineageEntry]] = {seed_id: [] for seed_id in sorted(chosen, key=counts.trees.__getitem__)}
    for entry in entries:
        if entry.seed_id in chosen:
            trees[entry.seed_id].append(_cut_texts(entry))
    index: list[Any] = []
    is_packed = counts.num_chars > MAX_PLAIN_CHARS
    serialize = _to_packed_json if is_packed else _to_script_json
    parts = [serialize(part) for part in _split_into_parts(trees.values(), counts.rules, index)]
    return TreeData(num_trees=len(trees), is_packed=is_packed, index=serialize(index), parts=parts)


def _cut_texts(entry: LineageEntry) -> LineageEntry:
    """Cut instruction and output to the part that the page shows, to save memory."""
    return dataclasses.replace(entry, instruction=_cut(entry.instruction), output=_cut(entry.output))


def _cut(text: str) -> str:
    return excerpt(text) + (f"\n[cut: {len(text):,} characters in all]" if len(text) > MAX_CHARS else "")


def _split_into_parts(trees: Iterable[list[LineageEntry]], rules: Sequence[str], index: list[Any]) -> Iterator[list[Any]]:
    """Yield parts (lists of trees) of about PART_CHARS characters each, and append an entry to `index` for each tree."""
    rule_numbers = {rule: i for i, rule in enumerate(rules)}
    part: list[Any] = []
    num_parts = num_chars = 0
    for tree in trees:
        nodes = [_build_node(entry, parent, depth, rule_numbers) for entry, parent, depth in _order_tree(tree)]
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


def _order_tree(tree: list[LineageEntry]) -> list[tuple[LineageEntry, int | None, int]]:
    """Return (entry, index of its parent in the list, depth) of each entry.

    Parents come before their children, and rejected children of a round before kept ones.
    """
    ids = {entry.id for entry in tree}
    children: dict[str | None, list[LineageEntry]] = {}
    for entry in tree:
        parent_id = entry.parent_id if entry.parent_id in ids and entry.parent_id != entry.id else None
        children.setdefault(parent_id, []).append(entry)
    ordered: list[tuple[LineageEntry, int | None, int]] = []
    stack: list[tuple[LineageEntry, int | None, int]] = [(entry, None, 0) for entry in reversed(children.pop(None, []))]
    while stack or children:
        if not stack:  # a cycle of parents, which only an edited file can contain
            stack = [(entry, None, 0) for entry in children.pop(next(iter(children)))]
        entry, parent, depth = stack.pop()
        ordered.append((entry, parent, depth))
        below = sorted(children.pop(entry.id, []), key=lambda child: (child.round, child.rule is None), reverse=True)
        stack += [(child, len(ordered) - 1, depth + 1) for child in below]
    return ordered


def _build_node(entry: LineageEntry, parent: int | None, depth: int, rule_numbers: Mapping[str, int]) -> dict[str, Any]:
    node = {
        "id": excerpt(entry.id, 100),
        "parent": parent,
        "depth": depth,
        "round": entry.round,
        "method": entry.method,
        "instruction": entry.instruction,
        "output": entry.output,
        "teacher": None if entry.teacher is None else excerpt(entry.teacher, 200),
        "tokens": [entry.prompt_tokens, entry.completion_tokens],
        "filters": [excerpt(name, 100) for name in entry.filters],
        "calls": [excerpt(call_id, CALL_ID_CHARS) for call_id in entry.call_ids],
        "task": None if entry.task == "generate" else excerpt(entry.task, 100),
        "language": None if entry.language is None else excerpt(entry.language, 100),
        "rule": None if entry.rule is None else rule_numbers[entry.rule],
        "evidence": excerpt(entry.evidence, 2000) or None,
    }
    return {name: value for name, value in node.items() if value is not None}


def _to_script_json(value: Any) -> str:
    """Serialize to JSON without "<", so that no string can end the script element that contains the JSON."""
    return _to_json(value).replace("<", "\\u003c")


def _to_packed_json(value: Any) -> str:
    return base64.b64encode(zlib.compress(_to_json(value).encode("utf-8", "replace"), 6)).decode("ascii")


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
