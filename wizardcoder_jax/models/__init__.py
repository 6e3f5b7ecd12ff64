"""The model: Flax nnx modules used as inert, typed pytrees.

Shape letters, here and in every einsum and docstring: B batch, T query length, S key length, D embed, N heads, K kv heads,
G = N/K, H head_dim, F mlp, V vocab, L layers.
"""
