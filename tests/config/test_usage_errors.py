"""The error for a wrong command line is one line with status 2, for every command and every kind of mistake."""

import dataclasses
import subprocess
import sys
import typing

import pytest

from tests.helpers.processes import REPOSITORY
from wizardcoder_jax import __main__ as program
from wizardcoder_jax import config as settings
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.usage_errors import option_names
from wizardcoder_jax.core.errors import InputError

pytestmark = pytest.mark.quick

CONFIGS = {
    "convert": settings.ConvertConfig,
    "decontaminate": settings.DecontaminateConfig,
    "evaluate": settings.EvaluateConfig,
    "evolve": settings.EvolveConfig,
    "export": settings.ExportConfig,
    "plan": settings.PlanConfig,
    "report": settings.ReportConfig,
    "reproduce": settings.ReproduceConfig,
    "sample": settings.SampleConfig,
    "serve": settings.ServeConfig,
    "train": settings.TrainConfig,
}
WORDS_OF_PARSERS = ("Traceback", "│", "╭", "helptext", "invalid literal", "Unrecognized", "instantiated", "class '", "\n")


def error_of(config_type, *args):
    """The message of the error that these arguments give."""
    with pytest.raises(InputError) as caught:
        parse_command_line(config_type, list(args))
    message = str(caught.value)
    assert not [word for word in WORDS_OF_PARSERS if word in message], message
    return message


def required(config_type):
    """Arguments that give every required option of a command a value of its type."""
    if config_type is settings.ReproduceConfig:
        return ["--config", str(REPOSITORY / "configs/demo.py")]
    fields = [field for field in dataclasses.fields(config_type) if field.default is field.default_factory]
    return [arg for field in fields for arg in (f"--{field.name.replace('_', '-')}", "x")]


def test_the_table_of_this_test_has_every_command():
    assert CONFIGS.keys() == program.list_commands().keys()


@pytest.mark.parametrize("config_type", CONFIGS.values(), ids=CONFIGS)
class TestEveryCommand:
    def test_missing_options_are_named_with_their_help(self, config_type):
        names = required(config_type)[::2]
        if not names or config_type is settings.ReproduceConfig:
            return
        message = error_of(config_type)
        assert message.startswith("missing required option")
        assert all(name in message for name in names) and message.endswith("; see --help")

    def test_an_unknown_option_is_named(self, config_type):
        assert error_of(config_type, *required(config_type), "--qqq", "3") == "unknown option --qqq; see --help"

    def test_a_misspelled_option_is_suggested(self, config_type):
        for name in ("--quiet", next(option_names(config_type))):
            message = error_of(config_type, *required(config_type), f"{name}x", "3")
            assert message == f"unknown option {name}x; did you mean {name}? see --help"

    def test_an_option_without_its_value_is_named(self, config_type):
        hints = typing.get_type_hints(config_type)
        for field in dataclasses.fields(config_type):
            if hints[field.name] in (str, int, float):
                name = f"--{field.name.replace('_', '-')}"
                message = error_of(config_type, *required(config_type), name)
                assert message.startswith(f"{name} needs a value") and message.endswith("; see --help")

    def test_a_value_of_the_wrong_type_is_named(self, config_type):
        kinds = {int: "an integer", float: "a number", int | None: "an integer or None", float | None: "a number or None"}
        hints = typing.get_type_hints(config_type)
        for field in dataclasses.fields(config_type):
            if hints[field.name] in kinds:
                name = f"--{field.name.replace('_', '-')}"
                message = error_of(config_type, *required(config_type), name, "x")
                alternatives = {f"{name} must be {kinds[hints[field.name]]}, got 'x'; see --help"}
                alternatives |= {line.replace(" or None", "").replace("be ", "be None or ") for line in alternatives}
                assert message in alternatives

    def test_a_value_that_is_not_a_choice_is_named_with_the_choices(self, config_type):
        hints = typing.get_type_hints(config_type)
        for field in dataclasses.fields(config_type):
            if typing.get_origin(hints[field.name]) is typing.Literal:
                name, choices = f"--{field.name.replace('_', '-')}", ", ".join(typing.get_args(hints[field.name]))
                message = error_of(config_type, *required(config_type), f"{name}=x")
                assert message == f"{name} must be one of {choices}, got 'x'; see --help"

    def test_an_argument_without_an_option_is_named(self, config_type):
        assert error_of(config_type, *required(config_type), "--quiet", "stray") == "unexpected argument 'stray'; see --help"

    def test_help_lists_the_options_that_all_commands_share(self, config_type, capsys):
        with pytest.raises(SystemExit) as stop:
            parse_command_line(config_type, ["--help"])
        assert not stop.value.code
        out = capsys.readouterr().out
        assert all(option in out for option in ("--config FILE", "--quiet", "--verbose"))
        writes = any(field.name == "overwrite" for field in dataclasses.fields(config_type))
        assert writes == ("--overwrite" in out) == (config_type is not settings.ServeConfig)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--overwrit"], "unknown option --overwrit; did you mean --overwrite? see --help"),
        (["--overwrite=1"], "--overwrite takes no value, got '1'; see --help"),
        (["--async-checkpoints"], "unknown option --async-checkpoints; did you mean --no-async-checkpoints? see --help"),
        (["--rank", "3"], "unknown option --rank; did you mean --lora.rank? see --help"),
        (["--optim.peak_lrr=3"], "unknown option --optim.peak_lrr; did you mean --optim.peak-lr? see --help"),
        (["--num_steps=x"], "--num-steps must be an integer, got 'x'; see --help"),
        (["--num-steps", "1", "--num-steps", "y"], "--num-steps must be an integer, got 'y'; see --help"),
        (["--optim.peak-lr", "x"], "--optim.peak-lr must be a number, got 'x'; see --help"),
        (["--optim.peak-lr", "0"], "optim.peak_lr must be > 0, got 0.0"),
        (["--lora.rank", "x"], "--lora.rank must be an integer or None, got 'x'; see --help"),
        (["--num-steps"], "--num-steps needs a value (number of optimizer steps); see --help"),
        (["--qqq", "3", "--zzz", "--num-steps", "7"], "unknown options --qqq, --zzz; see --help"),
        (["a", "b"], "unexpected arguments 'a', 'b'; see --help"),
        (
            ["--compute-dtype", "float16"],
            "compute_dtype float16 has too small a range for these models; use bfloat16, which has the same size",
        ),
        (["--batch-size", "10", "--accumulation", "4"], "batch_size 10 is not a multiple of accumulation 4"),
    ],
)
def test_mistakes_in_the_settings_of_train(args, message):
    assert error_of(settings.TrainConfig, *args) == message


