"""A tiny model as the teacher of `evolve`, in the same process."""

import asyncio
import json

import pytest

from tests.helpers import tiny_models
from wizardcoder_jax import evolve
from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.core.errors import InputError, RefusedPromptError, StoppedEarlyError
from wizardcoder_jax.evol_instruct.local_teacher import ModelTeacher
from wizardcoder_jax.llm_client.completion import Completion

PROMPTS = [f"Add {i} and {i + 1}." for i in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.save_folder(tiny_models.llama(vocab_size=393), tmp_path_factory.mktemp("teacher") / "llama")


def config(folder, **changes):
    return TeacherConfig(
        **{"kind": "model", "model": str(folder), "max_tokens": 24, "max_length": 200, "batch_size": 3, **changes}
    )


def ask(teacher_config, prompts, draw="0", num_late=0):
    """Return the completion of each prompt; the last `num_late` prompts are sent only after the first answer."""

    async def ask_one(teacher, prompt):
        return await teacher.complete([{"role": "user", "content": prompt}], draw)

    async def ask_all():
        teacher = ModelTeacher(teacher_config)
        try:
            split = len(prompts) - num_late
            tasks = [asyncio.create_task(ask_one(teacher, prompt)) for prompt in prompts[:split]]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            tasks += [asyncio.create_task(ask_one(teacher, prompt)) for prompt in prompts[split:]]
            return await asyncio.gather(*tasks)
        finally:
            await teacher.aclose()

    return asyncio.run(ask_all())


def test_an_answer_depends_on_its_prompt_and_draw_but_not_on_other_requests(folder):
    together = ask(config(folder), PROMPTS)
    assert ask(config(folder), PROMPTS[::-1], num_late=5) == together[::-1]
    assert ask(config(folder), PROMPTS[4:5]) == together[4:5]
    assert len({completion.text for completion in together}) > len(PROMPTS) // 2
    assert [completion.text for completion in ask(config(folder), PROMPTS[:3], draw="1")] != [
        completion.text for completion in together[:3]
    ]


def test_a_completion_reports_its_length_and_whether_it_was_cut_off(folder):
    for completion in ask(config(folder, max_tokens=5), PROMPTS):
        assert isinstance(completion, Completion)
        assert completion.completion_tokens <= 5 and completion.prompt_tokens > 20
        assert completion.finish_reason == "length" or completion.completion_tokens < 5
        assert completion.model == "llama"


def test_a_prompt_that_is_too_long_is_refused_and_others_are_answered(folder):
    async def ask_both():
        teacher = ModelTeacher(config(folder))
        messages = [[{"role": "user", "content": text}] for text in ("x" * 500, "Add.")]
        try:
            return await asyncio.gather(*(teacher.complete(each, "0") for each in messages), return_exceptions=True)
        finally:
            await teacher.aclose()

    too_long, fits = asyncio.run(ask_both())
    assert isinstance(too_long, RefusedPromptError) and isinstance(fits, Completion)


def test_the_teacher_can_be_closed_while_answers_are_in_progress(folder):
    async def leave():
        teacher = ModelTeacher(config(folder))
        asking = [asyncio.create_task(teacher.complete([{"role": "user", "content": text}], "0")) for text in PROMPTS]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        for task in asking:
            task.cancel()
        await asyncio.wait_for(teacher.aclose(), timeout=300)

    asyncio.run(leave())


def test_an_unusable_model_is_reported_before_anything_is_written(folder, tmp_path):
    with pytest.raises(InputError, match=r"teacher.max_length 100000 exceeds"):
        ModelTeacher(config(folder, max_length=100000))
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"instruction": "A", "output": "b"}\n')
    named = ["--seeds", str(seeds), "--output-dir", str(tmp_path / "out"), "--teacher.kind", "model"]
    with pytest.raises(InputError, match="missing"):
        evolve.main([*named, "--teacher.model", str(tmp_path / "missing")])
    assert not (tmp_path / "out").exists()


def test_evolve_with_a_local_teacher_is_deterministic_and_resumes(folder, tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": prompt, "output": "x"}) + "\n" for prompt in PROMPTS))

    def run(name, *more):
        named = ["--seeds", str(seeds), "--output-dir", str(tmp_path / name), "--rounds", "2", "--teacher.kind", "model"]
        named += ["--teacher.model", str(folder), "--teacher.max-tokens", "12", "--teacher.max-length", "250"]
        evolve.main([*named, *more])
        return [(tmp_path / name / file).read_bytes() for file in ("evolved.jsonl", "rejected.jsonl")]

    expected = run("one", "--teacher.batch-size", "4")
    assert run("two", "--teacher.batch-size", "4") == expected
    with pytest.raises(StoppedEarlyError, match="--max-requests 7"):
        run("cut", "--teacher.batch-size", "4", "--max-requests", "7")
    assert run("cut", "--teacher.batch-size", "4") == expected
    rejected = [json.loads(line) for line in expected[1].decode().split("\n") if line]
    assert {entry["round"] for entry in rejected} == {1, 2}
