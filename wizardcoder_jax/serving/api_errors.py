"""Errors that the server sends to clients as error objects of the OpenAI API."""

INVALID_REQUEST = "invalid_request_error"


class ApiError(Exception):
    """An HTTP error response.

    Args:
        message: description of the problem and how to fix it.
        status: HTTP status.
        kind: "type" in the error object.
        param: key of the request body that is wrong.
        code: machine-readable reason.
        retry_after_s: seconds after which the client may try again.

    Source: the error object (message, type, param, code) in OpenAI's API reference.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.param, self.code = message, status, kind, param, code
        self.retry_after_s = retry_after_s

    def to_json(self) -> dict[str, object]:
        """Return the JSON body of the response."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def shutting_down() -> ApiError:
    """Return the error for requests that arrive while the server is shutting down."""
    return ApiError("the server is shutting down", status=503, kind="server_error", code="unavailable", retry_after_s=5)


def model_not_found(name: str, served_name: str) -> ApiError:
    """Return the error for a request that names a model other than the served one."""
    message = f"the model {name[:100]!r} is not served here; use {served_name!r}"
    return ApiError(message, status=404, param="model", code="model_not_found")
