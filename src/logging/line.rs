//! One line of the log: its forms on standard error, in the file and in the journal, and how the file's are read back.
//! It must never let a message become more than one line, or a line of JSON be anything but one valid object.

use std::fmt;

use log::{Level, Record};
use serde::{Deserialize, Serialize};

use crate::config::LogFormat;
use crate::terminal::escaped;
use crate::time::{WallTime, Zone};

/// What the target of a record begins with if it is about one target of the configuration. fern passes on only records
/// of this program, and those of its modules and of this have the same first name.
const ABOUT: &str = "watchdog::about::";
/// The end of a message that was too long.
pub(super) const CUT_MARK: &str = " … (cut)";
/// `2026-11-22 03:12:10+01:00`, in bytes.
const TIME_LENGTH: usize = 25;

/// For `log::info!(target: …)`: the record is about the target of this name.
pub fn about(name: &str) -> String {
    match name {
        "" => "watchdog".into(),
        name => format!("{ABOUT}{name}"),
    }
}

fn target_of<'r>(record: &Record<'r>) -> Option<&'r str> {
    record.target().strip_prefix(ABOUT)
}

/// `2026-11-22 03:12:10+01:00 warn  sav-backend failing …`, or one JSON object of at most `max_length` bytes.
pub(super) fn format_record(
    format: LogFormat,
    zone: Zone,
    wall: WallTime,
    record: &Record<'_>,
    max_length: u64,
) -> String {
    format_line(format, (zone, wall), record.level(), target_of(record), record.args(), max_length)
}

pub(super) fn format_line(
    format: LogFormat,
    (zone, wall): (Zone, WallTime),
    level: Level,
    target: Option<&str>,
    message: &fmt::Arguments<'_>,
    max_length: u64,
) -> String {
    let message = message.to_string();
    let line = LogLine {
        at: zone.date_time(wall),
        level: level.as_str().to_ascii_lowercase(),
        target: target.map(str::to_owned),
        message: escaped(&message).into_owned(),
    };
    match format {
        LogFormat::Text => line.to_string(),
        LogFormat::Json => line.json(usize::try_from(max_length).unwrap_or(usize::MAX)),
    }
}

/// `<4>sav-backend failing …`: the journal has the time, and reads the level from the prefix (sd-daemon(3)).
pub(super) fn format_for_journal(record: &Record<'_>) -> String {
    let level = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let target = target_of(record).map_or_else(String::new, |target| format!("{target} "));
    let message = record.args().to_string();
    format!("<{level}>{target}{}", escaped(&message))
}

/// A line of the log file. Its text form is the same whichever form it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// With a space between date and time, as people read it; in JSON it is RFC 3339.
    #[serde(with = "rfc3339")]
    pub at: String,
    pub level: String,
    /// Known only from JSON: in the text form it begins the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub message: String,
}

impl LogLine {
    /// Reads a line of either form; none if it is something else, such as a line that was cut.
    pub fn parse(line: &str) -> Option<LogLine> {
        if line.starts_with('{') {
            return serde_json::from_str(line).ok();
        }
        let (at, rest) = line.split_at_checked(TIME_LENGTH)?;
        let (level, message) = rest.strip_prefix(' ')?.split_once(' ')?;
        let is_level = ["error", "warn", "info", "debug"].contains(&level);
        let (at, level, message) = (at.to_owned(), level.to_owned(), message.trim_start().to_owned());
        is_level.then_some(LogLine { at, level, target: None, message })
    }

