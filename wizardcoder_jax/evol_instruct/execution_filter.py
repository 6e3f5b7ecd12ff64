"""Execution filter: runs the Python code of an answer, first alone, then with asserts that the teacher model writes for it.

If an answer needs something that the sandbox lacks (input, a network, packages, files, a display), its record passes anyway,
marked "execution:unchecked:<reason>". Source: our own design, including the prompt; the paper does not run programs.
"""

import ast
import dataclasses
import re
import warnings
from collections.abc import Awaitable, Callable

from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord, excerpt
from wizardcoder_jax.evol_instruct.judges import AskTeacher, Inconclusive, Judge
from wizardcoder_jax.evol_instruct.language_detection import fenced_blocks
from wizardcoder_jax.evol_instruct.languages import parse_language_name

EXECUTION = "execution"
PURPOSE = "tests"
CHECKED_TASKS = ("generate", "repair", "translate")  # not "test", for which the code under test is in the question

PROMPT = (
    "Below are a programming question and a Python answer to it. Write up to five assert statements that any correct answer "
    "with the same functions and classes passes. Derive what is expected from the question, not from the answer. Use only what "
    "the answer defines and Python's standard library; do not use randomness, time, files, input or a network.\n\n"
    "Question:\n{instruction}\n\n"
    "Answer:\n```python\n{code}\n```\n\n"
    "Your asserts (just one ```python block that holds nothing but the asserts, one a line):"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionResult:
    """How a program ended: "passed", "assertion", "exception:<Type>", "syntax", "timeout", "memory", "exit" or "sandbox"."""

    reason: str
    detail: str  # short explanation for humans, e.g. the message of the exception


RunProgram = Callable[[str, str], Awaitable[ExecutionResult]]
"""Runs code (first argument), then a test in the same interpreter; equal arguments always give the same result."""

_NEEDS_BY_EXCEPTION = {  # exception -> what the program needs and the sandbox lacks
    "ModuleNotFoundError": "needs_package",
    "ImportError": "needs_package",
    "EOFError": "needs_input",
    "FileNotFoundError": "needs_files",
    "NotADirectoryError": "needs_files",
    "PermissionError": "needs_files",
    "TclError": "needs_display",
    "gaierror": "needs_network",
    "URLError": "needs_network",
    "ConnectionError": "needs_network",
    "ConnectionRefusedError": "needs_network",
    "MaxRetryError": "needs_network",
    "NewConnectionError": "needs_network",
    "OperationalError": "needs_database",
}
_INCONCLUSIVE = {"exit": "exits", "sandbox": "not_run"}  # results that do not show whether the answer is correct
_ENDLESS = re.compile(  # matches code that is meant to run forever or to wait
    r"\b(?:mainloop|serve_forever|run_forever|sleep|app\.run|uvicorn\.run|pause)\(|^while (?:True|1):", re.MULTILINE
)
_NEEDS_BY_CODE = (  # matches code that needs what the sandbox lacks; such code is not run
    ("needs_input", re.compile(r"(?<![\w.])input\(|\bsys\.stdin\b")),
    ("needs_network", re.compile(r"\brequests\.(?:get|post|put|delete|Session)\(|\burlopen\(|\bsocket\.socket\(")),
)
_SET_UP = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)  # statements allowed between asserts


def extract_python(response: str) -> str | None:
    """Return the Python code of an answer as one program, or None if the answer contains none.

    If the longest code block is valid Python, join all valid blocks. Otherwise return the longest block, which will fail.
    """
    blocks = list(fenced_blocks(response))
    if not blocks:
        return response if _is_program(response) else None
    named = [code for name, code in blocks if parse_language_name(name) == "python"]
    codes = named or [code for name, code in blocks if not name and _is_program(code)]
    codes = [_strip_interactive_prompts(code) for code in codes if code.strip()]
    if not codes:
        return None
    longest = max(codes, key=len)
    if not is_valid_python(longest):
        return longest
    return "\n\n".join(code.rstrip() for code in codes if is_valid_python(code)) + "\n"


