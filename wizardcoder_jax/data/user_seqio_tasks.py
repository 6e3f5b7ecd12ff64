"""seqio Tasks and Mixtures of users; imports seqio and TensorFlow.

The whole "train" split of a Task is read once, in its own order. It may yield

* texts, {"instruction", "output"} and optionally "input": our prompt template and tokenizer are applied to them;
* ids, {"inputs", "targets"}: of a prompt and a response, with loss on the response; nothing is added, not even an end token;
* ids, {"tokens", "weights"}: weights are 1 for supervised tokens and 0 elsewhere, in any pattern.

"seed_id" or "id", if a record has one, decides its side of a validation split. Ids must come from the tokenizer of the model
to train.
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
    """Read a Task, or each Task of a Mixture together with its rate.

    The Task is read every time and the cache key contains a hash of its records, so changed data is never mistaken for old
    data. The price is that seqio is imported and the Task runs even if the cache is warm. A Task that yields different records
    each time is new data each time.

    Args:
        address: MODULE:NAME; MODULE is imported (also from the current folder) and must register NAME with seqio.
        vocab_size: all ids must be smaller.

    Raises:
        InputError: there is no such module or name, or a Task cannot be read, is empty or yields other features.
    """
    tf.config.set_visible_devices([], "GPU")  # leave the accelerator's memory to JAX
    provider = _find(address)
    if isinstance(provider, seqio.Task):
        return [DataSource(name=provider.name, rate=1.0, records=_read(provider, vocab_size))]
    sources = []
    for task in provider.tasks:
        rate = provider.get_rate(task)
        if not (math.isfinite(rate) and rate >= 0):
            raise InputError(f"mixture {provider.name}: the rate of task {task.name} is {rate}; it must be 0 or more")
        if rate == 0:
            logger.info(f"data: task {task.name} of mixture {provider.name} has rate 0 and is left out")
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
            raise InputError(f"module {module} of task {address} needs {error.name}, which is not installed") from error
        raise InputError(f"no module {module} (of task {address}); run from its folder or set PYTHONPATH") from error
    except Exception as error:  # user code may raise anything
        raise InputError(f"module {module} of task {address} fails: {_one_line(error)}") from error
    if name in seqio.MixtureRegistry.names():
        return seqio.MixtureRegistry.get(name)
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)
    known = sorted([*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()])
    raise InputError(f"module {module} registers no Task or Mixture {name} with seqio; there are {', '.join(known) or 'none'}")


def _read(task: seqio.Task, vocab_size: int) -> list[Example] | list[TokenRecord]:
    if SPLIT not in task.splits:
        raise InputError(f"task {task.name} has no split '{SPLIT}' (it has {', '.join(task.splits) or 'none'})")
    try:
        dataset = task.get_dataset(sequence_length=None, split=SPLIT, shuffle=False, seed=0)
    except Exception as error:  # from the user's preprocessors or seqio's feature checks
        raise InputError(f"task {task.name} cannot be read: {_one_line(error)}") from error
    found = tuple(dataset.element_spec)
    kind = next((kind for kind in KINDS if set(kind) <= set(found)), None)
    if kind is None:
        needed = ", or ".join(" and ".join(kind) for kind in KINDS)
        raise InputError(f"task {task.name} yields {', '.join(found) or 'nothing'}; it must yield {needed}")
    located = ((f"task {task.name}, example {i}", record) for i, record in enumerate(_run(task.name, dataset)))
    if kind == KINDS[0]:
        records = [read_example(location, _texts(location, record)) for location, record in located]
    else:
        records = [_token_record(location, record, kind, vocab_size) for location, record in located]
    if not records:
        raise InputError(f"task {task.name} yields no example; fix it or remove it from the mixture")
    return records  # type: ignore[return-value]  # all of one kind


def _run(name: str, dataset: tf.data.Dataset) -> Iterator[Mapping[str, Any]]:
    count = 0
    try:
        records: Any = dataset.as_numpy_iterator()
        for record in records:
            count += 1
            yield record
    except Exception as error:  # TensorFlow's errors and those of the user's functions
        raise InputError(f"task {name} fails at example {count}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """Return the start of an error's message; TensorFlow's messages contain tracebacks of many lines."""
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
        raise InputError(f"{location}: '{key}' is not UTF-8 at byte {error.start}") from error


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
        raise InputError(f"{location}: '{key}' must be a list of token ids, found {ids.dtype} of shape {list(ids.shape)}")
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if len(outside):
        raise InputError(
            f"{location}: '{key}' contains id {outside[0]}, but the model's tokenizer has ids 0 to {vocab_size - 1}; "
            "build the task with that tokenizer"
        )
    return ids.astype(np.int64)
