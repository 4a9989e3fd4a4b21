//! The requests of `pause`, `resume`, `reload`, `restart` and `drill` to the holder of the lock, one small file each in
//! `orders/`. The command writes the file; the holder of the lock applies the request, saves the state, and removes
//! the file. Applying it again after a crash in between changes nothing. What came of a reload is answered in a file
//! next to the request.
//! A pause must never be stored as a date: it is a length and the time of the request, so that setting the wall clock
//! does not change it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BootClockReading, Elapsed, Error, Folder, Stamp, files};
use crate::process;
use crate::time::BootTime;

const REQUESTS: &str = "orders";
/// The extension of an answer; otherwise its file has the name of the request.
const ANSWER: &str = "answer";
const MAX_WAITING: usize = 100;
/// More than the names of a thousand targets take.
const MAX_SIZE: u64 = 1 << 20;
/// `watchdog restart` and `watchdog drill` withdraw their order sooner, unless they are killed.
const MAX_ORDER_AGE: Duration = Duration::from_secs(60);
/// The longest pause that the command line accepts.
const MAX_PAUSE: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Request {
    Pause {
        /// `None`: all targets.
        targets: Option<Vec<String>>,
        /// Counted from the time of the request.
        length_ms: u64,
        #[serde(rename = "given")]
        requested_at: Stamp,
        /// The name of the command whose end also ends the pause: one that no other has, a space, and the command.
        #[serde(default)]
        command: Option<String>,
    },
    /// Ends the pause of a command that has ended.
    #[serde(rename = "over")]
    CommandEnded { command: String },
    /// `id`: identifies the order in the policy's state, where its outcome is found.
    Restart {
        target: String,
        id: String,
        #[serde(rename = "given")]
        requested_at: Stamp,
    },
    /// `id`: as in a restart.
    Drill {
        target: String,
        id: String,
        #[serde(rename = "given")]
        requested_at: Stamp,
    },
    /// Ends the drill of the order with this id.
    #[serde(rename = "cancel")]
    CancelDrill { target: String, id: String },
    /// `targets`: `None` for all. `clear_waits`: whether this also ends waits (cooldown, window, preconditions).
    Resume { targets: Option<Vec<String>>, clear_waits: bool },
    /// Read the configuration again, and answer.
    Reload,
}

/// What came of a request to read the configuration again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum ReloadAnswer {
    /// The new configuration is in use. `notes`: what does not work in it, one line each.
    Done { detail: String, notes: Vec<String> },
    /// The old configuration is kept, for this reason.
    Refused { reason: String },
}

impl Request {
    /// Whether a restart or a drill was ordered so long ago that nobody waits for it any more.
    pub fn is_outdated(&self, reading: &BootClockReading) -> bool {
        let (Request::Restart { requested_at: given, .. } | Request::Drill { requested_at: given, .. }) = self else {
            return false;
        };
        let Elapsed { ms, rebooted } = given.elapsed(reading);
        rebooted || Duration::from_millis(ms.unsigned_abs()) > MAX_ORDER_AGE
    }

    /// The end of the pause on the boot clock of `reading`; `None` if it has ended or this is no pause. A reboot ends
    /// the command, and with it its pause.
    pub fn pause_end(&self, reading: &BootClockReading) -> Option<BootTime> {
        let Request::Pause { length_ms, requested_at: given, command, .. } = self else { return None };
        let Elapsed { ms, rebooted } = given.elapsed(reading);
        let left =
            Duration::from_millis(*length_ms).min(MAX_PAUSE).saturating_sub(Duration::from_millis(ms.unsigned_abs()));
        let is_over = left.is_zero() || (rebooted && command.is_some());
        (!is_over).then(|| reading.at.now + left)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct PendingRequest {
    pub request: Request,
    path: PathBuf,
}

impl PendingRequest {
    pub fn is_handled(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    /// Removes the file: after the state that includes the request was saved.
    /// Errors: it cannot be removed and would be listed again, so the caller must remember that it was applied.
    pub fn remove(&self) -> Result<(), Error> {
        files::remove(&self.path).map_err(|cause| Error::new("remove", &self.path, cause))
    }

    /// Writes the answer: after the state that includes the request was saved, and before the request is removed.
    pub fn answer(&self, answer: &ReloadAnswer) -> Result<(), Error> {
        let path = self.path.with_extension(ANSWER);
        let bytes = serde_json::to_vec(answer).map_err(io::Error::from);
        bytes.and_then(|bytes| files::replace(&path, &bytes, false)).map_err(|cause| Error::new("write", &path, cause))
    }

    /// Reads and removes the answer; none if there is none yet.
    pub fn take_answer(&self) -> Option<ReloadAnswer> {
        let path = self.path.with_extension(ANSWER);
        let answer = serde_json::from_slice(&files::read(&path, MAX_SIZE).ok()?).ok()?;
        // If it cannot be removed now, the watchdog removes it later.
        let _ = files::remove(&path);
        Some(answer)
    }

    /// Removes the request before it is applied. Returns false if it was already applied.
    pub fn withdraw(&self) -> Result<bool, Error> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Error::new("remove", &self.path, cause)),
        }
    }
}

