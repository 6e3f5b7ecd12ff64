"""Greedy answers on meshes of 8 devices; a program of its own, because the number of devices is set when JAX starts.

    sampling_meshes.py FOLDER

answers the prompts of FOLDER/prompts.json with the model in FOLDER/model, on each mesh at each batch, by continuous batching
and in batches that are waited for; prints a JSON object a line. tests/inference/test_engine_meshes.py runs it.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.core.sharding import MESH_AXES
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import abstract_engine_weights, load_engine_weights
from wizardcoder_jax.inference.memory import engine_memory
from wizardcoder_jax.inference.request import GenerationRequest

NEW = 64
BATCHES = {(1, 1): (1, 4, 32), (2, 4): (1, 4, 32), (1, 8): (32,)}  # by mesh


def in_order(found, num):
    answers = dict(found)
    return [answers[i].tokens for i in range(num)]


def waited_for(engine, requests, batch):
    """The answers, a batch begun when the one before it has ended."""
    for start in range(0, len(requests), batch):
        yield from in_order(engine.generate(requests[start : start + batch]), len(requests[start : start + batch]))


def bytes_on_the_first_device(*trees):
    shards = [shard for leaf in jax.tree.leaves(trees) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == jax.devices()[0])


def main(folder):
    opened = open_model(str(folder / "model"))
    prompts = json.loads((folder / "prompts.json").read_text())
    requests = [GenerationRequest(prompt=tuple(prompt), key=(0, 0), max_length=len(prompt) + NEW) for prompt in prompts]
    dtype, caches = jnp.dtype("float32"), []
    for shape, batches in BATCHES.items():
        kinds = (jax.sharding.AxisType.Auto,) * 2
        mesh = jax.make_mesh(shape, MESH_AXES, axis_types=kinds, devices=jax.devices()[: np.prod(shape)])
        with jax.set_mesh(mesh):
            model = load_engine_weights(opened, mesh, dtype)
            for batch in batches:
                engine = Engine(model, num_slots=batch, max_length=256, eos_ids=[], dtype=dtype)
                runs = {"continuous": in_order(engine.generate(requests), len(requests))}
                if batch == 4:
                    runs["waited for"] = list(waited_for(engine, requests, batch))
                for kind, tokens in runs.items():
                    print(json.dumps({"mesh": shape, "batch": batch, "kind": kind, "tokens": tokens}), flush=True)
            values = engine._cache[0].values
            caches.append([np.asarray(array) for array in jax.tree.leaves(engine._cache)])
            errors = [float(np.abs(a - b).max()) for a, b in zip(caches[-1], caches[0], strict=True)]
            part = values.sharding.shard_shape(values.shape)
            said = engine_memory(
                abstract_engine_weights(opened.arch, mesh, dtype), mesh, num_slots=32, max_length=256, dtype=dtype
            )
            kept = [cache for _, cache in engine._prefix_cache._entries.values()]
            held = {
                "weights_bytes": bytes_on_the_first_device(model),
                "cache_bytes": bytes_on_the_first_device(engine._cache, kept),
            }
        layout = {"whole": values.shape, "part": part, "said": dataclasses.asdict(said), "held": held}
        print(json.dumps({"mesh": shape, "errors": errors, **layout}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
