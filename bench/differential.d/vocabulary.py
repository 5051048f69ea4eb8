"""Ids, hosts, durations, counts, shapes, task maps, jobspecs, directives and eventlogs."""

import ctypes
import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "formats"

libs = {}


def compiled(source, objects, flags=()):
    """Objects of upstream's static libraries as a library that can be loaded."""
    out = Path(tempfile.mkdtemp(prefix="differential-")) / "lib.so"
    words = ["cc", "-shared", "-o", str(out), *[str(source / o) for o in objects], *flags]
    subprocess.run(words, check=True)
    return ctypes.CDLL(str(out), use_errno=True)


def setup(upstream):
    common = upstream / "src/common"
    sys.path.insert(0, str(upstream / "src/bindings/python"))
    lib = common / ".libs"
    libs["core"] = ctypes.CDLL(str(lib / "libflux-core.so"), use_errno=True)
    libs["taskmap"] = ctypes.CDLL(str(lib / "libflux-taskmap.so"), use_errno=True)
    libs["fsd"] = compiled(common, ["libutil/.libs/fsd.o"], ["-lm"])
    libs["count"] = compiled(
        common, ["libjob/.libs/count.o"], [f"-L{lib}", f"-Wl,-rpath,{lib}", "-lflux-idset", "-ljansson"]
    )
    libs["eventlog"] = compiled(common, ["libeventlog/.libs/eventlog.o"], ["-ljansson"])
    libs["eventlog"].eventlog_decode.restype = ctypes.c_void_p
    libs["eventlog"].json_dumps.restype = ctypes.c_void_p
    for name in ["taskmap_decode", "taskmap_encode"]:
        getattr(libs["taskmap"], name).restype = ctypes.c_void_p
    libs["count"].count_decode.restype = ctypes.c_void_p
    libs["count"].count_encode.restype = ctypes.c_void_p


def taken(pointer):
    if not pointer:
        raise ValueError("refused")
    return ctypes.string_at(pointer).decode()


# --- questions ---------------------------------------------------------------------------------


def word(rng, letters, low, high):
    return "".join(rng.choice(letters) for _ in range(rng.randint(low, high)))


def damaged(rng, text, letters):
    """The text with a few characters changed, taken out or put in."""
    chars = list(text)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(chars))
        what = rng.randint(0, 2)
        if what == 0:
            chars.insert(at, rng.choice(letters))
        elif at < len(chars):
            if what == 1:
                del chars[at]
            else:
                chars[at] = rng.choice(letters)
    return "".join(chars)


def maybe(rng, text, letters):
    return damaged(rng, text, letters) if rng.random() < 0.3 else text


def idset(rng):
    top = rng.choice([10, 100, 5000])
    ids = sorted({rng.randint(0, top) for _ in range(rng.randint(0, 12))})
    parts, i = [], 0
    while i < len(ids):
        if rng.random() < 0.5:
            parts.append(str(ids[i]))
            i += 1
        else:
            j = min(i + 1, len(ids) - 1)
            parts.append(f"{ids[i]}-{ids[j]}" if j > i else str(ids[i]))
            i = j + 1
    text = ",".join(parts)
    return f"[{text}]" if rng.random() < 0.3 else text


def hosts(rng):
    def numbers():
        def one():
            first = rng.randint(0, 30)
            width = rng.choice([1, 1, 2, 3])
            text = str(first).zfill(width)
            return text if rng.random() < 0.5 else f"{text}-{first + rng.randint(0, 12)}"

        return f"[{','.join(one() for _ in range(rng.randint(1, 4)))}]"

    def expression():
        prefix = word(rng, "ab-", 0, 3)
        kind = rng.randint(0, 3)
        if kind == 0:
            return prefix + numbers()
        if kind == 1:
            return prefix + str(rng.randint(0, 120)).zfill(rng.randint(1, 3))
        if kind == 2:
            return prefix + numbers() + word(rng, "xy", 1, 2)
        return word(rng, "abc", 1, 4)

    return ",".join(expression() for _ in range(rng.randint(0, 6)))


def duration(rng):
    number = rng.choice(
        [
            str(rng.randint(0, 5000)),
            f"{rng.uniform(0, 500):.{rng.randint(0, 4)}f}",
            f"{rng.uniform(0, 9):.2e}",
            rng.choice(["inf", "INF", "infinity", "Infinity", ".5", "5.", "+3", "-0", "nan", "0x10", "1e3", "-1"]),
        ]
    )
    return number + rng.choice(["", "", "ms", "s", "m", "h", "d", "S", "x"])


