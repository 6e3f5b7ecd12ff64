"""Keys of config.json that several families share: activations, head size, attention kinds by layer."""

from typing import Literal

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields

MAX_LAYERS = 4096  # a file with more is damaged
GELUS: dict[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",  # the same formula
}
SILUS: dict[str, Literal["swiglu"]] = {"silu": "swiglu", "swish": "swiglu"}


def gelu_name(arch: ArchConfig) -> str:
    """Return transformers' name of the architecture's GELU."""
    return next(theirs for theirs, ours in GELUS.items() if ours == arch.mlp)


def default_head_dim(fields: ConfigFields, embed_dim: int, num_heads: int) -> int:
    """Return the head size of a config that does not set it."""
    if embed_dim % num_heads:
        raise fields.error(f"an embedding of {embed_dim} does not divide into {num_heads} heads")
    return embed_dim // num_heads


def read_layer_types(fields: ConfigFields, num_layers: int) -> set[str]:
    """Return the kinds of attention in `layer_types`; empty if the key is absent."""
    kinds = fields.value("layer_types")
    if kinds is None:
        return set()
    if not isinstance(kinds, list) or len(kinds) != num_layers or not all(isinstance(kind, str) for kind in kinds):
        raise fields.error(f"layer_types must be a list of {num_layers} names")
    return set(kinds)


def require_layer_type(fields: ConfigFields, num_layers: int, kind: str) -> None:
    """Check that `layer_types`, if present, contains only `kind`."""
    if other := read_layer_types(fields, num_layers) - {kind}:
        raise fields.error(
            f"layer_types contains {min(other)!r}, which changes the computation and is not supported (only {kind!r})"
        )
