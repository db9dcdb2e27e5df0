"""`targets`: the device profiles that are shipped, or those of this machine's GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from ..cache.target import host_machine
from ..errors import MachineError
from ..precompile.spec.spec import target_book
from ..precompile.spec.targets import Profile
from ..providers.dsl.driver import detect_driver
from .output import note, print_json, print_lines


def targets(as_json: bool) -> None:
    """List the shipped profiles."""
    profiles = list(target_book().profiles.values())
    if as_json:
        print_json([vars(profile) for profile in profiles])
    else:
        print_lines(map(_line, profiles))


def detect(as_json: bool) -> None:
    """Print a profile for each GPU of this machine. Raises `MachineError` if there is none."""
    driver = detect_driver()
    if driver is None or not driver.devices:
        raise MachineError("no NVIDIA GPU is visible here", "run it on the machine that the job will run on")
    profiles = [
        {"name": f"gpu{device.index}", "arch": device.arch, "sms": device.sms, "device": device.name}
        for device in driver.devices
    ]
    if as_json:
        print_json(profiles)
        return
    print_lines(_yaml_lines(profiles))
    note("lines for the `targets` of a spec; add `cuda: 12` if the job's torch is built for CUDA 12")


def _line(profile: Profile) -> str:
    sms = f"{profile.sms} SMs" if profile.sms else "give `sms:`"
    host = profile.machine or host_machine()
    return f"{profile.name:14} {profile.arch:8} {sms:12} CUDA {profile.cuda}  {host:8} {profile.shown}".rstrip()


def _yaml_lines(profiles: list[dict[str, object]]) -> Iterator[str]:
    for profile in profiles:
        yield f"- {{name: {profile['name']}, arch: {profile['arch']}, sms: {profile['sms']}}}  # {profile['device']}"
