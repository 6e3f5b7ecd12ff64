"""Fine-tunes a model on instruction data: base weights -> checkpoints."""

import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.cli import parse_cli, run_door, to_json
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.errors import InputError, StoppedEarlyError
from wizardcoder_jax.files import ensure_dir, expand, remove_folder, write_json
from wizardcoder_jax.prompts import WIZARDCODER_CHAT_TEMPLATE
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.stopping import StopRequest

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from wizardcoder_jax.arch import ArchConfig
    from wizardcoder_jax.data.dataset import Dataset
    from wizardcoder_jax.hf.tokenizer import Tokenizer
    from wizardcoder_jax.loading import Opened
    from wizardcoder_jax.sharding import Rules
    from wizardcoder_jax.training.card import Card
    from wizardcoder_jax.training.checkpoint import Checkpoints
    from wizardcoder_jax.training.report import Report
    from wizardcoder_jax.training.step import State
    from wizardcoder_jax.training.trainable import Partition


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or goes on training, the run in `output_dir`."""
    config = parse_cli(TrainConfig, argv)
    stop, clock = StopRequest(), Stopwatch()
    with clock.phase("start"):
        files = [] if config.task is not None else _data_files(config)
        import jax

        from wizardcoder_jax.data.batches import Batches
        from wizardcoder_jax.data.prepare import prepare
        from wizardcoder_jax.processes import AskedOfAny, join_processes, require_same
        from wizardcoder_jax.training.checkpoint import Checkpoints
        from wizardcoder_jax.training.feed import put_batch
        from wizardcoder_jax.training.profile import ProfilerWindow
        from wizardcoder_jax.training.report import Report
        from wizardcoder_jax.training.step import make_step

        jax.config.update("jax_compilation_cache_dir", os.path.join(config.cache_dir, "compiled"))
        join_processes()
        subject = Subject.open(config)
    with clock.phase("data"):
        data = prepare(config, files, subject.tokenizer)
        batches = Batches(data.train, config.batch_size, config.seed, config.group)
        batches.check(0, config.num_steps)
        require_same({**_told(config), "data": data.fingerprint})
    with clock.phase("start"):
        measures = Measures(config, subject, data.validation)
        _open_run(config)
    keep = (config.keep_checkpoints, config.keep_every_steps, config.async_checkpoints)
    with jax.set_mesh(subject.mesh), Checkpoints(config.output_dir, *keep) as checkpoints:
        with clock.phase("load"):
            found = checkpoints.restore_latest(_items(subject.abstract_state()))
            start, state = (0, subject.first_state()) if found is None else (found[0], _state(found[1]))
        put = functools.partial(
            put_batch, batch_size=config.batch_size, accumulation=config.accumulation, mesh=subject.mesh, rules=subject.rules
        )
        with clock.phase("compile"):
            traced = make_step(config, subject.partition, jax.default_backend() == "cpu")
            step = traced.lower(state, put(functools.partial(batches.batch, 0))).compile()
        window = ProfilerWindow(config.output_dir, config.profile_step, config.profile_steps)
        asked_of_any, done = AskedOfAny(subject.mesh), start
        with Report(config, start, subject.arch.num_params, batches.counts, clock) as report:
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
                    _save(checkpoints, done, subject, state, report, clock)
                if measures.due(done):
                    with clock.phase("checkpoint"):
                        checkpoints.wait()
                    stop.release()  # measuring takes long, and nothing is lost by leaving it
                    with clock.phase("validation"):
                        report.settle(measures.take(done, state, report))
            with clock.phase("step"):
                report.settle()
            window.close()
            if done > start:
                _save(checkpoints, done, subject, state, report, clock)
            with clock.phase("checkpoint"):
                checkpoints.wait()
            stop.release()
    if stop.asked or done < config.num_steps:
        raise StoppedEarlyError(f"step {done} of {config.num_steps} is saved; the same command resumes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What is trained and where, before its weights are there."""

    config: TrainConfig
    base: "Opened"
    arch: "ArchConfig"
    tokenizer: "Tokenizer"
    new_token: int | None  # id of the padding token, where it is added to the model
    mesh: "Mesh"
    rules: "Rules"
    partition: "Partition"

    @classmethod
    def open(cls, config: TrainConfig) -> "Subject":
        """Finds the base model, and what of it is to be trained."""
        from wizardcoder_jax.loading import open_model
        from wizardcoder_jax.model.vocabulary import arch_with_token
        from wizardcoder_jax.sharding import RULES, batch_shards, make_mesh
        from wizardcoder_jax.training.trainable import Partition, abstract_subject

        base, mesh, rules = open_model(config.base), make_mesh(config.mesh), RULES[config.strategy]
        _check_fit(config, base.arch.max_positions, batch_shards(mesh, rules))
        tokenizer = base.tokenizer.with_chat_template(WIZARDCODER_CHAT_TEMPLATE).with_pad_token(config.pad_token)
        new_token = tokenizer.pad_id if tokenizer.vocab_size > base.tokenizer.vocab_size else None
        arch = base.arch if new_token is None else arch_with_token(base.arch, new_token)
        partition = Partition.of(abstract_subject(arch, rules, config), config)
        found = {"base": base, "arch": arch, "tokenizer": tokenizer, "new_token": new_token}
        return cls(config=config, mesh=mesh, rules=rules, partition=partition, **found)

    @property
    def card(self) -> "Card":
        """What its checkpoints say of it."""
        from wizardcoder_jax.training.card import Card

        lora = None if self.config.lora.rank is None else dataclasses.asdict(self.config.lora)
        lineage, files = self.base.lineage, self.tokenizer.to_files()
        return Card(arch=self.arch, tokenizer=files, base_model=lineage.base_model, license=lineage.license, lora=lora)

    def abstract_state(self) -> "State":
        """The shapes of the state, to restore into."""
        from wizardcoder_jax.training.step import abstract_state
        from wizardcoder_jax.training.trainable import abstract_subject

        return abstract_state(abstract_subject(self.arch, self.rules, self.config), self.config, self.mesh, self.rules)

    def first_state(self) -> "State":
        """The state before the first step: the base's weights, a row for the new token, adapters."""
        import jax
        import jax.numpy as jnp

        from wizardcoder_jax.model.lora import with_adapters
        from wizardcoder_jax.model.vocabulary import with_token
        from wizardcoder_jax.training.step import new_state

        lora = self.config.lora
        in_full = lora.rank is None or lora.base_weights == "float32"
        model = self.base.weights(self.rules, self.mesh, jnp.dtype("float32" if in_full else "bfloat16")).model
        model = model if self.new_token is None else with_token(model, self.new_token, self.mesh)
        if lora.rank is not None:
            model = with_adapters(model, lora, jax.random.key(self.config.seed), self.mesh)
        return new_state(model, self.config, self.mesh, self.rules)


