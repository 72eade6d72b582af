#!/usr/bin/env python3
"""Checks the messages of a captured conversation without any code of this project.

    cose.py CAPTURE PASSWORD

CAPTURE is JSON: a list of {"to_client": bool, "frame": hex}, one member's line in the order of the wire, on which it
joined a channel with PASSWORD. The keys are derived from the password and what the hub said in the challenge of the join;
every message is read as COSE_Mac0 (RFC 9052) with CBOR (RFC 8949) and its tag is computed anew, here with the standard
library alone, hashlib and hmac, and once more by pycose, a COSE library that others have written, where that is installed (`pip install
-r tests/independent/requirements.txt`). What answers a call must name that call.

Prints how many messages of each kind were right, and by which library, or why by none. Exit status 1 with a reason when one is not.
"""

import hashlib
import hmac
import json
import sys

try:
    from importlib.metadata import version

    from pycose.keys import SymmetricKey
    from pycose.messages import CoseMessage

    LIBRARY, WITHOUT = f"pycose {version('pycose')}", None
except ImportError as error:
    LIBRARY, WITHOUT = None, str(error)

JOIN_CHALLENGE = 17
MESSAGES = {33: 1, 34: 2, 35: 3, 36: 4, 37: 5, 38: 6, 39: 7, 40: 8, 41: 9}
KINDS = [None, "broadcast", "send", "call", "answer", "fault", "item", "end", "cancel", "beacon"]
COSE_ALG, COSE_FIELDS, HMAC_256 = 1, -65537, 5
# The tag of a COSE_Mac0, which messages here go without.
TAGGED = b"\xd1"


