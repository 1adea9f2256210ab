"""A small edge-triggered echo server that is right, like the fourth milestone, for others to get wrong."""

import select
import socket
import sys


class Server:
    """Each of the wrong servers beside this file overrides one of its methods."""

    def __init__(self):
        self.epoll = select.epoll()
        self.clients = {}

    def serve(self):
        self.listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
        self.listener.setblocking(False)
        self.epoll.register(self.listener, select.EPOLLIN | select.EPOLLET)
        while True:
            for descriptor, events in self.epoll.poll():
                if descriptor == self.listener.fileno():
                    self.accept_waiting()
                else:
                    self.on_event(self.clients[descriptor], events)

    def accept_waiting(self):
        while self.accept():
            pass

    def accept(self):
        """Takes in a client; false if none is waiting."""
        try:
            client, _ = self.listener.accept()
        except BlockingIOError:
            return False
        self.add(client)
        return True

    def add(self, client):
        client.setblocking(False)
        self.clients[client.fileno()] = client
        self.epoll.register(client, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def on_event(self, client, events):
        while self.echo(client):
            pass

    def echo(self, client):
        """Sends back what one read gives; false if it gives nothing more for now, or the client has gone."""
        try:
            received = client.recv(4096)
            if not received:
                self.close(client)
                return False
            while received:
                try:
                    received = received[client.send(received) :]
                except BlockingIOError:
                    select.select([], [client], [])
            return True
        except BlockingIOError:
            return False
        except OSError:
            self.close(client)
            return False

    def close(self, client):
        del self.clients[client.fileno()]
        client.close()
