#!/usr/bin/env python3
"""An echo server that is none of ours: Python, one thread, edge-triggered epoll.

    SERVER="python3 tests/foreign/echo_epoll.py" cargo test -p m4-edge-triggered

It shows that a contract judges what a server does, and not how ours is written: it reads nothing more from a client
until all that it has read is sent, so it needs neither watermarks nor a way to resume.
"""

import collections
import select
import socket
import sys
import time

READ_SIZE = 64 * 1024

# Most reads from one client in a row, so that a fast one does not keep the others waiting.
READS_IN_A_ROW = 16

# Registered once for everything: edge-triggered, what is not of interest costs nothing.
INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

WAITING, READY, CLOSED = range(3)


class Connection:
    """A client, and the bytes it is owed."""

    def __init__(self, client):
        self.client = client
        self.unsent = b""
        self.ended = False

    def advance(self):
        """Goes on until the kernel gives nothing or takes nothing, or others have waited long enough."""
        try:
            for _ in range(READS_IN_A_ROW):
                while self.unsent:
                    sent = self.client.send(self.unsent)
                    self.unsent = self.unsent[sent:]
                if self.ended:
                    return CLOSED
                self.unsent = self.client.recv(READ_SIZE)
                self.ended = not self.unsent
            return READY
        except BlockingIOError:
            return WAITING
        except OSError:
            # Reset, or timed out: this client's affair.
            return CLOSED


def serve(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    epoll = select.epoll()
    # Level-triggered: those that could not be accepted for want of descriptors are reported again.
    epoll.register(listener, select.EPOLLIN)
    connections = {}
    # Those that can go on without an event.
    ready = collections.deque()
    print(f"Python echo server on port {port}", flush=True)
    while True:
        events = epoll.poll(0 if ready else None)
        turn = dict.fromkeys(ready)
        ready.clear()
        for descriptor, _ in events:
            if descriptor == listener.fileno():
                accept_all(listener, epoll, connections)
            else:
                turn[descriptor] = None
        for descriptor in turn:
            state = connections[descriptor].advance()
            if state == READY:
                ready.append(descriptor)
            elif state == CLOSED:
                # Nobody is accepted between here and the next wait, so no number changes hands within a turn.
                connections.pop(descriptor).client.close()


def accept_all(listener, epoll, connections):
    while True:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors, most likely: not at once again.
            time.sleep(0.01)
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[client.fileno()] = Connection(client)
        epoll.register(client, INTEREST)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PORT")
    try:
        serve(int(sys.argv[1]))
    except KeyboardInterrupt:
        pass
