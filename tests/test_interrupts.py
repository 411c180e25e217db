import signal
import sys
import time
import weakref

import pytest

from charlm_fast.training.interrupts import AGAIN_SECONDS, Raise, not_lost


class Ended(BaseException):
    pass


@pytest.fixture
def ends():
    """SIGTERM raises Ended; what there was comes back."""
    before = signal.signal(signal.SIGTERM, Raise(Ended))
    yield
    signal.signal(signal.SIGTERM, before)


def lose(number):
    """A signal whose exception Python cannot pass on: it comes inside a weak reference's callback."""
    thing = Ended()
    kept = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing
    return kept


def wait():
    end = time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("number, kind", [("SIGTERM", Ended), ("SIGINT", KeyboardInterrupt)])
def test_an_exception_in_a_callback_is_raised_anew(ends, number, kind):
    hook = sys.unraisablehook
    with pytest.raises(kind), not_lost(getattr(signal, number), kind):
        lose(getattr(signal, number))
        wait()
    assert sys.unraisablehook is hook


def test_again_and_again(ends):
    """What is lost a second time, in a callback that takes longer, is not lost either."""
    thing = Ended()
    kept = weakref.ref(thing, lambda _: time.sleep(20 * AGAIN_SECONDS))
    with pytest.raises(Ended), not_lost(signal.SIGTERM, Ended):
        lose(signal.SIGTERM)
        del thing
        assert kept() is None
        wait()


def test_it_is_raised_once(ends):
    """A second SIGTERM does not disturb what the first one set off."""
    with not_lost(signal.SIGTERM, Ended), pytest.raises(Ended):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned = True
    assert cleaned


def test_other_lost_exceptions_are_reported_as_before(ends, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: seen.append(lost.exc_type))
    thing = Ended()
    with not_lost(signal.SIGTERM, Ended):
        kept = weakref.ref(thing, lambda _: 1 / 0)
        del thing
    assert kept() is None and seen == [ZeroDivisionError]
