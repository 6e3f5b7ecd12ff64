"""The evolution prompt and the five evolution methods of Code Evol-Instruct, with breadth as an optional sixth method.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1 (template and methods); the wording of the methods is also in
nickrosh/evol-teacher @8332fbf, generate_evol.py, which samples one method uniformly (the paper does not specify how). The
breadth method is from WizardLM (nlpxucan/WizardLM @8c877d4, Evol_Instruct/breadth.py); WizardCoder does not use it. Its text
is unchanged, except that "prompt" is replaced by "question", as WizardCoder did in the other methods.
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
    """An evolution method, which turns a programming question into another one."""

    number: int  # number of the method: 1 to 5 as in the paper, 6 for breadth
    name: str  # name of the method in reports; not from the paper
    text: str  # description of the method in the prompt
    template: str = TEMPLATE  # prompt template with fields for the method, the question, ...

    def prompt(self, question: str, *, subject: str = SUBJECT, kept: str = "", language: str = "") -> str:
        """Return the evolution prompt for `question`.

        Args:
            question: the instruction to evolve.
            subject: noun phrase that the prompt uses for the instruction.
            kept: sentence about what must not change, appended to the first line; empty in the paper.
            language: line about the programming language, placed after the method; empty in the paper.
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
    """Sample the evolution method for a record in a round. The result depends only on the arguments.

    Args:
        run_seed: the seed of the run.
        record_id: id of the record to evolve.
        round_: number of the round, counted from 1.
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
