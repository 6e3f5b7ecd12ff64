"""Teachers, the models that evolve and answer instructions: on a server, in this process, or replayed from recorded answers."""

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.evol_instruct.teachers.teacher import Teacher
from wizardcoder_jax.llm_client.completion import Completion, Message

__all__ = ["Completion", "Message", "Teacher", "create_teacher"]


def create_teacher(config: TeacherConfig) -> Teacher:
    """Create the teacher described by `config`. Only kind "model" imports jax.

    Raises:
        InputError: the model, address, API key or file in `config` is not usable.
    """
    if config.kind == "model":
        from wizardcoder_jax.evol_instruct.local_teacher import ModelTeacher

        return ModelTeacher(config)
    if config.kind == "replay":
        from wizardcoder_jax.evol_instruct.teachers.replay_teacher import ReplayTeacher

        assert config.replay_file is not None  # TeacherConfig requires it
        return ReplayTeacher(config.replay_file)
    from wizardcoder_jax.evol_instruct.teachers.openai_teacher import OpenAITeacher

    return OpenAITeacher(config)
