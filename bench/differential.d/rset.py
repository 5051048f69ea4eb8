"""Questions on resource sets (RFC 20) and constraints (RFC 31, 35), and upstream's answers.

Resource sets are answered by upstream's C library (librlist), which `flux R` and the resource
module use; it is reached through the Python extension that links it whole. Queries are
answered by the Python class that `--requires` uses.
"""

import ctypes
import json
import sys
from pathlib import Path

PACKAGE = "formats"
# Questions of all kinds for each that the others ask of a kind.
KINDS = 20


def idset(rng, top, least=0):
    """A set of ids below `top`, mostly well-formed."""
    ids = sorted(rng.sample(range(top), rng.randint(least, min(top, 6))))
    if rng.random() < 0.6 and len(ids) > 1:
        ids = list(range(ids[0], ids[-1] + 1))
    if rng.random() < 0.02:
        return rng.choice(["x", "1-", "3-1", "1,1", "-1", "1 2", "[0-1", "5-5"])
    return encode(ids)


def encode(ids):
    out = []
    for i in sorted(ids):
        if out and out[-1][1] + 1 == i:
            out[-1][1] = i
        else:
            out.append([i, i])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def decode(text):
    out = set()
    for part in text.strip("[]").split(","):
        if part:
            a, _, b = part.partition("-")
            out |= set(range(int(a), int(b or a) + 1))
    return out


def host(rank):
    return f"n{rank}" if rank % 5 else f"login-{rank:03}"


def rset(rng, sound=False):
    """An R. A sound one has nothing that may be refused."""
    bad = (lambda p: False) if sound else (lambda p: rng.random() < p)
    ranks = sorted(rng.sample(range(12), rng.randint(1, 6)))
    left, entries = list(ranks), []
    while left:
        some = rng.sample(left, rng.randint(1, len(left)))
        left = [r for r in left if r not in some]
        children = {"core": encode(rng.sample(range(8), rng.randint(1, 6)))}
        if rng.random() < 0.4:
            children["gpu"] = encode(rng.sample(range(4), rng.randint(1, 3)))
        if bad(0.05):
            children["disk"] = "0"
        if bad(0.05):
            children["core"] = idset(rng, 8)
        entries.append({"rank": encode(some), "children": children})
    if bad(0.05):
        entries.append({"rank": encode(ranks[:1]), "children": {"core": idset(rng, 12, 1)}})
    if bad(0.04):
        entry = rng.choice(entries)
        broken = rng.choice([{"rank": 1}, {"rank": idset(rng, 12)}, {"children": "x"}, {"children": {"core": 3}}, {"rank": None}])
        entry.update(broken)
    if bad(0.02):
        del rng.choice(entries)[rng.choice(["rank", "children"])]
    execution = {"R_lite": entries}
    if rng.random() < 0.85:
        names = [host(r) for r in ranks]
        if bad(0.04):
            names = rng.choice([names[1:], names + ["x"], [], names[:-1] + [4], ["n["]])
        execution["nodelist"] = names
    if rng.random() < 0.4:
        properties = {}
        for name in rng.sample(["a", "b", "big", "x@gpu", "+local", "é"], rng.randint(1, 3)):
            properties[name] = encode(rng.sample(ranks, rng.randint(1, len(ranks))))
        if bad(0.06):
            properties[rng.choice(["a^", "b|c", "ok", "a b", "it's", "n&m"])] = rng.choice([idset(rng, 14), 3])
        execution["properties"] = properties
    if rng.random() < 0.3:
        execution["starttime"] = rng.choice([0, 1.5, 1676560554])
        execution["expiration"] = rng.choice([0.0, 1676562354.25, -1.0])
    if rng.random() < 0.2:
        execution["nslots"] = rng.choice([1, 32, 0, -1])
    if bad(0.02):
        execution[rng.choice(["starttime", "expiration", "nslots"])] = rng.choice(["x", None, [], 2.5])
    r = {"version": 1, "execution": execution}
    if rng.random() < 0.2:
        r["scheduling"] = {"writer": rng.choice(["x", "y"]), "n": rng.randint(0, 9)}
    if bad(0.03):
        broken = rng.choice([{"version": 2}, {"version": "1"}, {"version": None}, {"execution": []}, {"execution": {}}])
        r.update(broken)
    if bad(0.01):
        del r[rng.choice(["version", "execution"])]
    return r


