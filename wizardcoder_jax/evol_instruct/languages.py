"""Programming languages: what they are called, and which one a text holds.

A fence that names its language is believed; otherwise the syntax is looked at.
"""

import re
from collections.abc import Iterator

from wizardcoder_jax.evol_instruct.syntax_signs import by_syntax

LANGUAGE_NAMES: dict[str, str] = {  # those of config.Language
    "python": "Python",
    "javascript": "JavaScript",
    "typescript": "TypeScript",
    "java": "Java",
    "c": "C",
    "cpp": "C++",
    "csharp": "C#",
    "go": "Go",
    "rust": "Rust",
    "kotlin": "Kotlin",
    "swift": "Swift",
    "scala": "Scala",
    "ruby": "Ruby",
    "php": "PHP",
    "perl": "Perl",
    "lua": "Lua",
    "julia": "Julia",
    "r": "R",
    "haskell": "Haskell",
    "bash": "Bash",
    "sql": "SQL",
    "html": "HTML",
    "css": "CSS",
}
ALIASES: dict[str, str] = {
    **dict.fromkeys(("py", "python2", "python3", "pycon", "ipython"), "python"),
    **dict.fromkeys(("js", "jsx", "mjs", "node", "nodejs", "node.js"), "javascript"),
    **dict.fromkeys(("ts", "tsx"), "typescript"),
    **dict.fromkeys(("c++", "cc", "cxx", "hpp"), "cpp"),
    **dict.fromkeys(("c#", "cs"), "csharp"),
    **dict.fromkeys(("sh", "shell", "zsh"), "bash"),
    **dict.fromkeys(("mysql", "postgresql", "postgres", "sqlite", "plsql", "tsql"), "sql"),
    **{"golang": "go", "rs": "rust", "kt": "kotlin", "rb": "ruby", "pl": "perl", "jl": "julia", "hs": "haskell"},
    **{"html5": "html", "css3": "css"},
}
SUFFIXES: dict[str, str] = {  # of source files
    **{".py": "python", ".js": "javascript", ".mjs": "javascript", ".jsx": "javascript", ".ts": "typescript"},
    **{".tsx": "typescript", ".java": "java", ".c": "c", ".h": "c", ".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp"},
    **{".hpp": "cpp", ".cs": "csharp", ".go": "go", ".rs": "rust", ".kt": "kotlin", ".swift": "swift"},
    **{".scala": "scala", ".rb": "ruby", ".php": "php", ".pl": "perl", ".lua": "lua", ".jl": "julia", ".r": "r"},
    **{".hs": "haskell", ".sh": "bash", ".sql": "sql", ".html": "html", ".css": "css"},
}

_FENCE = re.compile(
    r"^[ \t]*(?P<mark>`{3,9}|~{3,9})[ \t]*\{?\.?(?P<name>[\w.#+-]*)[^\n`]*\n(?P<code>.*?)(?:^[ \t]*(?P=mark)[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)

_CODE = re.compile(  # every part of bounded length, so that no text takes long
    r"`[^`\n]{1,200}`|^[ \t]{0,99}(?:```|~~~)|\w\([^\n]{0,200}?\)|[{};][ \t]{0,20}$|"
    r"\w\]? {0,9}(?:[-+*/|&]?=|<-|:=) {0,9}\S|=>|->|::|<\w{1,20}[^>\n]{0,200}>",
    re.MULTILINE,
)


def parse_language_name(name: str) -> str | None:
    """The language that `name` stands for, in any case or by an alias ("JS", "c++"); None if it is not known."""
    lowered = name.strip().lower()
    return lowered if lowered in LANGUAGE_NAMES else ALIASES.get(lowered)


def fenced_blocks(text: str) -> Iterator[tuple[str, str]]:
    """(what the fence says, code) of each fenced block; a block that is not closed reaches to the end."""
    return ((match["name"], match["code"]) for match in _FENCE.finditer(text))


def has_code(text: str) -> bool:
    """Whether there is any code in `text`: fenced, between backticks, or in the way it is written."""
    return _CODE.search(text) is not None or by_syntax(text) is not None


def detect_language(text: str) -> str | None:
    """The language of the code in `text`: of the first fenced block that tells, else of the text; None if nothing tells."""
    blocks = list(fenced_blocks(text))
    if not blocks:
        return by_syntax(text)
    found = (parse_language_name(name) if name else by_syntax(code) for name, code in blocks)
    return next((language for language in found if language), None)
