"""Checkpoints: one folder a step, whole or absent, readable without the run that wrote it.

RUN/checkpoints/<step>/params     weights, by dotted path, uncompressed: they hardly shrink, and it takes long
                      /optimizer  moments and step count (absent in a converted model)
                      /model      JSON: architecture and tokenizer files
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath

from wizardcoder_jax.arch import ArchConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import ensure_dir, exists, is_remote

# What goes wrong is raised, and said in one line; Orbax's threads would log their own traceback of it each.
logging.getLogger("absl").setLevel(logging.CRITICAL)

Flat = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a checkpoint says of its model besides the weights."""

    arch: ArchConfig
    tokenizer: dict[str, str]  # file name -> text, as in a Hugging Face folder
    base_model: str | None = None  # hub id of what it descends from
    license: str | None = None  # of that
    checksums: dict[str, str] | None = None  # of the Hugging Face tensors it was converted from; None once trained


def flatten(tree: Any) -> Flat:
    """The leaves of a pytree by dotted path, e.g. "blocks.mlp.up.kernel.value"."""
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in _leaves(tree)}


def unflatten(tree: Any, flat: Flat) -> Any:
    """A pytree of the structure of `tree` with the leaves of `flat`."""
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in _leaves(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in names])


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run_dir: the run's folder, local or gs://.
        keep: how many of the newest stay.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, run_dir: str, keep: int) -> None:
        ensure_dir(run_dir)
        directory = _absolute(run_dir) / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            # On CPU a save in the background holds the state's own buffers, and the next step needs a second state.
            enable_async_checkpointing=jax.default_backend() != "cpu",
        )
        handlers = {"params": _arrays(), "optimizer": _arrays(), "model": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory, options=options, item_handlers=handlers)

    @property
    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, None before the first."""
        return self._manager.latest_step()

    def save(self, step: int, card: Card, model: Any, optimizer: Any | None) -> None:
        """Starts writing a checkpoint; it appears once it is whole. A step that is there already is left as it is.

        Raises:
            InputError: it cannot be written; the earlier ones stay.
        """
        if step in self._manager.all_steps():
            return
        items = {"params": _from(flatten(model)), "model": ocp.args.JsonSave(dataclasses.asdict(card))}
        if optimizer is not None:
            items["optimizer"] = _from(flatten(optimizer))
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError is what tensorstore makes of a full disk
            reason = ": ".join(str(error).strip().split("\n")[0].split(": ")[-2:])
            raise InputError(f"{self._manager.directory} cannot be written ({reason}); earlier ones are whole") from error

    def restore(self, step: int, model: Any, optimizer: Any) -> tuple[Any, Any]:
        """The weights and the optimizer's state of `step`, into the shapes and shardings given."""
        step_dir = self._manager.directory / str(step)
        return _read(step_dir / "params", model), _read(step_dir / "optimizer", optimizer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits until all that was saved is durable."""
        with self._writing():
            self._manager.wait_until_finished()
        self._manager.close()


def _absolute(path: str) -> epath.Path:
    return epath.Path(path if is_remote(path) else os.path.abspath(path))


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
        steps = [p for p in folder.iterdir() if p.name.isdecimal()] if folder.is_dir() else []
        if steps:
            return os.fspath(max(steps, key=lambda p: int(p.name)))
    return None


def read_card(step_dir: str) -> Card:
    """What the checkpoint says of its model.

    Raises:
        InputError: it is damaged, or no checkpoint of ours.
    """
    try:
        card = ocp.JsonCheckpointHandler().restore(epath.Path(step_dir) / "model")
        return Card(**{**card, "arch": ArchConfig(**card["arch"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{step_dir} is damaged or no checkpoint of this program ({error})") from error


def held_dtypes(step_dir: str, model: Any) -> Any:
    """The dtype of each of a checkpoint's weights, as a pytree like `model`.

    Raises:
        InputError: they are damaged, or of another model.
    """
    with _reading(step_dir):
        about = _arrays().metadata(epath.Path(step_dir) / "params")
        return unflatten(model, {name: leaf.dtype for name, leaf in about.tree.items()})


def load_params(step_dir: str, model: Any) -> Any:
    """The weights of a checkpoint, into the shapes, dtypes and shardings of `model`.

    Raises:
        InputError: they are damaged, or of another model.
    """
    with _reading(step_dir):
        return _read(epath.Path(step_dir) / "params", model)


def _read(directory: epath.Path, tree: Any) -> Any:
    """The arrays of one item, as `tree` has their shapes, dtypes and shardings; one by one, as each is held twice meanwhile."""
    found, handler = {}, _arrays()
    for name, leaf in flatten(tree).items():
        how = ocp.checkpoint_utils.construct_restore_args({name: leaf})
        args = ocp.args.PyTreeRestore({name: leaf}, restore_args=how, partial_restore=True)
        found.update(jax.block_until_ready(handler.restore(directory, args=args)))
    handler.close()
    return unflatten(tree, found)


@contextlib.contextmanager
def _reading(step_dir: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{step_dir}: its weights are damaged or of another model ({error})") from error


def _arrays() -> ocp.PyTreeCheckpointHandler:
    return ocp.PyTreeCheckpointHandler(use_compression=False)


def _from(flat: Flat) -> Any:
    """Saves leaves, each shard of an array as it lies: cut into files of a limited size they would be copied first."""
    return ocp.args.PyTreeSave(flat, ocdbt_target_data_file_size=0)
