"""What data comes from: instruction files, or the Tasks of a mixture; and all of it tokenised, in one numbering."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.data.instruction_records import Example, content_id
from wizardcoder_jax.data.notes import note
from wizardcoder_jax.data.quiet_import import quiet_import
from wizardcoder_jax.data.tokenization import TokenizedExample, truncate
from wizardcoder_jax.data.tokenizer_protocol import TokenizerProtocol
from wizardcoder_jax.data.validation_split import is_held_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """An example that comes as token ids."""

    place: str  # for messages
    tokens: np.ndarray  # [n] int64
    loss_mask: np.ndarray  # [n] bool: whether the token is to be predicted
    record_id: str  # as an Example's


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """All files, or one Task."""

    name: str
    rate: float  # in its mixture, above 0
    records: Sequence[Example] | Sequence[TokenRecord]

    def fingerprint(self) -> str:
        """A hash of what its records say."""
        return content_id(*(part for record in self.records for part in _content(record)))


def _content(record: Example | TokenRecord) -> tuple[str | bytes, ...]:
    if isinstance(record, Example):
        return record.instruction, record.input, record.output, record.record_id
    return record.tokens.tobytes(), record.loss_mask.tobytes(), record.record_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """M records, numbered over all sources."""

    examples: Sequence[TokenizedExample]  # M
    sources: np.ndarray  # [M] int64: the source of each
    is_held_out: np.ndarray  # [M] bool: on the validation side
    is_kept: np.ndarray  # [M] bool: trained on
    num_supervised: np.ndarray  # [M] int64: targets to learn


def tokenize_sources(
    sources: Sequence[DataSource], tokenizer: TokenizerProtocol, objective: str, max_length: int, held_out: float
) -> Corpus:
    """Tokenises all records and says on stderr which are cut or have nothing to learn.

    Objective original keeps the latter, as the published script does.

    Raises:
        InputError: no record has anything to learn.
    """
    records = [record for source in sources for record in source.records]
    examples: list[TokenizedExample] = []
    with Progress("prepare", len(records), "example") as progress:
        for source in sources:
            for example in _tokenised(source.records, tokenizer, objective, max_length):
                examples.append(example)
                progress.update()
    supervised = np.asarray([np.count_nonzero(example.loss_mask[1:]) for example in examples], np.int64)
    barren = np.flatnonzero(supervised == 0)
    if len(barren) == len(records):
        raise InputError(
            f"every prompt is longer than max_length {max_length} allows (first: {records[0].place}); raise --max-length"
        )
    if len(barren):
        fate = "stay without a label, as in the original" if objective == "original" else "are dropped"
        place = records[barren[0]].place
        note(f"{len(barren)} of {len(records)} prompts fill max_length {max_length} and {fate} ({place} ...)")
    if num_cut := sum(example.is_cut for example, count in zip(examples, supervised, strict=True) if count):
        note(f"{num_cut} of {len(records)} responses are cut at max_length {max_length}")
    return Corpus(
        examples=examples,
        sources=np.repeat(np.arange(len(sources)), [len(source.records) for source in sources]),
        is_held_out=np.asarray([is_held_out(record.record_id, held_out) for record in records]),
        is_kept=np.full(len(records), True) if objective == "original" else supervised > 0,
        num_supervised=supervised,
    )


def _tokenised(
    records: Sequence[Example] | Sequence[TokenRecord], tokenizer: TokenizerProtocol, objective: str, max_length: int
) -> Iterator[TokenizedExample]:
    texts = [record for record in records if isinstance(record, Example)]
    if texts:
        with quiet_import():
            from wizardcoder_jax.data import seqio_tasks  # here, because it takes TensorFlow along
        yield from seqio_tasks.tokenize_instructions(texts, tokenizer, objective, max_length)
    for record in records:
        if isinstance(record, TokenRecord):
            yield truncate(record.tokens, record.loss_mask, max_length)
