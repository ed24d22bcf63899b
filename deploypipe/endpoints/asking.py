"""HTTP requests to a server that somebody else runs; what is wrong with it is one line."""

from collections.abc import Mapping
from typing import Any

import httpx

from deploypipe.client import is_here
from deploypipe.errors import ServingError, UsageError, first_line

TIMEOUT = 60.0
"""Seconds for one answer: a server may load its model for the first request."""
BUSY = (429, 502, 503, 504)
_SIGN_IN = "Give what it wants with --header, as in --header 'Authorization: Bearer TOKEN'."


class Asker:
    """A server's address, and the headers that go with each request. A context manager.

    ServingError where nobody answers, where the server wants a credential or sends us elsewhere; UsageError for what is
    no address.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float = TIMEOUT) -> None:
        self.url = url.rstrip("/")
        try:
            # A proxy of the environment has no business between us and this machine.
            self._http = httpx.Client(headers=dict(headers), timeout=timeout, trust_env=not is_here(url))
        except (httpx.InvalidURL, ValueError) as cause:
            raise UsageError(f"{url!r} is no address of a server, or a header is none: {first_line(cause)}") from cause

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        return self._ask("GET", path)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        return self._ask("POST", path, content=body, headers=dict(headers))

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, f"{self.url}{path}", **request)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as cause:
            raise UsageError(f"{self.url!r} is no address of a server", "Write it with http:// or https://.") from cause
        except httpx.ConnectError as cause:
            raise ServingError(f"no server at {self.url}: {first_line(cause)}") from cause
        except httpx.TimeoutException as cause:
            raise ServingError(f"{self.url}{path} did not answer in time") from cause
        except httpx.HTTPError as cause:
            raise ServingError(f"{self.url}{path} cannot be asked: {first_line(cause)}") from cause
        if response.status_code in (401, 403):
            said = said_by(response)
            raise ServingError(f"{self.url} refuses us (HTTP {response.status_code}){said and f': {said}'}", _SIGN_IN)
        if response.is_redirect:
            target = response.headers.get("location", "")
            raise ServingError(f"{self.url}{path} sends us to {target[:200]}", f"Give that address. {_SIGN_IN}")
        return response


def said_by(response: httpx.Response) -> str:
    """A server's own words about what is wrong, one line."""
    try:
        document = response.json()
        said = document.get("error") or document.get("detail") or document.get("message") or ""
    except (ValueError, AttributeError):
        said = "" if "<html" in response.text[:200].lower() else response.text
    return " ".join(str(said).split())[:300]


def json_object(response: httpx.Response) -> dict[str, Any] | None:
    """The JSON object of a good answer; None for anything else."""
    if response.status_code != 200:
        return None
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def parse_header(text: str) -> tuple[str, str]:
    """ "Authorization: Bearer …" → its name and value. UsageError for anything else, without showing what may be a
    secret."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip().replace("-", "").replace("_", "").isalnum():
        raise UsageError("--header is no header", "Write it as in --header 'Authorization: Bearer TOKEN'.")
    return name.strip(), value.strip()
