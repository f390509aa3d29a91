"""GPUs of every kind, and drivers that do not go with them; no GPU is needed."""

import dataclasses
import pathlib
import types

import pytest

from launch.checks.cards import Card, Cards, card_findings, find_cards, from_nvml, from_smi
from launch.checks.finding import ERROR, NOTE, OK, WARNING, Finding
from tests.launch.checks.fake_cuda import fake_smi

A100 = Card(0, "A100", 40 << 30, 40 << 30, (8, 0), persistent=True, links=12)
H100 = dataclasses.replace(A100, name="H100", capability=(9, 0))
B200 = dataclasses.replace(A100, name="B200", capability=(10, 0))


def cards(*of: Card, driver: str = "570.86.15") -> Cards:
    return Cards(driver, of, True, "nvidia-ml-py")


def only(findings: list[Finding], status: str) -> Finding:
    (found,) = [finding for finding in findings if finding.status == status]
    return found


def test_nothing_is_wrong_with_two_good_cards() -> None:
    found = card_findings(cards(A100, dataclasses.replace(A100, number=1)))
    assert {finding.status for finding in found} == {OK}
    assert (
        "GPU 1 (A100): 40 GiB, 40 free, compute capability 8.0, which has compiled kernels, "
        "12 NVLinks" in [finding.text for finding in found]
    )


def test_no_gpu_is_said_and_is_no_error() -> None:
    (found,) = card_findings(Cards())
    assert found.status == NOTE and "no GPU" in found.text
    (found,) = card_findings(Cards("570.86.15", (A100,), True, asked=False))
    assert found.status == NOTE and "--device=cpu" in found.text


def test_device_files_without_a_driver() -> None:
    found = card_findings(Cards(files=True, why="Driver/library version mismatch"))
    wrong = only(found, ERROR)
    assert "Driver/library version mismatch" in wrong.text and "restart" in wrong.advice


@pytest.mark.parametrize(
    ("card", "driver", "said"),
    [
        (A100, "520.61.05", "older than 525.60.13, the first for CUDA 12"),
        (H100, "535.104.5", "cannot compile the kernels of TensorFlow 2.21 for GPU 0 (H100)"),
        (B200, "550.54.14", "takes 555.42.02 or later"),
    ],
)
def test_a_driver_that_is_too_old(card: Card, driver: str, said: str) -> None:
    wrong = only(card_findings(cards(card, driver=driver)), ERROR)
    assert said in wrong.text and wrong.advice == "update NVIDIA's driver"


def test_the_same_driver_does_for_a_card_with_compiled_kernels() -> None:
    assert {finding.status for finding in card_findings(cards(A100, driver="535.104.5"))} == {OK}


def test_hopper_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_CACHE_PATH", "/somewhere/kept")
    found = only(card_findings(cards(H100)), NOTE)
    assert "kernels are being compiled for GPU 0 (H100) once, up to 30 minutes" in found.text
    assert found.text.endswith("the cache lies in /somewhere/kept")
    monkeypatch.setenv("CUDA_CACHE_DISABLE", "1")
    found = only(card_findings(cards(H100)), WARNING)
    assert "at every start" in found.text and found.advice == "unset CUDA_CACHE_DISABLE"


def test_blackwell_is_by_ptx_or_not_at_all() -> None:
    found = only(card_findings(cards(B200)), WARNING)
    assert "10.0 is newer than TensorFlow 2.21" in found.text
    assert "compiled for GPU 0 (B200) once" in found.text
    assert "CUDA_ERROR_INVALID_PTX" in found.advice


def test_a_card_that_is_too_old() -> None:
    old = dataclasses.replace(A100, name="M40", capability=(5, 2))
    wrong = only(card_findings(cards(old)), ERROR)
    assert "5.2" in wrong.text and "6.0, 7.0, 8.0, 8.9" in wrong.text


@pytest.mark.parametrize(
    ("change", "status", "said", "advice"),
    [
        ({"mig": True}, WARNING, "divided by MIG", "sudo nvidia-smi -i 0 -mig 0"),
        ({"persistent": False}, NOTE, "forgets", "sudo nvidia-smi -pm 1"),
        ({"free": 30 << 30}, WARNING, "10 GiB of GPU 0 (A100) are in use", "nvidia-smi"),
    ],
)
def test_a_card_in_a_state_to_know_of(
    change: dict[str, bool | int], status: str, said: str, advice: str
) -> None:
    found = only(card_findings(cards(dataclasses.replace(A100, **change))), status)
    assert said in found.text and advice in found.advice


@pytest.mark.parametrize(("memory", "used"), [(40 << 30, 2 << 30), (4 << 30, 700 << 20)])
def test_what_a_display_takes_of_a_card_is_not_worth_a_word(memory: int, used: int) -> None:
    card = dataclasses.replace(A100, memory=memory, free=memory - used)
    assert {finding.status for finding in card_findings(cards(card))} == {OK}


def test_one_card_without_its_links_slows_all() -> None:
    found = card_findings(cards(A100, dataclasses.replace(A100, number=1, links=0)))
    assert "not in use" in only(found, WARNING).text


@pytest.mark.parametrize(
    ("change", "said"),
    [({"links": 0}, "not in use"), ({"links": None}, "no NVLink"), ({"name": "L4"}, "differ")],
)
def test_cards_that_meet_badly(change: dict[str, int | str | None], said: str) -> None:
    other = dataclasses.replace(A100, number=1, **change)
    first = other if "links" in change else A100
    found = card_findings(cards(dataclasses.replace(first, number=0), other))
    assert any(said in finding.text for finding in found if finding.status != OK)


class NVMLError(Exception):
    pass


def nvml(**other: object) -> types.SimpleNamespace:
    """A pynvml for two A100, one with MIG; it has no NVLinks, and cannot tell of persistence."""

    def unknown(*arguments: object) -> None:
        raise NVMLError("Not Supported")

    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlSystemGetDriverVersion": lambda: "570.86.15",
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetName": lambda _: "A100",
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(total=40 << 30, free=39 << 30),
        "nvmlDeviceGetCudaComputeCapability": lambda _: (8, 0),
        "nvmlDeviceGetMigMode": lambda number: [number, number],
        "nvmlDeviceGetNvLinkState": unknown,
        "nvmlDeviceGetPersistenceMode": unknown,
        "nvmlDeviceGetCurrPcieLinkGeneration": lambda _: 4,
        "nvmlDeviceGetCurrPcieLinkWidth": lambda _: 16,
    }
    return types.SimpleNamespace(NVMLError=NVMLError, **(functions | other))


def test_what_nvml_tells() -> None:
    found = from_nvml(nvml())
    assert found.driver == "570.86.15" and [card.mig for card in found.cards] == [False, True]
    (first, _) = found.cards
    assert first == Card(0, "A100", 40 << 30, 39 << 30, (8, 0), pcie="PCIe 4.0 ×16")


def test_what_nvidia_smi_tells_where_nvml_is_not_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi(tmp_path, "0, NVIDIA A100-SXM4-40GB, 40960, 40000, 8.0, Enabled, Disabled")
    (card,) = from_smi(str(tmp_path / "nvidia-smi")).cards
    assert card == Card(
        0, "NVIDIA A100-SXM4-40GB", 40960 << 20, 40000 << 20, (8, 0), mig=True, persistent=False
    )
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    found = find_cards()
    assert found.source == "nvidia-smi" and found.cards == (card,)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho it failed\nexit 9\n")
    assert find_cards().cards == ()
