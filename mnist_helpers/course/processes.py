"""Work in processes of its own, which end with the process that started them, however that one ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

KILLED = "its process was killed (out of memory?)"
GRACE = 5  # seconds to end in after being asked to
TICK = 1  # seconds
MEMORY = 1200 * 2**20  # that a notebook takes, in bytes
CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """How many this process may use: a container may have been given fewer than the machine has."""
    import joblib

    return joblib.cpu_count()


def threads() -> int:
    """How many a notebook's training takes, as `mnist_helpers.device` has it there: this process does without torch."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else 1


def free_memory() -> int:
    """Bytes that new processes may use: what the machine has available, or what this container is still allowed."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, used in ("memory.max", "anon "), ("memory/memory.limit_in_bytes", "total_rss "):  # cgroups, version 2, 1
        with contextlib.suppress(OSError, ValueError):  # not Linux, or "max", for no limit
            allowed = CGROUP / limit
            statistics = allowed.with_name("memory.stat").read_text(encoding="utf-8").splitlines()
            taken = sum(int(line.removeprefix(used)) for line in statistics if line.startswith(used))
            free = min(free, int(allowed.read_text(encoding="utf-8")) - taken)
    return free


def at_once(threads: int = 1) -> int:
    """How many notebooks, of ``threads`` threads each, this machine can run at once: as many as its cores and its free
    memory allow, at least one."""
    return max(1, min(cores() // threads, free_memory() // MEMORY))


def each_in_a_process(function: Callable, jobs: Iterable[tuple], workers: int = 1,
                      progress: Callable | None = None) -> Iterator[tuple]:
    """Call ``function(*job)`` for each job in a fresh process, ``workers`` at a time; yield ``(job, result)`` as they
    are done. The result is None where a process was killed.

    With ``progress`` the call is ``function(*job, tell=tell)``, and whatever it gives to ``tell`` comes here as
    ``progress(job, message)``; about once a second there is a ``progress(None, None)``, so that clocks can go on.

    Jobs, messages and results are pickled, and jobs are taken from ``jobs`` only when there is room. Processes are
    spawned, so that they are the same on every system. Whoever stops early, by an exception or by closing the
    generator, ends them all.
    """
    context, jobs, running = multiprocessing.get_context("spawn"), iter(jobs), {}
    try:
        while True:
            while len(running) < workers and (job := next(jobs, None)) is not None:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_call, args=(sender, function, job, progress is not None))
                running[receiver] = job, process
                process.start()
                sender.close()  # the child has its own, and its death is to be noticed
            if not running:
                return
            for receiver in wait(list(running), TICK if progress else None):
                job, process = running[receiver]
                done, result = True, None
                with contextlib.suppress(EOFError, ConnectionError):
                    done, result = receiver.recv()
                if not done:
                    progress(job, result)
                    continue
                process.join(GRACE)
                end(process)
                del running[receiver]
                receiver.close()
                yield job, result
            if progress:
                progress(None, None)
    finally:
        end(*(process for _, process in running.values()))


def end(*processes) -> None:
    """End these processes, those that still run, and all that they started."""
    alive = [process for process in processes if process.pid and process.is_alive()]
    families = [member for process in alive for member in _descendants(process.pid)]
    for process in alive:  # first all of them: whoever is impatient may interrupt the waiting
        process.terminate()
    _kill(families)
    for process in alive:
        process.join(GRACE)
        process.kill()
        process.join()


def _call(sender, function, job, tells):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everyone; the parent decides
    for number in _to_end():
        signal.signal(number, lambda *_: _leave())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    more = {"tell": lambda message: sender.send((False, message))} if tells else {}
    sender.send((True, function(*job, **more)))
    sender.close()


def _end_with_parent():
    """Wait until the parent is gone, even if it was killed, then end this process and all that it started."""
    wait([multiprocessing.parent_process().sentinel])
    _leave()


def end_children() -> None:
    """End all that this process started, at once."""
    _kill(_descendants(os.getpid()))


def _leave():
    """End this process and all that it started, at once."""
    end_children()
    os._exit(1)


def _descendants(pid):
    import psutil

    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _kill(family):
    import psutil

    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _to_end():
    """The signals to end, those that are there on this system and not ignored, as ``nohup`` has a closed terminal."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it SIGTERM and a closed terminal (SIGHUP) raise `SystemExit`, as Ctrl-C raises `KeyboardInterrupt`, so
    that what is to be done at the end is done. On leaving, whatever `each_in_a_process` still runs is ended."""
    def leave(number, frame):
        raise SystemExit(128 + number)

    # Signals can be handled in the main thread only.
    numbers = _to_end() if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        end(*multiprocessing.active_children())
        for number, handler in before.items():
            signal.signal(number, handler)
