//! The man pages that .ci/release makes: every command, option and key is in them, and nothing that is hidden.

#[path = "../../.ci/man/pages.rs"]
mod pages;

use crate::documents::{document, keys};
use crate::sandbox::Sandbox;

/// The first words of the lines of a help text that follow `heading`.
fn names(help: &str, heading: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_is_in_the_man_page() {
    let sandbox = Sandbox::new("");
    let page = pages::command_page().expect("rendered").replace("\\-", "-");
    let verbs = names(&sandbox.run(&["--help"]).out, "Commands:");
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let start = page.find(&format!("\n.SS {verb}\n"));
        let section = &page[start.unwrap_or_else(|| panic!("no {verb} in {page}")) + 1..];
        let section = section.split("\n.S").next().unwrap_or_default();
        for option in sandbox.run(&[&verb, "--help"]).out.split_whitespace().filter(|word| word.starts_with("--")) {
            let option = option.trim_end_matches([',', '.', ':']);
            let text = if ["--config", "--help", "--verbose", "--quiet"].contains(&option) { &page } else { section };
            assert!(text.contains(option), "{verb} {option}: {section}");
        }
    }
    for hidden in ["--detached", "--backend"] {
        assert!(!page.contains(hidden), "{page}");
    }
}

#[test]
fn every_key_is_in_the_man_page() {
    let page = pages::configuration_page(&document("watchdog.yaml")).replace("\\-", "-");
    for key in keys() {
        let ways = [format!("\\fB{key}\\fR:"), format!(" {key}:"), format!("{{{key}:"), format!("- {key}\\fR:")];
        assert!(ways.iter().any(|way| page.contains(way)), "no {key} in {page}");
    }
}

#[test]
fn a_default_and_an_example_are_told_apart() {
    let yaml = "# About the file.\n#\n# How to read it.\n#\n# Of all keys.\n\n\
                # What a is\n# for.\n# a: 1\n# e.g. a: {b: 2}\n\
                c:\n  # Of d\n  d: 3\n";
    let page = pages::configuration_page(yaml);
    let (_, page) = page.split_once(".SH DESCRIPTION\n").expect("a description");
    let expected = "Of all keys.\n.PP\n.SH KEYS\n.TP\n\\fBa\\fR: 1   (default)\n.TQ\n\\fBa\\fR: {b: 2}   (example)\n\
                    What a is\nfor.\n.TP\n\\fBc\\fR:\n.RS 4\n.TP\n\\fBd\\fR: 3\nOf d\n.RE\n.SH FILES\n";
    assert!(page.starts_with(expected), "{page}");
}
