"""A command is measured as a shell sees it."""

from __future__ import annotations

import sys
import time

import pytest
from benchmarks._processes import Measured, floor, measure, median

MIB = 2**20


def python(code):
    return measure([sys.executable, "-c", code])


def test_wall_time_counts_waiting_and_processor_time_does_not():
    done = python("import time; time.sleep(0.6)")
    assert 0.6 <= done.wall < 10
    assert done.cpu < 0.5


def test_processor_time_adds_up_what_the_process_burns():
    done = python("import time\nwhile time.process_time() < 0.5: pass")
    assert 0.5 <= done.cpu <= done.wall * 1.1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_counts_what_is_allocated_and_not_files_that_are_mapped(tmp_path):
    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    mapped = (
        "import mmap, time\n"
        f"file = open({str(tmp_path / 'file')!r}, 'rb')\n"
        "view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(view[::4096])\n"
        "time.sleep(0.3)"
    )
    allocated = "import time; block = b'x' * (64 * 2**20); time.sleep(0.3)"
    nothing = python("import time; time.sleep(0.3)").anonymous
    assert 0 < nothing < 32 * MIB
    assert python(mapped).anonymous < nothing + 8 * MIB
    # The kernel counts pages in batches: its figures are near, not exact (man 5 proc).
    assert abs(python(allocated).anonymous - nothing - 64 * MIB) < 8 * MIB


def test_a_peak_that_is_given_back_still_counts():
    code = "import time; block = b'x' * (64 * 2**20); time.sleep(0.2); del block; time.sleep(0.2)"
    assert python(code).anonymous > 64 * MIB


def test_a_command_that_fails_is_an_error_with_what_it_printed():
    with pytest.raises(RuntimeError, match=r"(?s)out.*wrong.*exit code 3"):
        python("import sys; print('out'); print('wrong', file=sys.stderr); sys.exit(3)")


def test_standard_output_is_kept_apart_from_standard_error():
    assert python("import sys; print('a'); print('b', file=sys.stderr)").output == "a\n"


def test_commands_choose_their_own_threads_and_stay_offline(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import os; print(os.environ.get('OMP_NUM_THREADS'), os.environ['HF_HUB_OFFLINE'])"
    assert python(code).output == "None 1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="GNU dd")
def test_the_floor_takes_time_and_leaves_nothing(tmp_path):
    source = tmp_path / "in"
    source.write_bytes(bytes(3 * MIB + 7))
    started = time.perf_counter()
    read, write = floor([source, source], 3 * MIB + 7, tmp_path / "out")
    assert 0 < read + write < time.perf_counter() - started
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_medians_are_of_one_attribute():
    runs = [Measured(wall, cpu, 0, "") for wall, cpu in ((1.0, 9.0), (5.0, 7.0), (2.0, 8.0))]
    assert median(runs, "wall") == 2.0
    assert median(runs, "cpu") == 8.0
