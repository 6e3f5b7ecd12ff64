"""Sampling of several answers per prompt from a model behind a server. No answer is paid for twice, even after a crash."""

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
from wizardcoder_jax.llm_client.ledger import Ledger, Spending, exclusive_lock, remove_ledger
from wizardcoder_jax.llm_client.openai_client import OpenAIClient
from wizardcoder_jax.llm_client.ordered_map import concurrent_steps, map_in_order
from wizardcoder_jax.llm_client.paid_calls import PaidAnswer, PaidCalls

MAX_STOPS = 4  # OpenAI's API accepts at most 4 stop strings; answers are cut at the remaining ones in post-processing
PURPOSE = "sample"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestSettings:
    """Settings shared by all requests of one run.

    Attributes:
        model: name of the model on the server.
        is_chat: whether each prompt is sent as a user message, rather than as text to complete.
        temperature, top_p: sampling parameters; temperature 0 is greedy.
        extensions: further sampling parameters that only some servers support (e.g. vLLM), by their names in a request body.
        seed: seed of sample 0 of each prompt; sample i uses seed + i.
        max_answer_tokens: maximum number of tokens in an answer.
        stops: stop strings, which end an answer; only the first MAX_STOPS are sent.
    """

    model: str
    is_chat: bool
    temperature: float
    top_p: float
    seed: int
    max_answer_tokens: int
    stops: tuple[str, ...] = ()
    extensions: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def request_body(self, prompt: str, index: int) -> dict[str, Any]:
        """Return the request body for sample `index` of a prompt."""
        content = {"messages": [{"role": "user", "content": prompt}]} if self.is_chat else {"prompt": prompt}
        return {**self.parameters(index), **content}

    def parameters(self, index: int) -> dict[str, Any]:
        """Return the request body for sample `index` without the prompt."""
        stops = {"stop": list(self.stops[:MAX_STOPS])} if self.stops else {}
        # Some servers accept temperature or top_p, but not both; greedy decoding needs no top_p.
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
    """Return the path of the ledger for a samples file: samples.jsonl -> samples.ledger.sqlite."""
    stem = output.removesuffix(".gz")
    return Path(stem.removesuffix(Path(stem).suffix) + ".ledger.sqlite")


@contextlib.contextmanager
def open_ledger(output: str, *, overwrite: bool) -> Iterator[Ledger]:
    """Open and lock the ledger of a samples file, so that two processes never pay for the same answers.

    Args:
        output: path of the samples file.
        overwrite: whether to delete the existing ledger first.

    Raises:
        InputError: `output` is not a local path, the existing file is not a ledger, or another process holds the lock.
    """
    if is_remote(output):
        raise InputError(
            f"--output {output} must be a local path, because paid answers are stored in an SQLite file next to it; "
            "write to a local path and copy the file afterwards"
        )
    path = ledger_path(output)
    ensure_dir(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o644)
    in_use = f"another sample command is writing {output}; wait for it to finish or choose another --output"
    with exclusive_lock(descriptor, in_use):
        if overwrite:
            remove_ledger(path)
        with Ledger(path) as ledger:
            yield ledger


def sample_all(
    settings: RequestSettings, config: ApiConfig, ledger: Ledger, prompts: Mapping[str, str], num_samples: int
) -> tuple[dict[tuple[str, int], Completion], dict[str, Any]]:
    """Sample `num_samples` answers to each prompt.

    Args:
        settings: settings shared by all requests.
        config: the server's address and limits.
        ledger: storage of the answers; answers that are already in the ledger are not requested again.
        prompts: task id -> prompt.
        num_samples: number of samples per prompt.

    Returns:
        The answers by (task id, sample index), and a JSON object with their token usage and cost.

    Raises:
        InputError: the server address, the API key or a request is invalid.
        StoppedEarlyError: a limit was reached, or the server kept failing; the answers received so far are in the ledger.
    """
    wanted = [(task_id, i) for task_id in prompts for i in range(num_samples)]
    limits = {"max_requests": config.max_requests, "max_usd": config.max_usd, "max_tokens": config.max_tokens}
    budget = Budget(**limits, spent=ledger.totals(), flag_prefix=f"--{config.section}.")
    calls = PaidCalls(
        prices=config,
        num_in_flight=config.concurrency,
        max_answer_tokens=settings.max_answer_tokens,
        ledger=ledger,
        budget=budget,
    )
    answers = asyncio.run(_sample_all(settings, config, calls, prompts, wanted))
    return dict(zip(wanted, (answer.completion for answer in answers), strict=True)), _usage(answers, ledger.totals())


async def _sample_all(
    settings: RequestSettings,
    config: ApiConfig,
    calls: PaidCalls,
    prompts: Mapping[str, str],
    wanted: Sequence[tuple[str, int]],
) -> list[PaidAnswer]:
    async with contextlib.aclosing(OpenAIClient(config)) as client:

        async def sample(name: tuple[str, int]) -> PaidAnswer:
            task_id, i = name
            body = settings.request_body(prompts[task_id], i)
            return await calls.ask(
                functools.partial(client.complete, body),
                identity=[client.identity, settings.parameters(i)],
                messages=body.get("messages") or body["prompt"],
                purpose=PURPOSE,
                record_id=task_id,
                number=i,
            )

        answers = []
        with Progress(PURPOSE, len(wanted), "answer") as progress:
            async with contextlib.aclosing(map_in_order(sample, wanted, concurrent_steps(config.concurrency))) as results:
                async for answer in results:
                    answers.append(answer)
                    progress.update(new=calls.num_new)
    return answers


def _usage(answers: Sequence[PaidAnswer], spent: Spending) -> dict[str, Any]:
    completions = [answer.completion for answer in answers]
    return {
        "served_by": sorted({completion.model for completion in completions}),
        "prompt_tokens": sum(completion.prompt_tokens or 0 for completion in completions),
        "completion_tokens": sum(completion.completion_tokens or 0 for completion in completions),
        "usd": sum(answer.usd for answer in answers),
        "usd_of_all_runs": spent.usd,
    }
