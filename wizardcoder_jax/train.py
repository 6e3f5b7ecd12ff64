"""The train command: fine-tunes a base model on instruction data and writes checkpoints."""

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
    from wizardcoder_jax.data.batches import Batches
    from wizardcoder_jax.training.callbacks.callback import Callback
    from wizardcoder_jax.training.callbacks.evaluation_callback import Evaluator
    from wizardcoder_jax.training.setup import TrainingSetup
    from wizardcoder_jax.training.train_step import TrainState


def main(argv: Sequence[str] | None = None) -> None:
    """Start the training run in `output_dir`, or resume it."""
    config = parse_command_line(TrainConfig, argv)
    stop, clock = StopSignal(), Stopwatch()
    with clock.phase("start"):
        files = [] if config.task is not None else _find_data_files(config)
        import jax

        from wizardcoder_jax.checkpoints.manager import CheckpointManager
        from wizardcoder_jax.core.distributed import initialize_distributed, require_same_settings
        from wizardcoder_jax.data.batches import Batches
        from wizardcoder_jax.data.prepare import prepare_data
        from wizardcoder_jax.training.callbacks.evaluation_callback import make_evaluators
        from wizardcoder_jax.training.setup import TrainingSetup

        jax.config.update("jax_compilation_cache_dir", os.path.join(config.cache_dir, "compiled"))
        initialize_distributed()
        setup = TrainingSetup.open(config)
    with clock.phase("data"):
        data = prepare_data(config, files, setup.tokenizer)
        batches = Batches(data.train, config.batch_size, config.seed, config.loss_group_size)
        batches.check_supervision(0, config.num_steps)
        require_same_settings({**_settings_to_agree_on(config), "data": data.fingerprint})
    with clock.phase("start"):
        evaluators = make_evaluators(config, setup, data.validation)
        _open_run_folder(config)
    keep = (config.keep_checkpoints, config.keep_every_steps, config.async_checkpoints)
    with jax.set_mesh(setup.mesh), CheckpointManager(config.output_dir, *keep) as checkpoints:
        last_step = _train(config, setup, batches, evaluators, checkpoints, stop, clock)
    if stop.requested or last_step < config.num_steps:
        raise StoppedEarlyError(f"step {last_step} of {config.num_steps} is saved; the same command resumes")
    stop.allow_exit()


def _train(
    config: TrainConfig,
    setup: "TrainingSetup",
    batches: "Batches",
    evaluators: "Sequence[Evaluator]",
    checkpoints: "CheckpointManager",
    stop: StopSignal,
    clock: Stopwatch,
) -> int:
    """Restore or initialize the state, compile the step and run the loop; return the number of completed steps."""
    import jax

    from wizardcoder_jax.core.distributed import AnyProcess
    from wizardcoder_jax.training.global_batch import put_batch
    from wizardcoder_jax.training.objectives.objective_registry import OBJECTIVES
    from wizardcoder_jax.training.train_step import make_step
    from wizardcoder_jax.training.trainer import Trainer

    with clock.phase("load"):
        start, state = _load_state(setup, checkpoints)
    put = functools.partial(
        put_batch,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        mesh=setup.mesh,
        rules=setup.rules,
        batch_type=OBJECTIVES[config.objective].batch_type,
    )
    read_batch = lambda step: put(functools.partial(batches.batch, step))  # noqa: E731
    step = make_step(config, setup.partition, jax.default_backend() == "cpu")
    if start < config.num_steps:
        with clock.phase("compile"):
            step = step.lower(state, read_batch(start)).compile()
    trainer = Trainer(
        step=step,
        read_batch=read_batch,
        num_steps=config.num_steps,
        callbacks=_make_callbacks(config, setup, batches, evaluators, checkpoints, start, stop, clock),
        stop=stop,
        any_process=AnyProcess(setup.mesh),
        clock=clock,
    )
    return trainer.run(state, start)


def _load_state(setup: "TrainingSetup", checkpoints: "CheckpointManager") -> "tuple[int, TrainState]":
    """Return the number of completed steps and the state, from the newest checkpoint or, if there is none, the base model."""
    from wizardcoder_jax.training.callbacks.checkpoint_callback import checkpoint_items, state_from_items

    restored = checkpoints.restore_latest(checkpoint_items(setup.abstract_state()))
    return (0, setup.init_state()) if restored is None else (restored[0], state_from_items(restored[1]))


def _make_callbacks(
    config: TrainConfig,
    setup: "TrainingSetup",
    batches: "Batches",
    evaluators: "Sequence[Evaluator]",
    checkpoints: "CheckpointManager",
    start: int,
    stop: StopSignal,
    clock: Stopwatch,
) -> "list[Callback]":
    """Return the callbacks in the order in which they are called: metrics, profiler, checkpoint, evaluation."""
    from wizardcoder_jax.training.callbacks.checkpoint_callback import CheckpointCallback
    from wizardcoder_jax.training.callbacks.evaluation_callback import EvaluationCallback, EvaluationSchedule
    from wizardcoder_jax.training.callbacks.metrics_callback import MetricsCallback
    from wizardcoder_jax.training.callbacks.profiler_callback import ProfilerCallback

    schedule = EvaluationSchedule(config, evaluators)
    metrics = MetricsCallback(config, start, setup.arch.num_params, batches.token_counts, clock)
    profiler = ProfilerCallback(config.output_dir, config.profile_step, config.profile_steps)
    card, every_steps = setup.checkpoint_card, config.checkpoint_every_steps
    checkpoint = CheckpointCallback(checkpoints, card, every_steps, schedule.is_due, metrics, clock)
    evaluation = EvaluationCallback(evaluators, schedule, checkpoint, metrics, stop, clock)
    return [metrics, profiler, checkpoint, evaluation]


def _settings_to_agree_on(config: TrainConfig) -> dict[str, Any]:
    """Return the settings and versions that must be the same in every process of a run, by dotted name."""
    versions = {name: importlib.metadata.version(name) for name in ("wizardcoder_jax", "jax", "flax", "optax")}
    settings: dict[str, Any] = {}
    for name, value in to_json(config).items():
        settings |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    del settings["cache_dir"]  # may differ between hosts
    return {**settings, **versions}


def _find_data_files(config: TrainConfig) -> list[str]:
    try:
        return expand_paths(config.data)
    except InputError as error:
        if any("://" in pattern for pattern in config.data):
            raise
        command = "python -m wizardcoder_jax.evolve --seeds SEEDS.jsonl --output-dir data"
        raise InputError(f"no training data: {error}; generate it with: {command}  (or pass files with --data)") from error


def _open_run_folder(config: TrainConfig) -> None:
    """Create the run's folder and write config.json; with --overwrite, remove the checkpoints of earlier runs."""
    from wizardcoder_jax.core.distributed import barrier, is_main_process

    if is_main_process():
        if config.overwrite:
            for name in ("checkpoints", "frozen"):
                remove_folder(os.path.join(config.output_dir, name))
        ensure_dir(config.output_dir)
        write_json(os.path.join(config.output_dir, "config.json"), to_json(config))
    barrier("the run folder exists")


if __name__ == "__main__":
    run_command(main)
