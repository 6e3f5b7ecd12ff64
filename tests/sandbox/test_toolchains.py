import re

import pytest

from tests.helpers.sandbox_runs import TIERS, TIMEOUT_S, open_or_skip
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.toolchains import LANGUAGES, check_libraries, javatuples, toolchain

PROGRAMS = {  # language -> (candidate, test that passes, test that fails, reason of the failure)
    "js": (
        "function f(x) { return x + 1 }\n",
        "require('assert').strictEqual(f(1), 2);",
        "require('assert').strictEqual(f(1), 3);",
        "assertion",
    ),
    "sh": ("f() { echo $(($1 + 1)); }\n", '[ "$(f 1)" = 2 ] || exit 1', '[ "$(f 1)" = 3 ] || exit 1', "exit"),
    "cpp": (
        "#include <cassert>\nint f(int x) { return x + 1; }\n",
        "int main() { assert(f(1) == 2); }",
        "int main() { assert(f(1) == 3); }",
        "assertion",
    ),
    "java": (
        "class Problem { static int f(int x) { return x + 1; }\n",
        "public static void main(String[] a) { assert f(1) == 2; } }",
        "public static void main(String[] a) { assert f(1) == 3; } }",
        "assertion",
    ),
    "rs": (
        "fn f(x: i32) -> i32 { x + 1 }\n",
        "fn main() { assert_eq!(f(1), 2); }",
        "fn main() { assert_eq!(f(1), 3); }",
        "assertion",
    ),
    "php": (
        "<?php function f($x) { return $x + 1; }\n",
        "if (f(1) !== 2) { throw new Exception('no'); }",
        "if (f(1) !== 3) { throw new Exception('no'); }",
        "exception:Exception",
    ),
    "r": ("f <- function(x) x + 1\n", "if (f(1) != 2) quit(status = 1)", "if (f(1) != 3) quit(status = 1)", "exit"),
    "go": (
        'package f_test\nimport "testing"\nfunc f(x int) int { return x + 1 }\n',
        'func TestF(t *testing.T) { if f(1) != 2 { t.Errorf("no") } }',
        'func TestF(t *testing.T) { if f(1) != 3 { t.Errorf("no") } }',
        "assertion",
    ),
}


def is_installed(language):
    """Return whether the toolchain of a language is installed; if not, check that the error names the missing program."""
    try:
        toolchain(language)
    except InputError as error:
        assert re.match(rf"{language} programs cannot run: \S+ .*is missing; run apt-get install \S+", str(error))
        return False
    return True


@pytest.fixture(scope="module")
def open_tier():
    opened = {}

    def open_once(tier):
        if tier not in opened:
            opened[tier] = open_or_skip(tier)
        return opened[tier]

    yield open_once
    for sandbox in opened.values():
        sandbox.stop()


def check_language(sandbox, language):
    candidate, right, wrong, reason = PROGRAMS[language]
    if not is_installed(language):
        with pytest.raises(InputError, match=f"{language} programs cannot run"):
            sandbox.run(Program(candidate=candidate, test=right, language=language), TIMEOUT_S)
        return
    verdicts = [sandbox.run(Program(candidate=candidate, test=test, language=language), TIMEOUT_S) for test in (right, wrong)]
    assert [verdict.reason for verdict in verdicts] == ["passed", reason], verdicts
    assert all(verdict.forgeable for verdict in verdicts)
    broken = sandbox.run(Program(candidate="@@ ( {", test=right, language=language), TIMEOUT_S)
    assert not broken.passed and broken.reason != "sandbox"


@pytest.mark.parametrize("language", PROGRAMS)
def test_programs_of_other_languages_are_compiled_and_run(open_tier, language):
    check_language(open_tier(TIERS[0]), language)


def test_a_compiled_language_works_in_landlock(open_tier):
    check_language(open_tier(TIERS[1]), "cpp")


@pytest.mark.slow
@pytest.mark.parametrize("language", sorted(PROGRAMS.keys() - {"cpp"}))
def test_every_language_works_in_landlock(open_tier, language):
    check_language(open_tier(TIERS[1]), language)


@pytest.mark.parametrize(("language", "candidate"), [("js", "process.exit(0)\n"), ("sh", "exit 0\n")])
def test_scripts_that_exit_early_do_not_pass(each_tier, language, candidate):
    if not is_installed(language):
        return
    assert each_tier.run(Program(candidate=candidate, test="", language=language), TIMEOUT_S).reason == "exit"


def test_programs_of_other_languages_are_isolated_and_limited(each_tier, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    program = Program(candidate=f"cat {secret}\n", test="[ $? = 0 ] || exit 1", language="sh")
    assert each_tier.run(program, TIMEOUT_S).reason == "exit"
    assert each_tier.run(Program(candidate="yes\n", test="", language="sh"), 0.3).reason == "timeout"


def test_every_toolchain_is_found_or_named_as_missing(monkeypatch):
    assert set(PROGRAMS) == set(LANGUAGES)
    for language in LANGUAGES:
        is_installed(language)
    toolchain.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="js programs cannot run: node is missing; run apt-get install nodejs"):
        toolchain("js")
    toolchain.cache_clear()
    with pytest.raises(InputError, match="unknown language 'cobol'; supported: python, js"):
        toolchain("cobol")


def test_java_needs_the_javatuples_library(monkeypatch, tmp_path):
    monkeypatch.setenv("CLASSPATH", "")
    if javatuples() is None:
        with pytest.raises(InputError, match="javatuples"):
            check_libraries("java")
    (tmp_path / "javatuples-1.2.jar").write_bytes(b"")
    monkeypatch.setenv("CLASSPATH", f"x.jar:{tmp_path / 'javatuples-1.2.jar'}")
    check_libraries("java")
