//! The man pages: watchdog-agent(1) from the texts of `--help`, watchdog.yaml(5) from the comments of watchdog.yaml.
//! It must never explain an option or a key itself: what it says of one stands there.

use std::io;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

pub(crate) fn command_page() -> io::Result<String> {
    let mut command = watchdog::cli::command().subcommand_value_name("command");
    command.build();
    let man = Man::new(command.clone()).source(source()).manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    let mut page = text(page) + &body(|page| man.render_options_section(page), "OPTIONS")?;
    page += &section("COMMANDS", &[]);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        page += &verb_section(verb)?;
    }
    page += &body(|page| man.render_extra_section(page), "EXIT STATUS")?;
    Ok(page + &section("SEE ALSO", &[bold("watchdog.yaml"), roman("(5)")]))
}

/// A command's synopsis, what it does, and its own options.
fn verb_section(verb: &Command) -> io::Result<String> {
    let verb = &verb.clone().mut_args(|option| if is_general(&option) { option.hide(true) } else { option });
    let man = Man::new(verb.clone());
    let mut section = Roff::default();
    section.control("SS", [verb.get_name()]);
    let synopsis = body(|page| man.render_synopsis_section(page), "")?;
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    let mut description = Roff::default();
    description.control("PP", []).text([roman(about + ".")]);
    let options = verb.get_arguments().any(|option| !option.is_hide_set());
    let options = if options { body(|page| man.render_options_section(page), "")? } else { String::new() };
    Ok(section.to_roff() + &synopsis + &description.to_roff() + &options)
}

/// Whether all commands take this option, so that the page explains it once.
fn is_general(option: &Arg) -> bool {
    ["config", "verbose", "quiet", "help"].contains(&option.get_id().as_str())
}

/// What clap_mangen renders, under another heading; without one if `title` is empty.
fn body(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>, title: &str) -> io::Result<String> {
    let mut page = Vec::new();
    render(&mut page)?;
    let page = text(page);
    // The first lines define the apostrophe, which the top of the page has done.
    let after_heading = page.split_once("\n.SH ").and_then(|(_, rest)| rest.split_once('\n'));
    let body = after_heading.map_or("", |(_, body)| body);
    Ok(if title.is_empty() { body.to_owned() } else { section(title, &[]) + body })
}

fn section(title: &str, inlines: &[Inline]) -> String {
    let mut section = Roff::default();
    section.control("SH", [title]);
    if !inlines.is_empty() {
        section.text(inlines);
    }
    section.to_roff()
}

fn text(page: Vec<u8>) -> String {
    String::from_utf8(page).expect("clap_mangen writes UTF-8")
}

fn source() -> String {
    format!("watchdog-agent {}", env!("CARGO_PKG_VERSION"))
}

/// `yaml` is the text of watchdog.yaml, whose first two paragraphs are about that file itself.
pub(crate) fn configuration_page(yaml: &str) -> String {
    let mut page = Roff::default();
    page.control("TH", ["watchdog.yaml", "5", "", &source(), "File Formats"]);
    page.control("SH", ["NAME"]).text([roman("watchdog.yaml - configuration of watchdog-agent")]);
    page.control("SH", ["DESCRIPTION"]);
    let mut blocks = yaml.split("\n\n");
    let header = blocks.next().unwrap_or_default();
    for paragraph in header.split("\n#\n").skip(2) {
        paragraph.lines().for_each(|line| {
            page.text([roman(line.trim_start_matches("# "))]);
        });
        page.control("PP", []);
    }
    page.control("SH", ["KEYS"]);
    let mut depths: Vec<usize> = vec![0];
    for entry in blocks.flat_map(entries) {
        while depths.last().is_some_and(|depth| entry.indent < *depth) {
            depths.pop();
            page.control("RE", []);
        }
        if depths.last().is_some_and(|depth| entry.indent > *depth) {
            depths.push(entry.indent);
            page.control("RS", ["4"]);
        }
        entry.render(&mut page);
    }
    depths.iter().skip(1).for_each(|_| {
        page.control("RE", []);
    });
    page.control("SH", ["FILES"]);
    let command = watchdog::cli::command();
    let config = command.get_arguments().find(|option| option.get_id() == "config");
    page.text([roman(config.and_then(|option| option.get_help()).map(ToString::to_string).unwrap_or_default())]);
    page.control("SH", ["SEE ALSO"]).text([bold("watchdog-agent"), roman("(1)")]);
    page.render()
}

/// Comments and the keys that they explain.
#[derive(Default)]
struct Entry {
    /// Of the first key.
    indent: usize,
    /// Each with what its value is.
    keys: Vec<(String, &'static str)>,
    comments: Vec<String>,
}

impl Entry {
    fn render(&self, page: &mut Roff) {
        for (number, (key, what)) in self.keys.iter().enumerate() {
            page.control(if number == 0 { "TP" } else { "TQ" }, []);
            let (name, value) = key.split_once(':').unwrap_or((key, ""));
            page.text([bold(name), roman(format!(":{value}{what}"))]);
        }
        let only_comments = self.keys.is_empty() && !self.comments.is_empty();
        if only_comments {
            page.control("PP", []);
        }
        self.comments.iter().for_each(|comment| {
            page.text([roman(comment)]);
        });
    }
}

/// The entries of a part of watchdog.yaml: a comment after a key begins the next one.
fn entries(block: &str) -> Vec<Entry> {
    let mut entries = vec![Entry::default()];
    for line in block.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        let comment = line.strip_prefix("# ");
        let example = comment.and_then(|comment| comment.strip_prefix("e.g. "));
        let default = comment.filter(|comment| is_key(comment));
        let (key, what) = match (example, default) {
            (Some(key), _) => (Some(key), "   (example)"),
            (None, Some(key)) => (Some(key), "   (default)"),
            (None, None) => (comment.is_none().then_some(line), ""),
        };
        let has_keys = entries.last().is_some_and(|entry| !entry.keys.is_empty());
        if has_keys && (key.is_none() || example.is_none() && default.is_none() && !line.starts_with("- ")) {
            entries.push(Entry::default());
        }
        let Some(entry) = entries.last_mut() else { continue };
        match key {
            None => entry.comments.extend(comment.map(str::to_owned)),
            Some(key) => {
                if entry.keys.is_empty() {
                    entry.indent = if key.starts_with("- ") { indent + 2 } else { indent };
                }
                entry.keys.push((key.to_owned(), what));
            }
        }
    }
    entries
}

/// Whether a comment is a key with its default.
fn is_key(comment: &str) -> bool {
    let name = comment.split_once(": ").map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}
