import pytest
from loopback_teacher import answer

from wizardcoder_jax.clients.completion import Completion
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.instructions.methods import draw_method
from wizardcoder_jax.instructions.records import Record, Usage, seed_id
from wizardcoder_jax.instructions.rounds import Evolution, run_rounds
from wizardcoder_jax.instructions.rules import Rule


def seed(instruction, output="x = 1"):
    id_ = seed_id(instruction, output)
    return Record(
        id=id_, parent_id=None, seed_id=id_, round=0, method=None, instruction=instruction, output=output, teacher=None
    )


SEEDS = [seed(f"Write function number {i}.") for i in range(30)]


class Asked:
    """Answers as the loopback server does, or by `special`, and remembers the calls."""

    def __init__(self, special=None):
        self.calls, self._special = [], special or {}

    def __call__(self, prompt, *, purpose, record_id, round_):
        self.calls.append((purpose, record_id, round_, prompt))
        text, finish_reason = self._special.get(purpose, answer)(prompt)
        completion = Completion(
            text=text, finish_reason=finish_reason, prompt_tokens=1, completion_tokens=2, model="loopback-1"
        )
        return completion, Usage(prompt_tokens=1, completion_tokens=2, num_calls=1, usd=0.5)


def always(text, finish_reason="stop"):
    return lambda prompt: (text, finish_reason)


KIND = {"answer": always("def f(): pass"), "judge": always("Not Equal")}


def run(ask, seeds=SEEDS, rounds=1, concurrency=4, **settings):
    return list(run_rounds(Evolution(ask=ask, run_seed=0, **settings), seeds, rounds, concurrency=concurrency))


def test_round_zero_is_the_seeds_as_they_are():
    assert run(Asked(KIND))[0].kept == tuple(SEEDS)


def test_a_survivor_knows_its_lineage_and_its_cost():
    _, result = run(Asked({**KIND, "evolve": always("  Harder.\n")}), SEEDS[:1])
    (record,) = result.kept
    assert (record.parent_id, record.seed_id, record.round) == (SEEDS[0].id, SEEDS[0].id, 1)
    assert record.method == draw_method(0, SEEDS[0].id, 1).number
    assert (record.instruction, record.output, record.teacher) == ("Harder.", "def f(): pass", "loopback-1")
    assert record.usage == Usage(prompt_tokens=3, completion_tokens=6, num_calls=3, usd=1.5)
    assert "no_information_gain" in record.filters and "sorry" in record.filters


def test_the_response_is_asked_for_with_the_bare_evolved_instruction():
    ask = Asked({**KIND, "evolve": always("Harder.")})
    run(ask, SEEDS[:1])
    assert [(purpose, round_) for purpose, _, round_, _ in ask.calls] == [("evolve", 1), ("answer", 1), ("judge", 1)]
    assert ask.calls[0][3] == draw_method(0, SEEDS[0].id, 1).prompt(SEEDS[0].instruction)
    assert ask.calls[1][3] == "Harder."
    assert SEEDS[0].instruction in ask.calls[2][3] and "Harder." in ask.calls[2][3]


def test_each_round_evolves_what_the_round_before_left():
    _, first, second = run(Asked(KIND), rounds=2)
    assert [record.parent_id for record in second.kept] == [record.id for record in first.kept]
    assert [record.seed_id for record in second.kept] == [record.id for record in SEEDS]


@pytest.mark.parametrize(
    ("special", "rule", "num_calls"),
    [
        ({"evolve": always("")}, "empty", 1),
        ({"evolve": always("Hard", "length")}, "truncated", 1),
        ({"evolve": always("Harder \ud800")}, "not_utf8", 1),
        ({"answer": always("Sorry.")}, "sorry", 2),
        ({"answer": always("bad \udfff")}, "not_utf8", 2),
        ({"judge": always("Equal")}, "no_information_gain", 3),
    ],
)
def test_a_failed_evolution_is_dropped_and_its_parent_evolves_again(special, rule, num_calls):
    ask = Asked({**KIND, **special})
    _, first, second = run(ask, SEEDS[:1], rounds=2)
    assert not first.kept and not second.kept
    assert [rejection.rule for rejection in first.rejected + second.rejected] == [rule, rule]
    assert [rejection.record.parent_id for rejection in second.rejected] == [SEEDS[0].id]
    assert len(ask.calls) == 2 * num_calls
    assert first.rejected[0].record.usage.num_calls == num_calls
    for rejection in first.rejected:
        "".join(map(str, rejection.to_json().values())).encode("utf-8")


def test_judging_can_be_switched_off():
    ask = Asked({**KIND, "judge": always("Equal")})
    _, result = run(ask, SEEDS[:1], judge_information_gain=False)
    assert len(result.kept) == 1 and len(ask.calls) == 2
    assert "no_information_gain" not in result.kept[0].filters


def test_an_extra_rule_screens_seeds_instructions_and_responses():
    rule = Rule(name="no_seven", check=lambda candidate: "7" if "7" in candidate.newest else None)
    seeds = [seed("Add 7."), seed("Add 2.", "x + 7"), seed("Fine")]
    zero, one = run(Asked({**KIND, "evolve": always("Do 7.")}), seeds, extra_rules=(rule,))
    assert [rejection.record.instruction for rejection in zero.rejected] == ["Add 7.", "Add 2."]
    assert zero.kept[0].filters == ("no_seven",)
    assert one.pool_size == 1 and one.rejected[0].rule == "no_seven"
    _, one = run(Asked({**KIND, "evolve": always("Harder."), "answer": always("7")}), seeds, extra_rules=(rule,))
    assert one.rejected[0].record.output == "7"


@pytest.mark.parametrize("concurrency", [2, 8, 100])
def test_results_do_not_depend_on_concurrency(concurrency):
    serial = run(Asked(), rounds=3, concurrency=1)
    assert any(result.rejected for result in serial[1:])
    assert run(Asked(), rounds=3, concurrency=concurrency) == serial


def test_an_error_of_the_teacher_ends_the_run():
    def broken(prompt):
        raise InputError("no answer")

    with pytest.raises(InputError, match="no answer"):
        run(Asked({"answer": broken}))
