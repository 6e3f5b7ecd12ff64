"""One run of several processes, each with its own devices: a TPU pod, GPUs under Slurm, or any hosts named by hand.

Each host runs the same command. By hand: JAX_COORDINATOR_ADDRESS=HOST:PORT (of the first), JAX_NUM_PROCESSES and
JAX_PROCESS_ID (0, 1, ...) in the environment. A process that is missing, ends or hangs ends the others too, with a status
other than 0: then all are started again (scripts/supervise.py does it), and go on from the last checkpoint.
"""

import contextlib
import glob
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.core.errors import InputError

JOIN_TIMEOUT_S = 50  # until every process of the run is there
HEARTBEAT_TIMEOUT_S = 60  # a process that has been silent for so long is given up
_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Makes this process one of its run's, if it has several; call it before anything else asks jax for devices.

    Raises:
        InputError: the environment describes the run in part, or with something that is no number.
    """
    named = [name for name in _BY_HAND if os.environ.get(name)]
    if len(named) == len(_BY_HAND):
        address = os.environ[_BY_HAND[0]]
        try:
            num_processes, process_id = int(os.environ[_BY_HAND[1]]), int(os.environ[_BY_HAND[2]])
        except ValueError as error:
            raise InputError(f"{_BY_HAND[1]} and {_BY_HAND[2]} must be numbers ({error})") from error
        if not 0 <= process_id < num_processes:
            raise InputError(f"{_BY_HAND[2]}={process_id} is not one of the {num_processes} processes of {_BY_HAND[1]}")
        with _patience(f"{num_processes} processes at {address}"):
            _initialize(coordinator_address=address, num_processes=num_processes, process_id=process_id)
    elif named:
        raise InputError(f"{', '.join(named)} set, but not {', '.join(name for name in _BY_HAND if name not in named)}")
    elif _on_tpu_host() or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        with _patience("processes of this slice or job"):
            _initialize()


def _initialize(**named: Any) -> None:
    # Signals are the doors' own: this service would take SIGTERM for itself.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        **named,
        initialization_timeout=2 * JOIN_TIMEOUT_S,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        shutdown_timeout_seconds=HEARTBEAT_TIMEOUT_S,
    )


@contextlib.contextmanager
def _patience(awaited: str) -> Iterator[None]:
    """Ends this process with one line when the block takes too long: jax's own end is an abort with a stack trace."""

    def give_up() -> None:
        print(
            f"error: not all {awaited} were there within {JOIN_TIMEOUT_S} s; start the command on every host, with the same "
            "address and number of processes",
            file=sys.stderr,
            flush=True,
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


def is_first() -> bool:
    """Whether this is the process that writes what there is one of."""
    return jax.process_index() == 0


def wait_for_all(moment: str) -> None:
    """Returns once every process of the run has come to this `moment`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(moment)


def require_same(settings: dict[str, Any]) -> None:
    """Returns where every process has the same `settings` (what JSON can hold), else all of them raise.

    Raises:
        InputError: a process has other settings than the first; the first that differs is named.
    """
    if jax.process_count() == 1:
        return
    everybody = [json.loads(text) for text in _all_texts(json.dumps(settings, sort_keys=True))]
    for i, other in enumerate(everybody):
        differing = [name for name in {**everybody[0], **other} if other.get(name) != everybody[0].get(name)]
        if differing:
            name = differing[0]
            raise InputError(
                f"process {i} has {name} {other.get(name)!r} and process 0 has {everybody[0].get(name)!r}; "
                "start the same command with the same files on every host"
            )


def _all_texts(text: str) -> list[str]:
    from jax.experimental import multihost_utils

    content = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.pad(content, (0, int(lengths.max()) - len(content)))
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


class AnyProcess:
    """Whether any process of the run was asked something; all must call it equally often, and are given equal answers.

    Where there are several the answer is to the call before: finding it took the devices' time in between, not the host's.

    Args:
        mesh: over all devices of the run.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._found = mesh, False
        self._largest = jax.jit(lambda flags: flags.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, here: bool) -> bool:
        """Whether this process was asked, or any other."""
        if jax.process_count() == 1:
            return here
        over_all = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        flags = jax.make_array_from_callback((self._mesh.size,), over_all, lambda index: np.full(self._mesh.size, here)[index])
        before, self._found = self._found, self._largest(flags)
        return bool(before)


def all_agree(here: bool) -> bool:
    """Whether it holds in every process of the run; each of them must ask."""
    if jax.process_count() == 1:
        return here
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(here).all())
