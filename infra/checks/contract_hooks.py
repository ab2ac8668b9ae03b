"""What contract.py lets the generator know: how to sign in, and a job that is there."""

import json
import os
import re
import threading
import urllib.request
import uuid

import schemathesis

URL = os.environ["API_URL"]
PASSWORD = "correct horse battery staple"
# After these a token is worth nothing, so each has a login of its own.
ENDS_A_SESSION = [("POST", "/auth/logout"), ("POST", "/auth/change-password"), ("DELETE", "/auth/me")]


def call(method: str, path: str, body: dict | None = None, token: str | None = None) -> dict:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers, method=method), timeout=30) as answer:
        return json.load(answer)


def new_token() -> str:
    credentials = {"email": f"contract-{uuid.uuid4().hex}@example.org", "password": PASSWORD}
    call("POST", "/auth/register", credentials)
    return call("POST", "/auth/login", credentials)["access_token"]


class Login:
    """One account for all requests, so that what one makes another one finds."""

    def get(self, case, context):
        return os.environ["CONTRACT_TOKEN"]

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


class LoginOfItsOwn(Login):
    def get(self, case, context):
        return new_token()


def register() -> None:
    everywhere = schemathesis.auth(refresh_interval=None)
    only_here = schemathesis.auth(refresh_interval=None)
    for method, path in ENDS_A_SESSION:
        everywhere = everywhere.skip_for(method=method, path=path)
        only_here = only_here.apply_to(method=method, path=path)
    everywhere(Login)
    only_here(LoginOfItsOwn)

    @schemathesis.hook
    def map_path_parameters(context, path_parameters):
        """A random id that fits its schema names nothing: the job that is there takes its place."""
        parameters = dict(path_parameters or {})
        if re.fullmatch(r"job_[0-9a-f]{32}", str(parameters.get("id", ""))):
            parameters["id"] = os.environ["CONTRACT_JOB"]
            if re.fullmatch(r"[a-z0-9-]{1,59}\.m3u8", str(parameters.get("file", ""))):
                parameters["file"] = "index.m3u8"
        return parameters


if "CONTRACT_TOKEN" in os.environ:
    register()
