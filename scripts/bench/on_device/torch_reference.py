"""The same train step and sampling with transformers and torch, on the GPU that torch sees."""

import contextlib
import functools
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import torch
import transformers

from on_device.ours import GB, arch_of, random_rows, speed
from on_device.timing import time_call
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.accelerators import find_accelerator
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import write_config


def _device() -> str:
    if not torch.cuda.is_available() and jax.default_backend() != "cpu":
        raise RuntimeError("torch sees no GPU")
    return "cuda" if torch.cuda.is_available() else "cpu"


def _model(arch: ArchConfig, dtype: torch.dtype) -> Any:
    no_dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    config = transformers.AutoConfig.for_model(**{**write_config(arch, "float32"), **no_dropout})
    with torch.device(_device()):
        network: Any = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return network.to(dtype)


def torch_train(model: str, length: int, attention: str, remat: str, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the speed of a train step (see accelerator.py) with the first of `batches` that fits; attention is SDPA."""
    assert remat == "full"  # checkpointed blocks
    arch, is_cuda = arch_of(model), torch.cuda.is_available()
    network = _model(arch, torch.float32)
    network.gradient_checkpointing_enable()
    network.train()
    adamw = torch.optim.AdamW(network.parameters(), lr=2e-5, weight_decay=0.0, fused=is_cuda or None)
    chip = find_accelerator(torch.cuda.get_device_name()) if is_cuda else None
    for batch in batches:
        rows, losses = random_rows(arch, batch, length), []
        tokens, targets = (torch.tensor(rows[name], device=_device()).long() for name in ("tokens", "targets"))

        def run(tokens: torch.Tensor = tokens, targets: torch.Tensor = targets, losses: list[float] = losses) -> None:
            with torch.autocast(_device(), torch.bfloat16):
                logits = network(tokens, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1))
            loss.backward()
            adamw.step()
            adamw.zero_grad()
            losses.append(loss.item())

        if is_cuda:
            torch.cuda.reset_peak_memory_stats()
        timed = None
        with contextlib.suppress(torch.OutOfMemoryError):
            timed = time_call(run)
        if timed is None:
            adamw.zero_grad()
            gc.collect()
            torch.cuda.empty_cache()
            continue
        step_s, spread = timed
        config = TrainConfig(batch_size=batch, accumulation=1, max_length=length)
        yield {
            "batch": batch,
            "loss": losses[0],
            "last_loss": losses[-1],
            "step_s": step_s,
            "spread": spread,
            **speed(arch, config, chip, step_s),
            "peak_gb": torch.cuda.max_memory_allocated() / GB if is_cuda else None,
        }
        return
    raise RuntimeError(f"no batch of {list(batches)} fits")


def torch_decode(model: str, prompt_length: int, num_new: int, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the speed of prefill and of greedy decoding in bfloat16 at each batch size."""
    arch = arch_of(model)
    network = _model(arch, torch.bfloat16).eval()
    for batch in batches:
        prompts = torch.tensor(random_rows(arch, batch, prompt_length)["tokens"], device=_device()).long()
        settings = {"attention_mask": torch.ones_like(prompts), "do_sample": False, "pad_token_id": 0}

        def answer(num: int, prompts: torch.Tensor = prompts, settings: dict[str, Any] = settings) -> None:
            with torch.no_grad():
                network.generate(prompts, max_new_tokens=num, min_new_tokens=num, **settings)[0, -1].item()

        prefill_s, _ = time_call(functools.partial(answer, 1))
        whole_s, spread = time_call(functools.partial(answer, num_new))
        step_s = (whole_s - prefill_s) / (num_new - 1)
        if step_s <= 0:
            raise RuntimeError(f"{num_new} tokens took {whole_s} s, and one token {prefill_s} s")
        yield {
            "batch": batch,
            "prefill_tokens_per_s": batch * prompt_length / prefill_s,
            "decode_tokens_per_s": batch / step_s,
            "decode_step_ms": 1e3 * step_s,
            "spread": spread,
        }
