"""Port of evalplus' sanitizer, which reduces an answer to its longest valid run of lines, then to the definitions it needs.

Source: evalplus 0.3.1, evalplus/sanitize.py (Apache-2.0), which parses the valid lines with tree-sitter. These lines are valid
Python, so the standard library's `ast` finds the same definitions. Two differences remain, neither of which can change a
verdict: a comment at the end of a function may be dropped, and if not even the first line is valid, tree-sitter may still find
an import in it.
"""

import ast
import bisect
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TypeGuard

MAX_CHARS = 200_000  # longer answers are not sanitized
MAX_PARSED_CHARS = 50_000_000  # total for one answer; beyond that, the longest run found so far is used

_ALLOW_INCOMPLETE = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT: compile() reports whether more lines could complete the code
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def sanitize(text: str, entry_point: str | None) -> str:
    """Return the imports of the longest valid run of lines, and the definitions that `entry_point` uses, even indirectly.

    Args:
        text: a model's answer, which may contain prose and Markdown fences.
        entry_point: the tested function; None keeps every definition.

    Returns:
        The program. If no import or definition remains, it consists of all valid lines (of the first line if none are
        valid). An answer longer than MAX_CHARS is returned unchanged.
    """
    if len(text) > MAX_CHARS:
        return text
    code = longest_valid_lines(text)
    tree = _parse(code)
    kept = "" if tree is None else "\n".join(_reached(code, tree, entry_point)).strip()
    return kept or code


def longest_valid_lines(text: str) -> str:
    """Return the run of two or more consecutive lines that is valid Python and has the most nonblank lines.

    Among equally long runs, return the first. If there is no such run, return the first line of the text.
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
    """Try ever longer runs of lines that begin at `first`; yield (last line, number of characters parsed) for each run.

    The last line is None if the run is not valid Python. Stop after a run that no further line can make valid. If all lines
    up to `end`, the last nonblank line, are valid, yield only that run.
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
            warnings.simplefilter("ignore")  # e.g. warnings about invalid escape sequences
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # ValueError: the text contains null bytes
        return None


def _may_continue(text: str) -> bool:
    """Return whether further lines could make an invalid text valid."""
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
    """Yield the source of each import, then of each definition that the entry point uses, in the order of the code."""
    source = _Source(code)
    for node in tree.body:
        # Tree-sitter has a separate node type for imports from __future__, which evalplus does not keep.
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_future:
            yield source.of(node)
    definitions: dict[str | None, Definition] = {}  # the first definition of each name
    for node in tree.body:
        if _is_definition(node):
            definitions.setdefault(_defined_name(node), node)
    wanted = None if entry_point is None else _reachable(entry_point, definitions)
    for name, node in definitions.items():
        if wanted is None or name in wanted:
            yield source.of(node)


def _is_definition(node: ast.stmt) -> TypeGuard[Definition]:
    """Return whether a statement is an assignment, an undecorated class, or an undecorated function with a return."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return not node.decorator_list and any(isinstance(part, ast.Return) for part in ast.walk(node))
    if isinstance(node, ast.ClassDef):
        return not node.decorator_list
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _defined_name(node: Definition) -> str | None:
    """Return the name that a definition defines; for `a[0] = b`, return b, the first bare name in the statement."""
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
    """Return every name in a statement: names of variables, attributes, parameters and keyword arguments."""
    names: set[str] = set()
    for part in ast.walk(node):
        for value in (getattr(part, field) for field in part._fields if field in _NAME_FIELDS):
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str):
                    names.update(name.split("."))  # for `import a.b`
    return names


_NAME_FIELDS = {"id", "attr", "arg", "name", "asname", "names", "module", "rest", "kwd_attrs"}


class _Source:
    """Extracts the source text of AST nodes, whose column offsets count UTF-8 bytes."""

    def __init__(self, code: str) -> None:
        self._lines = _LINE.findall(code.encode("utf-8", "surrogatepass"))

    def of(self, node: ast.stmt) -> str:
        assert node.end_lineno is not None
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"".join(lines).decode("utf-8", "surrogatepass")
