"""Finds and reads checkpoints; nothing is handed out whose checksum is not the one that was saved.

RUN/checkpoints/<step>/params     weights by dotted path, or of a run that trains some of them those
                      /optimizer  and what else the run saved to go on (absent in a converted model)
                      /model      JSON: the card, and a checksum of every array (checkpoints/metadata.py)
RUN/frozen/0/params, model        weights that no step of the run changes, once for all of them
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from wizardcoder_jax.checkpoints.fingerprint import describe_array, fingerprint_arrays
from wizardcoder_jax.checkpoints.metadata import ArrayChecksums, CheckpointCard, Manifest, combined_checksum
from wizardcoder_jax.checkpoints.tensorstore_io import read_arrays
from wizardcoder_jax.core.distributed import all_processes
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, is_remote, open_bytes, remote_path

Flat = dict[str, Any]
_COMMITTED = "commit_success.txt"  # Orbax's mark of a folder that is whole, where folders cannot be renamed (gs://)


class DamagedError(InputError):
    """A checkpoint that is not what was saved."""


def flatten(tree: Any) -> Flat:
    """The leaves of a pytree by dotted path, e.g. "blocks.mlp.up.kernel.value"."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def unflatten(tree: Any, flat: Flat) -> Any:
    """A pytree of the structure of `tree` with the leaves of `flat`."""
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in flatten(tree)])


def find_checkpoint(path: str) -> str | None:
    """The step folder that `path` means: itself, or the newest of a run or of its checkpoints; None if it is neither.

    Raises:
        InputError: the object store does not answer.
    """
    if not exists(path):
        return None
    root = _absolute(path)
    if (root / "params").exists() and (root / "model").exists():
        return os.fspath(root)
    for folder in (root / "checkpoints", root):
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        steps = sorted((int(name) for name in names if name.isdecimal()), reverse=True)
        for step in steps:
            if not is_remote(path) or (folder / str(step) / _COMMITTED).exists():
                return os.fspath(folder / str(step))
    return None


def _absolute(path: str) -> Any:
    return remote_path(path) if is_remote(path) else Path(os.path.abspath(path))


def read_manifest(folder: str) -> Manifest:
    """What a step's folder, or that of frozen weights, says of itself.

    Raises:
        DamagedError: it is damaged, or no checkpoint of ours.
    """
    try:
        with open_bytes(f"{folder}/model/metadata") as file:
            return Manifest.from_json(json.loads(file.read()))
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder} is damaged or no checkpoint of this program ({error})") from error


def read_card(step_dir: str) -> CheckpointCard:
    """What the checkpoint says of its model.

    Raises:
        DamagedError: it is damaged, or no checkpoint of ours.
    """
    card = read_manifest(step_dir).card
    if card is None:
        raise InputError(f"{step_dir} holds the frozen weights of a run; give the run, or one of its checkpoints")
    return card


def stored_dtypes(step_dir: str, model: Any) -> Any:
    """The dtype of each of a checkpoint's weights, as a pytree like `model`.

    Raises:
        InputError: it is damaged, or of another model.
    """
    lines = {name: line for _, part in _params_of(step_dir) for name, line in part.items()}
    _check_names(step_dir, lines, flatten(model))
    return jax.tree.map(lambda line: jnp.dtype(line.partition("[")[0]), unflatten(model, lines))


def load_params(step_dir: str, model: Any) -> Any:
    """The weights of a checkpoint, into the shapes, dtypes and shardings of `model`; what was frozen and what was not.

    Raises:
        InputError: they are damaged, or of another model.
    """
    parts, flat, found = _params_of(step_dir), flatten(model), {}
    _check_names(step_dir, {name: line for _, part in parts for name, line in part.items()}, flat)
    for folder, lines in parts:
        mine = {name: leaf for name, leaf in flat.items() if name in lines}
        for name, leaf in mine.items():
            if lines[name].split()[0] != describe_array(leaf):  # one by one, as such a one is held twice meanwhile
                found[name] = _converted(read_verified(folder, lines, {name: leaf})[name], leaf)
        found |= read_verified(folder, lines, {name: leaf for name, leaf in mine.items() if name not in found})
    return unflatten(model, found)


def _converted(array: jax.Array, leaf: Any) -> jax.Array:
    return jax.jit(lambda held: held.astype(leaf.dtype), out_shardings=leaf.sharding)(array)


def _params_of(step_dir: str) -> list[tuple[str, ArrayChecksums]]:
    """The folders that hold a checkpoint's weights, each with what lies in it."""
    manifest = read_manifest(step_dir)
    parts = [(f"{step_dir}/params", manifest.arrays["params"])]
    if manifest.card is not None and manifest.card.frozen is not None:
        run_dir = os.path.dirname(os.path.dirname(step_dir))
        parts.append(find_frozen(run_dir, step_dir, manifest.card.frozen))
    return parts


def find_frozen(run_dir: str, step_dir: str, expected: str) -> tuple[str, ArrayChecksums]:
    """The folder of a run's frozen weights, and what lies in it.

    Raises:
        InputError: it is missing, damaged, or of another run than the step of `step_dir`.
    """
    folder = f"{run_dir}/frozen/0"
    if not exists(folder):
        raise InputError(f"{step_dir} holds only what was trained; the rest, {run_dir}/frozen of its run, is missing")
    lines = read_manifest(folder).arrays["params"]
    if combined_checksum(lines) != expected:
        raise InputError(f"{folder} holds other weights than those that {step_dir} was trained beside")
    return f"{folder}/params", lines


def _check_names(step_dir: str, lines: ArrayChecksums, flat: Flat) -> None:
    """That every leaf is held, in its shape."""
    for name, leaf in flat.items():
        held = lines.get(name, "nothing").split()[0]
        if held.partition("[")[2] != describe_array(leaf).partition("[")[2]:
            raise InputError(f"{step_dir} is of another model: it has {held} as {name}, where {describe_array(leaf)} is wanted")


def read_verified(folder: str, lines: ArrayChecksums, shapes: Flat) -> Flat:
    """Arrays of one item, as they were saved.

    Raises:
        DamagedError: one of them is not.
    """
    if not shapes:
        return {}
    with fail_together(folder):
        arrays = read_arrays(folder, shapes)
    bad = [name for name, line in fingerprint_arrays(arrays).items() if line != lines[name]]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DamagedError(f"{folder} is damaged: {bad[0]}{more} is not what was saved")
    return arrays


@contextlib.contextmanager
def fail_together(where: str) -> Iterator[None]:
    """What fails in one process of the run fails in all of them, so that none waits for the others.

    Raises:
        DamagedError: reading `where` failed.
    """
    problem: Exception | None = None
    try:
        yield
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        problem = error
    if all_processes(problem is None):
        return
    if isinstance(problem, InputError):
        raise problem
    reason = "as another process found" if problem is None else first_line(problem)
    raise DamagedError(f"{where} is damaged ({reason})") from problem


def first_line(problem: Exception) -> str:
    """What an error says, without the specification that tensorstore puts behind it."""
    return str(problem).strip().split("\n")[0].split(" [tensorstore_spec")[0]
