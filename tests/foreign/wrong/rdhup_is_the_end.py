#!/usr/bin/env python3
"""Wrong: closes at EPOLLRDHUP. The client sends nothing more, but what it has sent is unread and unanswered."""

import select

from server import Server


class RdhupIsTheEnd(Server):
    def on_event(self, client, events):
        if events & select.EPOLLRDHUP:
            self.close(client)
        else:
            super().on_event(client, events)


RdhupIsTheEnd().serve()
