"""Whatever the batch, the mesh and the way of batching, an answer is that of transformers."""

import json

import numpy as np
import pytest
import torch

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python
from tests.helpers.sampling_meshes import BATCHES, NEW

ROWS, HEADS = [4, 1, 256, 4], [16, 1, 256, 4]  # a part of the cache: some sequences, or one kv head of half of them
FAMILIES = {  # how it is made, and what a device has of its cache [32, K, 256, 4] on 2x4 and on 1x8
    "one kv head": (lambda: tiny_models.gpt_bigcode(vocab_size=393, n_head=8), ROWS, ROWS),
    "four kv heads, rotary": (
        lambda: tiny_models.llama(vocab_size=393, num_attention_heads=8, num_key_value_heads=4),
        HEADS,
        [4, 4, 256, 4],
    ),
}


def generated(theirs, prompt):
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    return theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_32_ragged_prompts_have_the_tokens_of_transformers_on_every_mesh_at_every_batch(family, tmp_path):
    make, *parts = FAMILIES[family]
    theirs, rng = make(), np.random.default_rng(0)
    prompts = [rng.integers(2, 380, n).tolist() for n in [1, 2, 63, 64, 65, 128, 150, *rng.integers(3, 120, 25)]]
    tiny_models.save_folder(theirs, tmp_path / "model")
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    done = run_python(REPOSITORY / "tests/helpers/sampling_meshes.py", tmp_path, num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [generated(theirs, prompt) for prompt in prompts]
    runs = [result for result in results if "tokens" in result]
    assert len(runs) == sum(len(batches) + (4 in batches) for batches in BATCHES.values())
    for run in runs:
        assert run["tokens"] == expected, [run[name] for name in ("mesh", "batch", "kind")]
    alone, *split = [result for result in results if "part" in result]
    assert alone["part"] == alone["whole"]
    assert [result["part"] for result in split] == parts
    for result in split:
        assert max(result["errors"]) < 1e-4
    for result in (alone, *split):
        said, held = result["said"], result["held"]
        assert said["weights_bytes"] == held["weights_bytes"]
        assert held["cache_bytes"] <= said["cache_bytes"] < 3 * held["cache_bytes"]
