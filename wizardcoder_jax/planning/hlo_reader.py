"""Reads the compiler's text of a program for TPUs: what each operation costs by its own estimate, and how often it is run.

`cost_analysis()` counts a loop's body once, and its time is no estimate of time. The text says more: operations carry the
compiler's `estimated_cycles`, loops a bound in their condition. Kernels (Pallas) and collectives carry no cycles; they are
told apart, for the estimate to add (estimate.py).
"""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

BITS = {"pred": 8, "s4": 4, "u4": 4, "s64": 64, "u64": 64}  # of a type whose name does not say its bytes as they lie
_SHAPE = re.compile(r"\b(pred|bf16|f16|f32|f64|s4|s8|s16|s32|s64|u4|u8|u16|u32|u64|f8e\w+)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_OP = re.compile(r" ([a-z][a-z\-]*)\(")
_NAME = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=\{?%?([\w.\-]+(?:, ?%?[\w.\-]+)*)"
)
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_NO_ESTIMATE = 2**63 - 1
_NO_KERNELS = {"AllocateBuffer", "ConcatBitcast", "Sharding", "X64Combine", "MoveToHost", "MoveToDevice"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One exchange between devices."""

    kind: str
    num_bytes: int  # of the whole that is gathered, reduced or passed on, as each device has it
    group: int  # devices that take part
    times: int  # it is run
    beside_cycles: int  # of the operations that carry it on, in all: none where it is waited for


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledProgram:
    """What one device does."""

    cycles: int  # of all operations that have an estimate
    matmul_cycles: int  # of those, on the matrix units
    flops: float  # of all matrix products but those in kernels
    kernels: dict[str, int]  # name -> times it is run
    collectives: tuple[Collective, ...]
    num_guessed: int  # loops whose bound is not in the text


def read_program(text: str, guessed_trips: int, flops_per_cycle: float = math.inf) -> CompiledProgram:
    """Sums up a program.

    Args:
        text: `compiled.as_text()`.
        guessed_trips: how often a loop runs whose bound depends on data.
        flops_per_cycle: of matrix products that the compiler gives no cycles.
    """
    return _Reader(text, guessed_trips, flops_per_cycle).read()


class _Reader:
    def __init__(self, text: str, guessed_trips: int, flops_per_cycle: float) -> None:
        self._guessed_trips, self._flops_per_cycle, self._entry = guessed_trips, flops_per_cycle, ""
        self._lines: dict[str, list[str]] = {}
        here: list[str] = []
        for line in text.splitlines():
            head = None if line.startswith(" ") else _HEAD.match(line)
            if head:
                here = self._lines[head[2]] = []
                self._entry = head[2] if head[1] else self._entry
            elif " = " in line:
                here.append(line.strip())
        self._cycles = self._matmul_cycles = self._guessed = 0
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
            num_guessed=self._guessed,
        )

    def _walk(self, computation: str, times: int) -> None:
        """Adds what a computation that runs so many times does."""
        for line in self._lines.get(computation, ()):
            found = _OP.search(line.split(" = ", 1)[1])
            op = found[1] if found else ""
            self._add_cycles(line, op, times)
            if op == "while":
                body, condition = re.search(r"body=%?([\w.\-]+)", line), re.search(r"condition=%?([\w.\-]+)", line)
                assert body and condition, line
                self._walk(body[1], times * self._trips(condition[1], line))
            elif op in ("call", "async-start", "conditional"):
                for called in _called(line):
                    self._walk(called, times)
            elif op == "fusion":
                self._look_into_fusion(line, times)
            elif op == "custom-call":
                self._add_kernel(line, times)
            elif op in ("convolution", "dot"):
                self._flops += times * _flops(line, self._lines[computation])
            elif op.removesuffix("-start") in _COLLECTIVES:
                beside = self._until_done(computation, line) if op.endswith("-start") else 0
                self._add_collective(line, op.removesuffix("-start"), times, times * beside)

    def _look_into_fusion(self, line: str, times: int) -> None:
        """Adds the products of a fusion, their cycles where it tells none, and the collectives that it carries on meanwhile."""
        found: list[tuple[str, str]] = []
        flops = self._flops
        for called in _called(line):
            self._look_into(called, times, found)
        cycles = times * _cycles(line)
        if not cycles:
            cycles = int((self._flops - flops) / self._flops_per_cycle)
            self._cycles += cycles
            self._matmul_cycles += cycles
        beside = cycles // max(len(found), 1)
        for kind, inner in found:
            self._add_collective(inner, kind, times, beside)

    def _look_into(self, computation: str, times: int, collectives: list[tuple[str, str]]) -> None:
        """Adds the products in a computation, and to `collectives` the kind and the text of each."""
        lines = self._lines.get(computation, ())
        scatters = "scatter" in computation or any(" dynamic-slice(" in line for line in lines)
        for line in lines:
            found = _OP.search(line.split(" = ", 1)[1])
            op = found[1] if found else ""
            if op in ("convolution", "dot"):
                self._flops += times * _flops(line, lines)
            elif op.removesuffix("-start") in _COLLECTIVES:
                kind = op.removesuffix("-start")
                # a reduce-scatter is told as an all-reduce of which a part is taken
                collectives.append(("reduce-scatter" if scatters and kind == "all-reduce" else kind, line))
            for called in _called(line) if op == "fusion" else ():
                self._look_into(called, times, collectives)

    def _until_done(self, computation: str, start: str) -> int:
        """Cycles of the operations between the start of a collective and its end."""
        lines, named = self._lines[computation], _NAME.match(start)
        assert named, start
        cycles = 0
        for line in lines[lines.index(start) + 1 :]:
            if "-done(" in line and f"%{named[1]})" in line:
                return cycles
            cycles += _cycles(line)
        return 0

    def _add_cycles(self, line: str, op: str, times: int) -> None:
        cycles = times * _cycles(line)
        self._cycles += cycles
        if op == "convolution" or "kind=kOutput" in line or "convolution_algorithm" in line:
            self._matmul_cycles += cycles

    def _add_kernel(self, line: str, times: int) -> None:
        target = re.search(r'custom_call_target="([^"]*)"', line)
        if target and target[1] not in _NO_KERNELS:
            name = _NAME.match(line)
            own = re.sub(r"[.\d]+$", "", name[1]) if name else ""
            self._kernels[own if target[1] == "tpu_custom_call" else target[1]] += times

    def _add_collective(self, line: str, kind: str, times: int, beside_cycles: int) -> None:
        sizes = [size for _, size in _shapes(line.split(" = ", 1)[1].split(f" {kind}", 1)[0])] or [0]
        size, group = max(sizes), _group_size(line)
        if kind == "reduce-scatter" and " reduce-scatter" in line:
            size = (min(s for s in sizes if s > 64) if max(sizes) > 64 else size) * group  # it tells what each device is given
        # one that others carry on is told by its start, by each of those and by its end, with one number
        chain = re.search(r'chain_id="?(\d+)', line)
        key = chain[0] if chain else f"{len(self._collectives)}"
        beside_cycles += self._collectives[key].beside_cycles if key in self._collectives else 0
        self._collectives[key] = Collective(kind=kind, num_bytes=size, group=group, times=times, beside_cycles=beside_cycles)

    def _trips(self, condition: str, line: str) -> int:
        """How often a loop runs: the number with which its condition compares."""
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
        self._guessed += 1
        return self._guessed_trips


def _cycles(line: str) -> int:
    """The compiler's estimate of an operation; 0 where it has none, for which it may also say the largest integer."""
    found = re.search(r'"estimated_cycles":"(\d+)"', line)
    return int(found[1]) if found and int(found[1]) < _NO_ESTIMATE else 0


def _called(line: str) -> list[str]:
    return [name.strip(" %") for found in _CALLED.findall(line) for name in found.split(",")]


def _shapes(text: str) -> list[tuple[tuple[int, ...], int]]:
    """Every shape that is written in `text`, and its bytes."""
    found = []
    for kind, dims in _SHAPE.findall(text):
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
        digits = re.search(r"\d+", kind)
        bits = BITS.get(kind) or (8 if kind.startswith("f8") else int(digits[0]) if digits else 8)
        found.append((shape, math.prod(shape) * bits // 8))
    return found


def _flops(line: str, lines: Sequence[str]) -> float:
    """Of one matrix product: two for each entry of the result and each term of its sum."""
    out = _shapes(line.split(" = ", 1)[1])[0][0]
    operands = re.findall(r"%([\w.\-]+)", re.split(r" (?:convolution|dot)\(", line)[1].split(")", 1)[0])
    shapes = {name[1]: _shapes(text.split(" = ", 1)[1]) for text in lines if (name := _NAME.match(text))}
    left, right = (shapes[name][0][0] for name in operands[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line)
    if labels is None:
        summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line)
        return 2.0 * math.prod(out) * math.prod(left[int(dim)] for dim in (summed[1].split(",") if summed else ()) if dim)
    terms = math.prod(out[labels[3].index(letter)] for letter in "bf") * right[labels[2].index("i")]
    for dim in range(len(out) - 2):  # what a product has of further dims is told as places of a window, most of them on padding
        here = str(dim)
        terms *= _pairs(line, dim, left[labels[1].index(here)], right[labels[2].index(here)], out[labels[3].index(here)])
    return 2.0 * terms


def _pairs(line: str, dim: int, num_in: int, size: int, num_out: int) -> int:
    """How many pairs of a place of the result and one of the window lie on an entry, not on padding or between entries."""

    def setting(name: str, default: str) -> str:
        found = re.search(rf"{name}=([\d_x\-]+)", line)
        return found[1].split("x")[dim] if found else default

    stride, before = int(setting("stride", "1")), int(setting("pad", "0_0").split("_")[0])
    apart, step = int(setting("lhs_dilate", "1")), int(setting("rhs_dilate", "1"))
    places = [place * stride + tap * step - before for place in range(num_out) for tap in range(size)]
    return sum(0 <= place <= (num_in - 1) * apart and place % apart == 0 for place in places)


def _group_size(line: str) -> int:
    """How many devices exchange with one another, in any of the ways in which it is written."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if iota:
        return int(iota[2])
    sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", line)}
    named = re.search(r"replica_groups=mesh\[.*?\] \{([^}]*)\}", line)
    return math.prod(sizes.get(axis, 1) for axis in re.findall(r"'(\w+)'", named[1])) if named else 1
