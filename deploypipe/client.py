"""Ask a server: images to predictions, tensors to tensors, and errors that say what to do."""

import contextlib
import io
import ipaddress
import json
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np
from numpy.typing import ArrayLike

from deploypipe.contract.protocol import DTYPES, from_protocol, to_protocol
from deploypipe.contract.rejection import Rejection
from deploypipe.contract.server import authorization, started_here, tokens_of
from deploypipe.contract.signature import TensorSpec
from deploypipe.contract.tensors import Array
from deploypipe.errors import DataError, DeploypipeError, ServingError, UsageError, first_line

PATIENCE = 10.0
"""Seconds that a request spends waiting between attempts, at most; a worker that died is back within five."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_AT_ONCE = 16
"""Requests under way together, so that the server can batch them."""


@dataclass(frozen=True)
class Prediction:
    label: int
    probability: float
    probabilities: tuple[float, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Prediction":
        try:
            return cls(document["class"], document["probability"], tuple(document["probabilities"]))
        except (KeyError, TypeError) as cause:
            raise ServingError("the answer is no classification", "Ask such a model with JSON requests.") from cause

    def to_json(self) -> dict[str, Any]:
        return {"class": self.label, "probability": self.probability, "probabilities": list(self.probabilities)}


class Refused(ServingError):
    """The model's handler got the request and will not answer it."""


class Client:
    """One model of one server. Usable from several threads, and as a context manager.

    A request that the server has no room for, or that a dying worker lost, is sent again, after pauses that grow and
    vary, or that the answer asks for (`Retry-After`), as long as they add up to no more than `patience` seconds; one
    that is not answered within `timeout` seconds is sent once more. ServingError when there is no server, no such
    model, or the request is refused.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        name: str = "mnist",
        timeout: float = 15.0,
        *,
        patience: float = PATIENCE,
        version: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self.timeout = timeout
        self.patience = patience
        self._path = f"{self.url}/predictions/{name}" + (f"/{version}" if version else "")
        sent = ({"authorization": f"Bearer {token}"} if token else {}) | dict(headers or {})
        try:
            # A proxy of the environment has no business between us and this machine.
            self._http = httpx.Client(timeout=timeout, headers=sent, trust_env=not is_here(url))
        except (httpx.InvalidURL, ValueError) as cause:
            raise ServingError(f"{url!r} is no address of a server: {first_line(cause)}") from cause

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(self, images: Sequence[bytes | Path]) -> list[Prediction]:
        """One prediction an image (encoded: PNG, JPEG, …), in order. DataError for a file that cannot be read."""
        bodies = [_content(image) for image in images]
        if len(bodies) < 2:
            return [
                Prediction.from_json(self._post(body, "application/octet-stream", _named(images[0]))) for body in bodies
            ]
        names = [str(image) if isinstance(image, Path) else f"image {i}" for i, image in enumerate(images)]
        with ThreadPoolExecutor(min(_AT_ONCE, len(bodies))) as pool:
            answers = pool.map(lambda body, name: self._post(body, "application/octet-stream", name), bodies, names)
            return [Prediction.from_json(answer) for answer in answers]

    def ask(self, request: bytes | Path) -> dict[str, Any]:
        """A JSON or `.npy` request sent as it is, and the answer as it came."""
        return self._post(_content(request), "application/octet-stream", _named(request))

    def ask_each(self, files: Sequence[Path]) -> list[dict[str, Any]]:
        """The answer to each file, or {"error": …, "exit_code": …}: images, arrays of pixels (`.npy`), or requests
        written down as JSON (see the README's HTTP section). Raises the first error when no file was answered."""
        errors: list[DeploypipeError] = []

        def one(file: Path) -> dict[str, Any]:
            try:
                if file.suffix in (".json", ".npy"):
                    return self.ask(file)
                return self.predict([file])[0].to_json()
            except DeploypipeError as error:
                errors.append(error)
                return {"error": str(error), "exit_code": error.exit_code}

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(one, files))
        if len(errors) == len(answers):
            raise errors[0]
        return answers

    def predict_pixels(self, pixels: ArrayLike) -> list[Prediction]:
        """`uint8 [n, H, W]` or `[n, C, H, W]`, in the model's own H and W → one prediction a row."""
        file = io.BytesIO()
        np.save(file, np.asarray(pixels), allow_pickle=False)
        answer = self._post(file.getvalue(), "application/octet-stream")
        return [Prediction.from_json(item) for item in answer["predictions"]]

    def infer(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """The model's inputs by name, as arrays or as tensors on the CPU → its outputs by name as arrays, by the Open
        Inference Protocol v2."""
        items = [to_protocol(name, np.asarray(value)) for name, value in inputs.items()]
        answer = self._post(json.dumps({"inputs": items}).encode(), "application/json")
        specs = [_spec(item) for item in answer["outputs"]]
        try:
            outputs = from_protocol(answer["outputs"], specs, "outputs")
        except Rejection as cause:
            raise ServingError(f"the answer of {self._path} cannot be read: {cause}") from cause
        return {spec.name: output for spec, output in zip(specs, outputs, strict=True)}

    def _post(self, body: bytes, content_type: str, what: str = "") -> dict[str, Any]:
        silent, waited, attempts = False, 0.0, 0
        while True:
            attempts += 1
            response: httpx.Response | None = None
            try:
                response = self._http.post(self._path, content=body, headers={"content-type": content_type})
            except httpx.ConnectError as cause:
                raise ServingError(f"no server at {self.url}", "Start it with `deploypipe serve`.") from cause
            except httpx.ReadTimeout as cause:
                # TorchServe forgets a request that it was just putting into a batch when the worker dies.
                problem = f"{self._path} did not answer within {self.timeout:g} s"
                if silent:
                    raise ServingError(problem) from cause
                silent = True
            except (httpx.NetworkError, httpx.RemoteProtocolError) as cause:
                # The connection was cut, maybe with the answer on its way; asking twice changes nothing.
                problem = f"{self._path} cut the connection: {first_line(cause)}"
            except (httpx.HTTPError, httpx.InvalidURL) as cause:
                raise ServingError(f"{self._path} cannot be asked: {first_line(cause)}") from cause
            if response is not None and response.status_code == 200:
                return _object(response, self._path)
            if response is not None and not _passing(response):
                raise self._refusal(response, what)
            varied = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempts - 1)) * random.uniform(0.5, 1.5)
            pause = max(varied, _retry_after(response) if response is not None else 0.0)
            if waited + pause > self.patience:
                error = ServingError(problem) if response is None else self._refusal(response, what)
                asked = f"asked {attempts} times, waited {waited:.1f} s in all"
                longer = f"; it asks for {pause:.0f} s more" if pause > varied else ""
                raise ServingError(f"{error.message} ({asked}{longer})", error.remedy)
            time.sleep(pause)
            waited += pause

    def _refusal(self, response: httpx.Response, what: str) -> ServingError:
        status, text = response.status_code, _message(response)
        if status == 503 and "no worker" in text:
            return ServingError(*self._turned_away())
        if status == 404:
            return ServingError(f"{self.url} serves no model {self._path.partition('/predictions/')[2]!r}: {text}")
        refused = "refuses " + what if what else "refuses the request"
        error = Refused if _by_handler(response) else ServingError
        return error(f"{self.url} {refused} (HTTP {status}): {text}")

    def _turned_away(self) -> tuple[str, str]:
        """What is wrong and what to do. TorchServe says "no worker" when its queue is full, too; of a server that was
        started here it is known which."""
        wanted, up = 0, None
        with contextlib.suppress(httpx.HTTPError, DeploypipeError, ValueError, LookupError, TypeError):
            if here := started_here(self.url):
                model = self._path.partition("/predictions/")[2]
                described = httpx.get(
                    f"{here.management_url}/models/{model}",
                    headers=authorization(here, "management"),
                    timeout=2,
                    trust_env=False,
                ).json()[0]
                wanted, up = described["minWorkers"], [worker["status"] for worker in described["workers"]]
        if up is None:
            return f"{self.url} is overloaded, or has no worker for {self.name!r}", "Try again later."
        if "READY" in up:
            return (
                f"{self.url} is overloaded: the queue of {self.name!r} is full",
                "Ask less at once, or serve with more --workers.",
            )
        if wanted:
            return f"{self.url} has no worker up for {self.name!r}", "`deploypipe status` says more."
        return f"{self.url} takes no new requests: it is being stopped", "Ask another server."


