"""Decontamination: recall for each kind of leak, flagged fraction of an ordinary data set, and records per second.

    .venv/bin/python scripts/bench/decontaminate.py

The data are read from the folder WIZARDCODER_DATA. Recall is measured on problems of HumanEval (all 164) and MBPP (task ids 11
to 210), disguised as in tests/helpers/disguises.py. The flagged fraction is that of Code Alpaca 20k. Both are compared with all
benchmarks in the folder (3,245 problems). Near-duplicate removal is measured on Code Alpaca 20k.
"""

import importlib
import itertools
import os
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
from wizardcoder_jax.evol_instruct.near_duplicates import NearDuplicateFilter
from wizardcoder_jax.evol_instruct.seed_file import SeedFile

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WIZARDCODER_DATA", ROOT.parent / "shared" / "data"))
BENCHMARKS = {"HumanEval": ("humaneval/HumanEval.jsonl.gz", 0, 164), "MBPP": ("mbpp/mbpp.jsonl", 10, 210)}
CODE_ALPACA = "codealpaca/code_alpaca_20k.json.gz"


def main() -> None:
    """Print the recall, the flagged fraction and the speed."""
    sys.path.insert(0, str(ROOT))
    disguises = importlib.import_module("tests.helpers.disguises")
    start = time.process_time()
    contamination = ContaminationDetector(str(DATA))
    print(f"{contamination.num_problems} problems indexed in {time.process_time() - start:.1f} s CPU")
    for kind, shares in recalls(contamination, disguises.verbatim, disguises.disguised).items():
        print(f"  {kind:40s} " + "  ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    flag(contamination)
    repeat()


def recalls(contamination: ContaminationDetector, *ways: Callable[[dict[str, Any]], Any]) -> dict[str, dict[str, float]]:
    """Return the detected fraction of each kind of disguised leak, by benchmark."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name, (file, first, end) in BENCHMARKS.items():
        counts: Counter[str] = Counter()
        for _, problem in itertools.islice(read_records(DATA / file), first, end):
            for kind, text in itertools.chain.from_iterable(way(problem) for way in ways):
                counts[kind] += bool(contamination.find_matches(text))
        for kind, count in counts.items():
            found[kind][name] = count / (end - first)
    return found


def flag(contamination: ContaminationDetector) -> None:
    """Print the fraction of Code Alpaca that is flagged, the speed, and the peak memory."""
    texts = ["\n".join((r["instruction"], r["input"], r["output"])) for _, r in read_records(DATA / CODE_ALPACA)]
    start = time.process_time()
    hits = [found[0] for found in map(contamination.find_matches, texts) if found]
    seconds = time.process_time() - start
    tiers = ", ".join(f"{tier} {count}" for tier, count in Counter(hit.tier for hit in hits).most_common())
    print(f"Code Alpaca: {len(hits)} of {len(texts)} flagged ({len(hits) / len(texts):.2%}; {tiers})")
    print(f"  {len(texts) / seconds:.0f} records/s CPU, {seconds:.1f} s; peak memory {peak_mb():.0f} MB")


def repeat() -> None:
    """Print how many records of Code Alpaca are dropped as near-duplicates, and the speed."""
    seeds, filter_ = list(SeedFile(str(DATA / CODE_ALPACA))), NearDuplicateFilter(0.9)
    start = time.process_time()
    num_dropped = sum(filter_.check(seed) is not None for seed in seeds)
    rate = len(seeds) / (time.process_time() - start)
    print(f"near-duplicates: {num_dropped} of {len(seeds)} dropped at 0.9, {rate:.0f} records/s CPU")


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
