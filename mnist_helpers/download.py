"""The four files of MNIST in a folder: verified, unpacked or downloaded, whatever a mirror or the network does.

torchvision names the mirrors and the files; its own download knows neither a deadline nor a limit of size, and compares
the checksums of the archives alone, so that it believes a truncated file.
"""

import contextlib
import hashlib
import json
import queue
import threading
import time
import urllib.request
import zlib
from pathlib import Path

import filelock
import numpy as np
from tqdm import tqdm

from .files import replace_file

FILES = {  # as they are extracted: bytes and MD5
    "train-images-idx3-ubyte": (47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": (60_008, "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (7_840_016, "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": (10_008, "27ae3e4e09519cfbb04c329615203637"),
}
PATIENCE = 10  # seconds for a mirror to begin, with all its addresses, redirects and headers
SLOWEST = 20_000  # bytes a second that it has to send on average after that
REMEMBERED = 600  # seconds that a refusal is remembered for, if it took longer than `QUICK`
QUICK = 2
WAIT = 900  # seconds for another process to finish; after that two of them download
GZIP_WASTE = 1_000  # bytes that an archive may be larger than its content
ALIKE = 0.9  # share of equal bytes from which a file is a damaged copy and not another one


class DataError(RuntimeError):
    """MNIST cannot be used as asked; the message says why and what to do."""


class DownloadError(DataError):
    """No mirror delivered a good copy of a file."""


def damaged(folder: Path) -> dict[str, str]:
    """``{file name: what is wrong}`` for each MNIST file in ``folder`` that is missing, truncated or altered.

    Raises `DataError` for what cannot be read.
    """
    return {name: problem for name in FILES if (problem := _problem(folder / name))}


def _problem(path):
    size, md5 = FILES[path.name]
    try:
        if not path.exists():
            return "missing"
        found = path.stat().st_size
        if path.is_file() and found == size and _md5(path.read_bytes()) == md5:
            return ""
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Make it readable for yourself, or set "
                        "MNIST_ROOT to a folder that is") from error
    return f"damaged or another file ({found:,} bytes, wrong checksum)" if path.is_file() else "no file"


def _md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()  # a checksum; machines in FIPS mode refuse it else


def fetch(folder: Path, mirrors=None, patience: float = PATIENCE, remember: bool = False) -> Path:
    """``folder``, with the four verified MNIST files in it, after unpacking or downloading those that are not.

    Archives that lie there are unpacked. Each file is then tried on every mirror (by default torchvision's), which has
    ``patience`` seconds to begin and must not be slow or send too much; what it sent is checked and moved into place
    whole. A lock lets several kernels start at once. A damaged copy is replaced; a file of another data set stays. With
    ``remember`` a refusal that took long is raised again at once for ten minutes.

    Raises `DownloadError` if no mirror delivers, `DataError` if the folder cannot be read or written, or holds files
    that are not MNIST's.
    """
    if not damaged(folder):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with _alone(folder / ".lock"):
        wrong, started = damaged(folder), time.monotonic()
        try:
            for name, problem in wrong.items():
                content = _unpacked(folder / f"{name}.gz", name)
                if content is None:
                    if remember:
                        _raise_remembered(folder)
                    content = _download(name, problem, folder, mirrors, patience)
                _store(folder / name, content, problem)
        except DownloadError as error:
            if time.monotonic() - started > QUICK:
                with contextlib.suppress(OSError):
                    replace_file(folder / ".refused", json.dumps({"at": time.time(), "said": str(error)}))
            raise
    return folder


@contextlib.contextmanager
def _alone(path):
    """Hold the lock at ``path``. It only spares a second download: files are replaced in one step. So where it cannot
    be had, because it is another user's or the file system has none, the work is done without."""
    lock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            print(f"another process is fetching MNIST into {path.parent}: waiting for it", flush=True)
            lock.acquire(timeout=WAIT)
    except (OSError, NotImplementedError) as error:  # filelock's Timeout is an OSError
        print(f"going on without the lock {path}: {error}")
    try:
        yield
    finally:
        lock.release()


def _raise_remembered(folder):
    """Raise the refusal that another call met a short while ago, if there was one."""
    try:
        refused = json.loads((folder / ".refused").read_text(encoding="utf-8"))
        ago, said = time.time() - refused["at"], str(refused["said"])
    except (OSError, ValueError, TypeError, KeyError):
        return
    if 0 <= ago < REMEMBERED:
        raise DownloadError(f"{said}\nThat was {ago:.0f} seconds ago, and is not tried again so soon: "
                            "`python -m mnist_helpers data` does.")


# ---------------------------------------------------------------- one file


def _unpacked(path, name):
    """The verified content of an archive that lies in the folder, or None."""
    try:
        if path.stat().st_size <= FILES[name][0] + GZIP_WASTE:
            return _verified(path.read_bytes(), name)
    except (OSError, ValueError):
        return None


def _verified(archive, name):
    """The content of a gzip archive, if it is the file called ``name``; else raises `ValueError`. No more is unpacked
    than the file has, whatever the archive holds."""
    size, md5 = FILES[name]
    try:
        content = zlib.decompressobj(wbits=31).decompress(archive, size + 1)
    except zlib.error as error:
        raise ValueError(f"no archive ({error})") from error
    if _md5(content) != md5:
        raise ValueError("not the file MNIST was published with (wrong checksum)")
    return content


def _download(name, problem, folder, mirrors, patience):
    """The verified content of a file, from the first mirror that has it."""
    if mirrors is None:
        from torchvision.datasets import MNIST  # half a second, so only when it is needed

        mirrors = MNIST.mirrors
    print(f"{name} is {problem} in {folder}: fetching it", flush=True)
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}.gz"
        try:
            with tqdm(unit="B", unit_scale=True, desc=name) as bar:
                return _verified(_get(url, FILES[name][0] + GZIP_WASTE, patience, bar), name)
        except Exception as error:  # a mirror can send anything, and urllib raises whatever it makes of that
            failures.append(f"{url}: {error or type(error).__name__}")
    foreign = "" if problem == "missing" else (
        f"\nIf {name} is of another data set: move it away, or set MNIST_ROOT to another folder; it stays as it is.")
    raise DownloadError(f"{name} is {problem} in {folder}, and no mirror delivered it:\n  " + "\n  ".join(failures) +
                        f"{foreign}\nConnect to the network, or put the four files, as they are or as .gz, into that "
                        "folder, or set MNIST_ROOT to a folder that has them in MNIST/raw.")


