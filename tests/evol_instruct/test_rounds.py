import asyncio
import collections
import contextlib
import dataclasses

import pytest

from tests.helpers.loopback_teacher import answer
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct.elimination_rules import INSTRUCTION_RULES, RESPONSE_RULES, Rule
from wizardcoder_jax.evol_instruct.evolution_prompt import EvolutionSampler
from wizardcoder_jax.evol_instruct.judges import INFORMATION_GAIN, Judge
from wizardcoder_jax.evol_instruct.methods import draw_method
from wizardcoder_jax.evol_instruct.record_evolver import RecordEvolver
from wizardcoder_jax.evol_instruct.records import Record, Rejection, Usage, seed_id
from wizardcoder_jax.evol_instruct.rounds import Rounds
from wizardcoder_jax.llm_client.completion import Completion
from wizardcoder_jax.llm_client.paid_calls import PaidAnswer

pytestmark = pytest.mark.quick


def seed(instruction, output="x = 1"):
    id_ = seed_id(instruction, output)
    return Record(
        id=id_, parent_id=None, seed_id=id_, round=0, method=None, instruction=instruction, output=output, teacher=None
    )


SEEDS = [seed(f"Write function number {i}.") for i in range(30)]


class RecordingTeacher:
    """A teacher that answers like the loopback server, or by `special`, and records the calls."""

    def __init__(self, special=None):
        self.calls, self._special = [], special or {}

    async def __call__(self, prompt, *, purpose, record_id, round_):
        self.calls.append((purpose, record_id, round_, prompt))
        text, finish_reason = self._special.get(purpose, answer)(prompt)
        completion = Completion(
            text=text, finish_reason=finish_reason, prompt_tokens=1, completion_tokens=2, model="loopback-1"
        )
        await asyncio.sleep(0)
        return PaidAnswer(completion, 0.5, f"{purpose}:{record_id}:{round_}")


def always(text, finish_reason="stop"):
    return lambda prompt: (text, finish_reason)


KIND = {"answer": always("def f(): pass"), "judge": always("Not Equal")}


@dataclasses.dataclass
class RoundResult:
    """The kept and the rejected records of one round, in the order of its pool; round 0 consists of the seeds."""

    pool_size: int = 0
    kept: tuple = ()
    rejected: tuple = ()


class MemoryStore:
    """A RoundStore in memory."""

    def __init__(self):
        self.results = []
        self.outcomes = collections.defaultdict(list)  # outcomes by round

    @contextlib.contextmanager
    def write_round(self, round_):
        assert round_ == len(self.results)
        result = RoundResult()
        self.outcomes[round_] = []

        def write(outcome):
            result.pool_size += 1
            self.outcomes[round_].append(outcome)
            if isinstance(outcome, Record):
                result.kept += (outcome,)
            else:
                result.rejected += (outcome,)

        yield write
        self.results.append(result)

    def pool(self, round_):
        slot = 0
        while True:
            seeds = [outcome for outcome in self.outcomes[0] if isinstance(outcome, Record)]
            if slot < len(seeds) and (round_ == 1 or slot < len(self.outcomes[round_ - 1])):
                line = [seeds[slot], *(self.outcomes[number][slot] for number in range(1, round_))]
                yield [outcome for outcome in line if isinstance(outcome, Record)][-1]
                slot += 1
            elif self.results and slot == len(seeds):
                return
            else:
                yield None

    def pool_size(self):
        return len(self.results[0].kept)


def run(call_teacher, seeds=SEEDS, rounds=1, concurrency=4, filters=(), **settings):
    store, evolver = MemoryStore(), RecordEvolver(call_teacher=call_teacher, sampler=EvolutionSampler(run_seed=0), **settings)
    rounds_ = Rounds(evolver=evolver, store=store, concurrency=concurrency, filters=filters)
    asyncio.run(rounds_.run(seeds, len(seeds), rounds))
    return store.results


def test_round_zero_consists_of_the_unchanged_seeds():
    assert run(RecordingTeacher(KIND))[0].kept == tuple(SEEDS)


