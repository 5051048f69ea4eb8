"""Plugins in Python: programs that talk to their host in lines of JSON (docs/plugins.md).

    from ferroflux_plugin import Plugin, Refused

    plugin = Plugin()

    @plugin.on("job.validate")
    def validate(call):
        if "bank" not in call["jobspec"]["attributes"]["system"]:
            raise Refused("a job needs a bank")

    plugin.run()

A handler gets its arguments as a dictionary, whose `topic` and `out` are attributes, too. What it returns, a dictionary
or None, comes out of the call. Refused tells the user; any other exception is a failure of the plugin, which goes on.
"""

import fnmatch
import json
import os
import sys
import traceback


class Refused(Exception):
    """Said to the user: why a job, an update or a configuration is not accepted."""


class AskError(OSError):
    """The host did not do what it was asked for."""


class Call(dict):
    """The arguments of a call."""

    def __init__(self, topic, args, out):
        super().__init__(args)
        self.topic = topic
        self.out = out


class Plugin:
    """This plugin: what it handles, and its host."""

    def __init__(self):
        self.conf = {}
        self.path = ""
        self._handlers = []
        # The host has the standard streams; what is printed goes to the error stream.
        self._input = os.fdopen(os.dup(0), "rb")
        self._output = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def on(self, topic):
        """Decorator: handle topics that match a glob; the first that matches is called."""

        def register(function):
            self._handlers.append((topic, function))
            return function

        return register

    def ask(self, method, /, **params):
        """Ask the host by name."""
        self._say({"ask": method, "params": params})
        while True:
            said = self._hear()
            if "call" in said:
                self._serve(said)
            elif "error" in said:
                raise AskError(said["error"]["errno"], said["error"]["message"])
            else:
                return said["answer"]

    def log(self, severity, text):
        """Log a line, with a severity of syslog."""
        self._say({"log": severity, "text": text})

    def run(self, start=None):
        """Serve the host until it is done with us. `start` is called once it is there."""
        init = self._hear()
        self.conf = init["args"]["conf"]
        self.path = init["args"]["path"]
        try:
            for topic, _ in self._handlers:
                self.ask("handle", topic=topic)
            if start is not None:
                start()
            self._say({"return": 0})
        except (Refused, AskError) as why:
            self._say({"return": -1, "out": {"errmsg": str(why)}})
        while True:
            self._serve(self._hear())

    def _serve(self, said):
        call = Call(said["call"], said["args"], said.get("out", {}))
        code, out = 0, {}
        try:
            for topic, function in self._handlers:
                if fnmatch.fnmatchcase(call.topic, topic):
                    out = function(call) or {}
                    break
        except Refused as why:
            code, out = -1, {"errmsg": str(why)}
        except Exception as why:
            traceback.print_exc()
            code, out = -1, {"errmsg": f"{os.path.basename(self.path)}: {why!r}"}
        self._say({"return": code, "out": out})

    def _say(self, what):
        self._output.write(json.dumps(what).encode() + b"\n")
        self._output.flush()

    def _hear(self):
        line = self._input.readline()
        if not line:
            sys.exit(0)
        return json.loads(line)
