"""Pages, looked at in a real browser: readable on a phone and in the dark, and nothing in them that was not meant.

The pictures are in `build/pages`, to be looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser
import pytest
from browser import PHONE, SCREEN, look
from reported import MISSED, make_line, varied_cache

from checkout import ROOT
from fa4_precompile.cache.certificates import Certificates
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.origins import Origins
from fa4_precompile.cache.store import Root
from fa4_precompile.loader.line import Line, ServedRoot
from fa4_precompile.loader.stats import Missed, Slow
from fa4_precompile.reports.cache_page import CachePage, Row
from fa4_precompile.reports.coverage import Column, mask_of, matrices
from fa4_precompile.reports.html import element, page
from fa4_precompile.reports.job import JobReport
from fa4_precompile.reports.job_page import job_page
from fa4_precompile.reports.read import Fault, Told
from support import make_manifest

_in_a_browser = pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium here")

# What breaks out of a text, an attribute, a style or a comment, if something is not escaped where it must be.
_HOSTILE = "\"'><script>document.title=1</script><img src=x onerror=alert(1)></style><!-- --> &lt; \u202e\0\ud800 ]]>"


def _lines(cache: Path) -> list[Line]:
    """Return the lines of 64 ranks: one is missing, three missed a kernel, eight were killed."""
    kernels = [record.id for record in varied_cache(cache) if record.arch == "sm_100a"][:20]
    lines = []
    for rank in range(64):
        slow = [Slow(kernels[rank % 20], "fwd", 0.0005 * (1 + rank % 16))]
        line = make_line(rank, 64, job="8123", kernels=kernels, slowest=slow, ended=rank % 8 != 3)
        if rank in (5, 6, 7):
            line = make_line(rank, 64, job="8123", kernels=kernels, missed={"absent": 1}, misses=[MISSED])
        if rank != 40:
            lines.append(line)
    return lines


def _page_of_a_job(folder: Path) -> str:
    report = JobReport.of(Told(_lines(folder / "kernels"), [Fault("out.jsonl", 7, "is no line of a report")]))
    return job_page(report, _manifests(folder / "kernels"))


def _page_of_a_job_that_was_served(folder: Path) -> str:
    return job_page(JobReport.of(Told([make_line(rank, 8) for rank in range(8)], [])))


def _page_of_a_cache(folder: Path) -> str:
    cache = Root(folder / "kernels")
    records = varied_cache(cache.path)
    origins, certificates = Origins(cache), Certificates(cache)
    rows = [Row.of(record, origins.whole(record), certificates.of(record)) for record in records]
    return CachePage(str(cache.path), "f" * 64, rows, _manifests(cache.path), []).render()


def _page_of_hostile_names(_folder: Path) -> str:
    call = {"pass": _HOSTILE, "head_dim": _HOSTILE, _HOSTILE: _HOSTILE}
    miss = Missed(_HOSTILE, _HOSTILE, _HOSTILE, call, _HOSTILE)
    roots = [ServedRoot(_HOSTILE, _HOSTILE)]
    slow = [Slow(_HOSTILE, _HOSTILE, 1.0)]
    changes: dict[str, Any] = {"missed": {_HOSTILE: 1}, "misses": [miss], "roots": roots, "slowest": slow}
    line = make_line(3, 8, host=_HOSTILE, job=_HOSTILE, started=_HOSTILE, time=_HOSTILE, **changes)
    nobody = make_line(None, host=_HOSTILE, job=_HOSTILE, **changes)
    report = JobReport.of(Told([line, nobody], [Fault(_HOSTILE, 1, _HOSTILE)]))
    manifest = make_manifest(spec=_HOSTILE, failed={_HOSTILE: _HOSTILE}, left={_HOSTILE: _HOSTILE})
    row = Row(_HOSTILE, _HOSTILE, _HOSTILE, 1, 1, 1, 1.0, _HOSTILE)
    cache = CachePage(_HOSTILE, _HOSTILE, [row], [manifest], [_HOSTILE])
    return job_page(report, [manifest]) + cache.render()


_PAGES = pytest.mark.parametrize(
    "make", [_page_of_a_job, _page_of_a_job_that_was_served, _page_of_a_cache, _page_of_hostile_names]
)
_Make = Callable[[Path], str]


def _manifests(cache: Path) -> list[Manifest]:
    return [one for one in Root(cache).manifests() if isinstance(one, Manifest)]


# What is in a page


def test_text_is_escaped_in_elements_and_attributes() -> None:
    assert element("p", "<b>&'\"", title="<b>\"'&") == (
        '<p title="&lt;b&gt;&quot;&#x27;&amp;">&lt;b&gt;&amp;&#x27;&quot;</p>'
    )
    assert element("p", element("b", "x"), ["y", None], id=None) == "<p><b>x</b>y</p>"


def test_page_forbids_itself_to_load_and_to_run_anything() -> None:
    made = page("title", "text")
    assert 'content="default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;"' in made
    assert "http://" not in made
    assert "https://" not in made


@_PAGES
def test_page_is_text_that_a_file_can_hold_with_no_address_in_it(tmp_path: Path, make: _Make) -> None:
    made = make(tmp_path)
    made.encode()
    assert "<script" not in made
    assert "<img" not in made
    assert "://" not in made
    assert "\0" not in made


def test_matrix_has_what_was_built_missed_and_excluded_where_one_looks_for_it(tmp_path: Path) -> None:
    report = JobReport.of(Told(_lines(tmp_path / "kernels"), []))
    hopper, blackwell = sorted(matrices(_manifests(tmp_path / "kernels"), report.misses), key=lambda one: one.arch)[
        ::-1
    ]
    assert (hopper.arch, blackwell.arch) == ("sm_90a", "sm_100a")
    assert blackwell.rows == ["64", "96", "128", "192, 128", "256"]
    assert blackwell.columns[:2] == [Column("fwd", "full"), Column("fwd", "causal")]
    assert len(blackwell.cells["128", Column("fwd", "full")].kernels) == 1
    assert blackwell.cells["96", Column("bwd", "causal")].missed == report.misses
    assert ("96", Column("bwd", "full")) not in blackwell.cells
    (reason,) = blackwell.cells["256", Column("bwd", "sparse")].excluded.values()
    assert reason == "block sparsity with head_dim 256 is not supported"


@pytest.mark.parametrize(
    ("call", "mask"),
    [
        ({}, "full"),
        ({"causal": False, "window": None}, "full"),
        ({"causal": True, "sparse": {"q_block": 128}}, "causal sparse"),
        ({"window": [0, 0]}, "window"),
    ],
)
def test_mask_of_a_call(call: dict[str, object], mask: str) -> None:
    assert mask_of(call) == mask


def test_cell_of_the_page_says_by_how_many_a_kernel_was_missed_and_used(tmp_path: Path) -> None:
    made = _page_of_a_job(tmp_path)
    assert '<td class="cell-missed">\N{MULTIPLICATION SIGN} missed<small>by 3</small></td>' in made
    assert "<small>used by 63</small>" in made
    assert "<small>not used</small>" in made
    assert 'title="rank 40: not heard from"' in made
    assert 'title="rank 3: has not said that it ended (node-0)"' in made


def test_page_of_twenty_thousand_kernels_and_ranks_stays_a_page_that_a_browser_opens() -> None:
    row = Row("a" * 12, "fwd for sm_100a, 2-CTA 128x128", "pass=fwd head_dim=64", 10**5, 128, 0, 2.0, "")
    assert len(CachePage("/cache", "", [row] * 20_000, [], []).render()) < 6 << 20
    lines = [make_line(rank, 20_000, missed={"absent": 1}, misses=[MISSED], host=f"n{rank}") for rank in range(10_000)]
    assert len(job_page(JobReport.of(Told(lines, [])))) < 2 << 20


# What a browser makes of it


@_in_a_browser
@_PAGES
@pytest.mark.parametrize("width", [PHONE, SCREEN], ids=["phone", "screen"])
def test_page_fits_the_window_loads_nothing_and_has_no_element_that_was_not_meant(
    tmp_path: Path, make: _Make, width: int
) -> None:
    seen = look(make(tmp_path), tmp_path, width)
    assert seen.width <= width
    assert seen.loads == 0
    assert {"script", "img", "link", "iframe", "a"} & {*seen.names} == set()


@_in_a_browser
def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    seen = look(_page_of_hostile_names(tmp_path), tmp_path, SCREEN)
    assert "<script>document.title=1</script><img src=x onerror=alert(1)>" in seen.text


@_in_a_browser
def test_page_is_dark_by_night(tmp_path: Path) -> None:
    made = _page_of_a_job_that_was_served(tmp_path)
    day, night = look(made, tmp_path, SCREEN), look(made, tmp_path, SCREEN, dark=True)
    assert _light(day.ground) > 0.9 > 0.2 > _light(day.ink)
    assert _light(night.ground) < 0.15 < 0.8 < _light(night.ink)


@_in_a_browser
@pytest.mark.parametrize("dark", [False, True], ids=["day", "night"])
@pytest.mark.parametrize("width", [PHONE, SCREEN], ids=["phone", "screen"])
@pytest.mark.parametrize("make", [_page_of_a_job, _page_of_a_cache])
def test_picture_of_a_page_is_made(tmp_path: Path, make: _Make, width: int, dark: bool) -> None:
    name = f"{make.__name__.removeprefix('_page_of_a_')}-{width}-{'night' if dark else 'day'}.png"
    folder = ROOT / "build" / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    made = tmp_path / name
    browser.picture(make(tmp_path), made, width, 2400, dark)
    data = made.read_bytes()
    shown, _height = struct.unpack(">II", data[16:24])
    assert shown >= width
    assert len(data) > 50_000  # an empty one has a tenth of it
    made.replace(folder / name)


def _light(color: str) -> float:
    """Return how light a color is, from 0 to 1."""
    parts = [float(part) for part in color[color.index("(") + 1 : color.index(")")].split(",")[:3]]
    return sum(parts) / 3 / 255
