"""The command line that puts a Python script into a bubblewrap sandbox."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.sandbox.program import Limits

INSTALL_HINT = "install it with `apt-get install bubblewrap`, or accept the risk with --unsafe-no-sandbox"
SCRIPT_INSIDE = "/bootstrap.py"
_SIZE_SINCE = (0, 7)  # first version with --size
_LINKED_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # links into /usr on most systems


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bubblewrap:
    """An installed bubblewrap."""

    executable: str
    version: tuple[int, ...]
    as_root: bool  # we are root: no user namespace, the script gives root away itself

    @staticmethod
    def find() -> "Bubblewrap":
        """The bubblewrap on PATH.

        Raises:
            InputError: there is none.
        """
        executable = shutil.which("bwrap")
        if executable is None:
            raise InputError(f"programs cannot be isolated: bubblewrap is missing; {INSTALL_HINT}")
        try:
            shown = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=30).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"programs cannot be isolated: {executable} does not run ({error}); {INSTALL_HINT}") from error
        version = tuple(int(number) for number in re.findall(r"\d+", shown))
        return Bubblewrap(executable=executable, version=version, as_root=os.geteuid() == 0)

    def command(self, script: str, limits: Limits) -> list[str]:
        """Runs `script` (which appears as SCRIPT_INSIDE) with this Python, isolated; the script's arguments may follow."""
        return [
            self.executable,
            *self._namespaces(),
            *("--die-with-parent", "--new-session", "--hostname", "sandbox"),
            *("--proc", "/proc", "--dev", "/dev"),
            *self._sized_tmpfs("/dev/shm", limits.tmp_bytes),
            *self._sized_tmpfs("/tmp", limits.tmp_bytes),
            *_visible_folders(),  # after /tmp: the Python installation may lie below it
            *("--ro-bind", script, SCRIPT_INSIDE),
            *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"),
            *python_command(SCRIPT_INSIDE),
        ]

    def _namespaces(self) -> list[str]:
        if not self.as_root:
            return ["--unshare-all", "--cap-drop", "ALL"]
        kept = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # to give root away; gone with it
        separate = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        return [*separate, "--cap-drop", "ALL", *kept]

    def _sized_tmpfs(self, folder: str, num_bytes: int) -> list[str]:
        size = ["--size", str(num_bytes)] if self.version >= _SIZE_SINCE else []
        return ["--perms", "1777", *size, "--tmpfs", folder]


def python_command(script: str) -> list[str]:
    """Runs `script` with this interpreter (not the virtual environment's link to it), without site customisation.

    -S skips .pth files, which may run code and name folders that are not visible inside; package folders are passed as
    arguments instead.
    """
    return [os.path.realpath(sys.executable), "-s", "-S", "-P", "-B", script, *_package_folders()]


def _package_folders() -> list[str]:
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def _visible_folders() -> list[str]:
    args = ["--ro-bind", "/usr", "/usr"]
    for folder in _LINKED_FOLDERS:
        if os.path.islink(folder):
            args += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            args += ["--ro-bind", folder, folder]
    args += ["--dir", "/etc"]
    for file in ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives"):
        args += ["--ro-bind-try", file, file]
    interpreter = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    folders = dict.fromkeys([interpreter, sys.base_prefix, *_package_folders()])
    for folder in sorted(folders):
        if not folder.startswith("/usr/") and folder not in ("/", "/usr"):
            for parent in reversed(Path(folder).parents[:-1]):
                args += ["--dir", str(parent)]  # readable by all; by itself bubblewrap would make /root unreadable
            args += ["--ro-bind-try", folder, folder]
    return args
