"""Start of an engine from a MODEL argument: open the model, check the memory, load the weights, start the engine."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import ShardingRules, make_mesh
from wizardcoder_jax.hf.load_model import OpenedModel, open_model
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import ENGINE_RULES, abstract_engine_weights, load_engine_weights
from wizardcoder_jax.inference.memory import EngineMemory, engine_memory
from wizardcoder_jax.inference.request import SamplingSteps
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.transformer import Transformer

DEFAULT_MAX_LENGTH = 2048  # tokens of prompt and answer together


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSizes:
    """Settings that determine how much memory an engine needs.

    Attributes:
        num_slots: number of answers that are decoded together.
        max_length: maximum number of tokens in prompt and answer together.
        dtype: dtype of weights, activations and KV cache.
        int8_weights: whether the weight matrices of the blocks are stored in int8.
    """

    num_slots: int
    max_length: int
    dtype: jnp.dtype
    int8_weights: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineLoader:
    """An opened model that fits on its devices. Its weights are loaded when the engine starts."""

    model: OpenedModel
    mesh: Mesh
    sizes: EngineSizes
    memory: EngineMemory

    @contextlib.contextmanager
    def start(self, **options: Any) -> Iterator[Engine]:
        """Load the weights and start the engine. The engine must be used inside this context and in this thread.

        Args:
            options: keyword arguments of `start_engine`.
        """
        with jax.set_mesh(self.mesh):
            weights = load_engine_weights(self.model, self.mesh, self.sizes.dtype, int8=self.sizes.int8_weights)
            yield start_engine(weights, self.sizes, self.model.tokenizer, **options)


def open_engine(
    model: str,
    mesh: str,
    *,
    num_slots: int,
    max_length: int | None,
    compute_dtype: str,
    cache_dir: str,
    int8_weights: bool = False,
    max_length_setting: str = "max_length",
) -> EngineLoader:
    """Open a model and check that an engine for it fits on the devices, without loading its weights.

    Args:
        model: checkpoint folder, Hugging Face folder, hub id or .gguf file.
        mesh: sizes of the mesh, DATAxMODEL.
        num_slots: see `EngineSizes`.
        max_length: see `EngineSizes`; None for DEFAULT_MAX_LENGTH, or the model's context length if that is shorter.
        compute_dtype: see `EngineSizes`.
        cache_dir: folder for compiled programs.
        int8_weights: see `EngineSizes`.
        max_length_setting: name of the setting for `max_length` in error messages.

    Raises:
        InputError: there is no such model or mesh, the model's context is too short, or a device has too little memory.
    """
    jax.config.update("jax_compilation_cache_dir", os.path.join(cache_dir, "compiled"))
    opened, devices = open_model(model), make_mesh(mesh)
    if max_length is None:
        max_length = min(DEFAULT_MAX_LENGTH, opened.arch.max_positions)
    check_max_length(max_length, opened.arch.max_positions, max_length_setting)
    sizes = EngineSizes(num_slots=num_slots, max_length=max_length, dtype=jnp.dtype(compute_dtype), int8_weights=int8_weights)
    memory = check_memory(opened.arch, devices, sizes)
    return EngineLoader(model=opened, mesh=devices, sizes=sizes, memory=memory)


def start_engine(
    weights: Transformer,
    sizes: EngineSizes,
    tokenizer: Tokenizer,
    *,
    extra_eos_ids: Sequence[int] = (),
    shared_prefix: tuple[int, ...] = (),
    num_draft_tokens: int = 0,
    programs: Sequence[SamplingSteps] = (),
) -> Engine:
    """Start an engine with weights that are already on the current mesh.

    Args:
        weights: weights in the layout of `engine_weights.py`.
        sizes: sizes of the engine.
        tokenizer: tokenizer of the model.
        extra_eos_ids: ids of tokens that end an answer, in addition to the end-of-text token.
        shared_prefix: see `Engine`.
        num_draft_tokens: see `Engine`.
        programs: see `Engine`.
    """
    return Engine(
        weights,
        num_slots=sizes.num_slots,
        max_length=sizes.max_length,
        eos_ids=[tokenizer.eos_id, *extra_eos_ids],
        dtype=sizes.dtype,
        shared_prefix=shared_prefix,
        num_draft_tokens=num_draft_tokens,
        programs=programs,
    )


def check_max_length(max_length: int, max_positions: int, setting: str) -> None:
    """Check that the model has at least `max_length` positions; error messages call `max_length` by the name `setting`.

    Raises:
        InputError: the model has fewer positions.
    """
    if max_length > max_positions:
        raise InputError(f"{setting} {max_length} exceeds the model's {max_positions} positions; lower it")


def check_memory(arch: ArchConfig, mesh: Mesh, sizes: EngineSizes, rules: ShardingRules = ENGINE_RULES) -> EngineMemory:
    """Compute the memory that an engine needs on each device of `mesh`, and check that it fits.

    Raises:
        InputError: a device has too little memory.
    """
    with jax.set_mesh(mesh):
        weights = abstract_engine_weights(arch, mesh, sizes.dtype, int8=sizes.int8_weights, rules=rules)
        memory = engine_memory(weights, mesh, num_slots=sizes.num_slots, max_length=sizes.max_length, dtype=sizes.dtype)
    memory.check_fits(mesh)
    return memory