def test_a_kept_record_has_its_lineage_and_its_usage():
    _, result = run(RecordingTeacher({**KIND, "evolve": always("  Harder.\n")}), SEEDS[:1])
    (record,) = result.kept
    assert (record.parent_id, record.seed_id, record.round) == (SEEDS[0].id, SEEDS[0].id, 1)
    assert record.method == draw_method(0, SEEDS[0].id, 1).number
    assert (record.instruction, record.output, record.teacher) == ("Harder.", "def f(): pass", "loopback-1")
    assert record.usage == Usage(prompt_tokens=3, completion_tokens=6, num_calls=3, usd=1.5)
    assert "no_information_gain" in record.filters and "sorry" in record.filters
    assert record.call_ids == tuple(f"{purpose}:{SEEDS[0].id}:1" for purpose in ("evolve", "answer", "judge"))


def test_the_answer_prompt_is_the_evolved_instruction_alone():
    ask = RecordingTeacher({**KIND, "evolve": always("Harder.")})
    run(ask, SEEDS[:1])
    assert [(purpose, round_) for purpose, _, round_, _ in ask.calls] == [("evolve", 1), ("answer", 1), ("judge", 1)]
    assert ask.calls[0][3] == draw_method(0, SEEDS[0].id, 1).prompt(SEEDS[0].instruction)
    assert ask.calls[1][3] == "Harder."
    assert SEEDS[0].instruction in ask.calls[2][3] and "Harder." in ask.calls[2][3]


def test_each_round_evolves_the_records_of_the_round_before():
    _, first, second = run(RecordingTeacher(KIND), rounds=2)
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
def test_a_failed_evolution_is_rejected_and_its_parent_evolves_again(special, rule, num_calls):
    ask = RecordingTeacher({**KIND, **special})
    _, first, second = run(ask, SEEDS[:1], rounds=2)
    assert not first.kept and not second.kept
    assert [rejection.rule for rejection in first.rejected + second.rejected] == [rule, rule]
    assert [rejection.record.parent_id for rejection in second.rejected] == [SEEDS[0].id]
    assert len(ask.calls) == 2 * num_calls
    assert first.rejected[0].record.usage.num_calls == num_calls
    for rejection in first.rejected:
        "".join(map(str, rejection.to_json().values())).encode("utf-8")


def test_the_judge_of_information_gain_is_optional():
    ask = RecordingTeacher({**KIND, "judge": always("Equal")})
    _, result = run(ask, SEEDS[:1], judges=())
    assert len(result.kept) == 1 and len(ask.calls) == 2
    assert "no_information_gain" not in result.kept[0].filters


def test_an_additional_rule_checks_seeds_instructions_and_responses():
    rule = Rule(name="no_seven", check=lambda candidate: "7" if "7" in candidate.latest_text else None)
    seeds = [seed("Add 7."), seed("Add 2.", "x + 7"), seed("Fine")]
    extra = {
        "instruction_rules": (*INSTRUCTION_RULES, rule),
        "response_rules": (*RESPONSE_RULES, rule),
        "seed_rules": (rule,),
    }
    zero, one = run(RecordingTeacher({**KIND, "evolve": always("Do 7.")}), seeds, **extra)
    assert [rejection.record.instruction for rejection in zero.rejected] == ["Add 7.", "Add 2."]
    assert zero.kept[0].filters == ("no_seven",)
    assert one.pool_size == 1 and one.rejected[0].rule == "no_seven"
    _, one = run(RecordingTeacher({**KIND, "evolve": always("Harder."), "answer": always("7")}), seeds, **extra)
    assert one.rejected[0].record.output == "7"


@pytest.mark.parametrize("concurrency", [2, 8, 100])
def test_results_do_not_depend_on_concurrency(concurrency):
    serial = run(RecordingTeacher(), rounds=3, concurrency=1)
    assert any(result.rejected for result in serial[1:])
    assert run(RecordingTeacher(), rounds=3, concurrency=concurrency) == serial


def test_an_error_of_the_teacher_ends_the_run():
    def broken(prompt):
        raise InputError("no answer")

    with pytest.raises(InputError, match="no answer"):
        run(RecordingTeacher({"answer": broken}))


