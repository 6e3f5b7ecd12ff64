"""Prepares a run: opens the base model, chooses devices and trained weights, and initializes the training state."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wizardcoder_jax.checkpoints.metadata import CheckpointCard
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import WIZARDCODER_CHAT_TEMPLATE
from wizardcoder_jax.core.sharding import RULES, ShardingRules, make_mesh, num_batch_shards
from wizardcoder_jax.hf.load_model import OpenedModel, open_model
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.models.add_token import add_token, arch_with_token
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.attention_dispatch import select_backend
from wizardcoder_jax.models.lora import add_adapters_on_mesh, base_dtype
from wizardcoder_jax.training.train_step import TrainState, abstract_state, new_state
from wizardcoder_jax.training.trainable import Partition, abstract_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The model to train and its devices, without any loaded weights."""

    config: TrainConfig
    base: OpenedModel
    arch: ArchConfig
    tokenizer: Tokenizer
    new_token: int | None  # id of the padding token if it must be added to the vocabulary
    mesh: Mesh
    rules: ShardingRules
    partition: Partition

    @classmethod
    def open(cls, config: TrainConfig) -> "TrainingSetup":
        """Open the base model and determine which of its weights are trained.

        Raises:
            InputError: the model cannot be found, or the settings do not fit it.
        """
        base, mesh, rules = open_model(config.base), make_mesh(config.mesh), RULES[config.strategy]
        _check_fit(config, base.arch, num_batch_shards(mesh, rules))
        tokenizer = base.tokenizer.with_chat_template(WIZARDCODER_CHAT_TEMPLATE).with_pad_token(config.pad_token)
        new_token = tokenizer.pad_id if tokenizer.vocab_size > base.tokenizer.vocab_size else None
        arch = base.arch if new_token is None else arch_with_token(base.arch, new_token)
        partition = Partition.of(abstract_model(arch, rules, config), config)
        found = {"base": base, "arch": arch, "tokenizer": tokenizer, "new_token": new_token}
        return cls(config=config, mesh=mesh, rules=rules, partition=partition, **found)

    @property
    def checkpoint_card(self) -> CheckpointCard:
        """Metadata that is stored with every checkpoint of the run."""
        lora = None if self.config.lora.rank is None else dataclasses.asdict(self.config.lora)
        provenance, files = self.base.provenance, self.tokenizer.to_files()
        return CheckpointCard(
            arch=self.arch, tokenizer=files, base_model=provenance.base_model, license=provenance.license, lora=lora
        )

    def abstract_state(self) -> TrainState:
        """Return the shapes and shardings of the training state, into which a checkpoint can be restored."""
        return abstract_state(abstract_model(self.arch, self.rules, self.config), self.config, self.mesh, self.rules)

    def init_state(self) -> TrainState:
        """Load the base model's weights, add the new token and the adapters, and return the state before the first step."""
        lora = self.config.lora
        model = self.base.weights(self.rules, self.mesh, base_dtype(lora)).model
        model = model if self.new_token is None else add_token(model, self.new_token, self.mesh)
        if lora.rank is not None:
            model = add_adapters_on_mesh(model, lora, jax.random.key(self.config.seed), self.mesh)
        return new_state(model, self.config, self.mesh, self.rules)


def _check_fit(config: TrainConfig, arch: ArchConfig, num_shards: int) -> None:
    if config.max_length > arch.max_positions:
        raise InputError(f"max_length {config.max_length} exceeds the model's context of {arch.max_positions} tokens")
    sizes = {"length": config.max_length, "head_dim": arch.head_dim, "dropout": config.regularisation.dropout}
    select_backend(config.attention, **sizes, dtype=jnp.dtype(config.compute_dtype))
    microbatch = config.batch_size // config.accumulation
    if microbatch % num_shards:
        raise InputError(
            f"microbatches of {microbatch} sequences (batch_size / accumulation) cannot be split evenly over {num_shards} "
            f"devices (mesh {config.mesh}, strategy {config.strategy}); change --batch-size, --accumulation or --mesh"
        )
