"""Programming languages: their display names, aliases and file suffixes."""

LANGUAGE_NAMES: dict[str, str] = {  # display names; the keys are the values of config.Language
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
SUFFIXES: dict[str, str] = {  # maps suffixes of source files to languages
    **{".py": "python", ".js": "javascript", ".mjs": "javascript", ".jsx": "javascript", ".ts": "typescript"},
    **{".tsx": "typescript", ".java": "java", ".c": "c", ".h": "c", ".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp"},
    **{".hpp": "cpp", ".cs": "csharp", ".go": "go", ".rs": "rust", ".kt": "kotlin", ".swift": "swift"},
    **{".scala": "scala", ".rb": "ruby", ".php": "php", ".pl": "perl", ".lua": "lua", ".jl": "julia", ".r": "r"},
    **{".hs": "haskell", ".sh": "bash", ".sql": "sql", ".html": "html", ".css": "css"},
}


def parse_language_name(name: str) -> str | None:
    """Return the key in LANGUAGE_NAMES for a name or alias such as "JS" or "C++"; None if the name is unknown."""
    lowered = name.strip().lower()
    return lowered if lowered in LANGUAGE_NAMES else ALIASES.get(lowered)
