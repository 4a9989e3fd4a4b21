"""A folder with a server and the programs that watch it, ended together; a table; figures of a process from /proc."""
import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A typical watchdog.js: a request in each interval, and a restart after three failures in a row.
NODE = """
const http = require("http");
let failures = 0;
setInterval(() => {
  const fail = () => { if (++failures >= 3) { failures = 0; require("child_process").exec(process.argv[4]); } };
  const request = http.get(process.argv[2], {timeout: 1000}, answer => {
    answer.resume();
    answer.on("end", () => { if (answer.statusCode === 200) failures = 0; else fail(); });
  });
  request.on("timeout", () => request.destroy(new Error("timeout")));
  request.on("error", fail);
}, Number(process.argv[3]));
"""


class Scene:
    """A temporary folder, a server, and processes, all of which end with the scene."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="wd"))
        self.processes, self.arrivals = [], []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.server = self.start([sys.executable, "-B", HERE / "server.py"], **pipes)
        self.order("take")
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, words, folder=None, **more):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
        words = [str(word) for word in words]
        process = subprocess.Popen(words, cwd=folder or self.folder, start_new_session=True, **streams)
        self.processes.append(process)
        return process

    def order(self, way):
        """Changes how the server answers, and collects the requests that arrived until then."""
        self.server.stdin.write(way.encode() + b"\n")
        self.server.stdin.flush()
        self.port, arrivals = json.loads(self.server.stdout.readline())
        self.arrivals += arrivals

    def seen(self):
        """How often each path was requested so far."""
        self.order("take")
        return Counter(path for _, path in self.arrivals)

    def times(self, begin, end):
        """When each path was requested within a period."""
        self.order("take")
        times = {}
        for at, path in self.arrivals:
            if begin <= at < end:
                times.setdefault(path, []).append(at)
        return times

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def configure(self, name, targets, more):
        """Writes a configuration to a folder of this name; `targets` are the contents of YAML flow maps."""
        folder = self.folder / name
        folder.mkdir()
        path = folder / "watchdog.yaml"
        defaults = f"{{timeout: 1s, cooldown: 1d, max_cooldown: 1d, start_period: 0s, {more}}}"
        text = "".join(f"  - {{{target}}}\n" for target in targets)
        path.write_text(f"state_dir: state\ndefaults: {defaults}\ntargets:\n{text}")
        path.chmod(0o600)
        return path

    def watchdog(self, program, targets, more, tracer=()):
        path = self.configure(str(len(self.processes)), targets, more)
        return self.start([*tracer, program, "run", "-c", path], path.parent)

    def monit(self, path, restart):
        text = f"""set daemon 1
set pidfile {self.folder}/monit.pid
set statefile {self.folder}/monit.state
set idfile {self.folder}/monit.id
check host backend with address 127.0.0.1
  if failed port {self.port} protocol http request "{path}" with timeout 1 seconds for 3 cycles
  then exec "{restart}"
"""
        config = self.folder / "monitrc"
        config.write_text(text)
        config.chmod(0o600)
        return self.start(["monit", "-I", "-c", config])

    def node(self, path, restart):
        (self.folder / "watchdog.js").write_text(NODE)
        return self.start(["node", "watchdog.js", self.url(path), "1000", restart])

    def bare(self, path, period):
        program = self.folder / "bare"
        subprocess.run(["cc", "-O2", "-o", program, HERE / "bare.c"], check=True)
        return self.start([program, self.port, path, period])


class Table:
    """Results as a Markdown table, with their goals if they have any."""

    def __init__(self, title):
        self.title = title
        self.rows = [("", "", "result", "peer", "ratio", "goal", "met")]

    def add(self, build, what, found, unit, most=None, least=None):
        goal = most if most is not None else least
        shown = "" if goal is None else f"≤ {most} {unit}" if least is None else f"≥ {least} {unit}"
        met = None if goal is None else found <= most if least is None else found >= least
        self.rows.append((build, what, number(found, unit), "", "", shown.strip(), verdict(met)))

    def compare(self, build, what, found, unit, peer, other, most=None):
        """Adds a result with that of a peer (None if the peer is missing); the goal is for the ratio."""
        ratio = found / other if other and not math.isinf(other) else None
        theirs = f"{peer}: {number(other)}" if other else f"{peer} is missing"
        shown, goal = ("" if ratio is None else f"{ratio:.2f}"), ("" if most is None else f"≤ {most}")
        met = None if most is None or ratio is None else ratio <= most
        self.rows.append((build, what, number(found, unit), theirs, shown, goal, verdict(met)))

    def show(self):
        widths = [max(len(str(row[column])) for row in self.rows) for column in range(len(self.rows[0]))]
        line = lambda cells: "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"
        rule = line(["-" * width for width in widths])
        print(f"\n{self.title}\n", line(self.rows[0]), rule, *map(line, self.rows[1:]), sep="\n", flush=True)


def number(value, unit=""):
    if math.isinf(value):
        return "never"
    return (f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}") + f" {unit}".rstrip()


def verdict(met):
    return "" if met is None else "yes" if met else "NO"


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def until(condition, seconds=60):
    """Whether the condition became true in time."""
    latest = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > latest:
            return False
        time.sleep(0.02)
    return True


def demand(condition, what):
    if not until(condition):
        sys.exit(f"compare.py: not within a minute: {what}")


def status(process, key):
    return int(Path(f"/proc/{process.pid}/status").read_text().split(f"{key}:")[1].split()[0])


def written(process):
    """Bytes that the process caused to be written to disk."""
    return int(Path(f"/proc/{process.pid}/io").read_text().split("\nwrite_bytes:")[1].split()[0])


def cpu(process):
    """Seconds of CPU of all threads, from the CLOCK_PROCESS_CPUTIME_ID of that process, which is exact to 1 ns."""
    return time.clock_gettime((~process.pid << 3) | 2)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []
