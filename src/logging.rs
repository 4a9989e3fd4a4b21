//! The log: the format of its lines, and where they are written. It must never end or block the program, and never
//! write records of other crates, because the debug lines of HTTP and TLS crates contain requests with their secrets.

mod rotating;
mod stream;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use log::{Level, LevelFilter, SetLoggerError};

use crate::clock;
use crate::config;
use crate::terminal::escaped;
use crate::time::Zone;

use rotating::Rotating;
use stream::Stream;

/// The library and the program have this name; records of other crates are dropped.
const OWN: &str = "watchdog";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// `-q`: only errors on standard error; the file as configured.
    Quiet,
    Configured,
    /// `-v`: at least `debug`, on standard error and in the file.
    Verbose,
}

#[derive(Debug)]
pub struct Logging {
    file: SharedFile,
    verbosity: Verbosity,
}

/// Starts logging to the file, and to standard error if `to_stderr`. The file is opened with the first line. Lines that
/// cannot be written cause no error: they are counted.
/// Errors: this process has a logger already.
pub fn start(
    settings: &config::LogConfig,
    to_stderr: bool,
    verbosity: Verbosity,
    zone: Zone,
) -> Result<Logging, SetLoggerError> {
    let file = SharedFile(Arc::new(Mutex::new(Rotating::new(settings, zone))));
    let stderr = to_stderr.then(|| Box::new(Stream::new(io::stderr())) as Box<dyn Write + Send>);
    dispatch(file.clone(), stderr, verbosity, zone).apply()?;
    let logging = Logging { file, verbosity };
    log::set_max_level(logging.level(settings));
    Ok(logging)
}

impl Logging {
    /// Applies a changed configuration from the next line on: file, level, size and number of files.
    pub fn reload(&self, settings: &config::LogConfig) {
        self.file.get().reconfigure(settings);
        log::set_max_level(self.level(settings));
    }

    /// Why lines are being lost, and how many since the last one that was written; `None` while none are lost.
    pub fn describe_loss(&self) -> Option<String> {
        self.file.get().describe_loss()
    }

    fn level(&self, settings: &config::LogConfig) -> LevelFilter {
        match self.verbosity {
            Verbosity::Verbose => std::cmp::max(settings.level, LevelFilter::Debug),
            Verbosity::Configured | Verbosity::Quiet => settings.level,
        }
    }
}

/// It sets no level of its own: only that of `log::set_max_level` can be changed after the start.
fn dispatch(
    file: SharedFile,
    stderr: Option<Box<dyn Write + Send>>,
    verbosity: Verbosity,
    zone: Zone,
) -> fern::Dispatch {
    let dispatch = fern::Dispatch::new()
        .level(LevelFilter::Off)
        .level_for(OWN, LevelFilter::Trace)
        .format(move |out, message, record| out.finish(format_args!("{}", format_line(zone, record.level(), message))))
        .chain(Box::new(file) as Box<dyn Write + Send>);
    let Some(stderr) = stderr else { return dispatch };
    let level = match verbosity {
        Verbosity::Quiet => LevelFilter::Error,
        Verbosity::Configured | Verbosity::Verbose => LevelFilter::Trace,
    };
    dispatch.chain(fern::Dispatch::new().level(level).chain(stderr))
}

/// `2026-11-22 03:12:10+01:00 warn  message`: always one line, because the message is escaped.
fn format_line(zone: Zone, level: Level, message: &fmt::Arguments<'_>) -> String {
    let at = zone.date_time(clock::wall());
    let level = level.as_str().to_ascii_lowercase();
    let message = message.to_string();
    format!("{at} {level:<5} {}", escaped(&message))
}

/// fern writes to the file, and [`Logging`] reconfigures it.
#[derive(Clone, Debug)]
struct SharedFile(Arc<Mutex<Rotating>>);

impl SharedFile {
    fn get(&self) -> MutexGuard<'_, Rotating> {
        // After a panic while it was locked, at worst half a line is in the buffer.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.get().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.get().flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use log::{Log, Record};

