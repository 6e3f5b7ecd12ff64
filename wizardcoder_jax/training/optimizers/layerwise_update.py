"""An update made parameter by parameter, and of a stack of layers layer by layer: what it needs meanwhile is of one part.

A compiler left to itself may make all moments float32 at once, and hold their random numbers beside them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

STACKED_PREFIX = "blocks."  # names of parameters whose leading dim is the layer begin so
MIN_LAYER = 1 << 16  # numbers of a layer: smaller ones are updated together
Update = Callable[[jax.Array, Any, Any, Any], tuple[Any, Any]]  # key, gradients, state, params -> updates, state


def update_layerwise(update: Update, key: jax.Array, grads: dict[str, Any], state: Any, params: Any) -> tuple[Any, Any]:
    """What `update` of everything gives, but for the keys: each part has one of its own.

    Args:
        update: an optimizer's, of which no parameter's or layer's part depends on another's.
        key: of its random numbers.
        grads: by dotted name.
        state: a pytree with dicts by these names; its other leaves, such as counts, become the same in every part.
        params: by dotted name.
    """

    def is_by_name(node: Any) -> bool:
        return isinstance(node, dict) and node.keys() == grads.keys()

    nodes, treedef = jax.tree.flatten(state, is_leaf=is_by_name)
    by_name = [dict(node) if is_by_name(node) else None for node in nodes]
    shared: list[Any] = list(nodes)
    updates: dict[str, Any] = {}
    for i, name in enumerate(grads):

        def one(key: jax.Array, grad: Any, own: Any, param: Any, name: str = name) -> tuple[Any, Any, Any]:
            part = [node if own[j] is None else {name: own[j]} for j, node in enumerate(nodes)]
            new, part = update(key, {name: grad}, jax.tree.unflatten(treedef, part), {name: param})
            left = treedef.flatten_up_to(part)
            own = [None if own[j] is None else node[name] for j, node in enumerate(left)]
            return new[name], own, [node if own[j] is None else None for j, node in enumerate(left)]

        own = [None if node is None else node[name] for node in by_name]
        given = (jax.random.fold_in(key, i), grads[name], own, params[name])
        [array] = jax.tree.leaves(grads[name])
        is_large_stack = name.startswith(STACKED_PREFIX) and array.size // array.shape[0] >= MIN_LAYER
        updates[name], own, shared = _by_layer(one, *given) if is_large_stack else one(*given)
        for node, new in zip(by_name, own, strict=True):
            if node is not None:
                node[name] = new
    joined = [alone if node is None else node for node, alone in zip(by_name, shared, strict=True)]
    return updates, jax.tree.unflatten(treedef, joined)


def _by_layer(
    one: Callable[..., tuple[Any, Any, Any]], key: jax.Array, grad: Any, own: Any, param: Any
) -> tuple[Any, Any, Any]:
    """`one` of every layer: updates and states take the place of the gradients and states that they are made of."""

    def layer(i: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        cut = lambda tree: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), tree)  # noqa: E731
        put = lambda tree, new: jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, i, 0), tree, new)  # noqa: E731
        grad, own, _ = carry
        new_grad, new_own, shared = one(jax.random.fold_in(key, i), cut(grad), cut(own), cut(param))
        return put(grad, new_grad), put(own, new_own), shared

    shared = jax.eval_shape(one, key, grad, own, param)[2]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shared)
    num_layers = jax.tree.leaves(grad)[0].shape[0]
    return jax.lax.fori_loop(0, num_layers, layer, (grad, own, zeros))
