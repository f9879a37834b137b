"""Faults at random: is anything lost, is anything damaged believed, does anything end in a traceback?

    python -m tests.campaign                    a minute of everything, and one table
    python -m tests.campaign --minutes 15       as long as that
    python -m tests.campaign --write            and write the table, with date and machine, into CONTRIBUTING.md

A *try* makes something good, harms it, and uses it as the course does. *Believed*: what was harmed was taken for good.
*Lost*: something good that was stored is there no more. *Tracebacks*: an error that no reader was meant to see.
"""

import argparse
import collections
import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import torch
from torch import nn

import mnist_helpers as mh
from mnist_helpers import checkpoint, download, files
from mnist_helpers.checkpoint import CheckpointError
from mnist_helpers.course import draw, pages, records
from mnist_helpers.data import Split, project_root

EPOCHS = 3


class Believed(Exception):
    """Something that was harmed was taken for good."""


class Lost(Exception):
    """Something good is there no more."""


# ---------------------------------------------------------------- harm


def harmed(content: bytes, chance: random.Random) -> bytes:
    """``content`` with a bit flipped, a block zeroed, a part cut off or out, or noise added; never as it was."""
    content, size = bytearray(content), len(content)
    start, length = chance.randrange(size), chance.choice((1, 8, 64, 512, 4096))
    how = chance.choice(("flip", "flip", "zero", "noise", "cut", "cut out", "add"))
    if how == "flip":
        content[start] ^= 1 << chance.randrange(8)
    elif how == "zero":
        content[start : start + length] = bytes(min(length, size - start))
    elif how == "noise":
        content[start : start + length] = chance.randbytes(min(length, size - start))
    elif how == "cut":
        del content[start:]
    elif how == "cut out":
        del content[start : start + length]
    else:
        content[start:start] = chance.randbytes(length)
    return bytes(content)


def crafted(content, chance: random.Random):
    """A nested structure with one of its parts missing, or replaced by something of another type."""
    place, key = content, None
    while isinstance(place, dict | list) and place and (key is None or chance.random() < 0.6):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        holder, key = place, chance.choice(keys)
        place = holder[key]
    if chance.random() < 0.4:
        del holder[key]
    else:
        other = chance.choice((None, -1, "text", [], {}, [[1]], float("nan"), torch.zeros(2), b"bytes"))
        holder[key] = 7 if type(other) is type(place) else other
    return content


# ---------------------------------------------------------------- a small training


@functools.cache
def split():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (96, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(10, (96,), generator=generator), "MNIST", "train", "mnist", "full")


def fitted(path=None):
    """A training of three epochs: twelve steps."""
    mh.set_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=4), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
                          nn.Linear(98, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=4 * EPOCHS)
    with contextlib.redirect_stdout(io.StringIO()):
        return mh.fit(model, mh.Loader(split(), 24, augment=mh.Augment(mh.Rotation(10))), split(), epochs=EPOCHS,
                      optimizer=optimizer, scheduler=mh.each_step(schedule), checkpoint=path)


def end(run):
    """What a training came to, without its seconds."""
    return run.weights, {**run.history, "seconds": None}, run.batch_loss


@functools.cache
def whole():
    return end(fitted())


