"""A Python installation that programs run with."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import sysconfig

from wizardcoder_jax.core.errors import InputError

_OLDEST = (3, 10)
_QUESTION = (
    "import json, os, sys, sysconfig\n"
    "print(json.dumps({'executable': os.path.realpath(sys.executable), 'version': sys.version_info[:3], 'prefix':"
    " sys.base_prefix, 'packages': [sysconfig.get_path(name) for name in ('purelib', 'platlib')]}))"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpreter:
    """Where it is, and what it needs to see."""

    executable: str  # the file itself, not a virtual environment's link to it
    prefix: str
    packages: tuple[str, ...]  # folders of installed packages
    version: str

    def command(self, room: str, arguments: list[str]) -> list[str]:
        """Starts the zygote.

        -S skips .pth files, which may run code and name folders that are not visible inside; the package folders are added
        here instead, after the room's own has been taken away.

        Args:
            room: folder that holds the package `inside`.
            arguments: the zygote's, as literals.
        """
        code = (
            f"import sys; sys.path.insert(0, {room!r}); from inside.zygote import start; "
            f"sys.path[:2] = []; sys.path += {list(self.packages)!r}; start({', '.join(arguments)})"
        )
        return [self.executable, "-s", "-S", "-B", "-c", code]

    def folders(self) -> tuple[str, ...]:
        """All that it reads."""
        installation = os.path.dirname(os.path.dirname(self.executable))
        return tuple(dict.fromkeys([installation, self.prefix, *self.packages]))

    @staticmethod
    def own() -> "Interpreter":
        """The one that runs this."""
        return Interpreter(
            executable=os.path.realpath(sys.executable),
            prefix=sys.base_prefix,
            packages=tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))),
            version=".".join(map(str, sys.version_info[:3])),
        )


@functools.cache
def find(path: str | None) -> Interpreter:
    """The interpreter of that path; None: our own.

    Raises:
        InputError: there is none, or it is too old.
    """
    if path is None:
        return Interpreter.own()
    try:
        done = subprocess.run([path, "-c", _QUESTION], capture_output=True, text=True, timeout=60, check=True)
        told = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(f"--python {path} does not run ({error}); give the path of a Python interpreter") from error
    version = ".".join(map(str, told["version"]))
    if tuple(told["version"][:2]) < _OLDEST:
        raise InputError(f"--python {path} is Python {version}; it must be {'.'.join(map(str, _OLDEST))} or later")
    packages = tuple(dict.fromkeys(told["packages"]))
    return Interpreter(executable=told["executable"], prefix=told["prefix"], packages=packages, version=version)
