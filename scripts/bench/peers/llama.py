"""llama.cpp in a separate process. Its virtual environment is built on first use, which takes about 15 minutes."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Self

ENVIRONMENT = Path(__file__).parents[3] / ".venv" / "llama-cpp-python"
PACKAGE = "llama-cpp-python==0.3.36"
NO_EXTRAS = "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF"


def build() -> Path:
    """Build the environment if it does not exist, and return the path of its Python."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        print(f"building {PACKAGE} in {ENVIRONMENT}", file=sys.stderr, flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PACKAGE], check=True, env={**os.environ, "CMAKE_ARGS": NO_EXTRAS})
    return python


class Llama:
    """A llama.cpp process with one model, which decodes `batch` sequences of at most `length` tokens concurrently."""

    def __init__(self, gguf: Path, batch: int, length: int) -> None:
        command = [build(), Path(__file__).with_name("llama_child.py"), gguf, str(batch), str(length)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._child.communicate()

    def answer(self, prompts: list[list[int]], num_new: int) -> list[list[int]]:
        """Return `num_new` greedy tokens for each prompt."""
        assert self._child.stdin is not None and self._child.stdout is not None
        print(json.dumps({"prompts": prompts, "num_new": num_new}), file=self._child.stdin, flush=True)
        return json.loads(self._child.stdout.readline())
