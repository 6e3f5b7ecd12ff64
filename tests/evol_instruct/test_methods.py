from collections import Counter

import pytest

from wizardcoder_jax.evol_instruct.methods import BREADTH, METHODS, draw_method

pytestmark = pytest.mark.quick


def test_methods_are_numbered_as_in_the_paper():
    assert [method.number for method in METHODS] == [1, 2, 3, 4, 5]


def test_the_prompt_ends_with_the_question_and_has_one_method_only():
    prompt = METHODS[3].prompt("Sort {a} list.")
    assert prompt.endswith("\n\nSort {a} list.")
    assert [method.text in prompt for method in METHODS] == [False, False, False, True, False]


def test_a_draw_depends_on_seed_record_and_round_only():
    draws = {(seed, name, round_): draw_method(seed, name, round_) for seed in (0, 1) for name in "abc" for round_ in (1, 2)}
    assert all(draw_method(*key) is method for key, method in reversed(draws.items()))
    # printf '0/seed-1/1/method' | sha256sum | cut -c1-16: 0x9aff40d0b80e5546 % 5 + 1
    assert draw_method(0, "seed-1", 1).number == int("9aff40d0b80e5546", 16) % 5 + 1


def test_draws_are_uniform():
    counts = Counter(draw_method(0, f"seed-{i}", 1).number for i in range(5000))
    assert all(900 < counts[number] < 1100 for number in range(1, 6))


def test_each_round_draws_another_method_for_a_record():
    assert any(draw_method(0, f"seed-{i}", 1) is not draw_method(0, f"seed-{i}", 2) for i in range(10))


def test_the_prompt_is_exactly_the_papers():
    assert METHODS[0].prompt("Sort.") == (
        "Please increase the difficulty of the given programming test question a bit.\n\n"
        "You can increase the difficulty using, but not limited to, the following methods:\n"
        "Add new constraints and requirements to the original problem, adding approximately 10 additional words.\n\n"
        "Sort."
    )


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (1, 2, 3, 4, 10), (0, 0, 7, 0, 0), (5e-3, 5e-3, 5e-3, 0, 5e-3)])
def test_methods_are_drawn_in_proportion_to_their_weights(weights):
    counts = Counter(draw_method(3, f"seed-{i}", 1, weights=weights).number for i in range(5000))
    for number, weight in enumerate(weights, start=1):
        expected = 5000 * weight / sum(weights)
        assert abs(counts[number] - expected) <= 4 * expected**0.5


def test_equal_weights_of_any_size_equal_the_default():
    ids = [f"seed-{i}" for i in range(200)]
    assert [draw_method(0, id_, 2, weights=(0.3,) * 5) for id_ in ids] == [draw_method(0, id_, 2) for id_ in ids]


def test_breadth_replaces_its_share_of_the_draws_and_does_not_change_the_others():
    ids = [f"seed-{i}" for i in range(2000)]
    drawn = [draw_method(0, id_, 1, breadth_rate=0.25) for id_ in ids]
    assert 420 < drawn.count(BREADTH) < 580
    assert all(method in (BREADTH, draw_method(0, id_, 1)) for id_, method in zip(ids, drawn, strict=True))
    assert {draw_method(0, id_, 1, breadth_rate=1) for id_ in ids} == {BREADTH}
    assert BREADTH not in {draw_method(0, id_, 1) for id_ in ids}


def test_breadth_asks_for_a_new_question_instead_of_a_harder_one():
    prompt = BREADTH.prompt("Sort {a} list.")
    assert prompt.endswith("\n\nSort {a} list.")
    assert "brand new" in prompt and "even more rare" in prompt and "increase the difficulty" not in prompt
