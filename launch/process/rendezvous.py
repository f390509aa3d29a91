"""The workers of a run meet before TensorFlow does, whose own meeting waits without end.

Each listens on its own address and tells the chief what it is about to do; the chief answers all of
them once they are there and mean the same, and each then sees that it can reach every other one.
Who is missing, or means something else, is named to all.

    worker → chief   {"index": 1, "facts": {…}}
    chief → worker   {"facts": {…}} or {"error": "…", "again": true}
    worker → chief   {"unreachable": [2]}
    chief → worker   {} or {"error": …}
"""

import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from launch.process.cli import TryAgainError
from trainer.plan.cluster import Cluster

_POLL_SECONDS = 0.2
_REACH_SECONDS = 5.0
_QUIET_SECONDS = 5.0  # after which a person is told who is waited for
_MOST_BYTES = 1 << 22  # of a message


def meet(
    cluster: Cluster,
    facts: Mapping[str, Any],
    told: Mapping[str, Any],
    seconds: float,
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Waits for all workers, and sees that they are about to do the same.

    Args:
      facts: what has to be the same on all, JSON by name.
      told: what the chief tells the others.
      seconds: to wait at most.

    Returns:
      What the chief told.

    Raises:
      ValueError: the facts differ.
      TryAgainError: a worker is missing or cannot be reached, or this one cannot listen.
    """
    until = time.monotonic() + seconds
    with _listening(cluster, until, seconds) as listener:
        if cluster.chief:
            _receive(cluster, listener, facts, told, until, seconds, say)
            return dict(told)
        return _report(cluster, facts, until, seconds, say)


@contextlib.contextmanager
def _listening(cluster: Cluster, until: float, seconds: float) -> Iterator[socket.socket]:
    """The socket that others reach this worker at."""
    host, number = _parted(cluster.addresses[cluster.index])
    me = cluster.name(cluster.index)
    family, address = _resolved(host, number, until)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        raise TryAgainError(
            f"this is to be {me}, and this machine has no such address ({error.strerror}); start "
            "each worker on the machine that the cluster names for it."
        ) from None
    while True:
        try:
            # Not the port's wildcard: workers on one machine may differ by address only.
            listener = socket.create_server(
                (address, number), family=family, backlog=len(cluster.addresses) + 8
            )
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise TryAgainError(
                    f"the port of {me} cannot be taken ({error.strerror}) after {seconds:g} s; "
                    "what has it may be the process before this one; end that, or give another "
                    "port."
                ) from None
            time.sleep(_POLL_SECONDS)
    with listener:
        yield listener


def _resolved(host: str, number: int, until: float) -> tuple[socket.AddressFamily, str]:
    """The family and address of a host's name, which a cluster may come to know a little later.

    Raises:
      TryAgainError: it does not.
    """
    while True:
        try:
            found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            return found[0], found[4][0]
        except OSError as error:
            if time.monotonic() > until:
                raise TryAgainError(
                    f"the name {host} is not known here ({error.strerror}); see whether it is this "
                    "machine's."
                ) from None
        time.sleep(_POLL_SECONDS)


def _receive(
    cluster: Cluster,
    listener: socket.socket,
    facts: Mapping[str, Any],
    told: Mapping[str, Any],
    until: float,
    seconds: float,
    say: Callable[[str], object],
) -> None:
    """The chief's part."""
    there: dict[int, tuple[_Line, dict[str, Any]]] = {}
    began, quiet = time.monotonic(), True
    listener.settimeout(_POLL_SECONDS)
    try:
        while len(there) < len(cluster.addresses) - 1:
            missing = [n for n in range(1, len(cluster.addresses)) if n not in there]
            names = ", ".join(map(cluster.name, missing))
            if time.monotonic() > until:
                raise TryAgainError(
                    f"{names} did not come within {seconds:g} s (--join_timeout_s); see whether "
                    f"{'it was' if len(missing) == 1 else 'they were'} started, and reach "
                    f"{cluster.addresses[0]}."
                )
            if quiet and time.monotonic() > began + _QUIET_SECONDS:
                quiet = False
                say(f"waiting for {names}")
            with contextlib.suppress(TimeoutError):
                line = _Line(listener.accept()[0])
                hello = line.read(_REACH_SECONDS)
                if hello and hello.get("index") in missing:
                    there[hello["index"]] = line, hello.get("facts", {})
        for index, (_, theirs) in sorted(there.items()):
            check_same(cluster, index, facts, theirs)
        for line, _ in there.values():
            line.write({"facts": dict(told)})
        for index, (line, _) in sorted(there.items()):
            answer = line.read(_REACH_SECONDS * len(cluster.addresses))
            if answer is None or answer.get("unreachable"):
                whom = ", ".join(map(cluster.name, (answer or {}).get("unreachable", ())))
                reason = f"cannot reach {whom}" if whom else "has gone"
                raise TryAgainError(f"{cluster.name(index)} {reason}; see their network.")
    except (ValueError, TryAgainError) as error:
        for line, _ in there.values():
            line.write({"error": str(error), "again": isinstance(error, TryAgainError)})
        raise
    for line, _ in there.values():
        line.write({})


def _report(
    cluster: Cluster,
    facts: Mapping[str, Any],
    until: float,
    seconds: float,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """The part of every other worker."""
    line, told = _heard(cluster, facts, until, seconds, say)
    others = [n for n in range(1, len(cluster.addresses)) if n != cluster.index]
    line.write({"unreachable": [n for n in others if not _reached(cluster.addresses[n])]})
    answer = line.read(_REACH_SECONDS * (len(cluster.addresses) + 1))
    if answer is None:
        raise TryAgainError(f"{cluster.name(0)} has gone; start all workers again.")
    _agreed(answer)
    return told["facts"]


def _heard(
    cluster: Cluster,
    facts: Mapping[str, Any],
    until: float,
    seconds: float,
    say: Callable[[str], object],
) -> tuple["_Line", dict[str, Any]]:
    """The connection to the chief, and its answer to what this worker is about to do."""
    chief, began, quiet, why = cluster.name(0), time.monotonic(), True, "it said nothing"
    while True:
        try:
            line = _Line(socket.create_connection(_parted(cluster.addresses[0]), _REACH_SECONDS))
            line.write({"index": cluster.index, "facts": dict(facts)})
            # The chief answers once all are there; nothing where its port is still another's.
            answer = line.read(max(until - time.monotonic(), 0.0) + _REACH_SECONDS)
            if answer is not None:
                return line, _agreed(answer)
        except OSError as error:
            why = error.strerror or str(error)
        if time.monotonic() > until:
            raise TryAgainError(
                f"{chief} did not answer within {seconds:g} s (--join_timeout_s): {why}; see "
                "whether it was started."
            )
        if quiet and time.monotonic() > began + _QUIET_SECONDS:
            quiet = False
            say(f"waiting for {chief}")
        time.sleep(_POLL_SECONDS)


def check_same(
    cluster: Cluster, index: int, facts: Mapping[str, Any], theirs: Mapping[str, Any]
) -> None:
    """Sees that a worker is about to do the same as the chief.

    Raises:
      ValueError: it is not; the sentence names the first fact that differs.
    """
    ours, others = flat(json.loads(json.dumps(facts))), flat(theirs)
    for name in ours | others:
        if others.get(name) != ours.get(name):
            raise ValueError(
                f"{name} is {_shown(others.get(name))} on {cluster.name(index)} and "
                f"{_shown(ours.get(name))} on {cluster.name(0)}; start all workers with the same "
                "flags, data and programs."
            )


def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with those of a fact under its name and theirs, such as `the data: length`."""
    found: dict[str, Any] = {}
    for name, fact in facts.items():
        if isinstance(fact, dict):
            found |= {f"{name}: {below}": value for below, value in flat(fact).items()}
        else:
            found[name] = fact
    return found


def _shown(fact: Any) -> str:
    text = fact if isinstance(fact, str) else json.dumps(fact)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _agreed(answer: dict[str, Any]) -> dict[str, Any]:
    """The chief's answer, where it is no refusal.

    Raises:
      ValueError: it says that a fact differs.
      TryAgainError: it says that somebody is missing.
    """
    if "error" in answer:
        raise (TryAgainError if answer.get("again") else ValueError)(answer["error"])
    return answer


def _reached(address: str) -> bool:
    try:
        socket.create_connection(_parted(address), _REACH_SECONDS).close()
    except OSError:
        return False
    return True


def _parted(address: str) -> tuple[str, int]:
    host, _, number = address.rpartition(":")
    return host.strip("[]"), int(number)


class _Line:
    """A connection on which JSON is exchanged, a line each."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._rest = connection, b""

    def write(self, message: Mapping[str, Any]) -> None:
        """Sends it; who has gone does not hear it."""
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None where none comes, or what does is none."""
        until = time.monotonic() + seconds
        while b"\n" not in self._rest and len(self._rest) < _MOST_BYTES:
            self._connection.settimeout(max(until - time.monotonic(), 0.01))
            try:
                part = self._connection.recv(1 << 16)
            except OSError:
                return None
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None
