"""Settings of a model behind a server. evolve and sample share them."""

import dataclasses
from typing import ClassVar

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """An OpenAI-compatible server (OpenAI, vLLM, llama.cpp, ...) and the limits for its use."""

    section: ClassVar[str] = "server"  # prefix of these settings on the command line, e.g. --teacher.base-url

    base_url: str = "https://api.openai.com/v1"  # address of the server; the API key comes from OPENAI_API_KEY
    concurrency: int = 8  # number of concurrent requests
    timeout_s: float = 120.0  # seconds until a request times out
    max_attempts: int = 7  # maximum attempts per request, over about 30 s; HTTP 429 counts only if no other request is answered
    requests_per_minute: int | None = None  # maximum requests in any 60 s, including retries; None: no limit
    tokens_per_minute: int | None = None  # maximum tokens of prompts and answers in any 60 s; None: no limit
    usd_per_million_prompt_tokens: float = 0.0  # price of prompts, for cost limits and the cost report
    usd_per_million_completion_tokens: float = 0.0  # price of answers, for cost limits and the cost report

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts"):
            require(getattr(self, name) >= 1, f"{self.section}.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            require(limit is None or limit >= 1, f"{self.section}.{name} must be at least 1, got {limit}")
        for name in ("usd_per_million_prompt_tokens", "usd_per_million_completion_tokens"):
            require(getattr(self, name) >= 0, f"{self.section}.{name} must be >= 0, got {getattr(self, name)}")
        require(self.timeout_s > 0, f"{self.section}.timeout_s must be > 0, got {self.timeout_s}")

    @property
    def has_prices(self) -> bool:
        """Whether any price is set."""
        return self.usd_per_million_prompt_tokens > 0 or self.usd_per_million_completion_tokens > 0

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of a call in USD."""
        prompt_usd = prompt_tokens * self.usd_per_million_prompt_tokens
        return (prompt_usd + completion_tokens * self.usd_per_million_completion_tokens) / 1e6


def require_limits(flags: str, **limits: float | None) -> None:
    """Raise ValueError if a limit is negative; None means no limit. `flags` is the prefix of the names in messages."""
    for name, limit in limits.items():
        require(limit is None or limit >= 0, f"{flags}{name} must be >= 0, got {limit}")


def require_prices(server: ServerConfig, flags: str, max_usd: float | None) -> None:
    """Raise ValueError if there is a cost limit but no price. `flags` is the prefix of the limit's name in the message."""
    prices = f"--{server.section}.usd-per-million-prompt-tokens and --{server.section}.usd-per-million-completion-tokens"
    require(max_usd is None or server.has_prices, f"{flags}max_usd needs prices: {prices}")
