"""One-line error messages for wrong command lines, in place of the boxes that tyro prints."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tyro import _errors as parse_errors  # a private API, so pyproject.toml limits tyro's version

SEE_HELP = "see --help"
_TYPE_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "True or False", types.NoneType: "None"}


class UsageError(Exception):
    """An invalid command line. The message is a single line."""


def reject(event: parse_errors.ParseErrorEvent, args: Sequence[str], options: Sequence[str]) -> None:
    """Raise a UsageError that describes what is wrong with the arguments.

    Args:
        event: tyro's reason for rejecting the arguments.
        args: the command's arguments.
        options: names of all options of the command, e.g. "--optim.peak-lr".
    """
    if isinstance(event, parse_errors.InstantiationFailure) and event.argument is None:
        raise UsageError(event.message)  # from __post_init__, which names the setting and its limits
    if isinstance(event, parse_errors.UnrecognizedArgs):
        raise UsageError(_see_help(_describe_unknown(event.tokens, args, options)))
    if isinstance(event, parse_errors.MissingArgs):
        unknown = _describe_unknown(event.unrecognized_tokens, args, options) if event.unrecognized_tokens else None
        raise UsageError(_see_help("; ".join(filter(None, [_describe_missing(event), unknown]))))
    if isinstance(event, parse_errors.MissingSubcommand):  # nested settings without a default, which only presets set
        raise UsageError(_see_help("missing required option --config (preset file)"))
    if isinstance(event, parse_errors.InvalidChoice):
        expected = f"one of {', '.join(event.choices)}"
        raise UsageError(_see_help(f"{_name(event.argument)} must be {expected}, got {event.value!r}"))
    if isinstance(event, parse_errors.BadValue):
        raise UsageError(_see_help(f"{_name(event.argument)} needs a value{_in_parentheses(event.argument)}"))
    if isinstance(event, parse_errors.InstantiationFailure):
        raise UsageError(_see_help(_describe_value(event, args)))


def _see_help(problem: str) -> str:
    return f"{problem} {SEE_HELP}" if problem.endswith("?") else f"{problem}; {SEE_HELP}"


def _name(argument: Any) -> str:
    return argument.lowered.name_or_flags[0]


def _in_parentheses(argument: Any) -> str:
    """Return the first part of an option's help text, e.g. " (instruction file)", or "" if it has none."""
    help_text = argument.field.helptext
    text = str((help_text() if callable(help_text) else help_text) or "")
    for end in (": ", "; ", " ("):
        text = text.partition(end)[0]
    return f" ({text})" if text else ""


def _describe_missing(event: parse_errors.MissingArgs) -> str:
    missing = [f"{_name(entry.arg)}{_in_parentheses(entry.arg)}" for entry in event.missing_arguments]
    return f"missing required option{'s' if len(missing) > 1 else ''} {', '.join(missing)}"


def _describe_unknown(tokens: Sequence[str], args: Sequence[str], options: Sequence[str]) -> str:
    """Describe arguments that belong to no option, without the values of unknown options."""
    unknown = [token.partition("=")[0] for token in tokens if token.startswith("-")]
    if not unknown:
        switch = next((arg.partition("=")[0] for arg in args if arg.startswith("--") and arg.endswith(f"={tokens[0]}")), None)
        if switch in options:
            return f"{switch} takes no value, got {tokens[0]!r}"
        return f"unexpected argument{'s' if len(tokens) > 1 else ''} {', '.join(map(repr, tokens))}"
    closest = list(dict.fromkeys(option for name in unknown if (option := _closest(name, options)) is not None))
    suggestion = f"; did you mean {' and '.join(closest)}?" if closest else ""
    return f"unknown option{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}{suggestion}"


def _closest(name: str, options: Sequence[str]) -> str | None:
    """Return the option that a misspelled name most likely means: one with a similar name, or a nested one that ends in it."""
    wanted = name.replace("_", "-")
    others = [option for option in options if option != wanted]
    nested = [option for option in others if "." in option and _last_part(option) == wanted.lstrip("-")]
    close = difflib.get_close_matches(wanted, others, n=1, cutoff=0.75)
    is_similar = bool(close) and bool(difflib.get_close_matches(_last_part(wanted), map(_last_part, close), cutoff=0.6))
    return next(iter(close if is_similar else nested), None)


def _last_part(option: str) -> str:
    """Return the name of an option without its section, e.g. "peak-lr" for "--optim.peak-lr"."""
    return option.lstrip("-").rpartition(".")[2]


def _describe_value(event: parse_errors.InstantiationFailure, args: Sequence[str]) -> str:
    """Describe a value that is not of its option's type."""
    assert event.argument is not None
    name, kind = _name(event.argument), event.argument.field.type_stripped
    values = _values(name, args)
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    wrong = [value for value in values if not _is_valid(kind, value)]
    if not wrong:
        return f"{name}: {' '.join(event.message.split())}"
    return f"{name} must be {_describe_type(kind)}, got {wrong[0]!r}"


def _values(name: str, args: Sequence[str]) -> list[str]:
    """Return the values that the arguments give to an option. If the option occurs several times, the last one counts."""
    values: list[str] = []
    is_inside = False
    for arg in args:
        flag, equals, value = arg.partition("=")
        if arg.startswith("--"):
            is_inside = flag.replace("_", "-") == name
            values = ([value] if equals else []) if is_inside else values
        elif is_inside:
            values.append(arg)
    return values


def _alternatives(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return typing.get_args(kind) if is_union else (kind,)


def _is_valid(kind: Any, value: str) -> bool:
    return any(_parses(alternative, value) for alternative in _alternatives(kind))


def _parses(kind: Any, value: str) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in map(str, typing.get_args(kind))
    if kind is types.NoneType:
        return value == "None"
    if kind is bool:
        return value in ("True", "False")
    try:
        kind(value)
    except (TypeError, ValueError):
        return False
    return True


def _describe_type(kind: Any) -> str:
    return " or ".join(_describe_alternative(alternative) for alternative in _alternatives(kind))


def _describe_alternative(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    return _TYPE_NAMES.get(kind, repr(kind))


def option_names(config_type: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of all options of a command, including those of nested settings."""
    hints = typing.get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        name = f"{prefix}{field.name.replace('_', '-')}"
        nested = next((kind for kind in _alternatives(hints[field.name]) if dataclasses.is_dataclass(kind)), None)
        if nested is not None:
            yield from option_names(nested, f"{name}.")
            continue
        yield f"--{name}"
        if hints[field.name] is bool:  # a switch that is on by default is turned off with "no-"
            yield f"--{prefix}no-{field.name.replace('_', '-')}"


def make_hook(args: Sequence[str], options: Sequence[str]) -> Callable[[parse_errors.ParseErrorEvent], None]:
    """Return a hook for tyro that raises a UsageError for rejected arguments."""
    return lambda event: reject(event, args, options)