class Wrong(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise Wrong(reason)


class Cbor:
    """Reads CBOR, and remembers nothing it has not read."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), "CBOR ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def item(self):
        initial = self.take(1)[0]
        major, info = initial >> 5, initial & 31
        if info < 24:
            value = info
        else:
            need(info <= 27, "an indefinite or reserved length")
            value = int.from_bytes(self.take(1 << (info - 24)), "big")
        if major == 0:
            return value
        if major == 1:
            return -1 - value
        if major == 2:
            return self.take(value)
        if major == 3:
            return self.take(value).decode("utf-8")
        if major == 4:
            return [self.item() for _ in range(value)]
        if major == 5:
            return dict((self.item(), self.item()) for _ in range(value))
        need(major == 7 and value in (20, 21, 22), "a tag, a float or a simple value")
        return {20: False, 21: True, 22: None}[value]

    @classmethod
    def whole(cls, data):
        reader = cls(data)
        value = reader.item()
        need(reader.at == len(data), "bytes behind the CBOR")
        return value


def head(major, value):
    for info, width, limit in ((24, 1, 1 << 8), (25, 2, 1 << 16), (26, 4, 1 << 32), (27, 8, 1 << 64)):
        if value < 24:
            return bytes([major << 5 | value])
        if value < limit:
            return bytes([major << 5 | info]) + value.to_bytes(width, "big")
    raise Wrong("too long")


def bstr(data):
    return head(2, len(data)) + data


def tstr(text):
    return head(3, len(text.encode())) + text.encode()


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(prk, info):
    """HKDF-Expand (RFC 5869) of 32 bytes: its first block."""
    return mac(prk, info + b"\x01")


def lp(data):
    return len(data).to_bytes(4, "big") + data


class Channel:
    """The keys of one epoch, from the password and what the hub tells everybody who wants to join."""

    def __init__(self, password, name, challenge):
        self.name, self.epoch = name, challenge[1]
        kdf, salt, rounds = challenge[2], challenge[3], challenge[4]
        if kdf == 1:
            master = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds, 32)
        else:
            master = mac(salt, bytes.fromhex(password.removeprefix("key:")))
        prk = mac(b"commipc/1 channel", master)
        context = lp(name.encode()) + salt + self.epoch.to_bytes(8, "big")
        self.end_to_end = expand(prk, b"e2e\x00" + context)

    def sender_key(self, client, instance):
        return expand(self.end_to_end, b"sender\x00" + instance + lp(client.encode()))


def mac0(message):
    """protected bytes, fields, payload, tag of a COSE_Mac0."""
    parts = Cbor.whole(message)
    need(isinstance(parts, list) and len(parts) == 4, "not a COSE_Mac0")
    protected, unprotected, payload, tag = parts
    need(unprotected == {}, "an unprotected header")
    headers = Cbor.whole(protected)
    need(headers.get(COSE_ALG) == HMAC_256, "another algorithm")
    fields = headers.get(COSE_FIELDS)
    need(isinstance(fields, list) and len(fields) == 18, "not eighteen fields")
    return protected, fields, payload, tag


def tag_is_right(channel, message):
    protected, fields, payload, tag = mac0(message)
    key = channel.sender_key(fields[6], fields[8])
    structure = head(4, 4) + tstr("MAC0") + bstr(protected) + bstr(b"commipc/1 message") + bstr(payload)
    return hmac.compare_digest(mac(key, structure), tag)


def library_agrees(channel, message):
    """Whether another library finds the tag right as well."""
    fields = mac0(message)[1]
    read = CoseMessage.decode(TAGGED + message)
    need(type(read).__name__ == "Mac0Message", "no COSE_Mac0 to the library")
    read.external_aad = b"commipc/1 message"
    read.key = SymmetricKey(k=channel.sender_key(fields[6], fields[8]))
    return read.verify_tag()


def message_of(body):
    """The route, and what is behind the hop header."""
    route, visited, at = int.from_bytes(body[:4], "big"), body[5], 6
    for _ in range(visited):
        at += 1 + body[at]
    return route, body[at:]


def check(channel, frame, calls):
    kind, body = frame[4], frame[5:]
    route, message = message_of(body)
    protected, fields, payload, tag = mac0(message)
    need(fields[1] == MESSAGES[kind], "a frame of another kind than its message")
    if fields[3] != channel.name:
        return None
    need(fields[5] == channel.epoch, "another epoch")
    need(tag_is_right(channel, message), f"the tag of this {KINDS[fields[1]]} is wrong")
    if LIBRARY:
        need(library_agrees(channel, message), f"the tag of this {KINDS[fields[1]]} is wrong to {LIBRARY}")
        need(not library_agrees(channel, message[:-1] + bytes([message[-1] ^ 1])), f"{LIBRARY} accepts any tag")
    for place in (0, len(message) // 2, len(message) - 1):
        changed = bytearray(message)
        changed[place] ^= 1
        try:
            accepted = tag_is_right(channel, bytes(changed))
        except (Wrong, UnicodeDecodeError, AttributeError, TypeError):
            accepted = False
        need(not accepted, "a changed message has a right tag")
    if fields[1] == 3:
        calls[route] = hashlib.sha256(b"commipc/1 ref\x00" + lp(protected) + lp(tag)).digest()
    if fields[1] in (4, 5, 6, 7, 8):
        need(fields[14] == calls.get(route), f"this {KINDS[fields[1]]} names another call")
    return KINDS[fields[1]]


def main(capture, password):
    with open(capture, encoding="utf-8") as file:
        frames = [bytes.fromhex(entry["frame"]) for entry in json.load(file)]
    challenges = [Cbor.whole(frame[5:]) for frame in frames if frame[4] == JOIN_CHALLENGE]
    need(challenges, "nobody joined a channel")
    messages = [frame for frame in frames if frame[4] in MESSAGES]
    # The first message is on the channel that was joined.
    name = mac0(message_of(messages[0][5:])[1])[1][3]
    channel, calls, counts = Channel(password, name, challenges[-1]), {}, {}
    for frame in messages:
        kind = check(channel, frame, calls)
        if kind:
            counts[kind] = counts.get(kind, 0) + 1
    print(json.dumps({"counts": counts, "library": LIBRARY, "without": WITHOUT}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Wrong as wrong:
        sys.exit(f"cose.py: {wrong}")
