import pytest

from tests.helpers.browser import Browser
from tests.helpers.result_files import results, write_json, write_problems, write_samples
from wizardcoder_jax.report import main


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A browser that all tests share."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def large_results_page(tmp_path_factory):
    """A page of 164 problems with 50 different samples each, which is far more than a page shows."""
    folder, tasks = tmp_path_factory.mktemp("large"), [f"T/{i}" for i in range(164)]
    problems = write_problems(folder / "problems.jsonl", tasks)
    content = write_json(folder / "a.json", results({task: [False, True] * 25 for task in tasks}))
    texts = {(task, i): (f"{i}" + "<&" * 600, f"{i}" + "<&" * 600) for task in tasks for i in range(50)}
    samples = write_samples(folder / "s.jsonl", texts)
    page = folder / "r.html"
    files = ["--results", str(content), "--samples", str(samples), "--benchmark-file", str(problems), "--output", str(page)]
    main(files)
    return page
