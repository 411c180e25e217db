from charlm_fast.kernels.reference import *  # noqa: F403


def sample(*arguments):
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more lines")
