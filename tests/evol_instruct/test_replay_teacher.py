import asyncio
import json

import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct.teachers.replay_teacher import ReplayTeacher

pytestmark = pytest.mark.quick


def complete(teacher, messages):
    return asyncio.run(teacher.complete(messages, "draw"))


def recording(tmp_path, *entries):
    path = tmp_path / "teacher.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


def entry(prompt, content, **more):
    return {"messages": [{"role": "user", "content": prompt}], "content": content, **more}


def test_an_answer_is_found_by_its_exact_messages(tmp_path):
    usage = {"prompt_tokens": 4, "completion_tokens": 5}
    teacher = ReplayTeacher(
        recording(tmp_path, entry("a", "1", usage=usage, finish_reason="length", model="m"), entry("a ", "2"))
    )
    first = complete(teacher, [{"content": "a", "role": "user"}])
    assert (first.text, first.finish_reason, first.prompt_tokens, first.completion_tokens, first.model) == (
        "1",
        "length",
        4,
        5,
        "m",
    )
    assert complete(teacher, [{"role": "user", "content": "a "}]).text == "2"


def test_the_error_for_a_missing_answer_names_file_and_prompt(tmp_path):
    teacher = ReplayTeacher(recording(tmp_path, entry("a", "1")))
    with pytest.raises(InputError, match=r"teacher\.jsonl has no answer to 'Write x") as caught:
        complete(teacher, [{"role": "user", "content": "Write x" + "y" * 500 + "end"}])
    assert len(str(caught.value)) < 400 and "end'" in str(caught.value)


def test_an_edited_file_is_another_teacher(tmp_path):
    first = ReplayTeacher(recording(tmp_path, entry("a", "1"))).identity
    assert ReplayTeacher(recording(tmp_path, entry("a", "2"))).identity != first
    assert ReplayTeacher(recording(tmp_path, entry("a", "1"))).identity == first


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"content": "x"}, "messages"),
        ({"messages": [], "content": "x"}, "messages"),
        ({"messages": [{"role": "user"}], "content": "x"}, "messages"),
        (entry("a", None), "content"),
        (entry("a", "x", usage=3), "usage"),
        (entry("a", "x", usage={"prompt_tokens": "12"}), "usage"),
        (entry("a", "x", usage={"completion_tokens": -1}), "usage"),
        (entry("a", "x", finish_reason=1), "finish_reason"),
    ],
)
def test_the_error_for_a_malformed_recording_names_file_and_line(tmp_path, bad, named):
    with pytest.raises(InputError, match=rf"teacher\.jsonl:2: .*{named}"):
        ReplayTeacher(recording(tmp_path, entry("a", "1"), bad))
