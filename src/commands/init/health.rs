//! Finds the ports that a process listens on, and its health address among the common ones. It must never contact
//! another machine, nor request anything but these addresses.

use std::path::Path;
use std::time::Duration;

use crate::config::{HttpConfig, Method, Probe, Secret, Secrets, Tls};
use crate::outcome::{Class, PriorEvidence, Verdict};
use crate::pm2::{App, Home, ProcessState, listening_ports};
use crate::probe::{Prober, Trust};
use crate::process::{Process, identify_living};

/// Common health addresses. The first that answers is used.
const HEALTH_PATHS: [&str; 4] = ["/api/health", "/health", "/healthz", "/"];
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Limits the time for a process that listens on many ports.
const MAX_PORTS: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) port: u16,
    /// Such as `/health`.
    pub(super) path: &'static str,
    /// Such as `200`.
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
    /// Whether it listens on them. If not, they are from its environment, and another process may use them.
    pub(super) are_open: bool,
}

/// The ports that a process with these instances listens on, or, if no instance runs, those that their environments
/// name. In cluster mode the daemon listens for the instances, and for other processes too.
pub(super) fn find_ports(home: &Home, instances: &[App], daemon: Option<Process>) -> Ports {
    let named: Vec<u16> = instances.iter().filter_map(|app| app.port).collect();
    let name = instances.first().map(|app| app.name.as_str()).unwrap_or_default();
    let mut pids: Vec<u32> = instances.iter().filter_map(|app| app.pid).collect();
    if pids.is_empty()
        && let ProcessState::Alive(process) = home.observe_process(name, None, &home.observe_daemon()).state()
    {
        pids.push(process.pid);
    }
    let living: Vec<Process> = pids.into_iter().filter_map(identify_living).collect();
    let runs = !living.is_empty();
    let mut found: Vec<u16> = living.into_iter().flat_map(listening_ports).collect();
    if instances.iter().any(|app| app.is_cluster) {
        let of_daemon = daemon.map(listening_ports).unwrap_or_default();
        found.extend(named.iter().filter(|port| of_daemon.contains(port)));
    }
    let are_open = !found.is_empty();
    if !runs {
        found.clone_from(&named);
    }
    found.sort_by_key(|port| (!named.contains(port), *port));
    found.dedup();
    found.truncate(MAX_PORTS);
    Ports { numbers: found, are_open }
}

/// The first of the common addresses that answers with a status from 200 to 299 on any of the ports.
pub(super) fn find_health(ports: &[u16]) -> Option<Health> {
    let mut ports = ports.to_vec();
    for path in HEALTH_PATHS {
        let mut http_ports = Vec::new();
        for &port in &ports {
            match probe(port, path) {
                Verdict::Healthy { detail } => return Some(Health { port, path, answer: detail }),
                // Nothing listens there, or it does not speak HTTP, so other paths need not be tried.
                Verdict::Unhealthy { class: Class::Refused | Class::Reset | Class::Protocol, .. } => {}
                Verdict::Unhealthy { .. } | Verdict::Unknown { .. } => http_ports.push(port),
            }
        }
        ports = http_ports;
    }
    None
}

fn probe(port: u16, path: &str) -> Verdict {
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
    let (probe, secrets, trust) = (Probe::Http(vec![http]), Secrets::default(), Trust::default());
    match Prober::new(&probe, None, PROBE_TIMEOUT, Path::new("/"), &[], &secrets, &trust) {
        Ok(prober) => prober.probe(PriorEvidence::default(), &[]).verdict,
        Err(detail) => Verdict::Unknown { detail },
    }
}

fn url(port: u16, path: &str) -> String {
    format!("http://localhost:{port}{path}")
}
