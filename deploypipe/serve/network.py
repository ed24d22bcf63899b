"""Ports and addresses."""

import contextlib
import errno
import ipaddress
import socket

from deploypipe.errors import ServingError


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_free(host: str, port: int) -> None:
    """ServingError, saying why, where nothing can listen on `port` of `host`."""
    if ":" in host:
        raise ServingError(f"TorchServe does not listen on IPv6 addresses such as {host!r}", "Give an IPv4 address.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
            probe.listen()
        except OverflowError as cause:
            raise ServingError(f"{port} is no port", "Ports go from 1 to 65535.") from cause
        except OSError as cause:
            if cause.errno == errno.EADDRINUSE:
                raise ServingError(f"port {port} is taken", "Give another with --port.") from cause
            raise ServingError(f"cannot listen on {host}:{port}: {cause.strerror or cause}") from cause


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on at this moment, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
