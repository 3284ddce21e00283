"""python -m tests.fuzz [--seconds N] [--seed S] [TARGET ...]: all targets or the named ones.

An input that fails is kept in build/fuzz/; --input FILE tries one again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.engine import FOLDER, fuzz, last_input
from fuzz.targets import TARGETS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument(
        "--seed", type=int, default=None, help="default: another one each time; it is printed"
    )
    parser.add_argument("--input", type=Path, help="try this one input with the one target named")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if given.input and len(given.targets) != 1:
        parser.error("--input goes with one target")
    return given


def main() -> int:
    given = arguments()
    names = given.targets or list(TARGETS)
    if given.input:
        print(TARGETS[names[0]].check(random.Random(0), given.input.read_bytes()))
        return 0
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    failed = 0
    for name in names:
        start = time.monotonic()
        try:
            done = fuzz(name, seed, seconds=given.seconds / len(names))
        except AssertionError:
            failed += 1
            kept = FOLDER / f"{name}-{hashlib.sha256(last_input(name)).hexdigest()[:12]}"
            kept.write_bytes(last_input(name))
            traceback.print_exc()
            print(f"{name}: seed {seed} FAILED; python -m tests.fuzz --input {kept} {name}", flush=True)
        else:
            print(f"{name}: seed {seed}, {done} inputs in {time.monotonic() - start:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
