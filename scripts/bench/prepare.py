"""Speed of preparing Code Alpaca 20k for training with our data package, seqio, Hugging Face datasets with TRL, and grain.

    .venv/bin/python scripts/bench/prepare.py        (needs codealpaca/code_alpaca_20k.json.gz in WIZARDCODER_DATA)

TRL and grain are not dependencies, and are skipped if they are not installed. To include them:

    .venv/bin/python -m pip install --no-deps --target /tmp/bench trl accelerate grain array-record cloudpickle portpicker
    PYTHONPATH=/tmp/bench .venv/bin/python scripts/bench/prepare.py

Each method starts from the same records in memory and the same tokenizer (SmolLM2's), and produces rows of 2048 tokens. Each
runs in a separate process, and imports are not counted. "tokens per CPU-second" are tokens in rows divided by user and system
time of all threads; "padding" is the fraction of empty positions in rows.

Results of two runs on 2 cores shared with other work (thousands of tokens per CPU-second; padding is always the same):

    seqio alone                 108    74   4.37 % padding
    wizardcoder_jax.data        291   266   0.38 %    2.7 and 3.6 times seqio's
    datasets + TRL's packing    392   522   1.33 %
    grain, first fit of 64      267   357   0.91 %

The tokenizer takes about 3 of our 8 CPU-seconds, and TensorFlow's passing of single examples through a Task about 2.5, which
TRL's method avoids. Only our time includes reading the file, writing a cache and building all rows. Examples move between
TensorFlow and Python in groups of 256; one by one, the total would be 13 CPU-seconds. Each example takes one position less in
our rows than in the others, because inputs and targets are stored once and shifted.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.data.batches import Batches
from wizardcoder_jax.data.prepare import prepare_data
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.hf.tokenizer import Tokenizer

DATA = Path(os.environ.get("WIZARDCODER_DATA", Path(__file__).parents[2] / "../shared/data"))
FILE = DATA / "codealpaca" / "code_alpaca_20k.json.gz"
LENGTH = 2048
BATCH = 64
GRAIN_BINS = 64

Rows = tuple[int, int]  # (number of rows, number of tokens in all rows)
# A method takes records and a tokenizer, does its imports, and returns the function to time.
Way = Callable[[list[dict[str, Any]], Tokenizer], Callable[[], Rows]]


def prompt_of(record: dict[str, Any]) -> str:
    """Return the training prompt of a record."""
    return wizardcoder_prompt(with_input(record["instruction"], record["input"]))


def ours(records: list[dict[str, Any]], tokenizer: Tokenizer) -> Callable[[], Rows]:
    """Read, tokenize with the seqio Task, pack, write the cache, and build every row once."""
    del records  # our method reads the file itself

    def run() -> Rows:
        with tempfile.TemporaryDirectory() as folder:
            data = prepare_data(TrainConfig(max_length=LENGTH, cache_dir=folder), [str(FILE)], tokenizer).train
            batches = Batches(data, BATCH, seed=0)
            num_batches = data.num_rows // BATCH + 1
            made = [batches.batch(step)["segment_ids"].shape[0] for step in range(num_batches)]
            assert sum(made) >= data.num_rows
            return data.num_rows, data.counts.tokens

    return run


def seqios(records: list[dict[str, Any]], tokenizer: Tokenizer) -> Callable[[], Rows]:
    """Use seqio alone: its preprocessors with a Vocabulary, its trimming and its packing."""
    import seqio
    import tensorflow as tf

    from wizardcoder_jax.data.seqio_tasks import TokenizerVocabulary

    before, after = wizardcoder_prompt("\0").split("\0")
    columns: Any = {key: [record[key] for record in records] for key in ("instruction", "input", "output")}

    def with_prompt(record: dict[str, Any]) -> dict[str, Any]:
        joined = tf.where(record["input"] == "", record["instruction"], record["instruction"] + "\n" + record["input"])
        return {"inputs": before + joined + after, "targets": record["output"]}

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(columns)

    vocabulary = TokenizerVocabulary(tokenizer)
    task = seqio.Task(
        "plain",
        source=seqio.FunctionDataSource(dataset_fn, splits=["train"]),
        preprocessors=[
            lambda dataset: dataset.map(with_prompt),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ],
        output_features={
            "inputs": seqio.Feature(vocabulary, add_eos=False),
            "targets": seqio.Feature(vocabulary, add_eos=True),
        },
    )
    converter = seqio.PrefixLMFeatureConverter(pack=True, loss_on_targets_only=True)
    lengths = {"inputs": LENGTH // 2, "targets": LENGTH // 2}

    def run() -> Rows:
        dataset = converter(task.get_dataset(sequence_length=lengths, split="train", shuffle=False), lengths)
        filled = [np.count_nonzero(row["decoder_segment_ids"]) for row in dataset.as_numpy_iterator()]
        return len(filled), int(sum(filled))

    return run


def trls(records: list[dict[str, Any]], tokenizer: Tokenizer) -> Callable[[], Rows]:
    """Use the batched map of Hugging Face datasets, then TRL's best-fit-decreasing packing."""
    import datasets
    from trl.data_utils import pack_dataset  # pyright: ignore[reportMissingImports]

    datasets.disable_progress_bars()

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        pairs = zip(
            tokenizer.encode_batch([prompt_of(row) for row in rows]), tokenizer.encode_batch(batch["output"]), strict=True
        )
        both = [(prompt, [*response, tokenizer.eos_id]) for prompt, response in pairs]
        return {
            "input_ids": [prompt + response for prompt, response in both],
            "completion_mask": [[0] * len(prompt) + [1] * len(response) for prompt, response in both],
        }

    def run() -> Rows:
        dataset = datasets.Dataset.from_list(records)
        dataset = dataset.map(tokenise, batched=True, remove_columns=dataset.column_names)
        packed = pack_dataset(dataset, LENGTH).with_format("numpy")
        filled = [len(row["input_ids"]) for row in packed]  # pyright: ignore[reportArgumentType]
        return len(filled), sum(filled)

    return run


