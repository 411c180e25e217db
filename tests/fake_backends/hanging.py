import time

from charlm_fast.kernels.reference import *  # noqa: F403


def sample(*arguments):
    while True:
        time.sleep(0.1)
