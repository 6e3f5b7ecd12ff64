"""Greedy answers equal those of transformers on every mesh, at every batch size, in continuous and in static batches."""

import json

import numpy as np
import pytest
import torch

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python

BATCHES = [[[1, 1], [1, 4, 32]], [[2, 4], [1, 4, 32]], [[1, 8], [32]]]  # [mesh, batch sizes]
SPLIT_BY_SEQUENCES, SPLIT_BY_HEADS = [4, 1, 256, 4], [16, 1, 256, 4]  # shards of a layer's cache, [32, K, 256, 4]
FAMILIES = {  # how to make the model, and the shards of its cache on 2x4 and on 1x8
    "one kv head": (lambda: tiny_models.gpt_bigcode(vocab_size=393, n_head=8), [SPLIT_BY_SEQUENCES, SPLIT_BY_SEQUENCES]),
    "four kv heads, rotary": (
        lambda: tiny_models.llama(vocab_size=393, num_attention_heads=8, num_key_value_heads=4),
        [SPLIT_BY_HEADS, [4, 4, 256, 4]],
    ),
}


def generate_with_transformers(theirs, prompt, num_new):
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": num_new, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    return theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


def test_answers_on_a_2x4_mesh_equal_those_of_transformers(tmp_path):
    check_meshes("one kv head", [[[1, 1], [32]], [[2, 4], [32]]], 16, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_on_every_mesh_at_every_batch_size_equal_those_of_transformers(family, tmp_path):
    check_meshes(family, BATCHES, 64, tmp_path)


def check_meshes(family, batches, num_new, folder):
    make, shards = FAMILIES[family]
    theirs, rng = make(), np.random.default_rng(0)
    prompts = [rng.integers(2, 380, n).tolist() for n in [1, 2, 63, 64, 65, 128, 150, *rng.integers(3, 120, 25)]]
    tiny_models.save_folder(theirs, folder / "model")
    (folder / "prompts.json").write_text(json.dumps(prompts))
    program = REPOSITORY / "tests/helpers/sampling_meshes.py"
    done = run_python(program, folder, json.dumps(batches), num_new, num_devices=8, timeout_s=900)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [generate_with_transformers(theirs, prompt, num_new) for prompt in prompts]
    runs = [result for result in results if "tokens" in result]
    assert len(runs) == sum(len(sizes) + (4 in sizes) for _, sizes in batches)
    for run in runs:
        assert run["tokens"] == expected, [run[name] for name in ("mesh", "batch", "kind")]
    unsplit, *split = [result for result in results if "shard" in result]
    assert unsplit["shard"] == unsplit["whole"]
    assert [result["shard"] for result in split] == shards[: len(split)]
    for result in split:
        assert max(result["errors"]) < 1e-4
    for result in (unsplit, *split):
        estimate, allocated = result["estimate"], result["allocated"]
        assert estimate["weights_bytes"] == allocated["weights_bytes"]
        assert allocated["cache_bytes"] <= estimate["cache_bytes"] < 3 * allocated["cache_bytes"]
