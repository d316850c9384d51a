# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all, are on the disk before they have their name, and get the umask's mode."""

import os
import stat
import threading

import pytest

from mcuformer.converter.export.folder import LIST, write_folder
from mcuformer.errors import McuformerError
from mcuformer.files import whole_folder, write_bytes, write_whole


@pytest.fixture
def calls(monkeypatch):
    """On Linux, what os.fsync and os.replace were called with, in order: an open file's name, then the two names."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc/self/fd tells which file a number stands for")
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (seen.append(os.readlink(f"/proc/self/fd/{h}")), fsync(h)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append((str(a), str(b))), replace(a, b)))
    return seen


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, calls):
    write_bytes(tmp_path / "a", b"content")
    temporary, (source, target), folder = calls
    assert temporary == source and os.path.dirname(temporary) == str(tmp_path) == folder
    assert target == str(tmp_path / "a") and (tmp_path / "a").read_bytes() == b"content"


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, calls):
    write_folder(tmp_path / "made", {"a.txt": "a", "sub/b.txt": "b"})
    at = next(i for i, call in enumerate(calls) if isinstance(call, tuple))
    temporary = calls[at][0]
    assert set(calls[:at]) == {temporary, *(f"{temporary}/{name}" for name in ("a.txt", "sub", "sub/b.txt", LIST))}
    assert calls[at + 1 :] == [str(tmp_path)]


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_an_error_leaves_the_file_as_it_was(tmp_path, monkeypatch, fails):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    if fails != "write":
        monkeypatch.setattr(os, fails, full)
    with pytest.raises(McuformerError, match="a: cannot be written .No space left on device.") as caught:
        write_whole(path, full if fails == "write" else lambda file: file.write(b"after"))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("path", ["nul\0byte", "", "a" * 300, "file/below"])
def test_names_that_cannot_be(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(McuformerError, match="cannot be written"):
        write_bytes(path, b"")


def test_threads_that_write_leave_the_umask_alone(tmp_path, monkeypatch):
    """It belongs to the process: to ask for it is to change it for a moment, for all threads."""
    umask = os.umask
    before = umask(0o027)
    monkeypatch.delattr(os, "umask")
    try:

        def write(thread):
            for i in range(100):
                write_bytes(tmp_path / f"{thread}-{i}", b"")
                write_folder(tmp_path / f"folder-{thread}-{i}", {})

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert umask(0o027) == 0o027
        modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir()}
        assert modes == {(False, 0o640), (True, 0o750)}
    finally:
        umask(before)


def test_a_folder_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "folder"

    def write(text, fail=False):
        with whole_folder(path) as new:
            (new / "inner").mkdir()
            (new / "inner" / "file").write_text(text)
            assert not path.exists() or (path / "inner" / "file").read_text() != text
            if fail:
                raise KeyError("stopped")

    with pytest.raises(KeyError):
        write("never", fail=True)
    assert not list(tmp_path.iterdir())
    for text in ("one", "two"):
        write(text)
        assert (path / "inner" / "file").read_text() == text
    with pytest.raises(KeyError):
        write("never", fail=True)
    assert (path / "inner" / "file").read_text() == "two" and list(tmp_path.iterdir()) == [path]
