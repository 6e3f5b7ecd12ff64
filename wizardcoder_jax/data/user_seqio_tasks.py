"""Reads seqio Tasks and Mixtures that users define. Importing this module imports seqio and TensorFlow.

The whole "train" split of a Task is read once, in order. Its records have one of these forms:

* strings {"instruction", "output"} and optionally "input", to which our prompt template and tokenizer are applied;
* token ids {"inputs", "targets"} of a prompt and its response; the response is supervised, and no end token is added;
* token ids {"tokens"} and {"weights"}, which are 1 for supervised tokens and 0 for all others.

If a record has the key "seed_id" or "id", its value decides whether the record belongs to the training or the validation set.
Token ids must come from the tokenizer of the model to train.
"""

import importlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.data_sources import DataSource, TokenRecord
from wizardcoder_jax.data.instruction_records import Example, content_id, read_example

logger = logging.getLogger(__name__)

SPLIT = "train"
KINDS = (("instruction", "output"), ("inputs", "targets"), ("tokens", "weights"))


def read_task(address: str, vocab_size: int) -> list[DataSource]:
    """Read a Task, or each Task of a Mixture with its rate.

    Tasks are read in every run, and the cache key contains a hash of their records, so changed data is always noticed. Hence
    seqio is imported and the Tasks run even if the cache is warm, and a Task that yields different records in each run is
    never found in the cache.

    Args:
        address: MODULE:NAME. MODULE is imported (the current folder is searched too) and must register NAME with seqio.
        vocab_size: size of the model's vocabulary, to check token ids.

    Raises:
        InputError: the module or name cannot be found, or a Task cannot be read, is empty or yields unsupported features.
    """
    tf.config.set_visible_devices([], "GPU")  # so that TensorFlow does not allocate GPU memory
    provider = _find(address)
    if isinstance(provider, seqio.Task):
        return [DataSource(name=provider.name, rate=1.0, records=_read(provider, vocab_size))]
    sources = []
    for task in provider.tasks:
        rate = provider.get_rate(task)
        if not (math.isfinite(rate) and rate >= 0):
            raise InputError(f"mixture {provider.name}: the rate of task {task.name} is {rate}; it must be 0 or more")
        if rate == 0:
            logger.info(f"data: task {task.name} of mixture {provider.name} has rate 0 and is skipped")
            continue
        sources.append(DataSource(name=task.name, rate=rate, records=_read(task, vocab_size)))
    if not sources:
        raise InputError(f"mixture {provider.name} has no task with a rate above 0")
    return sources


def _find(address: str) -> seqio.Task | seqio.Mixture:
    module, colon, name = address.partition(":")
    if not (module and colon and name):
        raise InputError(f"task {address!r} must be MODULE:NAME, e.g. my_tasks:my_mixture")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"module {module} of task {address} imports {error.name}, which is not installed") from error
        raise InputError(
            f"cannot find module {module} of task {address}; run the command from the folder that contains it, "
            "or add that folder to PYTHONPATH"
        ) from error
    except Exception as error:  # user code can raise any error
        raise InputError(f"importing module {module} of task {address} fails: {_one_line(error)}") from error
    if name in seqio.MixtureRegistry.names():
        return seqio.MixtureRegistry.get(name)
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)
    known = sorted([*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()])
    raise InputError(f"module {module} registers no Task or Mixture {name} with seqio; found {', '.join(known) or 'none'}")


def _read(task: seqio.Task, vocab_size: int) -> list[Example] | list[TokenRecord]:
    if SPLIT not in task.splits:
        raise InputError(f"task {task.name} has no split '{SPLIT}' (it has {', '.join(task.splits) or 'none'})")
    try:
        dataset = task.get_dataset(sequence_length=None, split=SPLIT, shuffle=False, seed=0)
    except Exception as error:  # raised by the user's preprocessors or seqio's feature checks
        raise InputError(f"task {task.name} cannot be read: {_one_line(error)}") from error
    found = tuple(dataset.element_spec)
    kind = next((kind for kind in KINDS if set(kind) <= set(found)), None)
    if kind is None:
        needed = ", or ".join(" and ".join(kind) for kind in KINDS)
        raise InputError(f"task {task.name} yields the features {', '.join(found) or 'none'}; it must yield {needed}")
    located = ((f"task {task.name}, example {i}", record) for i, record in enumerate(_run(task.name, dataset)))
    if kind == KINDS[0]:
        records = [read_example(location, _texts(location, record)) for location, record in located]
    else:
        records = [_token_record(location, record, kind, vocab_size) for location, record in located]
    if not records:
        raise InputError(f"task {task.name} yields no examples; fix it or remove it from the mixture")
    return records  # type: ignore[return-value]  # all of one kind


def _run(name: str, dataset: tf.data.Dataset) -> Iterator[Mapping[str, Any]]:
    count = 0
    try:
        records: Any = dataset.as_numpy_iterator()
        for record in records:
            count += 1
            yield record
    except Exception as error:  # raised by TensorFlow or the user's functions
        raise InputError(f"task {name} fails at example {count}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """Return the type and the first 200 characters of an error's message, because TensorFlow's messages contain tracebacks."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"


def _texts(location: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _text(location, key, value) for key, value in record.items()}


def _text(location: str, key: str, value: Any) -> Any:
    if not isinstance(value, bytes):
        return value.item() if isinstance(value, np.generic) else value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{location}: '{key}' is not valid UTF-8 at byte {error.start}") from error


def _token_record(location: str, record: Mapping[str, Any], kind: tuple[str, str], vocab_size: int) -> TokenRecord:
    if kind == ("tokens", "weights"):
        tokens = _ids(location, record, "tokens", vocab_size)
        weights = np.asarray(record["weights"])
        if weights.shape != tokens.shape or not np.isin(weights, (0, 1)).all():
            raise InputError(f"{location}: 'weights' must contain a 0 or a 1 for each of the {len(tokens)} tokens")
        loss_mask = weights.astype(bool)
    else:
        prompt, response = (_ids(location, record, key, vocab_size) for key in kind)
        tokens = np.concatenate([prompt, response])
        loss_mask = np.arange(len(tokens)) >= len(prompt)
    given = next((_text(location, key, record[key]) for key in ("seed_id", "id") if key in record), None)
    record_id = content_id(tokens.tobytes(), loss_mask.tobytes()) if given in (None, "") else str(given)
    return TokenRecord(location=location, tokens=tokens, loss_mask=loss_mask, record_id=record_id)


def _ids(location: str, record: Mapping[str, Any], key: str, vocab_size: int) -> np.ndarray:
    ids = np.asarray(record[key])
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            f"{location}: '{key}' must be a list of token ids, found an array of {ids.dtype} with shape {list(ids.shape)}"
        )
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if len(outside):
        raise InputError(
            f"{location}: '{key}' contains id {outside[0]}, but the model's tokenizer has ids 0 to {vocab_size - 1}; "
            "build the task with that tokenizer"
        )
    return ids.astype(np.int64)
