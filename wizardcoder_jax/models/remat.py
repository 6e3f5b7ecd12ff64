"""Which activations of a block are saved for the backward pass, and where; all others are recomputed from them.

Activations are saved by name (`jax.ad_checkpoint.checkpoint_name`). Activations that are offloaded to the host are copied back
while the backward pass of later blocks runs. On CPU, which has no separate host memory, they are not moved.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from wizardcoder_jax.config import Remat

INPUT = "input"  # input of the block, [B, T, D]
QKV = "qkv"  # queries, keys and values with rotary embeddings, together [B, T, N + 2K, H]
ATTENDED = "attended"  # attention output [B, T, N, H]; with splash also the log-sum-exp of each softmax, [B, N, T] float32
MIDDLE = "middle"  # residual stream between attention and MLP, [B, T, D]
UP = "up"  # hidden units of the MLP before the activation, [B, T, F]; for a gated MLP, the gate as well


class SavedActivations(NamedTuple):
    """Names of the activations that are saved in addition to the block's input."""

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


def rematerialize(function: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """Wrap the function of one block so that the backward pass recomputes the activations that `remat` does not save."""
    if remat == "none":
        return function
    saved = REMAT_POLICIES[remat]
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(saved.on_device),
        names_which_can_be_offloaded=list(saved.on_host),
        offload_src="device",
        offload_dst="pinned_host",
    )
    return jax.checkpoint(function, policy=policy)
