"""The downloader against a server on this machine: whole, interrupted, resumed, wrong, and without Range."""

import dataclasses
import hashlib
import http.server
import io
import re
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from shvc_lib import data, download
from shvc_lib.errors import DownloadFailed, InvalidInput, MissingData

CONTENT = np.random.default_rng(5).integers(0, 256, 700_000, dtype=np.uint8).tobytes()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files; server.stop_after cuts each answer short; server.ranges says whether Range is honoured."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        body = server.files.get(self.path)
        if server.failures:
            return self.send_error(server.failures.pop(0))
        if body is None:
            return self.send_error(404)
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "") if server.ranges else None
        first = int(start[1]) if start else 0
        if start and first >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        self.wfile.write(body[first:] if server.stop_after is None else body[first : first + server.stop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SHVC_DATA", raising=False)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests, server.failures = {"/file": CONTENT}, [], []
        server.stop_after, server.ranges = None, True
        server.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_whole(server, tmp_path):
    path = download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert path.read_bytes() == CONTENT and server.requests == [None]
    assert not (tmp_path / "file.part").exists()


def test_interrupted_then_resumed_by_the_next_call(server, tmp_path):
    server.stop_after = 100_000
    with pytest.raises(DownloadFailed, match="0.5 MB are kept, the same command goes on") as error:
        download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert "\n" not in str(error.value) and not (tmp_path / "file").exists()
    # Five tries of 100 000 bytes each: every one went on where the last stopped.
    assert server.requests == [None] + [f"bytes={k}00000-" for k in range(1, 5)]
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:500_000]
    server.stop_after, server.requests[:] = None, []
    download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert server.requests == ["bytes=500000-"] and (tmp_path / "file").read_bytes() == CONTENT


def test_interrupted_by_the_keyboard(server, tmp_path, monkeypatch):
    class Impatient:
        def __init__(self, **_):
            self.blocks = 0

        __enter__ = lambda self: self
        __exit__ = lambda self, *_: None

        def update(self, _):
            self.blocks += 1
            if self.blocks == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "tqdm", Impatient)
        with pytest.raises(KeyboardInterrupt):
            download.fetch(server.url + "file", tmp_path / "file", SHA256)
    kept = (tmp_path / "file.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert server.requests == [None, f"bytes={kept}-"] and (tmp_path / "file").read_bytes() == CONTENT


def test_server_that_ignores_range(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(CONTENT[:300_000])
    download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert server.requests == ["bytes=300000-"] and (tmp_path / "file").read_bytes() == CONTENT


def test_part_that_is_already_whole(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_part_that_is_longer_than_the_file(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"?")
    download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"", b"something else"])
def test_wrong_checksum_keeps_nothing(server, tmp_path, part):
    (tmp_path / "file.part").write_bytes(part)
    wrong = SHA256 if part else "md5:" + "0" * 32
    with pytest.raises(DownloadFailed, match="wrong checksum and was deleted"):
        download.fetch(server.url + "file", tmp_path / "file", wrong, progress=False)
    assert not list(tmp_path.glob("file*"))


def test_errors_of_the_host(server, tmp_path):
    with pytest.raises(DownloadFailed, match="404"):
        download.fetch(server.url + "nothing", tmp_path / "file", progress=False)
    assert len(server.requests) == 1  # no use in trying again
    server.failures = [503, 500]
    download.fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT
    with pytest.raises(DownloadFailed, match="kept") as error:
        download.fetch("http://127.0.0.1:9/file", tmp_path / "other", progress=False)
    assert "\n" not in str(error.value)


def tar_gz(members):
    """members: (name, bytes) for a file, (name, None) for a symbolic link to /etc/passwd."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped"])
def test_unsafe_names_are_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tgz").write_bytes(tar_gz([("fine", b"1"), (name, b"2")]))
    with pytest.raises(DownloadFailed, match="unsafe name"):
        download.extract(tmp_path / "in" / "a.tgz", tmp_path / "in", ".*", {})
    assert not list(tmp_path.rglob("*escaped*")) and not list((tmp_path / "in").iterdir())
    assert not Path("/escaped").exists()


def test_links_and_other_members_are_left_out(tmp_path):
    (tmp_path / ".unpacking" / "d").mkdir(parents=True)  # left by a run that was killed
    (tmp_path / ".unpacking" / "d" / "1.jpg").write_bytes(b"half")
    (tmp_path / "a.tgz").write_bytes(tar_gz([("d/1.jpg", b"1"), ("d/2.jpg", None), ("d/readme", b"3")]))
    download.extract(tmp_path / "a.tgz", tmp_path, r"d/\d\.jpg", {})
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["1.jpg"] and (tmp_path / "d/1.jpg").read_bytes() == b"1"
    assert not (tmp_path / ".unpacking").exists()


def test_damaged_archives_leave_nothing(tmp_path):
    whole = tar_gz([("d/1.jpg", CONTENT)])
    digest = {"d/1.jpg": "0" * 64}
    for content, digests, message in ((whole[: len(whole) // 2], {}, ""), (b"not an archive", {}, ""),
                                      (tar_gz([]), {}, "nothing of use"), (whole, digest, "wrong checksum")):
        (tmp_path / "a.tgz").write_bytes(content)
        with pytest.raises(DownloadFailed, match=f"{message}.*deleted") as error:
            download.extract(tmp_path / "a.tgz", tmp_path, r"d/\d\.jpg", digests)
        assert not list(tmp_path.iterdir()) and "\n" not in str(error.value)


def small(monkeypatch, name, images, **changes):
    """Make set `name` a small one, served from this machine."""
    monkeypatch.setitem(data.DATASETS, name, dataclasses.replace(data.DATASETS[name], images=images))
    monkeypatch.setitem(download.SOURCES, name, dataclasses.replace(download.SOURCES[name], **changes))


def test_get_an_archive_and_load_it(server, monkeypatch):
    record = bytes([3]) + bytes(range(256)) * 12
    folder = "cifar-10-batches-bin/"
    names = [f"{folder}data_batch_{k}.bin" for k in range(1, 6)] + [f"{folder}test_batch.bin"]
    server.files["/c.tar.gz"] = tar_gz([(name, record) for name in names] + [(folder + "readme.html", b"hello")])
    md5 = "md5:" + hashlib.md5(server.files["/c.tar.gz"]).hexdigest()
    small(monkeypatch, "cifar10", {"train": 5, "test": 1}, url=server.url + "c.tar.gz", archive=md5)
    with pytest.raises(MissingData):
        data.cifar10()
    where = download.get("cifar10", progress=False)
    assert where == data.cache_folder() / "cifar10" and sorted(path.name for path in where.iterdir()) == [folder[:-1]]
    assert data.cifar10().shape == (5, 32, 32, 3) and data.cifar10("test")[0, 0, :5, 0].tolist() == [0, 1, 2, 3, 4]
    requests = len(server.requests)
    download.get("cifar10", progress=False)  # it is here: the network is left alone
    assert len(server.requests) == requests


def test_get_single_files_goes_on_after_a_failure(server, monkeypatch):
    files = {f"kodim{k:02}.png": bytes([k]) * 50 for k in range(1, 4)}
    server.files = {"/" + name: content for name, content in files.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    small(monkeypatch, "kodak", {"all": 3}, url=server.url, digests=digests)
    last = server.files.pop("/kodim03.png")
    with pytest.raises(DownloadFailed, match="kodim03.png.*404"):
        download.get("kodak", progress=False)
    server.files["/kodim03.png"], server.requests[:] = last, []
    where = download.get("kodak", progress=False)
    assert len(server.requests) == 1  # the two that were right are not fetched again
    assert {path.name: path.read_bytes() for path in where.iterdir()} == files


def test_unknown_names_and_unwritable_folders(server, monkeypatch, tmp_path):
    with pytest.raises(InvalidInput, match="cifar10, kodak, bsds500"):
        download.get("imagenet")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DownloadFailed, match="cannot be written"):
        download.get("kodak", progress=False)


def test_every_set_in_the_table_can_be_fetched():
    assert set(download.SOURCES) == set(data.DATASETS)
    assert len(download.SOURCES["kodak"].digests) == 24 and len(download.SOURCES["bsds500"].digests) == 300
    members = download.SOURCES["bsds500"].members
    assert all(re.fullmatch(members, name) for name in download.SOURCES["bsds500"].digests)
