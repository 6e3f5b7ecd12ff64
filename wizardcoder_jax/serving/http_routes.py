"""HTTP routes of the server, and middleware that checks keys and hosts, reports errors and counts requests."""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.serving import chat_page, prometheus_metrics
from wizardcoder_jax.serving.admission import InferenceService
from wizardcoder_jax.serving.api_errors import ApiError, model_not_found, shutting_down
from wizardcoder_jax.serving.api_responses import ResponseBuilder
from wizardcoder_jax.serving.loopback import is_local_host_header
from wizardcoder_jax.serving.request_parsing import ParsedRequest, parse_request
from wizardcoder_jax.serving.streaming import TextDelta

logger = logging.getLogger(__name__)
READ_TIMEOUT_S = 60  # seconds to receive a whole request body
WRITE_TIMEOUT_S = 60  # seconds to send one chunk before the client counts as disconnected
CLIENT_CLOSED = 499  # status in the metrics for requests whose client has disconnected


def make_application(service: InferenceService, key: str | None, loopback_host: str | None = None) -> web.Application:
    """Return the aiohttp application of the server.

    Args:
        service: service that generates the answers.
        key: API key that clients must send for paths below /v1/; None if they need none.
        loopback_host: host that the server listens on, if only this machine can reach it. A Host header must then name this
            host or a loopback address. None accepts any Host header.
    """
    routes = _Routes(service)
    middlewares = [_count_requests(service), _report_errors(service), _check_host(loopback_host), _check_key(key)]
    application = web.Application(middlewares=middlewares, client_max_size=service.limits.max_body_bytes)
    application.add_routes(
        [
            web.get("/", chat_page.handle),
            web.get("/healthz", routes.health),
            web.get("/metrics", routes.metrics),
            web.get("/v1/models", routes.models),
            web.get("/v1/models/{name:.+}", routes.model),
            web.post("/v1/completions", routes.completions),
            web.post("/v1/chat/completions", routes.chat),
        ]
    )
    return application


class _Routes:
    def __init__(self, service: InferenceService) -> None:
        self._service = service

    async def health(self, request: web.Request) -> web.Response:
        if not self._service.is_ready:
            raise shutting_down()
        return web.json_response({"status": "ok"})

    async def metrics(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": prometheus_metrics.CONTENT_TYPE}
        return web.Response(body=self._service.metrics.text(), headers=headers)

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        served = self._service.served
        if request.match_info["name"] != served.name:
            raise model_not_found(request.match_info["name"], served.name)
        return web.json_response(self._model())

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, in_chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, in_chat=True)

    def _model(self) -> dict[str, object]:
        served = self._service.served
        details = {"created": self._service.created, "owned_by": "wizardcoder_jax", "max_model_len": served.max_length}
        return {"id": served.name, "object": "model", **details}

    async def _answer(self, request: web.Request, *, in_chat: bool) -> web.StreamResponse:
        service = self._service
        content = await _read_body(request)
        # Parse in a thread, because tokenizing a long prompt would block other requests.
        parsed = await asyncio.to_thread(parse_request, content, in_chat=in_chat, served=service.served)
        builder = ResponseBuilder(parsed, service.served.tokenizer, service.served.name)
        async with service.generate(parsed) as deltas:
            if parsed.stream:
                return await _stream(request, parsed, builder, deltas)
            async for delta in deltas:
                builder.add(delta)
        return web.json_response(builder.full_response())


async def _read_body(request: web.Request) -> bytes:
    # Pages of other sites cannot send this content type without a CORS preflight request, which this server rejects.
    if request.content_type != "application/json":
        message = "Content-Type must be application/json"
        raise ApiError(message, status=415, code="unsupported_media_type")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        message = "compressed request bodies are not supported; send the body without Content-Encoding"
        raise ApiError(message, status=415, code="unsupported_media_type")
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await request.read()
    except TimeoutError as error:
        raise ApiError(f"the request body did not arrive within {READ_TIMEOUT_S} s", status=408) from error


async def _stream(
    request: web.Request, parsed: ParsedRequest, builder: ResponseBuilder, deltas: AsyncIterator[TextDelta]
) -> web.StreamResponse:
    """Send the answers as server-sent events, one per chunk, and [DONE] at the end."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"})
    await response.prepare(request)

    async def send(event: str) -> None:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(f"data: {event}\n\n".encode())

    try:
        async for delta in deltas:
            for chunk in builder.add(delta):
                await send(json.dumps(chunk))
        if parsed.include_usage:
            await send(json.dumps(builder.usage_chunk()))
        await send("[DONE]")
    except (TimeoutError, ConnectionError):  # the client has stopped reading or has disconnected
        response.force_close()
        return response
    except Exception as error:  # the HTTP status has already been sent, so report the error in the stream
        await send(json.dumps(_log_internal_error(error).to_json()))
    await response.write_eof()
    return response


def _check_host(loopback_host: str | None) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        header = request.headers.get("Host", "")
        if loopback_host is not None and not is_local_host_header(header, loopback_host):
            message = f"Host header {header[:100]!r} is not allowed; this server only accepts {loopback_host} or localhost"
            raise ApiError(message, status=403, code="wrong_host")
        return await handler(request)

    return check


def _check_key(key: str | None) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if key is not None and request.path.startswith("/v1/"):
            scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
            is_equal = hmac.compare_digest(sent.strip().encode("utf-8", "surrogateescape"), key.encode())
            if scheme.lower() != "bearer" or not is_equal:
                message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
                raise ApiError(message, status=401, code="invalid_api_key")
        return await handler(request)

    return check


def _report_errors(service: InferenceService) -> Middleware:
    @web.middleware
    async def report(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            return _error_response(error)
        except InputError as error:
            return _error_response(ApiError(str(error)))
        except web.HTTPException as error:  # raised by aiohttp, e.g. for an unknown path or a wrong method
            if error.status < 400:
                raise
            return _error_response(_from_http_exception(error, service.limits.max_body_bytes), error)
        except web.RequestPayloadError as error:
            return _error_response(ApiError(f"the request body cannot be read: {' '.join(str(error).split())[:200]}"))
        except Exception as error:
            return _error_response(_log_internal_error(error))

    return report


def _count_requests(service: InferenceService) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"  # an unknown path must not become a label of the metrics
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            service.metrics.count_request(path, CLIENT_CLOSED)
            raise
        service.metrics.count_request(path, response.status)
        return response

    return count


def _error_response(error: ApiError, http_exception: web.HTTPException | None = None) -> web.Response:
    response = web.json_response(error.to_json(), status=error.status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if http_exception is not None and "Allow" in http_exception.headers:
        response.headers["Allow"] = http_exception.headers["Allow"]
    return response


def _from_http_exception(error: web.HTTPException, max_body_bytes: int) -> ApiError:
    messages = {
        404: "unknown path; supported: /v1/models, /v1/completions, /v1/chat/completions, /metrics, /healthz",
        405: "this path does not support this HTTP method; the Allow header lists the supported methods",
        413: f"the request body is longer than {max_body_bytes} bytes",
    }
    return ApiError(messages.get(error.status, error.reason), status=error.status)


def _log_internal_error(error: Exception) -> ApiError:
    """Log an unexpected error, and return the generic error to send to the client."""
    logger.error("a request failed", exc_info=error)
    return ApiError("internal server error; see the log of the server", status=500, kind="server_error")
