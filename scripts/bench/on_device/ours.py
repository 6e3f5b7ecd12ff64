"""Measurements of this package on the first device: parity with the CPU, train steps, and sampling."""

import contextlib
import dataclasses
import gc
import importlib.metadata
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from on_device.timing import time_call
from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.core.accelerators import Accelerator, find_accelerator
from wizardcoder_jax.core.sharding import RULES, is_cpu_target, mesh_from_devices
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import ENGINE_RULES
from wizardcoder_jax.inference.request import GenerationRequest
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.attention_dispatch import select_backend
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


def device(size: int) -> Iterator[dict[str, Any]]:
    """Yield the device, the versions of the packages, and the speed of a bfloat16 product [size, size]^2 and of a copy."""
    first = jax.devices()[0]
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    square = jnp.ones((size, size), jnp.bfloat16)
    multiply, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    product_s, _ = time_call(lambda: multiply(square).block_until_ready())
    copy_s, _ = time_call(lambda: copy(square).block_until_ready())
    limit = (first.memory_stats() or {}).get("bytes_limit")
    yield {
        "platform": first.platform,
        "device": first.device_kind,
        "devices": jax.device_count(),
        "limit_gb": limit and limit / GB,
        "product_tflops": 2 * size**3 / product_s / 1e12,
        "copy_gb_per_s": 2 * square.nbytes / copy_s / GB,
        "platform_version": first.client.platform_version.replace("\n", " "),
        **versions,
    }


def parity(num_tokens: int) -> Iterator[dict[str, Any]]:
    """Yield, for a tiny float32 model of each family, the differences between the first device and the CPU.

    `gradient_error` is relative to the largest gradient of all arrays; `equal_tokens` counts the greedy tokens before the first
    difference.
    """
    devices = jax.devices()[0], jax.devices("cpu")[0]
    with jax.default_matmul_precision("highest"):
        for family in TINY_FAMILIES:
            (loss, grads, tokens), (cpu_loss, cpu_grads, cpu_tokens) = (
                _probe(tiny_arch(family), mesh_from_devices([chosen], "1x1"), num_tokens) for chosen in devices
            )
            equal = int(np.logical_and.accumulate(np.equal(tokens, cpu_tokens)).sum())
            yield {
                "family": family,
                "loss_error": abs(loss - cpu_loss),
                "gradient_error": relative_error(grads, cpu_grads),
                "equal_tokens": f"{equal} of {num_tokens}",
            }


def attention(length: int) -> Iterator[dict[str, Any]]:
    """Yield the differences between the device's attention kernel and matrix products, both in bfloat16, on packed examples."""
    arch = dataclasses.replace(tiny_arch("qwen2"), head_dim=64, max_positions=length)
    mesh = mesh_from_devices(jax.devices()[:1], "1x1")
    with jax.set_mesh(mesh):
        kernel = select_backend("auto", length=length, head_dim=64, dropout=0.0, dtype=jnp.dtype("bfloat16"))
        model = random_model(arch, mesh)
        options = (LossOptions(dtype=jnp.dtype("bfloat16"), attention=kind) for kind in ("auto", "dot"))
        (loss, grads), (dot_loss, dot_grads) = (loss_and_gradients(model, each, length) for each in options)
    yield {"kernel": kernel, "loss_error": abs(loss - dot_loss), "gradient_error": relative_error(grads, dot_grads)}


def relative_error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the largest difference, relative to the largest expected number of all arrays; NaN if any number is NaN."""
    differences = [np.abs(a - b).max() for a, b in zip(found, expected, strict=True)]
    return float(np.max(differences) / np.max([np.abs(array).max() for array in expected]))


def loss_and_gradients(model: Transformer, options: LossOptions, length: int) -> tuple[float, list[np.ndarray]]:
    """Return the loss of two rows of two packed examples each, and its gradients in the order of the leaves."""
    batch = Batch(**{name: jnp.asarray(array) for name, array in random_rows(model.arch, 2, length, 2).items()})
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


def random_rows(arch: ArchConfig, batch: int, length: int, num_examples: int = 1) -> dict[str, np.ndarray]:
    """Return arrays [B, T] of random tokens, all supervised; each row has `num_examples` examples of equal length."""
    tokens = np.random.default_rng(1).integers(0, arch.vocab_size, (batch, length + 1), dtype=np.int32)
    example_length = length // num_examples
    places = np.arange(length, dtype=np.int32)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": np.full((batch, length), 1 / (batch * length), np.float32),
        "segment_ids": np.broadcast_to(1 + places // example_length, (batch, length)),
        "positions": np.broadcast_to(places % example_length, (batch, length)),
        "seeds": np.arange(batch, dtype=np.uint32),
    }


def train(model: str, length: int, attention: Any, remat: Any, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the speed of a train step (bfloat16, AdamW) with the first of `batches` that fits.

    The columns `estimated_` are the arithmetic by which `plan --mesh auto` ranks settings.
    """
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
        if limit is not None and memory.total > 0.95 * limit:  # do not spend a minute on compiling a step that cannot fit
            continue
        try:
            figures = _time_step(arch, config)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            figures = None
        if figures is None:
            gc.collect()
            continue
        step_s = figures["step_s"]
        estimated_s = chip and estimate_step_time(arch, config, (1, 1), chip, memory).total_s
        peak = (first.memory_stats() or {}).get("peak_bytes_in_use")
        yield {
            "batch": batch,
            **figures,
            "estimated_step_s": estimated_s,
            **speed(arch, config, chip, step_s),
            "peak_gb": peak and peak / GB,
            "estimated_gb": memory.total / GB,
        }
        return
    raise RuntimeError(f"no batch of {list(batches)} fits")


