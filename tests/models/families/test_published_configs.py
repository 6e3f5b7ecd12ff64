"""The table of published models agrees with the models' own config.json."""

import json

import pytest

from tests.helpers.shared_data import DATA_DIR
from wizardcoder_jax.core.logging_setup import configure_logging
from wizardcoder_jax.models.families.registry import PUBLISHED_CONFIGS, published_arch, read_arch

pytestmark = pytest.mark.quick

# Billions of parameters, as the models' names and pages state; tied tables are counted once.
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


def test_every_published_config_json_gives_the_architecture_in_the_table(published_configs):
    for name, config in published_configs.items():
        ids = [hub_id for hub_id in PUBLISHED_CONFIGS if hub_id.endswith(f"/{name}")]
        assert ids, name
        for hub_id in ids:
            assert published_arch(hub_id) == read_arch(config, name)


@pytest.mark.parametrize(
    "hub_id", [hub_id for hub_id in PUBLISHED_CONFIGS if hub_id.split("/")[1].startswith(("Code", "deep", "Smol"))]
)
def test_models_have_about_the_number_of_parameters_in_their_names(hub_id):
    size = next(size for size in SIZES if f"-{size}" in hub_id)
    assert published_arch(hub_id).num_params == pytest.approx(SIZES[size] * 1e9, rel=0.01)


def test_the_table_contains_no_unknown_keys(capsys):
    configure_logging()
    assert all(published_arch(hub_id) for hub_id in PUBLISHED_CONFIGS)
    assert capsys.readouterr().err == ""


def test_a_model_that_is_not_in_the_table_has_no_published_architecture():
    assert published_arch("someone/starcoder") is None
