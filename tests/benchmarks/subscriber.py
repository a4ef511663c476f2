"""The barest subscriber: `python subscriber.py PORT CHANNEL` prints when each message came (CLOCK_MONOTONIC)."""

from __future__ import annotations

import socket
import sys
import time


def main(port: int, channel: str) -> None:
    """Subscribe, say so, and print a line for each message until the connection ends."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%s\r\n" % (len(channel), channel.encode()))
    while connection.recv(65536):
        print(f"{time.monotonic():.6f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
