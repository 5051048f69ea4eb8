"""Messages: decoding, encoding and matching, as upstream's flux_msg_* do it."""

import base64
import ctypes
import os
import struct

PACKAGE = "wire"

ROUTE, TOPIC, PAYLOAD = 0x08, 0x01, 0x02
TYPES = (1, 2, 4, 8)


class Match(ctypes.Structure):
    _fields_ = [
        ("typemask", ctypes.c_int),
        ("matchtag", ctypes.c_uint32),
        ("topic_glob", ctypes.c_char_p),
    ]


lib = None


def setup(upstream):
    global lib
    lib = ctypes.CDLL(str(upstream / "src/common/.libs/libflux-core.so"), use_errno=True)
    for name in ("decode", "create"):
        getattr(lib, f"flux_msg_{name}").restype = ctypes.c_void_p
    lib.flux_msg_encode_size.restype = ctypes.c_ssize_t
    for name in ("route_first", "route_last", "route_string"):
        getattr(lib, f"flux_msg_{name}").restype = ctypes.c_char_p
    lib.flux_msg_cmp.restype = ctypes.c_bool
    lib.flux_msg_cmp.argtypes = [ctypes.c_void_p, Match]
    for name in ("private", "streaming", "noresponse"):
        getattr(lib, f"flux_msg_is_{name}").restype = ctypes.c_bool


# ---------------------------------------------------------------- cases


def part(data):
    if len(data) < 255:
        return bytes([len(data)]) + data
    return b"\xff" + struct.pack(">I", len(data)) + data


def header(kind, flags, words, magic=0x8E, version=1):
    return bytes([magic, version, kind, flags]) + struct.pack(">4I", *words)


WORDS = (0, 1, 2, 7, 255, 65536, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def word(rng):
    return rng.choice(WORDS) if rng.random() < 0.7 else rng.getrandbits(32)


def text(rng, most=20):
    n = rng.choice((0, 1, 3, most, 254, 255, 300)) if rng.random() < 0.3 else rng.randint(1, most)
    alphabet = "abcxyz.0-9" if rng.random() < 0.9 else "aƒ.\0x"
    return "".join(rng.choice(alphabet) for _ in range(n)).encode()


def message(rng, kind=None):
    """A message; nearly always one that flags and parts agree on."""
    kind = kind or rng.choice(TYPES)
    flags = rng.getrandbits(8)
    parts = []
    if flags & ROUTE:
        parts += [text(rng) or b"r" for _ in range(rng.choice((0, 1, 2, 5)))] + [b""]
    if flags & TOPIC:
        parts.append(text(rng))
    if flags & PAYLOAD:
        parts.append(rng.randbytes(rng.choice((0, 1, 10, 254, 255, 1000))))
    words = [word(rng) for _ in range(4)]
    if kind == 4 and rng.random() < 0.9:
        words[3] = 0
    chance = rng.random()
    if chance < 0.05 and parts:
        parts.pop(rng.randrange(len(parts)))
    elif chance < 0.10:
        parts.insert(rng.randint(0, len(parts)), text(rng, 5))
    elif chance < 0.12:
        kind = rng.randint(0, 255)
    elif chance < 0.14:
        flags = rng.getrandbits(8)
    head = header(kind, flags, words)
    if rng.random() < 0.02:
        head = head[: rng.randint(0, 20)] + rng.randbytes(rng.randint(0, 3))
    return b"".join(map(part, parts)) + part(head)


def damaged(rng):
    data = bytearray(message(rng))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data))
        how = rng.random()
        if how < 0.6:
            data[at] ^= 1 << rng.randrange(8)
        elif how < 0.8:
            del data[at : at + rng.randint(1, 4)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 4))
        if not data:
            return b""
    return bytes(data)


def split(data):
    """The parts of an encoded message, or None."""
    parts, at = [], 0
    while at < len(data):
        n = data[at]
        at += 1
        if n == 0xFF:
            if len(data) - at < 4:
                return None
            (n,) = struct.unpack_from(">I", data, at)
            at += 4
        if len(data) - at < n:
            return None
        parts.append(data[at : at + n])
        at += n
    return parts


