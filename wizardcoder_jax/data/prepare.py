"""Prepares the datasets of a training run: reads, tokenizes, splits and packs records, or loads the result from the cache."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.data.array_cache import CachedArrays, hash_file, load_or_build
from wizardcoder_jax.data.data_sources import Corpus, DataSource, tokenize_sources
from wizardcoder_jax.data.instruction_records import read_examples
from wizardcoder_jax.data.mixture import repeat_examples, repeats_per_example
from wizardcoder_jax.data.packed_dataset import Dataset, EpochCounts, Rows, TokenStore, build_rows, build_token_store
from wizardcoder_jax.data.quiet_import import quiet_import
from wizardcoder_jax.data.tokenizer_protocol import TokenizerProtocol

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # increase whenever the code would prepare the same data differently
STORED_NAMES = {"loss_mask": "learns"}  # field -> its name on disk, where they differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The training data of a run and, if some records are held out, its validation data."""

    train: Dataset
    validation: Dataset | None
    fingerprint: str  # hash of everything that the datasets depend on; equal hashes mean equal rows


def prepare_data(config: TrainConfig, files: Sequence[str], tokenizer: TokenizerProtocol) -> PreparedData:
    """Return the datasets of `config` from the cache, or prepare and cache them.

    If the cache is warm, neither seqio nor TensorFlow is imported, except with config.task (see user_seqio_tasks.py). The
    training rows of a mixture are one epoch (mixture.py); its validation rows contain each record once, whatever the rates.

    Args:
        config: the settings of the run.
        files: names of instruction files, without wildcards; ignored if config.task is given.
        tokenizer: the tokenizer of the model to train.

    Raises:
        InputError: a file or task is missing or malformed, the training or validation set or a task of the mixture has no
            supervised token, or the cache cannot be written.
    """
    if config.task is None:
        content: list[Any] = [hash_file(file) for file in files]
        sources = None  # files are only read if the cache is cold
    else:
        with quiet_import():
            from wizardcoder_jax.data import user_seqio_tasks  # imported here because it imports TensorFlow
        sources = user_seqio_tasks.read_task(config.task, tokenizer.vocab_size)
        content = [[source.name, source.rate, source.fingerprint()] for source in sources]

    def build() -> CachedArrays:
        read = [DataSource(name="", rate=1.0, records=read_examples(files))] if sources is None else sources
        return _build(read, config, tokenizer)

    cached, fingerprint = load_or_build(config.cache_dir, cache_key(config, content, tokenizer), build)
    validation = _dataset(cached, "validation") if config.validation.fraction else None
    return PreparedData(train=_dataset(cached, "train"), validation=validation, fingerprint=fingerprint)


def cache_key(config: TrainConfig, content: Sequence[Any], tokenizer: TokenizerProtocol) -> dict[str, Any]:
    """Return everything the datasets depend on, such as the contents and the order of the files, but not their names."""
    return {
        "format_version": FORMAT_VERSION,
        "content": content,
        "tokenizer": tokenizer.fingerprint,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "template": wizardcoder_prompt(with_input("{instruction}", "{input}")),
        "max_length": config.max_length,
        "objective": config.objective,
        "packs": config.is_packed,
        "held_out": config.validation.fraction,
        "seed": config.seed if len(content) > 1 and config.task else None,  # used only to draw the repeats of a mixture
    }


def _build(sources: Sequence[DataSource], config: TrainConfig, tokenizer: TokenizerProtocol) -> CachedArrays:
    fraction = config.validation.fraction
    corpus = tokenize_sources(sources, tokenizer, config.objective, config.max_length, fraction)
    kept = np.flatnonzero(corpus.is_kept)
    store = build_token_store(
        [corpus.examples[record].tokens for record in kept.tolist()],
        [corpus.examples[record].loss_mask for record in kept.tolist()],
        tokenizer.vocab_size,
    )
    sides = {"train": False} if not fraction else {"train": False, "validation": True}
    arrays = {STORED_NAMES.get(name, name): getattr(store, name) for name in _names(TokenStore)}
    facts = {}
    for side, held_out in sides.items():
        items, item_ids = _items(corpus, sources, held_out, config)
        examples = (np.cumsum(corpus.is_kept) - 1)[items]
        rows, width = build_rows(store, corpus.num_supervised[kept], examples, item_ids, config.max_length, config.is_packed)
        arrays |= {f"{side}_{name}": getattr(rows, name) for name in _names(Rows)}
        facts[side] = {"width": width, "counts": dataclasses.asdict(_count(corpus, held_out, rows, width))}
    return CachedArrays(arrays=arrays, facts=facts)


def _items(corpus: Corpus, sources: Sequence[DataSource], held_out: bool, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the records in one epoch of the training or validation set, and unique ids: record number + M * repetition."""
    is_included = corpus.is_kept & (corpus.is_held_out == held_out)
    if not corpus.num_supervised[is_included].any():
        side, change = ("validation", "raise") if held_out else ("training", "lower")
        raise InputError(
            f"validation.fraction {config.validation.fraction} leaves no supervised token in the {side} set "
            f"({np.count_nonzero(is_included)} of {len(is_included)} records); {change} it, or add records"
        )
    records = [np.flatnonzero(is_included & (corpus.sources == i)) for i in range(len(sources))]
    if held_out:
        repeats = [np.ones(len(part), np.int64) for part in records]
    else:
        for source, part in zip(sources, records, strict=True):
            if not len(part):
                raise InputError(
                    f"task {source.name} of mixture {config.task} has no example left to train on (of {len(source.records)}); "
                    "raise --max-length, lower --validation.fraction, or remove the task"
                )
        rates = [source.rate for source in sources]
        repeats = repeats_per_example([len(part) for part in records], rates, config.seed)
    parts = []
    for source, part, counts in zip(sources, records, repeats, strict=True):
        chosen, repetition = repeat_examples(counts)
        parts.append((part[chosen], part[chosen] + len(is_included) * repetition))
        if len(sources) > 1 and not held_out:
            share = f"{len(chosen)} of {sum(int(each.sum()) for each in repeats)}"
            logger.info(
                f"data: task {source.name}: {len(part)} examples, {len(chosen) / len(part):.4g} times per epoch ({share})"
            )
    items, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return items, ids


def _count(corpus: Corpus, held_out: bool, rows: Rows, width: int) -> EpochCounts:
    is_on_side = corpus.is_held_out == held_out
    is_cut = np.asarray([example.is_cut for example in corpus.examples])
    num_rows, num_tokens = len(rows.num_tokens), int(rows.num_tokens.sum())
    return EpochCounts(
        examples=int(np.count_nonzero(is_on_side)),
        dropped=int(np.count_nonzero(is_on_side & ~corpus.is_kept)),
        truncated=int(np.count_nonzero(is_on_side & corpus.is_kept & is_cut)),
        items=len(rows.members),
        rows=num_rows,
        tokens=num_tokens,
        supervised_tokens=int(rows.num_supervised.sum()),
        fill=num_tokens / (num_rows * width),
    )


def _dataset(cached: CachedArrays, side: str) -> Dataset:
    return Dataset(
        store=TokenStore(**{name: cached.arrays[STORED_NAMES.get(name, name)] for name in _names(TokenStore)}),
        rows=Rows(**{name: cached.arrays[f"{side}_{name}"] for name in _names(Rows)}),
        width=cached.facts[side]["width"],
        counts=EpochCounts(**cached.facts[side]["counts"]),
    )


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
