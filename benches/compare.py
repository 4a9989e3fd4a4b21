#!/usr/bin/env python3
"""Compares the watchdog with its peers in the same run. It shows medians and ratios, because machines are noisy.

It needs Linux, and monit, curl, cc, node and strace for their columns and rows. It uses only the loopback interface, on
ports that the system assigns. It ends every process by its pid and removes every folder.
"""
import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

# No __pycache__ in the source tree.
sys.dont_write_bytecode = True
from scene import Scene, Table, cpu, demand, lines, status, until, written

TOP = Path(__file__).resolve().parent.parent
PEERS = {"monit": "monit", "curl": "curl", "cc": "gcc", "node": "nodejs", "strace": "strace"}
MISSING = {name for name in PEERS if not shutil.which(name)}
# The programs to measure, by their names in the tables.
BUILDS = {}


def spent(scene, watchers, rounds, seconds):
    """Milliseconds of CPU per probe for each watcher, by the path that it requests: the median of the rounds."""
    found = {path: [] for path in watchers}
    for _ in range(rounds):
        before, began = scene.seen(), {path: cpu(process) for path, process in watchers.items()}
        time.sleep(seconds)
        took = {path: cpu(process) - began[path] for path, process in watchers.items()}
        after = scene.seen()
        for path in watchers:
            probes = sum(count - before[name] for name, count in after.items() if name.startswith(path))
            found[path].append(took[path] / max(1, probes) * 1000)
    return {path: statistics.median(figures) for path, figures in found.items()}


def probe(quick):
    """CPU per probe and memory: one target a second, compared with Monit, Node and a bare loop in C."""
    rounds, seconds = (2, 5) if quick else (7, 10)
    with Scene() as scene:
        begin = {f"/ok/{name}": lambda path, name=name: scene.watchdog(
            BUILDS[name], [f"name: a, http: '{scene.url(path)}', restart: 'true'"], "interval: 1s") for name in BUILDS}
        begin["/ok/bare"] = lambda path: scene.bare(path, 1000) if "cc" not in MISSING else None
        begin["/ok/monit"] = lambda path: scene.monit(path, "/bin/true") if "monit" not in MISSING else None
        begin["/ok/node"] = lambda path: scene.node(path, "true") if "node" not in MISSING else None
        watchers = {}
        for path, start in begin.items():
            process = start(path)
            if process:
                watchers[path] = process
                demand(lambda: scene.seen()[path], f"{path} is requested")
            # So that they do not all probe at the same moment of each second.
            time.sleep(1 + 1 / len(begin))
        time.sleep(seconds)
        costs = spent(scene, watchers, rounds, seconds)
        memory = {path: [status(process, key) for key in ("VmRSS", "RssFile", "RssAnon")]
                  for path, process in watchers.items()}
    table = Table(f"**probe**: one HTTP target a second, all programs at once, medians of {rounds} × {seconds} s")
    for build in BUILDS:
        ours, kib = costs[f"/ok/{build}"], memory[f"/ok/{build}"]
        for peer, most in (("bare", 2), ("monit", 0.1), ("node", None)):
            table.compare(build, "CPU a probe", ours, "ms", peer, costs.get(f"/ok/{peer}"), most)
        for peer, most in (("monit", 0.72), ("node", None), ("bare", None)):
            table.compare(build, "RSS", kib[0], "KiB", peer, memory.get(f"/ok/{peer}", [None])[0], most)
        for place, what in ((1, "of which pages of files (RssFile)"), (2, "of which private (RssAnon)")):
            table.compare(build, what, kib[place], "KiB", "monit", memory.get("/ok/monit", [None] * 3)[place])
    table.show()


