"""pass@1 of a model that is being trained, on the mesh that it is trained on: the signal that stops an evolution."""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples import Sample
from wizardcoder_jax.config.train import ValidationConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.model.transformer import Transformer, abstract_transformer
from wizardcoder_jax.sampling.engine import Decoding, Engine, Request
from wizardcoder_jax.sandbox.program import Program
from wizardcoder_jax.sandbox.runner import Sandbox
from wizardcoder_jax.scoring import Questions, programs_of
from wizardcoder_jax.sharding import RULES
from wizardcoder_jax.training.step import shardings

TIMEOUT_S = 3.0  # CPU seconds of a program, as `evaluate` has by default
_LOOK_S = 0.2  # between two looks at whether to stop, while programs run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """One problem with the model's answer."""

    task_id: str
    prompt: str
    answer: str  # as the model gave it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """What an examination found; the same in every process."""

    pass_at_1: float
    num_problems: int
    answers: tuple[Asked, ...]  # the first `num_logged` of the benchmark


class Examiner:
    """Asks a benchmark's problems, greedily, and runs the answers in the sandbox.

    Args:
        validation: which benchmark, and how; `benchmark` is not None.
        tokenizer: of the model.
        max_positions: the model's context.
        dtype: of weights, activations and cache while sampling.

    Raises:
        InputError: no such benchmark, no sandbox, a prompt without room for an answer, a protocol that cannot be asked.
    """

    def __init__(self, validation: ValidationConfig, tokenizer: Tokenizer, max_positions: int, dtype: jnp.dtype) -> None:
        assert validation.benchmark is not None
        if validation.max_length > max_positions:
            raise InputError(
                f"validation.max_length {validation.max_length} exceeds the model's {max_positions} positions; lower it"
            )
        self._settings, self._tokenizer, self._dtype = validation, tokenizer, dtype
        self._benchmark = load_benchmark(validation.benchmark, validation.benchmark_file).first(validation.limit)
        self._protocol = get_protocol(validation.protocol)
        self._questions = Questions.of(self._benchmark, self._protocol)
        self._prompts = self._questions.prompt_ids(tokenizer, validation.max_length)
        if jax.process_index() == 0:
            Sandbox.open()

    def examine(self, model: Transformer, mesh: Mesh, should_stop: Callable[[], bool]) -> Score | None:
        """The model's score; every process of the run calls this at the same moment.

        Args:
            model: stacked float32 weights, split in any way over `mesh`.
            mesh: that of the training.
            should_stop: whether this process was asked to stop; it looks at something of its own, is asked often, and from
                another thread too.

        Returns:
            None where any process was asked to stop before the end.
        """
        with jax.set_mesh(mesh):
            raws = self._answers(model, mesh, lambda: _any_process(should_stop()))
        if raws is None:
            return None
        samples = {task_id: [Sample(task_id=task_id, sample_index=0, raw=raw)] for task_id, raw in raws.items()}
        programs = list(programs_of(self._benchmark, samples, self._protocol).values())
        passed = self._num_passed(programs, should_stop) if jax.process_index() == 0 else 0
        if jax.process_count() > 1:
            passed = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if passed is None else passed)))
        if passed is None or passed < 0:
            return None
        logged = list(raws.items())[: self._settings.num_logged]
        texts = self._questions.texts
        answers = tuple(Asked(task_id=task_id, prompt=texts[task_id], answer=raw) for task_id, raw in logged)
        return Score(pass_at_1=passed / len(raws), num_problems=len(raws), answers=answers)

    def _answers(self, model: Transformer, mesh: Mesh, cancelled: Callable[[], bool]) -> dict[str, str] | None:
        """Raw answers by task id; the copy of the weights that gives them is let go of at the end."""
        decoding = Decoding(temperature=0.0, top_p=1.0, eos_id=self._tokenizer.eos_id, max_length=self._settings.max_length)
        engine = Engine(for_sampling(model, mesh, self._dtype), decoding, self._settings.batch_size, self._dtype)
        requests = [Request(prompt=ids, key=(0, 0)) for ids in self._prompts.values()]  # greedy: the key decides nothing
        found = dict(engine.answer(requests, self._questions.stopped(self._tokenizer), cancelled))
        if len(found) < len(requests):
            return None
        return {task_id: self._tokenizer.decode(found[i].tokens) for i, task_id in enumerate(self._prompts)}

    def _num_passed(self, programs: Sequence[Program], should_stop: Callable[[], bool]) -> int | None:
        """How many programs pass; equal ones run once. None where it was asked to stop."""
        sandbox, keys = Sandbox.open(), [program.digest() for program in programs]
        unique = dict(zip(keys, programs, strict=True))
        names, passed = list(unique), set()
        with _stopped_when(should_stop, sandbox):
            for i, verdict in sandbox.run_all(list(unique.values()), TIMEOUT_S, self._settings.num_workers):
                if should_stop():
                    break
                if verdict.passed:
                    passed.add(names[i])
        return None if should_stop() else sum(key in passed for key in keys)


def for_sampling(model: Transformer, mesh: Mesh, dtype: jnp.dtype) -> Transformer:
    """A copy of the weights in `dtype`, laid out for sampling: heads and units over "model"; blocks apart on CPU."""
    abstract = abstract_transformer(model.arch, RULES["fsdp_tensor"])
    # The same weights, in modules that know the other rules.
    relaid = jax.tree.unflatten(jax.tree.structure(abstract), jax.tree.leaves(model))
    return _cast_and_split(relaid, dtype, jax.default_backend() == "cpu", mesh)


@functools.partial(jax.jit, static_argnames=("dtype", "unstack", "mesh"))
def _cast_and_split(model: Transformer, dtype: jnp.dtype, unstack: bool, mesh: Mesh) -> Transformer:
    cast = jax.tree.map(lambda array: array.astype(dtype), model)
    cast = cast.unstacked() if unstack else cast
    return jax.lax.with_sharding_constraint(cast, shardings(cast, mesh, model.rules)) if mesh.size > 1 else cast


def _any_process(asked: bool) -> bool:
    """Whether any process of the run was asked; all of them call this together."""
    if jax.process_count() == 1:
        return asked
    return bool(multihost_utils.process_allgather(np.bool_(asked)).any())


@contextlib.contextmanager
def _stopped_when(should_stop: Callable[[], bool], sandbox: Sandbox) -> Iterator[None]:
    """Kills what runs in the sandbox as soon as `should_stop`: a program may take many seconds of its own."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_S):
            if should_stop():
                sandbox.stop()
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
