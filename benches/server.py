"""The server that compare.py measures against: one thread for any number of connections, on the loopback only.

A path below /ok gets an answer, a path below /hang gets none. Any other path is answered as last ordered: ok, status,
silent, drip or reset; refused closes the port for good. Orders are lines on standard input. The reply to each is a line
of JSON on standard output: the port, and all requests since the last order. `take` changes nothing and only gets this
reply. The server exits at the end of its input.
"""
import json
import os
import resource
import select
import socket
import struct
import time

ANSWER = b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
# Closing a socket whose SO_LINGER is 0 s sends a reset.
RESET = struct.pack("ii", 1, 0)


class Server:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.poll = select.epoll()
        for source in (0, self.listener):
            self.poll.register(source, select.EPOLLIN)
        self.way = "ok"
        self.arrivals, self.connections, self.dripping = [], {}, set()

    def run(self):
        while True:
            for number, _ in self.poll.poll(0.2 if self.dripping else None):
                if number == 0:
                    if not self.obey(os.read(0, 4096).decode()):
                        return
                elif number in self.connections:
                    self.serve(number)
                elif number == self.listener.fileno():
                    self.accept()
            for number in list(self.dripping):
                self.send(number, b"x")

    def obey(self, orders):
        for order in orders.split():
            if order != "take":
                self.way = order
            if order == "refused":
                self.listener.close()
            answer = json.dumps([self.port, self.arrivals]).encode() + b"\n"
            self.arrivals = []
            while answer:
                answer = answer[os.write(1, answer):]
        return orders

    def accept(self):
        connection, _ = self.listener.accept()
        at = time.monotonic()
        connection.setblocking(False)
        self.connections[connection.fileno()] = (connection, at)
        self.poll.register(connection, select.EPOLLIN)

    def serve(self, number):
        """Reads a request, which arrives in one piece, or the end of a connection that got no answer."""
        connection, at = self.connections[number]
        try:
            request = connection.recv(65536)
        except OSError:
            request = b""
        if not request:
            return self.close(number)
        path = request.split(b" ", 2)[1].decode()
        self.arrivals.append((at, path))
        way = "ok" if path.startswith("/ok") else "silent" if path.startswith("/hang") else self.way
        if way == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif way == "drip":
            self.dripping.add(number)
            return self.send(number, ENDLESS)
        elif way == "silent":
            return None
        else:
            self.send(number, ANSWER % (b"503 Busy" if way == "status" else b"200 OK"))
        return self.close(number)

    def send(self, number, data):
        try:
            self.connections[number][0].send(data)
        except OSError:
            self.close(number)

    def close(self, number):
        self.dripping.discard(number)
        if number in self.connections:
            self.connections.pop(number)[0].close()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Server().run()
