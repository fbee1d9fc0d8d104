"""One reader under random damage, in a process of its own: ``python tests/fuzz/fuzzing.py READER [--seed N] [--cases N] [--only N]``.

By hand, with as much time as there is: ``python tests/fuzz/fuzzing.py all --seed 7 --seconds 600``. A case fails if it ends with anything
but a result or a ZooError, or takes longer than ``PATIENCE``. ``--only`` repeats one case and shows its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random

TESTS = Path(__file__).resolve().parent.parent
PATHS = [TESTS, TESTS / "fuzz"]
PATIENCE = 20
"""Seconds a case may take, on a machine that has others to do."""
MEMORY = 6 << 30
"""Bytes of address space: what asks for more has believed a damaged number."""


def fuzz(name: str, seed: int, cases: int, seconds: float, only: int | None = None) -> list[str]:
    """What failed, a line a case. Runs ``cases`` cases, or as many as ``seconds`` allow if that is given."""
    from damages import copied, damage
    from readers import READERS

    from zoo.errors import ZooError

    reader = READERS[name]()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="zoo-fuzz-") as given:
        root = Path(given)
        os.environ["ZOO_HOME"] = str(root / "home")
        sound = []
        for number, write in enumerate(reader.samples):
            (root / "sound" / str(number)).mkdir(parents=True)
            write(root / "sound" / str(number))
            sound.append(root / "sound" / str(number))
            copied(sound[-1], root / "case" / "sample")
            reader.read(root / "case" / "sample")  # a sample that cannot be read would prove nothing
            shutil.rmtree(root / "case")
        started, case = time.monotonic(), -1
        while (time.monotonic() - started < seconds) if seconds else case + 1 < cases:
            case += 1
            random = Random(f"{name} {seed} {case}")
            folder = root / "case" / "sample"
            copied(random.choice(sound), folder)
            how = damage(folder, random)
            if only is not None and case != only:
                shutil.rmtree(root / "case")
                continue
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            sys.stderr.write(f"{case} {how}\n")  # the last of these is the case that killed the process
            sys.stderr.flush()
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    reader.read(folder)
            except ZooError as error:
                if not str(error).strip() or len(str(error)) > 20_000:
                    failures.append(f"{name} {seed} {case} ({how}): a message of {len(str(error))} characters")
            except BaseException as error:
                if only is not None:
                    traceback.print_exc()
                failures.append(f"{name} {seed} {case} ({how}): {type(error).__name__}: {str(error)[:300]}")
            faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(root / "case")
            shutil.rmtree(root / "home", ignore_errors=True)
            if only is not None:
                break
    return [*failures, f"{case + 1} cases"]


def attacked(name: str, seed: int, cases: int = 0, seconds: float = 0) -> tuple[int, list[str]]:
    """Run one reader in a process of its own; the number of cases, and what failed: a crash or a hang with the case that caused it."""
    words = [sys.executable, str(Path(__file__).resolve()), name, "--seed", str(seed)]
    words += ["--cases", str(cases)] if cases else ["--seconds", str(seconds)] if seconds else []
    done = subprocess.run(words, capture_output=True, text=True, check=False, errors="replace")
    try:
        *failures, count = json.loads(done.stdout)
    except ValueError:
        return 0, [f"{name} {seed}: the process ended with {done.returncode}. It said last: {done.stderr[-3000:]}"]
    return int(count.split()[0]), failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=0, help="run as long as this; for 'all' it is shared by the readers"
    )
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    sys.path[:0] = [str(path) for path in PATHS]
    from readers import READERS

    if asked.reader == "all":
        for name in READERS:
            count, failures = attacked(name, asked.seed, asked.cases, asked.seconds / len(READERS))
            sys.stdout.write("\n  ".join([f"{name}: {count} cases, {len(failures)} failures", *failures]) + "\n")
            sys.stdout.flush()
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    cases = asked.cases or READERS[asked.reader]().cases
    found = fuzz(asked.reader, asked.seed, max(cases, (asked.only or 0) + 1), asked.seconds, asked.only)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
