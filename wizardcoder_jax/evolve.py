"""The `evolve` command: has a teacher model rewrite seed instructions into harder ones and answer them (Code Evol-Instruct).

It reads seeds.jsonl and writes evolved.jsonl, round by round. It also writes rejected.jsonl, ledger.sqlite (all calls to the
teacher, which a rerun replays for free), rounds/round-0N.jsonl, data_card.md, summary.json, lineage.html, exports and
config.json. Rerunning the same command resumes an interrupted run. Neither concurrency nor interruptions change the records.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json

if TYPE_CHECKING:
    from wizardcoder_jax.evol_instruct.code_snippets import SnippetFile
    from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
    from wizardcoder_jax.evol_instruct.cost_estimate import SeedCounts
    from wizardcoder_jax.evol_instruct.execution_filter import RunProgram
    from wizardcoder_jax.evol_instruct.filter_chain import FilterChain
    from wizardcoder_jax.evol_instruct.record_evolver import RecordEvolver
    from wizardcoder_jax.evol_instruct.run_folder import RoundFileStore
    from wizardcoder_jax.evol_instruct.seed_file import SeedFile
    from wizardcoder_jax.evol_instruct.teacher_calls import TeacherCalls
    from wizardcoder_jax.evol_instruct.teachers import Teacher
    from wizardcoder_jax.llm_client.ledger import Ledger

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Set up a run, evolve all rounds and write the results."""
    config = parse_command_line(EvolveConfig, argv)

    from wizardcoder_jax.evol_instruct import run_folder
    from wizardcoder_jax.evol_instruct.code_snippets import SnippetFile
    from wizardcoder_jax.evol_instruct.cost_estimate import count_seeds
    from wizardcoder_jax.evol_instruct.filter_chain import build_filter_chain
    from wizardcoder_jax.evol_instruct.run_summary import summarize
    from wizardcoder_jax.evol_instruct.seed_file import SeedFile
    from wizardcoder_jax.evol_instruct.teachers import create_teacher
    from wizardcoder_jax.llm_client.ledger import Ledger

    seeds = SeedFile(config.seeds) if config.seeds_kind == "instructions" else SnippetFile(config.seeds, config.seed)
    seed_counts = count_seeds(seeds)
    detector = _open_contamination_detector(config)
    teacher = create_teacher(config.teacher)
    with (
        run_folder.stop_on_full_disk(),
        run_folder.claim_output_dir(config.output_dir, to_json(config), overwrite=config.overwrite) as folder,
        Ledger(folder / run_folder.LEDGER_NAME) as ledger,
    ):
        with run_folder.RoundFileStore(folder) as store, _open_code_execution(config, folder) as run_program:
            filters = build_filter_chain(config.filters, detector, run_program)
            num_new_calls = asyncio.run(_evolve(config, teacher, seeds, seed_counts, filters, ledger, store))
        summary = summarize(
            config,
            store.statistics,
            seeds_sha256=seeds.sha256(),
            num_duplicate_seeds=seed_counts.num_repeats,
            num_problems=detector.num_problems if detector else None,
        )
        _write_results(config, folder, store, summary)
        _log_results(folder, summary, num_new_calls)


def _open_contamination_detector(config: EvolveConfig) -> "ContaminationDetector | None":
    from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector

    if not config.benchmarks_dir:
        return None
    detector = ContaminationDetector(config.benchmarks_dir)
    skipped = ", ".join(detector.skipped_files)
    logger.info(
        f"{detector.num_problems} benchmark problems{f'; skipped files that contain none: {skipped}' if skipped else ''}"
    )
    return detector


@contextlib.contextmanager
def _open_code_execution(config: EvolveConfig, folder: Path) -> "Iterator[RunProgram | None]":
    """Yield the function that runs programs for the execution filter, or None if that filter is disabled."""
    if not config.filters.execution:
        yield None
        return
    from wizardcoder_jax.evol_instruct.code_execution import CodeExecution
    from wizardcoder_jax.evol_instruct.run_folder import EXECUTIONS_NAME
    from wizardcoder_jax.sandbox.sandbox import Sandbox

    sandbox = Sandbox.open(unsafe=config.filters.unsafe_no_sandbox)
    limits = {"timeout_s": config.filters.execution_timeout_s, "num_workers": config.filters.execution_workers}
    with CodeExecution(sandbox, folder / EXECUTIONS_NAME, **limits) as execution:
        yield execution


