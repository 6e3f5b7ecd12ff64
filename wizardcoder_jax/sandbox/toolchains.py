"""Toolchains of languages other than Python: finds them on this host, and describes how each compiles and runs a program."""

import dataclasses
import functools
import os
import re
import shutil
import subprocess
from typing import Any

from wizardcoder_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
    """How programs of a language are compiled and run, following MultiPL-E.

    Source: nuprl/MultiPL-E, evaluation/src/eval_<language>.py.
    """

    commands: tuple[str, ...]  # names of the executables that the language needs
    package: str  # name of the Debian or Ubuntu package that contains these executables
    version: tuple[str, ...]  # command that prints the version
    file: str  # name of the source file
    steps: tuple[tuple[str, ...], ...]  # commands; the last runs the program, the others compile it
    footer: str | None = None  # last line, which prints NONCE, if the language runs a file from top to bottom
    slowness: float = 1.0  # factor on the time limit, to allow for start-up and compilation


LANGUAGES = {
    "js": Language(
        commands=("node",),
        package="nodejs",
        version=("node", "--version"),
        file="program.js",
        steps=(("node", "program.js"),),
        footer="require('fs').writeSync(1, 'NONCE\\n');",
    ),
    "java": Language(
        commands=("javac", "java"),
        package="default-jdk-headless",
        version=("javac", "-version"),
        file="Problem.java",
        steps=(
            ("javac", "-encoding", "UTF8", "-cp", "JARS", "Problem.java"),
            ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-ea", "-cp", "JARS", "Problem"),
        ),
        slowness=4.0,
    ),
    "cpp": Language(
        commands=("g++",),
        package="g++",
        version=("g++", "--version"),
        file="program.cpp",
        steps=(("g++", "-std=c++17", "program.cpp", "-o", "program"), ("./program",)),
        slowness=4.0,
    ),
    "sh": Language(
        commands=("bash",),
        package="bash",
        version=("bash", "--version"),
        file="program.sh",
        steps=(("bash", "program.sh"),),
        footer="printf '%s\\n' NONCE",
    ),
    "php": Language(
        commands=("php",), package="php-cli", version=("php", "--version"), file="program.php", steps=(("php", "program.php"),)
    ),
    "rs": Language(
        commands=("rustc",),
        package="rustc",
        version=("rustc", "--version"),
        file="program.rs",
        steps=(("rustc", "--edition=2021", "-C", "link-arg=-fuse-ld=bfd", "program.rs", "-o", "program"), ("./program",)),
        slowness=4.0,
    ),
    "go": Language(
        commands=("go",),
        package="golang-go",
        version=("go", "version"),
        file="program_test.go",
        steps=(("go", "test", "program_test.go"),),
        slowness=10.0,
    ),
    "r": Language(
        commands=("Rscript",), package="r-base-core", version=("Rscript", "--version"), file="program.r",
        steps=(("Rscript", "program.r"),), footer='cat("NONCE\\n")', slowness=2.0,
    ),
}  # fmt: skip
ALIASES = {"go_test.go": "go", "rust": "rs", "javascript": "js", "c++": "cpp", "bash": "sh"}
JAVATUPLES = "javatuples-1.2.jar"  # imported by MultiPL-E's Java programs; Debian package libjavatuples-java
_JAR_PATHS = (f"/usr/share/java/{JAVATUPLES}", "/usr/share/java/javatuples.jar", f"/usr/multiple/{JAVATUPLES}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toolchain:
    """A language's toolchain on this host."""

    language: str
    version: str  # the first line that the version command prints
    paths: dict[str, str]  # command -> absolute path
    folders: tuple[str, ...]  # paths of the folders from which the toolchain reads

    @property
    def slowness(self) -> float:
        """Factor on the time limit of programs in this language."""
        return LANGUAGES[self.language].slowness

    def steps(self) -> dict[str, Any]:
        """Return how inside.tester is to run a program: {"steps", "file", "footer"}."""
        language = LANGUAGES[self.language]
        jars = ":".join(dict.fromkeys([".", *filter(None, [javatuples()]), *_class_path()]))
        steps = [
            {
                "command": [self.paths.get(word, jars if word == "JARS" else word) for word in step],
                "compiles": i < len(language.steps) - 1,
            }
            for i, step in enumerate(language.steps)
        ]
        return {"steps": steps, "file": language.file, "footer": language.footer}


@functools.cache
def toolchain(name: str) -> Toolchain:
    """Find the toolchain of a language.

    Raises:
        InputError: the language is unknown, or an executable of its toolchain is missing; the message names it.
    """
    name = ALIASES.get(name, name)
    language = LANGUAGES.get(name)
    if language is None:
        raise InputError(f"unknown language {name!r}; supported: python, {', '.join(LANGUAGES)}")
    paths: dict[str, str] = {}
    for command in language.commands:
        found = shutil.which(command)
        if found is None:
            raise InputError(f"{name} programs cannot run: {command} is missing; run apt-get install {language.package}")
        paths[command] = found
    folders: tuple[str, ...] = tuple(os.path.dirname(jar) for jar in _class_path())
    if name == "rs":
        root = _first_line(name, (paths["rustc"], "--print", "sysroot"))  # not the path of rustup's launcher
        paths["rustc"], folders = os.path.join(root, "bin", "rustc"), (root,)
    elif name == "go":
        root = _first_line(name, (paths["go"], "env", "GOROOT"))
        paths["go"], folders = os.path.join(root, "bin", "go"), (root, "/usr/share/go*")
    else:
        paths = {command: os.path.realpath(path) if name != "java" else path for command, path in paths.items()}
        folders += tuple(_installation(path) for path in paths.values() if not path.startswith("/usr/"))
    version = _first_line(name, (paths[language.version[0]], *language.version[1:]))
    return Toolchain(language=name, version=version, paths=paths, folders=tuple(dict.fromkeys(folders)))


def check_libraries(language: str) -> None:
    """Check that javatuples, which all Java programs of MultiPL-E import, is installed; other languages need no library.

    Raises:
        InputError: javatuples is missing; the message says what to install.
    """
    if language == "java" and javatuples() is None:
        raise InputError(
            f"multipl-e-java needs {JAVATUPLES}; run apt-get install libjavatuples-java, or set CLASSPATH to its path"
        )


def javatuples() -> str | None:
    """Return the path of the javatuples jar, from CLASSPATH or a system folder; None if it is missing."""
    named = [jar for jar in _class_path() if "javatuples" in jar]
    return next((jar for jar in (*named, *_JAR_PATHS) if os.path.isfile(jar)), None)


def _first_line(name: str, command: tuple[str, ...]) -> str:
    """Return the first line that a command of the toolchain `name` prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{name} programs cannot run: {' '.join(command)} does not work ({error})") from error
    return ((done.stdout or done.stderr).strip().splitlines() or [""])[0]


def _installation(path: str) -> str:
    """Return the folder above the bin folder that contains an executable, or the executable's own folder."""
    folder = os.path.dirname(os.path.realpath(path))
    return os.path.dirname(folder) if re.fullmatch(r"s?bin", os.path.basename(folder)) else folder


def _class_path() -> list[str]:
    """Return the paths of the existing jars in the user's CLASSPATH."""
    return [entry for entry in os.environ.get("CLASSPATH", "").split(":") if entry.endswith(".jar") and os.path.isfile(entry)]