def grains(records: list[dict[str, Any]], tokenizer: Tokenizer) -> Callable[[], Rows]:
    """Use grain's map, then its first-fit packing with 64 open rows."""
    import grain  # pyright: ignore[reportMissingImports]
    from grain import experimental  # pyright: ignore[reportMissingImports]

    def tokenise(record: dict[str, Any]) -> dict[str, np.ndarray]:
        prompt, response = tokenizer.encode(prompt_of(record)), [*tokenizer.encode(record["output"]), tokenizer.eos_id]
        weights = np.repeat(np.asarray([0, 1], np.int32), [len(prompt), len(response)])
        return {"tokens": np.asarray(prompt + response, np.int32)[:LENGTH], "weights": weights[:LENGTH]}

    def run() -> Rows:
        tokenised = grain.MapDataset.source(records).map(tokenise).to_iter_dataset(grain.ReadOptions(num_threads=0))
        packed = experimental.FirstFitPackIterDataset(
            tokenised, length_struct={"tokens": LENGTH, "weights": LENGTH}, num_packing_bins=GRAIN_BINS
        )
        filled = [np.count_nonzero(row["tokens_segment_ids"]) for row in packed]
        return len(filled), int(sum(filled))

    return run


WAYS: dict[str, tuple[Way, str, tuple[str, ...]]] = {
    "seqio": (seqios, "seqio alone", ()),  # first, because it is the baseline
    "ours": (ours, "wizardcoder_jax.data", ()),
    "trl": (trls, "datasets + TRL's packing", ("trl",)),
    "grain": (grains, "grain, first fit of 64", ("grain",)),
}


def cpu_s() -> float:
    """Return the user and system CPU seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(way: str) -> dict[str, float]:
    """Run one method in this process, and return its measurements."""
    records = [record for _, record in read_records(FILE)]
    run = WAYS[way][0](records, ModelSource("smollm2-135m-instruct").tokenizer)
    began_s = cpu_s()
    rows, tokens = run()
    spent_s = cpu_s() - began_s
    return {
        "tokens": tokens,
        "rows": rows,
        "cpu_s": spent_s,
        "per_cpu_s": tokens / spent_s,
        "padding": 1 - tokens / rows / LENGTH,
    }


def main() -> None:
    """Run each method in a separate process, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", nargs="?", choices=WAYS, help="run only this method, in this process, and print JSON")
    way = parser.parse_args().way
    if way is not None:
        print(json.dumps(measure(way)))
        return
    if not FILE.exists():
        print(f"bench: {FILE} is missing; set WIZARDCODER_DATA")
        return
    base = 0.0
    for name, (_, label, needed) in WAYS.items():
        if missing := [module for module in needed if importlib.util.find_spec(module) is None]:
            print(f"{label:28s} skipped: {', '.join(missing)} is not installed; see the docstring of this script")
            continue
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{label} failed:\n{done.stderr}")
        one = json.loads(done.stdout.splitlines()[-1])
        base = base or one["per_cpu_s"]
        print(
            f"{label:28s} {one['per_cpu_s']:>9,.0f} tokens per CPU-second ({one['per_cpu_s'] / base:.2f}), "
            f"{one['padding']:.2%} padding, {one['tokens']:,} tokens in {one['rows']:,} rows",
            flush=True,
        )


if __name__ == "__main__":
    main()
