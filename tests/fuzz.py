"""The fuzzing harnesses for longer than in the suite: `python tests/fuzz.py [MINUTES] [NAME...]`.

Each harness runs for that many minutes (1) with new random examples. Executions and findings are
printed; the exit code is 1 where there are findings.
"""

import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

FOLDER = Path(__file__).parent / "property"
NAMES = [path.stem.removeprefix("test_fuzz_") for path in sorted(FOLDER.glob("test_fuzz_*.py"))]
BATCH = 500  # examples between two looks at the clock
HOW = settings(
    max_examples=BATCH,
    deadline=None,
    database=None,
    derandomize=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    verbosity=Verbosity.quiet,
    print_blob=False,
)


class Harness:
    """One harness, how often it was run, and what it has found, each kind of finding once."""

    def __init__(self, examples, check):
        self.examples, self.check = examples, check
        self.executions, self.findings = 0, {}

    def run(self, seconds):
        """Batches of examples until the time is over."""
        end = time.monotonic() + seconds
        number = time.time_ns()
        while time.monotonic() < end:
            number += 1
            self.batch(number, end)

    def batch(self, number, end):
        """Some examples from a seed; what fails is made small before it is kept."""
        last = []

        @seed(number)
        @HOW
        @given(self.examples)
        def one(example):
            if time.monotonic() > end and not last:
                return
            self.executions += 1
            try:
                self.check(example)
            except BaseException:
                last[:] = [example, traceback.format_exc()]
                raise

        try:
            one()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            example, trace = last or (None, traceback.format_exc())
            self.findings.setdefault(str(error)[:200], (number, example, trace))


def main(arguments):
    """Run the harnesses that are named, or all."""
    minutes = float(arguments[0]) if arguments else 1.0
    sys.path.insert(0, str(FOLDER))
    found = 0
    for name in arguments[1:] or NAMES:
        module = import_module(f"test_fuzz_{name}")
        harness = Harness(module.EXAMPLES, module.check)
        harness.run(60 * minutes)
        for number, example, trace in harness.findings.values():
            say(f"{name}: seed {number}: {example!r}\n{trace}")
        say(f"{name}: {harness.executions} executions, {len(harness.findings)} findings")
        found += len(harness.findings)
    return 1 if found else 0


def say(text):
    """A line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
