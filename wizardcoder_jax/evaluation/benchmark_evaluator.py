"""pass@1 of a model during training, sampled on the training mesh. It decides when to stop evolving (Evol Stop)."""

import dataclasses
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
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.evaluation.programs import open_runner, run_distinct, sample_programs
from wizardcoder_jax.evaluation.prompt_set import PromptSet
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.engine_weights import TRAINING_RULES, copy_engine_weights
from wizardcoder_jax.inference.open_engine import EngineSizes, check_max_length, check_memory, start_engine
from wizardcoder_jax.inference.prefix_cache import common_prefix
from wizardcoder_jax.inference.request import GenerationRequest
from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.sandbox.sandbox import Sandbox


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnsweredProblem:
    """A problem and the model's answer to it."""

    task_id: str
    prompt: str
    answer: str  # raw answer, before cleaning


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkScore:
    """Result of an evaluation; every process gets the same result."""

    pass_at_1: float
    num_problems: int
    answers: tuple[AnsweredProblem, ...]  # answers to the first `num_logged` problems


class BenchmarkEvaluator:
    """Evaluator that answers the problems of a benchmark greedily and runs the answers in the sandbox.

    Args:
        validation: settings of the evaluation; `benchmark` must not be None.
        tokenizer: tokenizer of the model.
        max_positions: context length of the model.
        dtype: dtype of weights, activations and KV cache while sampling.

    Raises:
        InputError: there is no such benchmark, no sandbox works on this host, a prompt is so long that no token of an answer
            fits, or the protocol has no prompt.
    """

    def __init__(self, validation: ValidationConfig, tokenizer: Tokenizer, max_positions: int, dtype: jnp.dtype) -> None:
        assert validation.benchmark is not None
        check_max_length(validation.max_length, max_positions, "validation.max_length")
        self._settings, self._tokenizer = validation, tokenizer
        self._sizes = EngineSizes(num_slots=validation.batch_size, max_length=validation.max_length, dtype=dtype)
        self._benchmark = load_benchmark(validation.benchmark, validation.benchmark_file).first(validation.limit)
        self._protocol = get_protocol(validation.protocol)
        self._prompt_set = PromptSet.of_benchmark(self._benchmark, self._protocol)
        self._prompts = self._prompt_set.prompt_ids(tokenizer, validation.max_length)
        if is_main_process():
            Sandbox.open().stop()  # if no sandbox works, fail before training starts

    def evaluate(self, model: Transformer, mesh: Mesh) -> BenchmarkScore:
        """Return the score of the model. Every process must call this method at the same step.

        Args:
            model: stacked floating-point weights, with any sharding over `mesh`.
            mesh: mesh of the training run.

        Raises:
            InputError: a device has too little memory for a copy of the weights and the KV cache.
        """
        with jax.set_mesh(mesh):
            raws = self._generate_answers(model, mesh)
        samples = {task_id: [Sample(task_id=task_id, sample_index=0, raw=raw)] for task_id, raw in raws.items()}
        programs = sample_programs(self._benchmark, samples, self._protocol)
        num_passed = self._count_passed(programs) if is_main_process() else 0
        if jax.process_count() > 1:
            num_passed = int(multihost_utils.broadcast_one_to_all(np.int32(num_passed)))
        logged = list(raws.items())[: self._settings.num_logged]
        texts = self._prompt_set.texts
        answers = tuple(AnsweredProblem(task_id=task_id, prompt=texts[task_id], answer=raw) for task_id, raw in logged)
        return BenchmarkScore(pass_at_1=num_passed / len(raws), num_problems=len(raws), answers=answers)

    def _generate_answers(self, model: Transformer, mesh: Mesh) -> dict[str, str]:
        """Return the raw answers by task id. The copy of the weights is freed on return."""
        check_memory(model.arch, mesh, self._sizes, TRAINING_RULES)
        prompts, max_length = list(self._prompts.values()), self._sizes.max_length
        weights = copy_engine_weights(model, mesh, self._sizes.dtype)
        engine = start_engine(weights, self._sizes, self._tokenizer, shared_prefix=common_prefix(prompts))
        should_stop = self._prompt_set.stop_condition(self._tokenizer)
        # Any key will do, because greedy decoding draws no random numbers.
        requests = [
            GenerationRequest(prompt=prompt, key=(0, 0), max_length=max_length, should_stop=should_stop) for prompt in prompts
        ]
        answers = dict(engine.generate(requests))
        return {task_id: self._tokenizer.decode(answers[i].tokens) for i, task_id in enumerate(self._prompts)}

    def _count_passed(self, programs: Mapping[tuple[str, int], Program]) -> int:
        """Run the programs and return the number that pass."""
        with open_runner(self._benchmark.timeout_s, self._settings.num_workers) as runner:
            return sum(verdict.passed for verdict in run_distinct(runner, programs).values())
