from collections import Counter

from wizardcoder_jax.instructions.methods import METHODS, draw_method


def test_methods_are_numbered_as_in_the_paper():
    assert [method.number for method in METHODS] == [1, 2, 3, 4, 5]


def test_the_prompt_ends_with_the_question_and_holds_one_method_only():
    prompt = METHODS[3].prompt("Sort {a} list.")
    assert prompt.endswith("\n\nSort {a} list.")
    assert [method.text in prompt for method in METHODS] == [False, False, False, True, False]


def test_a_draw_depends_on_seed_record_and_round_and_nothing_else():
    draws = {(seed, name, round_): draw_method(seed, name, round_) for seed in (0, 1) for name in "abc" for round_ in (1, 2)}
    assert all(draw_method(*key) is method for key, method in reversed(draws.items()))
    # printf '0/seed-1/1/method' | sha256sum | cut -c1-16: 0x9aff40d0b80e5546 % 5 + 1
    assert draw_method(0, "seed-1", 1).number == int("9aff40d0b80e5546", 16) % 5 + 1


def test_draws_are_uniform():
    counts = Counter(draw_method(0, f"seed-{i}", 1).number for i in range(5000))
    assert all(900 < counts[number] < 1100 for number in range(1, 6))


def test_a_record_draws_anew_in_each_round():
    assert any(draw_method(0, f"seed-{i}", 1) is not draw_method(0, f"seed-{i}", 2) for i in range(10))
