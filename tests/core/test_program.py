import dataclasses

import pytest

from wizardcoder_jax.core.program import Program

pytestmark = pytest.mark.quick


def test_changing_any_field_changes_the_digest():
    base = Program(candidate="a", test="b")
    changes = (
        {"candidate": "ab", "test": ""}, {"test": "c"}, {"candidate": "\ud800"}, {"entry_point": "f"}, {"helpers": ("f",)},
        {"helpers": ("f", "g")}, {"language": "js"}, {"python": "/usr/bin/python3"},
    )  # fmt: skip
    assert len({base.digest(), *(dataclasses.replace(base, **change).digest() for change in changes)}) == 1 + len(changes)


def test_digests_are_those_of_existing_work_logs():
    program = Program(candidate="def f(): return 1", test="assert f() == 1", entry_point="f", helpers=("g",))
    assert program.digest() == "5215738ba716a5d5f1fde498250de2291c6e441bcba1f65370acd5cc5743adb6"