def test_judges_run_in_order_and_their_calls_are_added_to_the_record():
    async def no_seven(candidate, ask_teacher):
        return (await ask_teacher(f"Seven? {candidate.latest_text}", "seven")).text

    ask = RecordingTeacher({**KIND, "seven": always("It has a 7.")})
    judges = (INFORMATION_GAIN, Judge(name="seven", check=no_seven))
    zero, one = run(ask, SEEDS[:1], judges=judges, seed_judges=())
    assert not zero.rejected
    assert [purpose for purpose, *_ in ask.calls] == ["evolve", "answer", "judge", "seven"]
    (rejection,) = one.rejected
    assert (rejection.rule, rejection.evidence) == ("seven", "It has a 7.")
    assert rejection.record.usage.num_calls == len(rejection.record.call_ids) == 4
    assert "no_information_gain" in rejection.record.filters


def test_judges_can_check_seeds():
    async def long_enough(candidate, ask_teacher):
        return None if (await ask_teacher(candidate.latest_text, "length")).text else "short"

    ask = RecordingTeacher({**KIND, "length": lambda prompt: ("" if prompt == "x" else "yes", "stop")})
    zero, one = run(ask, [seed("A", "x"), seed("B", "y")], seed_judges=(Judge(name="short", check=long_enough),))
    assert [rejection.record.instruction for rejection in zero.rejected] == ["A"]
    assert zero.kept[0].filters == ("short",) and zero.kept[0].usage.num_calls == 1
    assert one.pool_size == 1


def test_seeds_can_be_made_from_other_sources():
    async def made(source, ask_teacher):
        text = (await ask_teacher(source.id, "snippet")).text
        record = dataclasses.replace(seed(text), teacher="m")
        return record if text != "no" else Rejection(record=record, rule="unparsed", evidence="no")

    sources = [seed("one"), seed("two")]
    ask = RecordingTeacher({**KIND, "snippet": lambda prompt: ("no" if prompt == sources[0].id else "Do it.", "stop")})
    zero, one = run(ask, sources, make_seed=made)
    assert [rejection.rule for rejection in zero.rejected] == ["unparsed"]
    assert zero.rejected[0].record.usage.num_calls == 1
    assert zero.kept[0].instruction == "Do it." and zero.kept[0].call_ids == (f"snippet:{sources[1].id}:0",)
    assert one.kept[0].parent_id == zero.kept[0].id


class FirstOfItsLength:
    """A SequentialFilter that passes one record for each length of the instruction."""

    name = "same_length"

    def __init__(self):
        self.seen = {}

    def check(self, record):
        earlier = self.seen.get(len(record.instruction))
        if earlier is None:
            self.seen[len(record.instruction)] = record.id
        return earlier


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_sequential_filter_gets_the_records_in_the_order_of_the_pool(concurrency):
    def slowly(prompt):
        return prompt.split("\n\n")[2] + "!", "stop"

    ask = RecordingTeacher({**KIND, "evolve": slowly})
    seeds = [seed(text) for text in ("aa", "bb", "a", "cccc", "bbb")]
    zero, one, two = run(ask, seeds, 2, concurrency, filters=(FirstOfItsLength(),))
    assert [record.instruction for record in zero.kept] == ["aa", "a", "cccc", "bbb"]
    assert [(r.rule, r.evidence) for r in zero.rejected] == [("same_length", seeds[0].id)]
    assert zero.kept[0].filters == ("same_length",)
    assert [record.instruction for record in one.kept] == ["cccc!"]
    assert [record.record.instruction for record in one.rejected] == ["aa!", "a!", "bbb!"]
    assert [record.instruction for record in two.kept] == ["cccc!!"]


def test_a_round_starts_while_the_last_record_of_the_round_before_is_in_progress():
    last, reached = SEEDS[9], asyncio.Event()

    class BlockingTeacher(RecordingTeacher):
        async def __call__(self, prompt, *, purpose, record_id, round_):
            if record_id == last.id and round_ == 1:
                await asyncio.wait_for(reached.wait(), timeout=60)
            if round_ == 2:
                reached.set()
            return await super().__call__(prompt, purpose=purpose, record_id=record_id, round_=round_)

    _, one, two = run(BlockingTeacher(KIND), SEEDS[:10], rounds=2, concurrency=4)
    assert one.pool_size == two.pool_size == 10


def test_rounds_are_empty_if_all_seeds_are_rejected():
    refuse = Rule(name="none", check=lambda candidate: "no")
    zero, one, two = run(RecordingTeacher(KIND), rounds=2, seed_rules=(refuse,))
    assert len(zero.rejected) == len(SEEDS) and one.pool_size == two.pool_size == 0
