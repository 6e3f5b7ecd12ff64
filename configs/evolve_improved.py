"""Code Evol-Instruct with later improvements: the paper's method and seeds, an open teacher and cleaner data.

Source: ours, based on configs/evolve_wizardcoder.py (arXiv 2306.08568v2, section 3.1). The differences and their reasons:
- teacher: Qwen2.5-Coder-32B-Instruct, whose license (Apache-2.0) permits training other models on its answers. Any server with
  the OpenAI API works.
- method_weights: methods 4 and 5 are drawn half as often. Method 5's text itself asks to avoid it, and gpt-3.5 copied method
  4's text into its evolutions most often (nickrosh/evol-teacher's round: 15 of 46 leaks, with a fifth of the draws); the calls
  for such evolutions are wasted. The effect of the weights on a trained model was not measured.
- breadth_rate: one evolution in ten asks for a new question in the same domain (WizardLM's in-breadth evolving, which
  WizardCoder omits), because 20k seeds cover few topics after three rounds of in-depth evolving.
- benchmarks_dir: no record may contain a problem of the benchmarks in this folder. The teacher compares records with similar
  problems that share little text.
- filters: answers with Python code must run and pass asserts that the teacher writes for them; near-duplicates are dropped; the
  teacher also looks for requests for malicious code.

    vllm serve Qwen/Qwen2.5-Coder-32B-Instruct        (or another server: --teacher.base-url, --teacher.model)
    OPENAI_API_KEY=none python -m wizardcoder_jax.evolve --config configs/evolve_improved.py

Seeds: code_alpaca_20k.json of sahil280114/codealpaca (CC-BY-NC-4.0) as data/code_alpaca_20k.json; benchmarks as JSONL files in
data/benchmarks.
Hardware: a server for the teacher (one GPU with 80 GB); about 180,000 calls in addition to those of the filters.
Expected: data/improved/evolved.jsonl with at most 70,000 records, because the filters drop more than the paper's rules. We have
not run it at this size; summary.json lists how many records each rule dropped.
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