    /// Whether it is about this target.
    pub fn is_about(&self, name: &str) -> bool {
        match &self.target {
            Some(target) => target == name,
            None => self.message.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':'])),
        }
    }

    /// A message that is too long is cut, because a cut object would be no JSON.
    fn json(mut self, max_length: usize) -> String {
        let whole = std::mem::take(&mut self.message);
        let mut end = whole.len();
        loop {
            self.message = if end < whole.len() { format!("{}{CUT_MARK}", &whole[..end]) } else { whole.clone() };
            let line = serde_json::to_string(&self).expect("text has a JSON form");
            if line.len() <= max_length || end == 0 {
                return line;
            }
            // In proportion, because JSON may escape each character.
            end = (end * max_length / line.len()).saturating_sub(CUT_MARK.len());
            while !whole.is_char_boundary(end) {
                end -= 1;
            }
        }
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogLine { at, level, target, message } = self;
        let (target, space) = target.as_deref().map_or(("", ""), |target| (target, " "));
        write!(f, "{at} {level:<5} {target}{space}{message}")
    }
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&at.replacen(' ', "T", 1))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer).map(|at| at.replacen('T', " ", 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 02:12:10 UTC.
    fn wall() -> WallTime {
        WallTime::from_ms(1_795_313_530_000)
    }

    #[track_caller]
    fn check(level: Level, target: Option<&str>, message: &str, text: &str, json: &str) {
        let format = |format| {
            let zone = Zone(|_| 3_600);
            format_line(format, (zone, wall()), level, target, &format_args!("{message}"), 4_096)
        };
        let both = [format(LogFormat::Text), format(LogFormat::Json)];
        assert_eq!(both, [format!("2026-11-22 03:12:10+01:00 {text}"), json.to_owned()]);
        for line in &both {
            let read = LogLine::parse(line).expect("its own form");
            assert_eq!(read.to_string(), both[0], "{line}");
            assert_eq!(read.is_about("sav"), target == Some("sav"), "{line}");
        }
        let target = about(target.unwrap_or_default());
        let arguments = format_args!("{message}");
        let record = Record::builder().level(level).target(&target).args(arguments).build();
        let (_, for_journal) = text.split_at(6);
        assert_eq!(format_for_journal(&record)[3..], *for_journal);
    }

    #[test]
    fn each_form_has_time_level_target_and_message() {
        check(
            Level::Warn,
            Some("sav"),
            "failing, 1 of 3",
            "warn  sav failing, 1 of 3",
            r#"{"at":"2026-11-22T03:12:10+01:00","level":"warn","target":"sav","message":"failing, 1 of 3"}"#,
        );
        check(
            Level::Error,
            None,
            "savage \"x\"",
            "error savage \"x\"",
            r#"{"at":"2026-11-22T03:12:10+01:00","level":"error","message":"savage \"x\""}"#,
        );
        // What comes from outside affects neither a terminal nor what reads the file line by line.
        check(
            Level::Debug,
            Some("sav"),
            "a\nb\u{1b}[0m\u{202e}",
            "debug sav a\\nb\\u{1b}[0m\\u{202e}",
            r#"{"at":"2026-11-22T03:12:10+01:00","level":"debug","target":"sav","message":"a\\nb\\u{1b}[0m\\u{202e}"}"#,
        );
    }

    #[test]
    fn the_journal_gets_the_levels_of_syslog() {
        for (level, expected) in
            [(Level::Error, "<3>x"), (Level::Warn, "<4>x"), (Level::Info, "<6>x"), (Level::Debug, "<7>x")]
        {
            assert_eq!(format_for_journal(&Record::builder().level(level).args(format_args!("x")).build()), expected);
        }
    }

    #[test]
    fn a_long_message_is_cut_and_the_object_stays_whole() {
        for message in ["x".repeat(9_000), "\"".repeat(9_000), "ü".repeat(9_000), "\\u{1}".repeat(4_000)] {
            let at = (Zone::UTC, wall());
            let line = format_line(LogFormat::Json, at, Level::Info, None, &format_args!("{message}"), 4_000);
            let read = LogLine::parse(&line).expect("valid");
            assert!(line.len() <= 4_000 && read.message.len() > 1_500 && read.message.ends_with("(cut)"), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_of_the_log_is_not_taken_for_one() {
        for line in ["", "{", "{}", "2026-11-22", "2026-11-22 03:12:10+01:00 loud  x", "2026-11-22 03:12:10+01:00x"] {
            assert_eq!(LogLine::parse(line), None, "{line}");
        }
    }
}
