"""Measurements of this package on the first device: parity with the CPU, train steps, and sampling."""

import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from on_device.timing import median_s
from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.core.accelerators import Accelerator, find_accelerator
from wizardcoder_jax.core.sharding import RULES, is_cpu_target, mesh_from_devices
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import ENGINE_RULES
from wizardcoder_jax.inference.request import GenerationRequest
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES, published_arch
from wizardcoder_jax.models.int8 import quantize_int8
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer
from wizardcoder_jax.planning.compiled_time import model_flops
from wizardcoder_jax.planning.memory_estimator import estimate_memory
from wizardcoder_jax.planning.step_time import estimate_step_time
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy
from wizardcoder_jax.training.train_step import abstract_state, make_step, new_state
from wizardcoder_jax.training.trainable import Partition

TINY = {"vocab_size": 300, "embed_dim": 64, "num_layers": 2, "num_heads": 4, "head_dim": 16, "mlp_dim": 128}
TINY_REST = {"max_positions": 256, "norm_eps": 1e-5}
TINY_FAMILIES: dict[str, dict[str, Any]] = {  # fields beyond the family's own
    "gpt_bigcode": {"num_kv_heads": 1, "mlp": "gelu_tanh", "tie_embeddings": True},
    "starcoder2": {"num_kv_heads": 2, "mlp": "gelu_tanh", "bias": "all", "tie_embeddings": True, "sliding_window": 33},
    "llama": {"num_kv_heads": 4, "tie_embeddings": False},
    "qwen2": {"num_kv_heads": 2, "tie_embeddings": True},
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "torch")
GB = 1e9


def tiny_arch(family: str) -> ArchConfig:
    """Return a tiny architecture of a family."""
    fields = {**FAMILIES[family].arch_fields, **TINY, **TINY_REST, "family": family, **TINY_FAMILIES[family]}
    return ArchConfig(**fields)


def arch_of(model: str) -> ArchConfig:
    """Return the architecture of a published model, or a tiny one for "tiny"."""
    arch = tiny_arch("gpt_bigcode") if model == "tiny" else published_arch(model)
    assert arch is not None
    return arch


def device() -> Iterator[dict[str, Any]]:
    """Yield the device and the versions of the packages."""
    first = jax.devices()[0]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    limit = (first.memory_stats() or {}).get("bytes_limit")
    yield {
        "device": first.device_kind,
        "devices": jax.device_count(),
        "memory_limit_gb": limit and round(limit / GB, 1),
        "driver": first.client.platform_version.replace("\n", " "),
        **versions,
    }


def parity(num_tokens: int) -> Iterator[dict[str, Any]]:
    """Yield, for a tiny float32 model of each family, the differences between the first device and the CPU.

    `gradient_error` is relative to the largest gradient of all arrays; `equal_tokens` counts greedy tokens before a difference.
    """
    cpu, first = jax.devices("cpu")[0], jax.devices()[0]
    with jax.default_matmul_precision("highest"):
        for family in TINY_FAMILIES:
            (loss, grads, tokens), (their_loss, their_grads, their_tokens) = (
                _probe(tiny_arch(family), mesh_from_devices([chosen], "1x1"), num_tokens) for chosen in (first, cpu)
            )
            largest = max(float(np.abs(grad).max()) for grad in their_grads)
            error = max(float(np.abs(a - b).max()) for a, b in zip(grads, their_grads, strict=True))
            equal = int(np.logical_and.accumulate(np.equal(tokens, their_tokens)).sum())
            yield {
                "family": family,
                "loss_error": abs(loss - their_loss),
                "gradient_error": error / largest,
                "equal_tokens": f"{equal} of {num_tokens}",
            }


def loss_and_gradients(model: Transformer, options: LossOptions, length: int) -> tuple[float, list[np.ndarray]]:
    """Return the loss of two random rows of `length` tokens, and its gradients in the order of the leaves."""
    batch = Batch(**{name: jnp.asarray(array) for name, array in random_rows(model.arch, 2, length).items()})
    loss, grads = jax.jit(jax.value_and_grad(lambda model: weighted_cross_entropy(model, batch, options)))(model)
    return float(loss), [np.asarray(grad) for grad in jax.tree.leaves(grads)]


def random_model(arch: ArchConfig, mesh: Mesh) -> Transformer:
    """Return a model with the same random float32 weights on every kind of device."""
    rng, abstract = np.random.default_rng(0), abstract_transformer(arch, RULES["fsdp"])
    values = [rng.normal(0, 0.2, leaf.shape).astype(np.float32) for leaf in jax.tree.leaves(abstract)]
    model = jax.tree.unflatten(jax.tree.structure(abstract), values)
    return jax.device_put(model, param_shardings(model, mesh, RULES["fsdp"]))


def _probe(arch: ArchConfig, mesh: Mesh, num_tokens: int) -> tuple[float, list[np.ndarray], list[int]]:
    """Return the loss, the gradients and greedy tokens of a model with fixed random weights."""
    with jax.set_mesh(mesh):
        model = random_model(arch, mesh)
        loss, grads = loss_and_gradients(model, LossOptions(dtype=jnp.float32), length=128)
        engine = Engine(model.unstack_layers(), num_slots=1, max_length=256, eos_ids=[], dtype=jnp.dtype("float32"))
        prompt = tuple(np.random.default_rng(1).integers(0, arch.vocab_size, 100).tolist())
        [(_, answer)] = engine.generate([GenerationRequest(prompt=prompt, key=(0, 0), max_length=len(prompt) + num_tokens)])
    return loss, grads, answer.tokens


