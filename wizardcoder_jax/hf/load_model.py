"""A MODEL argument of any kind (checkpoint, Hugging Face folder, hub id, GGUF) to a model on a mesh."""

import dataclasses
import os

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wizardcoder_jax.checkpoints.reader import find_checkpoint, load_params, read_card, stored_dtypes
from wizardcoder_jax.config import LoraConfig
from wizardcoder_jax.core.filesystem import is_remote
from wizardcoder_jax.core.sharding import RULES, ShardingRules
from wizardcoder_jax.hf.import_weights import Checksums, Weights
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.hf.provenance import Lineage
from wizardcoder_jax.hf.tokenizer import Tokenizer, tokenizer_from_files
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.int8 import quantised
from wizardcoder_jax.models.lora import abstract_adapted, merged
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A model whose architecture and tokenizer are known and whose weights can be had."""

    arch: ArchConfig
    tokenizer: Tokenizer
    lineage: Lineage
    origin: ModelSource | str  # a source of Hugging Face tensors, or a checkpoint's folder
    checksums: Checksums | None = None  # of a checkpoint's Hugging Face tensors
    lora: LoraConfig | None = None  # of a checkpoint of adapters

    @property
    def identity(self) -> str:
        """Where the weights are, and since when: two models that differ have different ones."""
        path = self.origin.path if isinstance(self.origin, ModelSource) else self.origin
        return path if is_remote(path) else f"{os.path.realpath(path)}@{os.stat(path).st_mtime_ns}"

    def weights(self, rules: ShardingRules, mesh: Mesh, dtype: jnp.dtype | None) -> Weights:
        """The model on the mesh in `dtype` (None: as it is held); adapters are merged into it (None: in float32)."""
        if isinstance(self.origin, ModelSource):
            return self.origin.weights(rules, mesh, dtype)
        if self.lora is not None:
            shapes = abstract_adapted(self.arch, rules, self.lora)
            model = self._load(shapes, jax.tree.map(lambda leaf: leaf.dtype, shapes), rules, mesh)
            with jax.set_mesh(mesh):
                return Weights(merged(model, jnp.dtype(dtype or jnp.float32)), None)
        shapes = abstract_transformer(self.arch, rules)
        held = jax.tree.map(lambda _: dtype, shapes) if dtype is not None else stored_dtypes(self.origin, shapes)
        return Weights(self._load(shapes, held, rules, mesh), self.checksums)

    def for_sampling(self, mesh: Mesh, dtype: jnp.dtype, *, int8: bool = False) -> Transformer:
        """The model in `dtype` as the sampler wants it: split over "model" alone, blocks apart.

        Args:
            mesh: the current mesh (`jax.set_mesh`).
            dtype: of weights that are not in int8.
            int8: hold the blocks' kernels in int8.
        """
        model = self.weights(RULES["tensor"], mesh, dtype).model
        model = jax.jit(quantised)(model) if int8 else model
        return model.unstacked(consumed=True)

    def sampling_shapes(self, mesh: Mesh, dtype: jnp.dtype, *, int8: bool = False) -> Transformer:
        """What `for_sampling` gives, with shapes that know how they lie in place of weights; nothing is loaded."""
        return sampling_shapes(self.arch, mesh, dtype, int8=int8)

    def _load(self, shapes: Transformer, dtypes: Transformer, rules: ShardingRules, mesh: Mesh) -> Transformer:
        place = lambda leaf, dtype, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)  # noqa: E731
        assert isinstance(self.origin, str)
        return load_params(self.origin, jax.tree.map(place, shapes, dtypes, param_shardings(shapes, mesh, rules)))


def sampling_shapes(arch: ArchConfig, mesh: Mesh, dtype: jnp.dtype, *, int8: bool) -> Transformer:
    """`Opened.sampling_shapes` of a model that need not be at hand."""
    rules = RULES["tensor"]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), abstract_transformer(arch, rules))
    shapes = jax.eval_shape(quantised, shapes) if int8 else shapes
    shapes = jax.eval_shape(Transformer.unstacked, shapes)
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, shapes, param_shardings(shapes, mesh, rules))


def open_model(model: str) -> Opened:
    """Finds and opens `model`.

    Raises:
        InputError: it is missing, malformed or unknown.
    """
    step_dir = find_checkpoint(model)
    if step_dir is None:
        source = ModelSource(model)
        return Opened(arch=source.arch, tokenizer=source.tokenizer, lineage=source.lineage, origin=source)
    card = read_card(step_dir)
    tokenizer = tokenizer_from_files(card.tokenizer, step_dir, card.arch.eos_id)
    lora = None if card.lora is None else LoraConfig(**{**card.lora, "targets": tuple(card.lora["targets"])})
    return Opened(
        arch=card.arch,
        tokenizer=tokenizer,
        lineage=Lineage(card.base_model, card.license),
        origin=step_dir,
        checksums=card.checksums,
        lora=lora,
    )
