"""Reads the compiler's report of a program's memory, written once buffers are assigned, minutes before it ends.

The report lists buffers by size with the values that lie in each, one after another. It is of all that is held beside the
arguments and in their place (a step updates its state where it lies), so its total is what a chip needs.
"""

import dataclasses
import re

_TOTAL = re.compile(r"Memory Space: default.*\nTotal bytes: (\d+)")
_ROW = re.compile(r"^\s*[\d.]+\w+\(\s*\d+%\);\s*([\d.]+)(\w+);\s*\d+;\s*\d+; (.*)$", re.MULTILINE)
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_EXHAUSTED = re.compile(r"Ran out of memory.*?\(([\d.]+)([MGK])\) exceeds|Used ([\d.]+)([MGK]) of [\d.]+[MGK] hbm", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Buffer:
    """One place in memory, and what lies there at one time or another."""

    num_bytes: int
    values: str  # as the compiler lists them: dtype[shape], with how many of each


def read_report(text: str, num_largest: int) -> tuple[int, list[Buffer]] | None:
    """Bytes in all, and the largest buffers; None where the report is not whole."""
    total = _TOTAL.search(text)
    if total is None:
        return None
    default = text[total.end() :].split("Memory Space:", 1)[0]
    heap = default.split("\n\n", 1)[0]  # the first table; then come the arguments one by one
    buffers = [Buffer(num_bytes=int(float(size) * _UNITS[unit]), values=values) for size, unit, values in _ROW.findall(heap)]
    return int(total[1]), sorted(buffers, key=lambda buffer: -buffer.num_bytes)[:num_largest]


def bytes_when_exhausted(message: str) -> int | None:
    """What a program would need, by the error of a compiler for which it is too much."""
    found = _EXHAUSTED.search(message)
    if found is None:
        return None
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit])
