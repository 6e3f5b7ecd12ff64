"""The tasks that a record may ask for: to generate, explain, summarize, repair, test or translate code.

Source: WizardCoder, arXiv 2306.08568, evolves code generation only and leaves other tasks to future work. For the task
"generate", the evolution prompts are exactly those of the paper, and the answer prompt is the instruction alone. The prompts of
the other tasks are ours: they use the same template and five methods, each adapted to what makes the task harder.
"""

import dataclasses

from wizardcoder_jax.evol_instruct.languages import LANGUAGE_NAMES
from wizardcoder_jax.evol_instruct.methods import BREADTH, METHODS, SUBJECT, Method

GENERATE = "generate"
TRANSLATE = "translate"
# Without this sentence, teachers also answer questions that contain code.
ALONE = "Reply with the new question alone, without an answer."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The prompts and requirements of one task.

    Attributes:
        name: the value of the field "task" of a seed.
        subject: what the evolution prompt calls an instruction.
        kept: sentence of the evolution prompt that says what the new instruction must keep.
        method_texts: the texts of methods 1 to 5, adapted to this task.
        language_line: line added to the evolution prompt if a record has a language; {language} stands for the language's name.
        guidance: text that follows the instruction in the answer prompt.
        needs_code: whether the instruction must contain the code in question.
        answered_with_code: whether the answer must contain code.
    """

    name: str
    subject: str
    kept: str
    method_texts: tuple[str, ...]
    language_line: str
    guidance: str
    needs_code: bool
    answered_with_code: bool

    def evolution_prompt(self, method: Method, instruction: str, language: str | None) -> str:
        """Return the prompt that asks for an evolution of `instruction` by `method`."""
        text = method.text if method is BREADTH else self.method_texts[method.number - 1]
        line = self.language_line.format(language=LANGUAGE_NAMES[language]) if language else ""
        worded = dataclasses.replace(method, text=text)
        return worded.prompt(instruction, subject=self.subject, kept=self.kept, language=line)

    def answer_prompt(self, instruction: str) -> str:
        """Return the prompt that asks for the answer to `instruction`."""
        return f"{instruction}\n\n{self.guidance}" if self.guidance else instruction


_ALL = (
    Task(
        name=GENERATE,
        subject=SUBJECT,
        kept="",
        method_texts=tuple(method.text for method in METHODS),
        language_line="The new question must ask for a solution in {language}.",
        guidance="",
        needs_code=False,
        answered_with_code=False,
    ),
    Task(
        name="explain",
        subject="code explanation question",
        kept=f"It must still ask to explain code, and must show that code in full. {ALONE}",
        method_texts=(
            "Add new constraints and requirements to the explanation asked for, adding approximately 10 additional words.",
            "Replace a commonly used construct of the code with a less common and more specific one.",
            "If the code can be explained with only a few logical steps, please make it need more reasoning steps.",
            "Provide an erroneous explanation of the code as a reference to increase misdirection.",
            "Ask for the time and space complexity of the code as well, but please refrain from doing so frequently.",
        ),
        language_line="The code must stay in {language}.",
        guidance="Explain in words what the code does and why. Quote only those lines of it that the explanation needs.",
        needs_code=True,
        answered_with_code=False,
    ),
    Task(
        name="summarise",
        subject="code summarisation question",
        kept=f"It must still ask to summarise code, and must show that code in full. {ALONE}",
        method_texts=(
            "Add new constraints and requirements to the summary asked for, adding approximately 10 additional words.",
            "Replace a commonly used construct of the code with a less common and more specific one.",
            "If the code does only a few things, please let it do more, so that the summary must choose what matters.",
            "Provide an inaccurate summary of the code as a reference to increase misdirection.",
            "Ask for a shorter summary than the code suggests, but please refrain from doing so frequently.",
        ),
        language_line="The code must stay in {language}.",
        guidance="Answer with the summary alone: words, no code. Leave out what a reader can do without.",
        needs_code=True,
        answered_with_code=False,
    ),
    Task(
        name="repair",
        subject="code repair question",
        kept=(
            "It must still ask to repair code, and must show the faulty code in full, "
            f"without a comment or hint that marks the fault. {ALONE}"
        ),
        method_texts=(
            "Add new constraints and requirements to the repaired code, adding approximately 10 additional words.",
            "Replace a common fault of the code with a less common and more specific one.",
            "If the fault can be found with only a few logical steps, please make it need more reasoning steps.",
            "Provide an erroneous repair of the code as a reference to increase misdirection.",
            "Propose higher time or space complexity requirements for the repair, but please refrain from doing so frequently.",
        ),
        language_line="The code must stay in {language}.",
        guidance="First give the repaired code in full, in one fenced block. Then say in a few sentences what was wrong.",
        needs_code=True,
        answered_with_code=True,
    ),
    Task(
        name="test",
        subject="test writing question",
        kept=f"It must still ask to write tests for code, and must show the code under test in full. {ALONE}",
        method_texts=(
            "Add new constraints and requirements to the tests asked for, adding approximately 10 additional words.",
            "Replace a commonly used requirement on the code under test with a less common and more specific one.",
            "If the code can be tested with only a few cases, please let it behave in more ways that need a test.",
            "Provide a piece of erroneous test code as a reference to increase misdirection.",
            "Ask for tests of the time or space that the code takes as well, but please refrain from doing so frequently.",
        ),
        language_line="The code and its tests must stay in {language}.",
        guidance=(
            "Give the tests in one fenced block that runs as it stands, with the code under test copied in unchanged. "
            "Every test must fail for some plausible mistake."
        ),
        needs_code=True,
        answered_with_code=True,
    ),
    Task(
        name=TRANSLATE,
        subject="code translation question",
        kept=(
            "It must still ask to translate code between the same two programming languages, and must show the code in full. "
            f"{ALONE}"
        ),
        method_texts=(
            "Add new constraints and requirements to the translation asked for, adding approximately 10 additional words.",
            "Replace a commonly used construct of the code with one that is less common and specific to its language.",
            "If the code can be translated with only a few logical steps, please make it need more reasoning steps.",
            "Provide a piece of erroneous translation as a reference to increase misdirection.",
            "Propose higher time or space complexity requirements for the result, but please refrain from doing so frequently.",
        ),
        language_line="It must still ask for a translation into {language}.",
        guidance="Give the translation in full, in one fenced block. It must behave as the code does.",
        needs_code=True,
        answered_with_code=True,
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
TASK_NAMES = tuple(TASKS)
