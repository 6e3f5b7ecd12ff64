"""The model card of an exported model: README.md with the metadata that the hub reads, scores among it."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.hf.provenance import LICENSE_NOTES, Provenance
from wizardcoder_jax.models.arch import ArchConfig

_DATASETS = {  # benchmark -> the hub's id of its problems, and its name
    "humaneval": ("openai/openai_humaneval", "HumanEval"),
    "humaneval+": ("evalplus/humanevalplus", "HumanEval+"),
    "mbpp": ("google-research-datasets/mbpp", "MBPP"),
    "mbpp-sanitized": ("google-research-datasets/mbpp", "MBPP (sanitized)"),
    "mbpp+": ("evalplus/mbppplus", "MBPP+"),
    "ds1000": ("xlangai/DS-1000", "DS-1000"),
}
_HUB_LICENSES = ("apache-2.0", "mit", "bigcode-openrail-m", "llama2")  # others are "other" with a name


def model_card(name: str, arch: ArchConfig, lineage: Provenance, results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """README.md of an exported model.

    Args:
        name: of the model.
        arch: its architecture.
        lineage: its base and licence.
        results: (place, content) of results.json files of `evaluate`.

    Raises:
        InputError: a results file is none.
    """
    scores = [score for place, result in results for score in _scores(place, result)]
    is_known = lineage.license is None or lineage.license in _HUB_LICENSES
    data = ModelCardData(
        base_model=lineage.base_model,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["code", "wizardcoder", "wizardcoder_jax"],
        model_name=name,
        eval_results=scores or None,
        license=lineage.license if is_known else "other",
        license_name=None if is_known else lineage.license,
    )
    base = f"[{lineage.base_model}](https://huggingface.co/{lineage.base_model})" if lineage.base_model else "a local model"
    lines = [f"---\n{data.to_yaml()}\n---", f"# {name}"]
    lines.append(f"{arch.num_params:,} parameters ({arch.family}), context of {arch.max_positions} tokens, from {base}.")
    lines += ["## Use", _USE.format(name=name)]
    if results:
        lines += ["## Scores", _table(results)]
    lines += ["## Licence", _license_note(lineage)]
    return "\n\n".join(lines) + "\n"


_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")
messages = [{{"role": "user", "content": "Write a Python function that reverses a string."}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))
```

The chat template makes the prompt that the model expects."""


def _license_note(lineage: Provenance) -> str:
    if lineage.license is None:
        return "The licence of the base model is not known here; find it before passing these weights on."
    note = LICENSE_NOTES.get(lineage.license, "Read what it asks of those who pass on a fine-tuned model.")
    return f"These weights derive from a base model under {lineage.license}, which holds for them too. {note}"


def _scores(place: str, result: dict[str, Any]) -> list[EvalResult]:
    try:
        benchmark, protocol = result["benchmark"], result["protocol"]
        dataset, shown = _DATASETS.get(benchmark, (benchmark, benchmark))
        if benchmark.startswith("multipl-e-"):
            dataset, shown = "nuprl/MultiPL-E", f"MultiPL-E ({benchmark.removeprefix('multipl-e-')})"
        return [
            EvalResult(
                task_type="text-generation",
                dataset_type=dataset,
                dataset_name=f"{shown}, protocol {protocol}",
                dataset_revision=str(result["benchmark_version"]),
                metric_type=f"pass@{k}",
                metric_name=f"pass@{k}",
                metric_value=round(float(value), 4),
                verified=False,
            )
            for k, value in result["pass_at_k"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{place}: no results of evaluate (results.json): {error}") from error


def _table(results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    rows = ["| benchmark | protocol | problems | metric | score | 95 % interval |", "|---|---|---|---|---|---|"]
    for _, result in results:
        for k, value in result["pass_at_k"].items():
            low, high = result["confidence_95"][k]
            shown = f"{100 * value:.1f} % | {100 * low:.1f} to {100 * high:.1f} % |"
            rows.append(f"| {result['benchmark']} | {result['protocol']} | {result['num_problems']} | pass@{k} | {shown}")
    return "\n".join(rows)
