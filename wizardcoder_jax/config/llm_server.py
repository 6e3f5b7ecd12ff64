"""Settings of asking a model behind a server, which evolve and sample share."""

import dataclasses
from typing import ClassVar

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """An OpenAI-compatible server (OpenAI, vLLM, llama.cpp, ...) and how hard it is pressed."""

    section: ClassVar[str] = "server"  # where these settings stand on the command line, e.g. --teacher.base-url

    base_url: str = "https://api.openai.com/v1"  # of the server; its key comes from OPENAI_API_KEY
    concurrency: int = 8  # requests in flight
    timeout_s: float = 120.0  # per request
    max_attempts: int = 7  # per request, over about 30 s, on 429, 5xx and timeouts; a 429 counts only while nobody is answered
    requests_per_minute: int | None = None  # never more in any 60 s, retries included; None for no limit
    tokens_per_minute: int | None = None  # of prompts and answers, never more in any 60 s; None for no limit
    usd_per_million_prompt_tokens: float = 0.0  # price, for a limit on money and the cost report
    usd_per_million_completion_tokens: float = 0.0  # price, for a limit on money and the cost report

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
        """The price of so many tokens."""
        prompt_usd = prompt_tokens * self.usd_per_million_prompt_tokens
        return (prompt_usd + completion_tokens * self.usd_per_million_completion_tokens) / 1e6


def require_limits(flags: str, **limits: float | None) -> None:
    """Raises ValueError where a limit (None for none) is below 0; `flags` is what its name begins with."""
    for name, limit in limits.items():
        require(limit is None or limit >= 0, f"{flags}{name} must be >= 0, got {limit}")


def require_prices(server: ServerConfig, flags: str, max_usd: float | None) -> None:
    """Raises ValueError where money is limited and no prices say what a call costs."""
    prices = f"--{server.section}.usd-per-million-prompt-tokens and --{server.section}.usd-per-million-completion-tokens"
    require(max_usd is None or server.has_prices, f"{flags}max_usd needs prices: {prices}")
