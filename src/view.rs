//! All that people and machines read: data in, text out.
//! It must never do I/O or read a clock.

pub mod addresses;
pub mod drill;
pub mod incident;
pub mod log_line;
pub mod message;
pub mod metrics;
pub mod ordered_restart;
pub mod page;
pub mod pattern;
pub mod pm2_restarts;
pub mod presence;
pub mod report;
pub mod status;

use std::path::Path;
use std::time::Duration;

use crate::policy::{Status, TargetState, WarningKind};
use crate::store::state::TargetView;
use crate::time::HumanDuration;

/// What the output can show. The default is that of a file or a pipe: lines of any length, and no colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    pub columns: Option<usize>,
    pub has_colours: bool,
}

impl Screen {
    fn fits(self, lines: &[String]) -> bool {
        self.columns.is_none_or(|columns| lines.iter().all(|line| line.chars().count() <= columns))
    }

    /// Colours the name of `status`, which begins at byte `at` of `line`.
    fn colour(self, line: String, at: usize, status: Status) -> String {
        let end = at + status.as_str().len();
        let code = match status {
            Status::Healthy => 32,
            Status::Down | Status::Recovering => 31,
            Status::Failing | Status::Starting => 33,
            Status::Stopped | Status::Paused => 36,
        };
        match (line.get(..at), line.get(at..end), line.get(end..)) {
            (Some(before), Some(state), Some(after)) if self.has_colours => {
                format!("{before}\x1b[{code}m{state}\x1b[0m{after}")
            }
            _ => line,
        }
    }
}

/// `text` in lines of at most `columns` characters, broken between words, each behind `indent` spaces. A word that is
/// longer than a line has a line of its own.
fn wrap(text: &str, indent: usize, columns: Option<usize>) -> Vec<String> {
    let margin = " ".repeat(indent);
    let Some(columns) = columns else { return vec![format!("{margin}{text}")] };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{margin}{word}")),
        }
    }
    lines
}

/// Rows as lines, each column as wide as its widest cell, with two spaces between columns.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> =
        (0..COLUMNS).map(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0)).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, widest)| format!("{cell}{}", " ".repeat(widest.saturating_sub(width(cell)))));
        cells.collect::<Vec<String>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

/// What is known of a target that is not down but does not do well, without a word from outside.
fn describe_quality(state: &TargetState, shown: &TargetView) -> Option<String> {
    let is_warned = |about| state.warned.contains(&about);
    let slow = shown.slow_ms.filter(|_| is_warned(WarningKind::Slow));
    let slow = slow
        .map(|ms| format!("answers slowly: healthy, but it took over {}", HumanDuration(Duration::from_millis(ms))));
    let unsteady = is_warned(WarningKind::Unsteady)
        .then(|| "unsteady: a third of the last hour's probes failed, but too few in a row for a restart".into());
    let all: Vec<String> = [slow, unsteady].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// With a capital letter, except for an address, and a full stop.
fn sentence(text: &str) -> String {
    let is_address = text.split(' ').next().is_some_and(|word| word.contains("://"));
    let mut letters = text.chars();
    let Some(first) = letters.next().filter(|_| !is_address) else { return format!("{text}.") };
    format!("{}{}.", first.to_uppercase(), letters.as_str())
}

/// In percent. It never rounds up, since the history has already cut `part` to four decimals.
fn percent(part: Option<f64>) -> String {
    let Some(part) = part else { return "–".into() };
    let digits = format!("{:.2}", part * 100.0);
    let short = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{short} %")
}

/// The path with `~` for the home folder.
fn with_tilde(home: Option<&Path>, path: &Path) -> String {
    let below = home.and_then(|home| path.strip_prefix(home).ok());
    below.map_or_else(|| path.display().to_string(), |below| format!("~/{}", below.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_broken_between_words() {
        #[track_caller]
        fn check(text: &str, indent: usize, columns: Option<usize>, expected: &[&str]) {
            assert_eq!(wrap(text, indent, columns), expected);
        }
        check("one two three", 2, None, &["  one two three"]);
        check("one two three", 2, Some(9), &["  one two", "  three"]);
        check("one two three", 0, Some(4), &["one", "two", "three"]);
        check("", 0, Some(4), &[""]);
    }

    #[test]
    fn a_sentence_keeps_an_address_as_it_is() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(sentence(text), expected);
        }
        check("status 503", "Status 503.");
        check("http://localhost:5001/health: status 503", "http://localhost:5001/health: status 503.");
        check("timeout; http://localhost:5001/: no byte", "Timeout; http://localhost:5001/: no byte.");
        check("{status}", "{status}.");
    }

    #[test]
    fn only_the_state_is_coloured_and_only_where_colours_are_shown() {
        let line = || String::from("api  down  03:12");
        let colours = Screen { has_colours: true, columns: None };
        assert_eq!(colours.colour(line(), 5, Status::Down), "api  \u{1b}[31mdown\u{1b}[0m  03:12");
        assert_eq!(colours.colour("a".into(), 5, Status::Down), "a");
        assert_eq!(Screen::default().colour(line(), 5, Status::Down), line());
    }
}
