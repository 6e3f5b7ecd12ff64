"""The evolution prompt and the five methods of Code Evol-Instruct.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1 (template and methods); method wording also in nickrosh/evol-teacher
@8332fbf, generate_evol.py, which draws one method uniformly (the paper does not say how it draws).
"""

import dataclasses
import hashlib

TEMPLATE = (
    "Please increase the difficulty of the given programming test question a bit.\n\n"
    "You can increase the difficulty using, but not limited to, the following methods:\n"
    "{method}\n\n"
    "{question}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One way of making a question harder."""

    number: int  # the paper's, from 1
    name: str  # ours, for reports
    text: str  # the line of the prompt

    def prompt(self, question: str) -> str:
        """The evolution prompt for `question`."""
        return TEMPLATE.format(method=self.text, question=question)


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


def draw_method(run_seed: int, record_id: str, round_: int) -> Method:
    """The method for a record in a round: uniform, and a function of its arguments alone, so that order never matters."""
    digest = hashlib.sha256(f"{run_seed}/{record_id}/{round_}/method".encode()).digest()
    return METHODS[int.from_bytes(digest[:8], "big") % len(METHODS)]
