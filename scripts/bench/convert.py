"""Throughput of convert compared with a plain copy of the same files on the same disk, and its peak memory.

A synthetic checkpoint with StarCoder-3B's shapes (about 6 GB in bfloat16, two shards) is written to a temporary folder, which
needs three times as much free space. Convert and copy alternate, and both times include flushing to disk (sync). Result on a
virtual machine with 2 cores: computation (transposing 6 GB while the next tensor is read) takes a fifth of convert's time. Page
faults and the page cache take the rest, which varies by a factor of two between runs of the same program.

    python scripts/bench/convert.py [--layers 36] [--rounds 2] [--folder DIR]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import tokenizers

from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.hf.import_weights import hf_shapes
from wizardcoder_jax.hf.safetensors_io import INDEX_FILE, ShardWriter, build_index, plan_shards
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES, write_config
from wizardcoder_jax.models.transformer import abstract_transformer

VOCAB_SIZE, WIDTH = 49152, 2816  # sizes of starcoderbase-3b


def write_checkpoint(folder: Path, num_layers: int) -> tuple[int, int]:
    """Write the synthetic model, and return the bytes of all tensors and of the largest tensor."""
    arch = ArchConfig(
        **FAMILIES["gpt_bigcode"].arch_fields,
        vocab_size=VOCAB_SIZE,
        embed_dim=WIDTH,
        num_layers=num_layers,
        num_heads=22,
        num_kv_heads=1,
        head_dim=128,
        mlp_dim=4 * WIDTH,
        max_positions=8192,
        norm_eps=1e-5,
        mlp="gelu_tanh",
        tie_embeddings=True,
        bos_id=0,
        eos_id=0,
    )
    dtype, shapes = np.dtype(ml_dtypes.bfloat16), hf_shapes(arch, abstract_transformer(arch, RULES["fsdp"]))
    shards = plan_shards({name: (dtype, shape) for name, shape in shapes.items()}, 5 * 10**9)
    noise = np.random.default_rng(0).standard_normal(max(map(np.prod, shapes.values())), np.float32).astype(dtype)
    for shard in shards:
        with open(folder / shard.file, "wb") as file:
            writer = ShardWriter(file, shard)
            for name, (_, shape) in shard.tensors.items():
                writer.write(name, noise[: np.prod(shape)].reshape(shape))
    if len(shards) > 1:
        (folder / INDEX_FILE).write_text(json.dumps(build_index(shards)))
    (folder / "config.json").write_text(json.dumps(write_config(arch, "bfloat16")))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"<|endoftext|>": 0}, merges=[]))
    tokenizer.save(str(folder / "tokenizer.json"))
    return int(build_index(shards)["metadata"]["total_size"]), noise.nbytes


def timed(action: Callable[[], int], target: Path) -> tuple[float, int]:
    """Return the wall seconds of `action`, including flushing to disk, and its result; then remove the files that it wrote."""
    subprocess.run(["sync"], check=True)
    began = time.monotonic()
    result = action()
    subprocess.run(["sync"], check=True)
    wall_s = time.monotonic() - began
    shutil.rmtree(target)
    return wall_s, result


def convert(source: Path, target: Path) -> int:
    """Run `convert` in a separate process, and return the peak memory of the process in bytes."""
    command = [sys.executable, "-m", "wizardcoder_jax.convert", "--model", str(source), "--output", str(target)]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"convert failed with status {process.returncode}")
    return usage.ru_maxrss * 1024


def copy(source: Path, target: Path) -> int:
    """Copy the folder, and return 0 in place of the peak memory."""
    shutil.copytree(source, target)
    return 0


def main() -> None:
    """Print one line per round and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.mkdir()
        num_bytes, largest_bytes = write_checkpoint(source, arguments.layers)
        print(f"{num_bytes / 1e9:.2f} GB in bfloat16, largest tensor {largest_bytes / 1e6:.0f} MB")
        ratios = []
        for i in range(arguments.rounds):
            copy_s, _ = timed(lambda: copy(source, target), target)
            convert_s, peak_bytes = timed(lambda: convert(source, target), target)
            ratios.append(convert_s / copy_s)
            beyond = (peak_bytes - num_bytes) / 1e6
            print(
                f"round {i + 1}: copy {num_bytes / copy_s / 1e9:.2f} GB/s, convert {num_bytes / convert_s / 1e9:.2f} GB/s "
                f"({ratios[-1]:.2f} times as long), peak memory {peak_bytes / 1e9:.2f} GB, {beyond:.0f} MB beyond the model",
                flush=True,
            )
        print(f"median: convert takes {sorted(ratios)[len(ratios) // 2]:.2f} times as long as the copy")


if __name__ == "__main__":
    main()