def once(quick):
    """A healthy tick with an existing state, compared with the same request by curl."""
    rounds = 20 if quick else 100
    with Scene() as scene:
        commands = {}
        for name in BUILDS:
            path = scene.configure(name, [f"name: a, http: '{scene.url('/ok/a')}', restart: 'true'"], "interval: 1s")
            commands[name] = [BUILDS[name], "--once", "-c", path]
        if "curl" not in MISSING:
            commands["curl -fsS"] = ["curl", "-fsS", scene.url("/ok/a")]
        times = {name: [] for name in commands}
        for number in range(rounds + 3):
            for name, command in commands.items():
                began = time.monotonic()
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                if number >= 3:
                    times[name].append((time.monotonic() - began) * 1000)
    table = Table(f"**once**: a healthy tick, medians of {rounds}, alternating")
    medians = {name: statistics.median(found) for name, found in times.items()}
    for build in BUILDS:
        table.compare(build, "`--once`", medians[build], "ms", "curl -fsS", medians.get("curl -fsS"), 0.5)
    table.show()


def crowd(quick, interval=10):
    """1,000 targets every 10 s, of which 500 never answer: the delay of the other probes, CPU and memory."""
    seconds = 3 * interval if quick else 9 * interval
    table = Table(f"**crowd**: 1,000 targets every {interval} s, half of them hang for 1 s, {seconds} s")
    for build in BUILDS:
        with Scene() as scene:
            targets = [f"name: t{n}, http: '{scene.url('/hang' if n % 2 else '/ok')}/{n}'" for n in range(1000)]
            watchdog = scene.watchdog(BUILDS[build], targets, f"interval: {interval}s")
            # The targets that hang are down after three probes.
            time.sleep(4 * interval)
            began, before, threads = time.monotonic(), cpu(watchdog), 0
            while time.monotonic() < began + seconds:
                time.sleep(0.5)
                threads = max(threads, status(watchdog, "Threads"))
            ended, took, memory = time.monotonic(), cpu(watchdog) - before, status(watchdog, "VmRSS") / 1024
            times = {path: found for path, found in scene.times(0, ended).items() if path.startswith("/ok")}
        late, slots = lateness(times, interval, began, ended)
        late.sort()
        table.add(build, "CPU, of a core", took / (ended - began) * 100, "%", most=12)
        on_time = sum(1 for one in late if one <= 50)
        table.add(build, "at most 50 ms late", on_time / max(1, slots) * 100, "%", least=99)
        for part, what in ((0.5, "late: median"), (0.99, "late: 99 of 100"), (1, "late: worst")):
            table.add(build, what, late[min(len(late) - 1, int(len(late) * part))], "ms")
        table.add(build, "missed", slots - len(late), "probes")
        table.add(build, "RSS", memory, "MiB", most=28)
        table.add(build, "threads", threads, "at most")
    table.show()


