"""Estimate of a run's cost before its first call: an upper bound on the calls, and approximate numbers of tokens."""

import dataclasses

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.evol_instruct.code_snippets import SnippetFile
from wizardcoder_jax.evol_instruct.elimination_rules import EQUALITY_PROMPT
from wizardcoder_jax.evol_instruct.methods import TEMPLATE
from wizardcoder_jax.evol_instruct.oss_instruct import PROMPT as PROBLEM_PROMPT
from wizardcoder_jax.evol_instruct.record_evolver import RecordEvolver
from wizardcoder_jax.evol_instruct.records import Record
from wizardcoder_jax.evol_instruct.seed_file import SeedFile

BYTES_PER_TOKEN = 4  # rough average for English and code
GROWTH_PER_ROUND = 1.5  # rough ratio of the length of an evolved instruction to that of its parent
TOKENS_PER_VERDICT = 2  # number of tokens of a judge's answer, such as "Not Equal"
TOKENS_PER_PROBLEM, TOKENS_PER_SOLUTION = 200.0, 300.0  # rough averages for problems invented from snippets


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """Maximum number of teacher calls, and approximate number of tokens and cost in US dollars."""

    max_calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float

    def __str__(self) -> str:
        cost = f", about ${self.usd:.2f}" if self.usd else ""
        tokens = f"about {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        return f"at most {self.max_calls:,} calls, {tokens}{cost}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedCounts:
    """Number and total size of the seeds or snippets of a run."""

    num_seeds: int = 0
    num_repeats: int = 0  # number of skipped duplicates
    instruction_bytes: int = 0
    output_bytes: int = 0


def count_seeds(seeds: SeedFile | SnippetFile) -> SeedCounts:
    """Read and count all seeds. This also reports errors in the seeds before the first teacher call."""
    num_seeds = instruction_bytes = output_bytes = 0
    for seed in seeds:
        num_seeds += 1
        instruction, output = (seed.instruction, seed.output) if isinstance(seed, Record) else (seed.code, "")
        instruction_bytes += len(instruction.encode())
        output_bytes += len(output.encode())
    return SeedCounts(
        num_seeds=num_seeds, num_repeats=seeds.num_repeats, instruction_bytes=instruction_bytes, output_bytes=output_bytes
    )


def estimate_cost(config: EvolveConfig, seeds: SeedCounts, evolver: RecordEvolver) -> CostEstimate:
    """Estimate the cost of evolving the seeds through all rounds, assuming that no call is replayed from the ledger."""
    instruction, output = seeds.instruction_bytes / BYTES_PER_TOKEN, seeds.output_bytes / BYTES_PER_TOKEN
    calls_per_seed = sum(judge.max_calls for judge in evolver.seed_judges)
    judge_calls = sum(judge.max_calls for judge in evolver.judges)
    prompt_tokens = completion_tokens = 0.0
    if evolver.make_seed is not None:
        prompt_tokens = seeds.num_seeds * len(PROBLEM_PROMPT) / BYTES_PER_TOKEN + instruction
        instruction, output = seeds.num_seeds * TOKENS_PER_PROBLEM, seeds.num_seeds * TOKENS_PER_SOLUTION
        completion_tokens = instruction + output
    prompt_tokens += calls_per_seed * (instruction + output)
    calls_per_seed += evolver.make_seed is not None
    for _ in range(config.rounds):
        evolved = instruction * GROWTH_PER_ROUND
        output *= GROWTH_PER_ROUND
        prompt_tokens += seeds.num_seeds * len(TEMPLATE) / BYTES_PER_TOKEN + instruction + evolved
        completion_tokens += evolved + output
        if judge_calls:
            prompt_tokens += judge_calls * (seeds.num_seeds * len(EQUALITY_PROMPT) / BYTES_PER_TOKEN + instruction + evolved)
            completion_tokens += judge_calls * seeds.num_seeds * TOKENS_PER_VERDICT
        instruction = evolved
    prompt, completion = round(prompt_tokens), round(completion_tokens)
    return CostEstimate(
        max_calls=seeds.num_seeds * (calls_per_seed + config.rounds * (2 + judge_calls)),
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=config.teacher.cost_usd(prompt, completion),
    )