KEPT = {
    "utf8": "topics and hops that are not UTF-8 are refused: they cannot be shown, logged or put into JSON",
    "hops": "empty hops, which encode as the delimiter, and more than 256 hops, which only fill memory, are refused",
    "unused": "the unused word of an event is sent as zero, as RFC 3 has it, and not as it was received",
}


def kept(op, given, ours, theirs):
    if op != "decode":
        return None
    return KEPT.get(chosen(base64.b64decode(given)))


def chosen(data):
    """The name of the difference that was chosen for this message, or None."""
    parts = split(data)
    if not parts or len(parts[-1]) != 20:
        return None
    flags, rest = parts[-1][3], parts[:-1]
    texts = []
    if flags & ROUTE:
        if b"" not in rest:
            return None
        n = rest.index(b"")
        if any(hop.startswith(b"\0") for hop in rest[:n]):
            return "hops"
        if n > 256:
            return "hops"
        texts, rest = rest[:n], rest[n + 1 :]
    if flags & TOPIC and rest:
        texts.append(rest[0])
    try:
        for t in texts:
            t.split(b"\0")[0].decode()
    except UnicodeDecodeError:
        return "utf8"
    if parts[-1][2] == 4 and parts[-1][16:] != b"\0\0\0\0":
        return "unused"
    return None


GLOBS = ("", "*", "kvs.*", "*.ping", "a?c*", "[a-c]*", "[!a]*", "a[b", "\\*a", "x\\", "[]a]*", "[[:alpha:]]*")


def glob(rng, topic):
    if rng.random() < 0.2:
        return rng.choice(GLOBS)
    out = list(topic or "ab")
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(out)) if out else 0
        out[at : at + rng.randint(0, 3)] = rng.choice(
            ("*", "?", "[a-c]", "[!x.]", "[^a]", "[.x-z0]", "[", "]", "\\a", "**", "a", "[[:digit:]x]")
        )
    return "".join(out)


def cases(rng, n):
    for _ in range(5 * n):
        chance = rng.random()
        if chance < 0.5:
            data = message(rng)
        elif chance < 0.9:
            data = damaged(rng)
        else:
            data = rng.randbytes(rng.choice((0, 1, 5, 21, 40, 100)))
        yield "decode", base64.b64encode(data).decode()
    for _ in range(n):
        payload = rng.randbytes(rng.choice((1, 254, 255, 5000)))
        kind, aux1 = rng.choice(TYPES), word(rng)
        yield "encode", {
            "type": kind,
            "topic": rng.choice((None, text(rng, 30).decode().replace("\0", ""))),
            "payload": rng.choice((None, base64.b64encode(payload).decode())),
            "userid": word(rng),
            "rolemask": word(rng),
            # "Upstream of me" is for interfaces; the library does not set it as a nodeid.
            "aux1": 0 if (kind, aux1) == (1, 0xFFFFFFFE) else aux1,
            "aux2": word(rng),
            "routes": rng.choice((None, [], ["a"], ["0123-4567", "1", "b" * 300])),
            "streaming": rng.random() < 0.2,
            "private": rng.random() < 0.2,
        }
    for _ in range(2 * n):
        topic = rng.choice((None, "kvs.lookup", "abc", "a.b.c", "x-9.ping", ""))
        yield "match", {
            "type": rng.choice(TYPES[:3]),
            "topic": topic,
            "matchtag": rng.choice((0, 1, 2)),
            "routes": rng.choice((0, 0, 1)),
            "want": {
                "typemask": rng.randint(0, 15),
                "matchtag": rng.choice((0, 0, 1)),
                "glob": glob(rng, topic),
            },
        }


# ------------------------------------------------------------- answers


