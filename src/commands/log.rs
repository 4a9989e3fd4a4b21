//! `log`: the log's last lines, of all targets or of one, and with `--follow` those that are added. It must never
//! change the log, nor write what a line contains to a terminal unescaped.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::Options;
use crate::config::Config;
use crate::logging::{LogLine, PastLog};
use crate::outcome::describe_io_error;
use crate::signals::{self, Signal};
use crate::store::Folder;
use crate::store::state::{SavedState, peek};
use crate::terminal::{escaped, write_line};
use crate::view::Screen;

use super::status::screen;
use super::{Code, print_error, read_boot_clock, shorten_home, state_folder, unknown_target};

/// How long a new line may wait.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn log(options: &Options, target: Option<&str>, count: usize, follow: bool) -> Result<Code, Code> {
    let (folder, config) = state_folder(options)?;
    // A state that cannot be read has no part in the log.
    let saved = peek(&folder, &read_boot_clock()).ok().flatten().map(|saved| *saved).unwrap_or_default();
    if let Some(target) = target {
        check_target(target, &saved, config.as_ref())?;
    }
    let path = find_log(&folder, saved.log, config.as_ref());
    let is_wanted =
        |line: &str| target.is_none_or(|target| LogLine::parse(line).is_some_and(|line| line.is_about(target)));
    let screen = screen();
    let mut is_empty = true;
    let mut print_line = |line: &str| {
        let is_shown = is_wanted(line);
        is_empty &= !is_shown;
        !is_shown || write_line(io::stdout(), &render(line, screen))
    };
    let failed = |error: io::Error| {
        let why = describe_io_error(&error);
        print_error(&format!("cannot read the log {}: {why}", shorten_home(&path)), Code::Machine)
    };
    let stop = follow.then(listen_for_end);
    let mut log = PastLog::open(&path, count, &is_wanted).map_err(failed)?;
    if log.is_missing() {
        let end = if follow { "; waiting for it" } else { "" };
        write_line(io::stderr(), &format!("no log yet: {} does not exist{end}", shorten_home(&path)));
    }
    loop {
        while let Some(line) = log.next_line().map_err(failed)? {
            let is_stopped = stop.as_ref().is_some_and(|stop| stop.try_recv().is_ok());
            if is_stopped || !print_line(&line) {
                return Ok(Code::Done);
            }
        }
        let Some(stop) = &stop else { break };
        if !wait_for_more(stop) {
            return Ok(Code::Done);
        }
    }
    log.take_rest().iter().for_each(|line| _ = print_line(line));
    if let (Some(target), true, true) = (target, is_empty, count > 0 && !log.is_missing()) {
        write_line(io::stderr(), &format!("the log has no line about {target}; single probes are logged with -v only"));
    }
    Ok(Code::Done)
}

/// The targets of the configuration, and those whose state is known, as of a watchdog with another configuration.
fn check_target(target: &str, saved: &SavedState, config: Option<&Config>) -> Result<(), Code> {
    let mut names: Vec<String> = saved.views.keys().cloned().collect();
    names.extend(config.iter().flat_map(|config| &config.targets).map(|target| target.name.clone()));
    match names.iter().any(|name| name == target) {
        true => Ok(()),
        false => Err(unknown_target(target, names)),
    }
}

/// The log of the watchdog that runs or ran last, or else the one that the configuration names, or the default.
fn find_log(folder: &Folder, known: Option<PathBuf>, config: Option<&Config>) -> PathBuf {
    let configured = config.map_or_else(|| folder.path().join("watchdog.log"), |config| config.log.file.clone());
    known.filter(|known| known.exists() || !configured.exists()).unwrap_or(configured)
}

fn listen_for_end() -> Receiver<()> {
    let (post, stop) = channel();
    // Without a handler, Ctrl-C ends this process all the same, with another exit code. The handler fails to post only
    // after the end.
    let _ = signals::listen(move |signal| match signal {
        Signal::Stop | Signal::Reload => _ = post.send(()),
        Signal::Save | Signal::Child => {}
    });
    stop
}

/// Returns false if the reader of the output is gone, or a signal has come.
fn wait_for_more(stop: &Receiver<()>) -> bool {
    let stdout = io::stdout();
    let mut streams = [PollFd::new(&stdout, PollFlags::empty())];
    let timeout = Timespec { tv_sec: 0, tv_nsec: FOLLOW_INTERVAL.subsec_nanos().into() };
    // An error is a signal, which the channel has, or says nothing about the reader.
    let is_gone = poll(&mut streams, Some(&timeout)).is_ok_and(|count| count > 0);
    !is_gone && stop.try_recv().is_err()
}

/// The text form of a line, with its level in colour.
fn render(line: &str, screen: Screen) -> String {
    let Some(parsed) = LogLine::parse(line) else { return escaped(line).into_owned() };
    let text = parsed.to_string();
    let text = escaped(&text);
    let colour = match parsed.level.as_str() {
        "error" => 31,
        "warn" => 33,
        "debug" => 2,
        _ => return text.into_owned(),
    };
    match (screen.has_colours, text.split_once(&format!(" {} ", parsed.level))) {
        (true, Some((at, message))) => format!("{at} \x1b[{colour}m{}\x1b[0m {message}", parsed.level),
        _ => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, plain: &str, coloured: &str) {
        assert_eq!(render(line, Screen::default()), plain);
        assert_eq!(render(line, Screen { columns: None, has_colours: true }), coloured);
    }

    #[test]
    fn the_level_has_a_colour_and_nothing_affects_the_terminal() {
        let down = "2026-11-22 03:12:10+01:00 error sav down: error x";
        check(down, down, "2026-11-22 03:12:10+01:00 \x1b[31merror\x1b[0m sav down: error x");
        let json = r#"{"at":"2026-11-22T03:12:10+01:00","level":"warn","target":"sav","message":"a\u001b[2Jb"}"#;
        let shown = "sav a\\u{1b}[2Jb";
        check(
            json,
            &format!("2026-11-22 03:12:10+01:00 warn  {shown}"),
            &format!("2026-11-22 03:12:10+01:00 \x1b[33mwarn\x1b[0m  {shown}"),
        );
        let info = "2026-11-22 03:12:10+01:00 info  sav healthy";
        check(info, info, info);
        check("torn \x1b[2J", "torn \\u{1b}[2J", "torn \\u{1b}[2J");
        check("{\"at\":", "{\"at\":", "{\"at\":");
        let level = r#"{"at":"x","level":"\u001b[2J","message":"y"}"#;
        check(level, "x \\u{1b}[2J  y", "x \\u{1b}[2J  y");
    }
}
