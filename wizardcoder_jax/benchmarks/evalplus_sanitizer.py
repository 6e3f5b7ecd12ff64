"""evalplus' sanitizer: the longest run of valid lines of an answer, then what its entry point needs of it.

Source: evalplus 0.3.1, evalplus/sanitize.py (Apache-2.0), which reads the valid lines with tree-sitter. The lines parse by
then, so that Python's own `ast` finds the same definitions. What differs cannot change a verdict: a comment at the end of a
function may be left out, and where not even the first line parses, tree-sitter may still find an import in it.
"""

import ast
import bisect
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TypeGuard

MAX_CHARS = 200_000  # longer answers stay as they are
MAX_PARSED_CHARS = 50_000_000  # of all runs of lines that are tried: then the longest so far is taken

_ALLOW_INCOMPLETE = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT: says whether more lines could make a text valid
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def sanitize(text: str, entry_point: str | None) -> str:
    """The imports of the longest valid run of lines, and the definitions that `entry_point` reaches.

    Args:
        text: an answer, with or without prose and fences.
        entry_point: the function that is tested; None keeps every definition.

    Returns:
        A program; where no definition is left, the valid lines themselves (the first line, where none are). An answer that
        is too long for a program stays as it is.
    """
    if len(text) > MAX_CHARS:
        return text
    code = longest_valid_lines(text)
    tree = _parse(code)
    kept = "" if tree is None else "\n".join(_reached(code, tree, entry_point)).strip()
    return kept or code


def longest_valid_lines(text: str) -> str:
    """The run of at least two lines that parses and has the most lines that are not blank; of equal ones the first.

    The first line, where there is no such run.
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
    """Each `last` > `first` for which lines first..last parse (None: they do not), with the characters that were parsed.

    Stops where no further line can help: at once, where all lines up to `end`, the last that is not blank, parse.
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
            warnings.simplefilter("ignore")  # e.g. of invalid escapes
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # ValueError: null bytes
        return None


def _may_continue(text: str) -> bool:
    """Whether further lines could make a text that does not parse parse."""
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
    """The source of the imports, then that of each definition that is kept, both in order."""
    source = _Source(code)
    for node in tree.body:
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"  # another kind of node in tree-sitter
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_future:
            yield source.of(node)
    definitions: dict[str | None, Definition] = {}  # the first of each name
    for node in tree.body:
        if _is_definition(node):
            definitions.setdefault(_name(node), node)
    wanted = None if entry_point is None else _reachable(entry_point, definitions)
    for name, node in definitions.items():
        if wanted is None or name in wanted:
            yield source.of(node)


def _is_definition(node: ast.stmt) -> TypeGuard[Definition]:
    """Functions that return, classes and assignments; neither what is decorated nor what stands in an `if`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return not node.decorator_list and any(isinstance(part, ast.Return) for part in ast.walk(node))
    if isinstance(node, ast.ClassDef):
        return not node.decorator_list
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _name(node: Definition) -> str | None:
    """What a definition is filed under: for `a[0] = b` that is b, the first bare name in the statement."""
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
    """Every name that is written in a statement, be it of a variable, an attribute, a parameter or a keyword."""
    names: set[str] = set()
    for part in ast.walk(node):
        for value in (getattr(part, field) for field in part._fields if field in _NAME_FIELDS):
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str):
                    names.update(name.split("."))  # of `import a.b`
    return names


_NAME_FIELDS = {"id", "attr", "arg", "name", "asname", "names", "module", "rest", "kwd_attrs"}


class _Source:
    """The text of nodes: `ast` counts columns in UTF-8 bytes."""

    def __init__(self, code: str) -> None:
        self._lines = _LINE.findall(code.encode("utf-8", "surrogatepass"))

    def of(self, node: ast.stmt) -> str:
        assert node.end_lineno is not None
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"".join(lines).decode("utf-8", "surrogatepass")
