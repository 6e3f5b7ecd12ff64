"""Samples answers: model + benchmark (or prompts) -> samples.jsonl."""

import hashlib
import itertools
import json
import os
import sys
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
from wizardcoder_jax.inference.fim import end_ids

if TYPE_CHECKING:
    from wizardcoder_jax.hf.tokenizer import Tokenizer
    from wizardcoder_jax.inference.request import Generation, GenerationRequest

CHAT = "chat"  # the protocol in which a prompt is a user message


def main(argv: Sequence[str] | None = None) -> None:
    """Samples, or goes on sampling, into `output`."""
    config = parse_command_line(SampleConfig, argv)
    questions = _questions(config)
    if config.api_model is not None:
        _sample_api(config, config.api_model, questions)
        return

    import jax
    import jax.numpy as jnp

    from wizardcoder_jax.core.sharding import make_mesh
    from wizardcoder_jax.hf.load_model import open_model
    from wizardcoder_jax.inference.engine import Engine
    from wizardcoder_jax.inference.memory import memory_of
    from wizardcoder_jax.inference.prefix_cache import common_start

    jax.config.update("jax_compilation_cache_dir", os.path.join(config.cache_dir, "compiled"))
    opened, mesh = open_model(config.model), make_mesh(config.mesh)
    tokenizer, dtype = opened.tokenizer, jnp.dtype(config.compute_dtype)
    if config.max_length > opened.arch.max_positions:
        raise InputError(f"max_length {config.max_length} exceeds the model's {opened.arch.max_positions} positions")
    wanted = _requests(config, questions, tokenizer)
    fingerprint = _fingerprint(config, questions, tokenizer, opened.identity)
    sizes = {"num_slots": config.batch_size, "max_length": config.max_length, "dtype": dtype}
    with jax.set_mesh(mesh):
        memory = memory_of(opened.sampling_shapes(mesh, dtype, int8=config.int8_weights), mesh, **sizes)
    memory.require_room(mesh)
    print(f"sample: {memory} on each device", file=sys.stderr)
    with jax.set_mesh(mesh), ResumeLog(config.output, fingerprint, resume=not config.overwrite) as journal:
        rows = {(row["task_id"], row["sample_index"]): row for row in journal.records}
        left = [name for name in wanted if name not in rows]
        if left:
            engine = Engine(
                opened.for_sampling(mesh, dtype, int8=config.int8_weights),
                eos_ids=[tokenizer.eos_id, *end_ids(tokenizer)],
                **sizes,
                header=common_start([request.prompt for request in wanted.values()]),
                num_guessed=config.lookup,
            )
            answers = engine.answer([wanted[name] for name in left])
            with Progress("sample", len(wanted), "answer", done=len(rows)) as progress:
                for index, answer in answers:
                    raw = _raw(tokenizer, answer.tokens, legacy=config.legacy_decode)
                    row = _row(questions, left[index], raw, len(answer.tokens), answer.finish_reason)
                    row |= _logprobs(answer) if config.logprobs is not None else {}
                    rows[left[index]] = row
                    journal.append(row)
                    progress.update()
        write_jsonl(meta_path(config.output), [_meta(config, questions)])
        write_jsonl(config.output, [rows[name] for name in wanted])


def _sample_api(config: SampleConfig, model: str, questions: PromptSet) -> None:
    """The answers of a model behind a server; without jax. The ledger stays: the same command is free the second time."""
    from wizardcoder_jax.llm_client.batch_sampling import Asking, ask_all, claimed_ledger

    protocol = questions.protocol
    in_chat = config.protocol == CHAT if protocol is None else protocol.needs_chat_template
    asking = Asking(
        model=model,
        in_chat=in_chat,
        temperature=config.temperature,
        top_p=config.top_p,
        extensions={
            name: getattr(config, name)
            for name, default in (("top_k", None), ("min_p", 0.0), ("repetition_penalty", 1.0))
            if getattr(config, name) != default
        },
        seed=config.seed,
        max_answer_tokens=config.max_length,
        stops=() if in_chat else questions.stops,  # a chat answer may begin with words
    )
    with claimed_ledger(config.output, overwrite=config.overwrite) as ledger:
        answers, usage = ask_all(asking, config.api, ledger, questions.texts, config.num_samples)
        rows = []
        for name, answer in answers.items():
            raw = answer.text.encode("utf-8", "replace").decode()  # a lone surrogate, which no file can hold
            rows.append(_row(questions, name, raw, answer.completion_tokens, answer.finish_reason))
        write_jsonl(meta_path(config.output), [{**_meta(config, questions), "usage": usage}])
        write_jsonl(config.output, rows)


