"""The threads of a worker for sessions that wait, without a worker."""

import logging
import mmap
import queue
import threading

import pytest

from arena.errors import EnvError
from arena.server import lanes as lanes_module
from arena.server.frames import AT_WORK, AT_WORK_BYTES, Drop
from arena.server.lanes import Lanes, Work


class Book:
    """An `Owner` that writes down what happens."""

    def __init__(self):
        self.sent, self.settled, self.recanted = queue.SimpleQueue(), [], queue.SimpleQueue()

    def send(self, data):
        self.sent.put(data)

    def settle(self, work):
        self.settled.append(work.frame.req)

    def desert(self, work):
        return b"given up %d" % work.frame.req

    def recant(self, work):
        self.recanted.put(work.frame.req)


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def shared():
    return mmap.mmap(-1, AT_WORK_BYTES)


def at_work(shared):
    return [req for (req,) in AT_WORK.iter_unpack(shared)]


def work(req, do=lambda: None, session="s"):
    def done():
        do()
        return b"done %d" % req

    return Work(Drop(req, session), done)


def next_of(told):
    return told.get(timeout=20)


def test_work_of_a_session_is_done_in_order_and_written_down(book, shared):
    lanes = Lanes(book, shared, 60.0)
    lane, go = lanes.place("a"), threading.Event()
    seen = []
    lane.put(work(7, lambda: (go.wait(20), seen.append(at_work(shared)[1]))))
    lane.put(work(8, lambda: seen.append(at_work(shared)[1])))
    go.set()
    assert [next_of(book.sent), next_of(book.sent)] == [b"done 7", b"done 8"]
    lanes.close(20)
    assert (seen, book.settled) == ([7, 8], [7, 8])
    assert not any(at_work(shared))


def test_sessions_have_threads_of_their_own_and_share_them_where_there_are_too_many(book, shared, monkeypatch):
    monkeypatch.setattr(lanes_module, "MOST_THREADS", 3)
    lanes = Lanes(book, shared, 60.0)
    placed = [lanes.place(str(number)) for number in range(7)]
    assert [placed.index(lane) for lane in placed] == [0, 1, 2, 0, 1, 2, 0]
    lanes.forget("1")
    assert lanes.place("another") is placed[1]
    for number in ("2", "5"):
        lanes.forget(number)
    assert lanes.place("one more") is placed[2]  # it has none left, and is used again
    lanes.forget("never placed")
    lanes.close(20)


def test_sessions_that_share_a_thread_wait_for_each_other(book, shared, monkeypatch):
    monkeypatch.setattr(lanes_module, "MOST_THREADS", 1)
    lanes, go = Lanes(book, shared, 60.0), threading.Event()
    lanes.place("a").put(work(1, lambda: go.wait(20)))
    lanes.place("b").put(work(2))
    assert book.sent.empty()
    go.set()
    assert [next_of(book.sent), next_of(book.sent)] == [b"done 1", b"done 2"]
    lanes.close(20)


def test_work_that_does_not_return_is_given_up_and_its_lane_goes_on(book, shared):
    lanes, go = Lanes(book, shared, 0.2), threading.Event()
    lane = lanes.place("a")
    lane.put(work(1, lambda: go.wait(60)))
    lane.put(work(2))
    assert [next_of(book.sent), next_of(book.sent)] == [b"given up 1", b"done 2"]
    assert book.recanted.empty()
    go.set()
    assert next_of(book.recanted) == 1
    lane.put(work(3))
    assert next_of(book.sent) == b"done 3"
    lanes.close(20)
    assert book.settled == [2, 3]


def test_work_may_be_allowed_more_time(book, shared):
    lanes, go = Lanes(book, shared, 0.2), threading.Event()
    patient, other = lanes.place("patient"), lanes.place("other")

    def rebuild():
        lanes.allow("patient", 60.0)
        go.wait(60)

    patient.put(work(1, rebuild))
    other.put(work(2, lambda: go.wait(60)))
    assert next_of(book.sent) == b"given up 2"  # the other began later
    go.set()
    assert next_of(book.sent) == b"done 1"
    lanes.close(20)


def test_a_worker_whose_threads_are_all_lost_ends(book, shared, monkeypatch, caplog):
    ended = threading.Event()
    monkeypatch.setattr(lanes_module, "_MOST_DESERTED", 0)
    monkeypatch.setattr(lanes_module.os, "_exit", lambda code: ended.set())
    go = threading.Event()
    lanes = Lanes(book, shared, 0.1)
    lane = lanes.place("a")
    with caplog.at_level(logging.ERROR):
        lane.put(work(1, lambda: go.wait(60)))
        assert ended.wait(20)
    assert "the worker ends: 1 calls do not return" in caplog.text
    go.set()
    assert next_of(book.recanted) == 1


def test_where_there_are_no_more_threads_sessions_share_those_that_there_are(book, shared, monkeypatch, caplog):
    lanes = Lanes(book, shared, 60.0)
    first = lanes.place("a")

    def none(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(lanes_module.Lane, "start", none)
    with caplog.at_level(logging.WARNING):
        assert lanes.place("b") is first
    assert "sessions share threads" in caplog.text
    with pytest.raises(EnvError, match="no thread") as refused:
        Lanes(book, shared, 60.0).place("c")
    assert refused.value.retryable
    lanes.close(20)


def test_closing_does_not_wait_for_work_that_does_not_return(book, shared):
    lanes, go = Lanes(book, shared, 60.0), threading.Event()
    stuck, idle = lanes.place("stuck"), lanes.place("idle")
    begun, closed = threading.Event(), threading.Event()
    stuck.put(work(1, lambda: (begun.set(), go.wait(60))))
    stuck.put(work(2))
    assert begun.wait(20)
    stuck.clear()
    idle.put(Work(None, lambda: closed.set() or b""))
    lanes.close(0.2)
    assert closed.is_set()
    go.set()
    assert next_of(book.sent) == b"done 1"
    stuck.join(20)
    assert book.sent.empty()  # what was cleared is never done, and nobody waits for a closing