def jobid(rng):
    from flux.job import JobID

    value = rng.choice([rng.getrandbits(64), rng.getrandbits(40), rng.randint(0, 2000)])
    kind = rng.choice(["dec", "hex", "kvs", "dothex", "words", "f58", "f58plain", "emoji"])
    return JobID(value).encode(kind)


def count(rng):
    low = rng.randint(0, 20)
    bounds = rng.choice([str(low), f"{low}-{low + rng.randint(-2, 30)}", f"{low}+", idset(rng)])
    step = rng.choice(["", "", f":{rng.randint(0, 4)}", f":{rng.randint(0, 4)}:{rng.choice('+*^/')}"])
    text = bounds + step
    return f"[{text}]" if rng.random() < 0.2 else text


def taskmap(rng):
    def block():
        return [rng.randint(0, 4), rng.randint(0 if rng.random() < 0.05 else 1, 3), rng.randint(1, 3), rng.randint(1, 3)]

    kind = rng.randint(0, 3)
    if kind == 0:
        return json.dumps([block() for _ in range(rng.randint(0, 3))])
    if kind == 1:
        return json.dumps({"version": rng.choice([1, 1, 1, 2]), "map": [block() for _ in range(rng.randint(0, 3))]})
    if kind == 2:
        triples = ",".join(f"({a},{b},{c})" for a, b, c, _ in (block() for _ in range(rng.randint(1, 3))))
        return f"(vector,{triples})"
    nodes, tasks = rng.randint(1, 4), rng.randint(1, 12)
    owner = [[] for _ in range(nodes)]
    for task in range(tasks):
        owner[rng.randrange(nodes)].append(task)
    return ";".join(",".join(map(str, ids)) for ids in owner)


def shape(rng, depth=0):
    def items():
        def value():
            return rng.choice(["1", "-2.5", "true", "null", "GB", "'a b'", "[1,2]", "{a:1}", "{}"])

        def item():
            key = rng.choice(["x", "unit", "id", "k1", "'q k'"])
            if key == "x" or rng.random() < 0.3:
                return rng.choice(["", "+", "-"]) + "x"
            return f"{key}:{rng.choice(['GB', 'b2', chr(39) + 'c d' + chr(39)]) if key in ('unit', 'id') else value()}"

        return ",".join(item() for _ in range(rng.randint(1, 3)))

    kind = rng.choice(["node", "core", "gpu", "slot", "memory", "'odd type'"])
    text = kind
    if rng.random() < 0.6:
        text += "=" + rng.choice([str(rng.randint(1, 9)), "2-8", "3+", "2-9:3", "2-16:2:*", "1,4,9", "[2-4]"])
    if kind == "slot":
        text += rng.choice(["", "{task}", "{a1}", "{lbl,x}"])
    elif rng.random() < 0.4:
        text += "{" + items() + "}"
    if kind == "slot" or (depth < 3 and rng.random() < 0.6):
        n = rng.randint(1, 2) if rng.random() < 0.4 else 1
        children = ";".join(shape(rng, depth + 1) for _ in range(n))
        text += f"/[{children}]" if n > 1 or rng.random() < 0.2 else f"/{children}"
    return text


def jobspec(rng):
    def any_value():
        return rng.choice([0, -1, 1, 2.5, "", "a", None, True, [], {}, [1], {"a": 1}])

    def resource(kind, below):
        out = {"type": kind, "count": rng.randint(1, 4)}
        if kind == "slot":
            out["label"] = "task"
        if below:
            out["with"] = below
        return out

    slot = resource("slot", [resource("core", None)] + ([resource("gpu", None)] if rng.random() < 0.3 else []))
    top = resource("node", [slot]) if rng.random() < 0.5 else slot
    spec = {
        "resources": [top],
        "tasks": [{"command": ["app"], "slot": "task", "count": {rng.choice(["per_slot", "total"]): 1}}],
        "attributes": {"system": {"duration": rng.choice([0, 1.5, 3600])}},
        "version": 1,
    }
    system = spec["attributes"]["system"]
    if rng.random() < 0.3:
        system["environment"] = {"A": "b"}
    if rng.random() < 0.3:
        system["dependencies"] = [{"scheme": "after", "value": "f1"}]
    if rng.random() < 0.3:
        system["constraints"] = {"properties": ["a", "^b"]}
    if rng.random() < 0.3:
        spec["version"] = 2
        top["count"] = rng.choice([{"min": 1}, {"min": 2, "max": 9, "operand": 2, "operator": "*"}, "2-4", "1,3", 2])
    if rng.random() < 0.6:
        # One place of the document gets another value, or goes.
        places = []

        def walk(value):
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                if isinstance(value[key], (dict, list)):
                    walk(value[key])

        walk(spec)
        where, key = rng.choice(places)
        if rng.random() < 0.3 and isinstance(where, dict):
            del where[key]
        else:
            where[key] = any_value()
    return spec


