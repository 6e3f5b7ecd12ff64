"""Code Evol-Instruct with what has been learned since: the paper's method and seeds, an open teacher, and cleaner data.

Source: ours, on configs/evolve_wizardcoder.py (arXiv 2306.08568v2, section 3.1). What differs, and why:
- teacher: Qwen2.5-Coder-32B-Instruct, whose licence (Apache-2.0) lets its answers train another model; any server that speaks
  OpenAI's protocol will do.
- method_weights: methods 4 and 5 half as often. Method 5's own words ask to refrain from it; method 4's line is the one that
  gpt-3.5 copied into its evolutions most (nickrosh/evol-teacher's round: 15 of 46 leaks, with a fifth of the draws), and a
  leak is calls for nothing. What the weights do to a trained model was not measured.
- breadth_rate: one evolution in ten asks for a new question of the same domain (WizardLM's in-breadth, which WizardCoder left
  out): 20k seeds are few topics after three rounds of deepening.
- benchmarks_dir: no record may hold a problem of the benchmarks in that folder; the teacher is asked about those that are
  alike without sharing much text.
- filters: answers that hold Python must run, and pass asserts that the teacher writes for them; near-duplicates are dropped;
  requests for malicious code are looked for by the teacher too.

    vllm serve Qwen/Qwen2.5-Coder-32B-Instruct        (or another server: --teacher.base-url, --teacher.model)
    OPENAI_API_KEY=none python -m wizardcoder_jax.evolve --config configs/evolve_improved.py

Seeds: code_alpaca_20k.json of sahil280114/codealpaca (CC-BY-NC-4.0) as data/code_alpaca_20k.json; benchmarks as JSONL files in
data/benchmarks.
Hardware: whatever serves the teacher (one GPU of 80 GB); about 180,000 calls besides those of the filters.
Expected: data/improved/evolved.jsonl with 70,000 records or fewer: the filters drop what the paper's rules let through. Not run
at this size by us; summary.json tells what each rule dropped.
"""

from wizardcoder_jax.config import EvolveConfig, FiltersConfig, TeacherConfig

config = EvolveConfig(
    seeds="data/code_alpaca_20k.json",
    output_dir="data/improved",
    rounds=3,
    method_weights=(1.0, 1.0, 1.0, 0.5, 0.5),
    breadth_rate=0.1,
    benchmarks_dir="data/benchmarks",
    filters=FiltersConfig(execution=True, near_duplicates=True, malicious="judge", judge_contamination=True),
    exports=("parquet",),
    teacher=TeacherConfig(
        kind="openai",
        base_url="http://127.0.0.1:8000/v1",
        model="Qwen/Qwen2.5-Coder-32B-Instruct",
        temperature=1.0,
        top_p=0.95,
        max_tokens=2048,
        concurrency=128,
    ),
)
