"""The keys of a config.json, read with their types, and a verdict on those that nobody read.

A key that would change the maths must not be lost on the way, and one that would not must not stand in it. So a family reads
the keys that it knows; of the others some are known to change nothing, some speak of the computation and are refused unless
their value leaves it as it is, and the rest are passed over with a note.
"""

import re
from typing import Any, TypeVar

from wizardcoder_jax.core.errors import InputError

Value = TypeVar("Value")

_MOST = 2**30  # of anything that is counted

# Sizes of an implementation, hints to loaders, training and generation settings: what transformers 4 and 5 and the files on the
# hub hold besides the architecture. Dropout is in force neither in inference nor in the fine-tuning here.
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
# Another family's word for what this one reads under its own key; transformers overlooks it too.
_FOREIGN = {"activation_function", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "rms_norm_eps"}
# Words of the computation. A name of several words is taken apart at "_", ".", "-" and capitals.
_COMPUTATION = re.compile(
    r"scal(e|ing|ar)|multipl|soft(cap|max)|logit|rotar|alibi|norm|window|sliding|expert|router|bias|clip|clamp|att(n|ention)"
    r"|residual|factor|theta|quant|compress|adapter|activation|position|encoder_decoder|pruned|per_layer|layer_types|precision"
    r"|(^|_)(m?rope|qk|moe|mup|kv|gate|gating|cap|lora|mlp|ffn|sinks?|eps|epsilon|pct)(_|$)"
)
_ABSOLUTE = re.compile(r"att(n|ention)|query|qk|softmax")  # a number in place of 1/sqrt(head_dim): none is neutral for all
_OFF_AT_0 = re.compile(r"cap(_|ping|$)|expert|moe|clip|clamp|window")
_OFF_AT_1 = re.compile(r"scal(e|ing|ar)|multipl|factor|pct")


class ConfigFields:
    """A config.json, or an object inside it.

    Args:
        config: the parsed object.
        place: the file, for messages.
        prefix: what stands before the names of its keys in messages, "rope_scaling." inside that object.
    """

    def __init__(self, config: dict[str, Any], place: str, prefix: str = "") -> None:
        self._config, self._place, self._prefix, self._read = config, place, prefix, set[str]()

    def complaint(self, problem: str) -> InputError:
        """The error that says `problem` of this file."""
        return InputError(f"{self._place}: {problem}")

    def value(self, *keys: str) -> Any:
        """What stands under `keys`, which are names of one thing; None where there is none of them, or null.

        Raises:
            InputError: they disagree.
        """
        self._read.update(keys)
        found = [key for key in keys if self._config.get(key) is not None]
        for key in found[1:]:
            if self._config[key] != self._config[found[0]]:
                raise self.complaint(f"{self._shown(found[0])} and {self._shown(key)} disagree")
        return self._config[found[0]] if found else None

    def optional_count(self, *keys: str, least: int = 1, most: int = _MOST) -> int | None:
        """A whole number from `least` to `most`, or None where it is absent or null."""
        value = self.value(*keys)
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise self._wrong(keys, f"is no whole number from {least} to {most}")
        return value

    def count(self, *keys: str, default: int | None = None, least: int = 1, most: int = _MOST) -> int:
        """A whole number from `least` to `most`; required where there is no default."""
        found = self.optional_count(*keys, least=least, most=most)
        found = default if found is None else found
        if found is None:
            raise self.complaint(f"the key {self._prefix + keys[0]!r} is missing")
        return found

    def optional_number(self, key: str) -> float | None:
        """A finite number above 0, or None where it is absent or null."""
        value = self.value(key)
        if value is not None and (type(value) not in (int, float) or not 0 < value <= 1e300):  # a NaN is not, either
            raise self._wrong((key,), "is no finite number above 0")
        return None if value is None else float(value)

    def number(self, key: str, default: float) -> float:
        """A finite number above 0."""
        found = self.optional_number(key)
        return default if found is None else found

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.value(key)
        if value is not None and type(value) is not bool:
            raise self._wrong((key,), "is neither true nor false")
        return default if value is None else value

    def choice(self, *keys: str, table: dict[str, Value], default: str) -> Value:
        """What `table` has for the word that stands there."""
        word = self.value(*keys)
        word = default if word is None else word
        if not isinstance(word, str) or word not in table:
            raise self._wrong(keys, f"changes the maths and is not supported (only {', '.join(map(repr, table))})")
        return table[word]

    def only(self, key: str, supported: Any) -> None:
        """Checks that a setting has the one value that is supported, or is absent."""
        value = self.value(key)
        if value is not None and (type(value) is not type(supported) or value != supported):
            raise self._wrong((key,), f"changes the maths and is not supported (only {supported!r})")

    def token(self, key: str) -> int | None:
        """A token id, the first where there are several, or None."""
        value = self.value(key)
        first = (value[0] if value else None) if isinstance(value, list) else value
        if first is not None and (type(first) is not int or not 0 <= first <= _MOST):
            raise self._wrong((key,), "is no token id")
        return first

    def inner(self, key: str) -> "ConfigFields | None":
        """The object that stands there, or None where it is absent, null or empty."""
        value = self.value(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong((key,), "is no object")
        return ConfigFields(value, self._place, f"{self._prefix}{key}.") if value else None

    def judge_unread(self) -> list[str]:
        """The keys that nobody read and that change nothing as far as their names say, to be noted.

        Raises:
            InputError: a key changes the maths.
        """
        noted = []
        for key, value in self._config.items():
            if key in self._read or key in _INERT or _DROPOUT.search(key):
                continue
            name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower())
            speaks = key not in _FOREIGN and (self._prefix or _COMPUTATION.search(name))
            if speaks and not _is_neutral(name, value):
                raise self._wrong((key,), "changes the maths and is not supported")
            if not speaks and not key.startswith("_"):
                noted.append(_printable(key))
        return noted

    def _wrong(self, keys: tuple[str, ...], problem: str) -> InputError:
        key = next((key for key in keys if self._config.get(key) is not None), keys[0])
        return self.complaint(f"{self._shown(key)} {problem}")

    def _shown(self, key: str) -> str:
        value = repr(self._config.get(key))
        return f"{self._prefix}{_printable(key)}={value if len(value) < 60 else value[:57] + '...'}"


def _printable(key: str) -> str:
    return key if key.isprintable() and len(key) < 60 else repr(key[:60])


def _is_neutral(name: str, value: Any) -> bool:
    """Whether a setting of the computation that is not supported leaves it as it is."""
    if value is None or value is False or value in ("", [], {}):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float) or _ABSOLUTE.search(name):
        return False
    return (value == 0 and bool(_OFF_AT_0.search(name))) or (value == 1 and bool(_OFF_AT_1.search(name)))
