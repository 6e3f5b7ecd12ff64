"""The models that evolve instructions and answer them: a server, or answers recorded in a file."""

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.evol_instruct.teachers.teacher import Teacher
from wizardcoder_jax.llm_client.completion import Completion, Message

__all__ = ["Completion", "Message", "Teacher", "create_teacher"]


def create_teacher(config: TeacherConfig) -> Teacher:
    """The teacher that `config` describes, of kind "openai" or "replay"; a model is no matter of this room.

    Raises:
        InputError: its address, key or file is not usable.
    """
    if config.kind == "replay":
        from wizardcoder_jax.evol_instruct.teachers.replay_teacher import ReplayTeacher

        assert config.replay_file is not None  # TeacherConfig requires it
        return ReplayTeacher(config.replay_file)
    from wizardcoder_jax.evol_instruct.teachers.openai_teacher import OpenAITeacher

    return OpenAITeacher(config)
