//! Reads the probe of a target: `http`, `tcp`, `command` or `file`.
//! It must never connect, resolve a name or open the file that is to be probed.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue};

use super::other_tools;
use super::reader::{Keys, Reader};
use super::target::{CommandLine, HttpConfig, Method, Pm2Config, Probe, Secret, Tls};
use super::tree::{MapEntry, Node, Value};
use super::url;

pub(super) const PROBES: [&str; 4] = ["http", "tcp", "command", "file"];
pub(super) const HTTP: Keys = Keys {
    known: &[&["url", "unix_socket", "method", "headers", "status", "contains", "json", "tls"]],
    per_target: &[],
    elsewhere: other_tools::HTTP,
};
pub(super) const FILE: Keys = Keys { known: &[&["path", "max_age"]], per_target: &[], elsewhere: other_tools::FILE };
/// The range of `max_age`: up to a year, because some files are written by a monthly job.
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
/// Of one target. Enough for the instances of a backend on one machine; while all of them hang, each has a thread.
const MAX_ADDRESSES: usize = 16;
/// The longest path that fits into a socket's address on every system, its final zero byte included.
const MAX_SOCKET_PATH: usize = 103;

/// The one probe of a target: `pm2`, if there is no other.
pub(super) fn read_probe(reader: &mut Reader<'_>, target: &Node, pm2: Option<&Pm2Config>) -> Option<Probe> {
    let Value::Map(entries) = &target.value else { return None };
    let mut found = entries.iter().filter(|entry| PROBES.contains(&entry.key.as_str()));
    let Some(first) = found.next() else {
        if target.get("pm2").is_none() {
            reader.reject_missing_key(target, "has no probe", format!("add one of: {}, pm2", PROBES.join(", ")));
        }
        return pm2.cloned().map(Probe::Pm2);
    };
    if let Some(second) = found.find(|entry| entry.key != first.key) {
        let message = format!("`{}` is a second probe next to `{}`", second.key, first.key);
        reader.reject_key(second, message, "a target has one probe; split it into two targets");
    }
    let node = &first.value;
    match first.key.as_str() {
        "http" => read_addresses(reader, node).map(Probe::Http),
        "tcp" => read_tcp(reader, node),
        "command" => reader.command(node).map(Probe::Command),
        _ => read_file(reader, node),
    }
}

