"""Of the table of published models: that it says what their own config.json say."""

import json

import pytest

from tests.helpers.shared_data import DATA_DIR
from wizardcoder_jax.models.families.config_json import read_arch
from wizardcoder_jax.models.families.published_sizes import PUBLISHED, published_arch

# In billions, as the models are named and their pages say; tables counted once where they are tied.
SIZES = {
    "135M": 0.1345,
    "1.3b": 1.346,
    "1b": 1.137,
    "3b": 3.04,
    "6.7b": 6.74,
    "7b": 6.74,
    "13b": 13.02,
    "34b": 33.74,
    "33b": 33.34,
}


@pytest.fixture(scope="module")
def published_configs():
    files = {file.stem: json.loads(file.read_text()) for file in (DATA_DIR / "hf_configs").glob("*.json")}
    if not files:
        pytest.skip("needs the shared data (WIZARDCODER_DATA): hf_configs")
    return files


def test_every_published_config_is_in_the_table_and_means_the_same_there(published_configs):
    for name, config in published_configs.items():
        ids = [hub_id for hub_id in PUBLISHED if hub_id.endswith(f"/{name}")]
        assert ids, name
        for hub_id in ids:
            assert published_arch(hub_id) == read_arch(config, name)


@pytest.mark.parametrize(
    "hub_id", [hub_id for hub_id in PUBLISHED if hub_id.split("/")[1].startswith(("Code", "deep", "Smol"))]
)
def test_a_model_has_about_the_parameters_that_its_name_says(hub_id):
    size = next(size for size in SIZES if f"-{size}" in hub_id)
    assert published_arch(hub_id).num_params == pytest.approx(SIZES[size] * 1e9, rel=0.01)


def test_the_table_leaves_nothing_to_be_noted(capsys):
    assert all(published_arch(hub_id) for hub_id in PUBLISHED)
    assert capsys.readouterr().err == ""


def test_a_model_that_is_not_in_the_table_is_none():
    assert published_arch("someone/starcoder") is None
