//! Reads a target's `unit`, and the restart command that follows from it.
//! It must never accept a name that systemctl would take for several units or for an option.

use std::time::Duration;

use super::reader::{Keys, Reader};
use super::target::{CommandLine, Remedy, Rung, UnitConfig};
use super::tree::{Node, Value};

pub(super) const UNIT: Keys = Keys { known: &[&["name", "user"]], per_target: &[], elsewhere: &[] };
const SERVICE: &str = ".service";
const OTHER_TYPES: [&str; 10] =
    ["socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "scope", "device"];
/// systemd's limit.
const MAX_NAME: usize = 255;
/// systemd gives a frozen service 90 s (TimeoutStopSec=) before it kills it, and `systemctl restart` waits for that.
const RESTART_TIMEOUT: Duration = Duration::from_secs(150);

pub(super) fn read_unit(reader: &mut Reader<'_>, target: &Node) -> Option<UnitConfig> {
    let node = target.get("unit")?;
    let Value::Map(_) = &node.value else {
        return Some(UnitConfig { name: read_name(reader, node)?, is_user: false });
    };
    if !reader.has_only(node, &UNIT) {
        return None;
    }
    let is_user = node.get("user").map_or(Some(false), |node| reader.boolean(node));
    let Some(name) = node.get("name") else {
        reader.reject_missing_key(node, "has no `name`", "for example {name: worker.service, user: true}");
        return None;
    };
    Some(UnitConfig { name: read_name(reader, name)?, is_user: is_user? })
}

fn read_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    match parse_name(reader.text(node)?) {
        Ok(name) => Some(name),
        Err((what, advice)) => {
            reader.reject(node, what, advice);
            None
        }
    }
}

/// The whole name: like systemctl, it takes a name without a type for a service.
fn parse_name(text: &str) -> Result<String, (String, &'static str)> {
    let advice = "write it as `systemctl list-units` shows it, for example api.service";
    if let Some(kind) = text.rsplit_once('.').map(|(_, kind)| kind).filter(|kind| OTHER_TYPES.contains(kind)) {
        return Err((format!("is a {kind}, not a service"), "name the service that it belongs to"));
    }
    let name = text.strip_suffix(SERVICE).unwrap_or(text);
    let is_valid = |char: char| char.is_ascii_alphanumeric() || r":-_.\@".contains(char);
    match () {
        () if !name.chars().all(is_valid) => {
            Err(("has a character that no unit's name has".into(), "letters, digits and : - _ . \\ @"))
        }
        () if name.is_empty() || name.starts_with(['-', '@', '.']) => {
            Err(("is not the name of a service".into(), advice))
        }
        () if name.ends_with('@') => {
            Err(("is a template".into(), "name one instance of it, for example api@1.service"))
        }
        () if name.len() + SERVICE.len() > MAX_NAME => {
            Err((format!("has {} characters", name.len()), "a unit's name has at most 255"))
        }
        () => Ok(format!("{name}{SERVICE}")),
    }
}

pub(super) fn default_ladder(unit: &UnitConfig) -> Vec<Rung> {
    let manager = unit.is_user.then_some("--user");
    let words = ["systemctl"].into_iter().chain(manager).chain(["restart", unit.name.as_str()]);
    let command = CommandLine::Exec(words.map(str::to_owned).collect());
    vec![Rung { remedy: Remedy::Command(command), timeout: RESTART_TIMEOUT }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_one_service() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, &str>) {
            let read = parse_name(text).map_err(|(what, _)| what);
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text}");
        }
        check("api.service", Ok("api.service"));
        check("api", Ok("api.service"));
        check("api.v2", Ok("api.v2.service"));
        check("api@1", Ok("api@1.service"));
        check(r"a-b_c:d\x2de@f.g.service", Ok(r"a-b_c:d\x2de@f.g.service"));
        check(&"a".repeat(247), Ok(&format!("{}.service", "a".repeat(247))));
        check(&"a".repeat(248), Err("has 248 characters"));
        check("api.timer", Err("is a timer, not a service"));
        check("api@.service", Err("is a template"));
        check("api@", Err("is a template"));
        let invalid = "has a character that no unit's name has";
        for text in ["a*", "a b", "a/b.service", "ä", "a\nb", "a;b", "$(b)", "[ab]"] {
            check(text, Err(invalid));
        }
        for text in ["--help", "-", ".service", "", "@1.service", "."] {
            check(text, Err("is not the name of a service"));
        }
    }
}
