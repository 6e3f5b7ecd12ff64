"""The same train step and sampling with transformers and torch, on the GPU that torch sees."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers

from on_device.ours import arch_of, random_rows
from on_device.timing import median_s
from wizardcoder_jax.models.arch import ArchConfig

GB = 1e9


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if jax_uses_an_accelerator():
        raise RuntimeError("torch sees no GPU")
    return "cpu"


def jax_uses_an_accelerator() -> bool:
    """Return whether JAX computes on something else than the CPU."""
    import jax

    return jax.default_backend() != "cpu"


def _model(arch: ArchConfig, dtype: torch.dtype) -> Any:
    config: Any = transformers.GPTBigCodeConfig(
        vocab_size=arch.vocab_size,
        n_positions=arch.max_positions,
        n_embd=arch.embed_dim,
        n_layer=arch.num_layers,
        n_head=arch.num_heads,
        n_inner=arch.mlp_dim,
        activation_function="gelu_pytorch_tanh",
        multi_query=True,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.device(_device()):
        network: Any = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return network.to(dtype)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def torch_train(model: str, length: int, attention: str, remat: str, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the speed of a train step (bfloat16 autocast, fused AdamW, checkpointed blocks) with the first batch that fits."""
    assert remat == "full"
    arch = arch_of(model)
    network = _model(arch, torch.float32)
    network.gradient_checkpointing_enable()
    network.train()
    adamw = torch.optim.AdamW(network.parameters(), lr=2e-5, weight_decay=0.0, fused=torch.cuda.is_available() or None)
    for batch in batches:
        rows = random_rows(arch, batch, length)
        tokens, targets = (torch.tensor(rows[name], device=_device()).long() for name in ("tokens", "targets"))

        def run(tokens: torch.Tensor = tokens, targets: torch.Tensor = targets) -> None:
            with torch.autocast(_device(), torch.bfloat16):
                logits = network(tokens, use_cache=False).logits
            torch.nn.functional.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1)).backward()
            adamw.step()
            adamw.zero_grad()
            _wait()

        try:
            seconds = median_s(run)
        except torch.OutOfMemoryError:
            adamw.zero_grad()
            torch.cuda.empty_cache()
            continue
        peak = torch.cuda.max_memory_allocated() / GB if torch.cuda.is_available() else None
        yield {"batch": batch, "step_s": seconds, "tokens_per_s": batch * length / seconds, "peak_gb": peak}
        return
    raise RuntimeError(f"no batch of {list(batches)} fits")


def torch_decode(model: str, prompt_length: int, num_new: int, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the speed of prefill and of greedy decoding in bfloat16 at each batch size."""
    arch = arch_of(model)
    network = _model(arch, torch.bfloat16).eval()
    for batch in batches:
        prompts = torch.tensor(random_rows(arch, batch, prompt_length)["tokens"], device=_device()).long()

        def answer(num: int, prompts: torch.Tensor = prompts) -> None:
            mask = torch.ones_like(prompts)
            with torch.no_grad():
                network.generate(
                    prompts, attention_mask=mask, max_new_tokens=num, min_new_tokens=num, do_sample=False, pad_token_id=0
                )
            _wait()

        prefill_s = median_s(lambda: answer(1))
        step_s = max(median_s(lambda: answer(num_new)) - prefill_s, 1e-9) / (num_new - 1)
        yield {
            "batch": batch,
            "prefill_tokens_per_s": batch * prompt_length / prefill_s,
            "decode_tokens_per_s": batch / step_s,
            "decode_step_ms": 1e3 * step_s,
        }
