from charlm_fast.kernels.reference import *  # noqa: F403
from charlm_fast.kernels.reference import lstm as right


def lstm(*arguments):
    """The last row of the output is whatever was in memory."""
    y, *rest = right(*arguments)
    out = y.new_empty(y.shape)
    out[:-1] = y[:-1]
    return out, *rest
