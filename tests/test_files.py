"""Files that are replaced in one step or added to: several processes at once, full disks, torn lines."""

import json
import multiprocessing
import os
import stat
import sys

import pytest

from mnist_helpers import files


def _write(barrier, folder, writer):
    barrier.wait()
    for number in range(50):
        files.append_line(folder / "lines.jsonl", json.dumps({"writer": writer, "number": number, "long": "x" * 5_000}))
        files.replace_file(folder / "whole", str(writer) * 50_000)


def test_two_writers_of_one_file_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    writers = [context.Process(target=_write, args=(barrier, tmp_path, writer)) for writer in (1, 2)]
    for process in writers:
        process.start()
    barrier.wait(60)
    while any(process.is_alive() for process in writers):
        if (tmp_path / "whole").exists():  # a reader sees the one or the other, whole
            assert (tmp_path / "whole").read_text() in ("1" * 50_000, "2" * 50_000)
    assert [process.exitcode for process in writers] == [0, 0]
    records = files.read_records(tmp_path / "lines.jsonl")
    assert {(each["writer"], each["number"]) for each in records} == {(w, n) for w in (1, 2) for n in range(50)}
    assert len(records) == 100 and not list(tmp_path.glob("*part*")) + list(tmp_path.glob(".*part*"))


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
def test_replacing_keeps_the_mode_and_the_link_and_uses_the_umask_for_a_new_file(tmp_path):
    path = tmp_path / "script"
    path.write_text("old")
    path.chmod(0o750)
    (tmp_path / "link").symlink_to(path)
    files.replace_file(tmp_path / "link", "new\n\u00fc")
    assert path.read_bytes() == "new\n\u00fc".encode() and (tmp_path / "link").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    files.replace_file(tmp_path / "fresh", b"bytes")
    (tmp_path / "other").write_bytes(b"bytes")
    assert (tmp_path / "fresh").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="the limit of a file's size is POSIX's")
@pytest.mark.parametrize("write", [files.replace_file, files.append_line])
def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(tmp_path, write):
    import resource

    path = tmp_path / "file"
    path.write_text("first\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # what fits is written, the rest is an error
    try:
        with pytest.raises(OSError):
            write(path, "x" * 50_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # less than a buffer
        with pytest.raises(OSError):
            write(path, "x" * 5_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "first\n" and not list(tmp_path.glob(".*part*"))
    files.append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"


def test_an_interrupt_before_any_line_leaves_the_old_file_or_the_new_one_and_nothing_else(tmp_path):
    path, lines, known = tmp_path / "file", 0, False
    path.write_text("old")

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code is files.replace_file.__code__:
            lines -= event == "line"
            if event == "line" and not lines:
                raise KeyboardInterrupt
            return trace

    for at in range(1, 30):
        lines, debugger = at, sys.gettrace()
        sys.settrace(trace)
        try:
            files.replace_file(path, f"new {at}")
            known = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(debugger)
        assert path.read_text() in ("old", *(f"new {each}" for each in range(1, at + 1))), at
        assert list(tmp_path.iterdir()) == [path], f"a temporary file stayed after an interrupt at line event {at}"
    assert known, "the last rounds have no line left to be interrupted at"


def test_a_line_that_was_torn_takes_no_other_with_it(tmp_path):
    path = tmp_path / "new folder" / "lines.jsonl"
    files.append_line(path, '{"a": 1}')
    path.write_bytes(path.read_bytes() + b'{"a": 2, "b')
    files.append_line(path, '{"a": 3}')
    assert [each["a"] for each in files.read_records(path)] == [1, 3]


def test_readers_leave_out_what_is_no_record_and_name_it_in_one_line(tmp_path, capsys):
    path = tmp_path / "lines.jsonl"
    assert files.read_records(path) == []
    path.write_bytes(b'{"id": 1}\n\n   \n{"id": 2, "x\n[1]\n{"other": 1}\n\xff\xfe\n{"id": 3}')
    assert files.read_records(path, keys=frozenset({"id"})) == [{"id": 1}, {"id": 3}]
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "lines.jsonl" in said.err and all(str(number) in said.err for number in (4, 5, 6, 7))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other line ends")
def test_text_is_written_as_it_is(tmp_path):
    files.append_line(tmp_path / "lines", '{"name": "\u00fc\u2028"}')
    assert files.read_records(tmp_path / "lines") == [{"name": "\u00fc\u2028"}]
