"""seeds.jsonl -> evolved.jsonl: makes instructions harder, round by round, and answers them (Code Evol-Instruct).

Also writes rejected.jsonl, ledger.sqlite (every call: a re-run replays it for free), rounds/round-0N.jsonl, data_card.md,
summary.json, lineage.html, exports and config.json. The same command resumes; what it writes does not depend on concurrency
or interruptions.
"""

import asyncio
import contextlib
import errno
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError

if TYPE_CHECKING:
    from wizardcoder_jax.evol_instruct.code_snippets import SnippetFile
    from wizardcoder_jax.evol_instruct.cost_estimate import SeedCounts
    from wizardcoder_jax.evol_instruct.execution_filter import Run
    from wizardcoder_jax.evol_instruct.filter_chain import FilterChain
    from wizardcoder_jax.evol_instruct.records import SeedFile
    from wizardcoder_jax.evol_instruct.run_folder import RoundFileStore
    from wizardcoder_jax.evol_instruct.teachers import Teacher
    from wizardcoder_jax.llm_client.ledger import Ledger

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the settings and runs all rounds."""
    config = parse_command_line(EvolveConfig, argv)

    from wizardcoder_jax.evol_instruct import run_folder
    from wizardcoder_jax.evol_instruct.code_snippets import SnippetFile
    from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
    from wizardcoder_jax.evol_instruct.cost_estimate import SeedCounts
    from wizardcoder_jax.evol_instruct.dataset_exports import write_exports
    from wizardcoder_jax.evol_instruct.filter_chain import FilterChain
    from wizardcoder_jax.evol_instruct.records import SeedFile
    from wizardcoder_jax.evol_instruct.run_summary import file_sha256, summarize
    from wizardcoder_jax.evol_instruct.teachers import create_teacher
    from wizardcoder_jax.llm_client.ledger import Ledger
    from wizardcoder_jax.reports.lineage import write_lineage_page

    seeds = SeedFile(config.seeds) if config.seeds_kind == "instructions" else SnippetFile(config.seeds, config.seed)
    sources = SeedCounts.counted(seeds)
    contamination = ContaminationDetector(config.benchmarks_dir) if config.benchmarks_dir else None
    if contamination is not None:
        others = ", ".join(contamination.passed_over)
        _say(f"{contamination.num_problems} benchmark problems{f'; no problems in {others}' if others else ''}")
    if config.teacher.kind == "model":
        from wizardcoder_jax.evol_instruct.local_teacher import ModelTeacher

        teacher = ModelTeacher(config.teacher)
    else:
        teacher = create_teacher(config.teacher)
    with (
        _a_full_disk_resumes(),
        run_folder.claim_output_dir(config.output_dir, to_json(config), overwrite=config.overwrite) as folder,
        Ledger(folder / run_folder.LEDGER_NAME) as ledger,
    ):
        with run_folder.RoundFileStore(folder) as files, _trials(config, folder) as run:
            filters = FilterChain.of(config.filters, contamination, run)
            num_new = asyncio.run(_run(config, teacher, seeds, sources, filters, ledger, files))
        summary = summarize(
            config,
            files.statistics,
            seeds_sha256=seeds.sha256() if isinstance(seeds, SnippetFile) else file_sha256(config.seeds),
            num_duplicate_seeds=sources.num_repeats,
            num_problems=contamination.num_problems if contamination else None,
        )
        files.write_results(summary)
        write_exports(folder, config.exports)
        if config.lineage:
            write_lineage_page(folder)
        usage = summary["usage"]
        _say(
            f"{summary['num_calls']} calls ({num_new} new), {usage['prompt_tokens']} prompt and "
            f"{usage['completion_tokens']} completion tokens, ${summary['cost_usd']:.4f}"
        )
        _say(f"{summary['num_records']} records -> {folder / run_folder.EVOLVED_NAME}, {summary['num_rejected']} rejected")


async def _run(
    config: EvolveConfig,
    teacher: "Teacher",
    seeds: "SeedFile | SnippetFile",
    sources: "SeedCounts",
    filters: "FilterChain",
    ledger: "Ledger",
    files: "RoundFileStore",
) -> int:
    """Runs all rounds; returns the number of calls that were made for it now."""
    from wizardcoder_jax.evol_instruct import elimination_rules
    from wizardcoder_jax.evol_instruct.cost_estimate import estimate
    from wizardcoder_jax.evol_instruct.evolution_prompt import EvolutionSampler
    from wizardcoder_jax.evol_instruct.judges import INFORMATION_GAIN
    from wizardcoder_jax.evol_instruct.oss_instruct import make_seed
    from wizardcoder_jax.evol_instruct.record_evolver import RecordEvolver
    from wizardcoder_jax.evol_instruct.rounds import Rounds
    from wizardcoder_jax.evol_instruct.teacher_calls import TeacherCalls
    from wizardcoder_jax.llm_client.budget import Budget
    from wizardcoder_jax.llm_client.ordered_map import steps_for

    spent = ledger.totals()
    budget = Budget(max_requests=config.max_requests, max_usd=config.max_usd, max_tokens=config.max_tokens, spent=spent)
    calls = TeacherCalls(teacher=teacher, config=config.teacher, ledger=ledger, budget=budget, run_seed=config.seed)
    evolution = RecordEvolver(
        ask=calls.ask,
        recipe=EvolutionSampler(
            run_seed=config.seed,
            method_weights=config.method_weights,
            breadth_rate=config.breadth_rate,
            languages=config.languages,
        ),
        instruction_rules=(*elimination_rules.INSTRUCTION_RULES, *filters.rules),
        response_rules=(*elimination_rules.RESPONSE_RULES, *filters.rules),
        judges=(*((INFORMATION_GAIN,) if config.judge_information_gain else ()), *filters.judges),
        seed_rules=filters.rules,
        seed_judges=filters.seed_judges,
        make_seed=make_seed if config.seeds_kind == "snippets" else None,
    )
    cost = estimate(config, sources, evolution)
    _say(f"{sources.num} seeds ({sources.num_repeats} repeats left out), {config.rounds} rounds: {cost}")
    _say(f"the ledger holds {spent.requests} calls, ${spent.usd:.4f}")
    async with contextlib.aclosing(teacher):
        rounds = Rounds(
            evolution=evolution, store=files, concurrency=steps_for(config.teacher.num_in_flight), filters=filters.ordered
        )
        await rounds.run(seeds, sources.num, config.rounds)
    return calls.num_new


@contextlib.contextmanager
def _trials(config: EvolveConfig, folder: Path) -> "Iterator[Run | None]":
    """The way to run programs, where a filter does."""
    if not config.filters.execution:
        yield None
        return
    from wizardcoder_jax.evol_instruct.code_execution import CodeExecution
    from wizardcoder_jax.evol_instruct.run_folder import EXECUTIONS_NAME
    from wizardcoder_jax.sandbox.sandbox import Sandbox

    sandbox = Sandbox.open(unsafe=config.filters.unsafe_no_sandbox)
    limits = {"timeout_s": config.filters.execution_timeout_s, "num_workers": config.filters.execution_workers}
    with CodeExecution(sandbox, folder / EXECUTIONS_NAME, **limits) as trials:
        yield trials


@contextlib.contextmanager
def _a_full_disk_resumes() -> Iterator[None]:
    try:
        yield
    except (OSError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if not (isinstance(cause, OSError) and cause.errno in FULL):
            raise
        reason = f"cannot write {cause.filename or 'the output'} ({cause.strerror}); make room, then the same command resumes"
        raise StoppedEarlyError(reason) from error


def _say(line: str) -> None:
    print(f"evolve: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