def speed(arch: ArchConfig, config: TrainConfig, chip: Accelerator | None, step_s: float) -> dict[str, Any]:
    """Return the tokens per second and the model FLOPs utilization of a train step."""
    tokens_per_s = config.batch_size * config.max_length / step_s
    return {"tokens_per_s": tokens_per_s, "mfu": chip and model_flops(arch, config) / step_s / chip.peak_flops}


def _time_step(arch: ArchConfig, config: TrainConfig) -> dict[str, Any]:
    """Return the kernel of attention, the first and the last loss, seconds, and the memory that the program needs."""
    rules, mesh = RULES[config.strategy], mesh_from_devices(jax.devices()[:1], "1x1")
    rows, losses = random_rows(arch, config.batch_size, config.max_length), []
    with jax.set_mesh(mesh):
        dtype = jnp.dtype(config.compute_dtype)
        kernel = select_backend(config.attention, length=config.max_length, head_dim=arch.head_dim, dropout=0.0, dtype=dtype)
        abstract = abstract_transformer(arch, rules)
        step = make_step(config, Partition.of(abstract, config), unroll=is_cpu_target())
        read = lambda indices: {name: array[indices] for name, array in rows.items()}  # noqa: E731
        batch = put_batch(read, config.batch_size, 1, mesh, rules)
        began = time.perf_counter()
        program = step.lower(abstract_state(abstract, config, mesh, rules), batch).compile()
        compile_s = time.perf_counter() - began
        sizes = program.memory_analysis()
        program_bytes = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes  # the state is updated in place
        state = [new_state(jax.jit(lambda: Transformer(arch, rules, jax.random.key(0)))(), config, mesh, rules)]

        def run() -> None:
            state[0], metrics = program(state[0], batch)
            losses.append(float(metrics.loss))

        step_s, spread = time_call(run)
        num_skipped = int(state[0].skip_step.num_skipped)
    if num_skipped or not np.isfinite(losses).all():
        raise RuntimeError(f"{num_skipped} steps were skipped, the losses are {losses}")
    return {
        "kernel": kernel,
        "loss": losses[0],
        "last_loss": losses[-1],
        "step_s": step_s,
        "spread": spread,
        "compile_s": compile_s,
        "program_gb": program_bytes / GB,
    }


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
    arch, rng = weights.arch, np.random.default_rng(0)
    engine = Engine(weights, num_slots=batch, max_length=length + num_new, eos_ids=[], dtype=jnp.dtype("bfloat16"))

    def submit(num: int) -> None:
        prompts = rng.integers(0, arch.vocab_size, (batch, length)).tolist()  # new ones: equal prompts are prefilled once
        for i, prompt in enumerate(prompts):
            engine.submit(GenerationRequest(prompt=tuple(prompt), key=(0, i), max_length=length + num))

    def prefill() -> None:
        submit(1)
        while engine.is_busy:
            engine.step()

    def decode_step_s() -> float:
        submit(num_new)
        engine.step()  # prefill and the first steps
        num_before, began = engine.num_steps, time.perf_counter()
        while engine.is_busy:
            engine.step()
        return (time.perf_counter() - began) / (engine.num_steps - num_before)

    prefill_s, _ = time_call(prefill)
    decode_step_s()  # compiles
    steps = sorted(decode_step_s() for _ in range(3))
    # bfloat16 keys and values, and all weights but the table of positions, of which a step reads only `batch` rows.
    cache = 4 * arch.num_layers * arch.num_kv_heads * arch.head_dim * batch * (length + num_new // 2)
    positions = 2 * arch.max_positions * arch.embed_dim if weights.positions is not None else 0
    read = sum(leaf.nbytes for leaf in jax.tree.leaves(weights)) - positions + cache
    return {
        "prefill_tokens_per_s": batch * length / prefill_s,
        "decode_tokens_per_s": batch / steps[1],
        "decode_step_ms": 1e3 * steps[1],
        "spread": (steps[2] - steps[0]) / steps[1],
        "bandwidth_fraction": chip and read / steps[1] / chip.hbm_bandwidth,
    }
