"""The command line that puts a zygote into a bubblewrap sandbox."""

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.sandbox.program import Limits

ROOM_INSIDE = "/sandbox"  # where the package `inside` appears
_SIZE_SINCE = (0, 7)  # first version with --size
_KEPT = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL", "SYS_PTRACE")  # of the zygote: to make a job's namespaces,
#   give root away, end and measure its processes; no candidate has any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bubblewrap:
    """An installed bubblewrap."""

    executable: str
    version: tuple[int, ...]
    as_root: bool  # we are root: no user namespace, each candidate gets a user id of its own

    @staticmethod
    def find() -> "Bubblewrap":
        """The bubblewrap on PATH.

        Raises:
            InputError: there is none.
        """
        executable = shutil.which("bwrap")
        if executable is None:
            raise InputError("bubblewrap is missing")
        try:
            shown = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=30).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{executable} does not run ({error})") from error
        version = tuple(int(number) for number in re.findall(r"\d+", shown))
        return Bubblewrap(executable=executable, version=version, as_root=os.geteuid() == 0)

    def command(self, room: str, folders: Iterable[str], limits: Limits) -> list[str]:
        """What comes before the command that is to run inside.

        Args:
            room: folder with the package `inside`.
            folders: what else is visible, read-only.
            limits: sizes of the zygote's own /tmp and /dev/shm; each job gets new ones.
        """
        return [
            self.executable,
            *self._namespaces(),
            *("--as-pid-1", "--new-session", "--hostname", "sandbox"),
            *("--proc", "/proc", "--dev", "/dev"),
            *self._sized_tmpfs("/dev/shm", limits.tmp_bytes),
            *self._sized_tmpfs("/tmp", limits.tmp_bytes),
            *_bound(folders),  # after /tmp: a Python installation may lie below it
            *("--ro-bind", os.path.join(room, "inside"), f"{ROOM_INSIDE}/inside"),
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


def _bound(folders: Iterable[str]) -> list[str]:
    args: list[str] = []
    made = {"/tmp", "/dev", "/proc"}
    for folder in sorted(dict.fromkeys(folders)):
        if os.path.islink(folder) and folder.count("/") == 1:  # /bin and its like: links into /usr on most systems
            args += ["--symlink", os.readlink(folder), folder]
            continue
        for parent in reversed(Path(folder).parents[:-1]):
            if str(parent) not in made and not _within(str(parent), folders):
                args += ["--dir", str(parent)]  # readable by all; by itself bubblewrap would make /root unreadable
                made.add(str(parent))
        args += ["--ro-bind-try", folder, folder]
    return args


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