async def _evolve(
    config: EvolveConfig,
    teacher: "Teacher",
    seeds: "SeedFile | SnippetFile",
    seed_counts: "SeedCounts",
    filters: "FilterChain",
    ledger: "Ledger",
    store: "RoundFileStore",
) -> int:
    """Evolve all rounds, and return the number of teacher calls that were not replayed from the ledger."""
    from wizardcoder_jax.evol_instruct.cost_estimate import estimate_cost
    from wizardcoder_jax.evol_instruct.rounds import Rounds
    from wizardcoder_jax.evol_instruct.teacher_calls import TeacherCalls
    from wizardcoder_jax.llm_client.budget import Budget
    from wizardcoder_jax.llm_client.ordered_map import concurrent_steps

    spent = ledger.totals()
    budget = Budget(max_requests=config.max_requests, max_usd=config.max_usd, max_tokens=config.max_tokens, spent=spent)
    calls = TeacherCalls(teacher=teacher, config=config.teacher, ledger=ledger, budget=budget, run_seed=config.seed)
    evolver = _build_evolver(config, calls, filters)
    cost = estimate_cost(config, seed_counts, evolver)
    logger.info(f"{seed_counts.num_seeds} seeds ({seed_counts.num_repeats} duplicates skipped), {config.rounds} rounds: {cost}")
    logger.info(f"the ledger already contains {spent.requests} calls, ${spent.usd:.4f}")
    async with contextlib.aclosing(teacher):
        concurrency = concurrent_steps(config.teacher.num_in_flight)
        rounds = Rounds(evolver=evolver, store=store, concurrency=concurrency, filters=filters.sequential)
        await rounds.run(seeds, seed_counts.num_seeds, config.rounds)
    return calls.num_new


def _build_evolver(config: EvolveConfig, calls: "TeacherCalls", filters: "FilterChain") -> "RecordEvolver":
    from wizardcoder_jax.evol_instruct.elimination_rules import INSTRUCTION_RULES, RESPONSE_RULES
    from wizardcoder_jax.evol_instruct.evolution_prompt import EvolutionSampler
    from wizardcoder_jax.evol_instruct.judges import INFORMATION_GAIN
    from wizardcoder_jax.evol_instruct.oss_instruct import make_seed
    from wizardcoder_jax.evol_instruct.record_evolver import RecordEvolver

    return RecordEvolver(
        call_teacher=calls.ask,
        sampler=EvolutionSampler(
            run_seed=config.seed,
            method_weights=config.method_weights,
            breadth_rate=config.breadth_rate,
            languages=config.languages,
        ),
        instruction_rules=(*INSTRUCTION_RULES, *filters.rules),
        response_rules=(*RESPONSE_RULES, *filters.rules),
        judges=(*((INFORMATION_GAIN,) if config.judge_information_gain else ()), *filters.judges),
        seed_rules=filters.rules,
        seed_judges=filters.seed_judges,
        make_seed=make_seed if config.seeds_kind == "snippets" else None,
    )


def _write_results(config: EvolveConfig, folder: Path, store: "RoundFileStore", summary: dict[str, Any]) -> None:
    from wizardcoder_jax.evol_instruct.dataset_exports import write_exports
    from wizardcoder_jax.reports.lineage import write_lineage_page

    store.write_results(summary)
    write_exports(folder, config.exports)
    if config.lineage:
        write_lineage_page(folder)


def _log_results(folder: Path, summary: dict[str, Any], num_new_calls: int) -> None:
    from wizardcoder_jax.evol_instruct.run_folder import EVOLVED_NAME

    usage = summary["usage"]
    logger.info(
        f"{summary['num_calls']} calls ({num_new_calls} new), {usage['prompt_tokens']} prompt and "
        f"{usage['completion_tokens']} completion tokens, ${summary['cost_usd']:.4f}"
    )
    logger.info(f"{summary['num_records']} records -> {folder / EVOLVED_NAME}, {summary['num_rejected']} rejected")


if __name__ == "__main__":
    run_command(main)
