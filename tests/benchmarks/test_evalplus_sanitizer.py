import ast
import random
import time
import warnings

import pytest

from wizardcoder_jax.benchmarks.evalplus_sanitizer import longest_valid_lines, sanitize

pytestmark = pytest.mark.quick


def longest_by_brute_force(text):
    """Find the longest valid run of lines by trying all of them, as evalplus does."""
    lines = text.split("\n")
    most, best = 0, (0, 0)
    for i in range(len(lines)):
        for j in range(i + 1, len(lines)):
            try:
                ast.parse("\n".join(lines[i : j + 1]))
            except (SyntaxError, ValueError):
                continue
            count = sum(1 for line in lines[i : j + 1] if line.strip())
            if count > most:
                most, best = count, (i, j)
    return "\n".join(lines[best[0] : best[1] + 1])


PARTS = (
    "Here is it:",
    "```python",
    "```",
    "import os",
    "def f(x):",
    "    return x",
    "    if x:",
    "        return (",
    "        )",
    '    """',
    "text",
    "",
    "\\",
    "x = [",
    "]",
    "f'{x",
    "@decorated",
    "  # note",
    "\tx",
    "class A:",
    "else:",
    "'''",
    "x = 1 \\",
)


def test_the_search_equals_a_brute_force_search():
    rng, non_empty = random.Random(0), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(600):
            text = "\n".join(rng.choices(PARTS, k=rng.randrange(1, 14)))
            found = longest_valid_lines(text)
            assert found == longest_by_brute_force(text)
            non_empty += "\n" in found
    assert non_empty > 100


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        # Each expected value was produced by evalplus 0.3.1.
        ("def f():\n    return g\n\ng = 1\nh = 2", "def f():\n    return g\ng = 1"),
        ("import a\nfrom b import c\n\ndef f():\n    return 1", "import a\nfrom b import c\ndef f():\n    return 1"),
        ("def f():\n    return 1\n\ndef f():\n    return 2", "def f():\n    return 1"),
        ("def f():\n    return g()\n\ndef g():\n    print(1)", "def f():\n    return g()"),
        (
            "@cache\ndef f():\n    return 1\n\ndef g():\n    return f()",
            "@cache\ndef f():\n    return 1\n\ndef g():\n    return f()",
        ),
        ("class A:\n    pass\n\ndef f():\n    return A.b.c\n\nc = 3", "class A:\n    pass\ndef f():\n    return A.b.c\nc = 3"),
        ("if x:\n    y = 1\n\ndef f():\n    return y", "def f():\n    return y"),
        ("async def f():\n    return 1\nprint(1)", "async def f():\n    return 1"),
        ("def f():\n    return b\n\na[0] = b\nx, y = b", "def f():\n    return b\na[0] = b"),
        ("from __future__ import annotations\ndef f():\n    return 1", "def f():\n    return 1"),
        ("def f():\n    return 'é'\nz = 1", "def f():\n    return 'é'"),
        ("def f():\r\n    return 1\r\nf()", "def f():\r\n    return 1"),
        ("x += 1\nprint(x)", "x += 1\nprint(x)"),
        ("no code", "no code"),
        ("    return 1\n    return 2", "    return 1"),
        ("", ""),
    ],
)
def test_definitions_that_the_entry_point_reaches_are_kept(text, kept):
    assert sanitize(text, "f") == kept


@pytest.mark.parametrize("line", ["x = (", "def f():", "x = 1", '"""', "    ", "word word", "if x: \\"])
def test_the_search_takes_bounded_time_on_long_answers(line):
    start = time.process_time()
    found = sanitize("\n".join([line] * 1000), "f")
    assert sanitize(f"{line}\n" * 100_000, "f") == f"{line}\n" * 100_000
    assert time.process_time() - start < 60
    assert found


def test_without_an_entry_point_every_definition_is_kept():
    assert sanitize("def f():\n    return 1\nx = 1\nprint(x)", None) == "def f():\n    return 1\nx = 1"
