"""The model: Flax nnx modules, used as typed pytrees to which jax.jit, jax.grad and jax.lax.scan are applied directly.

Shape letters in every einsum and docstring: B batch, T query length, S key length, D embed, N heads, K kv heads, G = N/K,
H head_dim, F mlp, V vocab, L layers.
"""
