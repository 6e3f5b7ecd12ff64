import pytest

from tests.helpers.browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One browser for all pages; a test that changes its window or preferences puts them back."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
