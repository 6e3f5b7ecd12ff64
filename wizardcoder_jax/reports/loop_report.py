"""Report of a `reproduce` run: scores before and after, the training data, the training run, time and memory."""

from typing import Any

from wizardcoder_jax.reports.document import Document, Section, Table


def build_loop_report(results: dict[str, Any]) -> Document:
    """Build the report of a `reproduce` run.

    Args:
        results: contents of the run's results.json, with "scores", "data", "training", "stages" and "environment".
    """
    data = [] if results["data"] is None else [_data(results["data"])]
    sections = [_scores(results["scores"]), *data, _training(results["training"]), _cost(results)]
    return Document(title="WizardCoder: one iteration of the loop", sections=sections)


def describe_score(score: dict[str, Any]) -> str:
    """Return a score as one line, e.g. "mini, tuned, wizardcoder-humaneval-v1: pass@1 41.7 % [28.3, 55.0] (25 of 60)"."""
    return f"{score['benchmark']}, {score['model']}, {score['protocol']}: pass@1 {_percent(score)} ({_counts(score)})"


def _percent(score: dict[str, Any]) -> str:
    low, high = score["confidence_95"]
    return f"{100 * score['pass_at_1']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _counts(score: dict[str, Any]) -> str:
    return f"{round(score['pass_at_1'] * score['num_problems'])} of {score['num_problems']}"


def _scores(scores: list[dict[str, Any]]) -> Section:
    rows = [
        [score["benchmark"], score["model"], score["protocol"], _percent(score), _counts(score), score["benchmark_version"]]
        for score in scores
    ]
    forgeable = sum(score["sandbox"]["forgeable_verdicts"] for score in scores)
    return Section(
        heading="Scores",
        paragraphs=[
            "Greedy decoding, one answer per problem; 95 % intervals by bootstrap over problems. Scores of different "
            "protocols are not comparable; compare the base and the tuned model under the same protocol.",
            "No problem of these benchmarks is in the training data. "
            f"Sandbox: {scores[0]['sandbox']['tier']}; {forgeable} verdicts could have been faked by the judged program.",
        ],
        table=Table(header=["benchmark", "model", "protocol", "pass@1", "passed", "version"], rows=rows),
    )


def _data(data: dict[str, Any]) -> Section:
    rows = [
        [str(entry["round"]), str(entry["pool"]), str(entry["kept"]), str(sum(entry["rejected"].values()))]
        for entry in data["rounds"]
    ]
    return Section(
        heading="Data",
        paragraphs=[f"{data['num_records']} records: the seeds (round 0) and the instructions evolved from them."],
        table=Table(header=["round", "pool", "kept", "rejected"], rows=rows),
    )


def _training(training: dict[str, Any]) -> Section:
    first, last = training["first"], training["last"]
    return Section(
        heading="Training",
        paragraphs=[
            f"{training['base']}, {last['step']} steps of {training['batch_size']} sequences of {training['max_length']} "
            f"tokens, peak learning rate {training['peak_lr']:g}.",
            f"Loss {first['loss']:.3f} at step {first['step']}, {last['loss']:.3f} at step {last['step']}; "
            f"{training['tokens_per_s']:.0f} tokens/s (median step).",
        ],
    )


def _cost(results: dict[str, Any]) -> Section:
    rows = [[name, f"{stage['wall_s']:.0f} s"] for name, stage in results["stages"].items()]
    total_s = sum(stage["wall_s"] for stage in results["stages"].values())
    peak = max(stage["peak_memory_bytes"] for stage in results["stages"].values())
    machine = ", ".join(f"{key} {value}" for key, value in results["environment"].items())
    return Section(
        heading="Time and memory",
        paragraphs=[f"{total_s / 60:.1f} minutes in total; peak memory of one process {peak / 2**30:.1f} GiB. {machine}."],
        table=Table(header=["stage", "wall time"], rows=rows),
    )