def _row(
    questions: PromptSet, name: tuple[str, int], raw: str, num_tokens: int | None, finish_reason: str | None
) -> dict[str, object]:
    """A line of the samples file."""
    task_id, index = name
    completion = questions.clean_answer(Sample(task_id=task_id, sample_index=index, raw=raw))
    row = {"task_id": task_id, "sample_index": index, "completion": completion, "raw": raw}
    return {**row, "num_tokens": num_tokens, "finish_reason": finish_reason}


def _raw(tokenizer: "Tokenizer", tokens: Sequence[int], *, legacy: bool) -> str:
    """The text of an answer, tidied as the author's published answers were where `legacy` says so."""
    text = tokenizer.decode(tokens)
    return legacy_decode(text) if legacy else text


def _logprobs(answer: "Generation") -> dict[str, object]:
    """What a line of the samples file says of the tokens."""
    numbers = [entry.logprob for entry in answer.logprobs]
    return {"tokens": answer.tokens, "logprobs": numbers, "likeliest": [entry.likeliest for entry in answer.logprobs]}


def _questions(config: SampleConfig) -> PromptSet:
    if config.prompts is not None:
        return _prompts_of(config.prompts, config)
    assert config.benchmark is not None
    named = {"split": config.split, "version": config.benchmark_version}
    benchmark = load_benchmark(config.benchmark, config.benchmark_file, **named).first(config.limit)
    return PromptSet.of_benchmark(benchmark, get_protocol(config.protocol))


def _prompts_of(path: str, config: SampleConfig) -> PromptSet:
    """The rows of a prompts file: instructions, and gaps to fill in between a prefix and a suffix."""
    texts: dict[str, str] = {}
    suffixes: dict[str, str] = {}
    for i, (place, record) in enumerate(itertools.islice(read_records(path), config.limit)):
        task_id = str(next((record[name] for name in ("id", "task_id", "idx") if name in record), i))
        if task_id in texts:
            raise InputError(f"{place}: the id {task_id!r} occurs twice; make ids unique or leave them out")
        if "prefix" in record or "suffix" in record:
            texts[task_id], suffixes[task_id] = _gap(place, record, config)
            continue
        asked = record.get("instruction", record.get("Instruction"))  # as the original's inference script spells it
        if not isinstance(asked, str):
            raise InputError(f'{place}: the key "instruction" is missing or no text')
        instruction = with_input(asked, record.get("input"))
        # A chat model behind a server is asked as it is.
        in_chat = config.api_model is not None and config.protocol == CHAT
        texts[task_id] = instruction if in_chat else wizardcoder_prompt(instruction)
    if not texts:
        raise InputError(f"{path} holds no prompt")
    return PromptSet(version=os.path.basename(path), texts=texts, protocol=None, suffixes=suffixes)


def _gap(place: str, record: Mapping[str, Any], config: SampleConfig) -> tuple[str, str]:
    """What stands before a gap and after it."""
    prefix, suffix = record.get("prefix"), record.get("suffix")
    if not isinstance(prefix, str) or not isinstance(suffix, str):
        raise InputError(f'{place}: a row to fill in has both "prefix" and "suffix", each a text; it may be an empty one')
    if config.api_model is not None:
        raise InputError(f"{place}: rows to fill in are for models of our own, not for api:NAME")
    return prefix, suffix


def _requests(config: SampleConfig, questions: PromptSet, tokenizer: "Tokenizer") -> dict[tuple[str, int], "GenerationRequest"]:
    """All answers that are wanted, by (task id, sample index); the samples of a task stand side by side."""
    from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams

    decoding = SamplingParams(
        repetition_penalty=config.repetition_penalty,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        num_logprobs=config.logprobs,
    )
    stopped = questions.stop_condition(tokenizer)
    requests = {}
    for task_id, ids in questions.prompt_ids(tokenizer, config.max_length).items():
        for i in range(config.num_samples):
            key = random_key(config.seed, task_id, i)
            requests[task_id, i] = GenerationRequest(
                prompt=ids, key=key, max_length=config.max_length, decoding=decoding, stopped=stopped
            )
    return requests


def _meta(config: SampleConfig, questions: PromptSet) -> dict[str, object]:
    protocol = None if questions.protocol is None else questions.protocol.name
    return {**to_json(config), "protocol": protocol, "benchmark_version": questions.version}


def _fingerprint(config: SampleConfig, questions: PromptSet, tokenizer: "Tokenizer", model: str) -> str:
    """What the answers depend on."""
    passed_over = ("output", "overwrite", "cache_dir", "batch_size", "lookup", "mesh", "limit", "num_samples")
    settings = {name: value for name, value in to_json(config).items() if name not in passed_over}
    asked = json.dumps([settings, questions.texts, questions.suffixes, tokenizer.fingerprint, model], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


if __name__ == "__main__":
    run_command(main)
