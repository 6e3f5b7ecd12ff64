"""What the config.json of every family says of layers and heads, and those with rotary positions of angles and windows."""

from typing import Any

from wizardcoder_jax.models.families.config_fields import ConfigFields

MOST_LAYERS = 4096  # a file that says more is damaged


def read_rotary(fields: ConfigFields, *, max_positions: int, tied: bool, multi_head: bool = False) -> dict[str, Any]:
    """What the families with rotary positions share.

    Args:
        fields: the config.
        max_positions: the family's default.
        tied: the family's default.
        multi_head: there are as many key/value heads as heads where the config does not say.
    """
    d, n = fields.count("hidden_size"), fields.count("num_attention_heads")
    fields.choice("position_embedding_type", table={"rope": None, "rotary": None}, default="rope")
    theta, scale = _read_rope(fields)
    return {
        "embed_dim": d,
        "num_layers": fields.count("num_hidden_layers", most=MOST_LAYERS),
        "num_heads": n,
        "num_kv_heads": fields.count("num_key_value_heads", default=n if multi_head else None),
        "head_dim": fields.optional_count("head_dim") or head_dim(fields, d, n),
        "mlp_dim": fields.count("intermediate_size"),
        "max_positions": fields.count("max_position_embeddings", default=max_positions),
        "tie_embeddings": fields.flag("tie_word_embeddings", tied),
        "rope_theta": theta,
        "rope_scale": scale,
    }


def qwen2_window(fields: ConfigFields, num_layers: int) -> int | None:
    """The window of every layer; most files hold one that is not in use."""
    slides, num_full = fields.flag("use_sliding_window", False), fields.count("max_window_layers", default=28, least=0)
    fields.optional_count("sliding_window")
    named = _layer_kinds(fields, num_layers)
    kinds = named or {"sliding_attention" if slides and i >= num_full else "full_attention" for i in range(num_layers)}
    if kinds == {"full_attention"}:
        return None
    if not slides or kinds != {"sliding_attention"}:
        key = "layer_types" if named else "max_window_layers"
        asked = f"{' and '.join(sorted(kinds))} with use_sliding_window={slides}"
        raise fields.complaint(f"{key} asks for {asked}, which is not supported (only one kind in all layers)")
    return fields.count("sliding_window")


def _read_rope(fields: ConfigFields) -> tuple[float, float]:
    """Base and linear scale of the rotary angles, from `rope_parameters` (transformers 5) or `rope_scaling` (4)."""
    theta, found = fields.optional_number("rope_theta"), set[tuple[float, float]]()
    for rope in filter(None, (fields.inner("rope_parameters"), fields.inner("rope_scaling"))):
        linear = rope.choice("rope_type", "type", table={"default": False, "linear": True}, default="default")
        factor, own_theta = rope.optional_number("factor"), rope.optional_number("rope_theta")
        if linear and factor is None:
            raise fields.complaint("linear rope scaling without a factor")
        if (factor or 1.0) != 1.0 and not linear:
            raise fields.complaint(f"the rope factor {factor} stands without the type 'linear'")
        if None not in (theta, own_theta) and theta != own_theta:
            raise fields.complaint(f"rope_theta={theta} and rope_theta={own_theta} disagree")
        rope.judge_unread()
        found.add((own_theta or theta or 10000.0, factor or 1.0))
    if len(found) > 1:
        raise fields.complaint("rope_parameters and rope_scaling disagree")
    return found.pop() if found else (theta or 10000.0, 1.0)


def head_dim(fields: ConfigFields, embed_dim: int, num_heads: int) -> int:
    """The width of a head where the config does not say."""
    if embed_dim % num_heads:
        raise fields.complaint(f"an embedding of {embed_dim} does not divide into {num_heads} heads")
    return embed_dim // num_heads


def _layer_kinds(fields: ConfigFields, num_layers: int) -> set[str]:
    """The kinds of attention that `layer_types` names; none where it is absent."""
    kinds = fields.value("layer_types")
    if kinds is None:
        return set()
    if not isinstance(kinds, list) or len(kinds) != num_layers or not all(isinstance(kind, str) for kind in kinds):
        raise fields.complaint(f"layer_types is no list of {num_layers} names")
    return set(kinds)


def check_layers(fields: ConfigFields, num_layers: int, kind: str) -> None:
    """Checks that `layer_types`, where it stands, names `kind` alone."""
    if other := _layer_kinds(fields, num_layers) - {kind}:
        raise fields.complaint(
            f"layer_types names {min(other)!r}, which changes the maths and is not supported (only {kind!r})"
        )
