"""One run of several processes, each with its own devices: a TPU pod, GPUs under Slurm, or any hosts named by hand.

Each host runs the same command. By hand: JAX_COORDINATOR_ADDRESS=HOST:PORT (of the first), JAX_NUM_PROCESSES and
JAX_PROCESS_ID (0, 1, ...) in the environment.
"""

import glob
import importlib.util
import os

import jax

from wizardcoder_jax.errors import InputError

_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Makes this process one of its run's, if it has several; call it before anything else asks jax for devices.

    Raises:
        InputError: the environment describes the run in part, or with something that is no number.
    """
    named = [name for name in _BY_HAND if os.environ.get(name)]
    if len(named) == len(_BY_HAND):
        try:
            num_processes, process_id = int(os.environ[_BY_HAND[1]]), int(os.environ[_BY_HAND[2]])
        except ValueError as error:
            raise InputError(f"{_BY_HAND[1]} and {_BY_HAND[2]} must be numbers ({error})") from error
        if not 0 <= process_id < num_processes:
            raise InputError(f"{_BY_HAND[2]}={process_id} is not one of the {num_processes} processes of {_BY_HAND[1]}")
        jax.distributed.initialize(os.environ[_BY_HAND[0]], num_processes, process_id)
    elif named:
        raise InputError(f"{', '.join(named)} set, but not {', '.join(name for name in _BY_HAND if name not in named)}")
    elif _on_tpu_host() or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        jax.distributed.initialize()


def _on_tpu_host() -> bool:
    has_chips = bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
    return has_chips and importlib.util.find_spec("libtpu") is not None and os.environ.get("JAX_PLATFORMS") != "cpu"


def wait_for_all(moment: str) -> None:
    """Returns once every process of the run has come to this `moment`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(moment)


def all_agree(here: bool) -> bool:
    """Whether it holds in every process of the run; each of them must ask."""
    if jax.process_count() == 1:
        return here
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(here).all())
