"""Files that are never half written: replaced in one step, or added to line by line under a lock."""

import contextlib
import json
import os
import secrets
import shutil
import sys
from pathlib import Path

import filelock


def replace_file(path: str | Path, content: bytes | str) -> None:
    """Write ``content`` in one step: a reader sees the old file or the new one, never a part.

    Several writers may do so at once, and the last one counts. Mode and symbolic links stay. If writing fails, the
    old file is untouched and the temporary one is removed. Raises `OSError`.
    """
    path = Path(path).resolve()
    content = content.encode() if isinstance(content, str) else content
    # In the target's folder: a file can be moved in one step within one file system only. Opened after `try`, under a
    # name of our own: between the two, an interrupt would leave it behind.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            if path.exists():
                shutil.copymode(path, temporary)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def append_line(path: str | Path, text: str) -> None:
    """Add ``text``, one line, to a file that several processes may add to; the folder is made if need be.

    If the line cannot be written whole, none of it stays. A line that was torn before is ended first, so that it takes
    no other with it. Raises `OSError`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")), open(path, "ab+", 0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and file.seek(size - 1) >= 0 and file.read(1) != b"\n"
        try:
            line = b"\n" * torn + text.encode() + b"\n"
            while line:  # unbuffered, so that nothing is written later; a full disk takes a part
                line = line[file.write(line):]
        except BaseException:  # an interrupt, too
            os.truncate(path, size)
            raise


def read_records(path: str | Path, keys: frozenset | set = frozenset()) -> list[dict]:
    """The records of a file of one JSON object a line; none if there is no file.

    Lines that are no object, or lack one of ``keys``, are left out and named in one line on stderr.
    """
    path, records, skipped = Path(path), [], []
    if not path.is_file():
        return records
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or keys - set(record):
                raise ValueError
            records.append(record)
        except ValueError:  # JSON's and UTF-8's errors are among them
            skipped.append(number)
    if skipped:
        print(f"{path.name}: left out line {', '.join(map(str, skipped))}, which is no complete record",
              file=sys.stderr)
    return records
