"""Examples per second of Lockstep and its peers, by `tests.benchmarks.networks`."""

import json
import statistics
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.input import present
from tests.benchmarks.networks import LARGE, NEEDS
from tests.gpu.cards import REFERENCES, peak_of, share_of_peak
from tests.gpu.rows import Row, Setting, run_command

PRECISIONS = {
    "float32": ("--precision=float32", "--tf32=false"),
    "tf32": ("--precision=float32", "--tf32=true"),
    "bfloat16": ("--precision=bfloat16", "--tf32=true"),
}
MEASURED = [("resnet50_224", precision) for precision in PRECISIONS]
MEASURED += [("vit_s16", "bfloat16"), ("decoder_125m", "bfloat16")]
# Relative, of the first three losses: what rounding alone makes of them.
TOLERANCES = {"float32": 1e-2, "tf32": 2e-2, "bfloat16": 1e-1}
OURS = ("off", "xla", "fit", "bare")  # beside `lockstep`, whose default chooses among the two
PEERS = ("jax", "torch", "torch-tuned")


def cells(setting: Setting) -> list[str]:
    """What is measured, each in a process of its own: `network:replicas precision arms`.

    An arm is alone with Lockstep, so that a card holds two at a time; PyTorch and JAX take one.
    """
    if setting.small:
        return ["cnn:1 float32 fit,bare"]
    wanted = []
    for network, precision in MEASURED:
        for count in dict.fromkeys((1, setting.count)):
            peers = [arm for arm in PEERS if count == 1 and _there(arm, setting)]
            wanted += [f"{network}:{count} {precision} {arm}" for arm in (*OURS, *peers)]
    return wanted


def _there(arm: str, setting: Setting) -> bool:
    return bool(setting.peers_python) and present(NEEDS[arm], setting.peers_python)


def measure(setting: Setting, what: str) -> list[Row]:
    """The rows of one of `cells`: an arm each."""
    cell, precision, arms = what.split()
    network, _, replicas = cell.partition(":")
    out = setting.folder / "speed.json"
    turns = ("--turns=2", "--seconds=0.2") if setting.small else ("--turns=6", "--seconds=2")
    batch = LARGE[network].global_batch if network in LARGE else 0
    flags = [f"--cells={cell}", f"--arms={arms}", f"--device={setting.device}", f"--out={out}"]
    flags += [*PRECISIONS[precision], *turns, f"--batch={batch}"]
    flags += [f"--tolerance={TOLERANCES[precision]}"]
    if setting.peers_python:
        flags.append(f"--peers_python={setting.peers_python}")
    run_command(["tests.benchmarks.networks", *flags])
    (found,) = json.loads(out.read_text(encoding="utf-8"))["cells"][cell]
    return rows_of(setting, found, network, int(replicas), precision)


def rows_of(
    setting: Setting, found: Mapping[str, Any], network: str, replicas: int, precision: str
) -> list[Row]:
    """A round of `networks` as rows."""
    known, size = LARGE.get(network), found["facts"]["network"]
    tokens = known.image_shape[0] - 1 if known and len(known.image_shape) == 1 else 0
    peak, unit = peak_of(setting.card, precision), "tokens/s" if tokens else "images/s"
    rows = []
    for arm in found["works"]:
        rates = [size["global_batch"] * turn[arm] for turn in found["rates"]]
        rate = statistics.median(rates)
        share = share_of_peak(size["products"], rate / replicas, peak)
        rows.append(
            Row(
                "speed",
                f"{network}, {precision}, {replicas} {setting.device.upper()}, {arm}",
                f"{rate * (tokens or 1):,.0f} {unit}",
                REFERENCES.get((network, precision), ""),
                f"share of peak {share}; batch {size['global_batch']}",
                {"rates": rates, **size},
            )
        )
    return rows
