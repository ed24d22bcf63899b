"""A new version for a running server: load it beside what is served, prove it, switch, drain what it replaces.

Each step leaves what the record describes. The new version is recorded once it is proven and before requests come to
it; the old one leaves the record before it is unloaded. So a deployment that is killed at any point leaves every
version that the record names served, and at most one loaded that it does not name, which `status` tells of and the
next deployment removes.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploypipe.contract.archive import Archive, read_archive
from deploypipe.contract.server import Server, default_folder, recorded
from deploypipe.errors import ServingError
from deploypipe.serve import processes
from deploypipe.serve.defaults import PORT
from deploypipe.serve.store import placed
from deploypipe.serve.torchserve import diagnosis, draining
from deploypipe.serve.torchserve.folder import Layout, locked, rewrite
from deploypipe.serve.torchserve.loopback import TimedOut, Unanswered
from deploypipe.serve.torchserve.management import Loaded, Management
from deploypipe.serve.torchserve.readiness import check

_ANSWER = 30.0
"""Seconds for an answer to a packaged sample."""
_LOG_DELAY = 2.0
"""Seconds for what a worker said to reach its log."""


@dataclass(frozen=True)
class Deployment:
    server: Server
    """With what it serves now."""
    archive: Archive
    state: str
    """"deployed": loaded, proven and switched to; "switched": it was served already; "unchanged": as the default."""
    previous: str | None
    """The version that was the default before; None where the name was not served."""
    removed: bool
    """Whether `previous` is served no more."""


def deploy(
    path: Path,
    port: int = PORT,
    *,
    folder: Path | None = None,
    keep: bool = False,
    timeout: float = 120.0,
    drain: float = 60.0,
) -> Deployment:
    """Make the archive at `path` the default version of its name on the running server, without losing a request.

    The archive is checked, put into the server's model store if it lies elsewhere (a path that does not exist is
    looked for there), loaded beside what is served and held to its packaged samples over HTTP, within `timeout`
    seconds; then requests that name no version go to it. The version that got them before is unloaded once it has
    answered what it accepted, if that is within `drain` seconds, unless `keep`. An archive that is served already is
    switched to, and nothing is unloaded.

    PackageError for a broken archive. ServingError when no server runs, when this version is served with other
    content, when the store cannot be written; and, with everything as it was before, when the new version does not
    load (with its worker's own error) or does not answer as it should.
    """
    place = (folder or default_folder(port)).resolve()
    where = f"with port {port}" if folder is None else f"in {place}"
    _running(place, where)  # before the lock makes a folder of that name
    with processes.interruptions() as noted, locked(place):
        server = _running(place, where)
        archive = read_archive(path if path.exists() else server.store / path)
        try:
            management = Management(server)
            return _deploy(server, archive, management, noted, keep, timeout, drain)
        except Unanswered as cause:
            raise ServingError(
                f"TorchServe does not answer at {server.management_url}: {cause}", "See `deploypipe status`."
            ) from cause


def _running(folder: Path, where: str) -> Server:
    server = recorded(folder)
    if server is None or not processes.alive(server.process):
        raise ServingError(f"no server runs {where}", "Start one with `deploypipe serve`.")
    return server


def _deploy(
    server: Server,
    archive: Archive,
    management: Management,
    noted: processes.Interruptions,
    keep: bool,
    timeout: float,
    drain: float,
) -> Deployment:
    others = [served for served in server.archives if not _same(served, archive)]
    twin = next((served for served in server.archives if _same(served, archive)), None)
    previous = management.default(archive.name)
    if twin is not None:
        if twin.sha256 != archive.sha256:
            raise ServingError(
                f"{archive} is served already, with other content", "Package this one under another --model-version."
            )
        if previous == archive.version:
            return Deployment(server, twin, "unchanged", previous, removed=False)
        _prove(twin, server)
        management.set_default(archive.name, archive.version)
        return Deployment(rewrite(server, [twin, *others]), twin, "switched", previous, removed=False)

    with placed(archive, server.store) as archive, _loaded(server, archive, management, timeout):
        _prove(archive, server)
        noted.check()
        server = rewrite(server, [*others, archive])
    management.set_default(archive.name, archive.version)
    server = rewrite(server, [archive, *others])
    old = next((served for served in others if served.name == archive.name and served.version == previous), None)
    if old is None or keep or not _answered(old, management, noted, drain):
        return Deployment(server, archive, "deployed", previous, removed=False)
    server = rewrite(server, [served for served in server.archives if served is not old])
    management.unregister(old.name, old.version)
    return Deployment(server, archive, "deployed", previous, removed=True)


def _same(one: Archive, other: Archive) -> bool:
    return (one.name, one.version) == (other.name, other.version)


@contextlib.contextmanager
def _loaded(server: Server, archive: Archive, management: Management, timeout: float) -> Iterator[None]:
    """Loaded while the block runs, and afterwards unless it raises."""
    _remove_leftovers(server, archive.name, management)
    like = _settings(server, management)
    layout = Layout(server.folder)
    earlier = len(diagnosis.worker_errors(layout))
    try:
        try:
            management.register(archive.path.name, like, timeout)
        except ServingError as cause:
            error = _last_words(layout, earlier) or cause
            raise ServingError(f"{archive} does not load: {error}", _as_before(server, archive)) from cause
        except TimedOut as cause:
            raise ServingError(f"{archive} did not load within {timeout:g} s", _as_before(server, archive)) from cause
        yield
    except BaseException:
        with contextlib.suppress(ServingError, Unanswered):
            management.unregister(archive.name, archive.version)
        raise


def _last_words(layout: Layout, earlier: int) -> str:
    """The error of a worker that did not start, after the `earlier` ones. It can be written a little later than
    TorchServe answers; "" where there is none after a while, for the front end itself refused."""
    limit = time.monotonic() + _LOG_DELAY
    while not (errors := diagnosis.worker_errors(layout)[earlier:]) and time.monotonic() < limit:
        time.sleep(0.05)
    return diagnosis.telling(errors)


def _remove_leftovers(server: Server, name: str, management: Management) -> None:
    """What a deployment that was killed had loaded and not yet recorded."""
    known = {served.version for served in server.archives if served.name == name}
    for version in management.versions(name).keys() - known:
        management.unregister(name, version)


def _settings(server: Server, management: Management) -> Loaded:
    """Workers, batch size and delay: those with which the server's first model was started."""
    first = server.archives[0]
    found = management.loaded(first.name, first.version)
    if found is None or found.workers_wanted == 0:
        raise ServingError(f"the server at {server.url} takes no new requests: it is being stopped")
    return found


def _prove(archive: Archive, server: Server) -> None:
    found = check(archive, server, _ANSWER)
    if not found.ready:
        raise ServingError(f"{archive} is not what was proven: {found.problem}", _as_before(server, archive))


def _as_before(server: Server, archive: Archive) -> str:
    names = ", ".join(str(served) for served in server.archives if served.name == archive.name)
    return f"Nothing changed: {names} is served as before." if names else "Nothing changed."


def _answered(old: Archive, management: Management, noted: processes.Interruptions, seconds: float) -> bool:
    """Whether the version that is the default no more has answered what it accepted, within `seconds`."""

    def look() -> tuple[list[Loaded], list[psutil.Process]]:
        found = management.loaded(old.name, old.version)
        if found is None:
            return [], []
        workers = []
        for pid in found.pids:
            with contextlib.suppress(psutil.Error):
                workers.append(psutil.Process(pid))
        return [found], workers

    return draining.idle(look, seconds, noted.wait)
