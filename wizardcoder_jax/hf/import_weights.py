"""Import of Hugging Face tensors into the arrays of a sharded Transformer, tensor by tensor.

A host needs memory only for its own share of the model and for about two tensors. Nothing is gathered, and layers are not
stacked on the host: each tensor is written to its layer of the stacked parameter on the devices.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.hf.tensor_source import TensorSource, num_bytes
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import tensor_mappings
from wizardcoder_jax.models.families.weight_patterns import BUFFER_SUFFIXES, TIED_HEAD, TensorMapping
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer

Checksums = dict[str, str]  # Hugging Face tensor name -> DTYPE:HASH, the XXH3-128 of its bytes (little-endian, row-major)
CHECKSUM_FILE = "checksums.json"  # file in an exported folder: {"algorithm": "xxh3_128", "tensors": Checksums}


def checksum(tensor: np.ndarray) -> str:
    """Return the dtype of a tensor and the hash of its bytes, e.g. bfloat16:0a1b2c3d..."""
    return f"{tensor.dtype.name}:{xxhash.xxh3_128_hexdigest(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)}"


class Weights(NamedTuple):
    """A model, and the checksums that its Hugging Face tensors had at import (None if unknown)."""

    model: Transformer
    checksums: Checksums | None


class TensorDestination(NamedTuple):
    """The mapping of a Hugging Face tensor to our parameters, and the layer to which the tensor belongs."""

    mapping: TensorMapping
    layer: int | None  # index of the layer; None for a tensor outside the layers


def get_param(model: Transformer, path: str) -> Any:
    """Return the nnx.Param of `model` at a dotted path, e.g. "blocks.mlp.up.kernel"."""
    node: Any = model
    for name in path.split("."):
        node = getattr(node, name)
    return node


def tensor_destinations(arch: ArchConfig) -> dict[str, TensorDestination]:
    """Return the destination of every Hugging Face tensor of an architecture, by tensor name in the order of export."""
    found: dict[str, TensorDestination] = {}
    for mapping in tensor_mappings(arch):
        layers = range(arch.num_layers) if mapping.per_layer else [None]
        found.update((mapping.hf_name.format(i=layer), TensorDestination(mapping, layer)) for layer in layers)
    return found


def hf_shapes(arch: ArchConfig, model: Transformer) -> dict[str, tuple[int, ...]]:
    """Return the shape of every Hugging Face tensor of `model`, which may be abstract."""
    destinations = tensor_destinations(arch)
    return {name: to.mapping.pattern.hf_shape(_layer_shapes(to, model), arch) for name, to in destinations.items()}


def _layer_shapes(destination: TensorDestination, model: Transformer) -> list[tuple[int, ...]]:
    shapes = [get_param(model, path).shape for path in destination.mapping.params]
    return shapes if destination.layer is None else [shape[1:] for shape in shapes]


def import_weights(
    source: TensorSource,
    arch: ArchConfig,
    rules: ShardingRules,
    mesh: Mesh,
    dtype: jnp.dtype | None = None,
    expected: Checksums | None = None,
) -> Weights:
    """Load a model from `source`; each tensor is moved to the devices as soon as it is read.

    Args:
        source: tensors under their Hugging Face names.
        arch: the architecture of the model.
        rules: how tensors are split over the mesh.
        mesh: devices to load onto; each host reads every tensor and keeps the shards of its own devices.
        dtype: dtype of the weights; None keeps the dtypes of the source (the widest dtype within a stack of layers).
        expected: checksums that the tensors must have; None skips the check.

    Raises:
        InputError: a tensor is missing, unknown, or has the wrong shape or checksum; the message names it.
    """
    model = abstract_transformer(arch, rules)
    destinations, shapes = tensor_destinations(arch), hf_shapes(arch, model)
    names = [name for name in source.names() if not name.endswith(BUFFER_SUFFIXES)]
    has_tied_head = arch.tie_embeddings and TIED_HEAD in names
    _check_names(source, {name for name in names if not (has_tied_head and name == TIED_HEAD)}, shapes)
    for mapping in tensor_mappings(arch):
        dtypes = [source.dtype(name) for name in shapes if destinations[name].mapping is mapping]
        for path in mapping.params:
            param = get_param(model, path)
            sharding = rules.sharding(mesh, param.shape, param.axes)
            stored_dtype = dtype or functools.reduce(np.promote_types, dtypes)
            abstract = jax.ShapeDtypeStruct(param.shape, stored_dtype, sharding=sharding)
            param.set_value(_zeros_program(param.shape, stored_dtype, sharding)() if mapping.per_layer else abstract)
    found: Checksums = {}
    total = sum(num_bytes(source.dtype(name), shape) for name, shape in shapes.items())
    with Progress("load weights", total, "B") as progress:
        for name, tensor in _read_ahead(source, names):
            found[name] = checksum(tensor)
            if expected is not None and expected.get(name, found[name]) != found[name]:
                mismatch = f"checksum {found[name]}, expected {expected[name]}"
                raise InputError(f"{source.location}: the tensor {name} is damaged ({mismatch}); download it again")
            if name in destinations:
                _put(tensor, destinations[name], model)
                progress.update(tensor.nbytes)
            del tensor  # free it before the next one is read
    embedding = next(mapping.hf_name for mapping in tensor_mappings(arch) if mapping.params == ("tokens",))
    if has_tied_head and found.pop(TIED_HEAD) != found[embedding]:
        raise InputError(
            f"{source.location}: {TIED_HEAD} differs from the embedding, but config.json has tie_word_embeddings=true"
        )
    return Weights(model, found)


def _read_ahead(source: TensorSource, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor. Meanwhile, read the next one if the two together are not larger than the largest tensor."""
    sizes = {name: num_bytes(source.dtype(name), source.shape(name)) for name in names}
    largest = max(sizes.values())
    with ThreadPoolExecutor(1) as reader:
        ahead: Future[np.ndarray] | None = None
        for name, following in zip(names, [*names[1:], None], strict=True):
            tensor = source.read(name) if ahead is None else ahead.result()
            fits = following is not None and sizes[name] + sizes[following] <= largest
            ahead = reader.submit(source.read, following) if following is not None and fits else None
            yield name, tensor
            del tensor


