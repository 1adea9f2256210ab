#!/usr/bin/env python3
"""Wrong: accepts one client for each event. One event tells of all who have come since the last."""

from server import Server


class OneAccept(Server):
    def accept_waiting(self):
        self.accept()


OneAccept().serve()
