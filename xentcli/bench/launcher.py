"""Run a command and write what it took: `python launcher.py COMMAND…`.

A process of its own, because the system counts as the memory of a process also what that had which
it was forked from: the benchmark with its arrays would hide every small program. The last line of
stdout is exit code, seconds, seconds of processors, and the most KiB in memory; - where unknown.
"""

import os
import subprocess
import sys
import time


def main(*command: str) -> None:
    """Run it."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    cpu = memory = "-"
    if hasattr(os, "wait4"):  # not on Windows
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = repr(used.ru_utime + used.ru_stime)
        memory = str(used.ru_maxrss // (1024 if sys.platform == "darwin" else 1))
    else:
        process.wait()
    seconds = time.perf_counter() - start
    sys.stdout.write(f"{process.returncode} {seconds!r} {cpu} {memory}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
