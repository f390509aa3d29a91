"""launch.doctor as it is called: on this machine, and on one that is faked."""

import json
import os
import pathlib
import signal
import time
from types import SimpleNamespace

import pytest

from launch import doctor
from tests.helpers import REPOSITORY, call, finish, start
from tests.launch.checks.fake_cuda import fake_driver, fake_smi, needs_compiler

A100 = "0, NVIDIA A100-SXM4-40GB, 40960, 40000, 8.0, Disabled, Enabled"
B200 = "0, NVIDIA B200, 184320, 184000, 10.0, Disabled, Enabled"


def test_what_works_here_is_said(tmp_path: pathlib.Path) -> None:
    ended = finish(start("--json --device=cpu", tmp_path, module="launch.doctor"))
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)  # and nothing else is printed
    assert said["would_train"]
    found = {finding["topic"]: finding for finding in said["findings"]}
    for topic in ("versions", "disk", "memory", "all-reduce", "decoding", "training"):
        assert found[topic]["status"] in ("ok", "note", "warning"), found[topic]
    assert "every number is right" in found["all-reduce"]["text"]
    assert "JPEGs of 500×375" in found["decoding"]["text"]
    trained = [f["text"] for f in said["findings"] if f["topic"] == "training"]
    assert [text[:22] for text in trained] == ["20 steps on 1 CPU repl", "20 steps on 2 CPU repl"]
    assert said["facts"]["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert said["facts"]["installed"]["packages"]["tensorflow"].startswith("2.21.")
    # What it is doing, and none of TensorFlow's noise.
    assert all(line.endswith(" …") for line in ended.err.splitlines()), ended.err
    assert not list(tmp_path.iterdir())


def test_a_table_within_80_columns_and_what_a_bug_report_needs(tmp_path: pathlib.Path) -> None:
    ended = call("--quick --device=cpu", tmp_path, module="launch.doctor")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "nothing that was looked at stands against training here"
    for name in ("versions", "left out", "Lockstep", "Python", "system", "tensorflow"):
        assert any(line.startswith(f"{name} ") for line in lines), name


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--device=tpu", "--device=tpu is unknown"),
        ("--all_reduce=fast", "--all_reduce=fast is unknown"),
        ("--sum_within=0", "--sum_within"),
        ("now", "unexpected argument 'now'"),
    ],
)
def test_a_wrong_command_is_a_sentence(tmp_path: pathlib.Path, flags: str, said: str) -> None:
    ended = call(flags, tmp_path, module="launch.doctor")
    assert ended.code == 2 and ended.out == ""
    assert ended.err.startswith("error: ") and said in ended.err


def test_what_is_tried_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(doctor, "try_to_sum", lambda *how: asked.append(how) or [])
    monkeypatch.setattr(doctor, "train_a_little", lambda *how: asked.append(how) or [])
    monkeypatch.setattr(doctor, "decode", lambda cores: cores)
    monkeypatch.setattr(doctor.cli, "import_tensorflow", lambda _: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # which it changes
    values = SimpleNamespace(all_reduce="ring", sum_within=5)
    for gpus in (2, 0):
        assert list(doctor.try_out(gpus, 4, values)) == [4]
    assert asked == [
        ("GPU", 2, "ring", 5),
        ("GPU", 2, "ring"),
        ("CPU", 2, "ring", 5),
        ("CPU", 1, "ring"),
        ("CPU", 2, "ring"),
    ]


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--helpfull"]) == 0
    text = capsys.readouterr().out
    assert "python -m launch.doctor" in text and max(map(len, text.splitlines())) <= 80


def test_ctrl_c_is_no_traceback(tmp_path: pathlib.Path) -> None:
    process = start("--device=cpu", tmp_path, module="launch.doctor")
    assert "looking at the machine" in process.stderr.readline()
    time.sleep(1)  # wherever it then is
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 75 and "Traceback" not in ended.err
    assert ended.err.endswith("stopped before its end\n")


def on_fake(folder: pathlib.Path, card: str, driver: str, **told: str) -> tuple[int, str]:
    """What the doctor says, in one line, of a machine with this card and these fakes of CUDA."""
    fake_smi(folder, card, driver)
    environment = {
        "LD_LIBRARY_PATH": str(folder),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        **told,
    }
    ended = finish(start("--quick", folder, environment, module="launch.doctor"))
    assert "Traceback" not in ended.err, ended.err
    return ended.code, " ".join(ended.out.split())


@needs_compiler
def test_libraries_that_are_missing_beside_a_driver(tmp_path: pathlib.Path) -> None:
    fake_driver(tmp_path)
    code, said = on_fake(tmp_path, A100, "570.86.15")
    assert code == 70 and "training would not work here as asked" in said
    assert "GPU 0 (NVIDIA A100-SXM4-40GB): 40 GiB" in said
    assert "9 libraries could not be opened" in said
    assert "libcudnn.so.9 (nvidia-cudnn-cu12)" in said
    assert "there are GPUs, but TensorFlow finds none that it can use" in said


@needs_compiler
def test_a_driver_of_another_version_than_its_library(tmp_path: pathlib.Path) -> None:
    fake_driver(tmp_path)
    code, said = on_fake(tmp_path, A100, "570.86.15", FAKE_INIT="803")
    assert code == 70 and "CUDA does not start: the driver in the kernel and its library" in said


def test_a_driver_that_is_too_old_for_blackwell(tmp_path: pathlib.Path) -> None:
    code, said = on_fake(tmp_path, B200, "535.104.5")
    assert code == 70 and "driver 535.104.5 cannot compile the kernels of TensorFlow 2.21" in said
    assert "compute capability 10.0 is newer than TensorFlow 2.21" in said


def test_a_gpu_that_is_asked_for_and_not_there(tmp_path: pathlib.Path) -> None:
    ended = finish(start("--quick --device=gpu", tmp_path, module="launch.doctor"))
    assert ended.code == 70 and "TensorFlow finds no GPU that it can use" in ended.out