/// One address or a list of them.
fn read_addresses(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<HttpConfig>> {
    let Value::List(_) = &node.value else { return read_http(reader, node).map(|http| vec![http]) };
    let items = reader.list(node, "a URL, or a list of URLs that must all be healthy")?;
    if items.len() > MAX_ADDRESSES {
        let advice = format!("at most {MAX_ADDRESSES}; the others can be targets of their own");
        reader.reject(node, format!("has {} addresses", items.len()), advice);
        return None;
    }
    let addresses: Vec<Option<HttpConfig>> = items.iter().map(|item| read_item(reader, item)).collect();
    for (index, item) in items.iter().enumerate() {
        let is_same = |other: &Option<HttpConfig>| other.is_some() && *other == addresses[index];
        if let Some(first) = addresses[..index].iter().position(is_same) {
            // Probably copied, and the port or the path left as it was.
            reader.reject(item, format!("is the same as http[{first}]"), "correct it, or remove one of the two");
        }
    }
    addresses.into_iter().collect()
}

fn read_item(reader: &mut Reader<'_>, node: &Node) -> Option<HttpConfig> {
    match &node.value {
        Value::Text(_) | Value::Map(_) => read_http(reader, node),
        _ => {
            reader.reject(node, format!("must be a URL, not {}", node.kind()), "a URL, or a map with it: {url: …}");
            None
        }
    }
}

fn read_http(reader: &mut Reader<'_>, node: &Node) -> Option<HttpConfig> {
    if node.as_text().is_none() && !reader.has_only(node, &HTTP) {
        return None;
    }
    let Some(url) = node.as_text().map(|_| node).or_else(|| node.get("url")) else {
        reader.reject_missing_key(node, "has no `url`", "for example url: http://localhost:5000/api/health");
        return None;
    };
    if let Value::List(_) = url.value {
        reader.reject(url, "is a list", "the list belongs one level up: http: [{url: …}, {url: …}]");
        return None;
    }
    let address = read_address(reader, url);
    for secret in address.iter().flat_map(|address| url::secrets_of_query(&address.url)) {
        reader.secrets.add(&secret);
    }
    let mut headers = node.get("headers").map(|node| read_headers(reader, node)).unwrap_or_default();
    if let Some(authorization) = address.as_ref().and_then(|address| address.authorization.clone()) {
        if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            reader.reject(url, "has a user, but the header `Authorization` is set too", "remove one of them");
        }
        headers.push(("Authorization".into(), Secret(authorization)));
    }
    let words = [("GET", Method::Get), ("HEAD", Method::Head)];
    let method = node.get("method").and_then(|node| reader.choice(node, &words)).unwrap_or(Method::Get);
    for (key, body) in ["contains", "json"].into_iter().filter_map(|key| Some((key, node.get(key)?))) {
        if method == Method::Head {
            reader.reject(body, "checks the body, but a HEAD request gets none", format!("remove `{key}` or `method`"));
        }
    }
    let (unix_socket, contains) = (node.get("unix_socket"), node.get("contains"));
    let http = HttpConfig {
        unix_socket: unix_socket.and_then(|node| read_unix_socket_path(reader, node)),
        method,
        headers,
        status: node.get("status").map_or_else(|| vec![200..=299], |node| read_statuses(reader, node)),
        contains: contains.and_then(|node| reader.text(node)).map(str::to_owned),
        json: node.get("json").map(|node| read_expected_json(reader, node)).unwrap_or_default(),
        tls: node.get("tls").and_then(|node| read_tls(reader, node)).unwrap_or(Tls::Verify),
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

pub(super) fn read_address(reader: &mut Reader<'_>, node: &Node) -> Option<Address> {
    let raw = reader.text(node)?.trim();
    let (shown, userinfo) = url::split_userinfo(raw);
    let expanded = reader.expand(node, &shown)?;
    // A user in the text is split off before variables are replaced, so that a password from a variable may contain
    // any character. A user that is part of a variable's value is percent-encoded, like the rest of that URL.
    let (url, userinfo) = match userinfo {
        Some(userinfo) => {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            let mut part = |part: &str| reader.expand(node, &url::percent_decode(part, "$$"));
            (expanded, Some((part(user)?, part(password)?)))
        }
        None => {
            let (url, userinfo) = url::split_userinfo(&expanded);
            let userinfo = userinfo.map(|userinfo| userinfo.split_once(':').unwrap_or((userinfo, "")));
            (url, userinfo.map(|(user, word)| (url::percent_decode(user, "$"), url::percent_decode(word, "$"))))
        }
    };
    if let Some((what, advice)) = url::find_problem(&url) {
        reader.reject(node, what, advice);
        return None;
    }
    let authorization = userinfo.map(|(user, password)| {
        let basic = url::basic(&user, &password);
        reader.secrets.add(&password);
        reader.secrets.add(basic.trim_start_matches("Basic "));
        basic
    });
    Some(Address { url, shown, authorization })
}

fn read_headers(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, Secret)> {
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for entry in reader.map(node, "for example {X-Probe: watchdog}").unwrap_or_default() {
        if let Some(value) = read_header(reader, entry) {
            let same = |(name, _): &&(String, Secret)| *name != entry.key && name.eq_ignore_ascii_case(&entry.key);
            if let Some((name, _)) = headers.iter().find(same) {
                let message = format!("`{}` and `{name}` are the same header", entry.key);
                reader.reject_key(entry, message, "remove one of the two");
            }
            headers.push((entry.key.clone(), Secret(value)));
        }
    }
    headers
}

fn read_header(reader: &mut Reader<'_>, entry: &MapEntry) -> Option<String> {
    if HeaderName::from_bytes(entry.key.as_bytes()).is_err() {
        reader.reject_key(entry, format!("`{}` is not a header name", entry.key), "letters, digits and -");
        return None;
    }
    let raw = reader.text(&entry.value)?;
    let value = reader.expand(&entry.value, raw)?;
    if HeaderValue::from_str(&value).is_err() {
        reader.reject(&entry.value, "contains a character that a header cannot have", "use one line of ASCII text");
        return None;
    }
    Some(value)
}

fn read_unix_socket_path(reader: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let path = reader.path(node)?;
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        reader.reject(
            node,
            "is too long for a socket",
            format!("at most {MAX_SOCKET_PATH} bytes, including the folder"),
        );
        return None;
    }
    Some(path)
}

fn read_statuses(reader: &mut Reader<'_>, node: &Node) -> Vec<RangeInclusive<u16>> {
    match &node.value {
        Value::List(_) => {
            let items = reader.list(node, "a code, a range, or a list of them").unwrap_or_default();
            items.iter().filter_map(|item| reader.status_range(item)).collect()
        }
        _ => reader.status_range(node).into_iter().collect(),
    }
}

fn read_expected_json(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, serde_json::Value)> {
    const ADVICE: &str = "for example {/status: ok}";
    let entries = reader.map(node, ADVICE).unwrap_or_default();
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        reader.reject(node, "is empty", ADVICE);
    }
    for entry in entries {
        if !entry.key.is_empty() && !entry.key.starts_with('/') {
            let message = format!("`{}` is not a JSON pointer", entry.key);
            reader.reject_key(entry, message, format!("it starts with a slash: /{}", entry.key));
        }
    }
    entries.iter().map(|entry| (entry.key.clone(), to_json(reader, &entry.value))).collect()
}