def is_valid_python(code: str) -> bool:
    """Return whether `code` is valid Python."""
    return _parse_or_none(code) is not None


def _parse_or_none(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_program(text: str) -> bool:
    """Return whether a text of unknown language is Python: it parses, and contains a statement or a call."""
    tree = _parse_or_none(text)
    return tree is not None and any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body)


def _strip_interactive_prompts(code: str) -> str:
    """Return the typed lines of a block that shows an interactive session; return other code unchanged."""
    lines = code.splitlines()
    typed = [line[4:] for line in lines if line.startswith((">>> ", "... "))]
    return "\n".join(typed) if lines and lines[0].startswith(">>>") else code


def parse_asserts(reply: str) -> str:
    """Return the asserts of a teacher's reply as a program, with the imports and assignments; empty if it has no asserts.

    Test functions (test_..., without parameters) are kept, and calls to them are added.
    """
    blocks = [code for _, code in fenced_blocks(reply)]
    text = "\n".join(blocks) if blocks else reply
    try:
        return _select_asserts(text)
    except RecursionError:  # nested too deeply for ast.unparse
        return ""


def _select_asserts(text: str) -> str:
    tree = _parse_or_none(text)
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("assert ")]
    statements = (
        tree.body if tree is not None else [node for line in lines for node in getattr(_parse_or_none(line), "body", ())]
    )
    kept, num_asserts = [], 0
    for node in statements:
        asserts = [one for one in ast.walk(node) if isinstance(one, ast.Assert) and not isinstance(one.test, ast.Constant)]
        if isinstance(node, _SET_UP) or (isinstance(node, ast.Assert) and asserts):
            kept.append(ast.unparse(node))
            num_asserts += len(asserts)
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test") and asserts and not node.args.args:
            kept.append(f"{ast.unparse(node)}\n{node.name}()")
            num_asserts += len(asserts)
    return "\n".join(kept) if num_asserts else ""


def execution_judge(run_program: RunProgram) -> Judge:
    """Return the judge that runs the Python code of answers, for evolved records and seeds."""

    async def check(candidate: CandidateRecord, ask_teacher: AskTeacher) -> str | Inconclusive | None:
        code = extract_python(candidate.response or "") if candidate.task in CHECKED_TASKS else None
        if code is None:
            return Inconclusive(reason="no_python")
        lacking = next((reason for reason, sign in _NEEDS_BY_CODE if sign.search(code)), None)
        if lacking is not None and is_valid_python(code):
            return Inconclusive(reason=lacking)
        verdict = _verdict(code, await run_program(code, ""))
        if verdict is not None or not _has_definitions(code):
            return verdict
        reply = (await ask_teacher(PROMPT.format(instruction=candidate.instruction, code=code.strip()), PURPOSE)).text
        asserts = parse_asserts(reply)
        if not asserts:
            return Inconclusive(reason="no_asserts")
        result = await run_program(code, asserts)
        # The code alone ran without a NameError, so the asserts use an undefined name: the teacher's mistake.
        return Inconclusive(reason="bad_asserts") if result.reason == "exception:NameError" else _verdict(code, result)

    return Judge(name=EXECUTION, check=check)


def _has_definitions(code: str) -> bool:
    tree = _parse_or_none(code)
    return tree is not None and any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)


def _verdict(code: str, result: ExecutionResult) -> str | Inconclusive | None:
    kind, _, exception = result.reason.partition(":")
    if result.reason == "passed":
        return None
    if kind in _INCONCLUSIVE:
        return Inconclusive(reason=_INCONCLUSIVE[kind])
    if exception in _NEEDS_BY_EXCEPTION:
        return Inconclusive(reason=_NEEDS_BY_EXCEPTION[exception])
    if kind == "timeout" and _ENDLESS.search(code):
        return Inconclusive(reason="runs_on")
    return excerpt(f"{result.reason}: {result.detail}" if result.detail else result.reason, 160)
