"""From a sample to the program that is run, as the part that the model wrote and the part that tests it."""

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.samples import Sample


def completion_of(sample: Sample, protocol: EvaluationProtocol) -> str:
    """The sample's cleaned completion: from `raw` where it is kept, else from `completion`.

    Under the protocol `stored` the completion that the file holds comes first: it is used as it stands.
    """
    ordered = (sample.completion, sample.raw) if protocol.name == "stored" else (sample.raw, sample.completion)
    text = next((text for text in ordered if text is not None), None)
    if text is None:
        raise ValueError(f"sample {sample.sample_index} of {sample.task_id} has neither raw nor completion")
    return protocol.clean(text)


def assemble(problem: Problem, sample: Sample, protocol: EvaluationProtocol) -> tuple[str, str]:
    """(candidate, test): run one after the other as one source text, they raise unless the sample is correct.

    A self-contained `solution` stands for prompt and completion, and is not cleaned.
    Source: openai/human-eval @6d43fb9, human_eval/execution.py (prompt + completion + test + check).
    """
    written = sample.solution
    candidate = problem.prompt + completion_of(sample, protocol) if written is None else written
    return candidate, test_of(problem)


def test_of(problem: Problem) -> str:
    """The source that follows a candidate and tests it."""
    return f"\n{problem.test}\ncheck({problem.entry_point})"


def reference(problem: Problem) -> tuple[str, str]:
    """(candidate, test) of the benchmark's own solution."""
    return problem.prompt + problem.canonical_solution, test_of(problem)
