//! How a target is looked at: reading `http`, `tcp`, `command` and `file`.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue};

use super::reader::{Keys, Reader};
use super::target::{CommandLine, HttpConfig, Method, Pm2Config, Probe, Secret, Tls};
use super::tree::{MapEntry, Node, Value};
use super::url;

pub(super) const PROBES: [&str; 4] = ["http", "tcp", "command", "file"];
pub(super) const HTTP: Keys = Keys {
    known: &[&["url", "unix_socket", "method", "headers", "status", "contains", "json", "tls"]],
    elsewhere: &[],
};
pub(super) const FILE: Keys = Keys { known: &[&["path", "max_age"]], elsewhere: &[] };
/// How old a watched file may be: up to a year, since some are written by a monthly job.
const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
/// The longest path that fits into a socket's address, on Linux and with a byte to spare everywhere else.
const SOCKET_PATH: usize = 103;

/// The one probe of a target; its `pm2` where there is no other.
pub(super) fn probe(reading: &mut Reader<'_>, target: &Node, pm2: Option<&Pm2Config>) -> Option<Probe> {
    let Value::Map(entries) = &target.value else { return None };
    let mut found = entries.iter().filter(|entry| PROBES.contains(&entry.key.as_str()));
    let Some(first) = found.next() else {
        if target.get("pm2").is_none() {
            reading.complain_of_missing(target, "has no probe", format!("write one of {}, pm2", PROBES.join(", ")));
        }
        return pm2.cloned().map(Probe::Pm2);
    };
    if let Some(second) = found.find(|entry| entry.key != first.key) {
        let message = format!("a second probe, `{}`, beside `{}`", second.key, first.key);
        reading.complain_of_key(second, message, "a target has one probe; make two targets of it");
    }
    let node = &first.value;
    match first.key.as_str() {
        "http" => http(reading, node).map(|http| Probe::Http(Box::new(http))),
        "tcp" => tcp(reading, node),
        "command" => reading.command(node).map(Probe::Command),
        _ => file(reading, node),
    }
}

fn http(reading: &mut Reader<'_>, node: &Node) -> Option<HttpConfig> {
    if node.as_text().is_none() && !reading.has_only(node, &HTTP) {
        return None;
    }
    let Some(url) = node.as_text().map(|_| node).or_else(|| node.get("url")) else {
        reading.complain_of_missing(node, "has no `url`", "such as url: http://localhost:5000/api/health");
        return None;
    };
    let address = address(reading, url);
    for secret in address.iter().flat_map(|address| url::secrets_of_query(&address.url)) {
        reading.secrets.add(&secret);
    }
    let mut headers = node.get("headers").map(|node| headers(reading, node)).unwrap_or_default();
    if let Some(authorization) = address.as_ref().and_then(|address| address.authorization.clone()) {
        if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            reading.complain(url, "has a user, and there is a header `Authorization` too", "leave one of them out");
        }
        headers.push(("Authorization".into(), Secret(authorization)));
    }
    let words = [("GET", Method::Get), ("HEAD", Method::Head)];
    let method = node.get("method").and_then(|node| reading.word(node, &words)).unwrap_or(Method::Get);
    for (key, body) in ["contains", "json"].into_iter().filter_map(|key| Some((key, node.get(key)?))) {
        if method == Method::Head {
            reading.complain(
                body,
                "looks at the body, and HEAD asks for none",
                format!("leave out `{key}` or `method`"),
            );
        }
    }
    let (unix_socket, contains) = (node.get("unix_socket"), node.get("contains"));
    let http = HttpConfig {
        unix_socket: unix_socket.and_then(|node| unix_socket_path(reading, node)),
        method,
        headers,
        status: node.get("status").map_or_else(|| vec![200..=299], |node| statuses(reading, node)),
        contains: contains.and_then(|node| reading.text(node)).map(str::to_owned),
        json: node.get("json").map(|node| wanted_json(reading, node)).unwrap_or_default(),
        tls: node.get("tls").and_then(|node| tls(reading, node)).unwrap_or(Tls::Verify),
        url: Secret(address.as_ref()?.url.clone()),
        shown: address?.shown,
    };
    Some(http)
}

