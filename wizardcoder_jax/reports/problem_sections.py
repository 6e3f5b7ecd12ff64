"""The section of each problem: what was asked, what came back, what was run, how it failed."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from wizardcoder_jax.reports.html_escape import block, escaped, short
from wizardcoder_jax.reports.results_reader import Outcome, Result

MAX_ANSWERS = 1200  # that a page shows in full
MAX_PAGE_CHARS = 6_000_000  # of all their texts together, before escaping
MAX_TEXT_CHARS, MIN_TEXT_CHARS = 10_000, 300
MAX_INDICES = 12  # sample indices that are named


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownAnswer:
    """One sample's texts; None where the samples file does not have them."""

    raw: str | None
    cleaned: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """What is shown of one results file.

    Attributes:
        label: a short name for it, e.g. "A".
        result: what was measured.
        answers: by task id and sample index; empty where there is no samples file.
    """

    label: str
    result: Result
    answers: Mapping[tuple[str, int], ShownAnswer]


class ProblemList:
    """The sections of all problems of one benchmark.

    Args:
        key: makes the ids of the page unique, e.g. "b0".
        shown: the results files of the benchmark; the first is what the others are compared with.
        prompts: the prompt of each task that is known.
        share: the part of the page's bounds that these sections may use.
    """

    def __init__(self, key: str, shown: Sequence[Shown], prompts: Mapping[str, str], share: float = 1.0) -> None:
        self._key, self._shown, self._prompts = key, shown, prompts
        task_ids = dict.fromkeys(task_id for part in shown for task_id in part.result.problems)
        self._numbers = {task_id: i for i, task_id in enumerate(task_ids)}
        num_sections = len(task_ids) * len(shown)
        self._num_answers = max(1, int(MAX_ANSWERS * share) // num_sections)
        in_full = sum(min(self._num_answers, len(own)) for part in shown for own in part.result.problems.values())
        chars = int(MAX_PAGE_CHARS * share) // max(1, 3 * in_full + len(task_ids))
        self._max_chars = max(MIN_TEXT_CHARS, min(MAX_TEXT_CHARS, chars))

    def anchor(self, task_id: str) -> str:
        """The id of a problem's section."""
        return f"{self._key}-{self._numbers[task_id]}"

    def link(self, task_id: str) -> str:
        """A link to a problem's section."""
        return f'<a href="#{self.anchor(task_id)}">{short(task_id, 80)}</a>'

    def to_html(self) -> str:
        """All sections."""
        return "".join(self._section(task_id) for task_id in self._numbers)

    def _section(self, task_id: str) -> str:
        own = [(part, part.result.problems.get(task_id, ())) for part in self._shown]
        badges = "".join(_badge(part.label if len(self._shown) > 1 else "", outcomes) for part, outcomes in own)
        prompt = self._prompts.get(task_id)
        asked = '<p class="note">The prompt is not at hand.</p>' if prompt is None else block(prompt, self._max_chars)
        bodies = "".join(self._answers(part, task_id, outcomes) for part, outcomes in own)
        reasons = sorted({outcome.reason for _, outcomes in own for outcome in outcomes})
        words = short(" ".join([task_id, *reasons]).lower(), 400)
        return (
            f'<details class="problem" id="{self.anchor(task_id)}" data-state="{_states(own)}" data-words="{words}">'
            f'<summary><span class="name">{short(task_id, 80)}</span>{badges}</summary>'
            f"<h4>Prompt</h4>{asked}{bodies}</details>"
        )

    def _answers(self, part: Shown, task_id: str, outcomes: Sequence[Outcome]) -> str:
        title = f"<h4>{escaped(part.label)}: {short(part.result.model, 80)}</h4>" if len(self._shown) > 1 else ""
        if not outcomes:
            return f'{title}<p class="note">Not among these results.</p>'
        groups = _groups(part, task_id, outcomes)
        shown = "".join(self._answer(part, task_id, group) for group in groups[: self._num_answers])
        left = Counter(group[0].reason for group in groups[self._num_answers :] for _ in group)
        more = ", ".join(f"{count} {short(reason, 60)}" for reason, count in left.most_common(10))
        return title + shown + (f'<p class="note">And {sum(left.values())} further samples: {more}.</p>' if left else "")

    def _answer(self, part: Shown, task_id: str, group: Sequence[Outcome]) -> str:
        first = group[0]
        state = "pass" if first.passed else "fail"
        seconds = "" if first.seconds is None else f", {first.seconds:.2f} s"
        names = ", ".join(str(outcome.sample_index) for outcome in group[:MAX_INDICES])
        names += f" and {len(group) - MAX_INDICES} more with the same code" if len(group) > MAX_INDICES else ""
        head = f'<p>Sample {names}: <span class="badge {state}">{short(first.reason, 80)}</span>{seconds}</p>'
        detail = f"<h5>Detail</h5>{block(first.detail, self._max_chars)}" if first.detail else ""
        answer = part.answers.get((task_id, first.sample_index))
        if answer is None:
            return f'<div class="answer">{head}{detail}<p class="note">The answer is not at hand.</p></div>'
        texts = (("Raw answer", answer.raw), ("Cleaned code", answer.cleaned))
        columns = "".join(
            f"<div><h5>{name}</h5>{block(text, self._max_chars)}</div>" for name, text in texts if text is not None
        )
        return f'<div class="answer">{head}{detail}<div class="columns">{columns}</div></div>'


def _groups(part: Shown, task_id: str, outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Samples with the same code and the same end; the largest first, but failures and a pass before further failures."""
    found: dict[tuple[str, str | None], list[Outcome]] = {}
    for outcome in outcomes:
        answer = part.answers.get((task_id, outcome.sample_index))
        code = None if answer is None else answer.cleaned if answer.cleaned is not None else answer.raw
        found.setdefault((outcome.reason, code), []).append(outcome)
    groups = sorted(found.values(), key=len, reverse=True)
    failed = [group for group in groups if not group[0].passed]
    passed = [group for group in groups if group[0].passed]
    return [*failed[:1], *passed[:1], *failed[1:], *passed[1:]]


def _badge(label: str, outcomes: Sequence[Outcome]) -> str:
    num_passed = sum(outcome.passed for outcome in outcomes)
    state = "none" if not outcomes else "pass" if num_passed == len(outcomes) else "mixed" if num_passed else "fail"
    text = "no samples"
    if outcomes:
        reasons = Counter(outcome.reason for outcome in outcomes if not outcome.passed)
        common = f" {reasons.most_common(1)[0][0]}" if reasons else ""
        text = f"{num_passed}/{len(outcomes)}{common}"
    return f'<span class="badge {state}">{escaped(label + " " if label else "")}{short(text, 60)}</span>'


def _states(own: Sequence[tuple[Shown, Sequence[Outcome]]]) -> str:
    """The filters of the page that show this problem."""
    rates = [sum(outcome.passed for outcome in outcomes) / len(outcomes) for _, outcomes in own if outcomes]
    states = []
    if any(rate < 1 for rate in rates):
        states.append("failed")
    if any(rate > 0 for rate in rates):
        states.append("passed")
    if len(set(rates)) > 1:
        states.append("flipped")
    return " ".join(states)
