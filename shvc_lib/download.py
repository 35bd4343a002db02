"""Fetch a data set from its home page, once, and know that it is the right one.

`shvc data get NAME` calls `get`. Nothing else in the library touches the network, and no test or chapter does.
What is received goes to a `.part` file; an interrupted download goes on where it stopped (an HTTP Range request), and
nothing takes its final name before its checksum is right: sha256 where the files are known one by one (Kodak, BSDS500:
`checksums.json`), and for CIFAR-10's archive the md5 printed on its home page. That page's host can be slow, up to an
hour on a bad day; stop it with Ctrl-C when you like and run the same command again later.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from . import data
from .errors import DownloadFailed, InvalidInput

TRIES, PAUSE_SECONDS, TIMEOUT_SECONDS, CHUNK = 5, 2.0, 30.0, 1 << 18
_CHECKSUMS = json.loads((Path(__file__).parent / "checksums.json").read_text())


@dataclass(frozen=True)
class Source:
    """How to fetch a set. `digests`: sha256 of each final file, by its path under the set's folder.

    Without `archive`, each digest names one file below `url`. With it, `url` is a .tar.gz (its own digest in
    `archive` as "md5:...", or "" if none is published), of which the members matching `members` are kept.
    """

    url: str
    archive: str | None = None
    members: str = ""
    digests: dict = field(default_factory=dict)


SOURCES = {
    "cifar10": Source("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530",
                      r"cifar-10-batches-bin/(data_batch_[1-5]|test_batch)\.bin"),
    "kodak": Source("http://r0k.us/graphics/kodak/kodak/", digests=_CHECKSUMS["kodak"]),
    "bsds500": Source("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz", "",
                      r"BSR/BSDS500/data/images/(train|val)/\d+\.jpg",
                      {f"BSR/BSDS500/data/images/{name}": digest for name, digest in _CHECKSUMS["bsds500"].items()}),
}


def get(name, progress=True):
    """The folder that holds data set `name`, fetched from its home page if it is not on this machine yet.

    Fetched sets go to `data.cache_folder() / name`. Raises `InvalidInput` for an unknown name and `DownloadFailed`
    when the host cannot be reached, stops early (what was received is kept for the next try) or sends wrong data
    (which is deleted).
    """
    if name not in SOURCES:
        raise InvalidInput(f"no data set {name!r} to fetch; there are {', '.join(SOURCES)}")
    if data.available(name):
        return data.find(name, next(iter(data.DATASETS[name].images)))[0][0].parent
    source, folder = SOURCES[name], data.cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if source.archive is None:
            for file, digest in tqdm(source.digests.items(), name, disable=not progress):
                if not _matches(folder / file, "sha256:" + digest):
                    fetch(source.url + file, folder / file, "sha256:" + digest, progress=False)
        else:
            archive = folder / source.url.rsplit("/", 1)[1]
            if not archive.exists():  # it is there when unpacking was interrupted, and was checked then
                fetch(source.url, archive, source.archive, progress)
            extract(archive, folder, source.members, source.digests)
            archive.unlink()
    except OSError as error:
        if isinstance(error, DownloadFailed):
            raise
        raise DownloadFailed(f"{name}: {folder} cannot be written ({error.strerror or error})") from None
    return folder


def fetch(url, path, digest="", progress=True):
    """Download `url` to `path`, going on from `path` + ".part" if there is one; returns the path.

    digest: "sha256:..." or "md5:...", or "" for no check. Raises `DownloadFailed`.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        try:
            _receive(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise DownloadFailed(f"{url}: the host answered {error.code} {error.reason}") from None
            reason = f"the host answered {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
    else:
        kept = part.stat().st_size if part.exists() else 0
        raise DownloadFailed(f"{url}: {reason}; {kept / 1e6:.1f} MB are kept, the same command goes on from there")
    if digest and not _matches(part, digest):
        part.unlink()
        raise DownloadFailed(f"{url}: what arrived has the wrong checksum and was deleted; try again")
    os.replace(part, path)
    return path


def _receive(url, part, progress):
    """Append to `part` what is still missing of `url`. A host that ignores Range is read from the start."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "shvc_lib"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing beyond `have`: either all of it is here already, or what is here belongs to another file.
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return
        part.unlink()
        raise ConnectionError("the file on the host is shorter than what was received") from None
    with response:
        if not (response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with open(part, "ab" if have else "wb") as file, tqdm(
            desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=not progress
        ) as bar:
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(len(block))
            if total is not None and file.tell() < total:
                raise ConnectionError(f"the connection ended at {file.tell()} of {total} bytes")


def _matches(path, digest):
    """True if the file exists and has this "algorithm:hexadecimal" digest."""
    if not path.is_file():
        return False
    algorithm, expected = digest.split(":")
    state = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            state.update(block)
    return state.hexdigest() == expected


def extract(archive, folder, members, digests):
    """Unpack the regular files of a .tar.gz whose names match `members` into `folder`, once all of them are checked.

    digests: sha256 by member name; every one of them must be there and right (empty: nothing to compare with, at
    least one file must match). A name that leaves the folder and a link are never followed. A damaged archive is
    deleted. Raises `DownloadFailed`.
    """
    archive, folder = Path(archive), Path(folder)
    staging = folder / ".unpacking"
    try:
        found = []
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if not re.fullmatch(members, member.name) or not member.isfile():
                    continue
                if name.is_absolute() or ".." in name.parts:
                    raise tarfile.TarError(f"unsafe name {member.name}")
                target = staging / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out)
                found.append(str(name))
        wrong = [name for name, digest in digests.items() if not _matches(staging / name, "sha256:" + digest)]
        if wrong or not found:
            raise tarfile.TarError(f"{wrong[0]} is missing or has the wrong checksum" if wrong else "nothing of use inside")
        for name in found:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, folder / name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a full disk is not the archive's fault
            raise
        archive.unlink(missing_ok=True)
        raise DownloadFailed(f"{archive.name}: {error}; the archive was deleted, try again") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
