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

MOUNT_POINT = "/sandbox"  # folder in the sandbox from which a zygote imports the package `inside`
_SIZE_SINCE = (0, 7)  # first version of bubblewrap with the option --size
# The zygote keeps these capabilities to create a job's namespaces, drop root privileges, and kill and measure the job's
# processes. Candidates keep no capability.
_KEPT = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL", "SYS_PTRACE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bubblewrap:
    """An installation of bubblewrap on this host."""

    executable: str
    version: tuple[int, ...]
    as_root: bool  # whether we are root; then there is no user namespace, and each candidate gets its own user id

    @staticmethod
    def find() -> "Bubblewrap":
        """Find bubblewrap on PATH.

        Raises:
            InputError: bubblewrap is not installed, or does not start.
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
        """Return the command line up to the command that runs inside the sandbox.

        Args:
            package_dir: folder that contains the package `inside`.
            folders: other paths to make visible, read-only.
            limits: gives the size of the zygote's own /tmp and /dev/shm; each job mounts new ones.
        """
        return [
            self.executable,
            *self._namespaces(),
            *("--as-pid-1", "--new-session", "--hostname", "sandbox"),
            *("--proc", "/proc", "--dev", "/dev"),
            *self._sized_tmpfs("/dev/shm", limits.tmp_bytes),
            *self._sized_tmpfs("/tmp", limits.tmp_bytes),
            *_bind_arguments(folders),  # after /tmp, because a Python installation may be below /tmp
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
        if os.path.islink(folder) and folder.count("/") == 1:  # e.g. /bin, a link into /usr on most systems
            args += ["--symlink", os.readlink(folder), folder]
            continue
        for parent in reversed(Path(folder).parents[:-1]):
            if str(parent) not in created and not _is_within(str(parent), folders):
                # Created explicitly, the parent is readable by all; bubblewrap itself would make e.g. /root unreadable.
                args += ["--dir", str(parent)]
                created.add(str(parent))
        args += ["--ro-bind-try", folder, folder]
    return args


def _is_within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
