"""What settings of several doors have in common."""

import os
from typing import Literal

Dtype = Literal["float32", "bfloat16", "float16"]  # the last is understood, and refused
Protocol = Literal[
    "wizardcoder-humaneval-v1",
    "wizardcoder-humaneval-v2",
    "wizardcoder-mbpp",
    "wizardcoder-mbppplus",
    "completion",
    "chat",
    "evalplus",
    "stored",
]
Language = Literal[
    "python",
    "javascript",
    "typescript",
    "java",
    "c",
    "cpp",
    "csharp",
    "go",
    "rust",
    "kotlin",
    "swift",
    "scala",
    "ruby",
    "php",
    "perl",
    "lua",
    "julia",
    "r",
    "haskell",
    "bash",
    "sql",
    "html",
    "css",
]
Split = Literal["test", "train", "validation", "prompt", "all"]


def require(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_range(name: str, dtype: Dtype) -> None:
    """Raises ValueError for float16."""
    require(dtype != "float16", f"{name} float16 has too small a range for these models; use bfloat16, of the same size")


def default_cache_dir() -> str:
    """Where packed data and compiled programs are kept between runs: $XDG_CACHE_HOME or ~/.cache."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "wizardcoder_jax")
