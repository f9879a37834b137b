"""The files of MNIST: from mirrors of our own on 127.0.0.1, good, damaged, slow and hostile; and what lies there."""

import errno
import gzip
import hashlib
import http.server
import json
import multiprocessing
import os
import socket
import threading
import time
from pathlib import Path

import filelock
import pytest

from mnist_helpers import data, download

NAMES = list(download.FILES)


@pytest.fixture
def contents(monkeypatch):
    """Small stand-ins for the four files, with their sizes and checksums in the place of the real ones."""
    contents = {name: (name * 2500 + name.upper() * 2500).encode() for name in NAMES}
    monkeypatch.setattr(download, "FILES", {name: (len(content), hashlib.md5(content).hexdigest())
                                            for name, content in contents.items()})
    return contents


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        time.sleep(self.server.delay)
        status, body, length = self.server.answers.get(self.path.rpartition("/")[2], (404, b"", 0))
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value + self.path * (name == "Location"))
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(contents):
    """Start a mirror on 127.0.0.1; ``serve(change)`` lets ``change`` alter the archives it hands out."""
    servers = []

    def start(change=lambda archive: archive, status=200, claim=None, headers=()):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.requests, server.delay, server.headers = [], 0, dict(headers)
        archives = {f"{name}.gz": change(gzip.compress(content)) for name, content in contents.items()}
        server.answers = {name: (status, archive, claim or len(archive)) for name, archive in archives.items()}
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def dripping():
    """Start a mirror that says ``begin`` and then a byte, again and again, for as long as anybody listens."""
    servers, over = [], threading.Event()

    def start(begin, byte=b"x", pause=0.02):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def answer():
            while not over.is_set():
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=drip, args=[client], daemon=True).start()

        def drip(client):
            with client:
                try:
                    client.sendall(begin)
                    while not over.wait(pause):
                        client.sendall(byte)
                except OSError:
                    pass

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/"

    yield start
    over.set()
    for server in servers:
        server.close()


def address(server):
    return f"http://127.0.0.1:{server.server_address[1]}/mnist/"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


# ---------------------------------------------------------------- a good mirror


def test_download_stores_the_verified_files_with_progress(tmp_path, serve, contents, capsys):
    data.fetch(tmp_path, mirrors=[address(serve())])
    assert files(tmp_path / "MNIST" / "raw") == contents
    assert "train-images-idx3-ubyte: 100%" in capsys.readouterr().err


def test_files_appear_whole(tmp_path, serve, contents, monkeypatch):
    """The last step is a rename, so that nobody ever reads half a file."""
    renamed, rename = {}, os.replace

    def watch(temporary, path):
        path = Path(path)
        renamed[path.name] = Path(temporary).read_bytes()
        assert not path.exists()
        rename(temporary, path)

    monkeypatch.setattr(os, "replace", watch)
    download.fetch(tmp_path, [address(serve())])
    assert renamed == contents


def test_files_that_are_there_are_not_downloaded_again(tmp_path, serve):
    server = serve()
    download.fetch(tmp_path, [address(server)])
    download.fetch(tmp_path, [address(server)])
    assert len(server.requests) == 4


def test_redirects_and_proxies_are_followed(tmp_path, serve, contents, monkeypatch):
    good = serve()
    moved = serve(status=302, headers={"Location": f"http://127.0.0.1:{good.server_address[1]}"})
    download.fetch(tmp_path / "moved", [address(moved)])
    assert files(tmp_path / "moved") == contents and len(moved.requests) == len(good.requests) == 4
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{good.server_address[1]}")
    monkeypatch.setenv("no_proxy", "")
    download.fetch(tmp_path / "proxy", ["http://mirror.invalid/mnist/"])
    assert files(tmp_path / "proxy") == contents and good.requests[-1].startswith("http://mirror.invalid/")


# ---------------------------------------------------------------- bad ones


def in_a_circle(server):
    server.headers = {"Location": f"http://127.0.0.1:{server.server_address[1]}"}


