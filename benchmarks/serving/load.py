"""Clients that cost little: one thread, requests made beforehand, and sockets that stay open."""

import selectors
import socket
import time

import msgspec


def request(address, path, message, *, binary=True):
    """The bytes of a POST."""
    body = (msgspec.msgpack if binary else msgspec.json).encode(message)
    kind = "msgpack" if binary else "json"
    head = f"POST {path} HTTP/1.1\r\nhost: {address[0]}\r\ncontent-type: application/{kind}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """One client; `ask` gives status and body."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = b""

    def ask(self, sent):
        self.send(sent)
        while (answer := self.take()) is None:
            pass
        return answer

    def send(self, sent):
        self._got = b""
        self.socket.sendall(sent)

    def take(self):
        """What has come; None: not all of the answer yet."""
        more = self.socket.recv(1 << 16)
        if not more:
            raise ConnectionError("the server has closed the connection")
        self._got += more
        end = self._got.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = int(self._got[:end].lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = self._got[end + 4 :]
        return None if len(body) < length else (int(self._got[9:12]), body)

    def close(self):
        self.socket.close()


def closed(address, requests, clients, seconds):
    """Clients that each ask again when they have their answer: ``[(status, seconds), ...]`` and how long it took."""
    return _many(address, requests, clients, seconds, 0.0)


def paced(address, requests, clients, seconds, rate):
    """Clients that together ask ``rate`` times a second, whatever becomes of it, as far as connections are free."""
    return _many(address, requests, clients, seconds, clients / rate)


def _many(address, requests, clients, seconds, pause):
    """Each client asks ``pause`` seconds after it asked last, or later, when it has its answer."""
    free, answers, sent = [], [], 0
    with selectors.DefaultSelector() as waiting:
        begin = now = time.perf_counter()
        for number in range(clients):
            free.append((begin + pause * number / clients, Connection(address)))
        while now < begin + seconds or len(free) < clients:
            while now < begin + seconds and free and free[0][0] <= now:
                due, connection = free.pop(0)
                waiting.register(connection.socket, selectors.EVENT_READ, (connection, now, max(due, now - pause)))
                connection.send(requests[sent % len(requests)])
                sent, now = sent + 1, time.perf_counter()
            until = min(begin + seconds, free[0][0]) if free and now < begin + seconds else now + 1
            for key, _ in waiting.select(max(0.0, until - now)):
                connection, asked, due = key.data
                if (answer := connection.take()) is not None:
                    answers.append((answer[0], time.perf_counter() - asked))
                    waiting.unregister(connection.socket)
                    free.append((due + pause, connection))
            free.sort(key=lambda one: one[0])
            now = time.perf_counter()
        for _, connection in free:
            connection.close()
    return answers, now - begin
