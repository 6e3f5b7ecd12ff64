"""Opening a MODEL argument of any kind: a checkpoint, a Hugging Face folder or hub id, or a GGUF file."""

import dataclasses
import os

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wizardcoder_jax.checkpoints.reader import find_checkpoint, load_params, read_card, stored_dtypes
from wizardcoder_jax.config import LoraConfig
from wizardcoder_jax.core.filesystem import is_remote
from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.hf.import_weights import Checksums, Weights
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.hf.provenance import Provenance
from wizardcoder_jax.hf.tokenizer import Tokenizer, tokenizer_from_files
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.lora import abstract_lora_transformer, merge_adapters
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A model whose architecture and tokenizer are known, and whose weights can be loaded."""

    arch: ArchConfig
    tokenizer: Tokenizer
    provenance: Provenance
    origin: ModelSource | str  # source of Hugging Face tensors, or folder of a checkpoint
    checksums: Checksums | None = None  # checksums of the Hugging Face tensors from which the checkpoint was converted
    lora: LoraConfig | None = None  # settings of the adapters in the checkpoint; None without adapters

    @property
    def identity(self) -> str:
        """Location and modification time of the weights, which together identify the model."""
        path = self.origin.path if isinstance(self.origin, ModelSource) else self.origin
        return path if is_remote(path) else f"{os.path.realpath(path)}@{os.stat(path).st_mtime_ns}"

    def weights(self, rules: ShardingRules, mesh: Mesh, dtype: jnp.dtype | None) -> Weights:
        """Load the weights onto a mesh and merge any adapters into them.

        Args:
            rules: how the weights are split over the mesh.
            mesh: devices to load onto.
            dtype: dtype of the weights. None keeps the dtype of each stored array, or means float32 if adapters are merged.
        """
        if isinstance(self.origin, ModelSource):
            return self.origin.weights(rules, mesh, dtype)
        if self.lora is not None:
            shapes = abstract_lora_transformer(self.arch, rules, self.lora)
            model = self._load(shapes, jax.tree.map(lambda leaf: leaf.dtype, shapes), rules, mesh)
            with jax.set_mesh(mesh):
                return Weights(merge_adapters(model, jnp.dtype(dtype or jnp.float32)), None)
        shapes = abstract_transformer(self.arch, rules)
        dtypes = jax.tree.map(lambda _: dtype, shapes) if dtype is not None else stored_dtypes(self.origin, shapes)
        return Weights(self._load(shapes, dtypes, rules, mesh), self.checksums)

    def _load(self, shapes: Transformer, dtypes: Transformer, rules: ShardingRules, mesh: Mesh) -> Transformer:
        place = lambda leaf, dtype, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)  # noqa: E731
        assert isinstance(self.origin, str)
        return load_params(self.origin, jax.tree.map(place, shapes, dtypes, param_shardings(shapes, mesh, rules)))


def open_model(model: str) -> OpenedModel:
    """Find and open the model that a MODEL argument names.

    Raises:
        InputError: the model is missing, malformed, or of an unknown kind.
    """
    step_dir = find_checkpoint(model)
    if step_dir is None:
        source = ModelSource(model)
        return OpenedModel(arch=source.arch, tokenizer=source.tokenizer, provenance=source.provenance, origin=source)
    card = read_card(step_dir)
    tokenizer = tokenizer_from_files(card.tokenizer, step_dir, card.arch.eos_id)
    lora = None if card.lora is None else LoraConfig(**{**card.lora, "targets": tuple(card.lora["targets"])})
    return OpenedModel(
        arch=card.arch,
        tokenizer=tokenizer,
        provenance=Provenance(card.base_model, card.license),
        origin=step_dir,
        checksums=card.checksums,
        lora=lora,
    )
