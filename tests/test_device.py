"""Which device a job's kernels are for: what the driver says, and what the environment says where there is none."""

from __future__ import annotations

import ctypes

import pytest

from fa4_precompile.errors import MachineError
from fa4_precompile.loader import device as device_module
from fa4_precompile.loader.device import job_device
from fa4_precompile.providers.dsl.driver import Device, Driver, detect_driver
from fa4_precompile.providers.fa4.switches import SMS

_B200 = Device(0, "NVIDIA B200", "sm_100a", 148)
_H100 = Device(1, "NVIDIA H100", "sm_90a", 132)


def _machine(monkeypatch: pytest.MonkeyPatch, *devices: Device) -> None:
    """Be a machine with these GPUs."""
    monkeypatch.setattr(device_module, "detect_driver", lambda: Driver("13.0", devices))


@pytest.fixture(params=["no driver", "a driver and no GPU"])
def no_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a machine without a GPU."""
    driver = None if request.param == "no driver" else Driver("13.0", ())
    monkeypatch.setattr(device_module, "detect_driver", lambda: driver)


def test_job_device_is_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _H100)
    assert job_device(SMS, {}) == _H100
    assert job_device(SMS, {}).present


def test_job_device_of_equal_gpus_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _B200, Device(1, "NVIDIA B200", "sm_100a", 148))
    assert job_device(SMS, {}) == _B200


def test_job_device_of_gpus_that_differ_in_name_only_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _B200, Device(1, "NVIDIA B200 of another batch", "sm_100a", 148))
    assert job_device(SMS, {}) == _B200


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_H100, ["sm_100a with 148 SMs", "sm_90a with 132 SMs"]),
        (Device(1, "NVIDIA B200 MIG 1g", "sm_100a", 18), ["sm_100a with 148 SMs", "sm_100a with 18 SMs"]),
    ],
    ids=["arch", "SMs"],
)
def test_job_device_of_gpus_that_differ_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch, other: Device, words: list[str]
) -> None:
    # FA4 remembers a kernel by its key: the first GPU's would be launched on the second.
    _machine(monkeypatch, _B200, other)
    with pytest.raises(MachineError) as caught:
        job_device(SMS, {})
    assert all(word in str(caught.value) for word in words)
    assert "CUDA_VISIBLE_DEVICES" in caught.value.hint


def test_job_device_of_gpus_that_differ_is_an_error_whatever_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _B200, _H100)
    with pytest.raises(MachineError):
        job_device(SMS, {"CUTE_DSL_ARCH": "sm_90a"})


def test_job_device_follows_the_variable_that_the_dsl_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _B200)
    device = job_device(SMS, {"CUTE_DSL_ARCH": "sm_100f", "FLASH_ATTENTION_NUM_SMS": "7"})
    assert (device.arch, device.sms, device.name, device.present) == ("sm_100f", 148, "NVIDIA B200", True)
    assert job_device(SMS, {"CUTE_DSL_ARCH": ""}) == _B200


@pytest.mark.usefixtures("no_gpu")
def test_job_device_without_a_gpu_is_what_the_environment_says() -> None:
    device = job_device(SMS, {"CUTE_DSL_ARCH": "sm_100a", "FLASH_ATTENTION_NUM_SMS": "148"})
    assert (device.arch, device.sms, device.present) == ("sm_100a", 148, False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("value", ["", "many", "-1", "1.5"])
def test_job_device_without_a_gpu_whose_number_of_sms_nobody_says_has_none(value: str) -> None:
    assert job_device(SMS, {"CUTE_DSL_ARCH": "sm_100a", "FLASH_ATTENTION_NUM_SMS": value}).sms == 0


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("environment", [{}, {"CUTE_DSL_ARCH": ""}, {"FLASH_ATTENTION_NUM_SMS": "148"}], ids=str)
def test_job_device_without_a_gpu_and_without_a_word_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(MachineError, match="no NVIDIA GPU is visible here, and `CUTE_DSL_ARCH` names no arch"):
        job_device(SMS, environment)


@pytest.mark.usefixtures("no_gpu")
def test_job_device_reads_the_process_where_no_mapping_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTE_DSL_ARCH", "sm_90a")
    monkeypatch.setenv("FLASH_ATTENTION_NUM_SMS", "132")
    assert (job_device(SMS).arch, job_device(SMS).sms) == ("sm_90a", 132)


def test_detect_driver_where_there_is_no_driver_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert detect_driver() is None
