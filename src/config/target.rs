//! What is watched, how, and what repairs it, as the file was read.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::url;
use crate::policy::Limits;
use crate::time::HumanDuration;

/// What a restart command may take unless the configuration says otherwise.
pub const RUNG_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Target {
    /// Unique among the targets.
    pub name: String,
    pub probe: Probe,
    /// Its process in PM2, beside the probe or as the probe.
    pub pm2: Option<Pm2Config>,
    pub limits: Limits,
    /// Restart commands, smallest first; empty for a watch-only target. `limits.rungs` is its length.
    pub ladder: Vec<Rung>,
    /// Asked before an attempt; `limits.gates` names it where it is present.
    pub only_if: Option<CommandLine>,
    /// Run when it goes down, before any attempt; their output is kept.
    pub diagnose: Vec<CommandLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    pub remedy: Remedy,
    /// How long it may take; each call of pm2, where it makes several.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    Command(CommandLine),
    Pm2Restart(Pm2Config),
    Pm2Reset(Pm2Config),
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Command(command) => command.fmt(f),
            Remedy::Pm2Restart(Pm2Config { process, .. }) => write!(f, "pm2 restart {process}"),
            Remedy::Pm2Reset(Pm2Config { home, .. }) => write!(f, "reset PM2 in {}", home.display()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pm2Config {
    pub process: String,
    /// PM2's home, absolute.
    pub home: PathBuf,
    /// The ecosystem file that it was started from, absolute.
    pub config: Option<PathBuf>,
    /// The block of variables in that file that it was started with, where not the usual one: pm2's `--env`.
    pub env: Option<String>,
    pub reset: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommandLine {
    /// A string: run by `sh -c`.
    Shell(String),
    /// A list: run as it is. Never empty.
    Exec(Vec<String>),
}

impl CommandLine {
    pub fn argv(&self) -> Vec<String> {
        match self {
            CommandLine::Shell(text) => vec!["sh".into(), "-c".into(), text.clone()],
            CommandLine::Exec(words) => words.clone(),
        }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandLine::Shell(text) => f.write_str(text),
            CommandLine::Exec(words) => f.write_str(&words.join(" ")),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A request, and what the answer must be.
    Http(Box<HttpConfig>),
    /// A connection that must come about. `host`: a name or an address, without brackets.
    Tcp { host: String, port: u16 },
    /// A command that must exit with 0.
    Command(CommandLine),
    /// A file that must have been written to lately; `path` is absolute.
    File { path: PathBuf, max_age: Duration },
    /// PM2's daemon and the process must live.
    Pm2(Pm2Config),
}

impl fmt::Display for Probe {
    /// As people read it, on one line, without secrets; a command's text as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Http(http) => {
                let method = match http.method {
                    Method::Get => "GET",
                    Method::Head => "HEAD",
                };
                // What is asked with may be a token.
                match http.shown.split_once('?') {
                    Some((page, _)) => write!(f, "{method} {page}?…"),
                    None => write!(f, "{method} {}", http.shown),
                }
            }
            Probe::Tcp { host, port } if host.contains(':') => write!(f, "connect to [{host}]:{port}"),
            Probe::Tcp { host, port } => write!(f, "connect to {host}:{port}"),
            Probe::Command(command) => write!(f, "run {}", command.to_string().trim()),
            Probe::Pm2(pm2) => write!(f, "{} in PM2", pm2.process),
            Probe::File { path, max_age } => write!(f, "{} written within {}", path.display(), HumanDuration(*max_age)),
        }
    }
}

impl Probe {
    pub fn is_https(&self) -> bool {
        matches!(self, Probe::Http(http) if http.url.0.starts_with("https:"))
    }

    /// The port of this machine that it looks at; `None` where it looks at none, or at another machine.
    pub fn local_port(&self) -> Option<u16> {
        let (host, port) = match self {
            Probe::Http(http) if http.unix_socket.is_none() => url::host_and_port(&http.url.0)?,
            Probe::Tcp { host, port } => (host.as_str(), *port),
            Probe::Http(_) | Probe::Command(_) | Probe::File { .. } | Probe::Pm2(_) => return None,
        };
        let is_ours = |address: IpAddr| address.is_loopback() || address.is_unspecified();
        let is_local = host == "localhost" || host.parse().is_ok_and(is_ours);
        is_local.then_some(port)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Where to: http or https, without user and password (they became a header).
    pub url: Secret,
    /// The url as it may be shown: as written, `${NAME}` not replaced, without user and password.
    pub shown: String,
    /// Speak to this socket instead of the url's host; absolute.
    pub unix_socket: Option<PathBuf>,
    pub method: Method,
    /// Sent along, `Authorization` from the url's user and password included.
    pub headers: Vec<(String, Secret)>,
    pub status: Vec<RangeInclusive<u16>>,
    pub contains: Option<String>,
    /// JSON pointer and the value that must be there.
    pub json: Vec<(String, serde_json::Value)>,
    pub tls: Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It must hold against the system's trust store.
    Verify,
    Insecure,
    /// It must hold against the certificates in this PEM file; absolute.
    Ca(PathBuf),
}

/// A text that must never be shown: it may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
