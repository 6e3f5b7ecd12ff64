"""What a run will cost, before its first call: a guess for the reader and an upper bound on the calls."""

import dataclasses

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.evol_instruct.code_snippets import SnippetFile
from wizardcoder_jax.evol_instruct.elimination_rules import EQUALITY_PROMPT
from wizardcoder_jax.evol_instruct.methods import TEMPLATE
from wizardcoder_jax.evol_instruct.oss_instruct import PROMPT as PROBLEM_PROMPT
from wizardcoder_jax.evol_instruct.record_evolver import RecordEvolver
from wizardcoder_jax.evol_instruct.records import Record, SeedFile

BYTES_PER_TOKEN = 4  # English and code, roughly
GROWTH_PER_ROUND = 1.5  # an evolved instruction against its parent, roughly: the methods add constraints
TOKENS_PER_VERDICT = 2  # "Not Equal"
TOKENS_PER_PROBLEM, TOKENS_PER_SOLUTION = 200.0, 300.0  # of a problem that a snippet inspires, roughly


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """Calls at most, and tokens and money about."""

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
    """What round 0 is made of, counted before anything is done."""

    num: int = 0
    num_repeats: int = 0  # left out
    instruction_bytes: int = 0
    output_bytes: int = 0

    @staticmethod
    def counted(seeds: SeedFile | SnippetFile) -> "SeedCounts":
        """Reads all of them, and so names what is wrong with them before the first call."""
        num = instruction_bytes = output_bytes = 0
        for seed in seeds:
            num += 1
            instruction, output = (seed.instruction, seed.output) if isinstance(seed, Record) else (seed.code, "")
            instruction_bytes += len(instruction.encode())
            output_bytes += len(output.encode())
        return SeedCounts(
            num=num, num_repeats=seeds.num_repeats, instruction_bytes=instruction_bytes, output_bytes=output_bytes
        )


def estimate(config: EvolveConfig, sources: SeedCounts, evolution: RecordEvolver) -> CostEstimate:
    """The cost of evolving `sources` for all rounds, were nothing in the ledger yet."""
    instruction, output = sources.instruction_bytes / BYTES_PER_TOKEN, sources.output_bytes / BYTES_PER_TOKEN
    calls_of_a_seed = sum(judge.max_calls for judge in evolution.seed_judges)
    judge_calls = sum(judge.max_calls for judge in evolution.judges)
    prompt_tokens = completion_tokens = 0.0
    if evolution.make_seed is not None:
        prompt_tokens = sources.num * len(PROBLEM_PROMPT) / BYTES_PER_TOKEN + instruction
        instruction, output = sources.num * TOKENS_PER_PROBLEM, sources.num * TOKENS_PER_SOLUTION
        completion_tokens = instruction + output
    prompt_tokens += calls_of_a_seed * (instruction + output)
    calls_of_a_seed += evolution.make_seed is not None
    for _ in range(config.rounds):
        evolved = instruction * GROWTH_PER_ROUND
        output *= GROWTH_PER_ROUND
        prompt_tokens += sources.num * len(TEMPLATE) / BYTES_PER_TOKEN + instruction + evolved
        completion_tokens += evolved + output
        if judge_calls:
            prompt_tokens += judge_calls * (sources.num * len(EQUALITY_PROMPT) / BYTES_PER_TOKEN + instruction + evolved)
            completion_tokens += judge_calls * sources.num * TOKENS_PER_VERDICT
        instruction = evolved
    prompt, completion = round(prompt_tokens), round(completion_tokens)
    return CostEstimate(
        max_calls=sources.num * (calls_of_a_seed + config.rounds * (2 + judge_calls)),
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=config.teacher.cost_usd(prompt, completion),
    )
