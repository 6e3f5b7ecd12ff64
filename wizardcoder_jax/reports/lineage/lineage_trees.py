"""The trees of a run as the page stores them: an index of all shown trees, and their texts in parts.

Index and parts of a small run are plain JSON, which any tool can search; those of a larger run are compressed. A page contains
every tree as long as it stays small enough, and evenly spaced trees of larger runs (`choose_seeds`).
"""

import base64
import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wizardcoder_jax.reports.lineage.evolve_run import MAX_CHARS, LineageEntry, excerpt
from wizardcoder_jax.reports.lineage.lineage_counts import LineageCounts

MAX_TEXT_CHARS = 150_000_000  # of all texts on a page
MAX_PLAIN_CHARS = 3_000_000  # of all texts on a page that is not compressed
MAX_PACKED_BYTES = 44_000_000  # of index and parts, as the page stores them
PART_CHARS = 1_000_000  # a part is decompressed when one of its trees is shown or searched
TITLE_CHARS = 160
CALL_ID_CHARS = 12  # enough to find the row of the ledger


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeData:
    """The trees as text that the page's script reads.

    Attributes:
        num_trees: shown on the page.
        is_packed: whether index and parts are base64 of compressed JSON, rather than JSON.
        index: for each tree, its part, its title and the [round, method, rule] of its nodes.
        parts: each a list of trees; a tree is a list of nodes.
    """

    num_trees: int
    is_packed: bool
    index: str
    parts: Sequence[str]

    @property
    def num_bytes(self) -> int:
        """Size in the page."""
        return len(self.index) + sum(map(len, self.parts))


def max_trees(counts: LineageCounts) -> int:
    """Return how many trees a page may have, by the length of their texts."""
    total = len(counts.trees)
    return total if counts.num_chars <= MAX_TEXT_CHARS else max(1, total * MAX_TEXT_CHARS // counts.num_chars)


def choose_seeds(seed_ids: Sequence[str], number: int) -> set[str]:
    """Choose `number` of the seeds, evenly spaced."""
    total = len(seed_ids)
    return {seed_ids[i * total // number] for i in range(number)} if number < total else set(seed_ids)


def pack_trees(counts: LineageCounts, entries: Iterable[LineageEntry], number: int) -> TreeData:
    """Build the data of some trees.

    Args:
        counts: of all entries.
        entries: of all trees.
        number: of trees to include.
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
    """Cut the entry's texts to what is shown, so that long ones take no memory."""
    return dataclasses.replace(entry, instruction=_cut(entry.instruction), output=_cut(entry.output))


def _cut(text: str) -> str:
    return excerpt(text) + (f"\n[cut: {len(text):,} characters in all]" if len(text) > MAX_CHARS else "")


def _split_into_parts(trees: Iterable[list[LineageEntry]], rules: Sequence[str], index: list[Any]) -> Iterator[list[Any]]:
    """Yield lists of trees of about PART_CHARS each, and append an entry to `index` for each tree."""
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
    """Return (entry, position of its parent in the list, depth): parents before children, rejections before kept records."""
    ids = {entry.id for entry in tree}
    children: dict[str | None, list[LineageEntry]] = {}
    for entry in tree:
        parent_id = entry.parent_id if entry.parent_id in ids and entry.parent_id != entry.id else None
        children.setdefault(parent_id, []).append(entry)
    ordered: list[tuple[LineageEntry, int | None, int]] = []
    stack: list[tuple[LineageEntry, int | None, int]] = [(entry, None, 0) for entry in reversed(children.pop(None, []))]
    while stack or children:
        if not stack:  # a cycle, which only an edited file can have
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
    """Serialize to JSON without "<", so that no text in it can end the script element."""
    return _to_json(value).replace("<", "\\u003c")


def _to_packed_json(value: Any) -> str:
    return base64.b64encode(zlib.compress(_to_json(value).encode("utf-8", "replace"), 6)).decode("ascii")


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
