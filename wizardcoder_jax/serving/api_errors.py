"""What a client is told when its request cannot be answered: the error object of the OpenAI API."""

INVALID = "invalid_request_error"


class RefusalError(Exception):
    """A request is refused.

    Args:
        message: what is wrong, and how to mend it.
        status: of HTTP.
        kind: "type" of the error object.
        param: the key of the request that is wrong.
        code: for programs.
        retry_after_s: when it may be tried again.

    Source: the error object of OpenAI's API reference: message, type, param, code.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.param, self.code = message, status, kind, param, code
        self.retry_after_s = retry_after_s

    def to_json(self) -> dict[str, object]:
        """The body of the response."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def unavailable(reason: str) -> RefusalError:
    """The server answers nobody at present."""
    return RefusalError(reason, status=503, kind="server_error", code="unavailable", retry_after_s=5)
