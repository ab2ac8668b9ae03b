"""Keeps web pages from driving the emulator.

The emulator accepts any secret, answers many preflights with `*` and can run programs as the developer. Listening on
loopback does not keep a page in the developer's browser out, so every request passes here first. A request is refused

* when its `Host` is not a loopback name (DNS rebinding),
* when it has an `Origin` that is not one of the stack's AllowedOrigins,
* when it has no `Origin` but the browser says that another site made it, unless it reads something that carries its own
  proof: a presigned URL, or the HTTP API. So an `<img>` cannot call an AWS action, and a download link still works.

Programs (SDKs, curl, the functions) send neither `Origin` nor `Sec-Fetch-Site` and never notice.

A request that may pass is marked as having come by TLS, as one on AWS would be: the emulator holds to the stack's
bucket and queue policies, which refuse plain HTTP, and loopback needs no TLS.
"""

import ipaddress
import pathlib
from urllib.parse import parse_qsl

API_PREFIX = "/_aws/execute-api/"


def is_loopback(host_header: str) -> bool:
    """Whether a `Host` header names this machine's loopback interface."""
    host = host_header.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    else:
        host = host.partition(":")[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reads_with_proof(method: str, path: str, query: str) -> bool:
    """Whether a request only reads, and by a presigned URL or through the HTTP API."""
    if method not in ("GET", "HEAD"):
        return False
    if path.startswith(API_PREFIX):
        return True
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    return "X-Amz-Signature" in names


def as_over_tls(scope):
    """The request with the header that the load balancer in front of AWS sets."""
    kept = [header for header in scope["headers"] if header[0].lower() != b"x-forwarded-proto"]
    return {**scope, "headers": [*kept, (b"x-forwarded-proto", b"https")]}


class Guard:
    """The ASGI application that stands in front of the emulator's."""

    def __init__(self, inner, origins_file: pathlib.Path):
        self.inner = inner
        self.origins_file = origins_file
        self.read_at = None
        self.origins: frozenset[str] = frozenset()

    def allowed_origins(self) -> frozenset[str]:
        """The stack's AllowedOrigins; a deployment can change the file while we run. `*` is not honoured here."""
        try:
            changed_at = self.origins_file.stat().st_mtime_ns
        except FileNotFoundError:
            return frozenset()
        if changed_at != self.read_at:
            self.origins = frozenset(self.origins_file.read_text().split()) - {"*"}
            self.read_at = changed_at
        return self.origins

    def refusal(self, scope) -> str | None:
        """Why a request must not pass, or None."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not is_loopback(headers.get(b"host", "")):
            return "the Host header does not name this machine"
        origin = headers.get(b"origin")
        if origin is not None:
            return None if origin in self.allowed_origins() else f"the origin {origin} is not allowed"
        if headers.get(b"sec-fetch-site") in ("cross-site", "same-site"):
            method = scope.get("method", "")
            if not reads_with_proof(method, scope["path"], scope["query_string"].decode("latin-1")):
                return "a page of another site made this request"
        return None

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            await self.inner(scope, receive, send)
            return
        reason = self.refusal(scope)
        if reason is None:
            await self.inner(as_over_tls(scope), receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = f"refused: {reason}\n".encode()
            await send(
                {
                    "type": "http.response.start",
                    "status": 403,
                    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))],
                }
            )
            await send({"type": "http.response.body", "body": body})
