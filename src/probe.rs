//! One probe of a target: over HTTP or TCP, by a command, a file or PM2, all of it under one hard deadline.
//! It must never outlast the deadline, panic, decide on a repair, or blame the target for a fault of the watchdog's
//! own machine.

mod addresses;
mod bounded_task;
mod buffer;
mod chunks;
mod classify;
mod command;
mod connect;
mod deadline;
mod evidence;
mod expectations;
mod failure;
mod file;
mod filter;
mod findings;
mod head;
mod http;
mod json;
mod pm2;
mod resolve;
mod sanitize;
mod setup;
mod tcp;
#[cfg_attr(not(feature = "tls"), path = "probe/no_tls.rs")]
mod tls;
mod trace;
mod transport;

#[cfg(test)]
#[path = "../tests/it/faults.rs"]
mod faults;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use crate::command::Scope;
use crate::config::{self, Secret, Secrets};
use crate::outcome::{Class, Evidence, PriorEvidence, ProbeResult};

pub use self::tls::Trust;

use self::addresses::Addresses;
use self::command::CommandProbe;
use self::deadline::Deadline;
use self::file::FileProbe;
use self::findings::Findings;
use self::http::HttpProbe;
use self::pm2::Pm2Probe;
use self::tcp::TcpProbe;

/// The stack that a probe needs, in bytes: five times what was measured, with TLS and with the deepest JSON.
pub const PROBE_STACK: usize = 256 << 10;

/// Probes one target. It is made when the configuration is loaded and serves every probe until the next reload.
pub struct Prober {
    kind: ProbeKind,
    timeout: Duration,
    pm2: Option<Pm2Probe>,
    secrets: Secrets,
}

enum ProbeKind {
    Http(Box<HttpProbe>),
    Addresses(Addresses),
    Tcp(TcpProbe),
    File(FileProbe),
    Command(CommandProbe),
    Pm2(Pm2Probe),
}

impl Prober {
    /// Prepares probes that take at most `timeout`. If `pm2` is given, PM2 is observed after each of them. Commands run
    /// in `folder` with `env`. `secrets` are redacted from the evidence and from the details of failures.
    /// The certificates of `tls: <path>` are read here, so a renewed file takes effect with the next reload.
    /// Errors: the part of the configuration that makes a probe impossible, with the path of a file, without secrets.
    pub fn new(
        probe: &config::Probe,
        pm2: Option<&config::Pm2Config>,
        timeout: Duration,
        folder: &Path,
        env: &[(String, Secret)],
        secrets: &Secrets,
        trust: &Trust,
    ) -> Result<Prober, String> {
        let kind = match probe {
            config::Probe::Http(addresses) => match addresses.as_slice() {
                [http] => ProbeKind::Http(Box::new(HttpProbe::new(http, secrets, trust)?)),
                several => ProbeKind::Addresses(Addresses::new(several, secrets, trust)?),
            },
            config::Probe::Tcp { host, port } => ProbeKind::Tcp(TcpProbe::new(host, *port)),
            config::Probe::File { path, max_age } => ProbeKind::File(FileProbe::new(path.clone(), *max_age)),
            config::Probe::Command(line) => ProbeKind::Command(CommandProbe::new(line, folder, env, secrets)),
            config::Probe::Pm2(pm2) => ProbeKind::Pm2(Pm2Probe::new(pm2)),
        };
        let pm2 = pm2.filter(|_| !matches!(kind, ProbeKind::Pm2(_))).map(Pm2Probe::new);
        Ok(Prober { kind, timeout, pm2, secrets: secrets.clone() })
    }

    /// The scope of the commands that its probes run; `None` for other probes. A command may still run for a while
    /// after the deadline, until it has been ended.
    pub fn scope(&self) -> Option<&Scope> {
        match &self.kind {
            ProbeKind::Command(probe) => Some(probe.scope()),
            ProbeKind::Http(_)
            | ProbeKind::Addresses(_)
            | ProbeKind::Tcp(_)
            | ProbeKind::File(_)
            | ProbeKind::Pm2(_) => None,
        }
    }

    /// Probes once and blocks until there is a verdict: at most for the timeout, plus scheduling delays. What hangs
    /// beyond the timeout (resolver, file server, command) keeps a thread of its own, and until it returns the next
    /// probes fail at once with the same class.
    ///
    /// `prior` is what earlier probes found. `curable` are the failure classes that a restart may cure: of several
    /// addresses that fail, they choose the one that decides. The calling thread needs a stack of at least the size
    /// above.
    pub fn probe(&self, prior: PriorEvidence, curable: &[Class]) -> ProbeResult {
        let deadline = Deadline::after(self.timeout);
        let (mut pm2, mut file) = (None, None);
        let found = match &self.kind {
            ProbeKind::Http(probe) => Findings::of(deadline, |observations| probe.probe(deadline, observations)),
            ProbeKind::Addresses(probe) => probe.probe(deadline, curable),
            ProbeKind::Tcp(probe) => Findings::of(deadline, |observations| probe.probe(deadline, observations)),
            ProbeKind::File(probe) => Findings::of(deadline, |_| probe.probe(deadline, prior.file, &mut file)),
            ProbeKind::Command(probe) => Findings::of(deadline, |observations| probe.probe(deadline, observations)),
            ProbeKind::Pm2(probe) => Findings::of(deadline, |_| {
                let (result, evidence) = probe.probe(deadline, prior);
                pm2 = evidence;
                result
            }),
        };
        let latency = deadline.elapsed();
        if let Some(probe) = &self.pm2 {
            pm2 = probe.observe(self.timeout, prior);
        }
        let Findings { verdict, address, addresses, .. } = found;
        let evidence = verdict.class().map(|_| {
            let evidence = found.observations.into_evidence(found.ended, &self.secrets);
            Box::new(Evidence { address, addresses: addresses.clone(), ..evidence })
        });
        ProbeResult { verdict, latency, pm2, evidence, file, addresses }
    }
}