def constraint(rng, depth=0):
    roll = rng.random()
    if roll < 0.04:
        return rng.choice([{}, [], "x", None, {"foo": []}, {"and": [], "or": []}, {"and": {}}, {"properties": "a"}])
    if roll < 0.35:
        names = ["a", "b", "big", "x@gpu", "n1", "n2", "login-005", "+local", "é"]
        values = [rng.choice(["", "^"]) + rng.choice(names) for _ in range(rng.randint(0, 3))]
        if rng.random() < 0.05:
            values.append(rng.choice(["a|b", "!x", "x^", "^", "", 3, None, "a(b"]))
        return {"properties": values}
    if roll < 0.5:
        values = [rng.choice(["n[0-6]", "n3", "login-[000,005,010]", "x", ""]) for _ in range(rng.randint(0, 2))]
        if rng.random() < 0.05:
            values.append(rng.choice(["n[", 3]))
        return {"hostlist": values}
    if roll < 0.65 or depth > 3:
        values = [idset(rng, 12) for _ in range(rng.randint(0, 2))]
        if rng.random() < 0.03:
            values.append(1)
        return {"ranks": values}
    op = rng.choice(["and", "or", "not"])
    return {op: [constraint(rng, depth + 1) for _ in range(rng.randint(0, 3))]}


def query(rng):
    words = ["a", "b", "c,d", "-a", "^a", "a-b", "host:n1", "hosts:n[1-3]", "rank:0-3", "op:x", "a:b:c", "x+y.z@w-:v",
             "not", "and", "or", "&", "&&", "|", "||", "(", ")", "-", "host:", "'x y'", '"(a|b)"', "op:'p q'", "''", "notx",
             "orx", "and-b", "or.x", "not:x", "é", "x!:1", ":", ":v", "a'b'", "'a:'", "-'q'", "'", '"', "\u00a0", "-host:x"]
    sound = ["a", "b", "-c", "host:n1", "d,e", "rank:3"]
    if rng.random() < 0.5:
        def expr(depth):
            roll = rng.random()
            if depth > 3 or roll < 0.35:
                return rng.choice(sound)
            if roll < 0.5:
                return "not " + expr(depth + 1)
            if roll < 0.62:
                return "(" + expr(depth + 1) + ")"
            join = rng.choice([" ", " ", " & ", "&", " && ", " and ", " | ", "|", " || ", " or "])
            return expr(depth + 1) + join + expr(depth + 1)
        return expr(0)
    n = rng.randint(0, 7)
    return "".join(rng.choice(words) + rng.choice(["", " ", " ", "  ", "\t"]) for _ in range(n))


def topology(rng):
    """hwloc XML as hwloc 2 writes it, small."""
    cores, pus = [], 0
    for _ in range(rng.randint(1, 4)):
        threads = rng.randint(1, 2)
        cores.append(list(range(pus, pus + threads)))
        pus += threads
    mask = lambda ids: f"0x{sum(1 << i for i in ids):08x}"
    whole = list(range(pus))
    out = ['<?xml version="1.0" encoding="UTF-8"?>', '<!DOCTYPE topology SYSTEM "hwloc2.dtd">', '<topology version="2.0">']
    sets = lambda ids: f'cpuset="{mask(ids)}" complete_cpuset="{mask(ids)}" nodeset="0x00000001" complete_nodeset="0x00000001"'
    out.append(f'<object type="Machine" os_index="0" {sets(whole)} allowed_cpuset="{mask(whole)}" allowed_nodeset="0x00000001" gp_index="1">')
    out.append('<info name="HostName" value="vm"/>')
    out.append(f'<object type="NUMANode" os_index="0" {sets(whole)} gp_index="2" local_memory="1024"/>')
    gp = 3
    for i, core in enumerate(cores):
        out.append(f'<object type="Core" os_index="{i}" {sets(core)} gp_index="{gp}">')
        gp += 1
        for pu in core:
            out.append(f'<object type="PU" os_index="{pu}" {sets([pu])} gp_index="{gp}"/>')
            gp += 1
        out.append("</object>")
    n = 0
    # Upstream remembers as many GPUs as there are PCI devices: network cards make room.
    for nic in range(rng.choice([0, 9])):
        out.append(f'<object type="PCIDev" gp_index="{gp}" pci_busid="0000:{16 + nic:02x}:00.0" pci_type="0200 [8086:1000] [8086:1000] a1" pci_link_speed="0.0"/>')
        gp += 1
    for bus in range(rng.randint(0, 3) if gp > pus + 12 else 0):
        out.append(f'<object type="PCIDev" gp_index="{gp}" pci_busid="0000:{bus:02x}:00.0" pci_type="0302 [10de:15f8] [10de:118f] a1" pci_link_speed="0.0">')
        gp += 1
        for _ in range(rng.randint(0, 3)):
            backend = rng.choice(["CUDA", "OpenCL", "NVML", "RSMI", "GL"])
            out.append(f'<object type="OSDev" gp_index="{gp}" name="dev{n}" subtype="{backend}" osdev_type="5">')
            out.append(f'<info name="Backend" value="{backend}"/></object>')
            gp, n = gp + 1, n + 1
        out.append("</object>")
    out += ["</object>", "</topology>"]
    return "\n".join(out)


