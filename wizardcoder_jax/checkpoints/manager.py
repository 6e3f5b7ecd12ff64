"""Writes checkpoints: one folder a step, whole or absent, readable without the run that wrote it (checkpoints/reader.py)."""

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN, PreservationPolicy

from wizardcoder_jax.checkpoints.fingerprint import describe_array, fingerprint_arrays
from wizardcoder_jax.checkpoints.metadata import CheckpointCard, Manifest, combined_checksum
from wizardcoder_jax.checkpoints.reader import (
    DamagedError,
    Flat,
    fail_together,
    find_frozen,
    first_line,
    flatten,
    read_manifest,
    read_verified,
    unflatten,
)
from wizardcoder_jax.checkpoints.tensorstore_io import PART_BYTES
from wizardcoder_jax.core.distributed import barrier, is_main_process
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import ensure_dir, is_remote

# What goes wrong is raised, and said in one line; Orbax's threads would log their own traceback of it each.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


def _say_unless_loop_is_closed(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":  # what a write says that failed after another one had
        sys.__unraisablehook__(unraisable)


sys.unraisablehook = _say_unless_loop_is_closed

ITEMS = ("params", "optimizer", "ema", "guard")  # that a step can hold, each a folder
FROZEN = "frozen"  # the item that is saved once for all steps


class CheckpointManager:
    """The checkpoints of one run. A step is saved as pytrees of arrays by name, of ITEMS and FROZEN.

    Args:
        run_dir: the run's folder, local or gs://.
        keep: how many of the newest stay.
        keep_every_steps: steps that it divides stay for good.
        background: write while training goes on. A state that is donated meanwhile is safe; on CPU a second one is held then.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, run_dir: str, keep: int, keep_every_steps: int | None = None, background: bool = False) -> None:
        ensure_dir(run_dir)
        self._run_dir = epath.Path(run_dir if is_remote(run_dir) else os.path.abspath(run_dir))
        policies: list[PreservationPolicy] = [LatestN(keep)]
        if keep_every_steps is not None:
            policies.append(EveryNSteps(keep_every_steps))
        with self._writing():
            self._manager = _manager(self._run_dir / "checkpoints", AnyPreservationPolicy(policies), background)
        self._frozen: str | None = None  # checksum of the frozen weights, once they are known to be there

    def save(self, step: int, card: CheckpointCard, items: dict[str, Any]) -> None:
        """Starts writing a checkpoint; it appears once it is whole. A step that is there already is left as it is.

        Args:
            step: its number.
            card: what it says of its model; `frozen` is filled in here.
            items: pytrees by name; those that are None are left out, "frozen" is written once.

        Raises:
            InputError: it, or the one before it in the background, cannot be written; the earlier ones stay.
        """
        if step in self._manager.all_steps():
            return
        given = {name: flatten(tree) for name, tree in items.items() if tree is not None}
        if frozen := given.pop(FROZEN, None):
            card = dataclasses.replace(card, frozen=self._keep_frozen(frozen))
        with self._writing():
            _save(self._manager, step, card, given)

    def _keep_frozen(self, frozen: Flat) -> str:
        """Sees to it that the frozen weights are held whole, and says which they are."""
        if self._frozen is None:
            lines = fingerprint_arrays(frozen)
            self._frozen = combined_checksum(lines)
            if not self._holds_frozen(frozen):
                self._set_aside(self._run_dir / FROZEN, [0])
                with self._writing(), _manager(self._run_dir / FROZEN, LatestN(1), background=False) as manager:
                    _save(manager, 0, None, {"params": frozen})
        return self._frozen

    def _holds_frozen(self, frozen: Flat) -> bool:
        run_dir = os.fspath(self._run_dir)
        try:
            with fail_together(f"{run_dir}/{FROZEN}"):
                folder, lines = find_frozen(run_dir, run_dir, self._frozen or "")
            for name, array in frozen.items():  # one by one, as each is held twice meanwhile
                read_verified(folder, lines, {name: array})
        except InputError:
            return False
        return True

    def restore(self, step: int, shapes: dict[str, Any]) -> dict[str, Any]:
        """The items of `step`, verified.

        Args:
            step: which.
            shapes: by item, a pytree of shapes, dtypes and shardings; None for an item that the run does not have.

        Raises:
            DamagedError: the step is not what was saved.
            InputError: it is whole but of another model or other settings, or the frozen weights are missing or damaged.
        """
        step_dir = os.fspath(self._manager.directory / str(step))
        wanted = {name: flatten(tree) for name, tree in shapes.items() if tree is not None}
        with fail_together(step_dir):
            manifest = read_manifest(step_dir)
            if manifest.step != step or manifest.card is None:
                raise DamagedError(f"{step_dir} is damaged (it holds step {manifest.step})")
        where = {name: (f"{step_dir}/{name}", lines) for name, lines in manifest.arrays.items()}
        with self._needing_frozen(step_dir), fail_together(step_dir):
            if manifest.card.frozen is not None:
                where[FROZEN] = find_frozen(os.fspath(self._run_dir), step_dir, manifest.card.frozen)
        _check_same(step_dir, {name: lines for name, (_, lines) in where.items()}, wanted)
        found = {name: read_verified(*where[name], flat) for name, flat in wanted.items() if name != FROZEN}
        if FROZEN in wanted:
            with self._needing_frozen(step_dir):
                found[FROZEN] = read_verified(*where[FROZEN], wanted[FROZEN])
        self._frozen = manifest.card.frozen
        return {name: None if tree is None else unflatten(tree, found[name]) for name, tree in shapes.items()}

    @contextlib.contextmanager
    def _needing_frozen(self, step_dir: str) -> Iterator[None]:
        """Damage to what all steps need is no reason to look at an earlier one."""
        try:
            yield
        except DamagedError as error:
            mend = f"bring {self._run_dir}/{FROZEN} back from a copy, or --overwrite to start anew"
            raise InputError(f"{error}; {step_dir} needs it: {mend}") from error

    def restore_latest(self, shapes: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The newest step that is whole, and its items; None before the first.

        A step that is damaged is named on stderr and, once a whole one is found, moved aside to STEP.damaged.

        Raises:
            InputError: there are steps but none is whole; or see `restore`.
        """
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                items = self.restore(step, shapes)
            except DamagedError as error:
                damaged.append(step)
                if is_main_process():
                    print(f"{error}; it is passed over for an earlier one", file=sys.stderr, flush=True)
                continue
            self._set_aside(self._manager.directory, damaged)
            self._manager.reload()
            return step, items
        if damaged:
            steps = ", ".join(map(str, damaged))
            raise InputError(f"no checkpoint in {self._manager.directory} is whole (damaged: {steps}); --overwrite starts anew")
        return None

    def _set_aside(self, folder: epath.Path, steps: list[int]) -> None:
        """Renames what is damaged, so that its number is free and nothing is lost."""
        if is_main_process():
            for path in (folder / str(step) for step in steps):
                names = (f"{path.name}.damaged{suffix}" for suffix in ("", *(f".{i}" for i in range(2, 1000))))
                if path.exists():
                    path.rename(next(free for name in names if not (free := folder / name).exists()))
        barrier("damaged checkpoints are moved aside")

    def wait(self) -> None:
        """Returns once all that was saved is durable.

        Raises:
            InputError: it cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError is what tensorstore makes of a full disk
            reason = ": ".join(first_line(error).split(": ")[-2:])
            raise InputError(f"{self._run_dir}/checkpoints cannot be written ({reason}); earlier ones are whole") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits until all that was saved is durable."""
        self.wait()
        self._manager.close()


def _manager(folder: epath.Path, policy: PreservationPolicy, background: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        enable_async_checkpointing=background,
        cleanup_tmp_directories=True,  # what a killed run left half written
        lightweight_initialize=True,  # a damaged step's metadata would be an error
    )
    arrays = {name: _arrays() for name in ITEMS}
    return ocp.CheckpointManager(folder, options=options, item_handlers={**arrays, "model": ocp.JsonCheckpointHandler()})


def _arrays() -> ocp.PyTreeCheckpointHandler:
    """Uncompressed, as weights hardly shrink and it takes long; processes share the writing of what is large, and only that."""
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=PART_BYTES)
    kinds = ocp.type_handlers.create_type_handler_registry((jax.Array, handler))
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=kinds)


