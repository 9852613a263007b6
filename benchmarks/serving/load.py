"""Clients that cost little: requests made beforehand, sent over sockets that stay open."""

import socket
import threading
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

    def ask(self, sent):
        self.socket.sendall(sent)
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._more()
        head = got[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(got) < end + 4 + length:
            got += self._more()
        return int(got[9:12]), got[end + 4 :]

    def _more(self):
        more = self.socket.recv(1 << 16)
        if not more:
            raise ConnectionError("the server has closed the connection")
        return more

    def close(self):
        self.socket.close()


def closed(address, requests, clients, seconds):
    """Clients that each ask again when they have their answer: ``[(status, seconds), ...]`` and how long it took."""
    return _many(address, requests, clients, seconds, None)


def paced(address, requests, clients, seconds, rate):
    """Clients that together ask ``rate`` times a second, whatever becomes of it, as far as connections are free."""
    return _many(address, requests, clients, seconds, clients / rate)


def _many(address, requests, clients, seconds, pause):
    found, started = [], threading.Barrier(clients + 1)

    def one(number):
        connection, answers = Connection(address), []
        started.wait()
        begin = time.perf_counter()
        due, at = begin + (0 if pause is None else pause * number / clients), number
        while (now := time.perf_counter()) < begin + seconds:
            if pause is not None:
                if due > now:
                    time.sleep(due - now)
                due = max(due + pause, time.perf_counter() - pause)
            asked = time.perf_counter()
            status, _ = connection.ask(requests[at % len(requests)])
            answers.append((status, time.perf_counter() - asked))
            at += clients
        connection.close()
        found.extend(answers)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    started.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return found, time.perf_counter() - begin
