"""Updates one parameter after the other, and stacked layers one layer after the other, to limit temporary memory.

Otherwise the compiler may keep the float32 values of all quantized moments, and the random numbers of their rounding, in memory
at the same time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

STACKED_PREFIX = "blocks."  # prefix of the names of parameters whose leading dim is the layer
MIN_LAYER_SIZE = 1 << 16  # number of elements; stacks of layers with fewer elements are updated as a whole
Update = Callable[[jax.Array, Any, Any, Any], tuple[Any, Any]]  # key, gradients, state, params -> updates, state


def update_layerwise(update: Update, key: jax.Array, grads: dict[str, Any], state: Any, params: Any) -> tuple[Any, Any]:
    """Return the result of `update`, computed for one parameter or layer at a time, each with its own random key.

    Args:
        update: the update of an optimizer that treats each parameter and layer independently.
        key: the random key.
        grads: gradients by dotted name.
        state: a pytree that contains dicts with the same names; all other leaves, such as counts, must get the same new value
            whichever parameter is updated.
        params: parameters by dotted name.
    """

    def is_by_name(node: Any) -> bool:
        return isinstance(node, dict) and node.keys() == grads.keys()

    nodes, treedef = jax.tree.flatten(state, is_leaf=is_by_name)
    by_name = [dict(node) if is_by_name(node) else None for node in nodes]
    shared: list[Any] = list(nodes)
    updates: dict[str, Any] = {}
    for i, name in enumerate(grads):

        def update_one(key: jax.Array, grad: Any, own: Any, param: Any, name: str = name) -> tuple[Any, Any, Any]:
            part = [node if own[j] is None else {name: own[j]} for j, node in enumerate(nodes)]
            new, part = update(key, {name: grad}, jax.tree.unflatten(treedef, part), {name: param})
            new_nodes = treedef.flatten_up_to(part)
            own = [None if own[j] is None else node[name] for j, node in enumerate(new_nodes)]
            return new[name], own, [node if own[j] is None else None for j, node in enumerate(new_nodes)]

        own = [None if node is None else node[name] for node in by_name]
        inputs = (jax.random.fold_in(key, i), grads[name], own, params[name])
        [array] = jax.tree.leaves(grads[name])
        has_large_layers = name.startswith(STACKED_PREFIX) and array.size // array.shape[0] >= MIN_LAYER_SIZE
        updates[name], own, shared = _scan_layers(update_one, *inputs) if has_large_layers else update_one(*inputs)
        for node, new in zip(by_name, own, strict=True):
            if node is not None:
                node[name] = new
    joined = [node_shared if node is None else node for node, node_shared in zip(by_name, shared, strict=True)]
    return updates, jax.tree.unflatten(treedef, joined)


def _scan_layers(
    update_one: Callable[..., tuple[Any, Any, Any]], key: jax.Array, grad: Any, own: Any, param: Any
) -> tuple[Any, Any, Any]:
    """Apply `update_one` to each layer; the loop writes updates and new state in place of the gradients and the old state."""

    def update_layer(i: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        layer = lambda tree: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), tree)  # noqa: E731
        store = lambda tree, new: jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, i, 0), tree, new)  # noqa: E731
        grad, own, _ = carry
        new_grad, new_own, shared = update_one(jax.random.fold_in(key, i), layer(grad), layer(own), layer(param))
        return store(grad, new_grad), store(own, new_own), shared

    shared = jax.eval_shape(update_one, key, grad, own, param)[2]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shared)
    num_layers = jax.tree.leaves(grad)[0].shape[0]
    return jax.lax.fori_loop(0, num_layers, update_layer, (grad, own, zeros))
