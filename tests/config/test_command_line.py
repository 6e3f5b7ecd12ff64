import dataclasses
import json
import sys
from pathlib import Path

import pytest

from wizardcoder_jax.config import EvaluateConfig, EvolveConfig, SampleConfig, TrainConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError

pytestmark = pytest.mark.quick

REPOSITORY = Path(__file__).parents[2]
TINY = str(REPOSITORY / "configs/tiny.py")


def status_of(monkeypatch, capsys, main, *args):
    """Exit status and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["command", *args])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    return stop.value.code, capsys.readouterr().err


def test_no_flags_give_the_defaults():
    assert parse_command_line(TrainConfig, []) == TrainConfig()
    assert TrainConfig().base == "bigcode/starcoder"
    assert (TrainConfig().batch_size, TrainConfig().optim.peak_lr, TrainConfig().num_steps) == (512, 2e-5, 200)


@pytest.mark.parametrize("args", [["--config", TINY], [f"--config={TINY}"]])
def test_a_preset_gives_values_and_flags_override_them(args):
    config = parse_command_line(TrainConfig, [*args, "--optim.peak-lr", "3e-4", "--base", "other"])
    assert (config.optim.peak_lr, config.base) == (3e-4, "other")
    assert (config.optim.warmup_steps, config.batch_size, config.compute_dtype) == (4, 8, "float32")


def test_flags_may_come_before_or_after_the_preset():
    before = parse_command_line(TrainConfig, ["--num-steps", "7", "--config", TINY])
    assert before == parse_command_line(TrainConfig, ["--config", TINY, "--num-steps", "7"])
    assert before.num_steps == 7


def test_lists_and_switches_are_parsed():
    config = parse_command_line(TrainConfig, ["--data", "a.jsonl", "b*.jsonl", "--overwrite", "--optim.clip-norm", "1"])
    assert (config.data, config.overwrite, config.optim.clip_norm) == (("a.jsonl", "b*.jsonl"), True, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(data=("a", "b"), optim=dataclasses.replace(TrainConfig().optim, clip_norm=1.0)),
        TrainConfig(),
        SampleConfig(model="m", output="o", benchmark="mini"),
        EvolveConfig(seeds="s", output_dir="o"),
        EvaluateConfig(benchmark="mini", samples="s"),
    ],
)
def test_a_written_config_json_can_be_used_as_a_preset(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    assert parse_command_line(type(config), ["--config", str(tmp_path / "config.json")]) == config


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.py", "config = 3", r"a\.py: this command needs `config` to be a TrainConfig, found int"),
        ("a.py", "", r"a\.py: this command needs `config` to be a TrainConfig, found NoneType"),
        ("a.py", "config = (", r"a\.py: "),
        ("a.py", "import no_such_module", r"a\.py: No module named 'no_such_module'"),
        ("a.py", "1 / 0", r"a\.py: .*division by zero"),
        ("a.py", "open('/no/such/file')", r"a\.py: .*No such file"),
        (
            "a.py",
            "from wizardcoder_jax.config import *\nconfig = TrainConfig(num_steps=0)",
            r"a\.py: num_steps must be at least 1",
        ),
        ("a.py", "from wizardcoder_jax.config import *\nconfig = EvolveConfig(seeds='', output_dir='')", "found EvolveConfig"),
        ("a.json", "{", r"a\.json has no valid TrainConfig"),
        ("a.json", "[]", r"a\.json has no valid TrainConfig"),
        ("a.json", '{"optim": 3}', r"a\.json has no valid TrainConfig"),
        ("a.json", '{"no_such_key": 3}', r"a\.json has no valid TrainConfig: .*no_such_key"),
        ("a.json", '{"num_steps": 0}', r"a\.json has no valid TrainConfig: num_steps must be at least 1, got 0"),
        ("a.toml", "", r"a\.toml is not a preset"),
    ],
)
def test_the_error_for_an_unusable_preset_names_it(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        parse_command_line(TrainConfig, ["--config", str(tmp_path / name)])
    assert "\n" not in str(caught.value)


def test_the_error_for_a_missing_preset_names_it():
    with pytest.raises(InputError, match=r"preset none\.py does not exist; the presets of this repository are in configs/"):
        parse_command_line(TrainConfig, ["--config", "none.py"])
    with pytest.raises(InputError, match="--config needs a preset file"):
        parse_command_line(TrainConfig, ["--config"])


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (InputError("x:1: bad"), 2, "error: x:1: bad\n"),
        (StoppedEarlyError("budget"), 75, "stopped: budget\n"),
        (KeyboardInterrupt(), 75, "stopped: interrupted; the same command resumes\n"),
        (OSError(28, "No space left on device", "out"), 1, "error: No space left on device: out\n"),
        (None, 0, ""),
    ],
)
def test_each_outcome_has_its_exit_status_and_one_line(monkeypatch, capsys, raised, status, line):
    def main(argv):
        if raised is not None:
            raise raised

    assert status_of(monkeypatch, capsys, main) == (status, line)


def test_an_unexpected_exception_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda argv: 1 / 0)