pub(super) struct Address {
    pub(super) url: String,
    shown: String,
    pub(super) authorization: Option<String>,
}

pub(super) fn address(reading: &mut Reader<'_>, node: &Node) -> Option<Address> {
    let raw = reading.text(node)?.trim();
    let (shown, userinfo) = url::split_userinfo(raw);
    let expanded = reading.expand(node, &shown)?;
    // A user in the text is split off before its variables are replaced, so that a password from a variable may
    // hold any character; one that came with a variable is part of an address and written as addresses are.
    let (url, userinfo) = match userinfo {
        Some(userinfo) => {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            let mut part = |part: &str| reading.expand(node, &url::percent_decode(part, "$$"));
            (expanded, Some((part(user)?, part(password)?)))
        }
        None => {
            let (url, userinfo) = url::split_userinfo(&expanded);
            let userinfo = userinfo.map(|userinfo| userinfo.split_once(':').unwrap_or((userinfo, "")));
            (url, userinfo.map(|(user, word)| (url::percent_decode(user, "$"), url::percent_decode(word, "$"))))
        }
    };
    if let Some((what, advice)) = url::complaint(&url) {
        reading.complain(node, what, advice);
        return None;
    }
    let authorization = userinfo.map(|(user, password)| {
        let basic = url::basic(&user, &password);
        reading.secrets.add(&password);
        reading.secrets.add(basic.trim_start_matches("Basic "));
        basic
    });
    Some(Address { url, shown, authorization })
}

fn headers(reading: &mut Reader<'_>, node: &Node) -> Vec<(String, Secret)> {
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for entry in reading.map(node, "such as {X-Probe: watchdog}").unwrap_or_default() {
        if let Some(value) = header(reading, entry) {
            let same = |(name, _): &&(String, Secret)| *name != entry.key && name.eq_ignore_ascii_case(&entry.key);
            if let Some((name, _)) = headers.iter().find(same) {
                let message = format!("`{}` and `{name}` are the same header", entry.key);
                reading.complain_of_key(entry, message, "remove one of the two");
            }
            headers.push((entry.key.clone(), Secret(value)));
        }
    }
    headers
}

fn header(reading: &mut Reader<'_>, entry: &MapEntry) -> Option<String> {
    if HeaderName::from_bytes(entry.key.as_bytes()).is_err() {
        reading.complain_of_key(entry, format!("`{}` is no header's name", entry.key), "letters, digits and -");
        return None;
    }
    let raw = reading.text(&entry.value)?;
    let value = reading.expand(&entry.value, raw)?;
    if HeaderValue::from_str(&value).is_err() {
        reading.complain(&entry.value, "has a character that no header may have", "one line of ASCII text");
        return None;
    }
    Some(value)
}

fn unix_socket_path(reading: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let path = reading.path(node)?;
    if path.as_os_str().len() > SOCKET_PATH {
        reading.complain(node, "is too long for a socket", format!("at most {SOCKET_PATH} bytes, the folder included"));
        return None;
    }
    Some(path)
}

fn statuses(reading: &mut Reader<'_>, node: &Node) -> Vec<RangeInclusive<u16>> {
    match &node.value {
        Value::List(_) => {
            let items = reading.list(node, "a code, a range, or a list of them").unwrap_or_default();
            items.iter().filter_map(|item| reading.statuses(item)).collect()
        }
        _ => reading.statuses(node).into_iter().collect(),
    }
}

fn wanted_json(reading: &mut Reader<'_>, node: &Node) -> Vec<(String, serde_json::Value)> {
    const ADVICE: &str = "such as {/status: ok}";
    let entries = reading.map(node, ADVICE).unwrap_or_default();
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        reading.complain(node, "is empty", ADVICE);
    }
    for entry in entries {
        if !entry.key.is_empty() && !entry.key.starts_with('/') {
            let message = format!("`{}` is no JSON pointer", entry.key);
            reading.complain_of_key(entry, message, format!("it begins with a slash: /{}", entry.key));
        }
    }
    entries.iter().map(|entry| (entry.key.clone(), json(reading, &entry.value))).collect()
}