@pytest.mark.parametrize("bad", [
    pytest.param({"status": 503}, id="an error"),
    pytest.param({"status": 302}, id="a redirect to nowhere"),
    pytest.param({"status": 302, "headers": {"Location": "file:///etc/passwd?"}}, id="a redirect to a file here"),
    pytest.param({"change": lambda archive: gzip.compress(b"something else")}, id="another file"),
    pytest.param({"change": lambda archive: gzip.compress(b"0" * 10**7)}, id="a bomb"),
    pytest.param({"change": lambda archive: os.urandom(10**6)}, id="too much"),
    pytest.param({"change": lambda archive: b"<html>please log in</html>"}, id="a web page"),
    pytest.param({"change": lambda archive: b""}, id="nothing"),
    pytest.param({"change": lambda archive: archive[: len(archive) // 2]}, id="half an archive"),
    pytest.param({"change": lambda archive: archive[:-1], "claim": 10_000_000}, id="a broken connection"),
    pytest.param({"change": lambda archive: archive[:30] + b"\xff\xff" + archive[32:]}, id="flipped bytes"),
])
def test_a_bad_mirror_is_followed_by_the_next(tmp_path, serve, contents, bad):
    bad, good = serve(**bad), serve()
    download.fetch(tmp_path, [address(bad), address(good)], patience=2)
    assert files(tmp_path) == contents
    assert len(bad.requests) == len(good.requests) == 4


def test_a_redirect_in_a_circle_is_followed_by_the_next(tmp_path, serve, contents):
    bad = serve(status=302)
    in_a_circle(bad)
    download.fetch(tmp_path, [address(bad), address(serve())])
    assert files(tmp_path) == contents


def test_no_more_is_unpacked_than_the_file_has(contents, monkeypatch):
    """Of an archive that expands ten thousand times, as of any: what is asked of zlib is bounded."""
    asked, make = [], download.zlib.decompressobj

    class Watched:
        def __init__(self, **options):
            self.inner = make(**options)

        def decompress(self, archive, most):
            content = self.inner.decompress(archive, most)
            asked.append(len(content))
            return content

    monkeypatch.setattr(download.zlib, "decompressobj", Watched)
    with pytest.raises(ValueError, match="checksum"):
        download._verified(gzip.compress(b"0" * 10**7), NAMES[0])
    assert asked == [len(contents[NAMES[0]]) + 1]


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n",
                                   b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
                         ids=["at once", "in a header", "in the file", "in a chunk"])
def test_a_mirror_that_drips_is_left_in_time(tmp_path, serve, dripping, contents, begin):
    started = time.monotonic()
    download.fetch(tmp_path, [dripping(begin), address(serve())], patience=0.15)
    assert files(tmp_path) == contents and time.monotonic() - started < 5


def test_a_mirror_that_never_answers_is_left_in_time(tmp_path, serve, contents, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        download.fetch(tmp_path / "silent", [url, address(serve())], patience=0.15)
    # A firewall drops packets, and a name has ten addresses: the time is for all of them together.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    started = time.monotonic()
    with pytest.raises(download.DownloadError, match="too slow"):
        download.fetch(tmp_path / "dropped", ["http://a.invalid/", "http://b.invalid/"], patience=0.1)
    assert time.monotonic() - started < 5


def test_a_refusal_that_took_long_is_remembered_for_a_while(tmp_path, monkeypatch, serve, contents):
    import torchvision

    good = serve()
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(download, "QUICK", -1)
    with pytest.raises(download.DownloadError):
        download.fetch(tmp_path)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address(good)])
    with pytest.raises(download.DownloadError, match=r"(?s)127.0.0.1:9.*mnist_helpers data"):
        download.fetch(tmp_path, remember=True)
    assert not good.requests
    note = tmp_path / ".refused"
    for said in (note.read_text().replace('"at": ', '"at": -'), json.dumps({"at": time.time() + 1e6, "said": "x"}),
                 "", "[]", '{"at": "x"}', b"\xff\xfe"):  # long ago, in the future, damaged
        note.write_bytes(said if isinstance(said, bytes) else said.encode())
        for path in tmp_path.glob("*-ubyte"):
            path.unlink()
        download.fetch(tmp_path, remember=True)
        assert files(tmp_path) == contents
    (tmp_path / NAMES[0]).unlink()
    note.write_text(json.dumps({"at": time.time(), "said": "x"}))
    download.fetch(tmp_path)  # as the command does
    assert files(tmp_path) == contents


def test_a_failed_download_names_every_mirror_the_folder_and_the_remedy(tmp_path, serve):
    bad = serve(change=lambda archive: gzip.compress(b"something else"))
    with pytest.raises(download.DownloadError) as failure:
        download.fetch(tmp_path, [address(bad), "http://127.0.0.1:9/", "http://[", "nothing"], patience=1)
    assert all(part in str(failure.value) for part in (address(bad), "127.0.0.1:9", str(tmp_path), "MNIST_ROOT"))
    assert not (tmp_path / ".refused").exists(), "it was quick"


# ---------------------------------------------------------------- what lies there


def test_archives_that_lie_there_are_unpacked(tmp_path, serve, contents):
    for name, content in contents.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    (tmp_path / f"{NAMES[1]}.gz").write_bytes(gzip.compress(b"another"))
    (tmp_path / f"{NAMES[2]}.gz").write_bytes(b"none")
    server = serve()
    download.fetch(tmp_path, [address(server)])
    assert {name: files(tmp_path)[name] for name in NAMES} == contents and len(server.requests) == 2


@pytest.mark.parametrize("damage", [lambda content: content[:1000], lambda content: b"x" + content[1:], lambda content: b"",
                                    lambda content: content[:5000] + bytes(len(content) - 5000)])
def test_a_damaged_file_is_named_and_fetched_again(tmp_path, serve, contents, capsys, damage):
    server = serve()
    download.fetch(tmp_path, [address(server)])
    (tmp_path / NAMES[2]).write_bytes(damage(contents[NAMES[2]]))
    assert list(download.damaged(tmp_path)) == [NAMES[2]]
    download.fetch(tmp_path, [address(server)])
    assert files(tmp_path) == contents
    assert len(server.requests) == 5
    assert f"{NAMES[2]} is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("other", [lambda content: content[::-1], lambda content: content + b"x" * 100,
                                   lambda content: b"a text of the reader's", "a folder"])
