"""seeds.jsonl -> evolved.jsonl: makes instructions harder, round by round, and answers them (Code Evol-Instruct).

Also writes rejected.jsonl, ledger.sqlite (every call: a re-run replays it for free), rounds/round-0N.jsonl, data_card.md,
summary.json and config.json. The same command resumes; what it writes does not depend on concurrency or interruptions.
"""

import contextlib
import sys
from collections.abc import Sequence

from wizardcoder_jax.cli import parse_cli, run_door, to_json
from wizardcoder_jax.config import EvolveConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the settings and runs all rounds."""
    config = parse_cli(EvolveConfig, argv)

    from wizardcoder_jax.clients.budget import Budget
    from wizardcoder_jax.clients.ledger import Ledger
    from wizardcoder_jax.instructions import outputs
    from wizardcoder_jax.instructions.calls import Calls
    from wizardcoder_jax.instructions.decontaminate import Contamination
    from wizardcoder_jax.instructions.estimate import estimate
    from wizardcoder_jax.instructions.records import read_seeds
    from wizardcoder_jax.instructions.rounds import Evolution, RoundResult, run_rounds
    from wizardcoder_jax.instructions.statistics import RoundStatistics
    from wizardcoder_jax.instructions.summary import summarise
    from wizardcoder_jax.instructions.teachers import load_teacher

    seeds, num_duplicate_seeds = read_seeds(config.seeds)
    contamination = Contamination(config.benchmarks_dir) if config.benchmarks_dir else None
    with (
        contextlib.closing(load_teacher(config.teacher)) as teacher,
        outputs.claimed(config.output_dir, to_json(config), overwrite=config.overwrite) as folder,
        Ledger(folder / outputs.LEDGER_NAME) as ledger,
    ):
        spent = ledger.totals()
        budget = Budget(max_requests=config.max_requests, max_usd=config.max_usd, spent=spent)
        calls = Calls(teacher=teacher, config=config.teacher, ledger=ledger, budget=budget)
        evolution = Evolution(
            ask=calls.ask,
            run_seed=config.seed,
            judge_information_gain=config.judge_information_gain,
            extra_rules=(contamination.rule,) if contamination else (),
        )
        _say(f"{len(seeds)} seeds ({num_duplicate_seeds} repeats left out), {config.rounds} rounds: {estimate(config, seeds)}")
        _say(f"the ledger holds {spent.requests} calls, ${spent.usd:.4f}")
        results: list[RoundResult] = []
        rounds: list[RoundStatistics] = []
        for result in run_rounds(evolution, seeds, config.rounds, concurrency=config.teacher.concurrency):
            outputs.write_round(folder, result)
            results.append(result)
            statistics = RoundStatistics(result.round)
            for outcome in (*result.kept, *result.rejected):
                statistics.add(outcome)
            rounds.append(statistics)
        num_problems = contamination.num_problems if contamination else None
        summary = summarise(config, rounds, num_duplicate_seeds=num_duplicate_seeds, num_problems=num_problems)
        outputs.write_results(folder, results, summary)
        usage = summary["usage"]
        _say(
            f"{summary['num_calls']} calls ({calls.num_new} new), {usage['prompt_tokens']} prompt and "
            f"{usage['completion_tokens']} completion tokens, ${summary['cost_usd']:.4f}"
        )
        _say(f"{summary['num_records']} records -> {folder / 'evolved.jsonl'}, {summary['num_rejected']} rejected")


def _say(line: str) -> None:
    print(f"evolve: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_door(main)
