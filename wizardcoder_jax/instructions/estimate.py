"""What a run will cost, before its first call: a guess for the reader and an upper bound on the calls."""

import dataclasses
from collections.abc import Sequence

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.instructions.methods import TEMPLATE
from wizardcoder_jax.instructions.records import Record
from wizardcoder_jax.instructions.rules import EQUALITY_PROMPT

BYTES_PER_TOKEN = 4  # English and code, roughly
GROWTH_PER_ROUND = 1.5  # an evolved instruction against its parent, roughly: the methods add constraints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Calls at most, and tokens and money about."""

    max_calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float

    def __str__(self) -> str:
        cost = f", about ${self.usd:.2f}" if self.usd else ""
        tokens = f"about {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        return f"at most {self.max_calls:,} calls, {tokens}{cost}"


def estimate(config: EvolveConfig, seeds: Sequence[Record]) -> Estimate:
    """The cost of evolving `seeds` for all rounds, were nothing in the ledger yet."""
    instruction = sum(len(seed.instruction.encode()) for seed in seeds) / BYTES_PER_TOKEN
    output = sum(len(seed.output.encode()) for seed in seeds) / BYTES_PER_TOKEN
    judged = config.judge_information_gain
    prompt_tokens = completion_tokens = 0.0
    for _ in range(config.rounds):
        evolved = instruction * GROWTH_PER_ROUND
        output *= GROWTH_PER_ROUND
        prompt_tokens += len(seeds) * len(TEMPLATE) / BYTES_PER_TOKEN + instruction + evolved
        completion_tokens += evolved + output
        if judged:
            prompt_tokens += len(seeds) * len(EQUALITY_PROMPT) / BYTES_PER_TOKEN + instruction + evolved
            completion_tokens += len(seeds) * 2  # "Not Equal"
        instruction = evolved
    prompt, completion = round(prompt_tokens), round(completion_tokens)
    return Estimate(
        max_calls=len(seeds) * config.rounds * (3 if judged else 2),
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=config.teacher.cost_usd(prompt, completion),
    )
