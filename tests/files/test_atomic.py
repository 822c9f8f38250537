"""`files.atomic`: a file is there whole, or as it was."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fcnzoo
from fcnzoo.files.atomic import atomic, default_mode
from fcnzoo.files.staging import PENDING, finish_pending, open_current

ROOT = Path(fcnzoo.__file__).parents[1]


def names(folder: Path) -> list[str]:
    """What a folder holds."""
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(("mode", "content"), [("wb", b"\x00\xff\n"), ("w", "Straße × 2\n")])
def test_writes_bytes_and_utf8(tmp_path: Path, mode: str, content: bytes | str) -> None:
    """Bytes are written as they are, text as UTF-8; missing folders are made."""
    path = tmp_path / "a" / "b" / "file"
    with atomic(path, mode) as file:
        file.write(content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert names(path.parent) == ["file"]


def test_old_file_is_there_until_the_end(tmp_path: Path) -> None:
    """While the block runs a reader sees the old content; afterwards the new."""
    path = tmp_path / "file"
    path.write_text("old")
    with atomic(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_errors_leave_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    """If the block raises, the old file stays and the temporary one goes."""
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic(path, "w") as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    """A process killed (SIGKILL) half way through writing leaves the old content."""
    path = tmp_path / "file"
    path.write_text("old")
    script = (
        "import os, signal, sys\nfrom fcnzoo.files.atomic import atomic\n"
        "with atomic(sys.argv[1], 'w') as file:\n"
        "    file.write('half' * 100_000); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """A written file has the permissions that `open(..., "w")` would give it; the umask stays."""
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "file", "w") as file:
            file.write("x")
        (tmp_path / "plain").write_text("x")
        assert default_mode() == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == mode


@pytest.mark.parametrize("name", ["x" * 255, "ß" * 127, "😀" * 63], ids=["ascii", "two bytes", "four bytes"])
def test_names_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    """A name of up to 255 bytes can be written, whatever its alphabet."""
    with atomic(tmp_path / name, "w") as file:
        file.write("x")
    assert names(tmp_path) == [name]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    """Where a folder stands in the way it is an OSError, and nothing is left behind."""
    (tmp_path / "file").mkdir()

    def write() -> None:
        with atomic(tmp_path / "file", "w") as file:
            file.write("x")

    with pytest.raises(OSError, match="file"):
        write()
    assert names(tmp_path) == ["file"]


def test_a_link_is_no_replacement(tmp_path: Path) -> None:
    """A link called as the folder of a replacement is never followed: the files behind it are somebody else's."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "key").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "key").write_text("open")
    (tmp_path / "folder" / PENDING).symlink_to(tmp_path / "mine")
    finish_pending(tmp_path / "folder")
    assert names(tmp_path / "mine") == ["key"]
    with open_current(tmp_path / "folder", "key") as file:
        assert file.read() == b"open"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_pipes_are_refused(tmp_path: Path) -> None:
    """A pipe is an OSError at once, where opening it would wait for ever."""
    os.mkfifo(tmp_path / "file")
    with pytest.raises(OSError, match="no regular file"):
        open_current(tmp_path, "file")


def test_the_umask_survives_threads(tmp_path: Path) -> None:
    """Many threads that write at once leave the umask, and no file that all may write."""
    before = os.umask(0o022)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: default_mode(), range(20_000))) == {0o644}
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
