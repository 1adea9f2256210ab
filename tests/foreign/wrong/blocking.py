#!/usr/bin/env python3
"""Wrong: its clients' sockets block. One read for each event, level-triggered, seems to get by without, until a client takes
no bytes, or an event was about bytes that are gone when it is read."""

import select

from server import Server


class Blocking(Server):
    def add(self, client):
        self.clients[client.fileno()] = client
        self.epoll.register(client, select.EPOLLIN)

    def on_event(self, client, events):
        self.echo(client)


Blocking().serve()
