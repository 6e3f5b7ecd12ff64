"""Fine-tunes a model on instruction data: base weights -> checkpoints."""

import os
import signal
import sys
import time
from collections.abc import Sequence

from wizardcoder_jax.cli import parse_cli, run_door, to_json
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.errors import InputError, StoppedEarlyError
from wizardcoder_jax.files import ensure_dir, expand, remove_folder, write_json
from wizardcoder_jax.progress import Progress
from wizardcoder_jax.prompts import WIZARDCODER_CHAT_TEMPLATE


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or goes on training, the run in `output_dir`."""
    config = parse_cli(TrainConfig, argv)
    files = _data_files(config) if config.task is None else []

    import jax
    import jax.numpy as jnp

    from wizardcoder_jax.data.batches import Batches
    from wizardcoder_jax.data.prepare import prepare
    from wizardcoder_jax.loading import open_model
    from wizardcoder_jax.model.transformer import abstract_transformer
    from wizardcoder_jax.model.vocabulary import arch_with_token, with_token
    from wizardcoder_jax.sharding import RULES, batch_shards, make_mesh
    from wizardcoder_jax.training.card import Card
    from wizardcoder_jax.training.checkpoint import Checkpoints
    from wizardcoder_jax.training.metrics import MetricsLog, describe_step
    from wizardcoder_jax.training.optimizer import make_optimizer, make_schedule
    from wizardcoder_jax.training.step import State, abstract_state, make_step, new_state, put_batch

    jax.config.update("jax_compilation_cache_dir", os.path.join(config.cache_dir, "compiled"))
    base = open_model(config.base)
    mesh, rules = make_mesh(config.mesh), RULES[config.strategy]
    _check_fit(config, base.arch.max_positions, batch_shards(mesh, rules))
    tokenizer = base.tokenizer.with_chat_template(WIZARDCODER_CHAT_TEMPLATE).with_pad_token(config.pad_token)
    new_token = tokenizer.pad_id if tokenizer.vocab_size > base.tokenizer.vocab_size else None
    arch = base.arch if new_token is None else arch_with_token(base.arch, new_token)
    data = prepare(config, files, tokenizer)
    batches = Batches(data.train, config.batch_size, config.seed, config.group)

    _open_run(config)
    lineage = base.lineage
    card = Card(arch=arch, tokenizer=tokenizer.to_files(), base_model=lineage.base_model, license=lineage.license)
    optimizer, schedule = make_optimizer(config.optim, config.num_steps), make_schedule(config.optim, config.num_steps)
    stop = _StopSignals()
    with (
        jax.set_mesh(mesh),
        Checkpoints(
            config.output_dir, config.keep_checkpoints, config.keep_every_steps, config.async_checkpoints
        ) as checkpoints,
    ):
        shapes = abstract_state(abstract_transformer(arch, rules), optimizer, mesh, rules)
        found = checkpoints.restore_latest({"params": shapes.model, "optimizer": shapes.opt_state})
        if found is not None:
            done = start = found[0]
            state = State(jnp.int32(start), found[1]["params"], found[1]["optimizer"])
        else:
            done = start = 0
            model = base.weights(rules, mesh, jnp.float32).model
            model = model if new_token is None else with_token(model, new_token, mesh)
            state = new_state(model, optimizer, mesh, rules)
        step = make_step(config, optimizer, unroll=jax.default_backend() == "cpu")
        log = MetricsLog(config.output_dir, start)
        with Progress("train", config.num_steps, "step", done=start) as progress:
            for i in range(start, config.num_steps):
                began = time.perf_counter()
                rows = batches.batch(i)
                state, metrics = step(state, put_batch(rows, config.accumulation, mesh, rules))
                loss = float(metrics.loss)
                step_s = time.perf_counter() - began
                done, last = i + 1, i + 1 == config.num_steps
                if done % config.log_every_steps == 0 or last:
                    log.write(done, describe_step(metrics, schedule(i), rows, step_s, arch.num_params))
                if stop.asked or done % config.checkpoint_every_steps == 0 or last:
                    checkpoints.save(done, card, {"params": state.model, "optimizer": state.opt_state})
                progress.update(loss=f"{loss:.4f}")
                if stop.asked:
                    break
        log.close()
    if stop.asked and done < config.num_steps:
        raise StoppedEarlyError(f"step {done} of {config.num_steps} is saved; the same command resumes")


class _StopSignals:
    """Turns SIGTERM and the first Ctrl-C into a request to stop after the current step; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _data_files(config: TrainConfig) -> list[str]:
    try:
        return expand(config.data)
    except InputError as error:
        if any("://" in pattern for pattern in config.data):
            raise
        made = "python -m wizardcoder_jax.evolve --seeds SEEDS.jsonl --output-dir data"
        raise InputError(f"no training data: {error}; make it with: {made}  (or name files with --data)") from error


def _check_fit(config: TrainConfig, max_positions: int, num_shards: int) -> None:
    if config.max_length > max_positions:
        raise InputError(f"max_length {config.max_length} exceeds the model's context of {max_positions} positions")
    microbatch = config.batch_size // config.accumulation
    if microbatch % num_shards:
        raise InputError(
            f"microbatches of {microbatch} sequences (batch_size / accumulation) do not divide over the {num_shards} "
            f"devices that split sequences under mesh {config.mesh} with strategy {config.strategy}"
        )


def _open_run(config: TrainConfig) -> None:
    if config.overwrite:
        remove_folder(os.path.join(config.output_dir, "checkpoints"))
    ensure_dir(config.output_dir)
    write_json(os.path.join(config.output_dir, "config.json"), to_json(config))


if __name__ == "__main__":
    run_door(main)
