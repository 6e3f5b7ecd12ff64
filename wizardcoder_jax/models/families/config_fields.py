"""Typed reading of config.json, and a check of the keys that were not read.

An unknown key must not be ignored if it changes the model's computation, and must not stop the import if it does not. A family
reads the keys that it knows. Some other keys are known to have no effect. Keys whose names refer to the computation are
rejected, unless their value leaves it unchanged. All remaining keys are ignored and reported to the caller.
"""

import re
from typing import Any, TypeVar

from wizardcoder_jax.core.errors import InputError

Value = TypeVar("Value")

_MAX_COUNT = 2**30  # larger than any size or token id of a real model

# Keys that transformers 4 and 5 or files on the hub contain and that do not affect the model: implementation details, hints to
# loaders, and settings of training and generation. Our inference and fine-tuning do not use the dropout in config.json.
_INERT = frozenset(
    """
    architectures auto_map bos_token_id cls_token_id dtype eos_token_id model_type name_or_path pad_token_id sep_token_id
    tokenizer_class torch_dtype transformers_version unk_token_id use_cache
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
    _experts_implementation _experts_implementation_internal _flash_attn_2_enabled _name_or_path attn_implementation
    experts_implementation use_flash_attention use_flash_attention_2 use_flash_attn
    attention_softmax_in_fp32 scale_attention_softmax_in_fp32 reorder_and_upcast_attn residual_in_fp32
    initializer_range initializer_factor init_std gradient_checkpointing keys_to_ignore_at_inference pretraining_tp
    inference_runner max_batch_size max_sequence_length pad_key_length pre_allocate_kv_cache runner_max_sequence_length
    validate_runner_input n_ctx model_max_length original_max_position_embeddings chunk_size_feed_forward
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    finetuning_task id2label label2id num_labels problem_type task_specific_params prefix is_decoder is_llama_config
    output_attentions output_hidden_states return_dict tf_legacy_loss tie_encoder_decoder tie_last_hidden_states torchscript
    use_bfloat16 transformers.js_config neftune_noise_alpha router_aux_loss_coef unsloth_fixed unsloth_version
    max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature
    top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    encoder_repetition_penalty bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
    forced_eos_token_id decoder_start_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens epsilon_cutoff eta_cutoff num_assistant_tokens num_assistant_tokens_schedule
    assistant_confidence_threshold assistant_lookbehind target_lookbehind
    """.split()  # noqa: SIM905
)
_DROPOUT = re.compile(r"dropout|pdrop")
# Keys under which other families store a setting that the model's own family stores under another key. transformers ignores
# them too.
_FOREIGN = {"activation_function", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "rms_norm_eps"}
# Words that mark a key as affecting the computation. Keys are split into words at "_", ".", "-" and capitals.
_COMPUTATION = re.compile(
    r"scal(e|ing|ar)|multipl|soft(cap|max)|logit|rotar|alibi|norm|window|sliding|expert|router|bias|clip|clamp|att(n|ention)"
    r"|residual|factor|theta|quant|compress|adapter|activation|position|encoder_decoder|pruned|per_layer|layer_types|precision"
    r"|(^|_)(m?rope|qk|moe|mup|kv|gate|gating|cap|lora|mlp|ffn|sinks?|eps|epsilon|pct)(_|$)"
)
_ABSOLUTE = re.compile(r"att(n|ention)|query|qk|softmax")  # may replace 1/sqrt(head_dim), so no value is neutral
_OFF_AT_0 = re.compile(r"cap(_|ping|$)|expert|moe|clip|clamp|window")
_OFF_AT_1 = re.compile(r"scal(e|ing|ar)|multipl|factor|pct")


