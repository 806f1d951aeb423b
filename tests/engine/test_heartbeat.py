"""Two machines as two threads with a real store between them."""

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from rethink_pretrain.engine.heartbeat import watch


class Machine:
    """Its watching thread; `words` is what it would end its process with."""

    def __init__(self, store: dist.TCPStore, number: int):
        self.over, self.words = threading.Event(), []
        arguments = (store, number, 2, self.over, self.words.append, 0.02, 0.5)
        self.thread = threading.Thread(target=watch, args=arguments, daemon=True)
        self.thread.start()

    def leave(self) -> None:
        self.over.set()
        self.thread.join(10)


@pytest.fixture
def server():
    return dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))


def connect(server: dist.TCPStore) -> dist.TCPStore:
    return dist.TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=5))


def test_machines_that_beat_live(server):
    machines = [Machine(connect(server), number) for number in (0, 1)]
    time.sleep(1.5)
    for machine in machines:
        machine.leave()
    assert [machine.words for machine in machines] == [[], []]


def test_the_silent_one_is_named(server):
    first, second = (Machine(connect(server), number) for number in (0, 1))
    time.sleep(0.2)
    second.leave()  # without the other: as if it had died
    first.thread.join(10)
    assert first.words == ["nothing was heard from machine 1 for 0 s"] and second.words == []


def test_one_that_never_came_is_named(server):
    first = Machine(connect(server), 0)
    first.thread.join(10)
    assert first.words == ["nothing was heard from machine 1 for 0 s"]


def test_a_store_that_is_gone_is_said(server):
    class Gone:
        def set(self, key, value):
            raise dist.DistNetworkError("Broken pipe\nand a stack")

    machine = Machine(Gone(), 1)
    machine.thread.join(10)
    assert machine.words == ["the machine of process 0 cannot be reached (Broken pipe)"]
