"""What is measured without a training: the doctor's word, and the pause per checkpoint."""

import json
import statistics
import subprocess
import sys
import time

from tests.gpu.rows import REPOSITORY, Row, Setting, failed, last_of


def doctor(setting: Setting, _: str) -> list[Row]:
    """What `launch.doctor` finds; its errors are failures."""
    flags = [f"--device={setting.device}", "--json", *(["--quick"] if setting.small else [])]
    command = [sys.executable, "-m", "launch.doctor", *flags]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if not ended.stdout.startswith("{"):
        return [failed("doctor", "launch.doctor", last_of(ended.stderr))]
    found = json.loads(ended.stdout)
    by_status = {
        status: [f"{f['topic']}: {f['text']}" for f in found["findings"] if f["status"] == status]
        for status in ("error", "warning")
    }
    if not found["would_train"]:
        return [failed("doctor", "launch.doctor", "; ".join(by_status["error"]))]
    note = "; ".join(by_status["warning"])
    return [Row("doctor", "launch.doctor", "training works here", note=note, raw=found)]


def checkpoint(setting: Setting, megabytes: str) -> list[Row]:
    """How long the devices wait for a checkpoint of so many MB in float32, on all replicas."""
    from launch.process import cli

    cli.import_tensorflow(0)
    import tensorflow as tf

    from tests.benchmarks.checkpoint import shapes_of
    from trainer.checkpoint.checkpoints import Checkpoints
    from trainer.plan.devices import Devices
    from trainer.replicas.strategy import make_strategy

    gpus = tuple(range(setting.count)) if setting.device == "gpu" else ()
    strategy = make_strategy(Devices(setting.device.upper(), setting.count, "", gpus=gpus))
    with strategy.scope():
        variables = {
            str(n): tf.Variable(tf.random.normal(s)) for n, s in enumerate(shapes_of(megabytes))
        }

    @tf.function
    def update() -> None:
        strategy.run(lambda: [v.assign(v * 1.001) for v in variables.values()])

    checkpoints = Checkpoints(setting.folder, {"model": variables})
    pauses, copies = [], []
    for turn in range(3 if setting.small else 12):
        update()
        began = time.perf_counter()
        # What the devices still had to do is not in the pause.
        _ = [v.numpy() for v in variables.values()]
        between = time.perf_counter()
        checkpoints.save(turn + 1, {})
        pauses.append(time.perf_counter() - between)
        copies.append(between - began)
        checkpoints.wait()
    # The first two make the memory and the functions.
    pause, copy = (1000 * statistics.median(seconds[2:]) for seconds in (pauses, copies))
    what = f"{int(megabytes):,} MB of variables, {setting.count} {setting.device.upper()}"
    note = f"{copy:.1f} ms for an update and a plain copy to the host"
    raw = {"pauses": pauses, "copies": copies}
    return [Row("checkpoint", what, f"{pause:.1f} ms", note=note, raw=raw)]
