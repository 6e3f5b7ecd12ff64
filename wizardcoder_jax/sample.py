"""Sample answers: model + benchmark (or prompts) -> samples.jsonl."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.benchmarks.answer_cleaning import legacy_decode
from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample, meta_path
from wizardcoder_jax.config import SampleConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.core.record_files import read_records, write_jsonl
from wizardcoder_jax.core.resume_log import ResumeLog
from wizardcoder_jax.core.seeded_random import random_key
from wizardcoder_jax.evaluation.prompt_set import PromptSet
from wizardcoder_jax.inference.fim import fim_end_ids

if TYPE_CHECKING:
    from wizardcoder_jax.hf.tokenizer import Tokenizer
    from wizardcoder_jax.inference.open_engine import EngineLoader
    from wizardcoder_jax.inference.request import Generation, GenerationRequest

logger = logging.getLogger(__name__)
CHAT = "chat"  # name of the protocol that sends the prompt as a user message
# Settings that do not affect an answer: output files, speed, and the number of answers.
NOT_FINGERPRINTED = ("output", "overwrite", "cache_dir", "batch_size", "lookup", "mesh", "limit", "num_samples")


def main(argv: Sequence[str] | None = None) -> None:
    """Sample answers and write them to `output`, or resume an unfinished run."""
    config = parse_command_line(SampleConfig, argv)
    prompt_set = _load_prompts(config)
    if config.api_model is not None:
        _sample_api(config, config.api_model, prompt_set)
    else:
        _sample_local(config, prompt_set)


def _sample_local(config: SampleConfig, prompt_set: PromptSet) -> None:
    """Sample from a model on this machine. The resume log gets a record for each finished answer."""
    from wizardcoder_jax.inference.open_engine import open_engine

    loader = open_engine(
        config.model,
        config.mesh,
        num_slots=config.batch_size,
        max_length=config.max_length,
        compute_dtype=config.compute_dtype,
        cache_dir=config.cache_dir,
        int8_weights=config.int8_weights,
    )
    tokenizer = loader.model.tokenizer
    requests = _make_requests(config, prompt_set, tokenizer)
    logger.info("sample: %s on each device", loader.memory)
    fingerprint = _fingerprint(config, prompt_set, tokenizer, loader.model.identity)
    with ResumeLog(config.output, fingerprint, resume=not config.overwrite) as resume_log:
        rows = {(row["task_id"], row["sample_index"]): row for row in resume_log.records}
        if any(name not in rows for name in requests):
            _generate_rows(config, prompt_set, loader, requests, rows, resume_log)
        write_jsonl(meta_path(config.output), [_meta(config, prompt_set)])
        write_jsonl(config.output, [rows[name] for name in requests])


def _generate_rows(
    config: SampleConfig,
    prompt_set: PromptSet,
    loader: "EngineLoader",
    requests: "Mapping[tuple[str, int], GenerationRequest]",
    rows: dict[tuple[str, int], dict[str, Any]],
    resume_log: ResumeLog,
) -> None:
    """Generate the answers that are missing in `rows`, and add each to `rows` and the resume log when it has finished."""
    from wizardcoder_jax.inference.prefix_cache import common_prefix

    tokenizer, num_done = loader.model.tokenizer, len(rows)
    missing = [name for name in requests if name not in rows]
    options = {
        "extra_eos_ids": fim_end_ids(tokenizer),
        "shared_prefix": common_prefix([request.prompt for request in requests.values()]),
        "num_draft_tokens": config.lookup,
    }
    with loader.start(**options) as engine, Progress("sample", len(requests), "answer", done=num_done) as progress:
        for index, answer in engine.generate([requests[name] for name in missing]):
            raw = _answer_text(tokenizer, answer.tokens, legacy=config.legacy_decode)
            row = _make_row(prompt_set, missing[index], raw, len(answer.tokens), answer.finish_reason)
            row |= _logprob_fields(answer) if config.logprobs is not None else {}
            rows[missing[index]] = row
            resume_log.append(row)
            progress.update()


def _sample_api(config: SampleConfig, model: str, prompt_set: PromptSet) -> None:
    """Sample from a model behind an API, without JAX. If the command is repeated, the ledger provides earlier answers."""
    from wizardcoder_jax.llm_client.batch_sampling import RequestSettings, open_ledger, sample_all

    protocol = prompt_set.protocol
    in_chat = config.protocol == CHAT if protocol is None else protocol.needs_chat_template
    asking = RequestSettings(
        model=model,
        is_chat=in_chat,
        temperature=config.temperature,
        top_p=config.top_p,
        extensions={
            name: getattr(config, name)
            for name, default in (("top_k", None), ("min_p", 0.0), ("repetition_penalty", 1.0))
            if getattr(config, name) != default
        },
        seed=config.seed,
        max_answer_tokens=config.max_length,
        stops=() if in_chat else prompt_set.stops,  # an explanation in a chat answer could contain a stop string
    )
    with open_ledger(config.output, overwrite=config.overwrite) as ledger:
        answers, usage = sample_all(asking, config.api, ledger, prompt_set.texts, config.num_samples)
        rows = []
        for name, answer in answers.items():
            raw = answer.text.encode("utf-8", "replace").decode()  # replace lone surrogates, which UTF-8 cannot encode
            rows.append(_make_row(prompt_set, name, raw, answer.completion_tokens, answer.finish_reason))
        write_jsonl(meta_path(config.output), [{**_meta(config, prompt_set), "usage": usage}])
        write_jsonl(config.output, rows)


def _make_row(
    prompt_set: PromptSet, name: tuple[str, int], raw: str, num_tokens: int | None, finish_reason: str | None
) -> dict[str, object]:
    """Return a line of the samples file."""
    task_id, index = name
    completion = prompt_set.clean_answer(Sample(task_id=task_id, sample_index=index, raw=raw))
    row = {"task_id": task_id, "sample_index": index, "completion": completion, "raw": raw}
    return {**row, "num_tokens": num_tokens, "finish_reason": finish_reason}


def _answer_text(tokenizer: "Tokenizer", tokens: Sequence[int], *, legacy: bool) -> str:
    """Return the text of an answer; `legacy` cleans up spaces as in the answers that WizardCoder's authors published."""
    text = tokenizer.decode(tokens)
    return legacy_decode(text) if legacy else text