fn to_json(reader: &mut Reader<'_>, node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => number.clone().into(),
        Value::Text(text) => text.clone().into(),
        Value::List(items) => items.iter().map(|item| to_json(reader, item)).collect(),
        Value::Map(_) => {
            let entries = reader.map(node, "").unwrap_or_default();
            entries.iter().map(|entry| (entry.key.clone(), to_json(reader, &entry.value))).collect()
        }
    }
}

fn read_tls(reader: &mut Reader<'_>, node: &Node) -> Option<Tls> {
    match reader.text(node)? {
        "verify" => Some(Tls::Verify),
        "insecure" => Some(Tls::Insecure),
        // A misspelt word must not become the name of a file that does not exist.
        text if !text.contains(['/', '.']) => {
            reader.reject(
                node,
                "is neither verify nor insecure nor a path",
                "for a file in the same folder, write ./NAME",
            );
            None
        }
        _ => reader.path(node).map(Tls::Ca),
    }
}

fn read_tcp(reader: &mut Reader<'_>, node: &Node) -> Option<Probe> {
    const ADVICE: &str = "write host:port, for example localhost:5432 or [::1]:5432";
    if let Value::Number(port) = &node.value {
        reader.reject(node, "has no host", format!("write localhost:{port}"));
        return None;
    }
    let text = reader.text(node)?;
    let Some((host, port)) = text.rsplit_once(':') else {
        reader.reject(node, "has no port", ADVICE);
        return None;
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let is_valid = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(in_name),
    };
    if !is_valid {
        reader.reject(node, "has no valid host", ADVICE);
        return None;
    }
    let number = port.parse::<u16>().ok().filter(|number| *number != 0 && port.bytes().all(|b| b.is_ascii_digit()));
    let Some(port) = number else {
        reader.reject(node, "has no valid port", "from 1 to 65535");
        return None;
    };
    Some(Probe::Tcp { host: bracketed.unwrap_or(host).to_owned(), port })
}

fn read_file(reader: &mut Reader<'_>, node: &Node) -> Option<Probe> {
    if !reader.has_only(node, &FILE) {
        return None;
    }
    let mut require = |key: &str| {
        let found = node.get(key);
        if found.is_none() {
            reader.reject_missing_key(
                node,
                format!("has no `{key}`"),
                "for example {path: run/heartbeat, max_age: 2m}",
            );
        }
        found
    };
    let (path, max_age) = (require("path"), require("max_age"));
    let path = path.and_then(|node| reader.path(node));
    let max_age = max_age.and_then(|node| reader.duration(node, &MAX_AGE));
    Some(Probe::File { path: path?, max_age: max_age? })
}

/// Identifies a probe. The id is stored on disk, so it must stay the same in all versions, which std's hasher does not
/// promise. Headers, user and password are not part of it, so that nobody can guess them from it.
pub(super) fn probe_id(probe: &Probe) -> u64 {
    let mut parts = Vec::new();
    match probe {
        Probe::Http(addresses) => {
            // Sorted, because the same addresses in another order are healthy when these are.
            let mut each: Vec<Vec<String>> = addresses.iter().map(address_parts).collect();
            each.sort_unstable();
            parts = each.concat();
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
    // FNV-1a with 64 bits; each part is ended by a byte that cannot occur in UTF-8.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn address_parts(http: &HttpConfig) -> Vec<String> {
    let mut parts = vec!["http".to_owned(), http.shown.clone(), format!("{:?}", http.method)];
    parts.extend(http.unix_socket.iter().map(|path| format!("unix {}", path.display())));
    parts.extend(http.status.iter().map(|range| format!("status {}-{}", range.start(), range.end())));
    parts.extend(http.contains.iter().map(|text| format!("contains {text}")));
    parts.extend(http.json.iter().map(|(pointer, value)| format!("json {pointer} {value}")));
    parts.push(match &http.tls {
        Tls::Verify => "verify".to_owned(),
        Tls::Insecure => "insecure".to_owned(),
        Tls::Ca(path) => format!("ca {}", path.display()),
    });
    parts
}
