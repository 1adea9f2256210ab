#!/usr/bin/env python3
"""Wrong: reads once for each event. What that leaves in the socket, no further event tells of."""

from server import Server


class NoDrain(Server):
    def on_event(self, client, events):
        self.echo(client)


NoDrain().serve()
