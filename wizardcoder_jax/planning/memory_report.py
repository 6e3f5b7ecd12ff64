"""Parser of the compiler's memory report, which is available minutes before compilation has finished.

The report lists buffers by size, each with the values that share it. It covers temporary buffers and outputs but not arguments.
A train step updates its state in place, so its arguments are also outputs, and the total is the memory that a chip needs.
"""

import dataclasses
import re

_TOTAL = re.compile(r"Memory Space: default.*\nTotal bytes: (\d+)")
_ROW = re.compile(r"^\s*[\d.]+\w+\(\s*\d+%\);\s*([\d.]+)(\w+);\s*\d+;\s*\d+; (.*)$", re.MULTILINE)
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_EXHAUSTED = re.compile(r"Ran out of memory.*?\(([\d.]+)([MGK])\) exceeds|Used ([\d.]+)([MGK]) of [\d.]+[MGK] hbm", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Buffer:
    """A region of memory and the values that share it over time."""

    num_bytes: int  # size of the buffer in bytes
    values: str  # the values as the compiler lists them, e.g. 3xf32[49408,6144]


def parse_memory_report(text: str, num_largest: int) -> tuple[int, list[Buffer]] | None:
    """Return the total number of bytes and the largest buffers, or None if the report is incomplete."""
    total = _TOTAL.search(text)
    if total is None:
        return None
    default = text[total.end() :].split("Memory Space:", 1)[0]
    heap = default.split("\n\n", 1)[0]  # the first table; the arguments follow it
    buffers = [Buffer(num_bytes=int(float(size) * _UNITS[unit]), values=values) for size, unit, values in _ROW.findall(heap)]
    return int(total[1]), sorted(buffers, key=lambda buffer: -buffer.num_bytes)[:num_largest]


def parse_required_bytes(message: str) -> int | None:
    """Return the bytes that a program needs according to the compiler's out-of-memory error; None for any other message."""
    found = _EXHAUSTED.search(message)
    if found is None:
        return None
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit])
