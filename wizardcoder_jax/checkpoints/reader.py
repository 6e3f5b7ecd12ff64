"""Finds and reads checkpoints. Every array is verified against the checksum that was saved with it.

RUN/checkpoints/<step>/params     weights by dotted path; only the trained ones if the run freezes some
                      /optimizer  and other items that a run needs to resume (absent in a converted model)
                      /model      JSON: the card, and a checksum of every array (checkpoints/metadata.py)
RUN/frozen/0/params, model        frozen weights, saved once for all steps
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
_COMMITTED = "commit_success.txt"  # marks a complete folder where folders cannot be renamed (gs://); written by Orbax


class DamagedError(InputError):
    """A checkpoint differs from what was saved."""


def flatten(tree: Any) -> Flat:
    """Return the leaves of a pytree by dotted path, e.g. "blocks.mlp.up.kernel.value"."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def unflatten(tree: Any, flat: Flat) -> Any:
    """Return a pytree with the structure of `tree` and the leaves of `flat`."""
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in flatten(tree)])


def find_checkpoint(path: str) -> str | None:
    """Return the step folder that `path` refers to: itself, or the newest of a run or its checkpoints; None if neither.

    Raises:
        InputError: the object store cannot be reached.
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
    """Return the manifest of a step's folder, or of a folder of frozen weights.

    Raises:
        DamagedError: it is damaged, or not a checkpoint of this program.
    """
    try:
        with open_bytes(f"{folder}/model/metadata") as file:
            return Manifest.from_json(json.loads(file.read()))
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder} is damaged or not a checkpoint of this program ({error})") from error


def read_card(step_dir: str) -> CheckpointCard:
    """Return the description of the checkpoint's model.

    Raises:
        DamagedError: it is damaged, or not a checkpoint of this program.
        InputError: the folder has the frozen weights of a run.
    """
    card = read_manifest(step_dir).card
    if card is None:
        raise InputError(f"{step_dir} has the frozen weights of a run; name the run or one of its checkpoints instead")
    return card


def stored_dtypes(step_dir: str, model: Any) -> Any:
    """Return the stored dtype of each weight of a checkpoint, as a pytree like `model`.

    Raises:
        InputError: it is damaged, or belongs to another model.
    """
    stored = {name: line for _, lines in _find_params(step_dir) for name, line in lines.items()}
    _check_names(step_dir, stored, flatten(model))
    return jax.tree.map(lambda line: jnp.dtype(line.partition("[")[0]), unflatten(model, stored))


def load_params(step_dir: str, model: Any) -> Any:
    """Load the weights of a checkpoint, trained and frozen, with the shapes, dtypes and shardings of `model`.

    Raises:
        InputError: they are damaged, or belong to another model.
    """
    folders, flat, loaded = _find_params(step_dir), flatten(model), {}
    _check_names(step_dir, {name: line for _, lines in folders for name, line in lines.items()}, flat)
    for folder, lines in folders:
        wanted = {name: leaf for name, leaf in flat.items() if name in lines}
        for name, leaf in wanted.items():
            if lines[name].split()[0] != describe_array(leaf):  # one at a time, as a conversion needs memory for both arrays
                loaded[name] = _convert(read_verified(folder, lines, {name: leaf})[name], leaf)
        loaded |= read_verified(folder, lines, {name: leaf for name, leaf in wanted.items() if name not in loaded})
    return unflatten(model, loaded)


def _convert(array: jax.Array, leaf: Any) -> jax.Array:
    return jax.jit(lambda stored: stored.astype(leaf.dtype), out_shardings=leaf.sharding)(array)


def _find_params(step_dir: str) -> list[tuple[str, ArrayChecksums]]:
    """Return the folders of a checkpoint's weights, each with the checksums of its arrays."""
    manifest = read_manifest(step_dir)
    folders = [(f"{step_dir}/params", manifest.arrays["params"])]
    if manifest.card is not None and manifest.card.frozen is not None:
        run_dir = os.path.dirname(os.path.dirname(step_dir))
        folders.append(find_frozen(run_dir, step_dir, manifest.card.frozen))
    return folders


def find_frozen(run_dir: str, step_dir: str, expected: str) -> tuple[str, ArrayChecksums]:
    """Return the folder of a run's frozen weights, and the checksums of its arrays.

    Raises:
        InputError: it is missing, damaged, or from another run than the step in `step_dir`.
    """
    folder = f"{run_dir}/frozen/0"
    if not exists(folder):
        raise InputError(f"{step_dir} has only the trained weights; the frozen ones, {run_dir}/frozen of its run, are missing")
    lines = read_manifest(folder).arrays["params"]
    if combined_checksum(lines) != expected:
        raise InputError(f"{folder} has other weights than those that {step_dir} was trained with")
    return f"{folder}/params", lines


def _check_names(step_dir: str, lines: ArrayChecksums, flat: Flat) -> None:
    """Check that every leaf is stored, with its shape."""
    for name, leaf in flat.items():
        stored = lines.get(name, "nothing").split()[0]
        if stored.partition("[")[2] != describe_array(leaf).partition("[")[2]:
            raise InputError(f"{step_dir} belongs to another model: its {name} is {stored}, expected {describe_array(leaf)}")


def read_verified(folder: str, lines: ArrayChecksums, shapes: Flat) -> Flat:
    """Return arrays of one item, verified.

    Raises:
        DamagedError: an array differs from what was saved.
    """
    if not shapes:
        return {}
    with fail_together(folder):
        arrays = read_arrays(folder, shapes)
    bad = [name for name, line in fingerprint_arrays(arrays).items() if line != lines[name]]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DamagedError(f"{folder} is damaged: {bad[0]}{more} differs from what was saved")
    return arrays


@contextlib.contextmanager
def fail_together(location: str) -> Iterator[None]:
    """Make an error in one process an error in all processes of the run, so that none waits for the others.

    Raises:
        DamagedError: reading `location` failed.
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
    raise DamagedError(f"{location} is damaged ({reason})") from problem


def first_line(problem: Exception) -> str:
    """Return the first line of an error, without the specification that tensorstore appends."""
    return str(problem).strip().split("\n")[0].split(" [tensorstore_spec")[0]
