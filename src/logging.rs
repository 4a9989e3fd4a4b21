//! The log: the format of its lines, where they are written, and how they are read back. It must never end or block the
//! program, and never write records of other crates, because the debug lines of HTTP and TLS crates contain requests
//! with their secrets.

mod journal;
mod line;
mod past;
mod rotating;
mod stream;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use log::{LevelFilter, SetLoggerError};

use crate::clock;
use crate::config::{self, LogFormat};
use crate::time::Zone;

use line::{format_for_journal, format_record};
use rotating::Rotating;
use stream::Stream;

pub use journal::is_journal;
pub use line::{LogLine, about};
pub use past::PastLog;

/// The library and the program have this name; records of other crates are dropped.
const OWN: &str = "watchdog";

/// What reads standard error, if the log is written there too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Person,
    /// It has the time, and wants the level.
    Journal,
}

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

/// Starts logging to the file, and to standard error if it has a reader. The file is opened with the first line. Lines
/// that cannot be written cause no error: they are counted.
/// Errors: this process has a logger already.
pub fn start(
    settings: &config::LogConfig,
    stderr: Option<Reader>,
    verbosity: Verbosity,
    zone: Zone,
) -> Result<Logging, SetLoggerError> {
    let file = SharedFile(Arc::new(Mutex::new(Rotating::new(settings, zone))));
    let stderr = stderr.map(|reader| (Box::new(Stream::new(io::stderr())) as Box<dyn Write + Send>, reader));
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
    stderr: Option<(Box<dyn Write + Send>, Reader)>,
    verbosity: Verbosity,
    zone: Zone,
) -> fern::Dispatch {
    let shared = file.clone();
    let to_file = fern::Dispatch::new()
        .format(move |out, _, record| {
            let (format, max_length) = shared.get().line_format();
            let line = format_record(format, zone, clock::wall(), record, max_length);
            out.finish(format_args!("{line}"));
        })
        .chain(Box::new(file) as Box<dyn Write + Send>);
    let dispatch = fern::Dispatch::new().level(LevelFilter::Off).level_for(OWN, LevelFilter::Trace).chain(to_file);
    let Some((stderr, reader)) = stderr else { return dispatch };
    let level = match verbosity {
        Verbosity::Quiet => LevelFilter::Error,
        Verbosity::Configured | Verbosity::Verbose => LevelFilter::Trace,
    };
    let to_stderr = fern::Dispatch::new().level(level).format(move |out, _, record| {
        let line = match reader {
            Reader::Person => format_record(LogFormat::Text, zone, clock::wall(), record, u64::MAX),
            Reader::Journal => format_for_journal(record),
        };
        out.finish(format_args!("{line}"));
    });
    dispatch.chain(to_stderr.chain(stderr))
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

    use log::{Level, Log, Record};

    use super::*;
    use crate::testing::{is_alone, run_alone};

    fn settings(file: &Path) -> config::LogConfig {
        let (file, level, format) = (file.to_owned(), LevelFilter::Info, LogFormat::Text);
        config::LogConfig { file, level, max_size: 1 << 20, keep: 4, format }
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
        let second: Box<dyn Write + Send> = Box::new(second);
        let (_, logger) = dispatch(first, Some((second, Reader::Person)), verbosity, Zone::UTC).into_log();
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
    fn a_reload_changes_file_and_level_and_a_second_start_is_refused() {
        if !is_alone() {
            run_alone("logging::tests::a_reload_changes_file_and_level_and_a_second_start_is_refused", &["env"]);
            return;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        let logging = start(&settings(&before), None, Verbosity::Configured, Zone::UTC).expect("the first logger");
        log::info!("one");
        log::debug!("not at this level");
        logging.reload(&config::LogConfig { level: LevelFilter::Debug, ..settings(&after) });
        log::debug!("two");
        assert!(start(&settings(&before), None, Verbosity::Configured, Zone::UTC).is_err());
        logging.reload(&config::LogConfig { format: LogFormat::Json, ..settings(&after) });
        log::info!(target: &about("sav"), "three");
        assert_eq!(logging.describe_loss(), None);
        let contains = |path, expected: &str, unexpected: &str| {
            let text = fs::read_to_string(path).expect("a log");
            assert!(text.contains(expected) && !text.contains(unexpected), "{text}");
        };
        contains(&before, " info  one\n", "not at this level");
        contains(&after, " debug two\n", "one");
        contains(&after, r#""level":"info","target":"sav","message":"three"}"#, "one");
    }
}