def _get(url, most, patience, bar):
    """The bytes at ``url``, at most ``most``. Raises `OSError` if they do not come in time, or whatever urllib does.

    In a thread, since no timeout of a socket covers looking up a name, a second address, or a header that comes byte
    by byte. A thread that is given up ends with its next byte, or with the process.
    """
    pieces, given_up = queue.SimpleQueue(), threading.Event()

    def work():
        try:
            with urllib.request.build_opener().open(url, timeout=patience) as response:  # with the proxies of now
                pieces.put(int(response.headers.get("Content-Length") or 0))
                while not given_up.is_set() and (piece := response.read1(1 << 16)):
                    pieces.put(piece)
                length = response.length  # what the header promised and did not come
            pieces.put(OSError(f"broke off {length:,} bytes before the end") if length else None)
        except Exception as error:
            pieces.put(error)

    threading.Thread(target=work, daemon=True).start()
    started, content = time.monotonic(), bytearray()
    try:
        while True:
            left = patience + len(content) / SLOWEST - (time.monotonic() - started)
            try:
                piece = pieces.get(timeout=max(0.0, left))
            except queue.Empty:
                raise TimeoutError(f"too slow: {len(content):,} bytes in {time.monotonic() - started:.0f} s") from None
            if piece is None:
                return bytes(content)
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, int):
                bar.total = piece or None
                continue
            content += piece
            bar.update(len(piece))
            if len(content) > most:
                raise OSError(f"sends more than {most:,} bytes")
    finally:
        given_up.set()


def _store(path, content, problem):
    """Write a file where none or a damaged copy is. Raises `DataError` where another file is, or none can be."""
    try:
        if problem != "missing" and not (path.is_file() and _is_copy(path.read_bytes(), content)):
            raise DataError(f"{path} is not MNIST's {path.name}, and no damaged copy of it: it stays as it is. Set "
                            "MNIST_ROOT to another folder, or move it away.")
        replace_file(path, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _is_copy(theirs, ours):
    """Whether bytes are a damaged copy of others: no more of them, and nearly all equal or zero."""
    a, b = (np.frombuffer(each, np.uint8) for each in (theirs, ours[: len(theirs)]))
    return len(theirs) <= len(ours) and bool(((a == b) | (a == 0)).sum() >= ALIKE * len(a))


def _unwritable(path, error):
    return DataError(f"cannot write {path}: {error.strerror or error}. Free some space (MNIST takes 55 MB) or set "
                     "MNIST_ROOT to a folder you can write to.")
