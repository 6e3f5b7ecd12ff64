"""WizardCoder's instruction template: the text around an instruction, in training, sampling and evaluation alike.

Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py and src/inference_wizardcoder.py. How the problems of a
benchmark are worded as instructions is defined in benchmarks/prompts.py.
"""

HEADER = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
RESPONSE_MARK = "### Response:"


def wizardcoder_prompt(instruction: str) -> str:
    """Return the prompt for an instruction. The response follows the prompt directly."""
    return f"{HEADER}\n\n### Instruction:\n{instruction}\n\n{RESPONSE_MARK}"


def with_input(instruction: str, extra_input: str | None) -> str:
    """Join an Alpaca record's instruction and its input, if it has one, into a single instruction."""
    return f"{instruction}\n{extra_input}" if extra_input else instruction


WIZARDCODER_CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{%- elif message['role'] == 'user' %}"
    "{%- if loop.first %}{{ '" + HEADER + "\\n\\n' }}{%- endif %}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n" + RESPONSE_MARK + "' }}"
    "{%- elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{%- endif %}{%- endfor %}"
)
"""`wizardcoder_prompt` as a chat template (Jinja), which exported models carry."""
