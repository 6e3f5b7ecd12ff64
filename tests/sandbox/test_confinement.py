import re
import struct
from pathlib import Path

import pytest

from wizardcoder_jax.sandbox.inside import confine, seccomp

pytestmark = pytest.mark.quick


def test_the_filter_is_well_formed_on_both_architectures(monkeypatch):
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr(seccomp.platform, "machine", lambda machine=machine: machine)
        for namespaces in (False, True):
            context = seccomp.FilterContext(namespaces=namespaces, own_uid=False, signals_scoped=False)
            code = seccomp.program(context, pid=1)
            operations = [struct.unpack_from("<HBBI", code, i) for i in range(0, len(code), 8)]
            for i, (kind, if_true, if_false, _) in enumerate(operations):
                if kind & 7 == 5:  # a jump must stay inside the program
                    assert i + 1 + max(if_true, if_false) < len(operations)
            assert operations[-1] == (6, 0, 0, 0x7FFF0000)


@pytest.mark.parametrize("header", ["x86_64-linux-gnu/asm/unistd_64.h", "asm-generic/unistd.h"])
def test_system_call_numbers_equal_those_of_the_kernel_headers(header):
    path = Path("/usr/include", header)
    if not path.exists():
        pytest.skip(f"no {path}; apt-get install linux-libc-dev")
    numbers = {}
    for found in re.finditer(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()):
        numbers.setdefault(found[1], int(found[2]))
    column = 0 if "x86" in header else 1
    known = {
        **seccomp.REFUSED,
        **seccomp.REFUSED_WITHOUT_NAMESPACES,
        **seccomp.REFUSED_WITHOUT_OWN_UID,
        **seccomp.SIGNALS_BY_PID,
    }
    wrong = {name: both for name, both in known.items() if name in numbers and both[column] != numbers[name]}
    assert not wrong
    assert len(numbers.keys() & known.keys()) > 90


def test_resource_limits_are_never_raised(monkeypatch):
    set_to = []
    monkeypatch.setattr(confine.resource, "getrlimit", lambda kind: (50, 100))
    monkeypatch.setattr(confine.resource, "setrlimit", lambda kind, pair: set_to.append(pair))
    confine.lower_limit(0, 80)
    confine.lower_limit(0, 400)
    assert set_to == [(80, 80), (100, 100)]