@functools.cache
def part():
    """The bytes of a checkpoint after the second of three epochs, and a run that was kept: its name and its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path, save = Path(folder, "run.pt"), checkpoint.Checkpoint.save

        def stop(self):
            save(self)
            if len(self.run.history["seconds"]) == 2:
                raise KeyboardInterrupt

        checkpoint.Checkpoint.save = stop
        try:
            fitted(path)
        except KeyboardInterrupt:
            pass
        finally:
            checkpoint.Checkpoint.save = save
        kept = checkpoint.keep(fitted(), Path(folder))
        return path.read_bytes(), kept.name, kept.read_bytes()


def resumed(path):
    """Go on from a checkpoint that was harmed: refused, or to the very end of the whole."""
    before = path.read_bytes()
    try:
        run = fitted(path)
    except CheckpointError:
        if path.read_bytes() != before:
            raise Lost("a checkpoint that was refused was changed") from None
        return
    if end(run) != whole():
        raise Believed("a checkpoint with another end")


# ---------------------------------------------------------------- tries


def interrupted_training(folder, chance):
    """Interrupted at any moment, again and again; the end is that of the whole, and no saved epoch is gone."""
    path, saved, longest = folder / "run.pt", 0, 0.3

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for attempt in range(20):
            try:
                if attempt < 6:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, longest))
                run = fitted(path)
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if path.exists():
                done = len(torch.load(path, weights_only=True)["history"]["seconds"])
                if done < saved:
                    raise Lost(f"{saved} epochs were saved, and {done} are there")
                saved = done
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if end(run) != whole():
        raise Believed("another end after an interrupt")
    if list(folder.glob(".*.part")):
        raise Lost("a temporary file stayed")


def killed_training(folder, chance):
    """A real SIGKILL, in a process of its own; then it goes on, and ends as the whole."""
    script = Path(__file__).with_name("training_to_kill.py")

    def start(weights):
        return subprocess.Popen([sys.executable, script, folder / "run.pt", folder / weights], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)

    first = start("killed.pt")
    while not (folder / "run.pt").exists() and first.poll() is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.5))
    first.kill()
    first.communicate()
    second = start("resumed.pt")
    said = second.communicate()[1]
    if second.returncode:
        raise RuntimeError(said.decode())
    if hashlib.md5((folder / "resumed.pt").read_bytes()).hexdigest() != _never_killed():
        raise Believed("another end after a kill")


@functools.cache
def _never_killed():
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "resumed.pt")  # torch.save writes the file's name into it
        subprocess.run([sys.executable, Path(__file__).with_name("training_to_kill.py"), "none", weights], check=True,
                       capture_output=True)
        return hashlib.md5(weights.read_bytes()).hexdigest()


def damaged_checkpoint(folder, chance):
    (folder / "run.pt").write_bytes(harmed(part()[0], chance))
    resumed(folder / "run.pt")


def crafted_checkpoint(folder, chance):
    content = torch.load(io.BytesIO(part()[0]), weights_only=True)
    torch.save(crafted(content, chance), folder / "run.pt")
    resumed(folder / "run.pt")


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def malicious_pickle(folder, chance):
    """Code in a checkpoint or a kept run, wherever it stands; executed, it would leave a file."""
    content = torch.load(io.BytesIO(part()[0]), weights_only=True)
    content[chance.choice(list(content))] = Touch(folder / "executed")
    path = folder / chance.choice(("run.pt", "run.safetensors"))
    if chance.random() < 0.5:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    try:
        if path.suffix == ".pt":
            fitted(path)
        else:
            checkpoint.read_kept(path)
    except CheckpointError:
        if (folder / "executed").exists():
            raise Believed("a pickle was executed") from None
        return
    raise Believed("a pickle")


def damaged_kept_run(folder, chance):
    _, name, content = part()
    (folder / name).write_bytes(content)
    good = checkpoint.digest(checkpoint.read_kept(folder / name))
    (folder / name).write_bytes(harmed(content, chance))
    try:
        if checkpoint.digest(checkpoint.read_kept(folder / name)) != good:
            raise Believed("a kept run")
    except CheckpointError:
        pass


@functools.cache
def lines():
    """Forty of the course's records, as they are written."""
    some = files.read_records(records.runs_file(), records.KEYS)[:40]
    return [dict(each) for each in some]


def damaged_records(folder, chance):
    """Whatever is read from a harmed file has to be a record that was in it, and all others have to be there."""
    path = folder / "records.jsonl"
    chosen = chance.sample(lines(), 4)
    for each in chosen:
        records.append(each, path)
    path.write_bytes(harmed(path.read_bytes(), chance))
    with contextlib.redirect_stderr(io.StringIO()):
        records.append(chosen[0] | {"id": "later"}, path)
        found = records.read(path)
    if [each["id"] for each in found][-1:] != ["later"]:
        raise Lost("a record that was written after the harm")
    if any(each not in chosen for each in found[:-1]):
        raise Believed("a record that nobody wrote")


