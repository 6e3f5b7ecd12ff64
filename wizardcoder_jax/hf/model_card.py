"""The model card of an exported model: README.md with metadata for the hub, including benchmark scores."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.hf.provenance import LICENSE_NOTES, Provenance
from wizardcoder_jax.models.arch import ArchConfig

_DATASETS = {  # benchmark -> hub id of its dataset, display name
    "humaneval": ("openai/openai_humaneval", "HumanEval"),
    "humaneval+": ("evalplus/humanevalplus", "HumanEval+"),
    "mbpp": ("google-research-datasets/mbpp", "MBPP"),
    "mbpp-sanitized": ("google-research-datasets/mbpp", "MBPP (sanitized)"),
    "mbpp+": ("evalplus/mbppplus", "MBPP+"),
    "ds1000": ("xlangai/DS-1000", "DS-1000"),
}
_HUB_LICENSES = ("apache-2.0", "mit", "bigcode-openrail-m", "llama2")  # others are written as "other" with a license_name


def model_card(name: str, arch: ArchConfig, provenance: Provenance, results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Return the README.md of an exported model.

    Args:
        name: name of the model.
        arch: architecture of the model.
        provenance: base model and license of the model.
        results: (path, content) of each results.json file written by `evaluate`.

    Raises:
        InputError: a file does not contain results.
    """
    scores = [score for path, result in results for score in _scores(path, result)]
    is_hub_license = provenance.license is None or provenance.license in _HUB_LICENSES
    data = ModelCardData(
        base_model=provenance.base_model,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["code", "wizardcoder", "wizardcoder_jax"],
        model_name=name,
        eval_results=scores or None,
        license=provenance.license if is_hub_license else "other",
        license_name=None if is_hub_license else provenance.license,
    )
    base = provenance.base_model
    derived_from = f"[{base}](https://huggingface.co/{base})" if base else "a local model"
    size = f"{arch.num_params:,} parameters ({arch.family}), context length {arch.max_positions} tokens"
    lines = [f"---\n{data.to_yaml()}\n---", f"# {name}", f"{size}, derived from {derived_from}."]
    lines += ["## Use", _USE.format(name=name)]
    if results:
        lines += ["## Scores", _table(results)]
    lines += ["## License", _license_note(provenance)]
    return "\n\n".join(lines) + "\n"


_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")
messages = [{{"role": "user", "content": "Write a Python function that reverses a string."}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))
```

The chat template produces the prompt that the model was trained with."""


def _license_note(provenance: Provenance) -> str:
    if provenance.license is None:
        return "The license of the base model is unknown; check it before you distribute these weights."
    note = LICENSE_NOTES.get(provenance.license, "Read its terms before you distribute a fine-tuned model.")
    return f"These weights are derived from a base model under {provenance.license}, which also applies to them. {note}"


def _scores(path: str, result: dict[str, Any]) -> list[EvalResult]:
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
        raise InputError(f"{path}: not a results.json file written by evaluate ({error})") from error


def _table(results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    rows = ["| benchmark | protocol | problems | metric | score | 95 % interval |", "|---|---|---|---|---|---|"]
    for _, result in results:
        for k, value in result["pass_at_k"].items():
            low, high = result["confidence_95"][k]
            shown = f"{100 * value:.1f} % | {100 * low:.1f} to {100 * high:.1f} % |"
            rows.append(f"| {result['benchmark']} | {result['protocol']} | {result['num_problems']} | pass@{k} | {shown}")
    return "\n".join(rows)
