"""evalplus' sanitizer: extracts the longest valid run of lines from an answer, then the definitions that its entry point needs.

Source: evalplus 0.3.1, evalplus/sanitize.py (Apache-2.0), which parses the valid lines with tree-sitter. These lines are valid
Python, so the standard library's `ast` finds the same definitions. The differences cannot change a verdict: a comment at the
end of a function may be dropped, and if not even the first line is valid, tree-sitter may still find an import in it.
"""

import ast
import bisect
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TypeGuard

MAX_CHARS = 200_000  # longer answers are returned unchanged
MAX_PARSED_CHARS = 50_000_000  # over all runs of lines tried; after that the longest run so far is used

_ALLOW_INCOMPLETE = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT: tells whether further lines could make a text valid
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def sanitize(text: str, entry_point: str | None) -> str:
    """Return the imports of the longest valid run of lines, and the definitions that `entry_point` reaches.

    Args:
        text: an answer, with or without prose and fences.
        entry_point: the tested function; None keeps every definition.

    Returns:
        A program. If no import or definition remains, the valid lines themselves (the first line if none are valid). An
        answer longer than MAX_CHARS is returned unchanged.
    """
    if len(text) > MAX_CHARS:
        return text
    code = longest_valid_lines(text)
    tree = _parse(code)
    kept = "" if tree is None else "\n".join(_reached(code, tree, entry_point)).strip()
    return kept or code


def longest_valid_lines(text: str) -> str:
    """Return the run of at least two lines that parses and has the most nonblank lines; the first one of several.

    If there is no such run, return the first line.
    """
    lines = text.split("\n")
    filled = [i for i, line in enumerate(lines) if line.strip()]
    most, best, left = 0, (0, 0), MAX_PARSED_CHARS
    for first in range(len(lines)):
        num_filled = len(filled) - bisect.bisect_left(filled, first)
        if num_filled <= most or left <= 0:
            break
        for last, num_parsed in _valid_ends(lines, first, filled[-1]):
            left -= num_parsed
            count = bisect.bisect_right(filled, last) - len(filled) + num_filled if last is not None else 0
            if last is not None and count > most:
                most, best = count, (first, last)
            if left <= 0:
                break
    return "\n".join(lines[best[0] : best[1] + 1])


def _valid_ends(lines: Sequence[str], first: int, end: int) -> Iterator[tuple[int | None, int]]:
    """Yield (last, characters parsed) for `last` > `first` while lines first..last are valid or could become valid.

    `last` is None if the lines are not valid. If all lines up to `end`, the last nonblank line, are valid, that is the only
    result.
    """
    whole = "\n".join(lines[first : end + 1])
    if end > first and _parse(whole) is not None:
        yield end, len(whole)
        return
    for last in range(first + 1, len(lines)):
        text = "\n".join(lines[first : last + 1])
        valid = _parse(text) is not None
        yield last if valid else None, 2 * len(text)
        if not valid and not _may_continue(text):
            return


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. about invalid escapes
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # ValueError: null bytes
        return None


def _may_continue(text: str) -> bool:
    """Whether further lines could make an invalid text valid."""
    if text.endswith("\\"):
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<answer>", "exec", ast.PyCF_ONLY_AST | _ALLOW_INCOMPLETE)
    except SyntaxError as error:
        return "incomplete input" in str(error)
    except (ValueError, MemoryError, RecursionError):
        return False
    return True


def _reached(code: str, tree: ast.Module, entry_point: str | None) -> Iterator[str]:
    """Yield the source of the imports, then that of each kept definition, both in order."""
    source = _Source(code)
    for node in tree.body:
        is_future = (
            isinstance(node, ast.ImportFrom) and node.module == "__future__"
        )  # tree-sitter has a separate node type for it
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_future:
            yield source.of(node)
    definitions: dict[str | None, Definition] = {}  # the first of each name
    for node in tree.body:
        if _is_definition(node):
            definitions.setdefault(_defined_name(node), node)
    wanted = None if entry_point is None else _reachable(entry_point, definitions)
    for name, node in definitions.items():
        if wanted is None or name in wanted:
            yield source.of(node)


def _is_definition(node: ast.stmt) -> TypeGuard[Definition]:
    """Whether a statement is a function with a return, a class or an assignment; decorated ones do not count."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return not node.decorator_list and any(isinstance(part, ast.Return) for part in ast.walk(node))
    if isinstance(node, ast.ClassDef):
        return not node.decorator_list
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _defined_name(node: Definition) -> str | None:
    """Return the name of a definition; for `a[0] = b` that is b, the first bare name in the statement."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    sides = [*targets[:1], *([node.value] if len(targets) == 1 else [])]
    return next((side.id for side in sides if isinstance(side, ast.Name)), None)


def _reachable(entry_point: str, definitions: dict[str | None, Definition]) -> set[str | None]:
    found: set[str | None] = {entry_point}
    waiting: list[str | None] = [entry_point]
    while waiting:
        node = definitions.get(waiting.pop())
        new = set() if node is None else _identifiers(node) - found
        found |= new
        waiting += new
    return found


def _identifiers(node: ast.AST) -> set[str]:
    """Return every name in a statement: of variables, attributes, parameters and keywords."""
    names: set[str] = set()
    for part in ast.walk(node):
        for value in (getattr(part, field) for field in part._fields if field in _NAME_FIELDS):
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str):
                    names.update(name.split("."))  # for `import a.b`
    return names


_NAME_FIELDS = {"id", "attr", "arg", "name", "asname", "names", "module", "rest", "kwd_attrs"}


class _Source:
    """Extracts the text of nodes; `ast` counts columns in UTF-8 bytes."""

    def __init__(self, code: str) -> None:
        self._lines = _LINE.findall(code.encode("utf-8", "surrogatepass"))

    def of(self, node: ast.stmt) -> str:
        assert node.end_lineno is not None
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"".join(lines).decode("utf-8", "surrogatepass")