#[derive(Debug, Default)]
pub struct Requests {
    /// In the order of submission.
    pub pending: Vec<PendingRequest>,
    /// Requests that could not be read. A damaged one was set aside, and is reported only this once.
    pub unreadable: Vec<Error>,
}

/// Submits a request to the holder of the lock.
/// Errors: it cannot be written, or 100 requests are already waiting.
pub fn submit(folder: &Folder, request: Request) -> Result<PendingRequest, Error> {
    let subfolder = folder.subfolder(REQUESTS)?;
    let waiting = paths_with_extension(folder, "json")?;
    if waiting.len() >= MAX_WAITING {
        let why = format!("{MAX_WAITING} requests are already waiting; is a watchdog running?");
        return Err(Error::new("submit a request in", &subfolder, io::Error::other(why)));
    }
    // Sorts after all pending requests, whatever the clock shows; the pid separates two processes that submit at the
    // same time.
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.split('-').next()?.parse::<u64>().ok();
    let last = waiting.iter().filter_map(number).max().unwrap_or(0);
    let (next, pid) = (last.saturating_add(1), std::process::id());
    let mut paths = (0..).map(|n: u32| subfolder.join(format!("{next:015}-{pid:010}-{n:03}.json")));
    let is_free = |path: &PathBuf| !path.exists() && !path.with_extension(ANSWER).exists();
    let path = paths.find(is_free).expect("there is always another number");
    let bytes = serde_json::to_vec(&request).map_err(io::Error::from);
    let written = bytes.and_then(|bytes| files::replace(&path, &bytes, true));
    match written {
        Ok(()) => Ok(PendingRequest { request, path }),
        Err(cause) => Err(Error::new("write", &path, cause)),
    }
}

/// The pending requests, for readers: nothing is set aside, and unreadable ones are skipped.
pub fn peek(folder: &Folder) -> Vec<Request> {
    let paths = paths_with_extension(folder, "json").unwrap_or_default();
    let read = |path: &PathBuf| serde_json::from_slice(&files::read(path, MAX_SIZE).ok()?).ok();
    paths.iter().take(MAX_WAITING).filter_map(read).collect()
}

/// The pending requests. Sets damaged ones aside and removes what killed commands left half-written. Only the holder
/// of the lock may call this.
pub fn list(folder: &Folder) -> Result<Requests, Error> {
    let mut requests = Requests::default();
    let paths = paths_with_extension(folder, "json")?;
    let is_clean = paths_with_extension(folder, "tmp")?.is_empty() && paths_with_extension(folder, ANSWER)?.is_empty();
    if paths.is_empty() && is_clean {
        return Ok(requests);
    }
    for path in paths.into_iter().take(MAX_WAITING) {
        let broken = |error: serde_json::Error| files::invalid_data(error.to_string());
        let read = files::read(&path, MAX_SIZE).and_then(|bytes| serde_json::from_slice(&bytes).map_err(broken));
        match read {
            Ok(request) => requests.pending.push(PendingRequest { request, path }),
            // Withdrawn just now.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => {
                let is_damaged = cause.kind() == io::ErrorKind::InvalidData;
                requests.unreadable.push(Error::new("read request", &path, cause));
                // After any other error the request may be intact; it is tried again.
                if is_damaged && let Err(cause) = fs::rename(&path, path.with_extension("damaged")) {
                    requests.unreadable.push(Error::new("set aside", &path, cause));
                }
            }
        }
    }
    remove_leftovers(folder)?;
    Ok(requests)
}

/// Keeps only the latest damaged request; half-written ones and answers only while the sender of the request is alive.
fn remove_leftovers(folder: &Folder) -> Result<(), Error> {
    let writer = |path: &PathBuf| path.file_name()?.to_str()?.split('-').nth(1)?.parse().ok();
    let is_abandoned = |path: &PathBuf| writer(path).and_then(process::identify_living).is_none();
    let mut leftovers = paths_with_extension(folder, "damaged")?;
    leftovers.pop();
    leftovers.extend(paths_with_extension(folder, "tmp")?.into_iter().filter(is_abandoned));
    leftovers.extend(paths_with_extension(folder, ANSWER)?.into_iter().filter(is_abandoned));
    for path in leftovers {
        files::remove(&path).map_err(|cause| Error::new("remove", &path, cause))?;
    }
    Ok(())
}

