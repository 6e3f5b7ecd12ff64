"""A thousand texts to compare tokenizers on: instructions, code, and generated unusual ones."""

import functools
import json
import random
from pathlib import Path

from tests.helpers.shared_data import DATA_DIR

ROOT = Path(__file__).parents[2]
CODE_ALPACA = DATA_DIR / "codealpaca" / "code_alpaca_2k.json"
PIECES = [
    *("", " ", "  ", "   ", "        ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", " \n", "\n ", " \t ", "\u00a0", "\u3000"),
    *(
        "def f(x):",
        "return",
        "self.x += 1",
        "a_b",
        "camelCase",
        "HTTPServer",
        "it's",
        "we'LL",
        "I'm",
        "'s",
        "don't",
        "''",
        '"""',
    ),
    *("0", "7", "42", "123", "1234", "1234567", "3.14159", "1e-5", "0x1F", "²", "½", "Ⅻ", "٣", "१२"),
    *("naïve", "Straße", "e\u0301", "ﬁ", "İ", "Привет", "κόσμε", "日本語", "中文。", "한국어", "שלום", "مرحبا", "हिन्दी", "ไทย"),
    *("🙂", "👩\u200d💻", "🇩🇪", "☃", "\u200b", "\ufeff", "\u0000", "\x7f", "\ud7ff", "\U0010fffd", "▁", "▁▁", "<0x0A>"),
    *(
        "!",
        "...",
        "?!",
        "->",
        "=>",
        "!=",
        "{}",
        "[[]]",
        "//",
        "/*",
        "#",
        "$",
        "%",
        "^",
        "~",
        "`",
        "```python\n",
        "\\n",
        "@x",
        "&&",
    ),
]


def many_texts(special: list[str]) -> list[str]:
    """Return at least a thousand different texts, the same in every run; some contain `special` tokens."""
    texts = ["", *PIECES, *special, *_instructions(500)]
    draw = random.Random(0)
    pieces = [*PIECES, *special]
    while len(texts) < 1200:
        texts.append(draw.choice(("", "", " ", "\n")).join(draw.choices(pieces, k=draw.randint(2, 12))))
    return list(dict.fromkeys(texts))


@functools.cache
def _instructions(count: int) -> list[str]:
    """Return real instructions and programs, from Code Alpaca if it is available, otherwise from our own problems."""
    if CODE_ALPACA.exists():
        rows = json.loads(CODE_ALPACA.read_text())
        texts = [text for row in rows for text in (f"{row['instruction']}\n{row['input']}", row["output"])]
    else:
        files = sorted((ROOT / "wizardcoder_jax" / "benchmarks" / "problems").glob("*.jsonl"))
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        texts = [text for row in rows for text in row.values() if isinstance(text, str)]
    return texts[:count]
