//! A day of looks in fast motion, with faults that come and go: nothing grows. `SOAK=1200` makes it 20 minutes, and
//! it prints the curve: `cargo test --features full-tests --test it soak -- --nocapture`.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::faults::{Server, Ways};
use crate::place::{Place, count};
use crate::takes::Takes;

const TARGETS: usize = 5;
/// How long each fault stays.
const PHASE: Duration = Duration::from_secs(2);

/// What the watchdog takes, and the bytes it keeps on the disk.
#[derive(Clone, Copy)]
struct Sample {
    takes: Takes,
    bytes: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Takes { rss, own, threads, files } = self.takes;
        let kept = self.bytes >> 10;
        write!(f, "RSS {rss} KiB, its own {own} KiB, {threads} threads, {files} files, {kept} KiB on the disk")
    }
}

/// What comes and goes meanwhile counts nothing.
fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

#[test]
fn a_day_in_fast_motion_leaves_nothing_behind() {
    let seconds = count("SOAK", 60) as u64;
    let (backend, taker) = (Server::start(Ways::answer("200 OK", "ok")), Server::start(Ways::answer("200 OK", "ok")));
    let target = |n: usize| {
        let url = format!("http://127.0.0.1:{}/{n}", backend.port());
        format!("  - {{name: t{n}, http: {{url: '{url}', contains: ok}}, restart: echo {n}, diagnose: echo {n}}}\n")
    };
    let targets: String = (0..TARGETS).map(target).collect();
    let place = Place::with(&format!(
        "log: {{max_size: 64KiB, keep: 2}}\nnotify: [{{webhook: 'http://127.0.0.1:{}/'}}]\npage: status.html\n\
         metrics: watchdog.prom\ndefaults: {{interval: 100ms, timeout: 300ms, start_period: 200ms, cooldown: 500ms, \
         max_cooldown: 1s, max_restarts: 100, restart_window: 10s, stable_after: 1s}}\ntargets:\n{targets}",
        taker.port()
    ));
    // With one arena of malloc instead of sixteen, and what is large given back at once, nothing but a leak can grow.
    let mut command = place.command(&["-v", "run"]);
    command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "65536");
    let daemon = place.daemon_by(command);
    let drip = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let ways = [
        Ways::answer("200 OK", "ok"),
        Ways::answer("503 Busy", "no"),
        Ways::answer("200 OK", "ok"),
        Ways::Silent,
        Ways::answer("200 OK", "ok"),
        Ways::ResetAtOnce,
        Ways::answer("200 OK", "ok"),
        Ways::Drip(drip, b"x".into(), Duration::from_millis(20)),
        Ways::answer("200 OK", "ok"),
        Ways::answer("200 OK", &"no".repeat(1 << 20)),
    ];
    let (began, mut samples) = (Instant::now(), Vec::new());
    let long = Duration::from_secs(seconds);
    for way in ways.iter().cycle() {
        backend.turn(way.clone());
        let until = Instant::now() + PHASE;
        place.eventually("a fault has had its time", || Instant::now() >= until);
        samples.push(Sample { takes: Takes::of(daemon.pid()), bytes: size(&place.path("state")) });
        if began.elapsed() > long && samples.len() >= 3 * ways.len() {
            break;
        }
    }
    for (number, sample) in samples.iter().enumerate().filter(|(number, _)| number % ways.len() == 0) {
        println!("{:>5} s  {sample}", number as u64 * PHASE.as_secs());
    }
    let third = samples.len() / 3;
    let most = |part: &[Sample], what: fn(&Sample) -> u64| part.iter().map(what).max().expect("samples");
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let curve: Vec<String> = samples.iter().map(Sample::to_string).collect();
    let told = format!("{} restarts\n{}", place.events("restart").len(), curve.join("\n"));
    let least = |part: &[Sample]| part.iter().map(|one| one.takes.own).min().expect("samples");
    place.demand(least(last) < least(middle) + 512, &told);
    // What is always there, and a body of 1 MiB for each target, in a buffer that was doubled to hold it.
    place.demand(most(&samples, |one| one.takes.own) < 2_048 + 2_048 * TARGETS as u64, &told);
    // A look is a thread, and so are a delivery, a command, what is found out and what is published.
    place.demand(most(&samples, |one| one.takes.threads) <= 2 + 4 * TARGETS as u64, &told);
    place.demand(most(&samples, |one| one.takes.files) <= 64, &told);
    // The log, two files of events, the incidents, what is over of them, the state.
    place.demand(most(&samples, |one| one.bytes) < 24 << 20, &told);
    place.demand(place.events("up").len() > 10, "it was healed again and again");
    assert_eq!(daemon.stop().code(), Some(0));
}