def _logprob_fields(answer: "Generation") -> dict[str, object]:
    """Return the fields of a samples file with the tokens and log-probabilities of an answer."""
    logprobs = [entry.logprob for entry in answer.logprobs]
    return {"tokens": answer.tokens, "logprobs": logprobs, "likeliest": [entry.top for entry in answer.logprobs]}


def _load_prompts(config: SampleConfig) -> PromptSet:
    if config.prompts is not None:
        return _read_prompts(config.prompts, config)
    assert config.benchmark is not None
    options = {"split": config.split, "version": config.benchmark_version}
    benchmark = load_benchmark(config.benchmark, config.benchmark_file, **options).first(config.limit)
    return PromptSet.of_benchmark(benchmark, get_protocol(config.protocol))


def _read_prompts(path: str, config: SampleConfig) -> PromptSet:
    """Read a prompts file. A row has an instruction, or a prefix and a suffix for fill-in-the-middle."""
    texts: dict[str, str] = {}
    suffixes: dict[str, str] = {}
    for i, (place, record) in enumerate(itertools.islice(read_records(path), config.limit)):
        task_id = str(next((record[name] for name in ("id", "task_id", "idx") if name in record), i))
        if task_id in texts:
            raise InputError(f"{place}: id {task_id!r} occurs more than once; make ids unique or leave them out")
        if "prefix" in record or "suffix" in record:
            texts[task_id], suffixes[task_id] = _prefix_and_suffix(place, record, config)
            continue
        instruction = record.get("instruction", record.get("Instruction"))  # WizardCoder's inference script has "Instruction"
        if not isinstance(instruction, str):
            raise InputError(f'{place}: the key "instruction" is missing or not a string')
        instruction = with_input(instruction, record.get("input"))
        # A chat model behind a server applies its own template.
        in_chat = config.api_model is not None and config.protocol == CHAT
        texts[task_id] = instruction if in_chat else wizardcoder_prompt(instruction)
    if not texts:
        raise InputError(f"{path} contains no prompt")
    return PromptSet(version=os.path.basename(path), texts=texts, protocol=None, suffixes=suffixes)


def _prefix_and_suffix(place: str, record: Mapping[str, Any], config: SampleConfig) -> tuple[str, str]:
    prefix, suffix = record.get("prefix"), record.get("suffix")
    if not isinstance(prefix, str) or not isinstance(suffix, str):
        raise InputError(f'{place}: a fill-in-the-middle row needs both "prefix" and "suffix" as strings, which may be empty')
    if config.api_model is not None:
        raise InputError(f"{place}: fill-in-the-middle rows need a local model; they cannot be sampled with --model api:NAME")
    return prefix, suffix


def _make_requests(
    config: SampleConfig, prompt_set: PromptSet, tokenizer: "Tokenizer"
) -> dict[tuple[str, int], "GenerationRequest"]:
    """Return the requests by (task id, sample index). Samples of a task are consecutive, so that they share one prefill."""
    from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams

    params = SamplingParams(
        repetition_penalty=config.repetition_penalty,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        num_logprobs=config.logprobs,
    )
    should_stop = prompt_set.stop_condition(tokenizer)
    return {
        (task_id, i): GenerationRequest(
            prompt=ids,
            key=random_key(config.seed, task_id, i),
            max_length=config.max_length,
            params=params,
            should_stop=should_stop,
        )
        for task_id, ids in prompt_set.prompt_ids(tokenizer, config.max_length).items()
        for i in range(config.num_samples)
    }


def _meta(config: SampleConfig, prompt_set: PromptSet) -> dict[str, object]:
    protocol = None if prompt_set.protocol is None else prompt_set.protocol.name
    return {**to_json(config), "protocol": protocol, "benchmark_version": prompt_set.version}


def _fingerprint(config: SampleConfig, prompt_set: PromptSet, tokenizer: "Tokenizer", model: str) -> str:
    """Return a digest of everything that the answers depend on."""
    settings = {name: value for name, value in to_json(config).items() if name not in NOT_FINGERPRINTED}
    content = json.dumps([settings, prompt_set.texts, prompt_set.suffixes, tokenizer.fingerprint, model], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


if __name__ == "__main__":
    run_command(main)
