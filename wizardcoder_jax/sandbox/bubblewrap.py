"""The command line that starts a zygote inside a bubblewrap sandbox."""

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.sandbox.limits import Limits

MOUNT_POINT = "/sandbox"  # the folder in which programs' zygotes find the package `inside`
_SIZE_SINCE = (0, 7)  # first version with --size
# The zygote keeps these capabilities to create a job's namespaces, give up root, and kill and measure its processes.
# No candidate keeps any.
_KEPT = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL", "SYS_PTRACE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bubblewrap:
    """An installed bubblewrap."""

    executable: str
    version: tuple[int, ...]
    as_root: bool  # we are root: no user namespace, and each candidate gets a user id of its own

    @staticmethod
    def find() -> "Bubblewrap":
        """Find bubblewrap on PATH.

        Raises:
            InputError: it is not installed, or does not start.
        """
        executable = shutil.which("bwrap")
        if executable is None:
            raise InputError("bubblewrap is missing")
        try:
            output = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=30).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{executable} does not run ({error})") from error
        version = tuple(int(number) for number in re.findall(r"\d+", output))
        return Bubblewrap(executable=executable, version=version, as_root=os.geteuid() == 0)

    def command_prefix(self, package_dir: str, folders: Iterable[str], limits: Limits) -> list[str]:
        """Return the arguments that precede the command to run inside.

        Args:
            package_dir: folder that contains the package `inside`.
            folders: what else is visible, read-only.
            limits: sizes of the zygote's own /tmp and /dev/shm; each job mounts new ones.
        """
        return [
            self.executable,
            *self._namespaces(),
            *("--as-pid-1", "--new-session", "--hostname", "sandbox"),
            *("--proc", "/proc", "--dev", "/dev"),
            *self._sized_tmpfs("/dev/shm", limits.tmp_bytes),
            *self._sized_tmpfs("/tmp", limits.tmp_bytes),
            *_bind_arguments(folders),  # after /tmp: a Python installation may be below it
            *("--ro-bind", os.path.join(package_dir, "inside"), f"{MOUNT_POINT}/inside"),
            *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"),
        ]

    def _namespaces(self) -> list[str]:
        kept = [argument for name in _KEPT for argument in ("--cap-add", f"CAP_{name}")]
        if not self.as_root:
            return ["--unshare-all", "--cap-drop", "ALL", *kept]
        separate = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        return [*separate, "--cap-drop", "ALL", *kept]

    def _sized_tmpfs(self, folder: str, num_bytes: int) -> list[str]:
        size = ["--size", str(num_bytes)] if self.version >= _SIZE_SINCE else []
        return ["--perms", "1777", *size, "--tmpfs", folder]


def _bind_arguments(folders: Iterable[str]) -> list[str]:
    """Return the arguments that make folders visible, with parents that every user can enter."""
    args: list[str] = []
    created = {"/tmp", "/dev", "/proc"}
    for folder in sorted(dict.fromkeys(folders)):
        if os.path.islink(folder) and folder.count("/") == 1:  # /bin and the like: links into /usr on most systems
            args += ["--symlink", os.readlink(folder), folder]
            continue
        for parent in reversed(Path(folder).parents[:-1]):
            if str(parent) not in created and not _is_within(str(parent), folders):
                args += ["--dir", str(parent)]  # readable by all; bubblewrap itself would make /root unreadable
                created.add(str(parent))
        args += ["--ro-bind-try", folder, folder]
    return args


def _is_within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