def full_disk(folder, chance):
    """A file may not grow over a limit: whatever was there stays, and what is written is whole."""
    import resource

    path, lined, before = folder / "run.pt", folder / "lines.jsonl", part()[0]
    path.write_bytes(before)
    files.append_line(lined, '{"a": 1}')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (chance.randrange(1, 2 * len(before)), hard))
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            run = fitted(path)
        with contextlib.suppress(OSError):
            files.append_line(lined, json.dumps({"a": "x" * chance.randrange(50_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if end(run) != whole():
        raise Lost("epochs")
    if list(folder.glob(".*.part")) or any(not json.loads(line) for line in lined.read_text().splitlines()):
        raise Lost("a line, or a temporary file stayed")
    resumed(path)
    if end(fitted(path)) != whole():
        raise Lost("the checkpoint")


def concurrent_writers(folder, chance):
    """Threads and processes, each with its lines and its version of one file."""
    code = ("import sys; from mnist_helpers import files\n"
            "for n in range(20): files.append_line(sys.argv[1] + '/lines', '[%s, %d]' % (sys.argv[2], n)); "
            "files.replace_file(sys.argv[1] + '/whole', sys.argv[2] * 20_000)")
    others = [subprocess.Popen([sys.executable, "-c", code, str(folder), str(number)]) for number in range(3)]
    while any(other.poll() is None for other in others):
        if (folder / "whole").exists() and (folder / "whole").read_text() not in [str(n) * 20_000 for n in range(3)]:
            raise Believed("a part of a file was read")
        time.sleep(chance.uniform(0, 0.01))
    found = [json.loads(line) for line in (folder / "lines").read_text().splitlines()]
    if sorted(found) != [[number, n] for number in range(3) for n in range(20)] or list(folder.glob(".*.part")):
        raise Lost("a line")


@contextlib.contextmanager
def stand_ins():
    """Small files in the place of MNIST's."""
    real, chance = download.FILES, random.Random(0)
    contents = {name: chance.randbytes(2000) + bytes(2000) for name in real}
    download.FILES = {name: (len(each), hashlib.md5(each).hexdigest()) for name, each in contents.items()}
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield contents
    finally:
        download.FILES = real


def damaged_data(folder, chance):
    """Files and archives that lie in the folder, harmed, and nothing else to be had; then a mirror."""
    with stand_ins() as contents, mirror(lambda name: gzip.compress(contents[name])) as good:
        harm = {name: harmed(each, chance) for name, each in contents.items()}
        for name in harm:
            packed = chance.random() < 0.5
            content = harmed(gzip.compress(contents[name]), chance) if packed else harm[name]
            (folder / f"{name}{'.gz' * packed}").write_bytes(content)
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".gz"}
        for mirrors in ([], [good]):
            try:
                download.fetch(folder, mirrors)
                if any((folder / name).read_bytes() != each for name, each in contents.items()):
                    raise Believed("a damaged data file")
            except download.DataError as error:
                if mirrors and "stays as it is" not in str(error):
                    raise Lost(f"a good mirror did not help: {error}") from error
                if not mirrors and any((folder / name).read_bytes() not in (each, contents[name])
                                       for name, each in before.items()):
                    raise Lost("a file was replaced by none that is good") from error


@contextlib.contextmanager
def mirror(answer):
    """The address of a server on this machine; ``answer(file name)`` gives the body, or a function of the handler."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = answer(self.path.rpartition("/")[2].removesuffix(".gz"))
            with contextlib.suppress(OSError):
                if callable(body):
                    body(self)
                else:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def hostile_mirror(folder, chance):
    """A mirror that harms, drips, floods, expands, breaks off, turns in a circle or sends noise; then a good one."""
    def drip(handler):
        handler.wfile.write(chance.choice((b"", b"HTTP/1.0 200 OK\r\nX-", b"HTTP/1.0 200 OK\r\n\r\n")))
        for _ in range(60):
            time.sleep(0.02)
            handler.wfile.write(b"x")

    def flood(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        for _ in range(1000):
            handler.wfile.write(bytes(10**5))

    def circle(handler):
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.end_headers()

    def lie(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1" + b"0" * chance.randrange(30) + b"\r\n\r\nx")

    def noise(handler):
        handler.wfile.write(chance.randbytes(chance.randrange(1, 5000)))

    with stand_ins() as contents:
        names = list(contents)
        bad = {
            "harm": lambda name: harmed(gzip.compress(contents[name]), chance),
            "swap": lambda name: gzip.compress(contents[names[names.index(name) - 1]]),
            "bomb": lambda name: gzip.compress(bytes(10**6)), "drip": lambda name: drip, "flood": lambda name: flood,
            "circle": lambda name: circle, "lie": lambda name: lie, "noise": lambda name: noise}
        start = time.monotonic()
        with mirror(bad[chance.choice(list(bad))]) as first, (
                mirror(lambda name: gzip.compress(contents[name]))) as second:
            with contextlib.suppress(download.DownloadError):
                download.fetch(folder / "alone", [first], patience=0.2)
                if any((folder / "alone" / name).read_bytes() != each for name, each in contents.items()):
                    raise Believed("what a hostile mirror sent")
            download.fetch(folder / "both", [first, second], patience=30)  # all of them end by themselves
        if any((folder / "both" / name).read_bytes() != each for name, each in contents.items()):
            raise Lost("the good mirror's files")
        if time.monotonic() - start > 60:
            raise Lost("a minute")


def odd_drawing(folder, chance):
    """Strokes and pictures of any form: an image of 28 by 28, or none, or one sentence."""
    def anything(depth=0):
        if depth < 4 and chance.random() < 0.7:
            return [anything(depth + 1) for _ in range(chance.randrange(5))]
        return chance.choice((None, True, "x", {}, -1, 0, 140, 280, 1e9, 10**400, float("nan"), float("inf"), 3.5))

    image = draw.prepare([anything(1) for _ in range(chance.randrange(5))])
    if image is not None and (tuple(image.shape) != (1, 1, 28, 28) or image.dtype != torch.uint8):
        raise Believed("an image of another form")
    with contextlib.suppress(ValueError):
        draw.prepare_photo(io.BytesIO(chance.randbytes(chance.randrange(300))))


KINDS = {  # what is tried: the function, and whether a short campaign has the time for it
    "training interrupted at random moments": (interrupted_training, True),
    "training killed, in a process of its own": (killed_training, False),
    "checkpoint: bits, blocks, cuts": (damaged_checkpoint, True),
    "checkpoint: crafted structure": (crafted_checkpoint, True),
    "checkpoint and kept run: malicious pickle": (malicious_pickle, True),
    "kept run: bits, blocks, cuts": (damaged_kept_run, True),
    "records: bits, blocks, cuts": (damaged_records, True),
    "disk full in the middle of a write": (full_disk, True),
    "three processes write the same two files": (concurrent_writers, False),
    "data files and archives: bits, blocks, cuts": (damaged_data, True),
    "hostile mirror": (hostile_mirror, True),
    "drawing or picture of any form": (odd_drawing, True),
}
POSIX = {interrupted_training, full_disk}  # signals of a timer, limits of a file's size


def attempt(function, chance):
    """One try: None, or ``(column, what happened)``."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        function(folder, chance)
    except Believed as error:
        return "believed", str(error)
    except Lost as error:
        return "lost", str(error)
    except Exception as error:
        return "tracebacks", f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def campaign(seconds: float, seed: int, short: bool = False, say=print) -> dict[str, collections.Counter]:
    """Try each kind in turn for so many seconds together, at least once each; count. Each try has a seed of its own,
    which is said where it failed, so that it can be repeated."""
    kinds = {name: function for name, (function, quick) in KINDS.items()
             if (quick or not short) and (os.name == "posix" or function not in POSIX)}
    counts, spent = {name: collections.Counter() for name in kinds}, dict.fromkeys(kinds, 0.0)
    whole(), part()  # an interrupt in PyTorch's own imports would be no fault of ours
    number, until = seed * 1_000_000, time.monotonic() + seconds
    while not all(counts[name]["tries"] for name in kinds) or time.monotonic() < until:
        name = min(kinds, key=spent.get)  # each gets as much time
        started, number = time.monotonic(), number + 1
        found = attempt(kinds[name], random.Random(number))
        spent[name] += time.monotonic() - started
        counts[name]["tries"] += 1
        if found:
            counts[name][found[0]] += 1
            say(f"{name}, try {number}: {found[0]}: {found[1]}")
    return counts


def table(counts) -> str:
    columns = ("tries", "believed", "lost", "tracebacks")
    rows = [[name, *(f"{count[column]:,}" for column in columns)] for name, count in counts.items()]
    return pages.markdown(["fault", *(f">{column}" for column in columns)], *rows)


def write(text: str) -> None:
    """Put a text between the marks in CONTRIBUTING.md."""
    path = project_root() / "CONTRIBUTING.md"
    files.replace_file(path, pages.between(path.read_text(encoding="utf-8"), "campaign", text))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Faults at random; what becomes of them.")
    parser.add_argument("--minutes", type=float, default=1, metavar="N", help="in all (default: 1)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the tries (default: the time)")
    parser.add_argument("--write", action="store_true", help="the table into CONTRIBUTING.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"seed {options.seed}", flush=True)
    warnings.simplefilter("ignore")
    counts = campaign(60 * options.minutes, options.seed)
    print(table(counts))
    if options.write:
        device = mh.device.describe(torch.device("cpu"))
        write(f"Last run: {time.strftime('%Y-%m-%d')}, {options.minutes:g} minutes, {platform.system()}, {device}, PyTorch "
              f"{torch.__version__.partition('+')[0]}.\n\n{table(counts)}")
    return int(any(count[column] for count in counts.values() for column in ("believed", "lost", "tracebacks")))


if __name__ == "__main__":
    sys.exit(main())
