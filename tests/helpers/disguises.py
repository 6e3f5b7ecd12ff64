"""Creates disguised copies of a benchmark problem, as found in contaminated datasets."""

import ast
import re
import textwrap
import warnings

DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)


def _parsed(code):
    with warnings.catch_warnings(action="ignore"):  # MBPP has invalid escape sequences
        return ast.parse(code)


def bound_names(code):
    """Return the names that `code` defines: functions, parameters and variables, but not imports."""
    tree = _parsed(code)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if hasattr(node, "names")
        for alias in node.names
        if hasattr(alias, "asname")
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if not name.startswith("__")} - imported


def renamed(text, code):
    """Return `text` with every name that `code` defines replaced, also in prose and strings."""
    others = {name: f"item_{i}x" for i, name in enumerate(sorted(bound_names(code)))}
    return re.sub(r"(?<![\w.])[^\W\d]\w*", lambda match: others.get(match.group(), match.group()), text)


def reindented(code, unit):
    """Return `code` with each level of indentation (four spaces) replaced by `unit`."""
    lines = []
    for line in code.replace("\r", "").expandtabs(4).split("\n"):
        width = len(line) - len(line.lstrip())
        lines.append(unit * (width // 4) + " " * (width % 4) + line.lstrip() if line.strip() else "")
    return "\n".join(lines)


def reformatted(code):
    """Return `code` in the format of ast.unparse: without comments, with other parentheses and quotes."""
    return ast.unparse(_parsed(code))


def hinted(code):
    """Return `code` with a type hint for every parameter and result."""
    tree = _parsed(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = node.returns or ast.parse("dict[str, int]", mode="eval").body
            for parameter in node.args.args:
                parameter.annotation = parameter.annotation or ast.parse("list[int]", mode="eval").body
    return ast.unparse(tree)


def commented(code):
    """Return `code` with a comment before each line and one at its end, except in lines with strings."""
    lines = reformatted(code).split("\n")
    return "\n".join(
        line if '"' in line or not line else f"# Now, step {i}:\n{line}  # as said" for i, line in enumerate(lines)
    )


def parts(problem):
    """Return (statement, prompt, complete solution without docstring) of a HumanEval or MBPP problem."""
    if "canonical_solution" in problem:
        whole = problem["prompt"] + problem["canonical_solution"]
        return DOCSTRING.findall(problem["prompt"])[-1][1], problem["prompt"], DOCSTRING.sub('""', whole)
    code = problem["code"].replace("\r", "")
    return problem["text"], problem["text"] + "\n" + "\n".join(problem["test_list"]), code


def fenced(code):
    return f"Certainly! This does what you ask for.\n\n```python\n{code}\n```\n\nLet me know if anything is unclear."


def verbatim(problem):
    """Yield (name, text) of each kind of literal leak."""
    statement, prompt, code = parts(problem)
    yield "statement", f"Please help me with this. {statement}\nThank you!"
    yield "statement in capitals", statement.upper()
    yield "rewrapped statement", textwrap.fill(" ".join(statement.split()), 31)
    yield "prompt", f"Complete this.\n{prompt}"
    yield "prompt with other quotes", prompt.replace('"""', "'''")
    yield "solution", fenced(code)
    yield "statement, then solution", f"{statement}\n{fenced(code)}"


def disguised(problem):
    """Yield (name, text) of each kind of leak that is renamed, re-indented or reformatted."""
    statement, prompt, code = parts(problem)
    for name, unit in (("tabs", "\t"), ("two spaces", "  ")):
        yield f"prompt with {name}", reindented(prompt, unit)
        yield f"solution with {name}", fenced(reindented(code, unit))
    yield "renamed prompt", renamed(prompt, code)
    yield "renamed solution", fenced(renamed(code, code))
    yield "renamed solution with tabs", fenced(reindented(renamed(code, code), "\t"))
    yield "renamed and reformatted solution", fenced(reformatted(renamed(code, code)))
    yield "solution with type hints", fenced(hinted(code))
    yield "solution with comments", fenced(commented(code))
    yield "statement, then renamed solution", f"{statement}\n{fenced(renamed(code, code))}"
    yield "renamed statement and solution", f"{renamed(statement, code)}\n{fenced(renamed(code, code))}"
