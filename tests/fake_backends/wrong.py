from charlm_fast.kernels.reference import *  # noqa: F403
from charlm_fast.kernels.reference import lstm_backward as right


def lstm_backward(*arguments):
    """One gradient is a hundredth too large."""
    dx, dh0, dc0, dweights = right(*arguments)
    dweights[1] = dweights[1] * 1.01
    return dx, dh0, dc0, dweights
