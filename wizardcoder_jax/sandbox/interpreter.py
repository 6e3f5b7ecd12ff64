"""Python interpreters that run programs: the current one, or one that is given by its path."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import sysconfig

from wizardcoder_jax.core.errors import InputError

_OLDEST = (3, 10)
_DESCRIBE = (
    "import json, os, sys, sysconfig\n"
    "print(json.dumps({'executable': os.path.realpath(sys.executable), 'version': sys.version_info[:3], 'prefix':"
    " sys.base_prefix, 'packages': [sysconfig.get_path(name) for name in ('purelib', 'platlib')]}))"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python executable and the folders from which it reads."""

    executable: str  # path of the file itself, not of a virtual environment's link to it
    prefix: str
    packages: tuple[str, ...]  # paths of the folders with installed packages
    version: str

    def zygote_command(self, package_dir: str, arguments: list[str]) -> list[str]:
        """Return the command that starts the zygote with this interpreter.

        The option -S skips .pth files, which may run code and name folders that are not visible in the sandbox. Instead, the
        command itself adds the package folders to sys.path, after it has removed `package_dir`.

        Args:
            package_dir: folder that contains the package `inside`.
            arguments: the zygote's arguments, as Python literals.
        """
        code = (
            f"import sys; sys.path.insert(0, {package_dir!r}); from inside.zygote import start; "
            f"sys.path[:2] = []; sys.path += {list(self.packages)!r}; start({', '.join(arguments)})"
        )
        return [self.executable, "-s", "-S", "-B", "-c", code]

    def folders(self) -> tuple[str, ...]:
        """Return every folder from which the interpreter reads."""
        installation = os.path.dirname(os.path.dirname(self.executable))
        return tuple(dict.fromkeys([installation, self.prefix, *self.packages]))

    @staticmethod
    def current() -> "Interpreter":
        """Return the interpreter that runs this process."""
        return Interpreter(
            executable=os.path.realpath(sys.executable),
            prefix=sys.base_prefix,
            packages=tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))),
            version=".".join(map(str, sys.version_info[:3])),
        )


@functools.cache
def find_interpreter(path: str | None) -> Interpreter:
    """Return the interpreter at a path, or the current one for None.

    Raises:
        InputError: there is no working Python at that path, or its version is too old.
    """
    if path is None:
        return Interpreter.current()
    try:
        done = subprocess.run([path, "-c", _DESCRIBE], capture_output=True, text=True, timeout=60, check=True)
        description = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(f"--python {path} does not run ({error}); give the path of a Python interpreter") from error
    version = ".".join(map(str, description["version"]))
    if tuple(description["version"][:2]) < _OLDEST:
        raise InputError(f"--python {path} is Python {version}; it must be {'.'.join(map(str, _OLDEST))} or later")
    packages = tuple(dict.fromkeys(description["packages"]))
    return Interpreter(executable=description["executable"], prefix=description["prefix"], packages=packages, version=version)
