"""The test of HumanEval+ and MBPP+ problems: its text goes into each test and runs inside the sandbox.

Compares a candidate with the reference on every input, as evalplus does: exactly, or within a tolerance where the problem
has one or the expected value is made of floats, or by an oracle of the problem's own. Standard library only.
Source: evalplus 0.3.1 (Apache-2.0): eval/__init__.py (comparison and time limits), eval/_special_oracle.py (oracles),
data/mbpp.py (types of inputs).
"""

import json
import math
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

RELATIVE_TOLERANCE = 1e-07  # as numpy.testing.assert_allclose
FLOAT_TOLERANCE = 1e-6  # of expected values made of floats, where the problem has none of its own
MIN_LIMIT_S, LIMIT_FACTOR = 1.0, 4.0  # a call may take so long, or so many times as long as the reference's
LOAD_FACTOR = 5.0  # these are wall-clock limits, and other programs run beside

NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")  # only whether a result is there counts
SAME_SET = (
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
)

TUPLES = (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809)
LISTS_OF_TUPLES = (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780)
FIRST_A_LIST_OF_TUPLES = (75, 413, 444, 753)
FIRST_A_TUPLE = (250, 405, 446, 617, 720, 763, 808)
TUPLES_OF_TUPLES = (259, 401, 445)
TUPLES_ALL_THE_WAY = (580, 615, 791)


class CallTimeout(BaseException):
    """A call took longer than its limit; no `except Exception` of a candidate catches this."""


def _all_tuples(value: Any) -> Any:
    return tuple(_all_tuples(part) for part in value) if isinstance(value, list) else value


def typed(number: int, arguments: list[Any]) -> Any:
    """The arguments of one call of the MBPP problem `number`, with the types that JSON does not have."""
    first: Any = arguments[0] if arguments else None
    if number in TUPLES:
        return [tuple(value) for value in arguments]
    if number in LISTS_OF_TUPLES:
        return [[tuple(part) for part in value] for value in arguments]
    if number in FIRST_A_LIST_OF_TUPLES:
        return [[tuple(part) for part in first], arguments[1]]
    if number in (106, 750):
        return [first, tuple(arguments[1])]
    if number == 115:
        return [[set(part) if isinstance(part, list) and part else {} for part in first]]
    if number == 124:
        return [float(first), complex(arguments[1])]
    if number in FIRST_A_TUPLE:
        return [tuple(first), arguments[1]]
    if number in TUPLES_OF_TUPLES:
        return [tuple(tuple(part) for part in value) for value in arguments]
    if number == 278:
        return [tuple(tuple(part) if isinstance(part, list) else part for part in first)]
    if number == 307:
        return [tuple(first), arguments[1], arguments[2]]
    if number == 722:
        return [{key: tuple(value) for key, value in first.items()}, *arguments[1:]]
    if number == 252:
        return [complex(first)]
    if number in TUPLES_ALL_THE_WAY:
        return _all_tuples(arguments)
    return arguments


def surface_area(base_edge: float, height: float) -> int:
    """MBPP/581, where the height is taken as the distance from the base to the apex."""
    slant_height = math.sqrt((base_edge / 2) ** 2 + height**2)
    return round(base_edge**2 + 4 * (base_edge * slant_height) / 2)


def digit_distance(first: Any, second: Any) -> int:
    """MBPP/558, where the shorter number is filled up with zeros."""
    width = max(len(str(first)), len(str(second)))
    digits = zip(str(first).zfill(width), str(second).zfill(width), strict=True)
    return sum(abs(int(one) - int(other)) for one, other in digits)


def polynomial(coefficients: list[float], x: float) -> float:
    """HumanEval/32: the value at x, which is to be near zero."""
    return sum(coefficient * math.pow(x, i) for i, coefficient in enumerate(coefficients))


