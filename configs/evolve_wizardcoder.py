"""WizardCoder's training set: three rounds of Code Evol-Instruct over Code Alpaca.

Source: arXiv 2306.08568 (v2), section 3.1: 20,022 seeds, teacher gpt-3.5-turbo, seeds and rounds together 20k -> 38k -> 58k ->
78k records. Decoding as in WizardLM's own calls: temperature 1, top_p 0.95, at most 2048 tokens.

    OPENAI_API_KEY=... python -m wizardcoder_jax.evolve --config configs/evolve_wizardcoder.py --max-usd 150

Seeds: code_alpaca_20k.json of sahil280114/codealpaca (CC-BY-NC-4.0) as data/code_alpaca_20k.json.
Hardware: none; the work is the teacher's. About 180,000 calls; the command prints its estimate before the first one. Prices are
gpt-3.5-turbo's of 2024 (0.50 and 1.50 USD per million tokens): check them, --max-usd counts with them.
Expected: data/evolved.jsonl with about 78,000 records (94 to 98 % of 20k survive a round), which configs/wizardcoder_15b.py
trains on. gpt-3.5-turbo is no longer the model of 2023: another teacher gives other data.
"""

from wizardcoder_jax.config import EvolveConfig, TeacherConfig

config = EvolveConfig(
    seeds="data/code_alpaca_20k.json",
    output_dir="data",
    rounds=3,
    teacher=TeacherConfig(
        kind="openai",
        model="gpt-3.5-turbo",
        temperature=1.0,
        top_p=0.95,
        max_tokens=2048,
        concurrency=32,
        usd_per_million_prompt_tokens=0.5,
        usd_per_million_completion_tokens=1.5,
    ),
)
