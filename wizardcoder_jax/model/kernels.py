"""Which way attention over packed rows goes: by two products, or by a kernel of the accelerator."""

from typing import Literal

import jax.numpy as jnp

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.model.cudnn import cudnn_attend, cudnn_misfits, on_gpu
from wizardcoder_jax.model.splash import on_tpu, splash_attend, splash_misfits

AttentionKind = Literal["auto", "dot", "splash", "cudnn"]
KERNELS = {"splash": splash_attend, "cudnn": cudnn_attend}


def chosen(
    kind: AttentionKind, *, length: int, head_dim: int, dropout: float, dtype: jnp.dtype
) -> Literal["dot", "splash", "cudnn"]:
    """The way that attention goes.

    Args:
        kind: "splash" or "cudnn" demands that kernel, "auto" takes the one of the accelerator where it fits.
        length: T, places of a row.
        head_dim: H.
        dropout: of attention probabilities, which neither kernel has.
        dtype: of activations.

    Raises:
        InputError: a kernel is demanded where it does not fit.
    """
    wanted = kind if kind != "auto" else "splash" if on_tpu() else "cudnn" if on_gpu() else "dot"
    if wanted == "dot":
        return "dot"
    if wanted == "splash":
        misfits = splash_misfits(length=length, head_dim=head_dim, dropout=dropout)
    else:
        misfits = cudnn_misfits(length=length, head_dim=head_dim, dropout=dropout, dtype=dtype)
    if misfits and kind != "auto":
        raise InputError(f"attention {kind!r} does not fit {'; '.join(misfits)}; use 'dot' or 'auto'")
    return "dot" if misfits else wanted
