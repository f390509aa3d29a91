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
    wait = _Wait(seconds, say)
    with _listening(cluster, wait) as listener:
        if cluster.chief:
            _receive(cluster, listener, facts, told, wait)
            return dict(told)
        return _report(cluster, facts, wait)


class _Wait:
    """A wait of so many seconds for others, of which a person is told once it takes a while."""

    def __init__(self, seconds: float, say: Callable[[str], object]) -> None:
        self.seconds, self._say, self._quiet = seconds, say, True
        self._began = time.monotonic()

    def left(self) -> float:
        """Seconds; less than 0 once it is over."""
        return self._began + self.seconds - time.monotonic()

    def goes_on(self, whom: str = "") -> bool:
        """Whether it is not over yet; then says whom it is for, and lets a moment pass."""
        if self.left() < 0:
            return False
        if whom and self._quiet and self.seconds - self.left() > _QUIET_SECONDS:
            self._quiet = False
            self._say(f"waiting for {whom}")
        time.sleep(_POLL_SECONDS)
        return True


@contextlib.contextmanager
def _listening(cluster: Cluster, wait: _Wait) -> Iterator[socket.socket]:
    """The socket that others reach this worker at."""
    host, number = _parted(cluster.addresses[cluster.index])
    me = cluster.name(cluster.index)
    family, address = _resolved(host, wait)
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
            if error.errno != errno.EADDRINUSE or not wait.goes_on():
                raise TryAgainError(
                    f"the port of {me} cannot be taken ({error.strerror}) after {wait.seconds:g} s;"
                    " what has it may be the process before this one; end that, or give another "
                    "port."
                ) from None
    with listener:
        yield listener


def _resolved(host: str, wait: _Wait) -> tuple[socket.AddressFamily, str]:
    """The family and address of a host's name, which a cluster may come to know a little later.

    Raises:
      TryAgainError: it does not.
    """
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
            return family, address[0]
        except OSError as error:
            if not wait.goes_on():
                raise TryAgainError(
                    f"the name {host} is not known here ({error.strerror}); see whether it is this "
                    "machine's."
                ) from None


def _receive(
    cluster: Cluster,
    listener: socket.socket,
    facts: Mapping[str, Any],
    told: Mapping[str, Any],
    wait: _Wait,
) -> None:
    """The chief's part."""
    lines: dict[int, _Line] = {}
    try:
        for index, theirs in sorted(_gather(cluster, listener, wait, lines).items()):
            check_same(cluster, index, facts, theirs)
        for line in lines.values():
            line.write({"facts": dict(told)})
        for index, line in sorted(lines.items()):
            answer = line.read(_REACH_SECONDS * len(cluster.addresses))
            if answer is None or answer.get("unreachable"):
                whom = ", ".join(map(cluster.name, (answer or {}).get("unreachable", ())))
                reason = f"cannot reach {whom}" if whom else "has gone"
                raise TryAgainError(f"{cluster.name(index)} {reason}; see their network.")
    except (ValueError, TryAgainError) as error:
        for line in lines.values():
            line.write({"error": str(error), "again": isinstance(error, TryAgainError)})
        raise
    for line in lines.values():
        line.write({})


def _gather(
    cluster: Cluster, listener: socket.socket, wait: _Wait, lines: dict[int, "_Line"]
) -> dict[int, dict[str, Any]]:
    """What every other worker is about to do; `lines` takes their connections.

    Raises:
      TryAgainError: some have not come.
    """
    others, facts = range(1, len(cluster.addresses)), {}
    listener.settimeout(_POLL_SECONDS)
    while len(facts) < len(others):
        missing = [number for number in others if number not in facts]
        names = ", ".join(map(cluster.name, missing))
        if not wait.goes_on(names):
            raise TryAgainError(
                f"{names} did not come within {wait.seconds:g} s (--join_timeout_s); see whether "
                f"{'it was' if len(missing) == 1 else 'they were'} started, and reach "
                f"{cluster.addresses[0]}."
            )
        with contextlib.suppress(TimeoutError):
            line = _Line(listener.accept()[0])
            hello = line.read(_REACH_SECONDS) or {}
            # One that has ended and was started again takes its own place.
            index, theirs = hello.get("index"), hello.get("facts")
            if index in others and isinstance(theirs, dict):
                facts[index], lines[index] = theirs, line
    return facts


def _report(cluster: Cluster, facts: Mapping[str, Any], wait: _Wait) -> dict[str, Any]:
    """The part of every other worker."""
    line, told = _heard(cluster, facts, wait)
    others = [n for n in range(1, len(cluster.addresses)) if n != cluster.index]
    line.write({"unreachable": [n for n in others if not _reached(cluster.addresses[n])]})
    answer = line.read(_REACH_SECONDS * (len(cluster.addresses) + 1))
    if answer is None:
        raise TryAgainError(f"{cluster.name(0)} has gone; start all workers again.")
    _agreed(answer)
    return told["facts"]


def _heard(
    cluster: Cluster, facts: Mapping[str, Any], wait: _Wait
) -> tuple["_Line", dict[str, Any]]:
    """The connection to the chief, and its answer to what this worker is about to do."""
    chief, why = cluster.name(0), "it said nothing"
    while wait.goes_on(chief):
        try:
            line = _Line(socket.create_connection(_parted(cluster.addresses[0]), _REACH_SECONDS))
            line.write({"index": cluster.index, "facts": dict(facts)})
            # The chief answers once all are there; nothing where its port is still another's.
            answer = line.read(wait.left() + _REACH_SECONDS)
            if answer is not None:
                return line, _agreed(answer)
        except OSError as error:
            why = error.strerror or str(error)
    raise TryAgainError(
        f"{chief} did not answer within {wait.seconds:g} s (--join_timeout_s): {why}; see whether "
        "it was started."
    )


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
