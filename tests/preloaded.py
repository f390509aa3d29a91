"""Commands in forks of one process that has imported TensorFlow: half of a short command's time.

    python -m tests.preloaded < REQUESTS

`call` starts that process when it is first asked for something. A request is a line of JSON:
`module` and `argv`, the folder `cwd`, the environment `env`, the `cores` to run on, the files `out`
and `err`, and `code`, a file that is there once the command has ended, with its exit code.
What a fork does is what `python -m MODULE ARGV` does, but for the import.
"""

import atexit
import functools
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from launch.process import cli

_WRITING = threading.Lock()


def environment() -> dict[str, str]:
    """What a command keeps of ours."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}


def call(
    module: str,
    arguments: Sequence[str],
    cwd: pathlib.Path,
    env: Mapping[str, str],
    seconds: float = 900,
) -> tuple[int, str, str]:
    """Runs a command to its end: its exit code, and what it has written to stdout and stderr."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: pathlib.Path(folder) / name for name in ("out", "err", "code")}
        request = {
            "module": module,
            "argv": arguments,
            "cwd": str(cwd),
            "env": dict(env),
            "cores": sorted(os.sched_getaffinity(0)),
            **{name: str(file) for name, file in files.items()},
        }
        with _WRITING:
            process = _process()
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        until = time.monotonic() + seconds
        while not files["code"].exists():
            assert process.poll() is None and time.monotonic() < until, request
            time.sleep(0.02)
        out, err = (files[name].read_text(encoding="utf-8") for name in ("out", "err"))
        return int(files["code"].read_text()), out, err


@functools.cache
def _process() -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.preloaded"],
        cwd=pathlib.Path(__file__).resolve().parents[1],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    atexit.register(os.killpg, process.pid, signal.SIGKILL)
    return process


def main() -> None:
    """Forks for each request until there are no more."""
    cli.import_tensorflow(0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    for line in sys.stdin:
        if os.fork() == 0:
            wait_for(json.loads(line))


def wait_for(request: Mapping[str, Any]) -> None:
    """Carries a request out in another fork and writes how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        carry_out(request)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    path = pathlib.Path(request["code"])
    path.with_suffix(".new").write_text(str(code))
    path.with_suffix(".new").rename(path)
    os._exit(0)


def carry_out(request: Mapping[str, Any]) -> None:
    """Becomes the command."""
    import launch

    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path in enumerate((os.devnull, request["out"], request["err"])):
        file = os.open(path, flags if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    os.sched_setaffinity(0, request["cores"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    own = request["env"]["PYTHONPATH"].split(":")
    sys.path = [request["cwd"], *own, *(path for path in sys.path[1:] if path not in own)]
    sys.argv = [request["module"], *request["argv"]]
    launch.BEGAN = time.perf_counter()
    code = 1
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