def fields(msg):
    msg = ctypes.c_void_p(msg)
    number = ctypes.c_uint32()

    def get(name):
        getattr(lib, f"flux_msg_get_{name}")(msg, ctypes.byref(number))
        return number.value

    kind = get("type")
    out = {"type": kind, "userid": get("userid"), "rolemask": get("rolemask")}
    if kind == 1:
        out.update(nodeid=get("nodeid"), matchtag=get("matchtag"))
    elif kind == 2:
        out.update(errnum=get("errnum"), matchtag=get("matchtag"))
    elif kind == 4:
        out.update(sequence=get("seq"))
    else:
        a, b = ctypes.c_int(), ctypes.c_int()
        lib.flux_msg_get_control(msg, ctypes.byref(a), ctypes.byref(b))
        out.update(control=[a.value & 0xFFFFFFFF, b.value & 0xFFFFFFFF])
    for name in ("private", "streaming", "noresponse"):
        out[name] = getattr(lib, f"flux_msg_is_{name}")(msg)
    topic = ctypes.c_char_p()
    found = lib.flux_msg_get_topic(msg, ctypes.byref(topic)) == 0
    out["topic"] = topic.value.decode() if found else None
    data, size = ctypes.c_void_p(), ctypes.c_size_t()
    found = lib.flux_msg_get_payload(msg, ctypes.byref(data), ctypes.byref(size)) == 0
    payload = ctypes.string_at(data, size.value) if found else None
    out["payload"] = base64.b64encode(payload).decode() if found else None
    count = lib.flux_msg_route_count(msg)
    out["hops"] = count if count >= 0 else None
    if count > 0:
        out["first"] = lib.flux_msg_route_first(msg).decode()
        out["last"] = lib.flux_msg_route_last(msg).decode()
        if all(ord(c) < 128 for c in out["first"] + out["last"]) and count < 3:
            out["routes"] = lib.flux_msg_route_string(msg).decode()
    out["again"] = base64.b64encode(encoded(msg)).decode()
    return out


def encoded(msg):
    size = lib.flux_msg_encode_size(msg)
    buf = ctypes.create_string_buffer(size)
    lib.flux_msg_encode(msg, buf, ctypes.c_size_t(size))
    return buf.raw


def build(spec):
    msg = ctypes.c_void_p(lib.flux_msg_create(spec["type"]))
    if spec.get("routes") is not None:
        lib.flux_msg_route_enable(msg)
        routes = spec["routes"]
        for hop in routes if isinstance(routes, list) else ["r"] * routes:
            lib.flux_msg_route_push(msg, hop.encode())
    if spec.get("topic") is not None:
        lib.flux_msg_set_topic(msg, spec["topic"].encode())
    if spec.get("payload"):
        data = base64.b64decode(spec["payload"])
        lib.flux_msg_set_payload(msg, data, ctypes.c_size_t(len(data)))
    for name in ("userid", "rolemask"):
        if name in spec:
            getattr(lib, f"flux_msg_set_{name}")(msg, ctypes.c_uint32(spec[name]))
    if "aux1" in spec:
        a, b = ctypes.c_uint32(spec["aux1"]), ctypes.c_uint32(spec["aux2"])
        if spec["type"] == 8:
            lib.flux_msg_set_control(msg, a, b)
        else:
            name = {1: "nodeid", 2: "errnum", 4: "seq"}[spec["type"]]
            getattr(lib, f"flux_msg_set_{name}")(msg, a)
            lib.flux_msg_set_matchtag(msg, b)
    if "matchtag" in spec:
        lib.flux_msg_set_matchtag(msg, ctypes.c_uint32(spec["matchtag"]))
    for name in ("streaming", "private"):
        if spec.get(name):
            getattr(lib, f"flux_msg_set_{name}")(msg)
    return msg


def upstream(op, given):
    if op == "decode":
        data = base64.b64decode(given)
        if not data:
            raise ValueError("an assertion of the library fails")
        msg = lib.flux_msg_decode(data, ctypes.c_size_t(len(data)))
        if not msg:
            raise ValueError(os.strerror(ctypes.get_errno()))
        try:
            return fields(msg)
        except UnicodeDecodeError as fault:
            return str(fault)
        finally:
            lib.flux_msg_destroy(ctypes.c_void_p(msg))
    msg = build(given)
    try:
        if op == "encode":
            return base64.b64encode(encoded(msg)).decode()
        want = given["want"]
        match = Match(want["typemask"], want["matchtag"], want["glob"].encode())
        return lib.flux_msg_cmp(msg, match)
    finally:
        lib.flux_msg_destroy(msg)
