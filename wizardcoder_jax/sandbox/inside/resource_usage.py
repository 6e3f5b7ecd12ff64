"""Measures the CPU time, memory and disk space that all processes of a job use together."""

import contextlib
import os

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def other_processes() -> list[int]:
    """Return the ids of all visible processes except this one; in a zygote's own namespace, all of them belong to the job."""
    own_pid = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != own_pid]


def descendants() -> list[int]:
    """Return the process ids of all descendants of this process, including orphans if it adopts them."""
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
    """Return the total CPU seconds, with those of ended children, and resident bytes, which count shared pages repeatedly."""
    ticks = pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
    return ticks / _TICKS, pages * _PAGE


def proportional_bytes(pids: list[int]) -> int:
    """Return the total bytes of memory with shared pages counted once, or the resident bytes if the kernel hides this."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration, ValueError):
            total += cpu_and_resident([pid])[1]
    return total


def disk_bytes(folder: str, enough: int) -> int:
    """Return the bytes on disk of the files in a folder, at least 4096 per file; stop counting above `enough`."""
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