def random_rows(arch: ArchConfig, batch: int, length: int) -> dict[str, np.ndarray]:
    """Return arrays [B, T] of random tokens, all supervised."""
    tokens = np.random.default_rng(1).integers(0, arch.vocab_size, (batch, length + 1), dtype=np.int32)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": np.full((batch, length), 1 / (batch * length), np.float32),
        "segment_ids": np.ones((batch, length), np.int32),
        "positions": np.broadcast_to(np.arange(length, dtype=np.int32), (batch, length)),
        "seeds": np.arange(batch, dtype=np.uint32),
    }


def train(model: str, length: int, attention: Any, remat: Any, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the speed of a train step (bfloat16, AdamW) with the first of `batches` that fits, beside `plan`'s arithmetic."""
    arch, first = arch_of(model), jax.devices()[0]
    chip, limit = find_accelerator(first.device_kind), (first.memory_stats() or {}).get("bytes_limit")
    for batch in batches:
        config = TrainConfig(
            batch_size=batch,
            accumulation=1,
            max_length=length,
            attention=attention,
            remat=remat,
            optim=OptimConfig(warmup_steps=0),
        )
        memory = estimate_memory(arch, config, (1, 1))
        if limit is not None and memory.total > 1.1 * limit:  # do not spend minutes on compiling a step that cannot fit
            continue
        try:
            seconds, needed = _time_step(arch, config)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            continue
        planned = chip and estimate_step_time(arch, config, (1, 1), chip, memory).total_s
        yield {
            "batch": batch,
            "step_s": seconds,
            "plan_step_s": planned,
            "tokens_per_s": batch * length / seconds,
            "mfu": chip and model_flops(arch, config) / seconds / chip.peak_flops,
            "program_gb": needed / GB,
            "peak_gb": (peak := (first.memory_stats() or {}).get("peak_bytes_in_use")) and peak / GB,
            "plan_gb": memory.total / GB,
        }
        return
    raise RuntimeError(f"no batch of {list(batches)} fits")


def _time_step(arch: ArchConfig, config: TrainConfig) -> tuple[float, int]:
    """Return the median seconds of a step, and the bytes that its program needs."""
    rules, mesh = RULES[config.strategy], mesh_from_devices(jax.devices()[:1], "1x1")
    rows = random_rows(arch, config.batch_size, config.max_length)
    with jax.set_mesh(mesh):
        abstract = abstract_transformer(arch, rules)
        step = make_step(config, Partition.of(abstract, config), unroll=is_cpu_target())
        batch = put_batch(
            lambda indices: {name: array[indices] for name, array in rows.items()}, config.batch_size, 1, mesh, rules
        )
        program = step.lower(abstract_state(abstract, config, mesh, rules), batch).compile()
        sizes = program.memory_analysis()
        needed = (
            sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes + sizes.temp_size_in_bytes
        )
        state = [new_state(jax.jit(lambda: Transformer(arch, rules, jax.random.key(0)))(), config, mesh, rules)]

        def run() -> None:
            state[0], metrics = program(state[0], batch)
            metrics.loss.block_until_ready()

        return median_s(run), needed


def decode(model: str, int8: bool, prompt_length: int, num_new: int, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the speed of prefill and of decoding in bfloat16 at each batch size, and the fraction of the memory bandwidth."""
    arch, mesh = arch_of(model), mesh_from_devices(jax.devices()[:1], "1x1")
    chip = find_accelerator(jax.devices()[0].device_kind)
    with jax.set_mesh(mesh):
        weights = jax.jit(lambda: _engine_weights(arch, int8))().unstack_layers(free_stacked=True)
        for batch in batches:
            yield {"batch": batch, **_time_sampling(weights, chip, batch, prompt_length, num_new)}


def _engine_weights(arch: ArchConfig, int8: bool) -> Transformer:
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), Transformer(arch, ENGINE_RULES, jax.random.key(0)))
    return quantize_int8(model) if int8 else model


def _time_sampling(weights: Transformer, chip: Accelerator | None, batch: int, length: int, num_new: int) -> dict[str, Any]:
    arch = weights.arch
    engine = Engine(weights, num_slots=batch, max_length=length + num_new, eos_ids=[], dtype=jnp.dtype("bfloat16"))
    rng = np.random.default_rng(0)

    def answer(num: int) -> None:
        prompts = rng.integers(0, arch.vocab_size, (batch, length)).tolist()  # new ones: equal prompts are prefilled once
        requests = [GenerationRequest(prompt=tuple(p), key=(0, i), max_length=length + num) for i, p in enumerate(prompts)]
        assert all(len(found.tokens) == num for _, found in engine.generate(requests))

    prefill_s = median_s(lambda: answer(1))
    step_s = max(median_s(lambda: answer(num_new)) - prefill_s, 1e-9) / (num_new - 1)
    cache = 2 * 2 * arch.num_layers * arch.num_kv_heads * arch.head_dim * batch * (length + num_new // 2)  # bfloat16
    read = sum(leaf.nbytes for leaf in jax.tree.leaves(weights)) + cache
    return {
        "prefill_tokens_per_s": batch * length / prefill_s,
        "decode_tokens_per_s": batch / step_s,
        "decode_step_ms": 1e3 * step_s,
        "bandwidth_fraction": chip and read / step_s / chip.hbm_bandwidth,
    }
