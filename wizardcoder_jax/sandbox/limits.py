"""The resources that a program may use."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the memory, files and processes of a program; Sandbox.run takes the time limit."""

    memory_bytes: int = 4 << 30  # maximum bytes of resident memory of all processes, and of a process's address space
    file_bytes: int = 64 << 20  # maximum bytes of one file
    tmp_bytes: int = 128 << 20  # maximum bytes of the work folder, and of /dev/shm
    num_processes: int = 64  # maximum number of processes and threads
    num_files: int = 256  # maximum number of open file descriptors per process


def wall_limit_s(timeout_s: float) -> float:
    """Return the wall-clock limit for a CPU limit, in seconds; generous, because a busy machine must not change verdicts."""
    return 5 * timeout_s + 10
