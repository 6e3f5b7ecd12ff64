"""Tokenizers of Hugging Face folders: tokenizer.json, special tokens, chat template."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox
import tokenizers
from tokenizers import processors

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_text

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_SENTENCEPIECE_SPACE = "\u2581"
_BYTE_NAME = re.compile("<0x([0-9A-F]{2})>")  # names of SentencePiece's byte tokens
_EXPORTED_SETTINGS = ("model_max_length", "padding_side", "truncation_side")  # keys of tokenizer_config.json


def _build_byte_decoder() -> dict[str, int]:
    """Return the mapping from the characters that byte-level tokenizers use to the bytes that they represent.

    Printable Latin-1 characters represent themselves. The other bytes are represented by the characters from U+0100 on.

    Source: openai/gpt-2 (src/encoder.py, bytes_to_unicode).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(0x100 + i): byte for i, byte in enumerate(others)}}


_BYTE_DECODER = _build_byte_decoder()


def _raise_template_error(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


class Tokenizer:
    """A tokenizer with its special tokens and chat template.

    Args:
        backend: the tokenizer of the `tokenizers` package.
        special_tokens: text of "eos_token" and, if they exist, of "bos_token", "unk_token" and "pad_token".
        chat_template: Jinja source, or None for a model without one.
        settings: further entries of tokenizer_config.json to export.

    Raises:
        InputError: there is no end-of-text token.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str],
        chat_template: str | None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._backend, self.special_tokens, self.chat_template = backend, dict(special_tokens), chat_template
        self._settings = dict(settings or {})
        self._backend.no_truncation()
        self._backend.no_padding()
        eos = self.special_tokens.get("eos_token")
        eos_id = backend.token_to_id(eos) if eos else None
        if eos_id is None:
            raise InputError(f"the tokenizer has no end-of-text token (eos_token={eos!r}); set it in tokenizer_config.json")
        self.eos_id: int = eos_id
        self._truncating: tokenizers.Tokenizer | None = None  # a copy with truncation, cached by encode_truncated
        self._template: jinja2.Template | None = None  # compiled on first use

    @property
    def eos_token(self) -> str:
        """Text of the end-of-text token."""
        return self.special_tokens["eos_token"]

    @property
    def bos_id(self) -> int | None:
        """Id of the begin-of-text token, or None."""
        return self._special_id("bos_token")

    @property
    def pad_id(self) -> int | None:
        """Id of the padding token, or None."""
        return self._special_id("pad_token")

    def _special_id(self, kind: str) -> int | None:
        text = self.special_tokens.get(kind)
        return None if text is None else self._backend.token_to_id(text)

    @property
    def vocab_size(self) -> int:
        """Largest token id plus one, including special tokens."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines how texts are encoded, and of the end-of-text id."""
        return hashlib.sha256(f"{self._backend.to_str()}\0{self.eos_id}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Encode `text` without adding special tokens."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts in parallel, without adding special tokens."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_truncated(self, texts: Sequence[str], max_length: int) -> list[tuple[list[int], bool]]:
        """Encode texts with the special tokens that the tokenizer adds (e.g. BOS), truncated to `max_length` ids in all.

        Equivalent to tokenizer(text, truncation=True, max_length=max_length) of transformers.

        Returns:
            The ids of each text, and whether it was truncated.
        """
        if self._truncating is None or (self._truncating.truncation or {}).get("max_length") != max_length:
            self._truncating = tokenizers.Tokenizer.from_str(self._backend.to_str())
            self._truncating.enable_truncation(max_length)
        encodings = self._truncating.encode_batch(list(texts), add_special_tokens=True)
        return [(encoding.ids, bool(encoding.overflowing)) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode `ids`, skipping special tokens and keeping all spaces."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def token_id(self, text: str) -> int | None:
        """Return the id of the token with this text, or None."""
        return self._backend.token_to_id(text)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token, which may be part of a character; for a special token, the bytes of its text."""
        name = self._backend.id_to_token(token) or ""
        if token in self._backend.get_added_tokens_decoder():
            return name.encode()
        if (byte := _BYTE_NAME.fullmatch(name)) is not None:
            return bytes([int(byte[1], 16)])
        if all(char in _BYTE_DECODER for char in name) and "ByteLevel" in repr(self._backend.decoder):
            return bytes(_BYTE_DECODER[char] for char in name)
        return name.replace(_SENTENCEPIECE_SPACE, " ").encode()

    def chat_prompt(self, message: str) -> str:
        """Return the prompt for a conversation with `message` as its only user turn.

        Raises:
            InputError: the model has no chat template, or rendering it fails.
        """
        return self.apply_chat_template([{"role": "user", "content": message}])

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Render the chat template for a conversation, up to the point where the assistant's next answer starts.

        Args:
            messages: messages with "role" ("system", "user" or "assistant") and "content".

        Raises:
            InputError: the model has no chat template, or rendering it fails.
        """
        if self.chat_template is None:
            raise InputError("this model has no chat template; use another --protocol, e.g. wizardcoder-humaneval-v1")
        try:
            if self._template is None:
                environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
                    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
                )
                environment.globals["raise_exception"] = _raise_template_error  # as in transformers
                self._template = environment.from_string(self.chat_template)
            return self._template.render(messages=messages, add_generation_prompt=True, **self.special_tokens)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise InputError(f"the model's chat template cannot be rendered: {error}") from error

    def with_chat_template(self, chat_template: str) -> "Tokenizer":
        """Return the tokenizer with another chat template."""
        return Tokenizer(self._backend, self.special_tokens, chat_template, self._settings)

    def with_pad_token(self, text: str | None) -> "Tokenizer":
        """Return the tokenizer with the padding token `text`, added if it is new. An existing padding token is kept."""
        if text is None or self.pad_id is not None:
            return self
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.add_special_tokens([text])
        return Tokenizer(backend, {**self.special_tokens, "pad_token": text}, self.chat_template, self._settings)

    def to_files(self) -> dict[str, str]:
        """Return the tokenizer files of a Hugging Face folder (name -> content), for transformers 4 and 5."""
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # with this class, both versions use tokenizer.json as it is
            "clean_up_tokenization_spaces": False,
            # Without this, transformers 4 also returns token_type_ids, whose embeddings GPTBigCode would add to the input.
            "model_input_names": ["input_ids", "attention_mask"],
            **self._settings,
            **self.special_tokens,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        return {
            "tokenizer.json": self._backend.to_str(),
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
            "special_tokens_map.json": json.dumps(self.special_tokens, indent=2, ensure_ascii=False) + "\n",
        }


def tokenizer_from_files(files: Mapping[str, str], location: str, eos_id: int | None) -> Tokenizer:
    """Load the tokenizer from the files of a Hugging Face folder.

    Args:
        files: name -> content; must include tokenizer.json.
        location: folder or checkpoint that contains the files, for messages.
        eos_id: the model's end-of-text id, used if the tokenizer files do not define the token.

    Raises:
        InputError: tokenizer.json is missing or malformed.
    """
    if "tokenizer.json" not in files:
        raise InputError(f"{location}: tokenizer.json is missing")
    try:
        backend = tokenizers.Tokenizer.from_str(files["tokenizer.json"])
        config = json.loads(files.get("tokenizer_config.json", "{}"))
        special = {name: _token_text(config[name]) for name in SPECIAL_TOKENS if config.get(name)}
        settings = {name: config[name] for name in _EXPORTED_SETTINGS if name in config}
        if additional := [_token_text(token) for token in _additional_special_tokens(config)]:
            settings["additional_special_tokens"] = additional
        if _adds_bos(config) and "bos_token" in special:
            _add_bos_to_post_processor(backend, special["bos_token"])
    except Exception as error:  # the tokenizers package raises bare Exception
        raise InputError(f"{location}: malformed tokenizer ({error})") from error
    if "eos_token" not in special and eos_id is not None and (eos := backend.id_to_token(eos_id)) is not None:
        special["eos_token"] = eos
    template = files.get("chat_template.jinja", config.get("chat_template"))
    return Tokenizer(backend, special, template if isinstance(template, str) else None, settings)


def _additional_special_tokens(config: dict[str, Any]) -> list[Any]:
    """Return the special tokens other than BOS, EOS, UNK and PAD, from the key of transformers 4 or 5."""
    tokens = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    return list(tokens.values()) if isinstance(tokens, dict) else list(tokens)


def _adds_bos(config: dict[str, Any]) -> bool:
    """Return whether transformers' class for this tokenizer adds the begin-of-text token regardless of tokenizer.json."""
    is_llama = "Llama" in str(config.get("tokenizer_class", ""))
    return bool(config.get("add_bos_token", True)) if is_llama else False


def _add_bos_to_post_processor(backend: tokenizers.Tokenizer, bos: str) -> None:
    """Make the tokenizer itself add the begin-of-text token, because the class in exported files does not add it."""
    bos_id = backend.token_to_id(bos)
    if bos_id is None or backend.encode("").ids[:1] == [bos_id]:
        return
    template = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bos_id)])
    previous = backend.post_processor
    backend.post_processor = template if previous is None else processors.Sequence([previous, template])  # type: ignore[assignment]


def _token_text(token: Any) -> str:
    text = token["content"] if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise ValueError(f"{token!r} is not a valid special token")
    return text


def tokenizer_from_folder(folder: str, eos_id: int | None) -> Tokenizer:
    """Load the tokenizer of a Hugging Face folder, local or gs://. Arguments and errors: see `tokenizer_from_files`."""
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    paths = {name: os.path.join(folder, name) for name in names}
    files = {name: read_text(path) for name, path in paths.items() if exists(path)}
    return tokenizer_from_files(files, folder, eos_id)
