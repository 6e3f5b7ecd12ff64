"""Settings of evolve that control how instructions are evolved."""

import typing

import pytest

from wizardcoder_jax.config import EvolveConfig, Language
from wizardcoder_jax.config.command_line import parse_command_line
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct.languages import LANGUAGE_NAMES
from wizardcoder_jax.evol_instruct.methods import METHODS

pytestmark = pytest.mark.quick

REQUIRED = ["--seeds", "s.jsonl", "--output-dir", "out"]


def test_the_defaults_are_those_of_the_paper():
    config = parse_command_line(EvolveConfig, REQUIRED)
    assert (config.seeds_kind, config.breadth_rate, config.languages) == ("instructions", 0.0, ())
    assert config.method_weights == (1.0,) * len(METHODS)


def test_weights_and_languages_are_parsed_from_flags():
    flags = ["--method-weights", "1", "0.5", "2", "0", "1", "--languages", "python", "rust", "--breadth-rate", "0.2"]
    config = parse_command_line(EvolveConfig, [*REQUIRED, *flags])
    assert (config.method_weights, config.languages, config.breadth_rate) == ((1, 0.5, 2, 0, 1), ("python", "rust"), 0.2)


def test_every_language_of_the_settings_has_a_name():
    assert typing.get_args(Language) == tuple(LANGUAGE_NAMES)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--method-weights", "1", "1"], "5 numbers"),
        (["--method-weights", "0", "0", "0", "0", "0"], "one above 0"),
        (["--method-weights", "1", "1", "-1", "1", "1"], "0 or more"),
        (["--method-weights", "1", "1", "nan", "1", "1"], "0 or more"),
        (["--method-weights", "1", "1", "inf", "1", "1"], "0 or more"),
        (["--breadth-rate", "1.5"], "breadth_rate"),
        (["--breadth-rate", "nan"], "breadth_rate"),
        (["--languages", "pyhton"], "pyhton"),
        (["--languages", "rust", "go", "rust"], "repeated value"),
        (["--exports", "parquet", "parquet"], "repeated value"),
        (["--max-tokens", "-1"], "max_tokens"),
        (["--seeds-kind", "code"], "seeds-kind"),
    ],
)
def test_the_error_for_a_wrong_setting_is_one_line(flags, named):
    with pytest.raises(InputError, match=named) as caught:
        parse_command_line(EvolveConfig, [*REQUIRED, *flags])
    assert "\n" not in str(caught.value)


def test_a_preset_with_an_unknown_language_is_rejected():
    with pytest.raises(ValueError, match="known languages are python"):
        EvolveConfig(seeds="s", output_dir="o", languages=("klingon",))  # type: ignore[arg-type]
