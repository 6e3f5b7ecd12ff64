"""Tokenizers as Hugging Face folders carry them: tokenizer.json, special tokens, chat template."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import tokenizers

from wizardcoder_jax.errors import InputError

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """Text to ids and back.

    Args:
        backend: the tokenizer proper.
        special_tokens: "eos_token" and, where they are, "bos_token", "unk_token", "pad_token" -> text.
        chat_template: Jinja source, or None for a model without one.

    Raises:
        InputError: there is no end-of-text token.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str], chat_template: str | None) -> None:
        self._backend, self.special_tokens, self.chat_template = backend, dict(special_tokens), chat_template
        self._backend.no_truncation()
        self._backend.no_padding()
        eos = self.special_tokens.get("eos_token")
        eos_id = backend.token_to_id(eos) if eos else None
        if eos_id is None:
            raise InputError(f"the tokenizer has no end-of-text token (eos_token={eos!r}); name it in tokenizer_config.json")
        self.eos_id: int = eos_id

    @property
    def vocab_size(self) -> int:
        """Ids in all, special tokens too: one more than the largest."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which ids a text has, and of the end-of-text id."""
        return hashlib.sha256(f"{self._backend.to_str()}\0{self.eos_id}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, nothing added."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out, spaces as they are."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def chat_prompt(self, message: str) -> str:
        """The prompt that asks `message` as the only user turn.

        Raises:
            InputError: the model has no chat template, or it fails.
        """
        if self.chat_template is None:
            raise InputError("this model has no chat template; use another --protocol, e.g. wizardcoder-humaneval-v1")
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        messages = [{"role": "user", "content": message}]
        try:
            template = environment.from_string(self.chat_template)
            return template.render(messages=messages, add_generation_prompt=True, **self.special_tokens)
        except jinja2.TemplateError as error:
            raise InputError(f"the model's chat template fails: {error}") from error

    def with_chat_template(self, chat_template: str) -> "Tokenizer":
        """The same tokenizer with another chat template."""
        return Tokenizer(self._backend, self.special_tokens, chat_template)

    def to_files(self) -> dict[str, str]:
        """The files of a Hugging Face folder, name -> text, that transformers 4 and 5 both load."""
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            **self.special_tokens,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        return {
            "tokenizer.json": self._backend.to_str(),
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
            "special_tokens_map.json": json.dumps(self.special_tokens, indent=2, ensure_ascii=False) + "\n",
        }


def tokenizer_from_files(files: Mapping[str, str], place: str, eos_id: int | None) -> Tokenizer:
    """The tokenizer in the files of a Hugging Face folder (name -> text).

    Args:
        files: at least tokenizer.json.
        place: where they come from, for messages.
        eos_id: the model's end-of-text id, for folders whose tokenizer does not name the token.

    Raises:
        InputError: tokenizer.json is missing or malformed.
    """
    if "tokenizer.json" not in files:
        raise InputError(f"{place}: tokenizer.json is missing")
    try:
        backend = tokenizers.Tokenizer.from_str(files["tokenizer.json"])
        config = json.loads(files.get("tokenizer_config.json", "{}"))
        special = {name: _token_text(config[name]) for name in SPECIAL_TOKENS if config.get(name)}
    except Exception as error:  # the tokenizers package raises bare Exception
        raise InputError(f"{place}: malformed tokenizer ({error})") from error
    if "eos_token" not in special and eos_id is not None and (eos := backend.id_to_token(eos_id)) is not None:
        special["eos_token"] = eos
    template = files.get("chat_template.jinja", config.get("chat_template"))
    return Tokenizer(backend, special, template if isinstance(template, str) else None)


def _token_text(token: Any) -> str:
    text = token["content"] if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise ValueError(f"{token!r} is no special token")
    return text


def tokenizer_from_folder(folder: str, eos_id: int | None) -> Tokenizer:
    """The tokenizer of a local Hugging Face folder; arguments and errors as for `tokenizer_from_files`."""
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    paths = {name: Path(folder, name) for name in names}
    try:
        files = {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.exists()}
    except UnicodeDecodeError as error:
        raise InputError(f"{folder}: malformed tokenizer ({error})") from error
    return tokenizer_from_files(files, folder, eos_id)
