"""Settings of serve."""

import dataclasses

from wizardcoder_jax.config.field_checks import Dtype, default_cache_dir, require, require_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a model: OpenAI-compatible API and chat page. Set WIZARDCODER_API_KEY to require a key."""

    model: str  # checkpoint folder, Hugging Face folder, hub id or .gguf file
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0 accepts connections from other machines
    port: int = 8000  # port to listen on; 0: any free port
    served_name: str | None = None  # name of the model for clients; default: the last part of --model
    max_length: int | None = None  # maximum tokens of prompt and answer; default: 2048, or the model's context if shorter
    batch_size: int = 16  # number of answers generated concurrently
    max_queue: int = 256  # maximum number of waiting answers; further requests get HTTP 429
    max_body_bytes: int = 4 * 2**20  # maximum size of a request in bytes
    drain_s: float = 30.0  # seconds for answers in progress to finish when the server shuts down
    mesh: str = "1x1"  # device mesh: DATAxMODEL
    compute_dtype: Dtype = "float32"  # dtype of weights, activations and KV cache
    int8_weights: bool = False  # store the blocks' kernels in int8: half the size of bfloat16, slightly less accurate
    cache_dir: str = dataclasses.field(default_factory=default_cache_dir)  # folder of compiled programs

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"port must be from 0 to 65535, got {self.port}")
        require(self.max_length is None or self.max_length >= 2, f"max_length must be at least 2, got {self.max_length}")
        require(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        require(self.max_queue >= 0, f"max_queue must be at least 0, got {self.max_queue}")
        require(self.max_body_bytes >= 1, f"max_body_bytes must be at least 1, got {self.max_body_bytes}")
        require(0 <= self.drain_s < float("inf"), f"drain_s must be a number >= 0, got {self.drain_s}")
        require(self.served_name != "", "served_name is empty; remove it, or give a name")
        require_range("compute_dtype", self.compute_dtype)