fn json(reading: &mut Reader<'_>, node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => number.clone().into(),
        Value::Text(text) => text.clone().into(),
        Value::List(items) => items.iter().map(|item| json(reading, item)).collect(),
        Value::Map(_) => {
            let entries = reading.map(node, "").unwrap_or_default();
            entries.iter().map(|entry| (entry.key.clone(), json(reading, &entry.value))).collect()
        }
    }
}

fn tls(reading: &mut Reader<'_>, node: &Node) -> Option<Tls> {
    match reading.text(node)? {
        "verify" => Some(Tls::Verify),
        "insecure" => Some(Tls::Insecure),
        // A misspelt word must not become the name of a file that does not exist.
        text if !text.contains(['/', '.']) => {
            reading.complain(node, "is neither verify nor insecure nor a path", "write a file beside as ./file");
            None
        }
        _ => reading.path(node).map(Tls::Ca),
    }
}

fn tcp(reading: &mut Reader<'_>, node: &Node) -> Option<Probe> {
    const ADVICE: &str = "write host:port, such as localhost:5432 or [::1]:5432";
    if let Value::Number(port) = &node.value {
        reading.complain(node, "names no host", format!("write localhost:{port}"));
        return None;
    }
    let text = reading.text(node)?;
    let Some((host, port)) = text.rsplit_once(':') else {
        reading.complain(node, "names no port", ADVICE);
        return None;
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let good = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(in_name),
    };
    if !good {
        reading.complain(node, "has no valid host", ADVICE);
        return None;
    }
    let number = port.parse::<u16>().ok().filter(|number| *number != 0 && port.bytes().all(|b| b.is_ascii_digit()));
    let Some(port) = number else {
        reading.complain(node, "has no valid port", "from 1 to 65535");
        return None;
    };
    Some(Probe::Tcp { host: bracketed.unwrap_or(host).to_owned(), port })
}

fn file(reading: &mut Reader<'_>, node: &Node) -> Option<Probe> {
    if !reading.has_only(node, &FILE) {
        return None;
    }
    let mut wanted = |key: &str| {
        let found = node.get(key);
        if found.is_none() {
            reading.complain_of_missing(node, format!("has no `{key}`"), "such as {path: run/heartbeat, max_age: 2m}");
        }
        found
    };
    let (path, max_age) = (wanted("path"), wanted("max_age"));
    let path = path.and_then(|node| reading.path(node));
    let max_age = max_age.and_then(|node| reading.span(node, &AGE));
    Some(Probe::File { path: path?, max_age: max_age? })
}

/// Tells one probe from another. It is kept on disk and so must stay the same from one version to the next, which
/// std's hasher does not promise. Headers, user and password are no part of it, so that none can be guessed from it.
pub(super) fn probe_id(probe: &Probe) -> u64 {
    let mut parts = Vec::new();
    match probe {
        Probe::Http(http) => {
            parts.extend(["http".to_owned(), http.shown.clone(), format!("{:?}", http.method)]);
            parts.extend(http.unix_socket.iter().map(|path| format!("unix {}", path.display())));
            parts.extend(http.status.iter().map(|range| format!("status {}-{}", range.start(), range.end())));
            parts.extend(http.contains.iter().map(|text| format!("contains {text}")));
            parts.extend(http.json.iter().map(|(pointer, value)| format!("json {pointer} {value}")));
            parts.push(match &http.tls {
                Tls::Verify => "verify".to_owned(),
                Tls::Insecure => "insecure".to_owned(),
                Tls::Ca(path) => format!("ca {}", path.display()),
            });
        }
        Probe::Tcp { host, port } => parts.extend(["tcp".to_owned(), host.clone(), port.to_string()]),
        Probe::Command(CommandLine::Shell(text)) => parts.extend(["shell".to_owned(), text.clone()]),
        Probe::Command(CommandLine::Exec(words)) => {
            parts.push("exec".to_owned());
            parts.extend_from_slice(words);
        }
        Probe::File { path, max_age } => {
            parts.extend(["file".to_owned(), path.display().to_string(), max_age.as_millis().to_string()]);
        }
        Probe::Pm2(Pm2Config { process, home, .. }) => {
            parts.extend(["pm2".to_owned(), home.display().to_string(), process.clone()]);
        }
    }
    // FNV-1a with 64 bits, each part ended by a byte that no text has.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
