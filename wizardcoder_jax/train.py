"""Fine-tunes a model on instruction data: base weights -> checkpoints."""

import functools
import importlib.metadata
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.core.filesystem import ensure_dir, expand_paths, remove_folder, write_json
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.preemption import StopSignal

if TYPE_CHECKING:
    from wizardcoder_jax.checkpoints.manager import CheckpointManager
    from wizardcoder_jax.checkpoints.metadata import CheckpointCard
    from wizardcoder_jax.training.run_log import Report
    from wizardcoder_jax.training.train_step import TrainState


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or goes on training, the run in `output_dir`."""
    config = parse_command_line(TrainConfig, argv)
    stop, clock = StopSignal(), Stopwatch()
    with clock.phase("start"):
        files = [] if config.task is not None else _data_files(config)
        import jax

        from wizardcoder_jax.checkpoints.manager import CheckpointManager
        from wizardcoder_jax.core.distributed import AnyProcess, initialize_distributed, require_same_settings
        from wizardcoder_jax.data.batches import Batches
        from wizardcoder_jax.data.prepare import prepare_data
        from wizardcoder_jax.training.eval_callbacks import EvalCallbacks
        from wizardcoder_jax.training.global_batch import put_batch
        from wizardcoder_jax.training.profiler import ProfilerWindow
        from wizardcoder_jax.training.run_log import Report
        from wizardcoder_jax.training.setup import TrainingSetup
        from wizardcoder_jax.training.train_step import make_step

        jax.config.update("jax_compilation_cache_dir", os.path.join(config.cache_dir, "compiled"))
        initialize_distributed()
        subject = TrainingSetup.open(config)
    with clock.phase("data"):
        data = prepare_data(config, files, subject.tokenizer)
        batches = Batches(data.train, config.batch_size, config.seed, config.loss_group_size)
        batches.check(0, config.num_steps)
        require_same_settings({**_told(config), "data": data.fingerprint})
    with clock.phase("start"):
        measures = EvalCallbacks(config, subject, data.validation)
        _open_run(config)
    keep = (config.keep_checkpoints, config.keep_every_steps, config.async_checkpoints)
    with jax.set_mesh(subject.mesh), CheckpointManager(config.output_dir, *keep) as checkpoints:
        with clock.phase("load"):
            found = checkpoints.restore_latest(_items(subject.abstract_state()))
            start, state = (0, subject.first_state()) if found is None else (found[0], _state(found[1]))
        put = functools.partial(
            put_batch, batch_size=config.batch_size, accumulation=config.accumulation, mesh=subject.mesh, rules=subject.rules
        )
        step = make_step(config, subject.partition, jax.default_backend() == "cpu")
        if start < config.num_steps:
            with clock.phase("compile"):
                step = step.lower(state, put(functools.partial(batches.batch, start))).compile()
        window = ProfilerWindow(config.output_dir, config.profile_step, config.profile_steps)
        asked_of_any, card, done = AnyProcess(subject.mesh), subject.card, start
        with Report(config, start, subject.arch.num_params, batches.counts, clock) as report:
            if measures.due(start) and report.lacks(start, measures.names):
                with clock.phase("validation"):
                    measures.take(start, state, report)
            while done < config.num_steps and not asked_of_any(stop.asked):
                with clock.phase("data"):
                    batch = put(functools.partial(batches.batch, done))
                stop.hold()
                with clock.phase("step"):
                    window.before(done + 1)
                    state, metrics = step(state, batch)
                    report.settle()  # the step before, while this one runs
                    done += 1
                    report.hold(done, metrics)
                    window.after(done, metrics)
                if measures.due(done) or done % config.checkpoint_every_steps == 0:
                    _save(checkpoints, done, card, state, report, clock)
                if measures.due(done):
                    with clock.phase("checkpoint"):
                        checkpoints.wait()
                    stop.release()  # measuring takes long, and nothing is lost by leaving it
                    with clock.phase("validation"):
                        measures.take(done, state, report)
            window.close()
            if done > start:
                _save(checkpoints, done, card, state, report, clock)
            with clock.phase("checkpoint"):
                checkpoints.wait()
    if stop.asked or done < config.num_steps:
        raise StoppedEarlyError(f"step {done} of {config.num_steps} is saved; the same command resumes")
    stop.release()


def _items(state: "TrainState") -> dict[str, Any]:
    """A state as the items of a checkpoint."""
    items = {"params": state.trained, "frozen": state.frozen or None, "ema": state.ema}
    return {**items, "optimizer": {"optimizer": state.opt_state, "guard": state.guard}}


def _state(items: dict[str, Any]) -> "TrainState":
    from wizardcoder_jax.training.train_step import TrainState

    optimizer = items["optimizer"]
    return TrainState(items["params"], items["frozen"] or {}, optimizer["optimizer"], items["ema"], optimizer["guard"])


def _save(
    checkpoints: "CheckpointManager", done: int, card: "CheckpointCard", state: "TrainState", report: "Report", clock: Stopwatch
) -> None:
    with clock.phase("step"):
        report.settle()
    with clock.phase("checkpoint"):
        checkpoints.save(done, card, _items(state))


def _told(config: TrainConfig) -> dict[str, Any]:
    """What every process of a run has to have alike, by dotted name."""
    versions = {name: importlib.metadata.version(name) for name in ("wizardcoder_jax", "jax", "flax", "optax")}
    settings: dict[str, Any] = {}
    for name, value in to_json(config).items():
        settings |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    del settings["cache_dir"]  # each host has its own
    return {**settings, **versions}


def _data_files(config: TrainConfig) -> list[str]:
    try:
        return expand_paths(config.data)
    except InputError as error:
        if any("://" in pattern for pattern in config.data):
            raise
        made = "python -m wizardcoder_jax.evolve --seeds SEEDS.jsonl --output-dir data"
        raise InputError(f"no training data: {error}; make it with: {made}  (or name files with --data)") from error


def _open_run(config: TrainConfig) -> None:
    from wizardcoder_jax.core.distributed import barrier, is_main_process

    if is_main_process():
        if config.overwrite:
            for name in ("checkpoints", "frozen"):
                remove_folder(os.path.join(config.output_dir, name))
        ensure_dir(config.output_dir)
        write_json(os.path.join(config.output_dir, "config.json"), to_json(config))
    barrier("the run's folder is there")


if __name__ == "__main__":
    run_command(main)
