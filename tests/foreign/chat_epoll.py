#!/usr/bin/env python3
"""A chat server that is none of ours: Python, one thread, edge-triggered epoll.

    SERVER="python3 tests/foreign/chat_epoll.py" cargo test -p m8-chat

It shows that a contract judges what a server does, and not how ours is written: its words differ, it sends all that a
turn has made at the end of the turn, and closes connections then and only then, so no event is ever stale.
"""

import collections
import select
import socket
import sys
import time

READ_SIZE = 64 * 1024

# Most reads from one client in a row, so that a fast one does not keep the others waiting.
READS_IN_A_ROW = 4

LONGEST_LINE = 4096

# Most bytes that somebody may be owed; and the most messages that one call may send (IOV_MAX is 1,024).
MOST_OWED = 4 * 1024 * 1024
MOST_PIECES = 64

# Registered once for everything: edge-triggered, what is not of interest costs nothing.
INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

# Control characters but the tab: nobody's terminal is anybody else's to drive.
CONTROLS = bytes(byte for byte in range(256) if (byte < 32 and byte != 9) or byte == 127)


class Guest:
    """A client, what it is owed, and what it has begun to say."""

    def __init__(self, client):
        self.client = client
        self.name = None
        self.begun = b""
        # References: however many are owed a message, there is one copy of it.
        self.owed = collections.deque()
        self.sent_of_first = 0
        self.bytes_owed = 0
        # The kernel has taken all that it can: an event will tell when it takes more.
        self.is_full = False
        # It is sent away: what it says is dropped, and after what it is owed comes the end.
        self.leaving = False
        self.no_more_output = False
        self.no_more_input = False
        self.closed = False

    def tell(self, message):
        if not self.leaving and not self.no_more_input:
            self.owed.append(message)
            self.bytes_owed += len(message)

    def flush(self):
        """Sends until nothing is left, or the kernel takes no more."""
        while self.owed and not self.is_full:
            pieces = [memoryview(message) for message, _ in zip(self.owed, range(MOST_PIECES))]
            pieces[0] = pieces[0][self.sent_of_first :]
            try:
                sent = self.client.sendmsg(pieces, [], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self.is_full = True
                return
            self.bytes_owed -= sent
            sent += self.sent_of_first
            while self.owed and sent >= len(self.owed[0]):
                sent -= len(self.owed.popleft())
            self.sent_of_first = sent


class Room:
    """Everybody who is connected, and those of them who have a name."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.guests = {}
        self.members = {}
        # Those that can go on without an event, and those for whom something was done in this turn.
        self.ready = collections.deque()
        self.touched = {}

    def serve(self):
        while True:
            events = self.epoll.poll(0 if self.ready else None)
            turn = dict.fromkeys(self.ready)
            self.ready.clear()
            for descriptor, event in events:
                if descriptor == self.listener.fileno():
                    self.accept_all()
                    continue
                guest = self.guests[descriptor]
                guest.is_full = guest.is_full and not event & select.EPOLLOUT
                turn[guest] = None
            for guest in turn:
                self.touched[guest] = None
                self.read(guest)
            self.end_turn()

    def accept_all(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # Out of descriptors, most likely: not at once again.
                time.sleep(0.01)
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            guest = self.guests[client.fileno()] = Guest(client)
            self.epoll.register(client, INTEREST)
            self.tell(guest, b"Hello! Who are you?\n")

    def end_turn(self):
        """Sends what this turn has made, and closes connections, which may make more."""
        while self.touched:
            guest, _ = self.touched.popitem()
            if guest.closed:
                continue
            try:
                guest.flush()
                if guest.bytes_owed > MOST_OWED:
                    self.close(guest)
                elif not guest.owed and guest.no_more_input:
                    self.close(guest)
                elif not guest.owed and guest.leaving and not guest.no_more_output:
                    # Once: each time would be an event.
                    guest.no_more_output = True
                    guest.client.shutdown(socket.SHUT_WR)
            except OSError:
                self.close(guest)

    def read(self, guest):
        try:
            for _ in range(READS_IN_A_ROW):
                if guest.closed or guest.no_more_input:
                    return
                received = guest.client.recv(READ_SIZE)
                if not received:
                    guest.no_more_input = True
                    self.leave(guest)
                elif not guest.leaving:
                    self.hear(guest, received)
            self.ready.append(guest)
        except BlockingIOError:
            pass
        except OSError:
            # Reset, or timed out: this client's affair.
            self.close(guest)

    def hear(self, guest, received):
        *lines, guest.begun = (guest.begun + received).split(b"\n")
        for line in lines + ([guest.begun] if len(guest.begun) > LONGEST_LINE + 1 else []):
            line = line.removesuffix(b"\r")
            if len(line) > LONGEST_LINE:
                self.send_away(guest, b"Please be brief.\n")
            elif guest.name:
                text = line.translate(None, CONTROLS)
                # U+0080 to U+009F, and the same in sets of eight bits.
                text = text.decode(errors="surrogateescape")
                text = "".join(c for c in text if not "\x80" <= c <= "\x9f" and not "\udc80" <= c <= "\udc9f")
                text = text.encode(errors="surrogateescape")
                self.tell_others(guest, b"[" + guest.name + b"] " + text + b"\n")
            elif not (1 <= len(line) <= 32 and line.isalnum() and line.isascii()):
                self.send_away(guest, b"That is no name.\n")
            elif line in self.members:
                self.send_away(guest, b"That name is taken.\n")
            else:
                self.tell(guest, b"* Here are: " + b", ".join(self.members) + b"\n")
                self.tell_others(guest, b"* " + line + b" joins us\n")
                guest.name = line
                self.members[line] = guest
            if guest.leaving:
                return

    def tell(self, guest, message):
        guest.tell(message)
        self.touched[guest] = None

    def tell_others(self, but, message):
        for guest in self.members.values():
            if guest is not but:
                self.tell(guest, message)

    def send_away(self, guest, reason):
        self.tell(guest, reason)
        guest.leaving = True
        guest.begun = b""
        self.leave(guest)

    def leave(self, guest):
        if guest.name and self.members.get(guest.name) is guest:
            del self.members[guest.name]
            self.tell_others(guest, b"* " + guest.name + b" leaves us\n")

    def close(self, guest):
        guest.closed = True
        self.leave(guest)
        del self.guests[guest.client.fileno()]
        guest.client.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PORT")
    try:
        room = Room(int(sys.argv[1]))
        print(f"Python chat server on port {sys.argv[1]}", flush=True)
        room.serve()
    except KeyboardInterrupt:
        pass
