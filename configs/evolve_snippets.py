"""Seeds from source code instead of instructions (OSS-Instruct), evolved for one round in nine languages.

Source: Magicoder, arXiv 2312.02120, section 2: 1 to 15 lines of an open-source file inspire a problem, which the teacher writes
together with its solution. One round of Code Evol-Instruct follows, because Magicoder-S trains on both. The languages are those
of Magicoder's snippets; one is drawn for each seed, and its evolutions ask for that language.

    OPENAI_API_KEY=none python -m wizardcoder_jax.evolve --config configs/evolve_snippets.py --seeds path/to/sources

Seeds: a folder of source files with suitable licenses, a glob, or a JSONL file of {"content", "language"} records such as those
of bigcode/starcoderdata; one snippet is drawn from each file or record.
Hardware: a server for the teacher (one GPU with 80 GB); one call per snippet, then up to three per seed.
Expected: round 0 has a problem for each snippet whose answer has both sections. Magicoder made about 75,000 problems from
80,000 snippets with gpt-3.5-turbo-1106. We have not run it at this size.
"""

from wizardcoder_jax.config import EvolveConfig, TeacherConfig

config = EvolveConfig(
    seeds="data/sources",
    seeds_kind="snippets",
    output_dir="data/snippets",
    rounds=1,
    languages=("python", "cpp", "java", "typescript", "bash", "csharp", "rust", "php", "swift"),
    teacher=TeacherConfig(
        kind="openai",
        base_url="http://127.0.0.1:8000/v1",
        model="Qwen/Qwen2.5-Coder-32B-Instruct",
        max_tokens=2500,
        concurrency=128,
    ),
)
