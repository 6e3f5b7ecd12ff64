"""How hard a record is, by what can be counted: what the instruction asks, and the shape of Python in the response.

Source: cyclomatic complexity is McCabe's (1976), decisions + 1, over the whole program. The words that mark a constraint are
ours; they are a measure for comparing rounds, not a judgement of a single record.
"""

import ast
import dataclasses
import re
import warnings
from collections.abc import Iterator

from wizardcoder_jax.evol_instruct.languages import fenced_blocks, parse_language_name

MAX_CODE_CHARS = 20_000

_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n\s*\n|\n\s*(?:[-*]|\d+[.)])\s")
_CONSTRAINT = re.compile(
    r"\b(?:must|should|shall|cannot|can't|don't|do not|without|only|at (?:least|most)|no more than|exactly|ensure|avoid|"
    r"except|unless|instead of|rather than|constraints?|require(?:s|d|ments?)?|handle|time complexity|space complexity|O\()",
    re.IGNORECASE,
)
_DECISIONS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.match_case)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match, ast.FunctionDef, ast.ClassDef)
_PROSE_TOO = (ast.Expr, ast.AnnAssign, ast.Pass)  # "hello" and "Note: important" parse as these


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Measures of one record; those of code are None where the response holds no Python that parses."""

    instruction_words: float
    instruction_sentences: float
    instruction_constraints: float
    code_nodes: float | None = None  # of the syntax tree
    code_complexity: float | None = None
    code_nesting: float | None = None  # of blocks, functions and classes included


MEASURES = tuple(field.name for field in dataclasses.fields(Difficulty))


def measure_difficulty(instruction: str, output: str) -> Difficulty:
    """The measures of a record."""
    tree = parse_python(output)
    return Difficulty(
        instruction_words=len(instruction.split()),
        instruction_sentences=max(1, len(_SENTENCE_END.findall(instruction.strip()))),
        instruction_constraints=len(_CONSTRAINT.findall(instruction)),
        code_nodes=None if tree is None else sum(1 for _ in ast.walk(tree)),
        code_complexity=None if tree is None else _complexity(tree),
        code_nesting=None if tree is None else _nesting(tree),
    )


def parse_python(output: str) -> ast.Module | None:
    """The syntax tree of the Python in a response: of its first fenced block that is some, else of the whole."""
    fenced = [code for name, code in fenced_blocks(output) if not name or parse_language_name(name) == "python"]
    return next(_trees(fenced or [output]), None)


def _trees(codes: list[str]) -> Iterator[ast.Module]:
    for code in codes:
        if len(code) > MAX_CODE_CHARS:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes and the like, in code that is not ours
                tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if any(_does_something(node) for node in ast.walk(tree)):
            yield tree


def _does_something(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) or (isinstance(node, ast.stmt) and not isinstance(node, _PROSE_TOO))


def _complexity(tree: ast.Module) -> int:
    decisions = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.BoolOp):
            decisions += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            decisions += 1 + len(node.ifs)
        else:
            decisions += isinstance(node, _DECISIONS)
    return decisions + 1


def _nesting(tree: ast.Module) -> int:
    deepest = 0
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        for child in ast.iter_child_nodes(node):
            waiting.append((child, depth + isinstance(child, _BLOCKS)))
    return deepest
