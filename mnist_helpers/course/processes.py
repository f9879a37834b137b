"""Work in processes of its own, which end with the process that started them, however that one ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait

KILLED = "its process was killed (out of memory?)"
GRACE = 5  # seconds to end in after being asked to


def each_in_a_process(function: Callable, jobs: Iterable[tuple], workers: int = 1) -> Iterator[tuple]:
    """Call ``function(*job)`` for each job in a fresh process, ``workers`` at a time; yield ``(job, result)`` as they
    are done. The result is None where a process was killed.

    Jobs and results are pickled, and jobs are taken from ``jobs`` only when there is room. Processes are spawned, so
    that they are the same on every system. Whoever stops early, by an exception or by closing the generator, ends them
    all.
    """
    context, jobs, running = multiprocessing.get_context("spawn"), iter(jobs), {}
    try:
        while True:
            while len(running) < workers and (job := next(jobs, None)) is not None:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_call, args=(sender, function, job))
                process.start()
                sender.close()  # the child has its own, and its death is to be noticed
                running[receiver] = job, process
            if not running:
                return
            for receiver in wait(list(running)):
                result = None
                with contextlib.suppress(EOFError, ConnectionError):
                    result = receiver.recv()
                job, process = running[receiver]
                process.join(GRACE)
                end(process)
                del running[receiver]
                receiver.close()
                yield job, result
    finally:
        for _, process in running.values():
            end(process)


def end(process) -> None:
    """End a process, if it still runs, and all that it started."""
    if process.is_alive():
        family = _descendants(process.pid)
        process.terminate()
        _kill(family)
        process.join(GRACE)
        process.kill()
        process.join()


def _call(sender, function, job):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everyone; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sender.send(function(*job))
    sender.close()


def _end_with_parent():
    """Wait until the parent is gone, even if it was killed, then end this process and all that it started."""
    wait([multiprocessing.parent_process().sentinel])
    _kill(_descendants(os.getpid()))
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


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it SIGTERM and a closed terminal (SIGHUP) raise `SystemExit`, as Ctrl-C raises `KeyboardInterrupt`, so
    that what is to be done at the end is done."""
    def leave(number, frame):
        raise SystemExit(128 + number)

    # Signals can be handled in the main thread only.
    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, leave) for name in names if (number := getattr(signal, name, None))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
