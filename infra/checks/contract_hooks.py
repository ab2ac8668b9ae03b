"""What contract.py lets the generator know: how to sign in."""

import json
import os
import threading
import urllib.request
import uuid

import schemathesis

URL = os.environ["API_URL"]
PASSWORD = "correct horse battery staple"
# After these a token is worth nothing, so each has a login of its own.
ENDS_A_SESSION = [("POST", "/auth/logout")]


def post(path: str, body: dict) -> dict:
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def new_token() -> str:
    credentials = {"email": f"contract-{uuid.uuid4().hex}@example.org", "password": PASSWORD}
    post("/auth/register", credentials)
    return post("/auth/login", credentials)["access_token"]


class Login:
    """One account for all requests, so that what one makes another one finds."""

    token: str | None = None
    lock = threading.Lock()

    def get(self, case, context):
        with Login.lock:
            Login.token = Login.token or new_token()
            return Login.token

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


class LoginOfItsOwn(Login):
    def get(self, case, context):
        return new_token()


everywhere = schemathesis.auth(refresh_interval=None)
only_here = schemathesis.auth(refresh_interval=None)
for method, path in ENDS_A_SESSION:
    everywhere = everywhere.skip_for(method=method, path=path)
    only_here = only_here.apply_to(method=method, path=path)
everywhere(Login)
only_here(LoginOfItsOwn)
