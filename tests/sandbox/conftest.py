import pytest

from tests.helpers.sandbox_runs import TIERS, open_or_skip


@pytest.fixture(scope="module")
def sandbox():
    opened = open_or_skip("bubblewrap")
    yield opened
    opened.stop()


@pytest.fixture(scope="module", params=TIERS)
def each_tier(request):
    opened = open_or_skip(request.param)
    yield opened
    opened.stop()