def test_float16_is_rejected_with_the_reason():
    message = error_of(settings.TrainConfig, "--compute-dtype", "float16")
    assert message == "compute_dtype float16 has too small a range for these models; use bfloat16, which has the same size"


def test_mistakes_in_lists_name_the_wrong_value():
    needed = ["--seeds", "s", "--output-dir", "o"]
    weights = error_of(settings.EvolveConfig, *needed, "--method-weights", "1", "0.5", "much", "1", "1")
    assert weights == "--method-weights must be a number, got 'much'; see --help"
    exports = error_of(settings.EvolveConfig, *needed, "--exports", "parquet", "xml")
    assert exports == "--exports must be one of alpaca, messages, parquet, got 'xml'; see --help"


def test_missing_and_unknown_options_are_reported_together():
    message = error_of(settings.EvolveConfig, "--sedes", "s", "--output-dir", "o")
    expected = "missing required option --seeds (instruction file); unknown option --sedes; did you mean --seeds? see --help"
    assert message == expected


def test_a_command_that_needs_a_preset_asks_for_it():
    assert (
        error_of(settings.ReproduceConfig, "--output-dir", "o") == "missing required option --config (preset file); see --help"
    )


def test_a_usage_error_exits_with_status_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--overwrit"])
    with pytest.raises(SystemExit) as stop:
        run_command(lambda argv: parse_command_line(settings.TrainConfig, argv))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: unknown option --overwrit; did you mean --overwrite? see --help\n"


def run_program(monkeypatch, capsys, *args, executable="/usr/bin/wizardcoder"):
    """Exit status, stdout and stderr of the console script."""
    monkeypatch.setattr(sys, "argv", [executable, *args])
    with pytest.raises(SystemExit) as stop:
        program.main()
    return stop.value.code, *capsys.readouterr()


@pytest.mark.parametrize("args", [["--help"], ["-h"]])
def test_the_program_lists_its_commands(monkeypatch, capsys, args):
    status, out, err = run_program(monkeypatch, capsys, *args)
    assert (status, err) == (0, "")
    assert out.startswith("usage: wizardcoder COMMAND [OPTIONS]\n")
    for name, summary in program.list_commands().items():
        assert f"  {name} " in out and summary and summary in out


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ([], "missing command; choose one of convert, decontaminate, "),
        (["qqq"], "unknown command 'qqq'; choose one of convert, decontaminate, "),
        (["trian", "--help"], "unknown command 'trian'; did you mean train? see wizardcoder --help"),
    ],
)
def test_the_program_names_a_command_that_does_not_exist(monkeypatch, capsys, args, problem):
    status, out, err = run_program(monkeypatch, capsys, *args)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {problem}") and err.endswith("see wizardcoder --help\n") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("executable", "shown"),
    [("/usr/bin/wizardcoder", "wizardcoder train"), ("wizardcoder_jax/__main__.py", "python -m wizardcoder_jax train")],
)
def test_help_names_the_program_as_it_was_started(monkeypatch, capsys, executable, shown):
    monkeypatch.setitem(sys.modules, "__main__", program)
    status, out, _ = run_program(monkeypatch, capsys, "train", "--help", executable=executable)
    assert status == 0
    assert out.startswith(f"usage: {shown} [-h] [OPTIONS]\n")


def test_the_program_passes_arguments_and_status_on(monkeypatch, capsys):
    status, _, err = run_program(monkeypatch, capsys, "train", "--num-steps", "x")
    assert (status, err) == (2, "error: --num-steps must be an integer, got 'x'; see --help\n")


def test_the_list_of_commands_imports_no_library():
    code = (
        "import sys\nfrom wizardcoder_jax.__main__ import main\nsys.argv = ['wizardcoder', '--help']\n"
        "try: main()\nexcept SystemExit: print({'jax', 'tyro', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout.endswith("\nset()\n"), done.stderr
