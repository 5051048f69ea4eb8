#!/usr/bin/env python3
"""A dependency scheme in Python: a job waits until a file is there.

    flux jobtap load ./file.py every=0.5
    flux submit --dependency=file:/data/ready ...

The file is looked for by the instance's owner, on the node of rank 0.
"""

import os

from ferroflux_plugin import Plugin, Refused

plugin = Plugin()
waiting = {}


def description(path):
    return f"file={path}"


@plugin.on("job.dependency.file")
def depend(call):
    path = call["dependency"]["value"]
    if not path.startswith("/"):
        raise Refused(f"dependency file:{path}: give the whole path, from /")
    plugin.ask("dependency_add", id=call["id"], description=description(path))
    waiting[call["id"]] = path


@plugin.on("job.destroy")
def destroy(call):
    waiting.pop(call["id"], None)


@plugin.on("timer.look")
def look(call):
    for job, path in list(waiting.items()):
        if os.path.exists(path):
            del waiting[job]
            plugin.ask("dependency_remove", id=job, description=description(path))
    wait()


def wait():
    plugin.ask("timer", seconds=float(plugin.conf.get("every", 1)), topic="timer.look")


plugin.run(wait)
