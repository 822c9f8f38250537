"""Memory kept between training steps."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap

import pytest

from fcnzoo.training import memory
from fcnzoo.training.memory import kept_memory

GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not GLIBC, reason="the setting is glibc's")
def test_freed_tensors_cost_no_page_faults() -> None:
    """Inside, large tensors are allocated again without faults; afterwards memory has gone back to the system."""
    code = """
    import resource, torch
    from fcnzoo.training.memory import kept_memory

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.zeros(24 << 20)  # 96 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    outside = faults()
    with kept_memory(True) as done:
        assert done
        faults()
        inside = faults()
        large = resident()
    assert inside * 20 < outside, (inside, outside)
    assert large - resident() > 80e6, (large, resident())
    again = faults()
    assert again > outside / 4, (again, outside)
    """
    clean = {"PATH": "", "OMP_NUM_THREADS": "1"}
    # Huge pages would hide the faults, and their use is the machine's choice: four kilobytes a page at 96 MB
    # make 24,576 faults, two megabytes make 48. Both are far above none.
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "value"), [("MALLOC_TOP_PAD_", "1"), ("GLIBC_TUNABLES", "glibc.malloc.top_pad=1")])
def test_a_tuned_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Where the environment tunes the allocator, nothing is changed."""
    monkeypatch.setenv(name, value)
    assert memory._glibc() is None
    with kept_memory(True) as done:
        assert not done


def test_not_wanted_is_not_done() -> None:
    """`keep_memory=false` changes nothing."""
    with kept_memory(False) as done:
        assert not done


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on glibc nothing is done, and nothing fails."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with kept_memory(True) as done:
        assert not done
