"""csrc/cpu under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

The headers in the place of torch's have tensors that end where their memory ends, and threads that
a sanitizer knows. sanitizers/driver.cpp calls all operations on random shapes and arguments.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .programs import compile_all, driver_sources, execute, run

ADDRESS = (
    "-fsanitize=address,undefined -fno-sanitize=null,object-size,vptr -fno-sanitize-recover=all"
)
THREAD = "-fsanitize=thread"
# Teams at sizes that are quick here; and with no patience, so that they also break up.
TEAMS = "-DCHARLM_WORTH_MEETING=1"
LEAVE = f"{TEAMS} -DCHARLM_PATIENCE=-1"
# Leaks are left alone: under some containers the search for them is not allowed.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:strict_init_order=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def build(cxx: str, flags: str, sources: list[Path], folder: Path) -> Path:
    """A program of the sources, or a skip where the compiler lacks the sanitizer."""
    common = [cxx, "-O0", "-g1", *flags.split()]
    empty, program = folder / "empty.cpp", folder / "program"
    empty.write_text("int main() { return 0; }\n")
    tried = execute([*common, str(empty), "-o", str(program)])
    tried = tried if tried.returncode else execute([str(program)], OPTIONS)
    if tried.returncode:
        pytest.skip(f"{cxx} has no {flags.split()[0]} that works here: {tried.stderr[-300:]}")
    objects = compile_all(sources, folder, lambda source: common)
    run([*common, *objects, "-pthread", "-o", str(program)])
    return program


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, cases",
    [(f"{ADDRESS} {LEAVE}", 200), (f"{THREAD} {TEAMS}", 80), (f"{THREAD} {LEAVE}", 80)],
    ids=["address", "thread", "thread, teams break up"],
)
def test_every_operation(cxx: str, flags: str, cases: int, tmp_path: Path) -> None:
    program = build(cxx, flags, driver_sources(), tmp_path)
    done = execute([str(program), str(cases), str(random.randrange(1 << 40))], OPTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{cases} cases on ") and "portable" in done.stdout
    print(done.stdout)


MISTAKES = """
#include <torch/csrc/stable/ops.h>

#include <string>

#include "cpu/memory/workspace.h"

int main(int count, char** argument) {
  using torch::stable::Tensor;
  if (count > 1 && argument[1] == std::string("gap")) {
    const charlm::Buffer<float> workspace = charlm::make_buffer<float>(64);
    charlm::Arena<float> arena(workspace.get());
    float* part = arena.take(3);
    arena.take(3);
    part[3] = 1;
  }
  const Tensor t({3}, torch::stable::ScalarType::Float);
  float* p = t.mutable_data_ptr<float>();
  torch::stable::threads() = 2;
  const int64_t first = count == 1 ? 3 : 0;
  torch::stable::parallel_for(0, 2, 1, [&](int64_t begin, int64_t) { p[first] = begin; });
  return static_cast<int>(p[0]) > 5;
}
"""


@pytest.mark.parametrize(
    "flags, arguments, word",
    [
        (ADDRESS, [], "heap-buffer-overflow"),
        (ADDRESS, ["gap"], "use-after-poison"),
        (THREAD, ["race"], "data race"),
    ],
    ids=["address", "gap", "thread"],
)
def test_a_mistake_is_seen(
    cxx: str, flags: str, arguments: list[str], word: str, tmp_path: Path
) -> None:
    source = tmp_path / "mistakes.cpp"
    source.write_text(MISTAKES)
    done = execute([str(build(cxx, flags, [source], tmp_path)), *arguments], OPTIONS)
    assert done.returncode != 0 and word in done.stderr
