"""Keys of config.json that several families share: activations, head size, and the kind of attention in each layer."""

from typing import Literal

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields

MAX_LAYERS = 4096  # maximum number of layers; a config.json with more is considered damaged
GELUS: dict[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",  # the same formula as gelu_pytorch_tanh
}
SILUS: dict[str, Literal["swiglu"]] = {"silu": "swiglu", "swish": "swiglu"}


def gelu_name(arch: ArchConfig) -> str:
    """Return the name that transformers uses for the architecture's GELU."""
    return next(theirs for theirs, ours in GELUS.items() if ours == arch.mlp)


def default_head_dim(fields: ConfigFields, embed_dim: int, num_heads: int) -> int:
    """Return the head size of a config that does not specify one."""
    if embed_dim % num_heads:
        raise fields.error(f"the embedding size {embed_dim} is not a multiple of the number of heads {num_heads}")
    return embed_dim // num_heads


def read_layer_types(fields: ConfigFields, num_layers: int) -> set[str]:
    """Return the set of attention kinds in `layer_types`, or an empty set if the key is absent."""
    kinds = fields.value("layer_types")
    if kinds is None:
        return set()
    if not isinstance(kinds, list) or len(kinds) != num_layers or not all(isinstance(kind, str) for kind in kinds):
        raise fields.error(f"layer_types must be a list of {num_layers} names")
    return set(kinds)


def require_layer_type(fields: ConfigFields, num_layers: int, kind: str) -> None:
    """Check that `layer_types` is absent or contains only the attention kind `kind`."""
    if other := read_layer_types(fields, num_layers) - {kind}:
        raise fields.error(
            f"layer_types contains {min(other)!r}, which changes the computation and is not supported (only {kind!r})"
        )
