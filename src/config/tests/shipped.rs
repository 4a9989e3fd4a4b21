//! The shipped watchdog.yaml: a valid configuration whose comments show the true defaults.

use super::*;
use crate::config::{file, notify, pm2, probes, systemd_unit, targets};

const SHIPPED: &str = include_str!("../../../watchdog.yaml");

/// The text after `mark`, if the line is a known key that `mark` comments out.
fn commented<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let key = line.trim_start().strip_prefix(mark)?;
    let word = key.split(':').next()?;
    let lists = [file::TOP.known, file::LOG.known, targets::TARGET.known, targets::RUNG.known, probes::HTTP.known];
    (key.contains(':') && lists.concat().concat().contains(&word)).then_some(key)
}

/// The shipped file with the comment marks removed from the lines that `is_chosen` selects.
fn uncommented(mark: &str, is_chosen: impl Fn(&str) -> bool) -> String {
    let line = |line: &str| match commented(line, mark) {
        Some(key) if is_chosen(key) => format!("{}{key}\n", " ".repeat(line.len() - line.trim_start().len())),
        _ => format!("{line}\n"),
    };
    SHIPPED.lines().map(line).collect()
}

#[test]
fn the_shipped_file_is_valid_and_its_comments_show_the_defaults() {
    let ignoring_its_folder = |mut config: Config| {
        let folder = config.folder.display().to_string();
        config.modified = None;
        // It depends on absolute paths.
        config.targets.iter_mut().for_each(|target| target.limits.repair_id = 0);
        format!("{config:#?}").replace(&folder, "")
    };
    let shipped = accepted(SHIPPED);
    assert_eq!(shipped.targets[0].name, "sav-backend");
    assert_eq!((shipped.targets.len(), shipped.targets[0].ladder.len()), (1, 1));
    let defaults = SHIPPED.lines().filter(|line| commented(line, "# ").is_some()).count();
    assert!(15 < defaults, "{defaults} defaults are shown");
    let written = accepted(&uncommented("# ", |_| true));
    assert_eq!(ignoring_its_folder(written), ignoring_its_folder(shipped));
}

#[test]
fn the_examples_of_the_shipped_file_are_valid() {
    let examples: Vec<&str> = SHIPPED.lines().filter_map(|line| commented(line, "# e.g. ")).collect();
    assert!(10 < examples.len(), "{examples:?}");
    for example in examples {
        match example.split(':').next() {
            Some("http" | "tcp" | "command" | "file") if example != "file: watchdog.log" => accepted(&one(example)),
            _ => {
                let database = "  - {name: database, tcp: 'localhost:5432'}\n";
                accepted(&(uncommented("# e.g. ", |key| key == example) + database))
            }
        };
    }
}

#[test]
fn the_shipped_file_has_every_key() {
    let whole = [
        file::TOP,
        file::LOG,
        file::PAGE,
        targets::TARGET,
        targets::RUNG,
        probes::HTTP,
        probes::FILE,
        pm2::PM2,
        systemd_unit::UNIT,
    ];
    let lists = whole.into_iter().chain([notify::WEBHOOK, notify::EMAIL, notify::COMMAND]).collect::<Vec<_>>();
    for key in lists.iter().flat_map(|keys| keys.known.concat()) {
        let places = [format!("\n{key}:"), format!(" {key}:"), format!("{{{key}:")];
        assert!(places.iter().any(|place| SHIPPED.contains(place)), "{key} is not in watchdog.yaml");
    }
}