def _save(manager: ocp.CheckpointManager, step: int, card: CheckpointCard | None, items: dict[str, Flat]) -> None:
    arrays = {name: fingerprint_arrays(flat) for name, flat in items.items()}
    args = {name: _from(flat) for name, flat in items.items() if flat}
    args["model"] = ocp.args.JsonSave(Manifest(step=step, card=card, arrays=arrays).to_json())
    manager.save(step, args=ocp.args.Composite(**args))


def _from(flat: Flat) -> Any:
    """Saves leaves, each shard of an array as it lies: cut into files of a limited size they would be copied first."""
    return ocp.args.PyTreeSave(
        flat, save_args={name: _chunks(leaf) for name, leaf in flat.items()}, ocdbt_target_data_file_size=0
    )


def _chunks(array: jax.Array) -> ocp.SaveArgs:
    """Chunks that can be read alone; a stack of layers is cut layer from layer first, which needs no copy."""
    if array.nbytes <= PART_BYTES:
        return ocp.SaveArgs()
    is_stack = array.ndim > 2
    return ocp.SaveArgs(chunk_byte_size=PART_BYTES, shard_axes=(0,) if is_stack else ())


def _check_same(step_dir: str, held: dict[str, dict[str, str]], wanted: dict[str, Flat]) -> None:
    """That a step holds what a run goes on from, in shape and dtype."""
    for item, flat in wanted.items():
        names = [*flat, *(name for name in held.get(item, {}) if name not in flat)]
        for name in names:
            there = held.get(item, {}).get(name, "nothing").split()[0]
            here = describe_array(flat[name]) if name in flat else "nothing"
            if there != here:
                what = f"{item} {name}".strip()
                complaint = f"{step_dir} is of another model or other settings: {what} is {there} there and {here} here"
                raise InputError(f"{complaint}; go on with the settings it was made with, or --overwrite to start anew")
