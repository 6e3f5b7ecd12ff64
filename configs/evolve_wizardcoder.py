"""WizardCoder's training set: three rounds of Code Evol-Instruct on Code Alpaca.

Source: arXiv 2306.08568 (v2), section 3.1: 20,022 seeds, teacher gpt-3.5-turbo; seeds and rounds together grow from 20k to 38k,
58k and 78k records. Sampling as in WizardLM: temperature 1, top_p 0.95, at most 2048 tokens.

    OPENAI_API_KEY=... python -m wizardcoder_jax.evolve --config configs/evolve_wizardcoder.py --max-usd 150

Seeds: code_alpaca_20k.json of sahil280114/codealpaca (CC-BY-NC-4.0) as data/code_alpaca_20k.json.
Hardware: none, because the teacher does the work. About 180,000 calls; the command prints an estimate before the first one. The
prices are those of gpt-3.5-turbo in 2024 (0.50 and 1.50 USD per million tokens); check them, because --max-usd relies on them.
Expected: data/evolved.jsonl with about 78,000 records (94 to 98 % of 20k survive a round), the data of
configs/wizardcoder_15b.py. gpt-3.5-turbo is no longer the model of 2023, and another teacher produces other data.
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
