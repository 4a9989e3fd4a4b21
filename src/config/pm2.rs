//! Reads a target's `pm2`, and the rungs `{pm2: restart}` and `{pm2: reset}`.
//! It must never accept a name that a pm2 command would apply to another process.

use std::path::{Path, PathBuf};

use super::key_path::process_of;
use super::other_tools;
use super::reader::{Keys, Reader};
use super::target::{Pm2Config, Remedy};
use super::tree::{Node, Value};

pub(super) const PM2: Keys =
    Keys { known: &[&["process", "home", "config", "env", "reset"]], per_target: &[], elsewhere: other_tools::PM2 };
/// The length of what PM2 appends to its home: `/rpc.sock` or `/pub.sock`.
const SOCKET_NAME: usize = "/rpc.sock".len();
/// The longest path of a socket on Linux. With a longer one, every pm2 command hangs forever.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn read_pm2(reader: &mut Reader<'_>, target: &Node) -> Option<Pm2Config> {
    let node = target.get("pm2")?;
    if matches!(node.value, Value::Map(_)) && !reader.has_only(node, &PM2) {
        return None;
    }
    let Some(process) = process_of(target) else {
        reader.reject_missing_key(node, "has no `process`", "the name that `pm2 list` shows");
        return None;
    };
    let home = match node.get("home") {
        Some(node) => read_home(reader, node),
        None => default_home(reader, node),
    };
    let config = node.get("config");
    let pm2 = Pm2Config {
        process: read_process_name(reader, process, config.is_some())?,
        home: home?,
        config: config.and_then(|node| reader.path(node)),
        env: node.get("env").and_then(|node| read_env(reader, node)),
        reset: node.get("reset").and_then(|node| reader.boolean(node)).unwrap_or(false),
    };
    Some(pm2)
}

/// The name of an env block in the ecosystem file, where it is the key `env_NAME`.
fn read_env(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        reader.reject(node, "is not the name of an env block", "for env_production, write production");
        return None;
    }
    Some(name.strip_prefix("env_").unwrap_or(name).to_owned())
}

/// A name that means this process to pm2 and nothing else.
fn read_process_name(reader: &mut Reader<'_>, node: &Node, has_config: bool) -> Option<String> {
    let name = reader.text(node)?;
    if let Some((what, advice)) = process_name_problem(name, has_config) {
        reader.reject(node, what, advice);
        return None;
    }
    Some(name.to_owned())
}

/// Why pm2 commands cannot use `name` for exactly one process, and the advice. `has_config`: `config` is set too.
pub fn process_name_problem(name: &str, has_config: bool) -> Option<(&'static str, &'static str)> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let is_pattern = name.len() > 1 && name.starts_with('/') && name.ends_with('/');
    match name {
        _ if name.starts_with('-') => Some(("starts with -, so pm2 reads it as an option", "rename it in PM2")),
        _ if name.contains(|c: char| c.is_control() || c == '/') && !is_pattern => {
            Some(("contains a character that pm2 cannot find a process by", "rename it in PM2"))
        }
        "all" => Some(("means every process in a pm2 command", "rename it in PM2")),
        _ if is_pattern => Some(("is read by pm2 as a pattern", "name one process, as `pm2 list` shows it")),
        _ if is_number && !has_config => {
            Some(("is read by pm2 as an id, and ids change", "set `config` to the ecosystem file, or rename it in PM2"))
        }
        _ if has_config && name.contains([',', ' ']) => Some((
            "contains a comma or a space, so `pm2 restart FILE --only` would not find it",
            "rename it, or remove `config`",
        )),
        _ => None,
    }
}

/// The longest allowed home, if this one is longer: its socket would make every pm2 command hang forever.
pub fn home_is_too_long(home: &Path) -> Option<usize> {
    let most = MAX_SOCKET_PATH - SOCKET_NAME;
    (home.as_os_str().len() > most).then_some(most)
}

fn read_home(reader: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let path = reader.path(node)?;
    if let Some(most) = home_is_too_long(&path) {
        reader.reject(node, "is too long for PM2's socket in it", format!("at most {most} bytes"));
        return None;
    }
    Some(path)
}

fn default_home(reader: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let home = reader.home.as_ref().map(|home| home.join(".pm2"));
    if home.is_none() {
        reader.reject(
            node,
            "has no `home`: the default is ~/.pm2, but $HOME is not set",
            "write {process: …, home: /…/.pm2}",
        );
    }
    home
}

pub(super) fn default_ladder(pm2: &Pm2Config) -> Vec<Remedy> {
    let reset = pm2.reset.then(|| Remedy::Pm2Reset(pm2.clone()));
    [Remedy::Pm2Restart(pm2.clone())].into_iter().chain(reset).collect()
}

/// The rung `{pm2: …}`. `pm2` is that of the target.
pub(super) fn read_remedy(reader: &mut Reader<'_>, node: &Node, pm2: Option<&Pm2Config>) -> Option<Remedy> {
    let reset = reader.choice(node, &[("restart", false), ("reset", true)])?;
    let Some(pm2) = pm2 else {
        reader.reject(node, "needs the process in PM2", "add `pm2: NAME` to the target");
        return None;
    };
    Some(if reset { Remedy::Pm2Reset(pm2.clone()) } else { Remedy::Pm2Restart(pm2.clone()) })
}

pub(super) fn check_single_reset(reader: &mut Reader<'_>, node: &Node, ladder: &[Remedy]) {
    if ladder.iter().filter(|remedy| matches!(remedy, Remedy::Pm2Reset(_))).count() > 1 {
        reader.reject(node, "resets PM2 twice", "a reset runs at most once an hour, so the second one would never run");
    }
}
