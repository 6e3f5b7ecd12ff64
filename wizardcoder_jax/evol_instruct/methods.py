"""The evolution prompt and the five evolution methods of Code Evol-Instruct, with breadth as an optional sixth method.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1 (template and methods); the wording of the methods is also in
nickrosh/evol-teacher @8332fbf, generate_evol.py, which samples one method uniformly (the paper does not specify how). Breadth
is WizardLM's (nlpxucan/WizardLM @8c877d4, Evol_Instruct/breadth.py), which WizardCoder left out. Its sentences are unchanged,
except that its words for a prompt are replaced by the template's words for a question, as WizardCoder did with the others.
"""

import dataclasses
from collections.abc import Sequence

from wizardcoder_jax.core.seeded_random import random_bits, random_fraction

SUBJECT = "programming test question"
TEMPLATE = (
    "Please increase the difficulty of the given {subject} a bit.{kept}\n\n"
    "You can increase the difficulty using, but not limited to, the following methods:\n"
    "{method}\n\n"
    "{question}"
)
BREADTH_TEMPLATE = "Please draw inspiration from the given {subject} to create a brand new one.{kept}\n\n{method}\n\n{question}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """An evolution method: a way to turn a question into another one."""

    number: int  # number in the paper, from 1
    name: str  # our name, for reports
    text: str  # line of the prompt that describes it
    template: str = TEMPLATE

    def prompt(self, question: str, *, subject: str = SUBJECT, kept: str = "", language: str = "") -> str:
        """Return the evolution prompt for `question`.

        Args:
            question: the instruction to evolve.
            subject: what the prompt calls the instruction.
            kept: a sentence on what must not change, for the first line; the paper has none.
            language: a line on the programming language, after the method; the paper has none.
        """
        method = f"{self.text}\n\n{language}" if language else self.text
        kept = f" {kept}" if kept else ""
        return self.template.format(subject=subject, kept=kept, method=method, question=question)


METHODS: tuple[Method, ...] = (
    Method(
        number=1,
        name="constraints",
        text="Add new constraints and requirements to the original problem, adding approximately 10 additional words.",
    ),
    Method(
        number=2,
        name="specific",
        text="Replace a commonly used requirement in the programming task with a less common and more specific one.",
    ),
    Method(
        number=3,
        name="reasoning",
        text="If the original problem can be solved with only a few logical steps, please add more reasoning steps.",
    ),
    Method(
        number=4,
        name="misdirection",
        text="Provide a piece of erroneous code as a reference to increase misdirection.",
    ),
    Method(
        number=5,
        name="complexity",
        text="Propose higher time or space complexity requirements, but please refrain from doing so frequently.",
    ),
)
BREADTH = Method(
    number=6,
    name="breadth",
    text=(
        "This new question should belong to the same domain as the given one but be even more rare.\n"
        "The LENGTH and complexity of the new question should be similar to that of the given one.\n"
        "The new question must be reasonable and must be understood and responded by humans."
    ),
    template=BREADTH_TEMPLATE,
)
UNIFORM = (1.0,) * len(METHODS)


def draw_method(
    run_seed: int, record_id: str, round_: int, *, weights: Sequence[float] = UNIFORM, breadth_rate: float = 0.0
) -> Method:
    """Sample the method for a record in a round. The result depends only on the arguments, and not on the order of calls.

    Args:
        run_seed: the seed of the run.
        record_id: id of the record to evolve.
        round_: number of the round, from 1.
        weights: relative frequencies of methods 1 to 5; uniform by default.
        breadth_rate: probability of BREADTH instead of methods 1 to 5.
    """
    if random_fraction(run_seed, record_id, round_, "breadth") < breadth_rate:
        return BREADTH
    purpose, max_weight = "method", max(weights)
    while True:  # rejection sampling: a uniform draw is accepted with a probability proportional to its weight
        names = (run_seed, record_id, round_, purpose)
        drawn = random_bits(*names) % len(METHODS)
        if random_fraction(*names, "taken") * max_weight < weights[drawn]:
            return METHODS[drawn]
        purpose += "+"
