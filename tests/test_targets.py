"""Device profiles: the shipped ones, those that a spec writes itself, and what may not be guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4_precompile.cache import layout
from fa4_precompile.cache.target import Target, host_machine, sm_number
from fa4_precompile.errors import SpecError, UsageError
from fa4_precompile.precompile.spec.spec import target_book
from fa4_precompile.precompile.spec.targets import TargetBook
from fa4_precompile.text.yaml_source import read_yaml

BOOK = target_book()

_NAME = "the name of a target is of letters, digits, `-` and `_`, 64 at most"


def _parse(text: str) -> Target:
    return BOOK.parse(read_yaml("spec.yaml", text))


@pytest.mark.parametrize("name", sorted(BOOK.profiles))
def test_shipped_profile_is_complete_or_asks_for_its_sms(name: str) -> None:
    profile = BOOK.profiles[name]
    if profile.sms is None:
        with pytest.raises(UsageError, match=f"SMs of `{name}`") as caught:
            BOOK.get(name)
        assert "sms: NUMBER" in caught.value.hint
        return
    target = BOOK.get(name)
    assert target.name == name
    assert target.arch.endswith("a")
    assert f"sm_{target.sm}a" == target.arch
    assert target.cuda in (12, 13)
    assert target.machine in (profile.machine, host_machine())


def test_shipped_profiles_of_the_documented_devices_are_there() -> None:
    assert BOOK.get("b200") == Target("b200", "sm_100a", 148, 13, host_machine())
    assert BOOK.get("gb200").machine == "aarch64"
    assert BOOK.get("thor").arch == "sm_110a"


def test_get_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="there is no target `b20`") as caught:
        BOOK.get("b20")
    assert caught.value.hint.startswith("did you mean `b200`? allowed: b200, b300, ")


def test_parse_longest_name_is_taken_and_its_files_can_be_made(tmp_path: Path) -> None:
    target = _parse(f"{{name: {'x' * 64}, arch: sm_100a, sms: 1}}")
    path = layout.manifest_path("0" * 32, "0" * 64, target)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()


def test_parse_name_takes_the_shipped_profile() -> None:
    assert _parse("b200") == BOOK.get("b200")


def test_parse_base_takes_what_is_not_said_otherwise() -> None:
    assert _parse("{base: b200, sms: 74}") == Target("b200", "sm_100a", 74, 13, host_machine())
    assert _parse("{base: gb200, name: mine, cuda: 12}") == Target("mine", "sm_100a", 152, 12, "aarch64")
    assert _parse("{base: gh200, sms: 132}") == Target("gh200", "sm_90a", 132, 13, "aarch64")


def test_parse_whole_profile_of_an_unknown_device() -> None:
    assert _parse("{name: new, arch: sm_130a, sms: 200, machine: aarch64}") == Target(
        "new", "sm_130a", 200, 13, "aarch64"
    )


@pytest.mark.parametrize(
    ("text", "column", "message", "hint"),
    [
        ("b20", 1, "there is no target `b20`", "did you mean `b200`? allowed: "),
        ("100", 1, "there is no target `100`", ""),
        ("[b200]", 1, "expected one value, found a list", ""),
        (
            "h100-pcie",
            1,
            "no source is known for the number of SMs of `h100-pcie`",
            "write `{base: h100-pcie, sms: NUMBER}`",
        ),
        ("{base: b20}", 8, "there is no target `b20`", "did you mean `b200`?"),
        ("{bas: b200}", 2, "unknown key `bas` in a target", "did you mean `base`?"),
        ("{base: b200, base: b300}", 14, "duplicate key `base` in a target", ""),
        ("{arch: sm_100a, sms: 1}", 1, "a target needs a name", "add `name:` or `base:`"),
        ("{name: a/b, arch: sm_100a, sms: 1}", 8, _NAME, ""),
        ("{name: ../up, arch: sm_100a, sms: 1}", 8, _NAME, ""),
        ("{name: '', arch: sm_100a, sms: 1}", 8, _NAME, ""),
        (f"{{name: {'x' * 65}, arch: sm_100a, sms: 1}}", 8, _NAME, ""),
        ("{name: b\u00fc, arch: sm_100a, sms: 1}", 8, _NAME, ""),
        ("{name: 7, arch: sm_100a, sms: 1}", 1, "a target needs a name", ""),
        ("{name: x, sms: 1}", 1, "target `x` has no `arch`", "for example `arch: sm_100a`"),
        ("{name: x, arch: sm_100a}", 1, "no source is known for the number of SMs of `x`", ""),
        ("{base: b200, arch: blackwell}", 20, "`blackwell` is no CUDA arch such as sm_100a", ""),
        ("{base: b200, arch: 100}", 20, "`100` is no CUDA arch such as sm_100a", ""),
        ("{base: b200, arch: sm_100x}", 20, "`sm_100x` is no CUDA arch such as sm_100a", ""),
        ("{base: b200, sms: 0}", 19, "`sms` can't be `0`", "allowed: an integer from 1 to 1024"),
        ("{base: b200, sms: true}", 19, "`sms` can't be `true`", "allowed: an integer from 1 to 1024"),
        ("{base: b200, sms: '148'}", 19, "`sms` can't be the text `148`", "allowed: an integer from 1 to 1024"),
        ("{base: b200, cuda: 11}", 20, "`cuda` can't be `11`", "allowed: an integer from 12 to 13"),
        ("{base: b200, machine: arm64}", 23, "`machine` can't be `arm64`", "allowed: x86_64, aarch64"),
    ],
)
def test_parse_mistake_names_place_and_what_is_allowed(text: str, column: int, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        _parse(text)
    assert (caught.value.line, caught.value.column) == (1, column)
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


def test_book_mistake_in_a_profile_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "targets.yaml"
    path.write_text("one: {arch: sm_90a}\ntwo: {sms: 3}\n")
    with pytest.raises(SpecError, match="target `two` has no `arch`") as caught:
        TargetBook(path)
    assert str(caught.value).startswith(f"{path}:2:6: ")


@pytest.mark.parametrize(("arch", "number"), [("sm_90a", 90), ("sm_100a", 100), ("sm_103f", 103), ("sm_121", 121)])
def test_sm_number_is_that_of_the_arch(arch: str, number: int) -> None:
    assert sm_number(arch) == number


@pytest.mark.parametrize("arch", ["", "sm_", "100", "sm_100b", "sm_100a ", "compute_100a", "sm_\uff11\uff10\uff10a"])
def test_sm_number_what_is_no_arch_is_refused(arch: str) -> None:
    with pytest.raises(ValueError, match="no CUDA arch"):
        sm_number(arch)
