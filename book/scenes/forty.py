# Sends 20,000 bytes and waits for all of them, 20 times.
import socket, sys, time

client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
took = []
for _ in range(20):
    start = time.monotonic()
    client.sendall(bytes(20_000))
    missing = 20_000
    while missing:
        missing -= len(client.recv(missing))
    took.append(time.monotonic() - start)
half = sorted(took)[10]
print("half of the echoes took", "more" if half > 0.04 else "less", "than 40 ms")
