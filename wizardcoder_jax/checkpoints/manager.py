"""Writes and restores the checkpoints of a run: one folder per step, which appears only once it is complete."""

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
from wizardcoder_jax.core.filesystem import ensure_dir, is_remote, remote_path

logger = logging.getLogger(__name__)

ITEMS = ("params", "optimizer", "ema", "guard")  # items of a checkpoint; each is a folder
FROZEN = "frozen"  # item that is saved only once per run, for all steps


class CheckpointManager:
    """Saves and restores the checkpoints of one run. A checkpoint consists of items (ITEMS and FROZEN): pytrees of arrays.

    Args:
        run_dir: the run's folder, local or gs://.
        keep: number of newest checkpoints to keep.
        keep_every_steps: if given, checkpoints of steps that are multiples of this number are never deleted.
        background: whether to write while training continues. The state may be donated meanwhile; on CPU, it is copied first.

    Raises:
        InputError: the folder cannot be created.
    """

    def __init__(self, run_dir: str, keep: int, keep_every_steps: int | None = None, background: bool = False) -> None:
        _silence_duplicate_errors()
        ensure_dir(run_dir)
        self._run_dir = remote_path(run_dir) if is_remote(run_dir) else epath.Path(os.path.abspath(run_dir))
        policies: list[PreservationPolicy] = [LatestN(keep)]
        if keep_every_steps is not None:
            policies.append(EveryNSteps(keep_every_steps))
        with self._writing():
            self._manager = _manager(self._run_dir / "checkpoints", AnyPreservationPolicy(policies), background)
        self._frozen: str | None = None  # checksum of the frozen weights once they have been saved

    def save(self, step: int, card: CheckpointCard, items: dict[str, Any]) -> None:
        """Start to write a checkpoint. Does nothing if the step has already been saved.

        Args:
            step: the step of the checkpoint.
            card: the description of its model; the field `frozen` is filled in by this method.
            items: pytrees of arrays by name; None values are skipped, and "frozen" is written only once per run.

        Raises:
            InputError: this checkpoint, or the previous one in the background, cannot be written; earlier ones are unaffected.
        """
        if step in self._manager.all_steps():
            return
        given = {name: flatten(tree) for name, tree in items.items() if tree is not None}
        if frozen := given.pop(FROZEN, None):
            card = dataclasses.replace(card, frozen=self._ensure_frozen_saved(frozen))
        with self._writing():
            _save(self._manager, step, card, given)

    def _ensure_frozen_saved(self, frozen: Flat) -> str:
        """Save the frozen weights unless an intact copy exists on disk, and return their checksum."""
        if self._frozen is None:
            lines = fingerprint_arrays(frozen)
            self._frozen = combined_checksum(lines)
            if not self._has_frozen(frozen):
                self._move_aside(self._run_dir / FROZEN, [0])
                with self._writing(), _manager(self._run_dir / FROZEN, LatestN(1), background=False) as manager:
                    _save(manager, 0, None, {"params": frozen})
        return self._frozen

    def _has_frozen(self, frozen: Flat) -> bool:
        run_dir = os.fspath(self._run_dir)
        try:
            with fail_together(f"{run_dir}/{FROZEN}"):
                folder, lines = find_frozen(run_dir, run_dir, self._frozen or "")
            for name, array in frozen.items():  # one at a time, because verifying needs memory for a copy
                read_verified(folder, lines, {name: array})
        except InputError:
            return False
        return True

    def restore(self, step: int, shapes: dict[str, Any]) -> dict[str, Any]:
        """Read the items of the checkpoint of `step` and verify their checksums.

        Args:
            step: the step of the checkpoint.
            shapes: for each item a pytree of shapes, dtypes and shardings, or None if the run does not have the item.

        Raises:
            DamagedError: the checkpoint on disk differs from what was saved.
            InputError: the checkpoint belongs to another model or other settings, or the frozen weights are missing or damaged.
        """
        step_dir = os.fspath(self._manager.directory / str(step))
        wanted = {name: flatten(tree) for name, tree in shapes.items() if tree is not None}
        with fail_together(step_dir):
            manifest = read_manifest(step_dir)
            if manifest.step != step or manifest.card is None:
                raise DamagedError(f"{step_dir} is damaged (its manifest belongs to step {manifest.step})")
        where = {name: (f"{step_dir}/{name}", lines) for name, lines in manifest.arrays.items()}
        with self._require_frozen(step_dir), fail_together(step_dir):
            if manifest.card.frozen is not None:
                where[FROZEN] = find_frozen(os.fspath(self._run_dir), step_dir, manifest.card.frozen)
        _check_same(step_dir, {name: lines for name, (_, lines) in where.items()}, wanted)
        found = {name: read_verified(*where[name], flat) for name, flat in wanted.items() if name != FROZEN}
        if FROZEN in wanted:
            with self._require_frozen(step_dir):
                found[FROZEN] = read_verified(*where[FROZEN], wanted[FROZEN])
        self._frozen = manifest.card.frozen
        return {name: None if tree is None else unflatten(tree, found[name]) for name, tree in shapes.items()}

    @contextlib.contextmanager
    def _require_frozen(self, step_dir: str) -> Iterator[None]:
        """Raise InputError if the frozen weights are damaged: an earlier checkpoint would not help, as all steps need them."""
        try:
            yield
        except DamagedError as error:
            fix = f"restore {self._run_dir}/{FROZEN} from a copy, or start over with --overwrite"
            raise InputError(f"{error}; {step_dir} cannot be used without it; {fix}") from error

    def restore_latest(self, shapes: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Restore the newest intact checkpoint; return its step and items, or None if there is no checkpoint yet.

        Damaged checkpoints are logged and, once an intact one is found, renamed to STEP.damaged.

        Raises:
            InputError: all existing checkpoints are damaged, or `restore` raises it.
        """
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                items = self.restore(step, shapes)
            except DamagedError as error:
                damaged.append(step)
                if is_main_process():
                    logger.warning(f"{error}; trying an earlier checkpoint")
                continue
            self._move_aside(self._manager.directory, damaged)
            self._manager.reload()
            return step, items
        if damaged:
            steps = ", ".join(map(str, damaged))
            raise InputError(f"all checkpoints in {self._manager.directory} are damaged ({steps}); --overwrite starts over")
        return None

    def _move_aside(self, folder: epath.Path, steps: list[int]) -> None:
        """Rename the folders of damaged checkpoints, so that the steps can be saved again and no data is deleted."""
        if is_main_process():
            for path in (folder / str(step) for step in steps):
                names = (f"{path.name}.damaged{suffix}" for suffix in ("", *(f".{i}" for i in range(2, 1000))))
                if path.exists():
                    path.rename(next(free for name in names if not (free := folder / name).exists()))
        barrier("damaged checkpoints are moved aside")

    def wait(self) -> None:
        """Wait until all checkpoints have been written completely.

        Raises:
            InputError: a checkpoint cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore raises ValueError when the disk is full
            reason = ": ".join(first_line(error).split(": ")[-2:])
            raise InputError(
                f"{self._run_dir}/checkpoints cannot be written ({reason}); earlier checkpoints are intact"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait until all checkpoints have been written completely, and release resources."""
        self.wait()
        self._manager.close()


def _silence_duplicate_errors() -> None:
    """Suppress the tracebacks that Orbax's threads log, because the same error is raised and reported in the main thread."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _report_unraisable


def _report_unraisable(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":  # caused by an earlier failed write, which is reported
        sys.__unraisablehook__(unraisable)


def _manager(folder: epath.Path, policy: PreservationPolicy, background: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        enable_async_checkpointing=background,
        cleanup_tmp_directories=True,  # remove incomplete folders of killed runs
        lightweight_initialize=True,  # do not fail if the metadata of a step is damaged
    )
    arrays = {name: _array_handler() for name in ITEMS}
    return ocp.CheckpointManager(folder, options=options, item_handlers={**arrays, "model": ocp.JsonCheckpointHandler()})


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    """Return Orbax's array handler, set up to write large replicated arrays in slices from several processes.

    Compression is disabled, because it is slow and hardly shrinks weights.
    """
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=PART_BYTES)
    kinds = ocp.type_handlers.create_type_handler_registry((jax.Array, handler))
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=kinds)


def _save(manager: ocp.CheckpointManager, step: int, card: CheckpointCard | None, items: dict[str, Flat]) -> None:
    arrays = {name: fingerprint_arrays(flat) for name, flat in items.items()}
    args = {name: _save_args(flat) for name, flat in items.items() if flat}
    args["model"] = ocp.args.JsonSave(Manifest(step=step, card=card, arrays=arrays).to_json())
    manager.save(step, args=ocp.args.Composite(**args))


def _save_args(flat: Flat) -> Any:
    """Return the arguments of a save without a size limit for data files: with a limit, tensorstore would copy each shard."""
    return ocp.args.PyTreeSave(
        flat, save_args={name: _chunks(leaf) for name, leaf in flat.items()}, ocdbt_target_data_file_size=0
    )


def _chunks(array: jax.Array) -> ocp.SaveArgs:
    """Return the chunk layout of an array; stacked layers are split along the layer dim, which needs no copy."""
    if array.nbytes <= PART_BYTES:
        return ocp.SaveArgs()
    is_stack = array.ndim > 2
    return ocp.SaveArgs(chunk_byte_size=PART_BYTES, shard_axes=(0,) if is_stack else ())


def _check_same(step_dir: str, stored: dict[str, dict[str, str]], wanted: dict[str, Flat]) -> None:
    """Check that a checkpoint has the items, shapes and dtypes that the run needs to resume."""
    for item, flat in wanted.items():
        names = [*flat, *(name for name in stored.get(item, {}) if name not in flat)]
        for name in names:
            found = stored.get(item, {}).get(name, "nothing").split()[0]
            expected = describe_array(flat[name]) if name in flat else "nothing"
            if found != expected:
                array = f"{item} {name}".strip()
                problem = f"{step_dir} belongs to another model or other settings: {array} is {found}, expected {expected}"
                raise InputError(f"{problem}; resume with the settings of that run, or start over with --overwrite")