def lateness(times, interval, began, ended):
    """How late each probe of a period was in ms, by its target's own schedule, and how many probes were due.

    The schedule of a target is its interval from the earliest offset that any of its probes had.
    """
    late, slots = [], 0
    for found in times.values():
        offsets = [(at - found[0] + interval / 2) % interval - interval / 2 for at in found]
        grid = found[0] + min(offsets)
        inside = [at for at in found if began <= at < ended]
        first = grid + -(-(began - grid) // interval) * interval
        # A probe that is due in the last half second may arrive after the end.
        slots += max(0, int((ended - 0.5 - first) // interval) + 1)
        late += [((at - grid + interval / 2) % interval - interval / 2) * 1000 for at in inside if at >= first]
    return late, max(slots, len(late))


def scale(quick):
    """CPU of a probe among 1,000 healthy targets and among 12, both with 100 probes a second in total.

    Not fewer than 12, because up to 10 targets are probed at the same moment, which saves most wake-ups. The two run
    one after the other, because at the same time they would wait for each other's answers.
    """
    rounds, seconds = (2, 10) if quick else (6, 10)
    table = Table(f"**scale**: healthy targets, 100 probes a second, runs in turn, medians of {rounds} × {seconds} s")

    def measured(path, start):
        with Scene() as scene:
            process = start(scene)
            time.sleep(20)
            return spent(scene, {path: process}, rounds, seconds)[path], status(process, "VmRSS")

    for build in BUILDS:
        def crowd_of(count, interval):
            def start(scene):
                targets = [f"name: t{n}, http: '{scene.url(f'/ok/{n}')}'" for n in range(count)]
                return scene.watchdog(BUILDS[build], targets, f"interval: {interval}")
            return measured("/ok/", start)

        (many, large), (few, small) = crowd_of(1000, "10s"), crowd_of(12, "120ms")
        table.compare(build, "CPU a probe at 1,000", many, "ms", "at 12", few, 1.3)
        if "cc" not in MISSING:
            bare, _ = measured("/ok/bare", lambda scene: scene.bare("/ok/bare", 10))
            table.compare(build, "CPU a probe at 12", few, "ms", "bare", bare)
        table.compare(build, "RSS at 1,000", large, "KiB", "at 12", small)
    table.show()


def outage(build, most, traced=False):
    """999 targets with a restart command fail at once; one healthy target is probed every 500 ms."""
    with Scene() as scene:
        targets = [f"name: t{n}, http: '{scene.url(f'/turn/{n}')}', restart: 'echo + t{n} >> ran; echo - t{n} >> ran'"
                   for n in range(999)]
        targets.insert(500, f"name: well, http: '{scene.url('/ok')}', interval: 500ms")
        # With -D the watchdog stays the child of this script; strace ends with it.
        tracer = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-ttt", "-e", "signal=none",
                  "-e", "trace=fsync,fdatasync", "-o", scene.folder / "syncs"]
        watchdog = scene.watchdog(BUILDS[build], targets, "interval: 5s", tracer if traced else [])
        demand(lambda: len(scene.seen()) == 1000, "all are requested")
        time.sleep(6)
        folder = Path(f"/proc/{watchdog.pid}/cwd").resolve()
        ran = folder / "ran"
        began, clock, before, bytes_before = time.monotonic(), time.time(), cpu(watchdog), written(watchdog)
        scene.order("status")
        until(lambda: time.sleep(0.2) or len(lines(ran)) >= 2 * 999, most)
        ended = time.monotonic()
        took, wrote = cpu(watchdog) - before, written(watchdog) - bytes_before
        probes = [began, *scene.times(began, ended).get("/ok", []), ended]
        marks = [line.split() for line in lines(ran)]
        events = [json.loads(line) for name in (".jsonl.1", ".jsonl") for line in lines(folder / f"state/events{name}")]
        syncs = [float(line.split()[1]) for line in lines(scene.folder / "syncs") if "sync(" in line]
    ranks = {event["target"]: rank for rank, event in enumerate(events) if event["event"] == "down"}
    order = [ranks.get(name, 0) for mark, name in marks if mark == "+"]
    return {
        "ran": len(order),
        "twice": len(order) - len({name for _, name in marks}),
        "took": ended - began,
        "long": ended - began if len(order) >= 999 else math.inf,
        "at once": sum(1 for begin, end in zip(marks[::2], marks[1::2]) if (begin[0], end) != ("+", ["-", begin[1]])),
        "early": sum(1 for place, rank in enumerate(order) if rank > min(order[place:])),
        "gap": max(later - sooner for sooner, later in zip(probes, probes[1:])),
        "cpu": took / (ended - began) * 100,
        "wrote": wrote / 2**20,
        "syncs": sum(1 for at in syncs if clock <= at < clock + ended - began) / (ended - began),
    }


def down(quick):
    """999 of 1,000 targets fail at once: delay of the healthy target, restart commands, writes to disk."""
    most = 30 if quick else 120
    table = Table(f"**down**: 999 targets with a restart command fail at once, one is healthy; at most {most} s")
    for build in BUILDS:
        found = outage(build, most)
        table.add(build, "longest gap between probes of the healthy target (500 ms)", found["gap"], "s", most=1)
        table.add(build, "commands that ran", found["ran"], "of 999", least=999)
        table.add(build, "from the fault to the end of the last command", found["long"], "s", most=100)
        table.add(build, "commands that overlapped another one", found["at once"], "", most=0)
        table.add(build, "commands that ran twice", found["twice"], "", most=0)
        table.add(build, "commands that ran before one that was due earlier", found["early"], "", most=0)
        table.add(build, "CPU, of a core", found["cpu"], "%")
        table.add(build, "written", found["wrote"], "MiB")
        if "strace" not in MISSING:
            # strace stops each new thread and so distorts all other figures: a separate run.
            traced = outage(build, most, traced=True)
            table.add(build, "fsyncs a second, by strace in a separate run", traced["syncs"], "", most=40)
            table.add(build, "fsyncs per command", traced["syncs"] * traced["took"] / max(1, traced["ran"]), "")
    table.show()


def fault(quick):
    """From the fault to the restart command, compared with Monit: a probe a second, timeout 1 s, three failures."""
    rounds = 1 if quick else 4
    table = Table(f"**fault**: from the fault to the restart, a probe a second, timeout 1 s, medians of {rounds}")
    for way in ["refused", "silent", "drip", "reset", "status"]:
        found = {name: [] for name in (*BUILDS, *({"monit"} - MISSING))}
        for turn in range(rounds):
            with Scene() as scene:
                for name in found:
                    script = scene.folder / f"{name}.sh"
                    script.write_text(f"#!/bin/sh\ntouch {scene.folder}/{name}.restarted\n")
                    script.chmod(0o700)
                    if name == "monit":
                        scene.monit("/turn/monit", script)
                    else:
                        target = f"name: a, http: '{scene.url(f'/turn/{name}')}', restart: {script}"
                        scene.watchdog(BUILDS[name], [target], "interval: 1s")
                demand(lambda: len(scene.seen()) == len(found), "all are requested")
                # At a different moment of the second in each round.
                time.sleep(2 + turn / rounds)
                began, waiting = time.monotonic(), set(found)
                scene.order(way)
                until(lambda: not waiting or restarted(scene, waiting, found, began), 20)
                for name in waiting:
                    found[name].append(math.inf)
        medians = {name: statistics.median(times) for name, times in found.items()}
        for build in BUILDS:
            table.compare(build, way, medians[build], "s", "monit", medians.get("monit"))
    table.show()


def restarted(scene, waiting, found, began):
    """Records whose restart command has run by now."""
    for name in [name for name in waiting if (scene.folder / f"{name}.restarted").exists()]:
        found[name].append(time.monotonic() - began)
        waiting.remove(name)


def size(_):
    """The release binary, by features."""
    table = Table("**size**: the release binary, by features")
    features = {"all": [], "tls": ["--no-default-features", "--features", "tls"], "none": ["--no-default-features"]}
    for name, words in features.items():
        target = TOP / "target/sizes"
        subprocess.run(["cargo", "build", "--release", "--quiet", "--target-dir", target, *words], cwd=TOP, check=True)
        table.add("", name, (target / "release/watchdog").stat().st_size, "bytes")
    table.show()


SCENES = {scene.__name__: scene for scene in (probe, once, crowd, scale, down, fault, size)}


def main():
    scenes = "\n".join(f"  {name:6} {scene.__doc__.splitlines()[0]}" for name, scene in SCENES.items())
    usage = argparse.ArgumentParser(
        description=__doc__, epilog=f"scenes:\n{scenes}", formatter_class=argparse.RawDescriptionHelpFormatter)
    usage.add_argument("scenes", nargs="*", metavar="SCENE", help="listed below; default: all, in about 15 minutes")
    usage.add_argument("--watchdog", action="append", metavar="[NAME=]PATH",
                       help="default: the result of `cargo build --release`; several programs are compared")
    usage.add_argument("--quick", action="store_true", help="shorter and less exact")
    words = usage.parse_args()
    for build in words.watchdog or [TOP / "target/release/watchdog"]:
        name, _, path = str(build).rpartition("=")
        BUILDS[name or ("watchdog" if not BUILDS else f"watchdog{len(BUILDS) + 1}")] = Path(path).resolve()
    wrong = [name for name in words.scenes if name not in SCENES]
    wrong += [str(path) for path in BUILDS.values() if not os.access(path, os.X_OK)]
    if wrong:
        usage.error(f"no such scene or program: {' '.join(wrong)}")
    for name in sorted(MISSING):
        print(f"{name} is missing (apt-get install {PEERS[name]}): its columns and rows stay empty")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("compare.py: terminated"))
    for name in words.scenes or SCENES:
        SCENES[name](words.quick)


if __name__ == "__main__":
    main()
