"""Attempts that failed and may succeed later: what they say, and how long to wait."""

import datetime
import email.utils
import random

FIRST_DELAY_S = 0.5  # before the second attempt; doubles with each further one
MAX_DELAY_S = 60.0
MAX_RETRY_AFTER_S = 300.0  # a server that asks for longer is not waited for


class RetryableError(Exception):
    """An attempt failed, another may not.

    Attributes:
        retry_after_s: what the server asked to wait.
        throttled: whether the server asks for fewer requests, and nothing else is wrong.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, throttled: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.throttled = retry_after_s, throttled


def delay_s(attempt: int, retry_after_s: float | None) -> float:
    """How long to wait after the attempt of that number, from 1; what the server asked for, where it asked for any time."""
    if retry_after_s:
        return retry_after_s
    longest_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
    return longest_s * random.uniform(0.75, 1.0)  # jitter: callers that failed together do not come back together


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header (a number or a date) asks to wait."""
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if seconds == seconds else None  # "nan" is a float too
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
