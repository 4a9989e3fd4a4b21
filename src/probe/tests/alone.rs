//! Probes that need a process of their own, because they change what belongs to the whole process.

use std::fs::File;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::config::CommandLine;
use crate::testing::{is_alone, run_alone};

#[test]
fn without_descriptors_the_verdict_is_unknown() {
    if !is_alone() {
        run_alone("probe::tests::alone::without_descriptors_the_verdict_is_unknown", &["env"]);
        return;
    }
    let server = Server::start(Behaviour::answer("200 OK", ""));
    let url = format!("http://localhost:{}/", server.port());
    let tcp = |host: &str| config::Probe::Tcp { host: host.into(), port: server.port() };
    let probers = [
        prober(config::Probe::Http(vec![http(&url)]), LONG),
        prober(tcp("127.0.0.1"), LONG),
        prober(tcp("no.such.host.invalid"), LONG),
        prober(config::Probe::Command(CommandLine::Shell("true".into())), LONG),
    ];
    let limit = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let mut occupied = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        occupied.push(file);
    }
    for prober in &probers {
        let verdict = prober.probe(PriorEvidence::default(), &[]).verdict;
        assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict:?}");
    }
    // The server needs descriptors to shut down.
    drop(occupied);
}

#[test]
fn proxies_in_the_environment_are_ignored() {
    if !is_alone() {
        let closed = ClosedPort::new();
        let proxies = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .map(|name| format!("{name}=http://127.0.0.1:{}", closed.port()));
        let through: Vec<&str> = ["env"].into_iter().chain(proxies.iter().map(String::as_str)).collect();
        run_alone("probe::tests::alone::proxies_in_the_environment_are_ignored", &through);
        return;
    }
    let server = Server::start(Behaviour::answer("200 OK", ""));
    assert_like(&probe_http(http(&format!("http://localhost:{}/", server.port())), LONG), "healthy: 200");
}
