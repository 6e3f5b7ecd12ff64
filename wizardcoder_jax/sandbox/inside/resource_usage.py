"""What the processes of a job use together, read from /proc."""

import contextlib
import os

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def others() -> list[int]:
    """Every process that is seen but this one: all of a job's, where this one is the first of its namespace."""
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != own]


def descendants() -> list[int]:
    """Every process that this one started, or that those started; orphans included where this one adopts them."""
    found, waiting = [], [os.getpid()]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as listed:
                    children = [int(child) for child in listed.read().split()]
                    found += children
                    waiting += children
    return found


def cpu_and_resident(pids: list[int]) -> tuple[float, int]:
    """(CPU seconds, also of children that ended; resident bytes, where shared pages count more than once)."""
    ticks = pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
    return ticks / _TICKS, pages * _PAGE


def proportional(pids: list[int]) -> int:
    """Bytes of memory, shared pages counted once; where that cannot be read, as if nothing were shared."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration, ValueError):
            total += cpu_and_resident([pid])[1]
    return total


def disk(folder: str, enough: int) -> int:
    """Bytes that a folder's files take, counted until they are more than `enough`; each entry counts a block or more."""
    total, waiting = 0, [folder]
    while waiting and total <= enough:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += max(4096, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                if total > enough:
                    break
    return total
