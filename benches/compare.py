#!/usr/bin/env python3
"""Measures the watchdog beside its peers, all in the same run: medians and ratios, for machines are noisy.

    cargo build --release && python3 benches/compare.py [idle] [once] [fault] [many] [size]

Without arguments all of it is measured, in about 10 minutes. It needs monit, curl and node, and Linux.
Nothing but the loopback is used; every process is ended by its number.
"""
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
WATCHDOG = TOP / "target/release/watchdog"
# What watchdog.js did: a request every so often, three failures in a row, a restart.
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
# A server that counts its requests, and whose way to answer is in a file that is read for each connection.
SERVER = """
import asyncio, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
arrivals = open(folder / "arrivals", "a", buffering=1 << 16)
async def serve(reader, writer):
    at = time.monotonic()
    way = (folder / "way").read_text()
    try:
        if way == "reset":
            writer.transport.abort()
            return
        line = await asyncio.wait_for(reader.readuntil(b"\\r\\n\\r\\n"), 30)
        path = line.split(b" ")[1].decode()
        arrivals.write(f"{at} {path}\\n")
        if way == "silent" or path.startswith("/hang"):
            await asyncio.sleep(60)
        elif way == "drip":
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1000\\r\\n\\r\\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.2)
        else:
            status = b"503 Busy" if way == "status" else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError):
        pass
    finally:
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[2]), backlog=4096)
    (folder / "port").write_text(str(server.sockets[0].getsockname()[1]))
    while True:
        await asyncio.sleep(0.5)
        arrivals.flush()
asyncio.run(main())
"""


class Scene:
    """A folder of its own, a server, and the processes that are ended with it."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="wd"))
        self.folder.chmod(0o700)
        self.processes = []
        self.way("ok")
        self.port = 0
        self.serve()
        return self

    def __exit__(self, *_):
        for process in self.processes:
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def serve(self):
        (self.folder / "port").unlink(missing_ok=True)
        self.server = self.start([sys.executable, "-c", SERVER, self.folder, str(self.port)])
        wait(lambda: (self.folder / "port").exists() and (self.folder / "port").read_text())
        self.port = int((self.folder / "port").read_text())

    def way(self, way):
        (self.folder / "way.new").write_text(way)
        (self.folder / "way.new").rename(self.folder / "way")

    def start(self, words):
        process = subprocess.Popen([str(word) for word in words], cwd=self.folder, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.processes.append(process)
        return process

    def url(self, path="health"):
        return f"http://127.0.0.1:{self.port}/{path}"

    def arrivals(self):
        time.sleep(1)
        lines = (self.folder / "arrivals").read_text().splitlines()
        return [(float(at), path) for at, path in (line.split(" ", 1) for line in lines)]

    def watchdog(self, targets, interval):
        defaults = f"{{interval: {interval}, timeout: 1s, cooldown: 1d, max_cooldown: 1d, start_period: 0s}}"
        text = f"state_dir: state\ndefaults: {defaults}\ntargets:\n"
        text += "".join(f"  - {{{target}}}\n" for target in targets)
        path = self.folder / "watchdog.yaml"
        path.write_text(text)
        path.chmod(0o600)
        return self.start([WATCHDOG, "run", "-c", path])

    def monit(self, restart):
        text = f"""set daemon 1
set pidfile {self.folder}/monit.pid
set statefile {self.folder}/monit.state
set idfile {self.folder}/monit.id
check host backend with address 127.0.0.1
  if failed port {self.port} protocol http request "/health" with timeout 1 seconds for 3 cycles
  then exec "{restart}"
"""
        path = self.folder / "monitrc"
        path.write_text(text)
        path.chmod(0o600)
        return self.start(["monit", "-I", "-c", path])

    def node(self, restart):
        path = self.folder / "watchdog.js"
        path.write_text(NODE)
        return self.start(["node", path, self.url(), "1000", restart])


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.01)


def rss(process, part="VmRSS"):
    """KiB of memory: all that is resident, or with RssAnon what only this process has, no pages of files."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split(f"{part}:")[1].split()[0])


def threads(process):
    return int(Path(f"/proc/{process.pid}/status").read_text().split("Threads:")[1].split()[0])


def cpu(process):
    """Seconds of CPU of all its threads, to the nanosecond, as CLOCK_PROCESS_CPUTIME_ID of another process has it."""
    return time.clock_gettime((~process.pid << 3) | 2)


def show(title, rows):
    print(f"\n{title}")
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())
    sys.stdout.flush()


def ratio(value, base):
    return f"{value / base:.2f}" if base else "-"


