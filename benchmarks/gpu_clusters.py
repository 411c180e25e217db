"""How many clusters of thread blocks run on a GPU at the same time, as its driver says.

It asks the driver about an empty kernel in PTX, which the driver compiles itself: no compiler is
needed. The structures are those of cuda.h, whose layout is a promise.
"""

from __future__ import annotations

import ctypes
from typing import Any

PTX = b""".version 7.8
.target sm_90
.address_size 64
.visible .entry probe()
{
  ret;
}
"""
SHARED, NON_PORTABLE = 8, 14  # CU_FUNC_ATTRIBUTE_...
CLUSTER = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
SIZES = (1, 2, 4, 8, 16)


class Attribute(ctypes.Structure):
    """CUlaunchAttribute with a cluster's dimensions in its union of 64 bytes."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("pad", ctypes.c_char * 4),
        ("dimensions", ctypes.c_uint * 3),
        ("rest", ctypes.c_char * 52),
    )


class Launch(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_memory", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    )


def ask(shared_memory: int, threads: int = 512, library: Any = None) -> dict[str, Any]:
    """By cluster size, how many run at once; or in one clause why the driver does not say.

    A context must be current, as it is once torch has used the device.

    Args:
        shared_memory: bytes of a block.
        library: the driver, for tests.
    """
    try:
        driver = library or ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"why": f"the driver is not here: {error}"}
    module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
    if code := driver.cuModuleLoadData(ctypes.byref(module), PTX):
        return {"why": f"the probe does not load: CUDA error {code}"}
    driver.cuModuleGetFunction(ctypes.byref(kernel), module, b"probe")
    driver.cuFuncSetAttribute(kernel, SHARED, ctypes.c_int(shared_memory))
    driver.cuFuncSetAttribute(kernel, NON_PORTABLE, ctypes.c_int(1))
    found: dict[str, Any] = {}
    for size in SIZES:
        attribute = Attribute(CLUSTER, b"", (ctypes.c_uint * 3)(size, 1, 1), b"")
        launch = Launch(
            (ctypes.c_uint * 3)(size, 1, 1), (ctypes.c_uint * 3)(threads, 1, 1), shared_memory,
            None, ctypes.pointer(attribute), 1,
        )  # fmt: skip
        count = ctypes.c_int(0)
        code = driver.cuOccupancyMaxActiveClusters(
            ctypes.byref(count), kernel, ctypes.byref(launch)
        )
        found[str(size)] = f"CUDA error {code}" if code else count.value
    return found
