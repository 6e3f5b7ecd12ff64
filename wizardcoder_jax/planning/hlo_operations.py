"""Parsers of single HLO operations: shapes, FLOPs of matrix products, and groups of collectives."""

import math
import re
from collections.abc import Sequence

OPERATION_NAME = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = ")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "s64": 64, "u64": 64}  # bits in memory of types whose name does not state them
_SHAPE = re.compile(r"\b(pred|bf16|f16|f32|f64|s4|s8|s16|s32|s64|u4|u8|u16|u32|u64|f8e\w+)\[([\d,]*)\]")


def parse_shapes(text: str) -> list[tuple[tuple[int, ...], int]]:
    """Return every shape in `text` and the number of bytes of such an array."""
    found = []
    for kind, dims in _SHAPE.findall(text):
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
        digits = re.search(r"\d+", kind)
        bits = _BITS.get(kind) or (8 if kind.startswith("f8") else int(digits[0]) if digits else 8)
        found.append((shape, math.prod(shape) * bits // 8))
    return found


def matmul_flops(line: str, lines: Sequence[str]) -> float:
    """Return the FLOPs of one matrix product: two for each element of the result and each term that is summed.

    Args:
        line: the operation.
        lines: all operations of its computation, which define the shapes of the operands.
    """
    out = parse_shapes(line.split(" = ", 1)[1])[0][0]
    operands = re.findall(r"%([\w.\-]+)", re.split(r" (?:convolution|dot)\(", line)[1].split(")", 1)[0])
    shapes = {name[1]: parse_shapes(text.split(" = ", 1)[1]) for text in lines if (name := OPERATION_NAME.match(text))}
    left, right = (shapes[name][0][0] for name in operands[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line)
    if labels is None:
        summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line)
        return 2.0 * math.prod(out) * math.prod(left[int(dim)] for dim in (summed[1].split(",") if summed else ()) if dim)
    terms = math.prod(out[labels[3].index(letter)] for letter in "bf") * right[labels[2].index("i")]
    # XLA writes additional dimensions of a matrix product as spatial dimensions of a convolution, mostly over padding.
    for dim in range(len(out) - 2):
        label = str(dim)
        terms *= _num_pairs(line, dim, left[labels[1].index(label)], right[labels[2].index(label)], out[labels[3].index(label)])
    return 2.0 * terms


def _num_pairs(line: str, dim: int, num_in: int, window_size: int, num_out: int) -> int:
    """Count the pairs (output position, window position) that read an input element rather than padding or a dilation gap."""

    def setting(name: str, default: str) -> str:
        found = re.search(rf"{name}=([\d_x\-]+)", line)
        return found[1].split("x")[dim] if found else default

    stride, padding = int(setting("stride", "1")), int(setting("pad", "0_0").split("_")[0])
    input_dilation, window_dilation = int(setting("lhs_dilate", "1")), int(setting("rhs_dilate", "1"))
    positions = [i * stride + j * window_dilation - padding for i in range(num_out) for j in range(window_size)]
    return sum(0 <= x <= (num_in - 1) * input_dilation and x % input_dilation == 0 for x in positions)


def parse_group_size(line: str) -> int:
    """Return the number of devices per replica group of a collective, in any of HLO's notations; 1 if it has no groups."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if iota:
        return int(iota[2])
    sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", line)}
    named = re.search(r"replica_groups=mesh\[.*?\] \{([^}]*)\}", line)
    return math.prod(sizes.get(axis, 1) for axis in re.findall(r"'(\w+)'", named[1])) if named else 1