def script(rng):
    lines = ["#!/bin/sh"]
    args = ["-N4", "--queue=batch", "-t 1h", "--name='a b'", '-o "x y"', "# comment", "-n4 # why", "--x='''", "'''", "a\\ b", "-c'"]
    for _ in range(rng.randint(0, 6)):
        lines.append(
            rng.choice(
                [
                    f"#flux: {rng.choice(args)}",
                    f"#flux: {rng.choice(args)}",
                    f"#FLUX: {rng.choice(args)}",
                    f"# flux: {rng.choice(args)}",
                    "",
                    "# a comment",
                    "echo hi",
                ]
            )
        )
    return "\n".join(lines) + "\n"


def log(rng):
    def event():
        out = {"timestamp": rng.choice([1.5, 1552593348.073045, 3, -1, "x"] if rng.random() < 0.2 else [1.5, 2])}
        out["name"] = rng.choice(["submit", "a.b", "", 1] if rng.random() < 0.2 else ["submit", "clean"])
        if rng.random() < 0.5:
            out["context"] = rng.choice([{}, {"a": 1}, 1, None] if rng.random() < 0.3 else [{"a": "b"}])
        if rng.random() < 0.05:
            out["extra"] = 1
        return json.dumps(out, separators=(",", ":")) + "\n"

    return "".join(event() for _ in range(rng.randint(1, 3)))


def cases(rng, n):
    for _ in range(n):
        yield "idset.parse", maybe(rng, idset(rng), "0123,-[] x")
        for op in ["union", "intersect", "difference"]:
            yield f"idset.{op}", [idset(rng), idset(rng)]
        for op in ["expand", "encode", "sort", "uniq"]:
            yield f"hostlist.{op}", maybe(rng, hosts(rng), "ab01,-[]")
        list_of = hosts(rng)
        yield "hostlist.find", [list_of, word(rng, "ab", 0, 1) + str(rng.randint(0, 30)).zfill(rng.randint(1, 3))]
        yield "fsd.parse", maybe(rng, duration(rng), "01.e-smhd ")
        yield "fsd.format", rng.choice([rng.uniform(0, 1e6), 10 ** rng.uniform(-6, 9), float(rng.randint(0, 100000))])
        yield "jobid.parse", maybe(rng, jobid(rng), "f01.xz-")
        value = rng.choice([rng.getrandbits(64), rng.getrandbits(40), rng.randint(0, 2000)])
        yield "jobid.encode", [value, rng.choice(["dec", "hex", "kvs", "dothex", "words", "f58", "emoji"])]
        yield "count.values", maybe(rng, count(rng), "012-+:*^,[]")
        yield "count.encode", count(rng)
        yield "taskmap.decode", maybe(rng, taskmap(rng), "01,;-[]()")
        yield "shape.resources", maybe(rng, shape(rng), "a1=/;,:{}[]+-'")
        yield "jobspec.validate", jobspec(rng)
        yield "directives.parse", script(rng)
        yield "eventlog.decode", log(rng)


# --- upstream's answers ------------------------------------------------------------------------


def ask_idset(op, value):
    from flux.idset import IDset

    if op == "parse":
        ids = IDset(value)
        brackets = ids.encode(2 | 4)
        return [str(ids), len(ids), brackets]
    a, b = IDset(value[0]), IDset(value[1])
    return str(getattr(a, op)(b))


def ask_hosts(op, value):
    from flux.hostlist import Hostlist

    if op == "find":
        try:
            return Hostlist(value[0]).find(value[1])
        except FileNotFoundError:
            return None
    listed = Hostlist(value)
    if op == "encode":
        return listed.encode()
    if op in ("sort", "uniq"):
        getattr(listed, op)()
    return list(listed)


