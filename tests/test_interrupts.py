import signal
import sys
import time
import weakref

import pytest

from charlm_fast.training.interrupts import AGAIN_SECONDS, Raise, not_lost

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a signal wakes nobody there")


class Ended(BaseException):
    pass


BOTH = {Ended: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}


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
    assert kept() is None


def wait():
    """Sleep, from which a signal wakes; whoever polls would not see that."""
    time.sleep(50)
    pytest.fail("nothing came")


@pytest.mark.parametrize("number, kind", [("SIGTERM", Ended), ("SIGINT", KeyboardInterrupt)])
def test_an_exception_in_a_callback_is_raised_anew(ends, number, kind):
    hook, start = sys.unraisablehook, time.monotonic()
    with pytest.raises(kind), not_lost(BOTH):
        lose(getattr(signal, number))
        wait()
    assert sys.unraisablehook is hook and time.monotonic() - start < 40  # of 50


def test_again_and_again(ends):
    """What is lost a second time, in a callback that takes longer, is not lost either."""
    thing = Ended()
    kept = weakref.ref(thing, lambda _: time.sleep(20 * AGAIN_SECONDS))
    with pytest.raises(Ended), not_lost(BOTH):
        lose(signal.SIGTERM)
        del thing
        assert kept() is None
        wait()


@pytest.mark.parametrize("number, kind", [("SIGTERM", Ended), ("SIGINT", KeyboardInterrupt)])
def test_one_that_comes_while_another_is_reported(ends, monkeypatch, number, kind):
    monkeypatch.setattr(
        sys, "unraisablehook", lambda lost: signal.raise_signal(getattr(signal, number))
    )
    thing = Ended()
    kept = weakref.ref(thing, lambda _: 1 / 0)
    with pytest.raises(kind), not_lost(BOTH):
        del thing
        assert kept() is None
        wait()


def test_it_is_raised_once(ends):
    """A second SIGTERM does not disturb what the first one set off."""
    with not_lost(BOTH), pytest.raises(Ended):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned = True
    assert cleaned


def test_nothing_comes_after_the_block(ends):
    with not_lost(BOTH):
        lose(signal.SIGTERM)
    time.sleep(5 * AGAIN_SECONDS)


def test_other_lost_exceptions_are_reported_as_before(ends, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: seen.append(lost.exc_type))
    thing = Ended()
    with not_lost(BOTH):
        kept = weakref.ref(thing, lambda _: 1 / 0)
        del thing
    assert kept() is None and seen == [ZeroDivisionError]