def is_floats(value: Any) -> bool:
    """Whether a value is a float, or a list or tuple of nothing but floats."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(part, float) for part in value)
    return isinstance(value, float)


def is_close(value: Any, expected: Any, tolerance: float) -> bool:
    """numpy.allclose of numbers and of lists of equal shape; False for anything else."""
    if isinstance(value, list | tuple) and isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(is_close, value, expected, [tolerance] * len(value)))
    if not (isinstance(value, int | float | complex) and isinstance(expected, int | float | complex)):
        return False
    if value == expected:
        return True
    bound = tolerance + RELATIVE_TOLERANCE * abs(expected)
    return not math.isinf(bound) and abs(value - expected) <= bound


class Comparison:
    """Compares results of one run over inputs; once an expected value was made of floats, the tolerance stays."""

    def __init__(self, benchmark: str, entry_point: str, tolerance: float) -> None:
        self.benchmark, self.entry_point, self.tolerance = benchmark, entry_point, tolerance

    def holds(self, arguments: Any, value: Any, expected: Any) -> bool:
        """Whether a candidate's `value` for the arguments is correct, where the reference's is `expected`."""
        if self.benchmark == "humaneval" and self.entry_point == "find_zero":
            return abs(polynomial(arguments[0], value)) <= self.tolerance
        exact = self._exact(arguments, value, expected)
        if self.tolerance == 0 and is_floats(expected):
            self.tolerance = FLOAT_TOLERANCE
        if exact or self.tolerance == 0:
            return exact
        return type(value) is type(expected) and is_close(value, expected, self.tolerance)

    def _exact(self, arguments: Any, value: Any, expected: Any) -> bool:
        name = self.entry_point if self.benchmark == "mbpp" else None
        if name in SAME_SET:
            return set(value) == set(expected)
        if name in NOT_NONE:
            return value == expected if isinstance(value, bool) else expected == (value is not None)
        if value == expected or name == "are_equivalent":
            return True
        if name == "sum_div":
            return value == 0
        if name == "surface_Area":
            return abs(value - surface_area(*arguments)) <= self.tolerance
        return name == "digit_distance_nums" and value == digit_distance(*arguments)


def limited(function: Callable[..., Any], arguments: Any, limit_s: float) -> Any:
    """The function's result.

    Raises:
        CallTimeout: it takes longer than the limit.
    """

    def interrupt(*_: Any) -> None:
        raise CallTimeout(f"a call took longer than {limit_s:g} s")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def check_all(
    candidate: Callable[..., Any],
    benchmark: str,
    number: int,
    entry_point: str,
    reference: str,
    tolerance: float,
    inputs: str,
) -> None:
    """Compares the candidate with the reference on every input.

    Args:
        candidate: the tested function.
        benchmark: "humaneval" or "mbpp".
        number: of the problem within it.
        entry_point: name of the tested function.
        reference: source of a module that defines it.
        tolerance: absolute; 0 for exact comparison.
        inputs: JSON of [(label, argument lists)], e.g. "base" and "plus"; each list begins with fresh comparisons.

    Raises:
        AssertionError: a result is wrong; names the input.
        CallTimeout: a call takes far longer than the reference's.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    namespace: dict[str, Any] = {}
    exec(compile(reference, "<reference>", "exec"), namespace)
    # Parsed twice: a function may change its arguments.
    for (label, calls), (_, own_calls) in zip(json.loads(inputs), json.loads(inputs), strict=True):
        comparison = Comparison(benchmark, entry_point, tolerance)
        for i, call in enumerate(calls):
            arguments, own = (typed(number, one) if benchmark == "mbpp" else one for one in (call, own_calls[i]))
            start = time.perf_counter()
            expected = namespace[entry_point](*own)
            limit_s = LOAD_FACTOR * max(MIN_LIMIT_S, LIMIT_FACTOR * (time.perf_counter() - start))
            if benchmark == "mbpp" and entry_point in NOT_NONE:
                expected = expected is not None
            value = limited(candidate, arguments, limit_s)
            try:
                correct = comparison.holds(arguments, value, expected)
            except Exception as error:
                raise AssertionError(f"{label} input {i}: {type(error).__name__}: {error}") from None
            assert correct, f"{label} input {i}: got {repr(value)[:80]}, expected {repr(expected)[:80]}"
            del value, expected, arguments, own  # they can be big: not two calls' at once
