//! As many probes as in a day, in fast motion, with changing faults: resource usage does not grow. `SOAK=1200` makes it
//! 20 minutes; this prints the curve: `cargo test --features full-tests --test it soak -- --nocapture`.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::faults::{Behaviour, Server};
use crate::resources::ResourceUsage;
use crate::sandbox::{Sandbox, env_count};

const TARGETS: usize = 5;
/// Duration of each fault.
const PHASE: Duration = Duration::from_secs(2);

/// Resource usage, and the size of the state folder.
#[derive(Clone, Copy)]
struct Sample {
    usage: ResourceUsage,
    bytes: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResourceUsage { rss, anon, threads, files } = self.usage;
        let kept = self.bytes >> 10;
        write!(f, "RSS {rss} KiB, anonymous {anon} KiB, {threads} threads, {files} files, {kept} KiB on the disk")
    }
}

/// Files that disappear while they are counted have size 0.
fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let entry_size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(entry_size).sum()
}

#[test]
fn resource_usage_does_not_grow_over_many_probes_and_faults() {
    let seconds = env_count("SOAK", 60) as u64;
    let (backend, receiver) =
        (Server::start(Behaviour::answer("200 OK", "ok")), Server::start(Behaviour::answer("200 OK", "ok")));
    let target = |n: usize| {
        let url = format!("http://127.0.0.1:{}/{n}", backend.port());
        format!("  - {{name: t{n}, http: {{url: '{url}', contains: ok}}, restart: echo {n}, diagnose: echo {n}}}\n")
    };
    let targets: String = (0..TARGETS).map(target).collect();
    let sandbox = Sandbox::new(&format!(
        "log: {{max_size: 64KiB, keep: 2}}\nnotify: [{{webhook: 'http://127.0.0.1:{}/'}}]\npage: status.html\n\
         metrics: watchdog.prom\ndefaults: {{interval: 100ms, timeout: 300ms, start_period: 200ms, cooldown: 500ms, \
         max_cooldown: 1s, max_restarts: 100, restart_window: 10s, stable_after: 1s}}\ntargets:\n{targets}",
        receiver.port()
    ));
    // With one malloc arena and large blocks returned at once, only a leak can make memory grow.
    let mut command = sandbox.command(&["-v", "run"]);
    command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "65536");
    let daemon = sandbox.start_daemon_from(command);
    let drip = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let behaviours = [
        Behaviour::answer("200 OK", "ok"),
        Behaviour::answer("503 Busy", "no"),
        Behaviour::answer("200 OK", "ok"),
        Behaviour::Silent,
        Behaviour::answer("200 OK", "ok"),
        Behaviour::ResetAtOnce,
        Behaviour::answer("200 OK", "ok"),
        Behaviour::Drip(drip, b"x".into(), Duration::from_millis(20)),
        Behaviour::answer("200 OK", "ok"),
        Behaviour::answer("200 OK", &"no".repeat(1 << 20)),
    ];
    let (began, mut samples) = (Instant::now(), Vec::new());
    let duration = Duration::from_secs(seconds);
    for behaviour in behaviours.iter().cycle() {
        backend.set_behaviour(behaviour.clone());
        let until = Instant::now() + PHASE;
        sandbox.eventually("the phase is over", || Instant::now() >= until);
        samples.push(Sample { usage: ResourceUsage::of(daemon.pid()), bytes: size(&sandbox.path("state")) });
        if began.elapsed() > duration && samples.len() >= 3 * behaviours.len() {
            break;
        }
    }
    for (number, sample) in samples.iter().enumerate().filter(|(number, _)| number % behaviours.len() == 0) {
        println!("{:>5} s  {sample}", number as u64 * PHASE.as_secs());
    }
    let third = samples.len() / 3;
    let most = |samples: &[Sample], what: fn(&Sample) -> u64| samples.iter().map(what).max().expect("samples");
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let curve: Vec<String> = samples.iter().map(Sample::to_string).collect();
    let summary = format!("{} restarts\n{}", sandbox.events("restart").len(), curve.join("\n"));
    let least = |samples: &[Sample]| samples.iter().map(|one| one.usage.anon).min().expect("samples");
    sandbox.assert(least(last) < least(middle) + 512, &summary);
    // A base of 2 MiB, and for each target a body of 1 MiB in a buffer that was doubled to hold it.
    sandbox.assert(most(&samples, |one| one.usage.anon) < 2_048 + 2_048 * TARGETS as u64, &summary);
    // Each target may have a thread for a probe, a delivery, a command and a diagnosis; the loop and the signals have
    // two.
    sandbox.assert(most(&samples, |one| one.usage.threads) <= 2 + 4 * TARGETS as u64, &summary);
    sandbox.assert(most(&samples, |one| one.usage.files) <= 64, &summary);
    // The log, two event files, open and closed incidents, and the state.
    sandbox.assert(most(&samples, |one| one.bytes) < 24 << 20, &summary);
    sandbox.assert(sandbox.events("up").len() > 10, "targets were repaired again and again");
    assert_eq!(daemon.stop().code(), Some(0));
}
