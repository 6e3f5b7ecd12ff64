"""The resources that a program may use."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on memory, files and processes; the time limit is given with each run."""

    memory_bytes: int = 4 << 30  # resident, of all its processes together; also the address space of a Python process
    file_bytes: int = 64 << 20  # size of one file
    tmp_bytes: int = 128 << 20  # size of its work folder, and of its /dev/shm
    num_processes: int = 64  # threads included
    num_files: int = 256  # open descriptors of one process


def wall_limit_s(timeout_s: float) -> float:
    """Return the wall-clock limit for a CPU limit, both in seconds; generous, so that a loaded machine changes no verdict."""
    return 5 * timeout_s + 10
