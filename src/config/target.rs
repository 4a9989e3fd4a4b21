//! A target as read from the file: its probe, its limits and its restart commands.
//! Only values are here, with the texts that people read of them; none may show a secret.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::url;
use crate::policy::Limits;
use crate::time::HumanDuration;

/// The default time limit of a restart command.
pub const RUNG_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Target {
    /// Unique among the targets.
    pub name: String,
    pub probe: Probe,
    /// Its process in PM2, in addition to the probe or as the probe.
    pub pm2: Option<Pm2Config>,
    pub limits: Limits,
    /// Smallest first; empty for a watch-only target. Its length is `limits.rungs`.
    pub ladder: Vec<Rung>,
    /// Run before an attempt; `limits.preconditions` contains `OnlyIf` if it is present.
    pub only_if: Option<CommandLine>,
    /// Run when the target goes down, before any attempt; their output is stored.
    pub diagnose: Vec<CommandLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    pub remedy: Remedy,
    /// For a remedy that runs pm2 several times, the limit of each run.
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
    /// Absolute.
    pub home: PathBuf,
    /// The ecosystem file of the process, absolute.
    pub config: Option<PathBuf>,
    /// The env block to use of the ecosystem file, if not the default: pm2's `--env`.
    pub env: Option<String>,
    pub reset: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommandLine {
    /// Run by `sh -c`.
    Shell(String),
    /// Run without a shell. Never empty.
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
    Http(Box<HttpConfig>),
    /// `host` is a name or an IP address, the latter without brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Command(CommandLine),
    /// `path` is absolute.
    File {
        path: PathBuf,
        max_age: Duration,
    },
    Pm2(Pm2Config),
}

impl fmt::Display for Probe {
    /// Without secrets; a command as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Http(http) => {
                let method = match http.method {
                    Method::Get => "GET",
                    Method::Head => "HEAD",
                };
                // The query may contain a token.
                match http.shown.split_once('?') {
                    Some((path, _)) => write!(f, "{method} {path}?…"),
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

    /// The port that it probes on this machine; `None` if it probes no port, or another machine.
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
    /// http or https, without user and password: they are in `headers`.
    pub url: Secret,
    /// The URL to show: as written, with `${NAME}` not replaced, and without user and password.
    pub shown: String,
    /// Connect to this socket instead of the URL's host; absolute.
    pub unix_socket: Option<PathBuf>,
    pub method: Method,
    /// Includes `Authorization` from the URL's user and password.
    pub headers: Vec<(String, Secret)>,
    pub status: Vec<RangeInclusive<u16>>,
    pub contains: Option<String>,
    /// JSON pointers and the values expected there.
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
    /// Against the system's trust store.
    Verify,
    Insecure,
    /// Against the certificates in this PEM file; absolute.
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