def _passing(response: httpx.Response) -> bool:
    """A full queue, a worker not back yet, one that died with the request in its hands, or a proxy's limit."""
    return response.status_code in (429, 503) or (response.status_code >= 500 and "Worker died" in response.text)


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a proxy asks to wait, as a number or until a date; 0 where it does not say."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _by_handler(response: httpx.Response) -> bool:
    try:
        return "error" in response.json()
    except (ValueError, TypeError):
        return False


def _message(response: httpx.Response) -> str:
    """Our handler's `error`, or TorchServe's `message`, or the text as it is."""
    try:
        document = response.json()
        return str(document.get("error") or document.get("message"))
    except (ValueError, AttributeError):
        return response.text[:200].strip()


def _object(response: httpx.Response, path: str) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError as cause:
        raise ServingError(f"the answer of {path} is no JSON: {first_line(cause)}") from cause
    if not isinstance(document, dict):
        raise ServingError(f"the answer of {path} is no JSON object")
    return document


def _spec(item: Mapping[str, Any]) -> TensorSpec:
    datatype = str(item["datatype"])
    return TensorSpec(item["name"], DTYPES.get(datatype, datatype.lower()), tuple(item["shape"]))


def _named(image: bytes | Path) -> str:
    return str(image) if isinstance(image, Path) else ""


def _content(image: bytes | Path) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as cause:
        raise DataError(f"{image} cannot be read: {cause.strerror or cause}") from cause


def is_here(url: str) -> bool:
    """Whether the address is one of this machine's own."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_for(url: str, name: str | None = None, headers: Mapping[str, str] | None = None) -> Client:
    """A client of the server at `url`, which sends `headers` with each request. Of a server that was started on this
    machine, the model's name and the token are known; UsageError when the name is not and was not given."""
    here = started_here(url)
    names = sorted({archive.name for archive in here.archives}) if here else []
    if name is None:
        if len(names) != 1:
            served = f"it serves {', '.join(names)}" if names else "it was not started here"
            raise UsageError(f"which model of {url}? ({served})", "Name it with --name.")
        name = names[0]
    return Client(url, name, token=tokens_of(here).get("inference") if here else None, headers=headers)