fn paths_with_extension(folder: &Folder, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let path = folder.file(REQUESTS);
    let entries = files::list_folder(&path).map_err(|cause| Error::new("read", &path, cause))?;
    let mut found: Vec<PathBuf> = entries.iter().map(|(entry, _)| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::testing::{boot_clock_reading, temp_state_folder};
    use crate::time::{ClockReading, WallTime};

    /// 50 s after the boot.
    fn now() -> BootClockReading {
        boot_clock_reading(BootTime::from_ms(50_000), WallTime::from_ms(1_795_313_530_000), Some("boot-1"))
    }

    fn pause(length_ms: u64) -> Request {
        Request::Pause { targets: Some(vec!["a".into()]), length_ms, requested_at: Stamp::of(&now()), command: None }
    }

    fn list_pending(folder: &Folder) -> Vec<Request> {
        list(folder).unwrap().pending.into_iter().map(|waiting| waiting.request).collect()
    }

    #[test]
    fn requests_are_listed_in_the_order_of_submission() {
        let (_scene, folder) = temp_state_folder();
        assert_eq!(list_pending(&folder), []);
        let resume = Request::Resume { targets: None, clear_waits: true };
        submit(&folder, pause(1)).unwrap();
        submit(&folder, pause(2)).unwrap();
        let last = submit(&folder, resume.clone()).unwrap();
        assert_eq!(list_pending(&folder), [pause(1), pause(2), resume.clone()]);
        assert_eq!(fs::metadata(&last.path).unwrap().mode() & 0o777, 0o600);
        list(&folder).unwrap().pending[0].remove().unwrap();
        assert_eq!(list_pending(&folder), [pause(2), resume]);
        assert!(!last.is_handled());
        for waiting in list(&folder).unwrap().pending {
            waiting.remove().unwrap();
        }
        assert!(last.is_handled());
        last.remove().unwrap();
        assert_eq!(folder.file(REQUESTS).read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_pending_request_can_be_withdrawn() {
        let (_scene, folder) = temp_state_folder();
        let (first, second) = (submit(&folder, pause(1)).unwrap(), submit(&folder, pause(2)).unwrap());
        assert!(first.withdraw().unwrap());
        assert_eq!(list_pending(&folder), [pause(2)]);
        list(&folder).unwrap().pending[0].remove().unwrap();
        assert!(!second.withdraw().unwrap(), "it was already applied");
    }

    /// A pause of 30 min requested at `now()`: how many seconds are left after this much time on each clock.
    #[track_caller]
    fn check_left(boot_id: Option<&str>, by_boot_s: i64, by_wall_s: i64, expected: Option<i64>) {
        let ClockReading { now: at, wall } = now().at;
        let reading = boot_clock_reading(at.offset_by(by_boot_s * 1_000), wall.offset_by(by_wall_s * 1_000), boot_id);
        let left = |request: &Request| {
            request.pause_end(&reading).map(|until| (until.as_ms() - reading.at.now.as_ms()) / 1_000)
        };
        assert_eq!(left(&pause(1_800_000)), expected, "{boot_id:?} {by_boot_s} {by_wall_s}");
    }

    #[test]
    fn a_pause_keeps_its_length_whatever_the_clocks_show() {
        const YEARS: i64 = 300_000_000;
        let (same, other) = (Some("boot-1"), Some("boot-2"));
        for by_wall in [0, 600, YEARS, -YEARS] {
            check_left(same, 600, by_wall, Some(1_200));
            check_left(same, 1_800, by_wall, None);
            check_left(same, -7, by_wall, Some(1_800)); // requested by a clock that is slightly ahead
        }
        // In another boot the wall clock counts, and one that was set back counts as no time at all.
        check_left(other, -40, 600, Some(1_200));
        check_left(other, -40, 1_800, None);
        check_left(other, -40, -YEARS, Some(1_800));
        for ids in [None, other] {
            check_left(ids, 600, 600, Some(1_200));
        }
        check_left(None, 600, -YEARS, Some(1_800));

        let left = |request: &Request| request.pause_end(&now()).map(|until| until.as_ms() - 50_000);
        assert_eq!(left(&pause(u64::MAX)), Some(86_400_000), "at most a day, whatever the file says");
        assert_eq!(left(&pause(0)), None);
        assert_eq!(left(&Request::CommandEnded { command: "x".into() }), None);
    }

    #[test]
    fn a_reboot_ends_the_pause_of_a_command() {
        let Request::Pause { targets, length_ms, requested_at: given, .. } = pause(1_800_000) else {
            panic!("a pause")
        };
        let request = Request::Pause { targets, length_ms, requested_at: given, command: Some("./deploy".into()) };
        let later = |boot_id| boot_clock_reading(now().at.now, now().at.wall.offset_by(5_000), Some(boot_id));
        assert!(request.pause_end(&later("boot-1")).is_some());
        assert_eq!(request.pause_end(&later("boot-2")), None);
    }

    #[test]
    fn a_restart_is_not_made_long_after_it_was_ordered() {
        let order = Request::Restart { target: "a".into(), id: "1".into(), requested_at: Stamp::of(&now()) };
        let is_outdated_after = |boot_id, ms| {
            let ClockReading { now: at, wall } = now().at;
            order.is_outdated(&boot_clock_reading(at.offset_by(ms), wall.offset_by(ms), Some(boot_id)))
        };
        assert!(!is_outdated_after("boot-1", 60_000) && is_outdated_after("boot-1", 60_001));
        assert!(is_outdated_after("boot-2", 5_000));
        let drill = Request::Drill { target: "a".into(), id: "1".into(), requested_at: Stamp::of(&now()) };
        let later = boot_clock_reading(now().at.now.offset_by(60_001), now().at.wall.offset_by(60_001), Some("boot-1"));
        assert!(drill.is_outdated(&later) && !drill.is_outdated(&now()));
        assert!(!pause(1).is_outdated(&now()));
    }

    #[test]
    fn at_most_a_hundred_requests_wait() {
        let (_scene, folder) = temp_state_folder();
        for n in 0..100 {
            submit(&folder, pause(n)).unwrap();
        }
        let error = submit(&folder, pause(0)).unwrap_err().to_string();
        assert!(error.ends_with("100 requests are already waiting; is a watchdog running?"), "{error}");
        assert_eq!(list_pending(&folder).len(), 100);
    }

    #[test]
    fn damaged_requests_are_reported_once() {
        let (_scene, folder) = temp_state_folder();
        let good = submit(&folder, pause(1)).unwrap();
        let file = |name: &str| folder.file(REQUESTS).join(name);
        fs::write(file("1.json"), "{").unwrap();
        fs::write(file("2.json"), "").unwrap();
        fs::write(file("3.json"), r#"{"order":"explode"}"#).unwrap();
        fs::write(file("4.json"), vec![b' '; 2 << 20]).unwrap();
        symlink("/etc/passwd", file("5.json")).unwrap();
        fs::create_dir(file("6.json")).unwrap();
        let first = list(&folder).unwrap();
        assert_eq!(first.pending.len(), 1);
        assert_eq!(first.unreadable.len(), 6, "{:?}", first.unreadable);
        let second = list(&folder).unwrap();
        assert_eq!((second.pending.len(), second.unreadable.len()), (1, 0));
        good.remove().unwrap();
        // Only the latest damaged one is left, whatever it is.
        assert_eq!(folder.file(REQUESTS).read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_link_instead_of_the_folder_is_refused() {
        let (scene, folder) = temp_state_folder();
        let elsewhere = Folder::open(&scene.path().join("elsewhere")).unwrap();
        submit(&elsewhere, pause(1)).unwrap();
        symlink(elsewhere.file(REQUESTS), folder.file(REQUESTS)).unwrap();
        assert!(list(&folder).is_err());
        assert!(submit(&folder, pause(2)).is_err());
        assert_eq!(list_pending(&elsewhere), [pause(1)]);
    }

    #[test]
    fn an_answer_is_taken_once_and_never_left_behind() {
        let (_scene, folder) = temp_state_folder();
        let request = submit(&folder, Request::Reload).unwrap();
        assert_eq!(request.take_answer(), None);
        let answer = ReloadAnswer::Done { detail: "1 target".into(), notes: vec!["x".into()] };
        list(&folder).unwrap().pending[0].answer(&answer).unwrap();
        // The number of an answered request is not given again before the answer was taken.
        assert!(request.withdraw().unwrap());
        let next = submit(&folder, Request::Reload).unwrap();
        assert_eq!((request.take_answer(), request.take_answer(), next.take_answer()), (Some(answer), None, None));
        next.answer(&ReloadAnswer::Refused { reason: "y".into() }).unwrap();
        let gone = folder.file(REQUESTS).join("1-4294967295-000.answer");
        fs::write(&gone, "{}").unwrap();
        assert_eq!(list_pending(&folder), [Request::Reload]);
        assert!(!gone.exists(), "its sender has exited");
        assert_eq!(next.take_answer(), Some(ReloadAnswer::Refused { reason: "y".into() }));
    }

    #[test]
    fn half_written_requests_are_removed_once_their_writer_has_exited() {
        let (_scene, folder) = temp_state_folder();
        submit(&folder, pause(1)).unwrap();
        let own = folder.file(REQUESTS).join(format!("1-{}-000.tmp", std::process::id()));
        let gone = folder.file(REQUESTS).join("1-4294967295-000.tmp");
        fs::write(&own, "{").unwrap();
        fs::write(&gone, "{").unwrap();
        assert_eq!(list_pending(&folder), [pause(1)]);
        assert!(own.exists() && !gone.exists());
    }
}
