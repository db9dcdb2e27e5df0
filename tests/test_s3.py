"""Caches in S3: a server of its own that speaks it, reached as any bucket is, by `s3fs` and the AWS variables."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from carried import no_matter, require_whole, take
from command_line import Cli, require_error
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.store import Root
from fa4_precompile.carry.remote import Remote
from fa4_precompile.carry.remote_file import RemoteFile
from fa4_precompile.carry.root import RootSource
from fa4_precompile.carry.tree import TreeSource, push_tree
from fa4_precompile.carry.urls import open_source
from fa4_precompile.errors import CarryError
from product import command
from support import publish_synthetic

pytest.importorskip("moto", reason="the extra `dev` is not installed")
pytest.importorskip("s3fs", reason="the extra `s3` is not installed")

_SERVER = """
import sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def endpoint() -> Iterator[str]:
    """The URL of an S3 server with an empty bucket called `shelf`, set in the environment of this test file."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/shelf", method="PUT")) as answer:
        assert answer.status == 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "synthetic")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "synthetic")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield url
    server.kill()
    server.wait()


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A folder in the bucket that no other test has."""
    return f"s3://shelf/{tmp_path.name}"


@pytest.mark.parametrize("ending", ["/", ".tar.zst"], ids=["tree", "pack"])
def test_s3_carries_a_cache(cli: Cli, tmp_path: Path, name: str, ending: str) -> None:
    publish_synthetic(tmp_path / "origin", 5)
    contents = list_contents(Root(tmp_path / "origin"))
    pushed = json.loads(cli("push", name + ending, "--cache", tmp_path / "origin", "--json").out)
    pulled = json.loads(cli("pull", name + ending, "--cache", tmp_path / "cache", "--json").out)
    require_whole(tmp_path / "cache", contents)
    assert pushed["fingerprint"] == pulled["fingerprint"] == contents.fingerprint
    assert pushed["new_files"] == pulled["new_files"] == len(contents.entries)


def test_s3_gets_only_what_is_new(tmp_path: Path, name: str) -> None:
    publish_synthetic(tmp_path / "origin", 5)
    source = RootSource(Root(tmp_path / "origin"))
    assert push_tree(source, source.contents(), b"signed", Remote(name), no_matter).came == 14
    assert push_tree(source, source.contents(), b"", Remote(name), no_matter).came == 0
    assert TreeSource(Remote(name)).signature() == b""
    publish_synthetic(tmp_path / "origin", 6)
    assert push_tree(source, source.contents(), b"", Remote(name), no_matter).came == 3
    take(TreeSource(Remote(name)), tmp_path / "cache")
    require_whole(tmp_path / "cache", list_contents(Root(tmp_path / "origin")))


def test_s3_file_is_read_in_pieces(name: str) -> None:
    Remote(f"{name}/big").write("", bytes(range(256)))
    file = RemoteFile(Remote(f"{name}/big"))
    assert file.size() == 256
    assert file.read(250, 3) == b"\xfa\xfb\xfc"
    with pytest.raises(CarryError, match="shorter"):
        file.read(250, 30)


def test_s3_bucket_that_is_not_there_is_told_at_once(cli: Cli, synthetic: Path) -> None:
    done = cli("push", "s3://no-such-bucket/kernels", "--cache", synthetic)
    assert "bucket does not exist" in done.err
    assert done.code == 3
    for place in ("s3://no-such-bucket/kernels", "s3://no-such-bucket/kernels.tar.zst"):
        with pytest.raises(CarryError, match="there is no"):
            open_source(place).contents()


def test_s3_without_credentials_says_so(cli: Cli, synthetic: Path) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    assert "no credentials" in require_error(cli("push", "s3://shelf/x", "--cache", synthetic, "--json", **nobody), 3)


@pytest.mark.chance
def test_s3_push_killed_at_any_moment_is_completed_by_the_next(cli: Cli, tmp_path: Path, name: str) -> None:
    publish_synthetic(tmp_path / "origin", 40)
    contents = list_contents(Root(tmp_path / "origin"))
    for tried in range(3):
        moment = random.randrange(len(contents.entries) + 5)
        process = subprocess.Popen(
            command("push", name, "--cache", tmp_path / "origin"),
            env={**os.environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and len(Remote(name).sizes()) < moment:
            time.sleep(0.01)
        process.kill()
        process.wait(300)
        with suppress(CarryError):  # there is none yet
            take(open_source(name), tmp_path / f"cache-{tried}")
            require_whole(tmp_path / f"cache-{tried}", contents)
    assert cli("push", name, "--cache", tmp_path / "origin").code == 0
    take(open_source(name), tmp_path / "cache")
    require_whole(tmp_path / "cache", contents)
