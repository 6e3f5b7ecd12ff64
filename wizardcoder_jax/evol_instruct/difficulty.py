"""Measures of a record's difficulty: the length and constraints of its instruction, and the complexity of its Python code.

Source: cyclomatic complexity is from McCabe (1976): number of decisions + 1, counted over the whole program. The list of words
that indicate a constraint is ours. The measures are meant for comparing rounds, not for judging a single record.
"""

import ast
import dataclasses
import re
import warnings
from collections.abc import Iterator

from wizardcoder_jax.evol_instruct.language_detection import fenced_blocks
from wizardcoder_jax.evol_instruct.languages import parse_language_name

MAX_CODE_CHARS = 20_000

_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n\s*\n|\n\s*(?:[-*]|\d+[.)])\s")
_CONSTRAINT = re.compile(
    r"\b(?:must|should|shall|cannot|can't|don't|do not|without|only|at (?:least|most)|no more than|exactly|ensure|avoid|"
    r"except|unless|instead of|rather than|constraints?|require(?:s|d|ments?)?|handle|time complexity|space complexity|O\()",
    re.IGNORECASE,
)
_DECISIONS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.match_case)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match, ast.FunctionDef, ast.ClassDef)
_PROSE_STATEMENTS = (ast.Expr, ast.AnnAssign, ast.Pass)  # prose such as "hello" or "Note: important" parses as one of these


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Difficulty measures of one record. The code_* measures are None if the response contains no valid Python."""

    instruction_words: float  # number of words
    instruction_sentences: float  # number of sentences, at least 1
    instruction_constraints: float  # number of words and phrases that indicate a constraint
    code_nodes: float | None = None  # number of nodes in the syntax tree
    code_complexity: float | None = None  # cyclomatic complexity
    code_nesting: float | None = None  # maximum depth of nested blocks, including functions and classes


MEASURES = tuple(field.name for field in dataclasses.fields(Difficulty))


def measure_difficulty(instruction: str, output: str) -> Difficulty:
    """Return the difficulty measures of the record with the given instruction and response."""
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
    """Return the syntax tree of the first valid Python block, or of the whole response if it has no blocks; None if invalid."""
    fenced = [code for name, code in fenced_blocks(output) if not name or parse_language_name(name) == "python"]
    return next(_parse_programs(fenced or [output]), None)


def _parse_programs(codes: list[str]) -> Iterator[ast.Module]:
    for code in codes:
        if len(code) > MAX_CODE_CHARS:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # e.g. warnings about invalid escape sequences
                tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if any(_is_program_node(node) for node in ast.walk(tree)):
            yield tree


def _is_program_node(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) or (isinstance(node, ast.stmt) and not isinstance(node, _PROSE_STATEMENTS))


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
    stack: list[tuple[ast.AST, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        for child in ast.iter_child_nodes(node):
            stack.append((child, depth + isinstance(child, _BLOCKS)))
    return deepest
