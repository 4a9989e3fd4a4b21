//! A target as read from the file: its probe, its limits and its restart commands.
//! Only values are here, with the texts that people read of them; none may show a secret.

use std::collections::HashSet;
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
/// In characters.
const MAX_ADDRESS_SHOWN: usize = 80;

#[derive(Clone, Debug)]
pub struct Target {
    /// Unique among the targets.
    pub name: String,
    pub probe: Probe,
    /// Its process in PM2, in addition to the probe or as the probe.
    pub pm2: Option<Pm2Config>,
    /// Its unit in systemd, in addition to the probe.
    pub unit: Option<UnitConfig>,
    pub limits: Limits,
    /// Smallest first; empty for a watch-only target. Its length is `limits.rungs`.
    pub ladder: Vec<Rung>,
    /// Run before an attempt; `limits.preconditions` contains `OnlyIf` if it is present.
    pub only_if: Option<CommandLine>,
    /// Run when the target goes down, before any attempt; their output is stored.
    pub diagnose: Vec<CommandLine>,
}

/// For what precedes an attempt's first command: an inspection of PM2 (45 s), `diagnose` and `only_if` (10 s each).
const CHECKS: Duration = Duration::from_secs(65);
/// For what follows a command that has failed.
const VERIFICATION: Duration = Duration::from_secs(5);
/// The pm2 calls of one repair.
const PM2_CALLS: u32 = 3;

impl Target {
    /// How long an attempt may take that needs every command.
    pub fn longest_repair(&self) -> Duration {
        let longest = |rung: &Rung| match rung.remedy {
            Remedy::Command(_) => rung.timeout,
            Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_) => rung.timeout * PM2_CALLS,
        };
        CHECKS + self.ladder.iter().map(|rung| longest(rung) + VERIFICATION).sum::<Duration>()
    }
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
pub struct UnitConfig {
    /// With its type: `api.service`.
    pub name: String,
    /// Of the account's own manager (`systemctl --user`), not of the system's.
    pub is_user: bool,
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
    /// At least one address; all must be healthy.
    Http(Vec<HttpConfig>),
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
            Probe::Http(addresses) => {
                let shown: Vec<String> = addresses.iter().map(HttpConfig::to_string).collect();
                f.write_str(&shown.join(", "))
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
        matches!(self, Probe::Http(addresses) if addresses.iter().any(|http| http.url.0.starts_with("https:")))
    }

    /// The ports that it probes on this machine, each once.
    pub fn local_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = match self {
            Probe::Http(addresses) => addresses.iter().filter_map(HttpConfig::local_port).collect(),
            Probe::Tcp { host, port } => local_port(host, *port).into_iter().collect(),
            Probe::Command(_) | Probe::File { .. } | Probe::Pm2(_) => Vec::new(),
        };
        let mut known = HashSet::new();
        ports.retain(|port| known.insert(*port));
        ports
    }
}

fn local_port(host: &str, port: u16) -> Option<u16> {
    let is_ours = |address: IpAddr| address.is_loopback() || address.is_unspecified();
    let is_local = host == "localhost" || host.parse().is_ok_and(is_ours);
    is_local.then_some(port)
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

impl HttpConfig {
    /// The port that it probes on this machine; `None` if it probes a socket or another machine.
    pub fn local_port(&self) -> Option<u16> {
        let (host, port) = url::host_and_port(&self.url.0).filter(|_| self.unix_socket.is_none())?;
        local_port(host, port)
    }

    /// The URL for people, without its query, which may contain a token.
    fn address(&self) -> String {
        self.shown.split_once('?').map_or_else(|| self.shown.clone(), |(path, _)| format!("{path}?…"))
    }
}

impl fmt::Display for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
        };
        write!(f, "{method} {}", self.address())
    }
}

/// The names of the addresses of one probe, each different from the others and short enough for one line with the
/// detail of a failure.
pub fn address_names(addresses: &[HttpConfig]) -> Vec<String> {
    let names: Vec<String> = addresses.iter().map(|http| shorten_address(&http.address())).collect();
    let name = |(index, name): (usize, &String)| match names.iter().filter(|other| *other == name).count() {
        1 => name.clone(),
        _ => format!("{name} (http[{index}])"),
    };
    names.iter().enumerate().map(name).collect()
}

/// Cut in the middle: hosts differ at the beginning, paths at the end.
fn shorten_address(address: &str) -> String {
    let letters: Vec<char> = address.chars().collect();
    if letters.len() <= MAX_ADDRESS_SHOWN {
        return address.to_owned();
    }
    let half = MAX_ADDRESS_SHOWN / 2;
    letters[..half].iter().chain(&['…']).chain(&letters[letters.len() - half + 1..]).collect()
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
