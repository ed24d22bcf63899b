"""HTTP to a server on this machine, by the standard library.

A probe runs `deploypipe ready` every few seconds, also on small machines: importing a client that can do much more
would take most of its time.
"""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from deploypipe.errors import first_line


class Unanswered(Exception):
    """Nobody answers, or what comes is no HTTP."""


class TimedOut(Unanswered):
    """No answer came in time."""


@dataclass(frozen=True)
class Reply:
    status: int
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """ValueError for what is no JSON."""
        return json.loads(self.content)


def ask(
    method: str,
    url: str,
    *,
    parameters: Mapping[str, str | int] | None = None,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float,
) -> Reply:
    """One request over a connection of its own; `timeout`: seconds without a byte. TimedOut, or Unanswered."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
    path = address.path + (f"?{urlencode(parameters)}" if parameters else "")
    try:
        connection.request(method, path, content, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, answer.read())
    except TimeoutError as cause:
        raise TimedOut(f"no answer within {timeout:g} s") from cause
    except (OSError, http.client.HTTPException) as cause:
        raise Unanswered(first_line(cause)) from cause
    finally:
        connection.close()
