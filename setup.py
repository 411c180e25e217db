"""Builds the two extension modules; everything else is in pyproject.toml.

charlm_fast._C     the operations, against LibTorch's stable ABI
charlm_fast._host  facts about the build and this machine, torch-free

Both keep to stable interfaces, so one build serves every Python from 3.10 and torch from 2.10 on.

CHARLM_FAST_NATIVE=0   install without either: the reference backend serves
CHARLM_FAST_CUDA=0|1   leave the CUDA kernels out, or fail without them
CHARLM_FAST_DEBUG=1    with line tables for debuggers and profilers
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT / "charlm_fast"))
from _source_hash import source_hash  # noqa: E402

STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10
ARCHITECTURES = ("8.0", "9.0", "10.0+PTX")


def say(message):
    print(f"charlm_fast: {message}", file=sys.stderr)


def find_compiler():
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if shutil.which(name.split()[0]):
            return name
    return None


def find_cuda_home():
    """A CUDA toolkit with headers and nvcc; `which nvcc` may be a wrapper somewhere else."""
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    nvcc = shutil.which("nvcc")
    if nvcc:
        candidates.append(Path(nvcc).resolve().parent.parent)
    candidates.append("/usr/local/cuda")
    for home in candidates:
        if (
            home
            and (Path(home) / "bin" / "nvcc").exists()
            and (Path(home) / "include" / "cuda_runtime.h").exists()
        ):
            return Path(home)
    return None


def nvcc_version(home):
    out = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True)
    found = re.search(r"release (\d+\.\d+)", out.stdout)
    return found.group(1) if found else ""


def cuda_to_use(torch_cuda):
    """(toolkit folder or None, why not)."""
    home = find_cuda_home()
    if os.environ.get("CHARLM_FAST_CUDA") == "0":
        return None, "CHARLM_FAST_CUDA=0"
    if torch_cuda is None:
        return None, "torch is a CPU build"
    if home is None:
        return None, "no CUDA toolkit was found (set CUDA_HOME)"
    version = nvcc_version(home)
    if version.split(".")[0] != torch_cuda.split(".")[0]:
        return None, f"nvcc is {version} but torch was built with CUDA {torch_cuda}"
    if not any((ROOT / "csrc" / "cuda").glob("*.cu")):
        return None, "the sources hold no CUDA kernels"
    return home, ""


def sources(*patterns):
    return sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern))


def extensions():
    """What setup() takes beside pyproject.toml: nothing where no kernels are to be compiled."""
    if os.environ.get("CHARLM_FAST_NATIVE") == "0":
        say("CHARLM_FAST_NATIVE=0, installing without the C++ kernels")
        return {}
    if sys.platform == "win32":
        say(
            "the C++ kernels do not compile on Windows, installing without them; "
            "the slow reference backend serves (in WSL 2 they compile)"
        )
        return {}
    if find_compiler() is None:
        say(
            "no C++ compiler was found, installing without the C++ kernels; "
            "install g++ or clang++ and run pip again to get them"
        )
        return {}

    import torch

    home, why_not = cuda_to_use(torch.version.cuda)
    if home is not None:
        os.environ["CUDA_HOME"] = str(home)
        # Unset, torch asks the GPU, which the building machine need not have.
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ";".join(ARCHITECTURES))
    elif os.environ.get("CHARLM_FAST_CUDA") == "1":
        raise SystemExit(f"charlm_fast: CHARLM_FAST_CUDA=1, but {why_not}")
    say(f"building CPU kernels{' and CUDA kernels' if home else f'; no CUDA kernels: {why_not}'}")

    from torch.utils.cpp_extension import (
        BuildExtension,
        CppExtension,
        CUDAExtension,
        min_supported_cpython,
    )

    headers = sources("csrc/**/*.h", "csrc/**/*.cuh")
    # Python's own flags, which come first, ask for debug information.
    debug = "-g1" if os.environ.get("CHARLM_FAST_DEBUG") == "1" else "-g0"
    cxx = ["-O3", "-std=c++17", "-ffp-contract=fast", "-fvisibility=hidden", debug, STABLE_ABI]
    native = [
        CppExtension(
            "charlm_fast._C",
            ["csrc/binding.cpp", *sources("csrc/python/*.cpp", "csrc/cpu/**/*.cpp")],
            include_dirs=[str(ROOT / "csrc")],
            extra_compile_args={"cxx": cxx},
            depends=headers,
            py_limited_api=True,
        )
    ]
    if home is not None:
        # torch forbids conversions of the half types, which the kernels spell as casts.
        allow = [f"-U__CUDA_NO_{kind}_CONVERSIONS__" for kind in ("HALF", "BFLOAT16")]
        nvcc = ["-O3", "-std=c++17", STABLE_ABI, "-DUSE_CUDA", *allow]
        native.append(
            CUDAExtension(  # apart, so that the CPU kernels outlive the CUDA release of a torch
                "charlm_fast._cuda",
                sources("csrc/cuda/*.cpp", "csrc/cuda/*.cu"),
                include_dirs=[str(ROOT / "csrc")],
                extra_compile_args={"cxx": [*cxx, "-DUSE_CUDA"], "nvcc": nvcc},
                depends=headers,
                py_limited_api=True,
            )
        )
    facts = {
        "CHARLM_TORCH_VERSION": torch.__version__,
        "CHARLM_CUDA_VERSION": nvcc_version(home) if home else "",
        "CHARLM_CUDA_WHY_NOT": why_not,
        "CHARLM_CUDA_ARCHITECTURES": os.environ.get("TORCH_CUDA_ARCH_LIST", "") if home else "",
        "CHARLM_SOURCE_HASH": source_hash(ROOT / "csrc"),
    }
    host = Extension(
        "charlm_fast._host",
        sources("csrc/host/*.cpp"),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args=["-std=c++17", "-fvisibility=hidden", debug],
        # It calls nothing of the C library, by which auditwheel tells the kind of Linux.
        extra_link_args=["-Wl,--no-as-needed", "-lc"] if sys.platform == "linux" else [],
        depends=headers,
        define_macros=[(name, f'"{value}"') for name, value in facts.items()],
        py_limited_api=True,
    )

    class Build(BuildExtension):
        def build_extensions(self):
            try:
                super().build_extensions()
            except Exception as error:
                raise RuntimeError(
                    "charlm_fast: the C++ kernels did not compile (the reason is above); "
                    "set CHARLM_FAST_NATIVE=0 to install without them"
                ) from error

    # torch compiles for the limited API of this Python, which the wheel's name then promises.
    oldest = f"cp3{int(min_supported_cpython, 16) >> 16 & 0xFF}"
    return {
        "ext_modules": [*native, host],
        "cmdclass": {"build_ext": Build},
        "options": {"bdist_wheel": {"py_limited_api": oldest}},
    }


# Asked for metadata alone, setuptools need not know of torch or compilers.
METADATA_ONLY = {"egg_info", "dist_info", "sdist"} & set(sys.argv)
setup(**({} if METADATA_ONLY else extensions()))
