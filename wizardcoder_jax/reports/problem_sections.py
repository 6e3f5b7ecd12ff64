"""Sections of the results page, one per problem: the prompt, the answers, the code that ran, and how it failed."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from wizardcoder_jax.reports.results_reader import EvaluationResult, SampleOutcome
from wizardcoder_jax.reports.visible_text import shorten_line

MAX_ANSWERS = 1200  # number of answers that a page shows in full
MAX_PAGE_CHARS = 6_000_000  # characters of all answers and prompts on a page, before escaping
MAX_TEXT_CHARS, MIN_TEXT_CHARS = 10_000, 300  # limits on the characters shown of one answer or prompt
MAX_INDICES = 12  # number of sample indices listed for one answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleTexts:
    """Raw and cleaned answer of one sample; None for one that the samples file does not contain."""

    raw: str | None
    cleaned: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """One results file and its answers.

    Attributes:
        label: short name on the page, e.g. "A".
        result: contents of the results file.
        answers: answers by task id and sample index; empty without a samples file.
    """

    label: str
    result: EvaluationResult
    answers: Mapping[tuple[str, int], SampleTexts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Badge:
    """A colored summary of one problem in one run."""

    label: str  # label of the run; empty if there is only one run
    state: str  # CSS class in page.css: none, pass, mixed or fail
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerGroup:
    """Samples with the same code and the same outcome."""

    indices: str  # indices of the samples, as a list for display
    first: SampleOutcome  # outcome of the first sample
    texts: SampleTexts | None  # answer of the first sample; None if it is not available


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunAnswers:
    """Answers of one run to one problem."""

    run: ReportedRun
    has_samples: bool
    groups: Sequence[AnswerGroup]
    num_hidden: int  # number of samples whose answers are not shown
    hidden_reasons: str  # how these samples ended, as a list for display


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemSection:
    """Everything that the page shows about one problem."""

    anchor: str  # HTML id of the section
    task_id: str
    badges: Sequence[Badge]
    filters: str  # names of the filters that show this problem
    search_text: str  # lower-case text that the search box matches
    prompt: str | None  # None if it is not available
    runs: Sequence[RunAnswers]


class ProblemSections:
    """Iterable over the sections of all problems of one benchmark.

    Args:
        key: prefix of the sections' HTML ids, unique for each benchmark, e.g. "b0".
        runs: results files of the benchmark.
        prompts: prompts by task id, as far as they are known.
        share: fraction of MAX_ANSWERS and MAX_PAGE_CHARS that these sections may use.
    """

    def __init__(self, key: str, runs: Sequence[ReportedRun], prompts: Mapping[str, str], share: float = 1.0) -> None:
        self._key, self._runs, self._prompts = key, runs, prompts
        task_ids = dict.fromkeys(task_id for run in runs for task_id in run.result.problems)
        self._numbers = {task_id: i for i, task_id in enumerate(task_ids)}
        num_sections = len(task_ids) * len(runs)
        self._max_groups = max(1, int(MAX_ANSWERS * share) // num_sections)
        num_shown = sum(min(self._max_groups, len(outcomes)) for run in runs for outcomes in run.result.problems.values())
        chars = int(MAX_PAGE_CHARS * share) // max(1, 3 * num_shown + len(task_ids))
        self.max_chars = max(MIN_TEXT_CHARS, min(MAX_TEXT_CHARS, chars))  # characters shown of one answer or prompt

    def anchor(self, task_id: str) -> str:
        """Return the HTML id of a problem's section."""
        return f"{self._key}-{self._numbers[task_id]}"

    def __iter__(self) -> Iterator[ProblemSection]:
        """Yield the sections one by one, because all of them together may be large."""
        for task_id in self._numbers:
            yield self._section(task_id)

    def _section(self, task_id: str) -> ProblemSection:
        outcomes_by_run = [(run, run.result.problems.get(task_id, ())) for run in self._runs]
        reasons = sorted({outcome.reason for _, outcomes in outcomes_by_run for outcome in outcomes})
        has_labels = len(self._runs) > 1
        return ProblemSection(
            anchor=self.anchor(task_id),
            task_id=task_id,
            badges=[_badge(run.label if has_labels else "", outcomes) for run, outcomes in outcomes_by_run],
            filters=_filters([outcomes for _, outcomes in outcomes_by_run]),
            search_text=" ".join([task_id, *reasons]).lower(),
            prompt=self._prompts.get(task_id),
            runs=[self._answers(run, task_id, outcomes) for run, outcomes in outcomes_by_run],
        )

    def _answers(self, run: ReportedRun, task_id: str, outcomes: Sequence[SampleOutcome]) -> RunAnswers:
        groups = _group_outcomes(run, task_id, outcomes)
        hidden = Counter(outcome.reason for group in groups[self._max_groups :] for outcome in group)
        return RunAnswers(
            run=run,
            has_samples=bool(outcomes),
            groups=[_answer_group(run, task_id, group) for group in groups[: self._max_groups]],
            num_hidden=hidden.total(),
            hidden_reasons=", ".join(f"{count} {shorten_line(reason, 60)}" for reason, count in hidden.most_common(10)),
        )


def _answer_group(run: ReportedRun, task_id: str, group: Sequence[SampleOutcome]) -> AnswerGroup:
    indices = ", ".join(str(outcome.sample_index) for outcome in group[:MAX_INDICES])
    if len(group) > MAX_INDICES:
        indices += f" and {len(group) - MAX_INDICES} more with the same code"
    return AnswerGroup(indices=indices, first=group[0], texts=run.answers.get((task_id, group[0].sample_index)))


def _group_outcomes(run: ReportedRun, task_id: str, outcomes: Sequence[SampleOutcome]) -> list[list[SampleOutcome]]:
    """Group samples by code and reason.

    The largest failing group comes first, then the largest passing group, other failing groups, and other passing groups.
    """
    groups: dict[tuple[str, str | None], list[SampleOutcome]] = {}
    for outcome in outcomes:
        texts = run.answers.get((task_id, outcome.sample_index))
        code = None if texts is None else texts.cleaned if texts.cleaned is not None else texts.raw
        groups.setdefault((outcome.reason, code), []).append(outcome)
    by_size = sorted(groups.values(), key=len, reverse=True)
    failed = [group for group in by_size if not group[0].passed]
    passed = [group for group in by_size if group[0].passed]
    return [*failed[:1], *passed[:1], *failed[1:], *passed[1:]]


def _badge(label: str, outcomes: Sequence[SampleOutcome]) -> Badge:
    if not outcomes:
        return Badge(label=label, state="none", text="no samples")
    num_passed = sum(outcome.passed for outcome in outcomes)
    state = "pass" if num_passed == len(outcomes) else "mixed" if num_passed else "fail"
    reasons = Counter(outcome.reason for outcome in outcomes if not outcome.passed)
    common = f" {reasons.most_common(1)[0][0]}" if reasons else ""
    return Badge(label=label, state=state, text=f"{num_passed}/{len(outcomes)}{common}")


def _filters(outcomes_by_run: Sequence[Sequence[SampleOutcome]]) -> str:
    """Return the names of the page's filters that include a problem with these outcomes, separated by spaces."""
    rates = [sum(outcome.passed for outcome in outcomes) / len(outcomes) for outcomes in outcomes_by_run if outcomes]
    filters = {
        "failed": any(rate < 1 for rate in rates),
        "passed": any(rate > 0 for rate in rates),
        "flipped": len(set(rates)) > 1,
    }
    return " ".join(name for name, is_shown in filters.items() if is_shown)