class ConfigFields:
    """The keys of a config.json, or of an object inside it.

    Args:
        config: the parsed object.
        location: name of the file, for messages.
        prefix: prefix of the keys in messages, e.g. "rope_scaling." for the keys of that object.
    """

    def __init__(self, config: dict[str, Any], location: str, prefix: str = "") -> None:
        self._config, self._location, self._prefix, self._read = config, location, prefix, set[str]()

    def error(self, problem: str) -> InputError:
        """Return an InputError that reports `problem` in this file."""
        return InputError(f"{self._location}: {problem}")

    def value(self, *keys: str) -> Any:
        """Return the value under `keys`, which are alternative names of one setting; None if all are absent or null.

        Raises:
            InputError: two of the names have different values.
        """
        self._read.update(keys)
        found = [key for key in keys if self._config.get(key) is not None]
        for key in found[1:]:
            if self._config[key] != self._config[found[0]]:
                raise self.error(f"{self._shown(found[0])} and {self._shown(key)} disagree")
        return self._config[found[0]] if found else None

    def optional_count(self, *keys: str, minimum: int = 1, maximum: int = _MAX_COUNT) -> int | None:
        """Return the integer under `keys`, or None if it is absent or null. An integer out of bounds is an InputError."""
        value = self.value(*keys)
        if value is not None and (type(value) is not int or not minimum <= value <= maximum):
            raise self._invalid(keys, f"must be a whole number from {minimum} to {maximum}")
        return value

    def count(self, *keys: str, default: int | None = None, minimum: int = 1, maximum: int = _MAX_COUNT) -> int:
        """Return the integer under `keys`, which must be within the bounds. Without a default, the key is required."""
        found = self.optional_count(*keys, minimum=minimum, maximum=maximum)
        found = default if found is None else found
        if found is None:
            raise self.error(f"the key {self._prefix + keys[0]!r} is missing")
        return found

    def optional_number(self, key: str) -> float | None:
        """Return the finite number above 0 under `key`, or None if it is absent or null."""
        value = self.value(key)
        if value is not None and (type(value) not in (int, float) or not 0 < value <= 1e300):  # NaN fails too
            raise self._invalid((key,), "must be a finite number above 0")
        return None if value is None else float(value)

    def number(self, key: str, default: float) -> float:
        """Return the finite number above 0 under `key`, or the default."""
        found = self.optional_number(key)
        return default if found is None else found

    def flag(self, key: str, default: bool) -> bool:
        """Return the boolean under `key`, or the default."""
        value = self.value(key)
        if value is not None and type(value) is not bool:
            raise self._invalid((key,), "must be true or false")
        return default if value is None else value

    def choice(self, *keys: str, table: dict[str, Value], default: str) -> Value:
        """Return the entry of `table` for the string under `keys`, or for the default string."""
        name = self.value(*keys)
        name = default if name is None else name
        if not isinstance(name, str) or name not in table:
            raise self._invalid(keys, f"changes the computation and is not supported (only {', '.join(map(repr, table))})")
        return table[name]

    def require(self, key: str, supported: Any) -> None:
        """Check that `key` is absent or has the value `supported`, since no other value is supported."""
        value = self.value(key)
        if value is not None and (type(value) is not type(supported) or value != supported):
            raise self._invalid((key,), f"changes the computation and is not supported (only {supported!r})")

    def token_id(self, key: str) -> int | None:
        """Return the token id under `key` (of a list, the first), or None if there is none."""
        value = self.value(key)
        first = (value[0] if value else None) if isinstance(value, list) else value
        if first is not None and (type(first) is not int or not 0 <= first <= _MAX_COUNT):
            raise self._invalid((key,), "is not a token id")
        return first

    def nested(self, key: str) -> "ConfigFields | None":
        """Return the object under `key`, or None if it is absent, null or empty."""
        value = self.value(key)
        if value is not None and not isinstance(value, dict):
            raise self._invalid((key,), "must be a JSON object")
        return ConfigFields(value, self._location, f"{self._prefix}{key}.") if value else None

    def check_unread(self) -> list[str]:
        """Check the keys that have not been read.

        Returns:
            Unknown keys that can be ignored, judging by their names.

        Raises:
            InputError: a key changes the model's computation, judging by its name and value.
        """
        ignored = []
        for key, value in self._config.items():
            if key in self._read or key in _INERT or _DROPOUT.search(key):
                continue
            name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower())
            is_computation = key not in _FOREIGN and (self._prefix or _COMPUTATION.search(name))
            if is_computation and not _is_neutral(name, value):
                raise self._invalid((key,), "changes the computation and is not supported")
            if not is_computation and not key.startswith("_"):
                ignored.append(_printable(key))
        return ignored

    def _invalid(self, keys: tuple[str, ...], problem: str) -> InputError:
        key = next((key for key in keys if self._config.get(key) is not None), keys[0])
        return self.error(f"{self._shown(key)} {problem}")

    def _shown(self, key: str) -> str:
        value = repr(self._config.get(key))
        return f"{self._prefix}{_printable(key)}={value if len(value) < 60 else value[:57] + '...'}"


def _printable(key: str) -> str:
    return key if key.isprintable() and len(key) < 60 else repr(key[:60])


def _is_neutral(name: str, value: Any) -> bool:
    """Return whether the value of an unsupported setting leaves the computation unchanged."""
    if value is None or value is False or value in ("", [], {}):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float) or _ABSOLUTE.search(name):
        return False
    return (value == 0 and bool(_OFF_AT_0.search(name))) or (value == 1 and bool(_OFF_AT_1.search(name)))
