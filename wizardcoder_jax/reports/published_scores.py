"""Scores that others have published, each with its protocol and source. Pages list them separately from measured scores."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedScore:
    """One published score: pass@1 in percent."""

    benchmark: str
    model: str
    score: float
    protocol: str
    source: str


_README = "WizardCoder README (nlpxucan/WizardLM @080166c)"
_README_HEAD = _README.replace("080166c", "cd4b4cc")
_TABLE = f"{_README}, table of open models"
_PAPER = "WizardCoder paper (arXiv 2306.08568)"
_COPIED = f"{_README}, figure; copied there from llm-humaneval-benchmarks"
_GPT4 = "GPT-4 technical report (arXiv 2303.08774), table 2"
_LEADERBOARD = "BigCode leaderboard of multilingual code models"
_PLUS = "EvalPlus leaderboard"
_T02 = "pass@1 from 20 samples or more, temperature 0.2"
_GREEDY = "greedy, one answer"
_DS1000 = "completion, 40 samples, temperature 0.2, top-p 0.5 (settings not verified)"

_OPEN = {  # model -> pass@1 on HumanEval and on MBPP (500 problems)
    "CodeGen-16B-Multi": (18.3, 20.9),
    "CodeGen-16B-Mono": (29.3, 35.3),
    "StarCoder-15B": (33.6, 43.6),
    "InstructCodeT5+": (35.0, None),
    "WizardCoder-15B-V1.0": (57.3, 51.8),
}
_CLOSED = {  # model -> pass@1 on HumanEval, method, source
    "Claude-Plus": (53.0, _GREEDY, _COPIED),
    "Bard": (44.5, _GREEDY, _COPIED),
    "GPT-3.5": (48.1, "0-shot, one answer", _GPT4),
    "GPT-3.5 (May 2023)": (72.6, _GREEDY, _PLUS),
    "GPT-4": (67.0, "0-shot, one answer", _GPT4),
    "GPT-4 (May 2023)": (88.4, _GREEDY, _PLUS),
}
_WIZARDCODER = {  # model -> pass@1 on HumanEval, HumanEval+ and MBPP+ (greedy)
    "WizardCoder-1B-V1.0": (23.8, None, None),
    "WizardCoder-3B-V1.0": (34.8, None, None),
    "WizardCoder-15B-V1.0": (59.8, 52.4, None),
    "WizardCoder-Python-34B-V1.0": (73.2, 64.6, 59.9),
    "WizardCoder-33B-V1.1": (79.9, 73.2, 66.9),
}
_MULTIPL_E = {"java": 35.8, "js": 41.9, "cpp": 39.0, "php": 39.3, "r": 22.5, "rust": 33.7}  # pass@1 of WizardCoder-15B-V1.0


def _rows() -> list[PublishedScore]:
    rows = []
    for model, (humaneval, mbpp) in _OPEN.items():
        rows.append(("humaneval", model, humaneval, _T02, _TABLE))
        rerun = "; re-run by the authors of WizardCoder" if model == "StarCoder-15B" else ""
        rows.append(("mbpp", model, mbpp, f"{_T02}, 500 test problems{rerun}", _TABLE))
    rows.append(("humaneval", "WizardCoder-Python-34B-V1.0", 71.5, _T02, _PAPER))
    rows.append(("mbpp", "WizardCoder-Python-34B-V1.0", 61.2, f"{_T02}, 500 test problems", _PAPER))
    for model, (humaneval, humaneval_plus, mbpp_plus) in _WIZARDCODER.items():
        rows.append(("humaneval", model, humaneval, _GREEDY, _README_HEAD))
        rows.append(("humaneval+", model, humaneval_plus, _GREEDY, _README_HEAD))
        tasks = "MBPP+ v0.1.0, 399 problems" if model == "WizardCoder-33B-V1.1" else "version of MBPP+ not stated"
        rows.append(("mbpp+", model, mbpp_plus, f"{_GREEDY}; {tasks}", _README_HEAD))
    rows += [("humaneval", model, *how) for model, how in _CLOSED.items()]
    rows += [("ds1000", "StarCoder-15B", 26.0, _DS1000, _PAPER), ("ds1000", "WizardCoder-15B-V1.0", 29.2, _DS1000, _PAPER)]
    how = "as the leaderboard measures (settings not verified)"
    rows += [(f"multipl-e-{name}", "WizardCoder-15B-V1.0", score, how, _LEADERBOARD) for name, score in _MULTIPL_E.items()]
    names = [field.name for field in dataclasses.fields(PublishedScore)]
    return [PublishedScore(**dict(zip(names, row, strict=True))) for row in rows if row[2] is not None]


PUBLISHED_SCORES = tuple(sorted(_rows(), key=lambda row: (row.benchmark, row.score)))