    use super::*;
    use crate::testing::{is_alone, run_alone};

    fn settings(file: &Path) -> config::LogConfig {
        config::LogConfig { file: file.to_owned(), level: LevelFilter::Info, max_size: 1 << 20, keep: 4 }
    }

    fn logged(logger: &dyn Log, target: &str, level: Level, message: &str) {
        let metadata = log::Metadata::builder().target(target).level(level).build();
        if logger.enabled(&metadata) {
            logger.log(&Record::builder().metadata(metadata).args(format_args!("{message}")).build());
        }
    }

    /// Compares what is written to the file and to standard error, without the date.
    #[track_caller]
    fn check(verbosity: Verbosity, target: &str, level: Level, message: &str, file: &str, stderr: &str) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths = ["file", "stderr"].map(|name| folder.path().join(name));
        let both =
            paths.clone().map(|path| SharedFile(Arc::new(Mutex::new(Rotating::new(&settings(&path), Zone::UTC)))));
        let [first, second] = both;
        let (_, logger) = dispatch(first, Some(Box::new(second)), verbosity, Zone::UTC).into_log();
        logged(&*logger, target, level, message);
        let date_length = "2026-11-22 03:12:10+01:00 ".len();
        let found = paths.map(|path| fs::read_to_string(path).unwrap_or_default());
        let found = found.each_ref().map(|text| text.get(date_length..).unwrap_or_default());
        assert_eq!(found, [file, stderr], "{verbosity:?} {target} {level}");
    }

    #[test]
    fn only_own_records_are_written_each_on_one_line() {
        use Verbosity::{Configured, Quiet, Verbose};
        check(Configured, "watchdog::agent", Level::Warn, "failing", "warn  failing\n", "warn  failing\n");
        check(
            Configured,
            "watchdog",
            Level::Error,
            "a\nb\x1b[0m",
            "error a\\nb\\u{1b}[0m\n",
            "error a\\nb\\u{1b}[0m\n",
        );
        check(Verbose, "watchdog::agent", Level::Debug, "probed", "debug probed\n", "debug probed\n");
        check(Quiet, "watchdog::agent", Level::Warn, "failing", "warn  failing\n", "");
        check(Quiet, "watchdog::agent", Level::Error, "down", "error down\n", "error down\n");
        check(Verbose, "watchdogs", Level::Error, "not ours", "", "");
        check(Verbose, "rustls::client", Level::Error, "not ours", "", "");
        check(Verbose, "ureq_proto", Level::Debug, "Authorization: Basic", "", "");
    }

    #[test]
    fn a_line_starts_with_local_time_and_its_offset() {
        let line = format_line(Zone(|_| 3_600), Level::Info, &format_args!("healthy"));
        let shape: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00+00:00 info  healthy");
        assert!(line.contains("+01:00"), "{line}");
    }

    #[test]
    fn a_reload_changes_file_and_level_and_a_second_start_is_refused() {
        if !is_alone() {
            run_alone("logging::tests::a_reload_changes_file_and_level_and_a_second_start_is_refused", &["env"]);
            return;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        let logging = start(&settings(&before), false, Verbosity::Configured, Zone::UTC).expect("the first logger");
        log::info!("one");
        log::debug!("not at this level");
        logging.reload(&config::LogConfig { level: LevelFilter::Debug, ..settings(&after) });
        log::debug!("two");
        assert!(start(&settings(&before), false, Verbosity::Configured, Zone::UTC).is_err());
        assert_eq!(logging.describe_loss(), None);
        let contains = |path, expected: &str, unexpected: &str| {
            let text = fs::read_to_string(path).expect("a log");
            assert!(text.contains(expected) && !text.contains(unexpected), "{text}");
        };
        contains(&before, " info  one\n", "not at this level");
        contains(&after, " debug two\n", "one");
    }
}
