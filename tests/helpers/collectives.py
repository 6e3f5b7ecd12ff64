"""The collectives of a compiled program, read from the text of its HLO."""

import dataclasses
import re

import numpy as np

KINDS = ("all-gather", "all-to-all", "all-reduce", "reduce-scatter", "collective-permute", "ragged-all-to-all")
_LINE = re.compile(rf" = (?P<type>\S.*?) (?P<kind>{'|'.join(KINDS)})(?:-start)?\(")
_IOTA = re.compile(r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    kind: str
    shapes: tuple[tuple[int, ...], ...]  # shapes of its results on each device
    groups: tuple[tuple[int, ...], ...]  # groups of devices that communicate with each other
    op_name: str  # name of the operation in the JAX program

    def crosses(self, num_model):
        """Return whether devices with the same "data" index communicate; devices are numbered row by row."""
        return any(len({device // num_model for device in group}) < len(group) for group in self.groups)


def collectives(text, num_devices):
    """Return the collectives in the text of a compiled program; raise ValueError if a line cannot be parsed."""
    found = []
    for line in text.splitlines():
        if match := _LINE.search(line):
            shapes = re.findall(r"\b[a-z]+\d*[a-z\d]*\[([\d,]*)\]", match["type"])
            op_name = re.search(r'op_name="([^"]*)"', line)
            found.append(
                Collective(
                    match["kind"],
                    tuple(_numbers(shape) for shape in shapes),
                    _groups(line, num_devices),
                    op_name[1] if op_name else "",
                )
            )
    return found


def _numbers(text):
    return tuple(int(part) for part in text.split(",") if part)


def _groups(line, num_devices):
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return tuple(_numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", pairs[1]))
    attribute = re.search(r"replica_groups=(\S.*)", line)
    text = attribute[1] if attribute else ""
    if text.startswith("{{"):
        return tuple(_numbers(group) for group in re.findall(r"\{([\d,]+)\}", text.partition("}}")[0] + "}"))
    if text.startswith("{}"):
        return (tuple(range(num_devices)),)
    if text.startswith("mesh["):
        return _mesh_groups(text)
    if text.startswith("["):
        return tuple(tuple(group) for group in _iota(_IOTA.match(text)).tolist())
    raise ValueError(f"unknown format of replica groups: {line}")


def _iota(match):
    """Parse e.g. [4,2]<=[2,4]T(1,0): the numbers 0 to 7, reshaped to [2,4], transposed, and reshaped to [4,2]."""
    dims, source, order = (_numbers(part) if part else None for part in match.groups())
    numbers = np.arange(np.prod(source or dims)).reshape(source or dims)
    return (numbers.transpose(order) if order else numbers).reshape(dims if source else -1)


def _mesh_groups(text):
    """Parse mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'a','b':(2)2}: devices that differ only in (parts of) these axes."""
    parsed = re.match(r"mesh\[([^\]]*)\](?:, device_ids=\((\[[\d,]+\](?:T\([\d,]+\))?)\))? \{([^}]*)\}", text)
    if parsed is None:
        raise ValueError(f"unknown format of replica groups: {text}")
    names, dims = zip(*re.findall(r"'(\w+)'=(\d+)", parsed[1]), strict=True)
    dims = [int(dim) for dim in dims]
    devices = _iota(_IOTA.match(parsed[2])).reshape(-1) if parsed[2] else np.arange(np.prod(dims))
    indices = np.indices(dims).reshape(len(dims), -1)
    fixed = indices.copy()
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", parsed[3]):
        axis = names.index(name)
        size = int(size) if size else dims[axis]
        step = dims[axis] // (int(before or 1) * size)
        fixed[axis] -= indices[axis] // step % size * step
    groups = {}
    for device, key in zip(devices.tolist(), fixed.T.tolist(), strict=True):
        groups.setdefault(tuple(key), []).append(device)
    return tuple(tuple(group) for group in groups.values())
