"""Samples greedy answers on meshes of 8 devices. A separate program, because JAX fixes the number of devices at start.

    sampling_meshes.py FOLDER BATCHES NUM_NEW

Answer the prompts of FOLDER/prompts.json with the model in FOLDER/model, NUM_NEW tokens each. BATCHES is JSON: [[mesh shape,
batch sizes], ...]. A batch size of 4 also runs in static batches. Prints one JSON object per line. Used by
tests/inference/test_engine_meshes.py.
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


def generate(engine, requests):
    answers = dict(engine.generate(requests))
    return [answers[i].tokens for i in range(len(requests))]


def generate_in_static_batches(engine, requests, batch):
    """Yield the answers; each batch starts when the previous one has finished."""
    for start in range(0, len(requests), batch):
        yield from generate(engine, requests[start : start + batch])


def bytes_on_first_device(*trees):
    shards = [shard for leaf in jax.tree.leaves(trees) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == jax.devices()[0])


def main(folder, batches_by_mesh, num_new):
    opened = open_model(str(folder / "model"))
    prompts = json.loads((folder / "prompts.json").read_text())
    requests = [GenerationRequest(prompt=tuple(prompt), key=(0, 0), max_length=len(prompt) + num_new) for prompt in prompts]
    dtype, caches = jnp.dtype("float32"), []
    for shape, batches in batches_by_mesh:
        axis_types = (jax.sharding.AxisType.Auto,) * 2
        mesh = jax.make_mesh(tuple(shape), MESH_AXES, axis_types=axis_types, devices=jax.devices()[: np.prod(shape)])
        with jax.set_mesh(mesh):
            model = load_engine_weights(opened, mesh, dtype)
            for batch in batches:
                engine = Engine(model, num_slots=batch, max_length=256, eos_ids=[], dtype=dtype)
                runs = {"continuous": generate(engine, requests)}
                if batch == 4:
                    runs["static"] = list(generate_in_static_batches(engine, requests, batch))
                for kind, tokens in runs.items():
                    print(json.dumps({"mesh": shape, "batch": batch, "kind": kind, "tokens": tokens}), flush=True)
            values = engine._cache[0].values
            caches.append([np.asarray(array) for array in jax.tree.leaves(engine._cache)])
            errors = [float(np.abs(a - b).max()) for a, b in zip(caches[-1], caches[0], strict=True)]
            shapes = abstract_engine_weights(opened.arch, mesh, dtype)
            estimate = engine_memory(shapes, mesh, num_slots=32, max_length=256, dtype=dtype)
            prompt_caches = [cache for _, cache in engine._prefix_cache._entries.values()]
            allocated = {
                "weights_bytes": bytes_on_first_device(model),
                "cache_bytes": bytes_on_first_device(engine._cache, prompt_caches),
            }
        shard = values.sharding.shard_shape(values.shape)
        layout = {"whole": values.shape, "shard": shard, "estimate": dataclasses.asdict(estimate), "allocated": allocated}
        print(json.dumps({"mesh": shape, "errors": errors, **layout}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]))