def config(rng):
    entries = []
    for _ in range(rng.randint(1, 3)):
        entry = {"hosts": rng.choice(["a", "b", "n[0-3]", "n[2-5]", "a,b"])}
        if rng.random() < 0.85:
            entry["cores"] = idset(rng, 8, 1)
        if rng.random() < 0.3:
            entry["gpus"] = idset(rng, 4, 1)
        if rng.random() < 0.3:
            entry["properties"] = rng.choice([["p"], ["p", "q"], [], ["a^"], [3], "p"])
        if rng.random() < 0.04:
            entry.update(rng.choice([{"hosts": ""}, {"hosts": "x["}, {"hosts": 1}, {"more": 1}, {"cores": 1}]))
        entries.append(entry)
    return entries if rng.random() < 0.98 else rng.choice([[], {}, None])


def cases(rng, n):
    for _ in range(KINDS * n):
        roll = rng.random()
        if roll < 0.22:
            yield "r.parse", rset(rng)
        elif roll < 0.47:
            op = rng.choice(["r.union", "r.diff", "r.intersect", "r.append", "r.add", "r.append"])
            yield op, pair(rng, op)
        elif roll < 0.67:
            r = rset(rng, sound=True)
            op = rng.choice(["r.copy_ranks", "r.remove_ranks", "r.remap", "r.rerank", "r.set_property", "r.count"])
            ranks = sorted(x for e in r["execution"]["R_lite"] for x in decode(e["rank"]))
            if op == "r.remap":
                yield op, r
            elif op == "r.rerank":
                hosts = [host(x) for x in ranks]
                rng.shuffle(hosts)
                if rng.random() < 0.15:
                    hosts = rng.choice([hosts[1:], hosts + ["x"], ["x"] + hosts[1:]])
                yield op, {"R": r, "arg": ",".join(hosts)}
            elif op == "r.set_property":
                name = rng.choice(["a", "new", "x@gpu", "b^", "b'", 'b"', "b`", "a&b", "a b"])
                on = rng.sample(ranks, rng.randint(0, len(ranks))) + ([13] if rng.random() < 0.1 else [])
                yield op, {"R": r, "arg": [name, encode(on)]}
            elif op == "r.count":
                yield op, {"R": r, "arg": rng.choice(["node", "core", "gpu", "disk"])}
            else:
                yield op, {"R": r, "arg": idset(rng, 14)}
        elif roll < 0.73:
            a, b = rset(rng, sound=True), rset(rng, sound=True)
            if rng.random() < 0.8:
                one = sorted(x for e in a["execution"]["R_lite"] for x in decode(e["rank"]))[0]
                b = {"version": 1, "execution": {"R_lite": [{"rank": str(one), "children": {"core": encode(rng.sample(range(8), rng.randint(1, 6)))}}]}}
                if rng.random() < 0.3:
                    b["execution"]["R_lite"][0]["children"]["gpu"] = "0"
                if rng.random() < 0.8:
                    b["execution"]["nodelist"] = [host(one) if rng.random() < 0.85 else "other"]
            modes = ["strict", "allow-extra", "allow-missing", "ignore", "x"]
            keys = ["default", "hostname", "core", "gpu", "disk"]
            table = rng.choice([None, True, False, {rng.choice(keys): rng.choice(modes) for _ in range(rng.randint(0, 3))}, 3])
            yield "r.verify", {"a": a, "b": b, "config": table}
        elif roll < 0.77:
            yield "r.from_config", config(rng)
        elif roll < 0.79:
            yield "r.hwloc", topology(rng)
        elif roll < 0.83:
            yield "constraint.validate", constraint(rng)
        elif roll < 0.9:
            r = rset(rng, sound=True)
            ranks = sorted(x for e in r["execution"]["R_lite"] for x in decode(e["rank"]))
            r["execution"]["nodelist"] = [host(x) for x in ranks]
            yield "constraint.match", {"R": r, "arg": constraint(rng)}
        else:
            yield rng.choice(["query.parse", "query.message"]), query(rng)