def ask_fsd(op, value):
    if op == "parse":
        out = ctypes.c_double()
        if libs["fsd"].fsd_parse_duration(value.encode(), ctypes.byref(out)) < 0:
            raise ValueError("refused")
        return "inf" if math.isinf(out.value) else out.value
    buffer = ctypes.create_string_buffer(64)
    if libs["fsd"].fsd_format_duration(buffer, ctypes.c_size_t(64), ctypes.c_double(value)) < 0:
        raise ValueError("refused")
    return buffer.value.decode()


def ask_jobid(op, value):
    from flux.job import JobID

    if op == "encode":
        return JobID(value[0]).encode(value[1])
    out = ctypes.c_uint64()
    if libs["core"].flux_job_id_parse(value.encode(), ctypes.byref(out)) < 0:
        raise ValueError("refused")
    return out.value


def ask_count(op, value):
    lib = libs["count"]
    pointer = lib.count_decode(value.encode())
    if not pointer:
        raise ValueError("refused")
    pointer = ctypes.c_void_p(pointer)
    if op == "encode":
        return taken(lib.count_encode(pointer, 4))
    lib.count_first.restype = lib.count_next.restype = ctypes.c_uint
    values, n = [], lib.count_first(pointer)
    while n != 2**32 - 2 and len(values) < 100:
        values.append(n)
        n = lib.count_next(pointer, n)
    return values


def ask_taskmap(value):
    lib = libs["taskmap"]
    error = ctypes.create_string_buffer(200)
    pointer = lib.taskmap_decode(value.encode(), error)
    if not pointer:
        raise ValueError(error.value.decode())
    pointer = ctypes.c_void_p(pointer)
    raw = lib.taskmap_encode(pointer, 4)
    return {
        "json": json.loads(taken(lib.taskmap_encode(pointer, 0))),
        "pmi": taken(lib.taskmap_encode(pointer, 2)),
        # A node without a task before one with tasks has no raw form there.
        "raw": taken(raw) if raw else None,
        # -1 where the mapping is unknown.
        "nnodes": max(lib.taskmap_nnodes(pointer), 0),
        "ntasks": max(lib.taskmap_total_ntasks(pointer), 0),
    }


def ask_shape(value):
    from flux.job import Jobspec
    from flux.shape.parser import ShapeParser

    resources = ShapeParser().parse(value)

    def check(level):
        for vertex in level:
            Jobspec._validate_resource(vertex)
            check(vertex.get("with", []))

    check(resources)
    return resources


def ask_eventlog(value):
    pointer = libs["eventlog"].eventlog_decode(value.encode())
    if not pointer:
        raise ValueError("refused")
    return json.loads(taken(libs["eventlog"].json_dumps(ctypes.c_void_p(pointer), ctypes.c_size_t(0))))


def ask_directives(value):
    import io

    from flux.job.directives import DirectiveParser

    parsed = DirectiveParser(io.StringIO(value)).directives
    return [d.args for d in parsed if d.action == "SETARGS"]


def upstream(op, value):
    family, name = op.split(".")
    if family == "idset":
        return ask_idset(name, value)
    if family == "hostlist":
        return ask_hosts(name, value)
    if family == "fsd":
        return ask_fsd(name, value)
    if family == "jobid":
        return ask_jobid(name, value)
    if family == "count":
        return ask_count(name, value)
    if family == "taskmap":
        return ask_taskmap(value)
    if family == "shape":
        return ask_shape(value)
    if family == "directives":
        return ask_directives(value)
    if family == "jobspec":
        from flux.job.Jobspec import validate_jobspec

        return validate_jobspec(json.dumps(value))[0] is True
    if family == "eventlog":
        return ask_eventlog(value)
    raise AssertionError(op)


# --- differences that were chosen ----------------------------------------------------------------


LENIENT = "upstream takes it, the RFC does not"


