"""Finds and reads checkpoints. Every array is verified against the checksum that was saved with it.

The files of a run:

RUN/checkpoints/<step>/params     weights by dotted path; without the frozen weights, if there are any
                      /optimizer  and other items needed to resume a run (absent in a converted model)
                      /model      JSON: description of the model and checksums of all arrays (checkpoints/metadata.py)
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
_COMMITTED = "commit_success.txt"  # written by Orbax into complete folders on gs://, where folders cannot be renamed


class DamagedError(InputError):
    """A checkpoint on disk differs from what was saved."""


def flatten(tree: Any) -> Flat:
    """Return the leaves of a pytree by dotted path, e.g. "blocks.mlp.up.kernel.value"."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def unflatten(tree: Any, flat: Flat) -> Any:
    """Return a pytree with the structure of `tree` and the leaves of `flat`."""
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in flatten(tree)])


def find_checkpoint(path: str) -> str | None:
    """Return the step folder that `path` refers to, or None if it is not a checkpoint.

    `path` is a step folder, or the folder of a run or of its checkpoints, in which case the newest step is returned.

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
    """Return the manifest of a checkpoint or of frozen weights.

    Raises:
        DamagedError: `folder` is damaged, or was not written by wizardcoder_jax.
    """
    try:
        with open_bytes(f"{folder}/model/metadata") as file:
            return Manifest.from_json(json.loads(file.read()))
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder} is damaged or not a checkpoint of wizardcoder_jax ({error})") from error


def read_card(step_dir: str) -> CheckpointCard:
    """Return the description of a checkpoint's model.

    Raises:
        DamagedError: the checkpoint is damaged, or was not written by wizardcoder_jax.
        InputError: the folder contains the frozen weights of a run instead of a checkpoint.
    """
    card = read_manifest(step_dir).card
    if card is None:
        raise InputError(
            f"{step_dir} contains only frozen weights; use the folder of their run or one of its checkpoints instead"
        )
    return card


def stored_dtypes(step_dir: str, model: Any) -> Any:
    """Return the stored dtype of each weight of a checkpoint, in a pytree with the structure of `model`.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another model.
    """
    stored = {name: line for _, lines in _find_params(step_dir) for name, line in lines.items()}
    _check_names(step_dir, stored, flatten(model))
    return jax.tree.map(lambda line: jnp.dtype(line.partition("[")[0]), unflatten(model, stored))


def load_params(step_dir: str, model: Any) -> Any:
    """Load all weights of a checkpoint, trained and frozen, with the shapes, dtypes and shardings of `model`.

    Raises:
        InputError: the weights are damaged, or belong to another model.
    """
    folders, flat, loaded = _find_params(step_dir), flatten(model), {}
    _check_names(step_dir, {name: line for _, lines in folders for name, line in lines.items()}, flat)
    for folder, lines in folders:
        wanted = {name: leaf for name, leaf in flat.items() if name in lines}
        for name, leaf in wanted.items():
            if lines[name].split()[0] != describe_array(leaf):  # convert one array at a time to save memory
                loaded[name] = _convert(read_verified(folder, lines, {name: leaf})[name], leaf)
        loaded |= read_verified(folder, lines, {name: leaf for name, leaf in wanted.items() if name not in loaded})
    return unflatten(model, loaded)


def _convert(array: jax.Array, leaf: Any) -> jax.Array:
    return jax.jit(lambda stored: stored.astype(leaf.dtype), out_shardings=leaf.sharding)(array)


def _find_params(step_dir: str) -> list[tuple[str, ArrayChecksums]]:
    """Return the folders that contain a checkpoint's weights, each with the checksums of its arrays."""
    manifest = read_manifest(step_dir)
    folders = [(f"{step_dir}/params", manifest.arrays["params"])]
    if manifest.card is not None and manifest.card.frozen is not None:
        run_dir = os.path.dirname(os.path.dirname(step_dir))
        folders.append(find_frozen(run_dir, step_dir, manifest.card.frozen))
    return folders


def find_frozen(run_dir: str, step_dir: str, expected: str) -> tuple[str, ArrayChecksums]:
    """Return the folder of a run's frozen weights, and the checksums of its arrays.

    Args:
        run_dir: the run's folder.
        step_dir: the checkpoint that needs the frozen weights.
        expected: the combined checksum of the frozen weights that the checkpoint was trained with.

    Raises:
        InputError: the folder is missing or damaged, or contains other weights.
    """
    folder = f"{run_dir}/frozen/0"
    if not exists(folder):
        raise InputError(f"{step_dir} contains only the trained weights; the frozen weights are missing ({run_dir}/frozen)")
    lines = read_manifest(folder).arrays["params"]
    if combined_checksum(lines) != expected:
        raise InputError(f"{folder} does not contain the frozen weights that {step_dir} was trained with")
    return f"{folder}/params", lines


def _check_names(step_dir: str, lines: ArrayChecksums, flat: Flat) -> None:
    """Check that every array in `flat` is stored with the same shape."""
    for name, leaf in flat.items():
        stored = lines.get(name, "nothing").split()[0]
        if stored.partition("[")[2] != describe_array(leaf).partition("[")[2]:
            raise InputError(f"{step_dir} belongs to another model: {name} is {stored}, expected {describe_array(leaf)}")


def read_verified(folder: str, lines: ArrayChecksums, shapes: Flat) -> Flat:
    """Read arrays of one item and verify their checksums.

    Raises:
        DamagedError: an array on disk differs from what was saved.
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
    """Raise an error in all processes of the run if the block fails in one, so that no process waits for another forever.

    Raises:
        DamagedError: reading `location` failed in any process.
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
    reason = "another process could not read it" if problem is None else first_line(problem)
    raise DamagedError(f"{location} is damaged ({reason})") from problem


def first_line(problem: Exception) -> str:
    """Return the first line of an error, without the specification that tensorstore appends."""
    return str(problem).strip().split("\n")[0].split(" [tensorstore_spec")[0]
