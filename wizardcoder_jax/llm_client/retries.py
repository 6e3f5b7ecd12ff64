"""Errors that are worth a retry, and the delay before the next attempt."""

import datetime
import email.utils
import random

FIRST_DELAY_S = 0.5  # delay before the second attempt; doubles with each further attempt
MAX_DELAY_S = 60.0
MAX_RETRY_AFTER_S = 300.0  # longest accepted pause; if a server asks for a longer one, the run stops and can be resumed


class RetryableError(Exception):
    """An attempt failed, but another one may succeed.

    Attributes:
        retry_after_s: seconds of the pause that the server asked for, if any.
        throttled: whether the attempt failed only because of the server's rate limit (HTTP 429).
    """

    def __init__(self, message: str, retry_after_s: float | None = None, throttled: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.throttled = retry_after_s, throttled


def retry_delay_s(attempt: int, retry_after_s: float | None) -> float:
    """Return the seconds to wait after a failed attempt.

    Args:
        attempt: number of the failed attempt, from 1.
        retry_after_s: seconds of the pause that the server asked for; if there is one, it is returned.
    """
    if retry_after_s:
        return retry_after_s
    max_delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
    return max_delay_s * random.uniform(0.75, 1.0)  # jitter keeps callers from retrying all at once


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds to wait according to a Retry-After header (a number or a date); None if it is missing or invalid."""
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if seconds == seconds else None  # "nan" parses as a float
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