def kept_hosts(op, value, ours, theirs):
    text = value if isinstance(value, str) else value[0]
    brackets = re.findall(r"\[([^\[\]]*)\]", text)
    if "too many hosts" in ours.get("error", ""):
        return "more than 262144 hosts of one expression with a suffix are refused"
    if text.count("[") != text.count("]") or re.search(r"\][^,\[]*\]|\[[^\]]*\[", text):
        return "brackets that do not match are refused"
    if any(re.search(r"(^|,|-)($|,|-)|--", b) for b in brackets):
        return "a range without an end is refused"
    if any(expression.count("[") > 1 for expression in re.split(r",(?![^\[]*\])", text)):
        return "several brackets in one name are all expanded"
    if any(re.search(r"-\d+-", b) for b in brackets):
        return LENIENT
    if any(len(b.split(",")) > 1 and re.match(r"0\d", b) for b in brackets):
        return "the padding of a bracket's first number holds for all (RFC 29); upstream keeps each number's own"
    if any(re.search(r"[^0-9,-]", b) for b in brackets) and "error" in ours:
        return LENIENT
    if op in ("hostlist.sort", "hostlist.uniq") and "ok" in ours and "ok" in theirs:
        if sorted(ours["ok"]) == sorted(theirs["ok"]):
            return "padded and plain numbers of one length sort together, by value"
        if op == "hostlist.uniq" and set(ours["ok"]) == set(theirs["ok"]):
            return "each host is there once, also where padded and plain ranges overlap"
    if "ok" in ours and "ok" in theirs and isinstance(ours["ok"], str):
        return "other text for the same hosts: a padded first number would pad the others" if same_hosts(
            ours["ok"], theirs["ok"]
        ) else None
    return None


def same_hosts(a, b):
    from flux.hostlist import Hostlist

    return list(Hostlist(a)) == list(Hostlist(b))


def refused_by_us(ours, theirs):
    return "error" in ours and "ok" in theirs


def kept_jobspec(value, ours):
    place = ours.get("error", "").split(":")[0]
    if place.endswith((".count", ".label")) or re.search(r"\.(operator|operand|min|max)$", place):
        return LENIENT
    for part in ["environment", "duration", "constraints", "dependencies", "cwd", "queue", "shell"]:
        if f"attributes.system.{part}" in place:
            return "what the system itself reads of the attributes is checked"
    if place in ("jobspec.resources", "jobspec.tasks", "jobspec.attributes.system", "jobspec.attributes.user"):
        return LENIENT
    if ".with" in place or place.startswith(("jobspec.tasks", "jobspec.resources")):
        return LENIENT
    return LENIENT if place in ("jobspec.attributes", "jobspec.version") else None


def kept(op, value, ours, theirs):
    family = op.split(".")[0]
    if family == "hostlist":
        return kept_hosts(op, value, ours, theirs)
    if op == "fsd.parse" and value.strip() == "":
        return "an empty duration is refused"
    if family == "jobid" and refused_by_us(ours, theirs):
        return "job ids with signs in hex, or other than one or two hyphens between words, are refused"
    if family == "count" and refused_by_us(ours, theirs) and (",," in value or re.search(r",\]?$|^\[?,", value)):
        return "empty elements of a count are refused"
    if family == "count" and refused_by_us(ours, theirs) and re.match(r"\[?1[-+].*\^", value):
        return "min of ^ must be 2 or more (RFC 14)"
    if op == "count.values" and "+" in value and re.search("[*^]", value):
        n = len(ours["ok"])
        if ours["ok"] == theirs["ok"][:n]:
            return "values end at the size of the type instead of wrapping around"
    if family == "taskmap":
        if refused_by_us(ours, theirs):
            return "text after a task map, and unclosed ones, are refused"
        if ";;" in value or value.startswith(";"):
            return "a node without tasks keeps its place in the raw form"
        if "ok" in ours and "ok" in theirs and theirs["ok"]["raw"] is None:
            if {**ours["ok"], "raw": None} == theirs["ok"]:
                return "nodes without tasks have a raw form: an empty one"
    if op == "shape.resources":
        if "ok" in ours and "JSONDecodeError" in theirs.get("error", ""):
            return "a list ends at its bracket, not at the last one of the line"
        if "slots need labels" in ours.get("error", ""):
            return "slots need labels when there are several (RFC 46), wherever they stand"
        if refused_by_us(ours, theirs):
            return "keys that a vertex has by itself are not set in braces; counts are checked"
    if op == "jobspec.validate" and refused_by_us(ours, theirs):
        return kept_jobspec(value, ours)
    if op == "directives.parse" and "unterminated multi-line" in ours.get("error", ""):
        return "a multi-line literal that is not closed is an error instead of lost"
    if op == "eventlog.decode":
        if refused_by_us(ours, theirs) and "must not be negative" in ours["error"]:
            return "timestamps are positive (RFC 18)"
        if "ok" in ours and "ok" in theirs and '"extra"' in value:
            stripped = [{k: v for k, v in e.items() if k != "extra"} for e in theirs["ok"]]
            if stripped == ours["ok"]:
                return "keys of an entry that RFC 18 does not name are not kept"
    return None
