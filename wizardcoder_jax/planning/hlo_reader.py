"""Reader of a TPU program's HLO text: the compiler's cost estimate of each operation, and how often the operation runs.

JAX's `cost_analysis()` is not sufficient: it counts the body of a loop once and does not estimate time. The HLO text contains
`estimated_cycles` for most operations, and the trip counts of loops. Pallas kernels and collectives have no cycles; they are
listed separately, and compiled_time.py estimates their time.
"""

import collections
import dataclasses
import math
import re

from wizardcoder_jax.planning.hlo_operations import OPERATION_NAME, matmul_flops, parse_group_size, parse_shapes

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_OP = re.compile(r" ([a-z][a-z\-]*)\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=\{?%?([\w.\-]+(?:, ?%?[\w.\-]+)*)"
)
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_NO_ESTIMATE = 2**63 - 1  # value of estimated_cycles if the compiler has no estimate
# Targets of custom calls that move or mark data and compute nothing.
_NOT_KERNELS = {"AllocateBuffer", "ConcatBitcast", "Sharding", "X64Combine", "MoveToHost", "MoveToDevice"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective operation."""

    kind: str  # HLO opcode, e.g. "all-gather"
    num_bytes: int  # bytes of the complete array that each device gathers, reduces or sends
    group_size: int  # number of devices in a group
    num_runs: int  # number of executions
    overlapped_cycles: int  # cycles, over all executions, of the operations that run at the same time; 0 without overlap


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledProgram:
    """Total costs of a program on one device."""

    cycles: int  # cycles of all operations that have an estimate
    matmul_cycles: int  # cycles of matrix products
    flops: float  # FLOPs of all matrix products outside kernels
    kernels: dict[str, int]  # name of each kernel -> number of executions
    collectives: tuple[Collective, ...]
    num_guessed_loops: int  # number of loops whose trip count is not in the HLO text


def read_program(text: str, guessed_trips: int, flops_per_cycle: float = math.inf) -> CompiledProgram:
    """Sum up the costs of a program.

    Args:
        text: HLO text of the program, `compiled.as_text()`.
        guessed_trips: trip count of loops whose bound depends on data.
        flops_per_cycle: assumed rate of matrix products for which the compiler gives no cycles.
    """
    return _Reader(text, guessed_trips, flops_per_cycle).read()


class _Reader:
    def __init__(self, text: str, guessed_trips: int, flops_per_cycle: float) -> None:
        self._guessed_trips, self._flops_per_cycle, self._entry = guessed_trips, flops_per_cycle, ""
        self._lines: dict[str, list[str]] = {}
        computation: list[str] = []
        for line in text.splitlines():
            head = None if line.startswith(" ") else _HEAD.match(line)
            if head:
                computation = self._lines[head[2]] = []
                self._entry = head[2] if head[1] else self._entry
            elif " = " in line:
                computation.append(line.strip())
        self._cycles = self._matmul_cycles = self._num_guessed_loops = 0
        self._flops = 0.0
        self._kernels: collections.Counter[str] = collections.Counter()
        self._collectives: dict[str, Collective] = {}

    def read(self) -> CompiledProgram:
        self._walk(self._entry, 1)
        return CompiledProgram(
            cycles=self._cycles,
            matmul_cycles=self._matmul_cycles,
            flops=self._flops,
            kernels=dict(self._kernels),
            collectives=tuple(self._collectives.values()),
            num_guessed_loops=self._num_guessed_loops,
        )

    def _walk(self, computation: str, num_runs: int) -> None:
        """Add the costs of a computation that is executed `num_runs` times."""
        for line in self._lines.get(computation, ()):
            found = _OP.search(line.split(" = ", 1)[1])
            op = found[1] if found else ""
            self._add_cycles(line, op, num_runs)
            if op == "while":
                body, condition = re.search(r"body=%?([\w.\-]+)", line), re.search(r"condition=%?([\w.\-]+)", line)
                assert body and condition, line
                self._walk(body[1], num_runs * self._trips(condition[1], line))
            elif op in ("call", "async-start", "conditional"):
                for called in _called(line):
                    self._walk(called, num_runs)
            elif op == "fusion":
                self._add_fusion(line, num_runs)
            elif op == "custom-call":
                self._add_kernel(line, num_runs)
            elif op in ("convolution", "dot"):
                self._flops += num_runs * matmul_flops(line, self._lines[computation])
            elif op.removesuffix("-start") in _COLLECTIVES:
                overlapped = self._cycles_until_done(computation, line) if op.endswith("-start") else 0
                self._add_collective(line, op.removesuffix("-start"), num_runs, num_runs * overlapped)

    def _add_fusion(self, line: str, num_runs: int) -> None:
        """Add a fusion's matrix products (and their cycles, if it has no estimate) and the collectives that overlap with it."""
        found: list[tuple[str, str]] = []
        flops = self._flops
        for called in _called(line):
            self._add_inside_fusion(called, num_runs, found)
        cycles = num_runs * _cycles(line)
        if not cycles:
            cycles = int((self._flops - flops) / self._flops_per_cycle)
            self._cycles += cycles
            self._matmul_cycles += cycles
        overlapped = cycles // max(len(found), 1)
        for kind, inner in found:
            self._add_collective(inner, kind, num_runs, overlapped)

    def _add_inside_fusion(self, computation: str, num_runs: int, collectives: list[tuple[str, str]]) -> None:
        """Add the matrix products in a computation, and append (kind, HLO line) of each collective to `collectives`."""
        lines = self._lines.get(computation, ())
        scatters = "scatter" in computation or any(" dynamic-slice(" in line for line in lines)
        for line in lines:
            found = _OP.search(line.split(" = ", 1)[1])
            op = found[1] if found else ""
            if op in ("convolution", "dot"):
                self._flops += num_runs * matmul_flops(line, lines)
            elif op.removesuffix("-start") in _COLLECTIVES:
                kind = op.removesuffix("-start")
                # Inside a fusion, HLO writes a reduce-scatter as an all-reduce followed by a slice.
                collectives.append(("reduce-scatter" if scatters and kind == "all-reduce" else kind, line))
            for called in _called(line) if op == "fusion" else ():
                self._add_inside_fusion(called, num_runs, collectives)

    def _cycles_until_done(self, computation: str, start: str) -> int:
        """Return the cycles of the operations between a collective's start and done operations."""
        lines, named = self._lines[computation], OPERATION_NAME.match(start)
        assert named, start
        cycles = 0
        for line in lines[lines.index(start) + 1 :]:
            if "-done(" in line and f"%{named[1]})" in line:
                return cycles
            cycles += _cycles(line)
        return 0

    def _add_cycles(self, line: str, op: str, num_runs: int) -> None:
        cycles = num_runs * _cycles(line)
        self._cycles += cycles
        if op == "convolution" or "kind=kOutput" in line or "convolution_algorithm" in line:
            self._matmul_cycles += cycles

    def _add_kernel(self, line: str, num_runs: int) -> None:
        target = re.search(r'custom_call_target="([^"]*)"', line)
        if target and target[1] not in _NOT_KERNELS:
            operation = OPERATION_NAME.match(line)
            name = re.sub(r"[.\d]+$", "", operation[1]) if operation else ""
            self._kernels[name if target[1] == "tpu_custom_call" else target[1]] += num_runs

    def _add_collective(self, line: str, kind: str, num_runs: int, overlapped_cycles: int) -> None:
        sizes = [size for _, size in parse_shapes(line.split(" = ", 1)[1].split(f" {kind}", 1)[0])] or [0]
        size, group_size = max(sizes), parse_group_size(line)
        if kind == "reduce-scatter" and " reduce-scatter" in line:
            # The result has the size that each device receives; other results, of at most 64 bytes, are bookkeeping.
            size = (min(s for s in sizes if s > 64) if max(sizes) > 64 else size) * group_size
        # An overlapped collective appears at its start, in each overlapping operation and at its end, with the same chain id.
        chain = re.search(r'chain_id="?(\d+)', line)
        key = chain[0] if chain else f"{len(self._collectives)}"
        overlapped_cycles += self._collectives[key].overlapped_cycles if key in self._collectives else 0
        self._collectives[key] = Collective(
            kind=kind, num_bytes=size, group_size=group_size, num_runs=num_runs, overlapped_cycles=overlapped_cycles
        )

    def _trips(self, condition: str, line: str) -> int:
        """Return the trip count of a loop: the constant in its condition, or `guessed_trips` if there is none."""
        known = re.search(r"known_trip_count[^\d]*(\d+)", line)
        if known:
            return int(known[1])
        constants: dict[str, int] = {}
        for text in self._lines.get(condition, ()):
            found = re.match(r"(?:ROOT )?%?([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)", text)
            if found:
                constants[found[1]] = int(found[2])
        if len(constants) == 1:
            return next(iter(constants.values()))
        for text in self._lines.get(condition, ()):
            compared = re.findall(r"%?([\w.\-]+)", text.split("compare(", 1)[1].split(")", 1)[0]) if "compare(" in text else []
            for name in compared:
                if name in constants:
                    return constants[name]
        self._num_guessed_loops += 1
        return self._guessed_trips


def _cycles(line: str) -> int:
    """Return the estimated cycles of an operation; 0 if the compiler has no estimate."""
    found = re.search(r'"estimated_cycles":"(\d+)"', line)
    return int(found[1]) if found and int(found[1]) < _NO_ESTIMATE else 0


def _called(line: str) -> list[str]:
    return [name.strip(" %") for found in _CALLED.findall(line) for name in found.split(",")]
