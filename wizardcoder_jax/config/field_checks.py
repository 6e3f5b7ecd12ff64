"""Types and checks that the settings of several commands share."""

import os
from typing import Literal

Dtype = Literal["float32", "bfloat16", "float16"]  # require_range rejects float16 and says why
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
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_range(name: str, dtype: Dtype) -> None:
    """Raise ValueError if `dtype` is float16, whose range is too small for the models."""
    require(dtype != "float16", f"{name} float16 has too small a range for these models; use bfloat16, which has the same size")


def default_cache_dir() -> str:
    """Return the folder in $XDG_CACHE_HOME or ~/.cache that stores packed data and compiled programs between runs."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "wizardcoder_jax")
