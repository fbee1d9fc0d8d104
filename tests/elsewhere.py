"""A simulated system without the calls that only Linux has, in processes of its own and those that they start."""

from __future__ import annotations

import os
from pathlib import Path

ABSENT = '''
import builtins, ctypes, io, os, pathlib, signal, subprocess, sys

class Absent:
    """No module of these names can be imported any more."""
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "pwd", "grp", "termios"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import asyncio.unix_events, filelock, tempfile, uuid  # the standard library looks at the system by itself
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())

for name in ("sched_getaffinity", "sched_setaffinity", "pread", "link", "fchmod", "fchown", "getuid", "geteuid", "killpg", "setsid"):
    delattr(os, name)
kill = signal.SIGKILL
subprocess.Popen.kill = lambda self: self.send_signal(kill)
for name in ("SIGKILL", "SIGHUP"):
    delattr(signal, name)

def without_descriptors(self, *args, __init__=subprocess.Popen.__init__, **given):
    if given.get("pass_fds"):
        raise ValueError("pass_fds not supported on this system")
    __init__(self, *args, **given)

subprocess.Popen.__init__ = without_descriptors

def watched(opening):
    def opened(file, *args, **given):
        if str(file).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", str(file))
        return opening(file, *args, **given)
    return opened

builtins.open = io.open = watched(io.open)
ctypes.CDLL.__getattr__ = lambda self, name, __getattr__=ctypes.CDLL.__getattr__: (
    (_ for _ in ()).throw(AttributeError(name)) if name == "prctl" else __getattr__(self, name)
)
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = lambda *args: (_ for _ in ()).throw(NotImplementedError())
asyncio.unix_events._UnixSelectorEventLoop.remove_signal_handler = lambda *args: (_ for _ in ()).throw(NotImplementedError())
os.environ["ZOO_TEST_ELSEWHERE"] = "1"
'''


def elsewhere(folder: Path) -> dict[str, str]:
    """The environment of a process that runs on such a system; ``folder`` is for what makes it one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(ABSENT, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}
