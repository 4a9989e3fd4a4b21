//! PM2 beside a target: reading `pm2`, and the rungs `{pm2: restart}` and `{pm2: reset}`.

use std::path::{Path, PathBuf};

use super::key_path::process_of;
use super::reader::{Keys, Reader};
use super::target::{Pm2Config, Remedy};
use super::tree::{Node, Value};

pub(super) const PM2: Keys = Keys { known: &[&["process", "home", "config", "env", "reset"]], elsewhere: &[] };
/// What PM2 itself puts behind its home: `/rpc.sock` and `/pub.sock`.
const SOCKET: usize = "/rpc.sock".len();
/// The longest path of a socket on Linux. With a longer one every pm2 command hangs for ever.
const SOCKET_PATH: usize = 107;

pub(super) fn pm2(reading: &mut Reader<'_>, target: &Node) -> Option<Pm2Config> {
    let node = target.get("pm2")?;
    if matches!(node.value, Value::Map(_)) && !reading.has_only(node, &PM2) {
        return None;
    }
    let Some(process) = process_of(target) else {
        reading.complain_of_missing(node, "has no `process`", "the name that `pm2 list` shows");
        return None;
    };
    let home = match node.get("home") {
        Some(node) => home(reading, node),
        None => default_home(reading, node),
    };
    let config = node.get("config");
    let pm2 = Pm2Config {
        process: process_name(reading, process, config.is_some())?,
        home: home?,
        config: config.and_then(|node| reading.path(node)),
        env: node.get("env").and_then(|node| env(reading, node)),
        reset: node.get("reset").and_then(|node| reading.flag(node)).unwrap_or(false),
    };
    Some(pm2)
}

/// The name of a block of variables in the ecosystem file: `env_NAME` there.
fn env(reading: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reading.text(node)?;
    if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        reading.complain(node, "is no name of a block of variables", "for env_production: `production`");
        return None;
    }
    Some(name.strip_prefix("env_").unwrap_or(name).to_owned())
}

/// A name that pm2 takes for this process and nothing else.
fn process_name(reading: &mut Reader<'_>, node: &Node, has_config: bool) -> Option<String> {
    let name = reading.text(node)?;
    if let Some((what, advice)) = objection(name, has_config) {
        reading.complain(node, what, advice);
        return None;
    }
    Some(name.to_owned())
}

/// Why pm2 would take it for something else too, and what helps. `has_config`: an ecosystem file is named beside it.
pub fn objection(name: &str, has_config: bool) -> Option<(&'static str, &'static str)> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let is_pattern = name.len() > 1 && name.starts_with('/') && name.ends_with('/');
    match name {
        _ if name.starts_with('-') => Some(("begins with -, so pm2 would take it for an option", "rename it in PM2")),
        _ if name.contains(|c: char| c.is_control() || c == '/') && !is_pattern => {
            Some(("has a character that no process of PM2 can be asked for by", "rename it in PM2"))
        }
        "all" => Some(("means every process to pm2", "rename it in PM2")),
        _ if is_pattern => Some(("is a pattern to pm2", "name one process, as `pm2 list` shows it")),
        _ if is_number && !has_config => {
            Some(("is an id to pm2, which changes", "name the ecosystem file with `config`, or rename it in PM2"))
        }
        _ if has_config && name.contains([',', ' ']) => Some((
            "has a comma or a space, so `pm2 restart FILE --only` would not find it",
            "rename it, or leave out `config`",
        )),
        _ => None,
    }
}

/// The longest path of a home, if this one is longer: with its socket in it every pm2 command would hang for ever.
pub fn home_is_too_long(home: &Path) -> Option<usize> {
    let most = SOCKET_PATH - SOCKET;
    (home.as_os_str().len() > most).then_some(most)
}

fn home(reading: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let path = reading.path(node)?;
    if let Some(most) = home_is_too_long(&path) {
        reading.complain(node, "is too long: PM2 has its socket in it", format!("at most {most} bytes in all"));
        return None;
    }
    Some(path)
}

fn default_home(reading: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let home = reading.home.as_ref().map(|home| home.join(".pm2"));
    if home.is_none() {
        reading.complain(node, "is in ~/.pm2, but $HOME is not set", "write {process: …, home: /…/.pm2}");
    }
    home
}

pub(super) fn ladder(pm2: &Pm2Config) -> Vec<Remedy> {
    let reset = pm2.reset.then(|| Remedy::Pm2Reset(pm2.clone()));
    [Remedy::Pm2Restart(pm2.clone())].into_iter().chain(reset).collect()
}

/// What `{pm2: …}` stands for in a ladder; `pm2` is the target's.
pub(super) fn remedy(reading: &mut Reader<'_>, node: &Node, pm2: Option<&Pm2Config>) -> Option<Remedy> {
    let reset = reading.word(node, &[("restart", false), ("reset", true)])?;
    let Some(pm2) = pm2 else {
        reading.complain(node, "needs to know the process", "write `pm2: NAME` on the target, beside its probe");
        return None;
    };
    Some(if reset { Remedy::Pm2Reset(pm2.clone()) } else { Remedy::Pm2Restart(pm2.clone()) })
}

/// A second one would never have its turn: it is made at most once an hour.
pub(super) fn resets_once(reading: &mut Reader<'_>, node: &Node, ladder: &[Remedy]) {
    if ladder.iter().filter(|remedy| matches!(remedy, Remedy::Pm2Reset(_))).count() > 1 {
        reading.complain(node, "resets PM2 twice", "once is enough: it is made at most once an hour");
    }
}
