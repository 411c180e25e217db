"""Facts about the build and this machine; csrc/host/module.cpp."""

from typing import TypedDict

class BuildInfo(TypedDict):
    compiler: str
    cxx_standard: int
    torch_version: str
    cuda_version: str  # "" without CUDA kernels
    cuda_why_not: str
    cuda_architectures: str
    source_hash: str

def build_info() -> BuildInfo: ...
def cpu_features() -> dict[str, bool]: ...