def idle(rounds=3, seconds=30):
    """One target, looked at each second: what it costs to be there."""
    figures = {"watchdog": [], "monit": [], "node": []}
    for _ in range(rounds):
        for name in figures:
            with Scene() as scene:
                watcher = {
                    "watchdog": lambda: scene.watchdog([f"name: a, http: '{scene.url()}', restart: 'true'"], "1s"),
                    "monit": lambda: scene.monit("/bin/true"),
                    "node": lambda: scene.node("true"),
                }[name]()
                time.sleep(5)
                before, spent = len(scene.arrivals()), cpu(watcher)
                time.sleep(seconds)
                spent, looks = cpu(watcher) - spent, max(1, len(scene.arrivals()) - before)
                figures[name].append((rss(watcher), rss(watcher, "RssAnon"), spent / looks * 1000))
    rows = [("", "RSS, KiB", "of monit's", "its own, KiB", "of monit's", "CPU a look, ms", "of monit's")]
    medians = {name: [statistics.median(values) for values in zip(*found)] for name, found in figures.items()}
    base = medians["monit"]
    for name, (memory, own, spent) in medians.items():
        rows.append((name, int(memory), ratio(memory, base[0]), int(own), ratio(own, base[1]), f"{spent:.2f}",
                     ratio(spent, base[2])))
    show(f"idle, one HTTP target a second, {rounds} rounds of {seconds} s", rows)


def once(rounds=60):
    """A healthy tick beside the same request by curl."""
    with Scene() as scene:
        end(scene.watchdog([f"name: a, http: '{scene.url()}', restart: 'true'"], "1s"))
        config = scene.folder / "watchdog.yaml"
        commands = {"watchdog --once": [WATCHDOG, "--once", "-c", config], "curl -fsS": ["curl", "-fsS", scene.url()]}
        times = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                began = time.monotonic()
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                times[name].append((time.monotonic() - began) * 1000)
    base = statistics.median(times["curl -fsS"])
    rows = [("", "median, ms", "of curl's")]
    rows += [(name, f"{statistics.median(found):.1f}", ratio(statistics.median(found), base)) for name, found in times.items()]
    show(f"a healthy tick, {rounds} each in turn", rows)


def fault(rounds=3):
    """From the fault to the restart command: a look a second, at most 1 s each, three in a row."""
    rows = [("", "watchdog, s", "monit, s", "of monit's")]
    for way in ["refused", "silent", "drip", "reset", "status"]:
        found = {"watchdog": [], "monit": []}
        for _ in range(rounds):
            for name, times in found.items():
                with Scene() as scene:
                    mark, script = scene.folder / "restarted", scene.folder / "restart.sh"
                    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
                    script.chmod(0o700)
                    if name == "watchdog":
                        scene.watchdog([f"name: a, http: '{scene.url()}', restart: {script}"], "1s")
                    else:
                        scene.monit(script)
                    wait(lambda: len((scene.folder / "arrivals").read_text()) > 0)
                    time.sleep(2)
                    began = time.monotonic()
                    if way == "refused":
                        end(scene.server)
                    else:
                        scene.way(way)
                    try:
                        wait(mark.exists, 30)
                        times.append(time.monotonic() - began)
                    except TimeoutError:
                        times.append(float("inf"))
        ours, theirs = (statistics.median(found[name]) for name in ("watchdog", "monit"))
        shown = lambda value: f"{value:.1f}" if value < 1e9 else "never (30 s)"
        rows.append((way, shown(ours), shown(theirs), ratio(ours, theirs) if theirs < 1e9 else "-"))
    show(f"from the fault to the restart, {rounds} rounds", rows)


def many(seconds=60, interval=5):
    """1,000 targets, of which 500 never answer: how late the looks at the others are."""
    with Scene() as scene:
        targets = [f"name: t{n}, http: '{scene.url('hang' if n % 2 else 't')}{n}'" for n in range(1000)]
        watchdog = scene.watchdog(targets, f"{interval}s")
        time.sleep(5 * interval)
        before, most = cpu(watchdog), 0
        for _ in range(seconds):
            time.sleep(1)
            most = max(most, threads(watchdog))
        spent, memory = cpu(watchdog) - before, rss(watchdog)
        looks = {}
        for at, path in scene.arrivals():
            if path.startswith("/t"):
                looks.setdefault(path, []).append(at)
    late = []
    for times in looks.values():
        # The grid is where the looks lie when nothing holds them up: of all offsets, nearly the smallest.
        offsets = sorted((at - times[0]) % interval for at in times)
        offsets = [offset - interval if offset > interval / 2 else offset for offset in offsets]
        late += [(offset - min(offsets)) * 1000 for offset in offsets]
    late.sort()
    at = lambda part: f"{late[min(len(late) - 1, int(len(late) * part))]:.1f}"
    show(
        f"1,000 targets, half of them hang, a look each {interval} s, {seconds} s",
        [
            ("late, ms: p50", "p99", "max", "RSS, KiB", "CPU, % of a core", "threads at most"),
            (at(0.5), at(0.99), f"{late[-1]:.1f}", memory, f"{spent / seconds * 100:.1f}", most),
        ],
    )


def size():
    """The release binary, by features."""
    rows = [("features", "bytes")]
    for name, words in {"all": [], "tls": ["--no-default-features", "--features", "tls"], "none": ["--no-default-features"]}.items():
        target = TOP / "target/sizes"
        subprocess.run(["cargo", "build", "--release", "--quiet", "--target-dir", target, *words], cwd=TOP, check=True)
        rows.append((name, (target / "release/watchdog").stat().st_size))
    show("the binary", rows)


if __name__ == "__main__":
    parts = {"idle": idle, "once": once, "fault": fault, "many": many, "size": size}
    for name in sys.argv[1:] or parts:
        parts[name]()
