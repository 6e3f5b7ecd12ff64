"""The isolation tiers on this host: for each one, a zygote's command, visible folders and environment variables."""

import dataclasses
import glob
import json
import os
import tempfile
from pathlib import Path

from wizardcoder_jax.sandbox.bubblewrap import MOUNT_POINT, Bubblewrap
from wizardcoder_jax.sandbox.inside import landlock, seccomp
from wizardcoder_jax.sandbox.inside.confine import BUBBLEWRAP, LANDLOCK, NONE
from wizardcoder_jax.sandbox.interpreter import Interpreter
from wizardcoder_jax.sandbox.limits import Limits

TIERS = (BUBBLEWRAP, LANDLOCK, NONE)  # safest first
_PACKAGE_DIR = str(Path(__file__).parent)
_SYSTEM_DIRS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
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
    "PYTHONHASHSEED": "0",  # fixed, so that a verdict that depends on the order of a set is reproducible
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # numerical libraries start a thread per core, which exceeds the process limit on big hosts
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostTier:
    """An isolation tier, with the settings that it needs on this host."""

    tier: str  # name of the tier
    bubblewrap: Bubblewrap | None  # None in the other tiers
    limits: Limits

    def uses_own_uids(self) -> bool:
        """Return whether each candidate runs under its own user id, which requires root."""
        return self.tier != NONE and os.geteuid() == 0

    def zygote_command(self, interpreter: Interpreter, control_fd: int, tool_folders: tuple[str, ...] = ()) -> list[str]:
        """Return the command that starts a zygote.

        Args:
            interpreter: the Python that runs the zygote and its programs.
            control_fd: the zygote's end of the control socket.
            tool_folders: additional folders that programs may read, e.g. a compiler's.
        """
        folders = tuple(path for path in (*_system_paths(), *interpreter.folders(), *tool_folders) if os.path.exists(path))
        folders = tuple(path for path in dict.fromkeys(folders) if not path.startswith("/usr/") and path != "/")
        config = {
            "tier": self.tier,
            "readable": folders,
            "memory_bytes": self.limits.memory_bytes,
            "file_bytes": self.limits.file_bytes,
            "tmp_bytes": self.limits.tmp_bytes,
            "num_files": self.limits.num_files,
            "read_all": self.tier == LANDLOCK and not all(map(_is_readable_by_all, folders)),
        }
        arguments = [str(control_fd), repr(json.dumps(config))]
        if self.bubblewrap is None:
            return interpreter.zygote_command(_PACKAGE_DIR, arguments)
        prefix = self.bubblewrap.command_prefix(_PACKAGE_DIR, folders, self.limits)
        return [*prefix, *interpreter.zygote_command(MOUNT_POINT, arguments)]

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the zygote, which every program inherits."""
        return ENVIRONMENT if self.bubblewrap else {**ENVIRONMENT, "SANDBOX_FOLDER": tempfile.gettempdir()}


def missing_for_landlock() -> str | None:
    """Return why the tier "landlock" cannot work on this host, or None if it can be tried."""
    if not landlock.abi():
        return "this kernel has no Landlock"
    return None if seccomp.is_supported() else "the system call filter does not support this processor"


def _system_paths() -> list[str]:
    return [*_SYSTEM_DIRS, *(found for pattern in _SYSTEM_FILES for found in sorted(glob.glob(pattern)))]


def _is_readable_by_all(folder: str) -> bool:
    """Return whether every user can enter all parents of a folder and read the folder itself."""
    path = Path(os.path.realpath(folder))
    return all(parent.stat().st_mode & 0o1 for parent in path.parents) and bool(path.stat().st_mode & 0o4)
