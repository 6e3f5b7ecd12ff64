"""Toolchains of languages other than Python: which this host has, and how each compiles and runs a program."""

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

    commands: tuple[str, ...]  # executables it needs
    package: str  # the Debian and Ubuntu package that contains them
    version: tuple[str, ...]  # the command that prints the version
    file: str  # name of the source file
    steps: tuple[tuple[str, ...], ...]  # the last step runs the program, the others compile; JARS: the class path
    footer: str | None = None  # prints NONCE, in languages that execute the end of the file last
    slowness: float = 1.0  # factor on the time limit, for starting and compiling


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
JAVATUPLES = "javatuples-1.2.jar"  # imported by MultiPL-E's Java programs; Debian: libjavatuples-java
_JAR_PATHS = (f"/usr/share/java/{JAVATUPLES}", "/usr/share/java/javatuples.jar", f"/usr/multiple/{JAVATUPLES}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toolchain:
    """A language's toolchain on this host."""

    language: str
    version: str  # the first line that the version command prints
    paths: dict[str, str]  # command -> absolute path
    folders: tuple[str, ...]  # folders it reads

    @property
    def slowness(self) -> float:
        """The factor on the time limit of its programs."""
        return LANGUAGES[self.language].slowness

    def steps(self) -> dict[str, Any]:
        """Return the instructions for inside.tester: {"steps", "file", "footer"}."""
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
        InputError: the language is unknown, or a program of its toolchain is missing; the message names it.
    """
    name = ALIASES.get(name, name)
    language = LANGUAGES.get(name)
    if language is None:
        raise InputError(f"no language {name!r}; known: python, {', '.join(LANGUAGES)}")
    paths: dict[str, str] = {}
    for command in language.commands:
        found = shutil.which(command)
        if found is None:
            raise InputError(f"{name} programs cannot run: {command} is missing; apt-get install {language.package}")
        paths[command] = found
    folders: tuple[str, ...] = tuple(os.path.dirname(jar) for jar in _class_path())
    if name == "rs":
        root = _first_line(name, (paths["rustc"], "--print", "sysroot"))  # not rustup's launcher, which may be first on PATH
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
    """Check that the library every Java program of MultiPL-E imports is installed; other languages need none.

    Raises:
        InputError: it is missing; the message says what to install.
    """
    if language == "java" and javatuples() is None:
        raise InputError(f"multipl-e-java needs {JAVATUPLES}: apt-get install libjavatuples-java, or set CLASSPATH to it")


def javatuples() -> str | None:
    """Return the path of javatuples, from CLASSPATH or where packages install it; None if it is missing."""
    named = [jar for jar in _class_path() if "javatuples" in jar]
    return next((jar for jar in (*named, *_JAR_PATHS) if os.path.isfile(jar)), None)


def _first_line(name: str, command: tuple[str, ...]) -> str:
    """Return the first line that a command of a toolchain prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{name} programs cannot run: {' '.join(command)} does not work ({error})") from error
    return ((done.stdout or done.stderr).strip().splitlines() or [""])[0]


def _installation(path: str) -> str:
    """Return the folder above bin/ of a program outside /usr, or the program's own folder."""
    folder = os.path.dirname(os.path.realpath(path))
    return os.path.dirname(folder) if re.fullmatch(r"s?bin", os.path.basename(folder)) else folder


def _class_path() -> list[str]:
    """Return the jars that the user's CLASSPATH names."""
    return [entry for entry in os.environ.get("CLASSPATH", "").split(":") if entry.endswith(".jar") and os.path.isfile(entry)]
