"""pass@1 of a model that is being trained, on the mesh that it is trained on: the signal that stops an evolution."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.config import ValidationConfig
from wizardcoder_jax.core.distributed import is_main_process
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.evaluation.programs import open_runner, run_distinct, sample_programs
from wizardcoder_jax.evaluation.prompt_set import PromptSet
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.prefix_cache import common_start
from wizardcoder_jax.inference.request import GenerationRequest
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer
from wizardcoder_jax.sandbox.sandbox import Sandbox


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnsweredProblem:
    """One problem with the model's answer."""

    task_id: str
    prompt: str
    answer: str  # as the model gave it


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkScore:
    """What an examination found; the same in every process."""

    pass_at_1: float
    num_problems: int
    answers: tuple[AnsweredProblem, ...]  # the first `num_logged` of the benchmark


class BenchmarkEvaluator:
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
        self._prompt_set = PromptSet.of_benchmark(self._benchmark, self._protocol)
        self._prompts = self._prompt_set.prompt_ids(tokenizer, validation.max_length)
        if is_main_process():
            Sandbox.open().stop()

    def examine(self, model: Transformer, mesh: Mesh) -> BenchmarkScore:
        """The model's score; every process of the run calls this at the same moment.

        Args:
            model: stacked float weights, split in any way over `mesh`.
            mesh: that of the training.
        """
        with jax.set_mesh(mesh):
            raws = self._answers(model, mesh)
        samples = {task_id: [Sample(task_id=task_id, sample_index=0, raw=raw)] for task_id, raw in raws.items()}
        programs = sample_programs(self._benchmark, samples, self._protocol)
        passed = self._num_passed(programs) if is_main_process() else 0
        if jax.process_count() > 1:
            passed = int(multihost_utils.broadcast_one_to_all(np.int32(passed)))
        logged = list(raws.items())[: self._settings.num_logged]
        texts = self._prompt_set.texts
        answers = tuple(AnsweredProblem(task_id=task_id, prompt=texts[task_id], answer=raw) for task_id, raw in logged)
        return BenchmarkScore(pass_at_1=passed / len(raws), num_problems=len(raws), answers=answers)

    def _answers(self, model: Transformer, mesh: Mesh) -> dict[str, str]:
        """Raw answers by task id; the copy of the weights that gives them is let go of at the end."""
        prompts, longest = list(self._prompts.values()), self._settings.max_length
        engine = Engine(
            for_sampling(model, mesh, self._dtype),
            num_slots=self._settings.batch_size,
            max_length=longest,
            eos_ids=[self._tokenizer.eos_id],
            dtype=self._dtype,
            header=common_start(prompts),
        )
        stopped = self._prompt_set.stop_condition(self._tokenizer)
        # Greedy: the key decides nothing.
        requests = [GenerationRequest(prompt=prompt, key=(0, 0), max_length=longest, stopped=stopped) for prompt in prompts]
        found = dict(engine.answer(requests))
        return {task_id: self._tokenizer.decode(found[i].tokens) for i, task_id in enumerate(self._prompts)}

    def _num_passed(self, programs: Mapping[tuple[str, int], Program]) -> int:
        """Run the programs and count those that pass."""
        with open_runner(self._benchmark.timeout_s, self._settings.num_workers) as runner:
            return sum(verdict.passed for verdict in run_distinct(runner, programs).values())


def for_sampling(model: Transformer, mesh: Mesh, dtype: jnp.dtype) -> Transformer:
    """A copy of the weights in `dtype`, laid out for sampling: heads and units over "model", blocks apart."""
    abstract = abstract_transformer(model.arch, RULES["fsdp_tensor"])
    # The same weights, in modules that know the other rules.
    relaid = jax.tree.unflatten(jax.tree.structure(abstract), jax.tree.leaves(model))
    return _cast_and_split(relaid, dtype, mesh)


@functools.partial(jax.jit, static_argnames=("dtype", "mesh"))
def _cast_and_split(model: Transformer, dtype: jnp.dtype, mesh: Mesh) -> Transformer:
    cast = jax.tree.map(lambda array: array.astype(dtype), model).unstacked()
    return jax.lax.with_sharding_constraint(cast, param_shardings(cast, mesh, model.rules)) if mesh.size > 1 else cast
