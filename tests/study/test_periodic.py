import threading

from lightningtune.study.periodic import every


def test_it_is_done_again_and_again_until_it_has_come_to_its_end():
    calls, third = [], threading.Event()

    def act():
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            third.set()
        return third.is_set()

    with every(0.001, act, "some name"):
        assert third.wait(30)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "some name"] or [None]
        if thread is not None:
            thread.join(30)
    assert calls == ["some name"] * 3


def test_leaving_ends_it_without_waiting_for_the_interval():
    called = threading.Event()
    with every(3600, called.set, "example"):
        pass
    assert not called.is_set()
    assert "example" not in [thread.name for thread in threading.enumerate()]
