//! One look at a target: by HTTP, TCP, a command, a file or PM2, with one hard deadline over all of it.
//! It must never outlast the deadline, panic, or blame the target for our own trouble; a look decides nothing.

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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use crate::command::Scope;
use crate::config::{self, Secret, Secrets};
use crate::outcome::{PriorEvidence, ProbeResult, Verdict};

pub use self::tls::Trust;

use self::command::CommandProbe;
use self::deadline::Deadline;
use self::evidence::Observations;
use self::failure::Failure;
use self::file::FileProbe;
use self::http::HttpProbe;
use self::pm2::Pm2Probe;
use self::sanitize::sanitize;
use self::tcp::TcpProbe;

/// Bytes of stack that a look gets by with: five times what was measured, for TLS as for the deepest JSON.
pub const STACK: usize = 256 << 10;

/// Looks at one target. Made when the configuration is loaded, used for every look.
pub struct Prober {
    kind: ProbeKind,
    timeout: Duration,
    pm2: Option<Pm2Probe>,
    secrets: Secrets,
}

enum ProbeKind {
    Http(Box<HttpProbe>),
    Tcp(TcpProbe),
    File(FileProbe),
    Command(CommandProbe),
    Pm2(Pm2Probe),
}

impl Prober {
    /// Prepares for looks that take `timeout` at most, with a glance at PM2 beside them if `pm2` is given. Commands run
    /// in `folder` with `env`. `secrets` are struck out of what is said of a failure.
    /// The certificates of `tls: <path>` are read here, so a renewed file is seen when the configuration is read again.
    /// Errors: what in the configuration makes a look impossible, naming the file where it is one, and no secret.
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
            config::Probe::Http(http) => ProbeKind::Http(Box::new(HttpProbe::new(http, secrets, trust)?)),
            config::Probe::Tcp { host, port } => ProbeKind::Tcp(TcpProbe::new(host, *port)),
            config::Probe::File { path, max_age } => ProbeKind::File(FileProbe::new(path.clone(), *max_age)),
            config::Probe::Command(line) => ProbeKind::Command(CommandProbe::new(line, folder, env, secrets)),
            config::Probe::Pm2(pm2) => ProbeKind::Pm2(Pm2Probe::new(pm2)),
        };
        let is_beside = !matches!(kind, ProbeKind::Pm2(_));
        Ok(Prober { kind, timeout, pm2: pm2.filter(|_| is_beside).map(Pm2Probe::new), secrets: secrets.clone() })
    }

    /// In which its looks run commands, where they do: they may be at work beyond the deadline, until they are ended.
    pub fn scope(&self) -> Option<&Scope> {
        match &self.kind {
            ProbeKind::Command(probe) => Some(probe.scope()),
            ProbeKind::Http(_) | ProbeKind::Tcp(_) | ProbeKind::File(_) | ProbeKind::Pm2(_) => None,
        }
    }

    /// Looks once. Blocks until there is a verdict, which is when the timeout passes at the latest, give or take what
    /// the scheduler adds. What hangs beyond the timeout (resolver, file server, command) stays behind in a thread of
    /// its own, and while it does, the next looks answer its class at once.
    ///
    /// `known` is what earlier looks have left. Wants a stack of [`STACK`] bytes.
    pub fn probe(&self, known: PriorEvidence) -> ProbeResult {
        let deadline = Deadline::after(self.timeout);
        let (mut pm2, mut file, mut seen) = (None, None, Observations::default());
        let looked = catch_unwind(AssertUnwindSafe(|| match &self.kind {
            ProbeKind::Http(probe) => probe.probe(deadline, &mut seen),
            ProbeKind::Tcp(probe) => probe.probe(deadline, &mut seen),
            ProbeKind::File(probe) => probe.probe(deadline, known.file, &mut file),
            ProbeKind::Command(probe) => probe.probe(deadline, &mut seen),
            ProbeKind::Pm2(probe) => {
                let (looked, evidence) = probe.probe(deadline, known);
                pm2 = evidence;
                looked
            }
        }));
        let latency = deadline.elapsed();
        if let Some(probe) = &self.pm2 {
            pm2 = probe.observe(self.timeout, known);
        }
        let verdict = match looked {
            Ok(Ok(detail)) => Verdict::Healthy { detail },
            Ok(Err(Failure::Target(class, detail))) => Verdict::Unhealthy { class, detail: sanitize(&detail) },
            Ok(Err(Failure::Ours(detail))) => Verdict::Unknown { detail: sanitize(&detail) },
            Err(_) => Verdict::Unknown { detail: "the look failed by a bug of the watchdog's own".into() },
        };
        let evidence = verdict.class().map(|_| Box::new(seen.evidence(latency, &self.secrets)));
        ProbeResult { verdict, latency, pm2, evidence, file }
    }
}
