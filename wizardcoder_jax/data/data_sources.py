"""Sources of training records (instruction files, or the seqio Tasks of a mixture), and the tokenization of all records."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.data.instruction_records import Example, content_id
from wizardcoder_jax.data.quiet_import import quiet_import
from wizardcoder_jax.data.tokenization import TOKENIZATIONS, TokenizedExample, truncate
from wizardcoder_jax.data.tokenizer_protocol import TokenizerProtocol
from wizardcoder_jax.data.validation_split import is_held_out

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """A training record that is already tokenized."""

    location: str  # task and index of the record, for error messages
    tokens: np.ndarray  # [n] int64: token ids
    loss_mask: np.ndarray  # [n] bool: whether the token is supervised
    record_id: str  # id that decides the side of a validation split; see Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """The records of all instruction files together, or of one seqio Task."""

    name: str
    rate: float  # relative rate in the mixture, above 0
    records: Sequence[Example] | Sequence[TokenRecord]

    def fingerprint(self) -> str:
        """Return a hash of the contents of all records."""
        return content_id(*(part for record in self.records for part in _content(record)))


def _content(record: Example | TokenRecord) -> tuple[str | bytes, ...]:
    if isinstance(record, Example):
        return record.instruction, record.input, record.output, record.record_id
    return record.tokens.tobytes(), record.loss_mask.tobytes(), record.record_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """The M tokenized records of all sources, one source after the other."""

    examples: Sequence[TokenizedExample]  # the M tokenized records
    sources: np.ndarray  # [M] int64: index of each record's source
    is_held_out: np.ndarray  # [M] bool: whether the record belongs to the validation set
    is_kept: np.ndarray  # [M] bool: whether the record is used
    num_supervised: np.ndarray  # [M] int64: number of supervised tokens


def tokenize_sources(
    sources: Sequence[DataSource], tokenizer: TokenizerProtocol, objective: str, max_length: int, held_out: float
) -> Corpus:
    """Tokenize all records, and log how many are truncated or have no supervised token.

    Raises:
        InputError: no record has a supervised token.
    """
    records = [record for source in sources for record in source.records]
    examples: list[TokenizedExample] = []
    with Progress("prepare", len(records), "example") as progress:
        for source in sources:
            for example in _tokenize(source.records, tokenizer, objective, max_length):
                examples.append(example)
                progress.update()
    supervised = np.asarray([np.count_nonzero(example.loss_mask[1:]) for example in examples], np.int64)
    keeps_unsupervised = TOKENIZATIONS[objective].keeps_unsupervised
    unsupervised = np.flatnonzero(supervised == 0)
    if len(unsupervised) == len(records):
        raise InputError(
            f"every prompt fills max_length {max_length} and leaves no space for its response (first: {records[0].location}); "
            "raise --max-length"
        )
    if len(unsupervised):
        fate = "are kept without a supervised token, as in the published script" if keeps_unsupervised else "are dropped"
        first = records[unsupervised[0]].location
        logger.info(
            f"data: {len(unsupervised)} of {len(records)} prompts fill max_length {max_length} and {fate} (first: {first})"
        )
    if num_cut := sum(example.is_cut for example, count in zip(examples, supervised, strict=True) if count):
        logger.info(f"data: {num_cut} of {len(records)} responses are truncated at max_length {max_length}")
    return Corpus(
        examples=examples,
        sources=np.repeat(np.arange(len(sources)), [len(source.records) for source in sources]),
        is_held_out=np.asarray([is_held_out(record.record_id, held_out) for record in records]),
        is_kept=np.full(len(records), True) if keeps_unsupervised else supervised > 0,
        num_supervised=supervised,
    )


def _tokenize(
    records: Sequence[Example] | Sequence[TokenRecord], tokenizer: TokenizerProtocol, objective: str, max_length: int
) -> Iterator[TokenizedExample]:
    texts = [record for record in records if isinstance(record, Example)]
    if texts:
        with quiet_import():
            from wizardcoder_jax.data import seqio_tasks  # imported here because it imports TensorFlow
        yield from seqio_tasks.tokenize_instructions(texts, tokenizer, objective, max_length)
    for record in records:
        if isinstance(record, TokenRecord):
            yield truncate(record.tokens, record.loss_mask, max_length)