def pair(rng, op):
    a, b = rset(rng, sound=True), rset(rng, sound=True)
    if op == "r.append" and rng.random() < 0.7:
        # Other ranks, so that the sets have nothing in common.
        for entry in b["execution"]["R_lite"]:
            entry["rank"] = encode({x + 12 for x in decode(entry["rank"])})
        ranks = sorted(x for e in b["execution"]["R_lite"] for x in decode(e["rank"]))
        if "nodelist" in b["execution"]:
            b["execution"]["nodelist"] = [host(x) for x in ranks]
        b["execution"].pop("properties", None)
    if op in ("r.union", "r.add", "r.append") and ("nodelist" in a["execution"]) != ("nodelist" in b["execution"]):
        # A host that one set knows is kept; upstream forgets it mostly.
        a["execution"].pop("nodelist", None)
        b["execution"].pop("nodelist", None)
    if op == "r.intersect" and rng.random() < 0.2 and "nodelist" in b["execution"]:
        b["execution"]["nodelist"][0] = "other"
    return {"a": a, "b": b}


# --- upstream ---


class Upstream:
    def __init__(self, build):
        from ctypes import c_char_p, c_int, c_size_t, c_void_p

        lib = f"{build}/src/bindings/python/_flux/.libs/_rhwloc_map.so"
        for name in ("libflux-core.so.2", "libflux-hostlist.so.1", "libflux-idset.so.1"):
            ctypes.CDLL(f"{build}/src/common/.libs/{name}", mode=ctypes.RTLD_GLOBAL)
        self.jansson = ctypes.CDLL("libjansson.so.4", mode=ctypes.RTLD_GLOBAL)
        self.idset = ctypes.CDLL(f"{build}/src/common/.libs/libflux-idset.so.1", mode=ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(lib)
        self.libc = ctypes.CDLL(None)
        self.libc.free.argtypes = [c_void_p]

        def declare(lib, name, result, *args):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, args

        declare(self.jansson, "json_loads", c_void_p, c_char_p, c_size_t, c_void_p)
        declare(self.jansson, "json_delete", None, c_void_p)
        declare(self.idset, "idset_decode", c_void_p, c_char_p)
        declare(self.idset, "idset_destroy", None, c_void_p)
        p = c_void_p
        for name, result, args in [
            ("rlist_create", p, []), ("rlist_destroy", None, [p]), ("rlist_from_json", p, [p, p]),
            ("rlist_encode", p, [p]), ("rlist_dumps", p, [p]), ("rlist_union", p, [p, p]),
            ("rlist_diff", p, [p, p]), ("rlist_intersect", p, [p, p]), ("rlist_append", c_int, [p, p]),
            ("rlist_add", c_int, [p, p]), ("rlist_copy_ranks", p, [p, p]), ("rlist_remove_ranks", c_int, [p, p]),
            ("rlist_remap", c_int, [p]), ("rlist_rerank", c_int, [p, c_char_p, p]), ("rlist_count", c_size_t, [p, c_char_p]),
            ("rlist_nnodes", c_size_t, [p]), ("rlist_add_property", c_int, [p, p, c_char_p, c_char_p]),
            ("rlist_verify_ex", c_int, [p, p, p, p]), ("rlist_verify_config_create", p, [p, p]),
            ("rlist_from_config", p, [p, p]), ("rlist_copy_constraint", p, [p, p, p]),
            ("rlist_from_hwloc", p, [c_int, c_char_p]), ("rlist_assign_hosts", c_int, [p, c_char_p]),
        ]:
            declare(self.lib, name, result, *args)
        sys.path.insert(0, f"{build}/src/bindings/python")
        from flux.job._utils import MiniConstraintParser

        self.queries = MiniConstraintParser
        self.sets, self.values, self.idsets = set(), set(), set()

    def free(self):
        """Frees what the last answer was made of."""
        for pointer in self.sets:
            self.lib.rlist_destroy(pointer)
        for pointer in self.values:
            self.jansson.json_delete(pointer)
        for pointer in self.idsets:
            self.idset.idset_destroy(pointer)
        self.sets, self.values, self.idsets = set(), set(), set()

    def json(self, value):
        # JSON_DECODE_ANY
        value = self.jansson.json_loads(json.dumps(value).encode(), 4, None)
        if not value:
            raise ValueError("not JSON")
        self.values.add(value)
        return value

    def text(self, pointer):
        if not pointer:
            raise ValueError("no text")
        text = ctypes.cast(pointer, ctypes.c_char_p).value.decode()
        self.libc.free(pointer)
        return text

    def ids(self, text):
        ids = self.good(self.idset.idset_decode(text.encode()), "idset")
        self.idsets.add(ids)
        return ids

    def good(self, pointer, what="failed"):
        if not pointer:
            raise ValueError(what)
        return pointer

    def set(self, value):
        rl = self.lib.rlist_from_json(self.json(value), ctypes.create_string_buffer(1024))
        self.sets.add(self.good(rl, "no R"))
        return rl

    def all(self, rl):
        self.sets.add(rl)
        r = json.loads(self.text(self.lib.rlist_encode(rl)))
        ranks = sorted(x for e in r["execution"]["R_lite"] for x in decode(e["rank"]))
        return {
            "R": r,
            "short": self.text(self.lib.rlist_dumps(rl)),
            "ranks": encode(ranks),
            "cores": self.lib.rlist_count(rl, b"core"),
        }

    def answer(self, op, arg):
        lib = self.lib
        error = ctypes.create_string_buffer(1024)
        if op == "r.parse":
            return self.all(self.set(arg))
        if op in ("r.union", "r.diff", "r.intersect"):
            a, b = self.set(arg["a"]), self.set(arg["b"])
            return self.all(self.good(getattr(lib, "rlist_" + op[2:])(a, b)))
        if op in ("r.append", "r.add"):
            a, b = self.set(arg["a"]), self.set(arg["b"])
            if getattr(lib, "rlist_" + op[2:])(a, b) < 0:
                raise ValueError(op)
            return self.all(a)
        if op == "r.copy_ranks":
            return self.all(self.good(lib.rlist_copy_ranks(self.set(arg["R"]), self.ids(arg["arg"]))))
        if op == "r.remove_ranks":
            rl = self.set(arg["R"])
            lib.rlist_remove_ranks(rl, self.ids(arg["arg"]))
            return self.all(rl)
        if op == "r.remap":
            rl = self.set(arg)
            lib.rlist_remap(rl)
            return self.all(rl)
        if op == "r.rerank":
            rl = self.set(arg["R"])
            if lib.rlist_rerank(rl, arg["arg"].encode(), error) < 0:
                raise ValueError(error.value.decode())
            return self.all(rl)
        if op == "r.set_property":
            rl = self.set(arg["R"])
            name, ranks = arg["arg"]
            if lib.rlist_add_property(rl, error, name.encode(), ranks.encode()) < 0:
                raise ValueError(error.value.decode())
            return self.all(rl)
        if op == "r.count":
            rl = self.set(arg["R"])
            return lib.rlist_nnodes(rl) if arg["arg"] == "node" else lib.rlist_count(rl, arg["arg"].encode())
        if op == "r.verify":
            config = None
            if arg["config"] is not None:
                config = self.good(lib.rlist_verify_config_create(self.json(arg["config"]), error))
            code = lib.rlist_verify_ex(error, self.set(arg["a"]), self.set(arg["b"]), config)
            return [code, error.value.decode()]
        if op == "r.from_config":
            return self.all(self.good(lib.rlist_from_config(self.json(arg), error)))
        if op == "r.hwloc":
            rl = self.good(lib.rlist_from_hwloc(0, arg.encode()))
            lib.rlist_assign_hosts(rl, b"host")
            return self.all(rl)
        if op == "constraint.validate":
            empty = lib.rlist_create()
            self.good(lib.rlist_copy_constraint(empty, self.json(arg), error))
            return True
        if op == "constraint.match":
            rl = self.set(arg["R"])
            return self.all(self.good(lib.rlist_copy_constraint(rl, self.json(arg["arg"]), error)))
        if op in ("query.parse", "query.message"):
            try:
                value = self.queries().parse(arg)
                return value if op == "query.parse" else None
            except Exception as e:
                if op == "query.parse":
                    raise ValueError(str(e)) from e
                return str(e)
        raise KeyError(op)


_upstream = None


def untyped(r):
    """Whether upstream takes an R with a member of another type than RFC 20 says for an empty one."""
    execution = r.get("execution") if isinstance(r, dict) else None
    if not isinstance(execution, dict):
        return False
    entries = execution.get("R_lite", [])
    entries = entries if isinstance(entries, list) else [entries]
    children = [e.get("children", {}) for e in entries if isinstance(e, dict)]
    return (
        not isinstance(execution.get("R_lite", []), list)
        or not isinstance(execution.get("nodelist", []), list)
        or any(not isinstance(c, dict) for c in children)
        or (None in execution.get("nodelist", []))
    )


def empty_target(r):
    """Whether some target has no resources."""
    try:
        entries = r["execution"]["R_lite"]
        return any(not any(decode(ids) for ids in e["children"].values()) for e in entries)
    except (TypeError, KeyError, ValueError, AttributeError):
        return False


def unlisted(c):
    """Whether a constraint has hosts or ranks that are no list of strings."""
    if not isinstance(c, dict):
        return False
    for op, values in c.items():
        if op in ("hostlist", "ranks"):
            if not isinstance(values, list) or any(not isinstance(v, str) for v in values):
                return True
        elif isinstance(values, list) and any(unlisted(v) for v in values):
            return True
    return False


def forbidden(op, input):
    """Whether a property has a name that only RFC 20 forbids."""
    if op == "r.set_property":
        return "!" in input["arg"][0]
    try:
        return any("!" in name for name in input["execution"].get("properties", {}))
    except (TypeError, KeyError, AttributeError):
        return False


KEPT = {k["id"]: k for k in json.loads((Path(__file__).parent / "rset-kept.json").read_text())}


def short(answer):
    answer["short"] = sorted(answer["short"].split())


def without(*keys):
    def change(answer):
        for key in keys:
            answer["R"]["execution"].pop(key, None)

    return change


# What may differ in an answer, by the reason.
CHANGES = [
    ("short", lambda op: True, short),
    ("times", lambda op: op not in ("r.parse", "r.remap"), without("starttime", "expiration")),
    ("nslots", lambda op: op != "r.parse", without("nslots")),
    ("properties", lambda op: op in ("r.union", "r.add"), without("properties")),
    ("intersected", lambda op: op == "r.intersect", without("properties")),
]


def kept(op, input, ours, theirs):
    """Which of the differences in rset-kept.json explain this one."""
    found = explained(op, input, ours, theirs)
    return found and "; ".join(KEPT[name]["what"] for name in found)


def explained(op, input, ours, theirs):
    if "error" in ours and "ok" in theirs:
        if op == "r.parse" and untyped(input):
            return ["types"]
        if op in ("constraint.validate", "constraint.match"):
            value = input if op == "constraint.validate" else input["arg"]
            return ["values"] if unlisted(value) else None
        return ["exclamation"] if forbidden(op, input) else None
    if "ok" not in ours or "ok" not in theirs:
        return None
    a, b = ours["ok"], theirs["ok"]
    if op == "query.message" and a and b:
        same = a.split()[:2] == b.split()[:2]
        return ["messages"] if same and a.startswith(("Unclosed quote", "Mismatched", "Illegal")) else None
    if not (isinstance(a, dict) and "R" in a):
        return None
    if op == "r.parse" and empty_target(input):
        return ["empty"]
    if op == "constraint.match" and unlisted(input["arg"]):
        return ["values"]
    a, b = json.loads(json.dumps([a, b]))
    reasons = []
    for name, applies, change in CHANGES:
        if applies(op):
            before = a == b, [a["R"] != b["R"], a["short"] != b["short"]]
            change(a), change(b)
            if [a["R"] != b["R"], a["short"] != b["short"]] != before[1]:
                reasons.append(name)
            if a == b:
                return reasons
    return None


def setup(build):
    """Loads upstream's libraries from its build folder."""
    global _upstream
    _upstream = Upstream(build)


def upstream(op, input):
    """Upstream's answer; an exception if it refuses."""
    try:
        return _upstream.answer(op, input)
    finally:
        _upstream.free()
