"""What of the host a program sees: by tier, the way to start a zygote and what it is told."""

import dataclasses
import glob
import json
import os
import tempfile
from pathlib import Path

from wizardcoder_jax.sandbox.bubblewrap import ROOM_INSIDE, Bubblewrap
from wizardcoder_jax.sandbox.inside import landlock, seccomp
from wizardcoder_jax.sandbox.inside.confine import BUBBLEWRAP, LANDLOCK, NONE
from wizardcoder_jax.sandbox.interpreter import Interpreter
from wizardcoder_jax.sandbox.program import Limits

TIERS = (BUBBLEWRAP, LANDLOCK, NONE)
_ROOM = str(Path(__file__).parent)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/alternatives",
    "/etc/ssl/openssl.cnf",
    "/etc/R",
    "/etc/php",
    "/etc/java*",
)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same verdict each time, also where the order of a set decides it
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # numerical libraries start a thread for each core, beyond the process limit on big hosts
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostTier:
    """A tier on this host."""

    tier: str
    bubblewrap: Bubblewrap | None
    limits: Limits

    def gives_root_away(self) -> bool:
        """Whether each candidate gets a user id of its own."""
        return self.tier != NONE and os.geteuid() == 0

    def command(self, interpreter: Interpreter, control_fd: int, more: tuple[str, ...] = ()) -> list[str]:
        """Starts a zygote.

        Args:
            interpreter: what it runs with.
            control_fd: its end of the control socket.
            more: further folders that programs may read, e.g. a compiler's.
        """
        folders = tuple(folder for folder in (*_system(), *interpreter.folders(), *more) if os.path.exists(folder))
        folders = tuple(folder for folder in dict.fromkeys(folders) if not folder.startswith("/usr/") and folder != "/")
        place = {
            "tier": self.tier,
            "readable": folders,
            "memory_bytes": self.limits.memory_bytes,
            "file_bytes": self.limits.file_bytes,
            "tmp_bytes": self.limits.tmp_bytes,
            "num_files": self.limits.num_files,
            "read_all": self.tier == LANDLOCK and not all(map(_seen_by_all, folders)),
        }
        arguments = [str(control_fd), repr(json.dumps(place))]
        if self.bubblewrap is None:
            return interpreter.command(_ROOM, arguments)
        return [*self.bubblewrap.command(_ROOM, folders, self.limits), *interpreter.command(ROOM_INSIDE, arguments)]

    def environment(self) -> dict[str, str]:
        """The zygote's, and so every program's."""
        return ENVIRONMENT if self.bubblewrap else {**ENVIRONMENT, "SANDBOX_FOLDER": tempfile.gettempdir()}


def landlock_lacks() -> str | None:
    """What is missing for the tier "landlock"; None where it can be tried."""
    if not landlock.abi():
        return "this kernel has no Landlock"
    return None if seccomp.supported() else "the system call filter is not known for this processor"


def _system() -> list[str]:
    return [*_SYSTEM, *(found for pattern in _SYSTEM_FILES for found in sorted(glob.glob(pattern)))]


def _seen_by_all(folder: str) -> bool:
    """Whether every user may read it: each folder above it can be passed through, and it can be read."""
    path = Path(os.path.realpath(folder))
    return all(parent.stat().st_mode & 0o1 for parent in path.parents) and bool(path.stat().st_mode & 0o4)
