# Sends until nobody takes more, and reads only when Enter is pressed.
import socket, sys

client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
client.connect(("127.0.0.1", int(sys.argv[1])))
client.settimeout(1)
try:
    while True:
        client.send(bytes(65536))
except TimeoutError:
    print("stuck: the server takes no more", flush=True)
input("Enter to read: ")
received = 0
try:
    while data := client.recv(65536):
        received += len(data)
    end = "end of input"
except OSError as error:
    end = error
print("more" if received > 1_000_000 else "less", "than a megabyte came back, then:", end)