def test_a_file_that_is_not_mnists_stays_as_it_is(tmp_path, serve, contents, other):
    path = tmp_path / NAMES[0]
    if callable(other):
        path.write_bytes(other(contents[NAMES[0]]))
    else:
        path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(download.DataError, match=rf"{NAMES[0]} is not MNIST's.*MNIST_ROOT"):
        download.fetch(tmp_path, [address(serve())])
    assert (path.read_bytes() if path.is_file() else None) == before


def test_fashion_under_mnists_names_is_told_from_damage(mnist_root):
    """Most pixels of all these sets are black, so that the rule needs real images: shifted ones are as far from the
    originals as another set's."""
    images = (data.raw(mnist_root) / NAMES[2]).read_bytes()
    labels = (data.raw(mnist_root) / NAMES[3]).read_bytes()
    for ours, header in ((images, 16), (labels, 8)):
        body = ours[header:]
        assert download._is_copy(ours[:-1] + b"x", ours) and download._is_copy(ours[:5000], ours)
        assert download._is_copy(ours[:9000] + bytes(len(ours) - 9000), ours)
        assert not download._is_copy(ours[:header] + bytes(255 - byte for byte in body), ours)
    assert not download._is_copy(labels[:8] + labels[9:] + labels[8:9], labels)


def test_without_a_network_a_file_of_another_data_set_has_its_remedy_too(tmp_path):
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.parent.mkdir(parents=True)
    for name in data.download.FILES:
        (path.parent / name).write_bytes(b"of another data set")
    with pytest.raises(data.DownloadError, match="of another data set: move it away, or set MNIST_ROOT to another folder"):
        data.fetch(tmp_path, mirrors=["http://127.0.0.1:9/"])
    assert path.read_bytes() == b"of another data set"
    with pytest.raises(data.DownloadError) as error:
        data.fetch(tmp_path / "empty", mirrors=["http://127.0.0.1:9/"])
    assert "another data set" not in str(error.value)


def test_a_damaged_file_is_kept_until_its_replacement_is_verified(tmp_path, contents):
    (tmp_path / NAMES[0]).write_bytes(b"half")
    with pytest.raises(download.DownloadError, match=f"{NAMES[0]} is damaged"):
        download.fetch(tmp_path, ["http://127.0.0.1:9/"])
    assert (tmp_path / NAMES[0]).read_bytes() == b"half"


# ---------------------------------------------------------------- what cannot be read, written or locked


def test_a_folder_that_cannot_be_written_gives_one_clear_error_before_a_download(tmp_path, serve):
    (tmp_path / "MNIST").write_text("a file where the folder should be")
    server = serve()
    with pytest.raises(data.DataError, match="MNIST_ROOT"):
        data.fetch(tmp_path, mirrors=[address(server)])
    assert not server.requests


def test_what_cannot_be_read_is_named_and_stays(tmp_path, serve, contents, monkeypatch):
    """As a file of another user's in mode 0600, or in a folder of mode 0000; whoever runs this may be root."""
    (tmp_path / NAMES[0]).write_bytes(contents[NAMES[0]])

    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for method in ("read_bytes", "stat"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, method, refuse)
            with pytest.raises(download.DataError, match=f"(?s){NAMES[0]} cannot be read.*MNIST_ROOT"):
                download.fetch(tmp_path, [address(serve())])
    assert files(tmp_path) == {NAMES[0]: contents[NAMES[0]]}


def test_a_full_disk_gives_one_clear_error_and_leaves_nothing_half_written(tmp_path, serve, monkeypatch):
    def fsync(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(data.DataError, match=r"No space left on device"):
        download.fetch(tmp_path, [address(serve())])
    assert files(tmp_path) == {}


def test_a_lock_that_cannot_be_had_is_named_and_done_without(tmp_path, serve, contents, monkeypatch, capsys):
    """As another user's, or on a file system without locks."""
    def refuse(lock, **options):
        raise PermissionError(errno.EACCES, "Permission denied", lock.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    download.fetch(tmp_path, [address(serve())])
    assert files(tmp_path) == contents and str(tmp_path / ".lock") in capsys.readouterr().out


def test_whoever_waits_says_so(tmp_path, serve, contents, monkeypatch, capsys):
    monkeypatch.setattr(download, "WAIT", 0.1)
    with filelock.FileLock(tmp_path / ".lock"):
        download.fetch(tmp_path, [address(serve())])
    assert "waiting" in capsys.readouterr().out and files(tmp_path) == contents


def _fetch_in_process(barrier, checksums, folder, mirrors, temporary):
    download.FILES, os.environ["TMPDIR"] = checksums, str(temporary)
    barrier.wait()
    download.fetch(folder, mirrors)


def test_kernels_that_start_together_download_once(tmp_path, serve, contents):
    """Even with a temporary folder for each."""
    server = serve()
    server.delay = 0.3
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_fetch_in_process, args=(barrier, download.FILES, tmp_path, [address(server)], name))
                 for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert files(tmp_path) == contents
    assert len(server.requests) == 4