def _check_names(source: TensorSource, names: set[str], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if name not in names:
            raise InputError(f"{source.location}: the tensor {name} is missing")
        if source.shape(name) != shape:
            raise InputError(f"{source.location}: {name} has shape {list(source.shape(name))}, expected {list(shape)}")
    if surplus := names - shapes.keys():
        raise InputError(f"{source.location}: {len(surplus)} tensors do not belong to the model, e.g. {min(surplus)}")


@functools.cache
def _zeros_program(shape: tuple[int, ...], dtype: jnp.dtype, sharding: NamedSharding) -> Callable[[], jax.Array]:
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


def _put(tensor: np.ndarray, destination: TensorDestination, model: Transformer) -> None:
    """Write one tensor to its parameters, and wait for the transfer to finish, so that the host can free the tensor."""
    parts = destination.mapping.pattern.to_ours(tensor, _layer_shapes(destination, model))
    for path, part in zip(destination.mapping.params, parts, strict=True):
        param = get_param(model, path)
        whole = param.get_value()
        if destination.layer is None:
            take = lambda index, part=part, dtype=whole.dtype: part[index].astype(dtype, copy=False)  # noqa: E731
            value = jax.make_array_from_callback(whole.shape, whole.sharding, take)
        else:
            sharding = NamedSharding(whole.sharding.mesh, PartitionSpec(*whole.sharding.spec[1:]))
            piece = jax.make_array_from_callback(part.shape, sharding, lambda index, part=part: part[index])
            value = _write_layer(whole, piece, jnp.int32(destination.layer))
        param.set_value(jax.block_until_ready(value))


@functools.partial(jax.jit, donate_argnums=0)
def _write_layer(whole: jax.Array, piece: jax.Array, layer: jax.Array) -> jax.Array:
    bits, piece = as_bits(whole), as_bits(piece.astype(whole.dtype))
    return jax.lax.bitcast_convert_type(jax.lax.dynamic_update_index_in_dim(bits, piece, layer, 0), whole.dtype)


def as_bits(array: jax.Array) -> jax.Array:
    """Reinterpret an array as integers, because XLA on CPU copies bfloat16 via float32, which changes signaling NaNs."""
    return jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}"))
