//! The words that the project has given up for the field's own, so that they do not come back. It must never hold a
//! word that a standard, a file format or another program needs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// In identifiers (`tell_mended`), comments and texts, each with what to write instead.
const WORDS: [(&str, &str); 26] = [
    ("anew", "again"),
    ("aught", "anything"),
    ("beside", "with, next to"),
    ("glance", "observe"),
    ("heed", "apply, respect"),
    ("heeded", "applied, respected"),
    ("heeds", "applies, respects"),
    ("mend", "fix"),
    ("mended", "fixed"),
    ("mending", "fixing"),
    ("mends", "fixes"),
    ("patience", "timeout, deadline"),
    ("rival", "other watcher"),
    ("rivals", "other watchers"),
    ("stranger", "foreign process"),
    ("strangers", "foreign processes"),
    ("stricken", "redacted"),
    ("tame", "sanitize"),
    ("tamed", "sanitized"),
    ("untold", "not yet reported"),
    ("upkeep", "maintenance"),
    ("weigh", "check"),
    ("weighed", "checked"),
    ("weighs", "checks"),
    ("whereabouts", "path"),
    ("whoever", "the one who"),
];

/// Names of types and variants.
const NAMES: [&str; 16] = [
    "Around", "Aside", "Asked", "Beside", "Ending", "LastLook", "Letter", "Look", "Looked", "Means", "Said", "Seen",
    "Story", "Tell", "Told", "Wire",
];

/// Several words of plain text, in lower case.
const PHRASES: [(&str, &str); 11] = [
    ("a look at the", "a probe of the"),
    ("at work", "running"),
    ("bad in a row", "failures in a row"),
    ("each look", "each probe"),
    ("i go on", "next attempt at …"),
    ("is only told", "no action; reported as …"),
    ("last look", "last probe"),
    ("lost from sight", "unreachable"),
    ("looks at every", "probes every"),
    ("struck out", "redacted"),
    ("what mends it", "the fix"),
];

/// What people read or write here: code, tests, documents, examples and scripts.
const PLACES: [&str; 7] = [".ci", "README.md", "benches", "src", "systemd", "tests", "watchdog.yaml"];

#[test]
fn retired_words_do_not_come_back() {
    let mut found = String::new();
    let mut paths = PLACES.map(|place| Path::new(env!("CARGO_MANIFEST_DIR")).join(place)).to_vec();
    let mut count = 0;
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        } else if !path.ends_with(file!()) && path.file_name().is_some_and(|name| name != "package-lock.json") {
            // What is not text, such as a compiled Python file, has no words.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            count += 1;
            for (number, line) in text.lines().enumerate() {
                for retired in retired_in(line) {
                    writeln!(found, "{}:{}: {retired}", path.display(), number + 1).expect("a String takes all");
                }
            }
        }
    }
    assert!(count > 200, "only {count} files found");
    assert!(found.is_empty(), "{found}");
}

fn retired_in(line: &str) -> Vec<String> {
    // The names of what is stored stay as they were.
    if line.contains("serde(") {
        return Vec::new();
    }
    let identifiers = || line.split(|c: char| !c.is_alphanumeric() && c != '_');
    let lower = line.to_lowercase();
    let words = split_words(line);
    let by_word = WORDS.iter().filter(|(word, _)| words.iter().any(|found| found == word));
    let by_phrase = PHRASES.iter().filter(|(phrase, _)| lower.contains(phrase));
    let instead = by_word.chain(by_phrase).map(|(retired, instead)| format!("`{retired}`; write: {instead}"));
    let names = NAMES.iter().filter(|name| identifiers().any(|found| found == **name));
    instead.chain(names.map(|name| format!("`{name}` is a retired name"))).collect()
}

/// The words of a line in lower case, those within `snake_case` and `CamelCase` too.
fn split_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for character in line.chars() {
        if !character.is_alphabetic() || character.is_uppercase() {
            words.push(String::new());
        }
        if character.is_alphabetic() {
            words.last_mut().expect("one at the least").extend(character.to_lowercase());
        }
    }
    words
}

#[test]
fn retired_words_are_found_wherever_they_stand() {
    #[track_caller]
    fn check(line: &str, expected: usize) {
        assert_eq!(retired_in(line).len(), expected, "{line}: {:?}", retired_in(line));
    }
    check("/// Mends it.", 1);
    check("fn is_mended(last: LastLook) {", 2);
    check("enum WeighMore {", 1);
    check("It is at work.", 1);
    check("#[serde(rename = \"weighed\")]", 0);
    check("amendment, lookup, looks up, told, a restart that helped", 0);
}
