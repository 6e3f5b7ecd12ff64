"""The routes over HTTP: who may come in, what is answered, and how errors are told."""

import asyncio
import hmac
import json
import sys
import traceback
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.serving import chat_page, prometheus_metrics
from wizardcoder_jax.serving.admission import Service
from wizardcoder_jax.serving.api_errors import RefusalError, unavailable
from wizardcoder_jax.serving.api_responses import Reply
from wizardcoder_jax.serving.loopback import names_loopback
from wizardcoder_jax.serving.request_parsing import ParsedRequest, no_such_model, read_asked
from wizardcoder_jax.serving.streaming import Piece

READ_TIMEOUT_S = 60  # for a whole body
WRITE_TIMEOUT_S = 60  # for one piece, to a client that does not read
CLIENT_CLOSED = 499  # status under which requests are counted whose client went away


def make_application(service: Service, key: str | None, loopback_host: str | None = None) -> web.Application:
    """The server's application.

    Args:
        service: answers.
        key: that a client must show for /v1/; None for none.
        loopback_host: the host that is bound, where only this machine reaches it; requests must name it. None for any name.
    """
    routes = _Routes(service)
    middlewares = [_counting(service), _telling_errors(service), _naming(loopback_host), _admitting(key)]
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
    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, request: web.Request) -> web.Response:
        if self._service.is_draining or self._service.has_failed.is_set():
            raise unavailable("the server is about to end")
        return web.json_response({"status": "ok"})

    async def metrics(self, request: web.Request) -> web.Response:
        text = self._service.metrics.text(self._service.gauges())
        return web.Response(body=text.encode(), headers={"Content-Type": prometheus_metrics.CONTENT_TYPE})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        served = self._service.served
        if request.match_info["name"] != served.name:
            raise no_such_model(request.match_info["name"], served.name)
        return web.json_response(self._model())

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, in_chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, in_chat=True)

    def _model(self) -> dict[str, object]:
        served = self._service.served
        made = {"created": self._service.created, "owned_by": "wizardcoder_jax", "max_model_len": served.max_length}
        return {"id": served.name, "object": "model", **made}

    async def _answer(self, request: web.Request, *, in_chat: bool) -> web.StreamResponse:
        service = self._service
        content = await _read(request)
        # In a thread: a long prompt takes a while to be split into tokens.
        asked = await asyncio.to_thread(read_asked, content, in_chat=in_chat, served=service.served)
        reply = Reply(asked, service.served.tokenizer, service.served.name)
        async with service.answering(asked) as pieces:
            if asked.stream:
                return await _stream(request, asked, reply, pieces)
            async for piece in pieces:
                reply.add(piece)
        return web.json_response(reply.whole())


async def _read(request: web.Request) -> bytes:
    if request.content_type != "application/json":  # which a page of another site cannot send without being asked about it
        message = "Content-Type must be application/json"
        raise RefusalError(message, status=415, code="unsupported_media_type")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RefusalError("a compressed body is not supported", status=415, code="unsupported_media_type")
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await request.read()
    except TimeoutError as error:
        raise RefusalError(f"the body did not come within {READ_TIMEOUT_S} s", status=408) from error


async def _stream(request: web.Request, asked: ParsedRequest, reply: Reply, pieces: AsyncIterator[Piece]) -> web.StreamResponse:
    """Server-sent events: a chunk each, then [DONE]."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"})
    await response.prepare(request)

    async def send(event: str) -> None:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(f"data: {event}\n\n".encode())

    try:
        async for piece in pieces:
            for chunk in reply.add(piece):
                await send(json.dumps(chunk))
        if asked.include_usage:
            await send(json.dumps(reply.usage_chunk()))
        await send("[DONE]")
    except (TimeoutError, ConnectionError):  # the client does not read, or is gone
        response.force_close()
        return response
    except Exception as error:  # the status is sent: all that is left is to say so in the stream
        _print(error)
        await send(json.dumps(_internal().to_json()))
    await response.write_eof()
    return response


def _naming(loopback_host: str | None) -> Middleware:
    @web.middleware
    async def named(request: web.Request, handler: Handler) -> web.StreamResponse:
        header = request.headers.get("Host", "")
        if loopback_host is not None and not names_loopback(header, loopback_host):
            message = f"this server is for its own machine, by the name {loopback_host} or localhost, not {header[:100]!r}"
            raise RefusalError(message, status=403, code="wrong_host")
        return await handler(request)

    return named


def _admitting(key: str | None) -> Middleware:
    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if key is not None and request.path.startswith("/v1/"):
            scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
            is_right = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), key.encode())
            if scheme.lower() != "bearer" or not is_right:
                message = "no valid key; send it as Authorization: Bearer KEY"
                raise RefusalError(message, status=401, code="invalid_api_key")
        return await handler(request)

    return admit


def _telling_errors(service: Service) -> Middleware:
    @web.middleware
    async def tell(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusalError as refusal:
            return _told(refusal)
        except InputError as error:
            return _told(RefusalError(str(error)))
        except web.HTTPException as error:  # aiohttp's own: no such path, wrong method, too long a body
            if error.status < 400:
                raise
            return _told(_refusal_of(error, service.limits.max_body_bytes), error)
        except web.RequestPayloadError as error:
            return _told(RefusalError(f"the body cannot be read: {' '.join(str(error).split())[:200]}"))
        except Exception as error:
            _print(error)
            return _told(_internal())

    return tell


def _counting(service: Service) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"  # not the client's own words
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            service.metrics.requests[path, CLIENT_CLOSED] += 1
            raise
        service.metrics.requests[path, response.status] += 1
        return response

    return count


def _told(refusal: RefusalError, error: web.HTTPException | None = None) -> web.Response:
    response = web.json_response(refusal.to_json(), status=refusal.status)
    if refusal.retry_after_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error is not None and "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _refusal_of(error: web.HTTPException, max_body_bytes: int) -> RefusalError:
    messages = {
        404: "there is no such path; see /v1/models, /v1/completions, /v1/chat/completions, /metrics, /healthz",
        405: "this path has another method",
        413: f"the body is longer than {max_body_bytes} bytes",
    }
    return RefusalError(messages.get(error.status, error.reason), status=error.status)


def _internal() -> RefusalError:
    return RefusalError("the server failed; its log says why", status=500, kind="server_error")


def _print(error: Exception) -> None:
    sys.stderr.write("".join(traceback.format_exception(error)))
