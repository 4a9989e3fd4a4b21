//! README and watchdog.yaml match the program: their examples are accepted, and every key is in both.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::sandbox::Sandbox;

pub(crate) fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("readable")
}

/// README's code blocks in this language.
pub(crate) fn blocks(language: &str) -> Vec<String> {
    let readme = document("README.md");
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap_or_default().to_owned() + "\n").collect()
}

#[test]
fn every_configuration_in_readme_is_accepted() {
    let blocks = blocks("yaml");
    assert!(blocks.len() >= 5, "only {} found", blocks.len());
    for block in blocks {
        let sandbox = Sandbox::new("");
        sandbox.write("watchdog.yaml", &block);
        sandbox.write("watchdog.env", "HEALTH_TOKEN=x\n");
        let private = Permissions::from_mode(0o600);
        fs::set_permissions(sandbox.path("watchdog.env"), private).expect("the test owns the file");
        let output = sandbox.run(&["check", "--offline"]);
        assert!(output.out.contains(" is valid. ") && output.code != Some(2), "{block}\n{output:?}");
    }
}

/// All keys that the program knows, taken from its errors about unknown keys.
pub(crate) fn keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let top = "zzz: 1\ntargets: [{name: a, tcp: 'localhost:1'}]\n";
    let rest = "log: {zzz: 1}\nnotify: [{webhook: 'http://h', zzz: 1}, {email: a@b, zzz: 1}, {command: x, zzz: 1}]\n\
                page: {zzz: 1}\ndefaults: {zzz: 1}\ntargets:\n  - {name: a, http: {zzz: 1}, restart: [{zzz: 1}]}\n  \
                - {name: b, file: {zzz: 1}}\n  - {name: c, zzz: 1}\n  - {name: d, pm2: {zzz: 1}}\n  \
                - {name: e, unit: {zzz: 1}}\n";
    for (text, errors) in [(top, 1), (rest, 12)] {
        let sandbox = Sandbox::new("");
        sandbox.write("watchdog.yaml", text);
        let output = sandbox.run(&["check", "--offline"]);
        let lists: Vec<&str> = output.err.split("allowed here: ").skip(1).collect();
        assert_eq!((output.code, lists.len()), (Some(2), errors), "{output:?}");
        for list in lists {
            let list = list.split(['\n', '(']).next().unwrap_or_default();
            keys.extend(list.split(", ").map(|key| key.trim().to_owned()));
        }
    }
    assert!(keys.len() > 35, "{keys:?}");
    keys
}

#[test]
fn every_key_is_in_readme_and_in_the_shipped_configuration() {
    let everything = blocks("yaml").into_iter().find(|block| block.contains("name: everything"));
    let everything = everything.expect("the block of README with every key");
    for (name, text) in [("README.md", everything), ("watchdog.yaml", document("watchdog.yaml"))] {
        let text = format!("\n{text}");
        for key in keys() {
            let forms = [format!("\n{key}:"), format!(" {key}:"), format!("{{{key}:")];
            assert!(forms.iter().any(|form| text.contains(form)), "{name} lacks {key}");
        }
    }
}

#[test]
fn readme_names_the_files_of_this_version() {
    let readme = document("README.md");
    let version = env!("CARGO_PKG_VERSION");
    let names = ["-VERSION-x86_64-linux.tar.gz", "-VERSION.tgz", "_VERSION-1_amd64.deb", "-VERSION-x86_64-linux-musl"];
    for name in names {
        let name = format!("watchdog-agent{}", name.replace("VERSION", version));
        assert!(readme.contains(&format!("| `{name}` (")), "no {name}");
    }
    let others = readme.split("watchdog-agent-").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let other = others.into_iter().find(|rest| !rest.starts_with(version));
    assert!(other.is_none(), "another version: {other:.60?}");
}

#[test]
fn readme_lists_the_changes_of_this_version() {
    let readme = document("README.md");
    let (_, changes) = readme.rsplit_once("\n## ").expect("sections");
    assert!(changes.starts_with("Changes\n"), "the last section is {changes}");
    let version = format!("\n### {}\n", env!("CARGO_PKG_VERSION"));
    assert!(changes.contains(&version), "no {version}");
}

#[test]
fn every_link_in_readme_has_a_target() {
    let readme = document("README.md");
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let is_there = match link.strip_prefix('#') {
            Some(anchor) => readme
                .lines()
                .filter_map(|line| line.strip_prefix("## "))
                .any(|title| title.to_lowercase().replace(' ', "-") == anchor),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(),
        };
        assert!(is_there, "{link}");
    }
}

#[test]
fn the_first_commands_in_readme_are_tested() {
    let readme = document("README.md");
    let screen = readme.split("```\n").nth(1).expect("the first screen");
    let commands: Vec<&str> = screen.lines().filter_map(|line| line.strip_prefix("$ ")?.split("  ").next()).collect();
    assert_eq!(commands, ["cargo run --release -- demo", "sh tests/run"]);
    assert!(document(".ci/run").lines().any(|line| line == "step sh tests/run"));
}
