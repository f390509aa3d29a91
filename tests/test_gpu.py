"""`tests.gpu` on the processor: all of it but the card."""

import json
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from helpers import REPOSITORY, run_program

from launch.checks.cards import Card, Cards
from launch.process.cli import FailedError
from tests.gpu import __main__ as program
from tests.gpu import speed, training
from tests.gpu.cards import peak_of, share_of_peak
from tests.gpu.rows import Row, Setting, table
from trainer.checkpoint.checkpoints import Checkpoints

# As in `trainer/replicas/test_strategy.py`.
DIVIDED = """
import json
import tensorflow as tf
told = []
gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(2)]
real = tf.config.list_physical_devices
tf.config.list_physical_devices = lambda kind=None: gpus if kind == "GPU" else real(kind)
tf.config.set_visible_devices = lambda those, kind: told.append([g.name[-1] for g in those])
tf.config.experimental.set_memory_growth = lambda gpu, on: None
tf.config.set_logical_device_configuration = lambda gpu, those: told.append([gpu.name, len(those)])
tf.distribute.MirroredStrategy = lambda names, *_: told.append(names)
from tests.gpu import logical
logical.divide(4)
del told[:]
from trainer.plan.devices import Devices
from trainer.replicas.strategy import count_gpus, make_strategy
make_strategy(Devices("GPU", count_gpus(), "", gpus=(0, 1, 2, 3)), "reduce_to_one")
print(json.dumps(told))
"""


def run(flags: str, hidden: bool = False) -> tuple[int, str]:
    """The exit code of `python -m tests.gpu` and what it prints; `hidden`: it sees no GPU."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.gpu", *flags.split()],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin"} | ({"CUDA_VISIBLE_DEVICES": "-1"} if hidden else {}),
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout


def setting(**given: object) -> Setting:
    """That of one A100."""
    fields = {"device": "gpu", "count": 1, "card": "NVIDIA A100-SXM4-80GB", "small": False}
    return Setting(**{**fields, "peers_python": "", "folder": pathlib.Path(), **given})


def test_all_parts_come_to_a_row(tmp_path: pathlib.Path) -> None:
    code, out = run(f"--device=cpu --small --out={tmp_path / 'gpu.json'}")
    assert code == 0, out
    found = json.loads((tmp_path / "gpu.json").read_text())
    rows = [Row(**row) for row in found["rows"]]
    assert table(rows) + "\n" == out
    assert {row.part for row in rows} == set(program.PARTS)
    arms = {row.what.split()[-1] for row in rows if row.part == "speed"}
    assert arms == {"lockstep", "fit", "bare"}
    assert {row.value for row in rows if row.part in ("equality", "resume")} == {"0 bits differ"}
    assert found["versions"]["tensorflow"] == tf.__version__


def test_without_a_gpu_it_says_so() -> None:
    code, out = run("--only=doctor", hidden=True)
    assert code == 0
    assert out.startswith("There is no GPU here") and len(out.splitlines()) == 1


def test_what_takes_too_long_is_a_row_and_the_others_go_on() -> None:
    code, out = run("--device=cpu --small --only=doctor,checkpoint --limit=0.1")
    assert code == 70
    assert out.count("failed: it took longer than 0.1 s") == 2


def test_what_raises_is_a_row() -> None:
    argv = ["--device=cpu", "--small"]
    (row,) = program.in_own_process(argv, "checkpoint", "no number", 100)
    assert row.failed and row.value.startswith("failed: ValueError: invalid literal")
    (row,) = program.in_own_process(argv, "loops", "many", 100)
    assert row.failed and "launch.train ended with 2" in row.value


@pytest.mark.parametrize(("last", "value"), [(2.0, "0 bits differ"), (2.0000002, "failed: 1 bit")])
def test_a_bit_that_differs_is_a_failure(tmp_path: pathlib.Path, last: float, value: str) -> None:
    for name, number in (("one", 2.0), ("other", last)):
        variables = {"model": {"w": tf.Variable([1.0, number]), "b": tf.Variable(1.0)}}
        checkpoints = Checkpoints(tmp_path / name / "checkpoints", variables)
        checkpoints.save(5, {})
        checkpoints.wait()
    row = training.compared("equality", "what", tmp_path / "one", tmp_path / "other")
    assert row.value.startswith(value) and row.failed == ("failed" in value)


def test_the_first_gpu_looks_like_four() -> None:
    told = json.loads(run_program(DIVIDED)[-1])
    assert told == [["0"], ["/physical_device:GPU:0", 4], [f"GPU:{n}" for n in range(4)]]


def test_the_gpus_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = Cards("580.1", tuple(Card(n, "NVIDIA H200", 1, 1, (9, 0)) for n in range(2)), True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert program.find("gpu", cards) == (2, "NVIDIA H200")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert program.find("gpu", cards) == (1, "NVIDIA H200")
    with pytest.raises(FailedError, match="nothing tells of"):
        program.find("gpu", Cards(files=True))


def test_the_share_of_the_peak() -> None:
    assert peak_of("NVIDIA A100-SXM4-80GB", "tf32") == 156e12
    assert peak_of("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_of("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_of("Tesla T4", "bfloat16") is None and peak_of("NVIDIA A10G", "tf32") is None
    # MosaicML's decoder: 124 M products of a token, and 12 × 2 × 768 × 2,048 in the attention.
    products = 2048 * (124e6 + 24 * 768 * 2048)
    assert share_of_peak(products, 136_334 / 2048, 312e12) == "42.4 %"
    assert share_of_peak(products, 1.0, None) == "unknown"


def test_a_round_of_the_benchmark_becomes_rows() -> None:
    found = {
        "works": {"lockstep": {}, "fit": {}},
        "rates": [{"lockstep": 2.0, "fit": 1.0}, {"lockstep": 4.0, "fit": 1.0}],
        "facts": {"network": {"products": 2048 * 162e6, "global_batch": 8}},
    }
    ours, fit = speed.rows_of(setting(), found, "decoder_125m", 1, "bfloat16")
    assert ours.value == "49,152 tokens/s" and fit.value == "16,384 tokens/s"
    assert "136,334" in ours.reference and ours.note == "share of peak 15.3 %; batch 8"


def test_what_is_measured_with_several_gpus() -> None:
    cells = speed.cells(setting(count=8))
    assert "resnet50_224:1 float32 bare" in cells and "vit_s16:8 bfloat16 xla" in cells
    assert not any("torch" in cell for cell in cells)
