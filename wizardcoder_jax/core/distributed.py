"""Runs of several processes, each with its own devices: a TPU pod, GPUs under Slurm, or any set of hosts.

Each host runs the same command. TPU pods and Slurm are detected; elsewhere set JAX_COORDINATOR_ADDRESS=HOST:PORT (of the first
host), JAX_NUM_PROCESSES and JAX_PROCESS_ID (0, 1, ...). If one process is missing, ends or hangs, the others end with a nonzero
status. Start all of them again (scripts/supervise.py does so); they resume from the last checkpoint.
"""

import contextlib
import glob
import importlib.util
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.logging_setup import configure_logging

logger = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 50  # seconds within which every process of the run must have started
HEARTBEAT_TIMEOUT_S = 60  # seconds without a heartbeat after which a process counts as dead
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize_distributed() -> None:
    """Connect this process to the other processes of its run, if there are any. Must be called before JAX lists its devices.

    Raises:
        InputError: only some of the environment variables are set, or one of them has an invalid value.
    """
    named = [name for name in _VARIABLES if os.environ.get(name)]
    if len(named) == len(_VARIABLES):
        address = os.environ[_VARIABLES[0]]
        try:
            num_processes, process_id = int(os.environ[_VARIABLES[1]]), int(os.environ[_VARIABLES[2]])
        except ValueError as error:
            raise InputError(f"{_VARIABLES[1]} and {_VARIABLES[2]} must be integers ({error})") from error
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"{_VARIABLES[2]}={process_id} must be between 0 and {num_processes - 1}, since {_VARIABLES[1]}={num_processes}"
            )
        with _exit_after_timeout(f"{num_processes} processes at {address}"):
            _initialize(coordinator_address=address, num_processes=num_processes, process_id=process_id)
    elif named:
        missing = ", ".join(name for name in _VARIABLES if name not in named)
        raise InputError(f"found {', '.join(named)} in the environment, but not {missing}; set all of them, or none")
    elif _on_tpu_host() or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        with _exit_after_timeout("processes of this slice or job"):
            _initialize()


def _initialize(**arguments: Any) -> None:
    # Commands handle SIGTERM themselves; JAX's preemption service would install its own handler.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        **arguments,
        initialization_timeout=2 * JOIN_TIMEOUT_S,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        shutdown_timeout_seconds=HEARTBEAT_TIMEOUT_S,
    )


@contextlib.contextmanager
def _exit_after_timeout(expected: str) -> Iterator[None]:
    """Exit with a one-line error if the block takes longer than JOIN_TIMEOUT_S. JAX would abort with a stack trace."""

    def give_up() -> None:
        configure_logging()
        logger.error(
            "not all %s started within %s s; start the command on every host, with the same address and number of processes",
            expected,
            JOIN_TIMEOUT_S,
        )
        os._exit(1)

    timer = threading.Timer(JOIN_TIMEOUT_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _on_tpu_host() -> bool:
    has_chips = bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
    return has_chips and importlib.util.find_spec("libtpu") is not None and os.environ.get("JAX_PLATFORMS") != "cpu"


def is_main_process() -> bool:
    """Return whether this is the main process of the run, which writes all files of which the run needs only one copy."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process of the run has reached the barrier `name`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def require_same_settings(settings: dict[str, Any]) -> None:
    """Check that every process has the same settings. Their values must be JSON-serializable.

    Raises:
        InputError: the settings of a process differ from those of the first. Raised in every process; names a setting.
    """
    if jax.process_count() == 1:
        return
    all_settings = [json.loads(text) for text in _gather_texts(json.dumps(settings, sort_keys=True))]
    first = all_settings[0]
    for i, other in enumerate(all_settings):
        differing = [name for name in {**first, **other} if other.get(name) != first.get(name)]
        if differing:
            name = differing[0]
            raise InputError(
                f"process {i} has {name} {other.get(name)!r} and process 0 has {first.get(name)!r}; "
                "start the same command with the same files on every host"
            )


def _gather_texts(text: str) -> list[str]:
    """Gather one string per process, and return all of them in every process."""
    from jax.experimental import multihost_utils

    content = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.pad(content, (0, int(lengths.max()) - len(content)))
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


class AnyProcess:
    """The logical OR of a flag across the processes of a run. All processes must call it equally often; all get equal results.

    With several processes, a call returns the OR of the flags of the previous call, so that the host does not wait while the
    devices compute it.

    Args:
        mesh: mesh of all devices of the run.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._pending = mesh, False
        self._reduce_max = jax.jit(lambda flags: flags.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, flag: bool) -> bool:
        """Return whether any process set `flag` in this call or, with several processes, in the previous call."""
        if jax.process_count() == 1:
            return flag
        over_all = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        flags = jax.make_array_from_callback((self._mesh.size,), over_all, lambda index: np.full(self._mesh.size, flag)[index])
        previous, self._pending = self._pending, self._reduce_max(flags)
        return bool(previous)


def all_processes(flag: bool) -> bool:
    """Return the logical AND of a flag across the processes of the run. All processes must call it."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(flag).all())