class Measures:
    """What is measured while training goes on: the loss on held-out records, and pass@1 on a benchmark.

    Args:
        config: of the run.
        subject: what is trained.
        held_out: records for the loss.
    """

    def __init__(self, config: TrainConfig, subject: Subject, held_out: "Dataset | None") -> None:
        import jax
        import jax.numpy as jnp

        from wizardcoder_jax.data.batches import Sweep
        from wizardcoder_jax.examination import Examiner
        from wizardcoder_jax.training.feed import put_batch
        from wizardcoder_jax.training.loss import LossOptions
        from wizardcoder_jax.training.validation import Validation

        self._config, self._subject, self._loss, self._examiner = config, subject, None, None
        if held_out is not None:
            sweep = Sweep(held_out, config.batch_size // config.accumulation)
            put = functools.partial(
                put_batch, accumulation=1, mesh=subject.mesh, rules=subject.rules, batch_size=sweep.batch_size
            )
            unroll = jax.default_backend() == "cpu"
            self._loss = Validation(sweep, put, subject.partition, LossOptions.of(config), unroll)
        if config.validation.benchmark is not None:
            dtype, max_positions = jnp.dtype(config.compute_dtype), subject.arch.max_positions
            self._examiner = Examiner(config.validation, subject.tokenizer, max_positions, dtype)

    def due(self, done: int) -> bool:
        """Whether anything is measured after step `done`."""
        wanted = self._loss is not None or self._examiner is not None
        return wanted and (done % self._config.validation.every_steps == 0 or done == self._config.num_steps)

    def take(self, done: int, state: "State", report: "Report") -> dict[str, float]:
        """Measures the state after step `done`: of its moving average, where there is one."""
        import jax.numpy as jnp

        from wizardcoder_jax.model.lora import merged

        weights, measured = state.trained if state.ema is None else state.ema, {}
        if self._loss is not None:
            measured["validation_loss"] = self._loss.loss(weights, state.frozen)
        if self._examiner is not None:
            model = self._subject.partition.join(weights, state.frozen)
            if self._config.lora.rank is not None:
                model = merged(model, jnp.dtype(self._config.compute_dtype))
            score = self._examiner.examine(model, self._subject.mesh)
            measured["pass_at_1"] = score.pass_at_1
            for asked in score.answers:
                report.generation(done, asked.task_id, asked.prompt, asked.answer)
        return measured


def _items(state: "State") -> dict[str, Any]:
    """A state as the items of a checkpoint."""
    items = {"params": state.trained, "frozen": state.frozen or None, "ema": state.ema}
    return {**items, "optimizer": {"optimizer": state.opt_state, "guard": state.guard}}


def _state(items: dict[str, Any]) -> "State":
    from wizardcoder_jax.training.step import State

    optimizer = items["optimizer"]
    return State(items["params"], items["frozen"] or {}, optimizer["optimizer"], items["ema"], optimizer["guard"])


def _save(checkpoints: "Checkpoints", done: int, subject: Subject, state: "State", report: "Report", clock: Stopwatch) -> None:
    with clock.phase("step"):
        report.wait()
    with clock.phase("checkpoint"):
        checkpoints.save(done, subject.card, _items(state))


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
    from wizardcoder_jax.processes import is_first, wait_for_all

    if is_first():
        if config.overwrite:
            for name in ("checkpoints", "frozen"):
                remove_folder(os.path.join(config.output_dir, name))
        ensure_dir(config.output_dir)
        write_json(os.path.join(config.output_dir, "config.json"), to_json(config))
    wait_for_all("the run's folder is there")


if __name__ == "__main__":
    run_door(main)
