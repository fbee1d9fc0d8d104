"""Writing a file: it appears when it is complete, and destroys nothing but the content it replaces."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.files import atomic_path, atomic_write, put_in_place

pytestmark = pytest.mark.lowest

NEEDS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices")
NOT_ROOT = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root writes everywhere")


@pytest.fixture
def folder(_own_places: None) -> Path:
    """The empty working folder of the test."""
    return Path.cwd()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written(path: Path, text: str = "new") -> None:
    with atomic_write(path) as handle:
        handle.write(text)


def test_the_file_appears_when_it_is_complete_and_nothing_stays_beside_it(folder: Path) -> None:
    path = folder / "out.txt"
    path.write_text("old")
    with atomic_write(path) as handle:
        handle.write("new")
        handle.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(folder) == ["out.txt"]


def test_a_file_keeps_its_mode_and_a_new_one_gets_what_the_umask_allows(folder: Path) -> None:
    kept, new, usual = folder / "kept", folder / "new", folder / "usual"
    kept.write_text("old")
    kept.chmod(0o640)
    usual.touch()
    written(kept)
    written(new)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert new.stat().st_mode == usual.stat().st_mode


def test_a_link_stays_and_what_it_points_to_is_replaced(folder: Path) -> None:
    target, link = folder / "elsewhere" / "target", folder / "link"
    target.parent.mkdir()
    target.write_text("old")
    (folder / "middle").symlink_to("elsewhere/target")
    link.symlink_to("middle")
    written(link)
    assert link.is_symlink()
    assert target.read_text() == link.read_text() == "new"
    assert names(target.parent) == ["target"]


def test_a_link_to_nothing_makes_the_file_it_points_to(folder: Path) -> None:
    (folder / "link").symlink_to("target")
    written(folder / "link")
    assert (folder / "link").is_symlink()
    assert (folder / "target").read_text() == "new"


def test_links_in_a_circle_and_folders_are_errors(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    (folder / "c").symlink_to(".")
    for name, said in (("a", "circle"), ("c", "folder"), (".", "folder")):
        with pytest.raises(ZooError, match=f"cannot write .*{said}"):
            written(folder / name)


def test_a_fifo_is_written_through(folder: Path) -> None:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    written(fifo, "through")
    reader.join(10)
    assert read == ["through"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@NEEDS_ROOT
def test_a_device_is_written_through_and_stays_a_device(folder: Path) -> None:
    null = folder / "null"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    written(null)
    made = folder / "made"
    made.write_text("a model")
    put_in_place(made, null)
    assert stat.S_ISCHR(null.stat().st_mode)
    assert names(folder) == ["null"]


def test_a_socket_stays_a_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(ZooError, match="cannot write s: "):
            written(Path("s"))
    assert stat.S_ISSOCK(Path("s").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device_is_an_error_that_names_it() -> None:
    with pytest.raises(ZooError, match="cannot write /dev/full: No space left on device"):
        written(Path("/dev/full"))


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_its_path_goes_on_where_it_is(name: str, folder: Path) -> None:
    """A shell that appends, or that writes before and after, loses nothing."""
    if not Path("/dev/fd").exists() or (name.startswith("/proc") and not Path(name).exists()):
        pytest.skip(f"no {name} on this system")
    log = folder / "log"
    log.write_text("before\n")
    program = f"from pathlib import Path; from zoo.files import atomic_write\nwith atomic_write(Path({name!r})) as f: f.write('x\\n')"
    with log.open("a") as handle:
        subprocess.run([sys.executable, "-c", program], stdout=handle, check=True)
        handle.write("after\n")
    assert log.read_text() == "before\nx\nafter\n"


def test_a_planted_temporary_name_is_neither_followed_nor_replaced(folder: Path) -> None:
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / "out.txt.partial").symlink_to(victim)
    written(folder / "out.txt")
    assert victim.read_text() == "precious"
    assert (folder / "out.txt.partial").is_symlink()
    assert (folder / "out.txt").read_text() == "new"


def test_what_was_written_before_a_fault_is_kept_and_its_name_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        with atomic_write(folder / "out.txt") as handle:
            handle.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    [kept] = folder.iterdir()
    assert kept.read_text() == "half"
    assert str(kept) in caplog.text


def test_a_fault_before_anything_is_written_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ValueError, match="early"), atomic_write(folder / "out.txt"):
        raise ValueError("early")
    assert not list(folder.iterdir())


def test_a_name_as_long_as_the_system_allows_can_be_written(folder: Path) -> None:
    path = folder / ("文" * 80 + ".jsonl")
    written(path)
    assert [path] == list(folder.iterdir())


def test_names_that_are_not_utf8_are_escaped_in_the_text(folder: Path) -> None:
    written(folder / "out.txt", "file \udcff")
    assert (folder / "out.txt").read_text(encoding="utf-8") == "file \\udcff"


@NOT_ROOT
def test_a_write_protected_file_is_not_replaced(folder: Path) -> None:
    path = folder / "out.txt"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(ZooError, match="write-protected"):
        written(path)
    assert path.read_text() == "old"


def test_a_limit_on_the_size_of_files_is_an_error_that_names_the_file(folder: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(ZooError, match=r"cannot write .*out\.txt: File too large"):
            written(folder / "out.txt", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_library_writes_by_its_path_follows_the_same_rules(folder: Path) -> None:
    victim, link = folder / "victim", folder / "link.txt"
    victim.write_text("precious")
    for name in ("out.txt", "link.txt"):
        (folder / f"{name}.partial").symlink_to(victim)
    link.symlink_to(folder / "out.txt")
    with atomic_path(link) as aside:
        aside.write_text("new")
    assert victim.read_text() == "precious"
    assert (folder / "out.txt").read_text() == "new"
    assert link.is_symlink()
    assert {path.name for path in folder.iterdir()} == {
        "victim", "link.txt", "out.txt", "out.txt.partial", "link.txt.partial",
    }  # fmt: skip

    def fails() -> None:
        with atomic_path(link) as aside:
            aside.write_text("half")
            raise RuntimeError

    before = sorted(folder.iterdir())
    with pytest.raises(RuntimeError):
        fails()
    assert sorted(folder.iterdir()) == before
    assert (folder / "out.txt").read_text() == "new"
    with pytest.raises(ZooError, match="it is a folder"), atomic_path(folder):
        pass
