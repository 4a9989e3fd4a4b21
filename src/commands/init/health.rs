//! Where a process answers: the ports that it listens on, and the health address among the usual ones. It looks at this
//! machine only, and asks for nothing but these addresses.

use std::path::Path;
use std::time::Duration;

use crate::config::{HttpConfig, Method, Probe, Secret, Secrets, Tls};
use crate::outcome::{Class, PriorEvidence, Verdict};
use crate::pm2::{App, Home, ProcessState, listeners};
use crate::probe::{Prober, Trust};
use crate::process::{Process, living};

/// Addresses for health as people name them; the first that answers is the one.
const PATHS: [&str; 4] = ["/api/health", "/health", "/healthz", "/"];
/// How long one address is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of a process that listens on more ports, the first ones are asked.
const PORTS: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) port: u16,
    /// Its path, such as `/health`.
    pub(super) path: &'static str,
    /// What was answered, such as `200`.
    pub(super) answer: String,
}

impl Health {
    pub(super) fn url(&self) -> String {
        url(self.port, self.path)
    }
}

#[derive(Debug, Default)]
pub(super) struct Ports {
    /// The likeliest first.
    pub(super) numbers: Vec<u16>,
    /// It listens on them; else its environment names one, which it may share with others.
    pub(super) are_open: bool,
}

/// The ports that a process with these instances listens on; only where none of it runs, the one that its environment
/// names. In cluster mode the daemon listens for them, and for others too.
pub(super) fn ports(home: &Home, instances: &[App], daemon: Option<Process>) -> Ports {
    let named: Vec<u16> = instances.iter().filter_map(|app| app.port).collect();
    let name = instances.first().map(|app| app.name.as_str()).unwrap_or_default();
    let mut pids: Vec<u32> = instances.iter().filter_map(|app| app.pid).collect();
    if pids.is_empty()
        && let ProcessState::Alive(process) = home.process_evidence(name, None, &home.daemon_evidence()).state()
    {
        pids.push(process.pid);
    }
    let living: Vec<Process> = pids.into_iter().filter_map(living).collect();
    let runs = !living.is_empty();
    let mut found: Vec<u16> = living.into_iter().flat_map(listeners).collect();
    if instances.iter().any(|app| app.cluster) {
        let held = daemon.map(listeners).unwrap_or_default();
        found.extend(named.iter().filter(|port| held.contains(port)));
    }
    let are_open = !found.is_empty();
    if !runs {
        found.clone_from(&named);
    }
    found.sort_by_key(|port| (!named.contains(port), *port));
    found.dedup();
    found.truncate(PORTS);
    Ports { numbers: found, are_open }
}

/// The first of the usual addresses that answers with a status from 200 to 299, on any of the ports.
pub(super) fn health(ports: &[u16]) -> Option<Health> {
    let mut ports = ports.to_vec();
    for path in PATHS {
        let mut speaking = Vec::new();
        for &port in &ports {
            match look(port, path) {
                Verdict::Healthy { detail } => return Some(Health { port, path, answer: detail }),
                // Nobody is there, or nobody who speaks HTTP: asking for other paths is of no use.
                Verdict::Unhealthy { class: Class::Refused | Class::Reset | Class::Protocol, .. } => {}
                Verdict::Unhealthy { .. } | Verdict::Unknown { .. } => speaking.push(port),
            }
        }
        ports = speaking;
    }
    None
}

fn look(port: u16, path: &str) -> Verdict {
    let url = url(port, path);
    let http = HttpConfig {
        url: Secret(url.clone()),
        shown: url,
        unix_socket: None,
        method: Method::Get,
        headers: Vec::new(),
        status: vec![200..=299],
        contains: None,
        json: Vec::new(),
        tls: Tls::Verify,
    };
    let (probe, secrets, trust) = (Probe::Http(Box::new(http)), Secrets::default(), Trust::default());
    match Prober::new(&probe, None, PATIENCE, Path::new("/"), &[], &secrets, &trust) {
        Ok(prober) => prober.probe(PriorEvidence::default()).verdict,
        Err(detail) => Verdict::Unknown { detail },
    }
}

fn url(port: u16, path: &str) -> String {
    format!("http://localhost:{port}{path}")
}
