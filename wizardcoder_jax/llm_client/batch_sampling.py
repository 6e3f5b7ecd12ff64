"""Answers of a model behind a server to many prompts, several a prompt; each is paid for once, whatever happens to the run."""

import asyncio
import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wizardcoder_jax.config import ApiConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import ensure_dir, is_remote
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.llm_client.budget import Budget
from wizardcoder_jax.llm_client.completion import Completion
from wizardcoder_jax.llm_client.ledger import Ledger, Spent, held, remove_ledger
from wizardcoder_jax.llm_client.openai_client import OpenAIClient
from wizardcoder_jax.llm_client.ordered_map import map_in_order, steps_for
from wizardcoder_jax.llm_client.paid_calls import PaidAnswer, PaidCalls

MAX_STOPS = 4  # that OpenAI's API takes; the protocol's cleaner cuts at the others
PURPOSE = "sample"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How each prompt is put to the server.

    Attributes:
        model: the name that the server knows it by.
        in_chat: whether a prompt is a user message, or text to go on from.
        temperature, top_p: of the draws; temperature 0 is greedy.
        extensions: further settings that some servers know (vLLM, our own), by their names in a request.
        seed: of sample 0; sample i has seed + i.
        max_answer_tokens: where an answer is cut.
        stops: strings at which an answer may end; the first MAX_STOPS are sent.
    """

    model: str
    in_chat: bool
    temperature: float
    top_p: float
    seed: int
    max_answer_tokens: int
    stops: tuple[str, ...] = ()
    extensions: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def request(self, prompt: str, index: int) -> dict[str, Any]:
        """The body that asks for sample `index`."""
        asked = {"messages": [{"role": "user", "content": prompt}]} if self.in_chat else {"prompt": prompt}
        return {**self.settings(index), **asked}

    def settings(self, index: int) -> dict[str, Any]:
        """The body without the prompt."""
        stops = {"stop": list(self.stops[:MAX_STOPS])} if self.stops else {}
        # Some servers take a temperature or a top_p, not both; greedy needs no top_p.
        top_p = {} if self.temperature == 0 and self.top_p == 1 else {"top_p": self.top_p}
        return {
            "model": self.model,
            "temperature": self.temperature,
            **top_p,
            **self.extensions,
            "seed": self.seed + index,
            "max_tokens": self.max_answer_tokens,
            **stops,
        }


def ledger_path(output: str) -> Path:
    """Where the paid answers behind a samples file are kept: samples.jsonl -> samples.ledger.sqlite."""
    stem = output.removesuffix(".gz")
    return Path(stem.removesuffix(Path(stem).suffix) + ".ledger.sqlite")


@contextlib.contextmanager
def claimed_ledger(output: str, *, overwrite: bool) -> Iterator[Ledger]:
    """Opens the ledger of a samples file and holds it, so that no second process pays for the same answers.

    Raises:
        InputError: it is not local, is no ledger, or another process holds it.
    """
    if is_remote(output):
        raise InputError(f"--output {output} must be local: paid answers are kept in a sqlite file beside it; copy it after")
    path = ledger_path(output)
    ensure_dir(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o644)
    with held(descriptor, f"another sample is at work on {output}; wait for it or choose another --output"):
        if overwrite:
            remove_ledger(path)
        with Ledger(path) as ledger:
            yield ledger


def ask_all(
    asking: Asking, config: ApiConfig, ledger: Ledger, prompts: Mapping[str, str], num_samples: int
) -> tuple[dict[tuple[str, int], Completion], dict[str, Any]]:
    """All answers, by (task id, sample index), and what they cost.

    Raises:
        InputError: the server, the key or a request is not usable.
        StoppedEarlyError: a limit is reached, or the server kept failing; what was answered is in the ledger.
    """
    wanted = [(task_id, i) for task_id in prompts for i in range(num_samples)]
    limits = {"max_requests": config.max_requests, "max_usd": config.max_usd, "max_tokens": config.max_tokens}
    budget = Budget(**limits, spent=ledger.totals(), flags=f"--{config.section}.")
    calls = PaidCalls(
        prices=config,
        num_in_flight=config.concurrency,
        max_answer_tokens=asking.max_answer_tokens,
        ledger=ledger,
        budget=budget,
    )
    answers = asyncio.run(_ask_all(asking, config, calls, prompts, wanted))
    return dict(zip(wanted, (answer.completion for answer in answers), strict=True)), _usage(answers, ledger.totals())


async def _ask_all(
    asking: Asking, config: ApiConfig, calls: PaidCalls, prompts: Mapping[str, str], wanted: Sequence[tuple[str, int]]
) -> list[PaidAnswer]:
    async with contextlib.aclosing(OpenAIClient(config)) as client:

        async def ask(name: tuple[str, int]) -> PaidAnswer:
            task_id, i = name
            request = asking.request(prompts[task_id], i)
            return await calls.ask(
                functools.partial(client.complete, request),
                identity=[client.identity, asking.settings(i)],
                asked=request.get("messages") or request["prompt"],
                purpose=PURPOSE,
                record_id=task_id,
                number=i,
            )

        answers = []
        with Progress(PURPOSE, len(wanted), "answer") as progress:
            async with contextlib.aclosing(map_in_order(ask, wanted, steps_for(config.concurrency))) as results:
                async for answer in results:
                    answers.append(answer)
                    progress.update(new=calls.num_new)
    return answers


def _usage(answers: Sequence[PaidAnswer], spent: Spent) -> dict[str, Any]:
    completions = [answer.completion for answer in answers]
    return {
        "served_by": sorted({completion.model for completion in completions}),
        "prompt_tokens": sum(completion.prompt_tokens or 0 for completion in completions),
        "completion_tokens": sum(completion.completion_tokens or 0 for completion in completions),
        "usd": sum(answer.usd for answer in answers),
        "usd_of_all_runs": spent.usd,
    }
