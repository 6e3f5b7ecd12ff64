"""What of a block is kept for the backward pass, and where; all else is computed again from it.

Tensors are kept by name. What is on the host comes back while the blocks after it are differentiated; where a program has no
host memory apart from the device's (on CPU), it is kept where it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from wizardcoder_jax.config import Remat

INPUT = "input"  # [B, T, D], what the block before hands on
QKV = "qkv"  # queries, keys and values as attention takes them: [B, T, N + 2K, H] together
ATTENDED = "attended"  # [B, T, N, H]; of the splash kernel also the logarithm of each softmax's sum, [B, N, T] float32
MIDDLE = "middle"  # [B, T, D], the sum to which the MLP is added
UP = "up"  # [B, T, F] before the activation; of a gated MLP the gate too


class SavedActivations(NamedTuple):
    """Names of what is kept besides the block's input."""

    on_device: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()


REMAT_POLICIES: dict[Remat, SavedActivations] = {
    "full": SavedActivations(),
    "attention": SavedActivations(on_device=(QKV, ATTENDED)),
    "mlp": SavedActivations(on_device=(QKV, ATTENDED, MIDDLE, UP)),
    "offload": SavedActivations(on_host=(INPUT,)),
    "offload_attention": SavedActivations(on_host=(INPUT, QKV, ATTENDED)),
    "offload_mlp": SavedActivations(on_device=(UP,), on_host=(INPUT, QKV, ATTENDED, MIDDLE)),
    "offload_up": SavedActivations(on_host=(INPUT, MIDDLE, UP)),
    "offload_middle": SavedActivations(on_host=(INPUT, QKV, ATTENDED, MIDDLE)),
}


def keep(x: jax.Array, name: str) -> jax.Array:
    """`x`, which `rematerialize` knows by name."""
    return checkpoint_name(x, name)


def rematerialize(function: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """`function` of one block, of which the backward pass finds what `remat` keeps and computes the rest again."""
    if remat == "none":
        return function
    kept = REMAT_POLICIES[remat]
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(kept.on_device),
        names_which_can_be_offloaded=list(kept.on_host),
        offload_src="device",
        offload_dst="pinned_host",
    )
    return jax.checkpoint(function, policy=policy)
