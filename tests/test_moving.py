"""How carrying is shown: a line when it begins and now and then in a log, a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from fa4_precompile.cache.contents import Contents, Entry
from fa4_precompile.commands import moving
from fa4_precompile.commands.moving import Moving


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_says_how_much_there_is_when_something_moves() -> None:
    out = io.StringIO()
    shown = Moving("pushing", out)
    shown.expect(3, 5_000_000)
    assert out.getvalue() == ""
    shown.moved(2_000_000)
    shown.moved(3_000_000)
    shown.finish()
    assert out.getvalue() == "pushing: 3 files, 5.0 MB\n"


def test_log_says_now_and_then_how_much_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_QUIET_S", 0.0)
    out = io.StringIO()
    shown = Moving("pulling", out)
    shown.expect(3, 5_000_000)
    shown.moved(2_000_000)
    assert out.getvalue().splitlines()[-1] == "pulling: 2.0 MB of 5.0 MB"


def test_bar_on_a_terminal_has_all_bytes_in_the_end() -> None:
    out = _Terminal()
    shown = Moving("pulling", out)
    shown.expect(1, 1_000)
    shown.show()
    shown.expect(2, 4_000)
    shown.moved(5_000)
    shown.finish()
    assert "5.00k/5.00k" in out.getvalue()


def test_what_is_done_here_is_shown_only_if_there_is_enough_to_wait_for(capsys: pytest.CaptureFixture[str]) -> None:
    for size in (1_000, 100_000_000):
        with moving.progress("packing", Contents.of([Entry("blobs/one", "0" * 64, size)])) as arrived:
            arrived(size)
    assert capsys.readouterr().err == "packing: 1 file, 100.0 MB\n"
