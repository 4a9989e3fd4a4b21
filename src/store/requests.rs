//! `orders/`: how `pause` and `resume` reach whoever holds the lock, one small file per order. Whoever gives one
//! writes it whole; whoever holds the lock carries it out, saves the state with it, and removes it.
//! Carried out twice after a crash in between, an order comes to the same. A pause is kept as its length and the moment
//! of its giving, never as a date: what a wall clock says that is set meanwhile changes nothing.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BootClockReading, Elapsed, Error, Folder, Stamp, files};
use crate::process;
use crate::time::BootTime;

const ORDERS: &str = "orders";
const MAX_WAITING: usize = 100;
/// More than the names of a thousand targets.
const MAX_SIZE: u64 = 1 << 20;
/// The longest pause, as the contract has it.
const LONGEST: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Request {
    /// Restart nothing for a while.
    Pause {
        /// `None`: all.
        targets: Option<Vec<String>>,
        /// For so long from its giving.
        length_ms: u64,
        given: Stamp,
        /// The name of a command with whose end it ends, if that is sooner.
        #[serde(default)]
        command: Option<String>,
    },
    /// End the pause of a command that has ended.
    Over { command: String },
    /// `targets`: `None` for all. `clear_waits`: whether waits (cooldown, window, gates) end with it.
    Resume { targets: Option<Vec<String>>, clear_waits: bool },
}

impl Request {
    /// When the pause ends, on the boot clock of `moment`; `None` where it has ended, or is none. A command does not
    /// outlive a reboot, nor does its pause.
    pub fn pauses_until(&self, moment: &BootClockReading) -> Option<BootTime> {
        let Request::Pause { length_ms, given, command, .. } = self else { return None };
        let Elapsed { ms, rebooted } = given.elapsed(moment);
        let left =
            Duration::from_millis(*length_ms).min(LONGEST).saturating_sub(Duration::from_millis(ms.unsigned_abs()));
        let is_over = left.is_zero() || (rebooted && command.is_some());
        (!is_over).then(|| moment.at.now + left)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct PendingRequest {
    pub order: Request,
    path: PathBuf,
}

impl PendingRequest {
    pub fn is_done(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    /// Removes it: once the state with it was saved, or when whoever gave it takes it back.
    /// Errors: it cannot be removed and would be listed again; whoever carries orders out must remember it.
    pub fn done(&self) -> Result<(), Error> {
        files::remove(&self.path).map_err(|cause| Error::new("remove", &self.path, cause))
    }
}

impl PendingRequest {
    /// Takes it back; whether nobody was faster and carried it out.
    pub fn take_back(&self) -> Result<bool, Error> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Error::new("remove", &self.path, cause)),
        }
    }
}

#[derive(Debug, Default)]
pub struct Requests {
    /// In the order in which they were given.
    pub waiting: Vec<PendingRequest>,
    /// What could not be read. A damaged one was set aside, and is told this once.
    pub refused: Vec<Error>,
}

/// Leaves an order for whoever holds the lock.
/// Errors: it cannot be written, or 100 wait already.
pub fn put(folder: &Folder, order: Request) -> Result<PendingRequest, Error> {
    let orders = folder.subfolder(ORDERS)?;
    let waiting = names(folder, "json")?;
    if waiting.len() >= MAX_WAITING {
        let why = format!("{MAX_WAITING} orders wait there already; is a watchdog at work?");
        return Err(Error::new("give an order in", &orders, io::Error::other(why)));
    }
    // Sorts behind all that wait, whatever the clock says; the process is for two who give one at the same moment.
    let place = |path: &PathBuf| path.file_stem()?.to_str()?.split('-').next()?.parse::<u64>().ok();
    let last = waiting.iter().filter_map(place).max().unwrap_or(0);
    let (next, pid) = (last.saturating_add(1), std::process::id());
    let mut names = (0..).map(|n: u32| orders.join(format!("{next:015}-{pid:010}-{n:03}.json")));
    let path = names.find(|path| !path.exists()).expect("there is always another number");
    let bytes = serde_json::to_vec(&order).map_err(io::Error::from);
    let written = bytes.and_then(|bytes| files::replace(&path, &bytes, true));
    match written {
        Ok(()) => Ok(PendingRequest { order, path }),
        Err(cause) => Err(Error::new("write", &path, cause)),
    }
}

/// The orders that wait, for those who only look: nothing is set aside, and what cannot be read is passed over.
pub fn peek(folder: &Folder) -> Vec<Request> {
    let paths = names(folder, "json").unwrap_or_default();
    let read = |path: &PathBuf| serde_json::from_slice(&files::read(path, MAX_SIZE).ok()?).ok();
    paths.iter().take(MAX_WAITING).filter_map(read).collect()
}

/// The orders that wait. Sets damaged ones aside and clears away what a killed verb left half-written.
/// Only whoever holds the lock may call this.
pub fn list(folder: &Folder) -> Result<Requests, Error> {
    let mut orders = Requests::default();
    let given = names(folder, "json")?;
    if given.is_empty() && names(folder, "tmp")?.is_empty() {
        return Ok(orders);
    }
    for path in given.into_iter().take(MAX_WAITING) {
        let broken = |error: serde_json::Error| files::damaged(error.to_string());
        let read = files::read(&path, MAX_SIZE).and_then(|bytes| serde_json::from_slice(&bytes).map_err(broken));
        match read {
            Ok(order) => orders.waiting.push(PendingRequest { order, path }),
            // Taken back just now.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => {
                let is_damaged = cause.kind() == io::ErrorKind::InvalidData;
                orders.refused.push(Error::new("read order", &path, cause));
                // One that the machine keeps us from reading may be in order, and is tried again.
                if is_damaged && let Err(cause) = fs::rename(&path, path.with_extension("damaged")) {
                    orders.refused.push(Error::new("set aside", &path, cause));
                }
            }
        }
    }
    clear_away(folder)?;
    Ok(orders)
}

/// One damaged order is kept, the latest, and no half-written one whose writer is gone.
fn clear_away(folder: &Folder) -> Result<(), Error> {
    let writer = |path: &PathBuf| path.file_name()?.to_str()?.split('-').nth(1)?.parse().ok();
    let abandoned = |path: &PathBuf| writer(path).and_then(process::identify_living).is_none();
    let mut litter = names(folder, "damaged")?;
    litter.pop();
    litter.extend(names(folder, "tmp")?.into_iter().filter(abandoned));
    for path in litter {
        files::remove(&path).map_err(|cause| Error::new("remove", &path, cause))?;
    }
    Ok(())
}

fn names(folder: &Folder, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let path = folder.file(ORDERS);
    let entries = files::entries(&path).map_err(|cause| Error::new("read", &path, cause))?;
    let mut found: Vec<PathBuf> = entries.iter().map(|(entry, _)| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot prepare its scene must end")]

    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::testing::{boot_clock_reading, temp_state_folder};
    use crate::time::{ClockReading, WallTime};

    /// 50 s after the boot.
    fn now() -> BootClockReading {
        boot_clock_reading(BootTime::from_ms(50_000), WallTime::from_ms(1_795_313_530_000), Some("boot-1"))
    }

    fn pause(length_ms: u64) -> Request {
        Request::Pause { targets: Some(vec!["a".into()]), length_ms, given: Stamp::of(&now()), command: None }
    }

    fn given(folder: &Folder) -> Vec<Request> {
        list(folder).unwrap().waiting.into_iter().map(|waiting| waiting.order).collect()
    }

    #[test]
    fn orders_arrive_in_the_order_in_which_they_were_given() {
        let (_scene, folder) = temp_state_folder();
        assert_eq!(given(&folder), []);
        let resume = Request::Resume { targets: None, clear_waits: true };
        put(&folder, pause(1)).unwrap();
        put(&folder, pause(2)).unwrap();
        let last = put(&folder, resume.clone()).unwrap();
        assert_eq!(given(&folder), [pause(1), pause(2), resume.clone()]);
        assert_eq!(fs::metadata(&last.path).unwrap().mode() & 0o777, 0o600);
        list(&folder).unwrap().waiting[0].done().unwrap();
        assert_eq!(given(&folder), [pause(2), resume]);
        assert!(!last.is_done());
        for waiting in list(&folder).unwrap().waiting {
            waiting.done().unwrap();
        }
        assert!(last.is_done());
        last.done().unwrap();
        assert_eq!(folder.file(ORDERS).read_dir().unwrap().count(), 0);
    }

    #[test]
    fn one_that_waits_can_be_taken_back() {
        let (_scene, folder) = temp_state_folder();
        let (first, second) = (put(&folder, pause(1)).unwrap(), put(&folder, pause(2)).unwrap());
        assert!(first.take_back().unwrap());
        assert_eq!(given(&folder), [pause(2)]);
        list(&folder).unwrap().waiting[0].done().unwrap();
        assert!(!second.take_back().unwrap(), "somebody was faster");
    }

    /// A pause of 30 min given at `now()`: how many seconds of it are left so much later by each clock.
    #[track_caller]
    fn check_left(boot_id: Option<&str>, by_boot_s: i64, by_wall_s: i64, expected: Option<i64>) {
        let ClockReading { now: at, wall } = now().at;
        let moment = boot_clock_reading(at.offset_by(by_boot_s * 1_000), wall.offset_by(by_wall_s * 1_000), boot_id);
        let left =
            |order: &Request| order.pauses_until(&moment).map(|until| (until.as_ms() - moment.at.now.as_ms()) / 1_000);
        assert_eq!(left(&pause(1_800_000)), expected, "{boot_id:?} {by_boot_s} {by_wall_s}");
    }

    #[test]
    fn a_pause_is_a_length_whatever_the_clock_says() {
        const YEARS: i64 = 300_000_000;
        let (same, other) = (Some("boot-1"), Some("boot-2"));
        for by_wall in [0, 600, YEARS, -YEARS] {
            check_left(same, 600, by_wall, Some(1_200));
            check_left(same, 1_800, by_wall, None);
            check_left(same, -7, by_wall, Some(1_800)); // given on a clock that is a little ahead
        }
        // Another boot: the wall clock, and one that was set back counts as no time at all.
        check_left(other, -40, 600, Some(1_200));
        check_left(other, -40, 1_800, None);
        check_left(other, -40, -YEARS, Some(1_800));
        for ids in [None, other] {
            check_left(ids, 600, 600, Some(1_200));
        }
        check_left(None, 600, -YEARS, Some(1_800));

        let left = |order: &Request| order.pauses_until(&now()).map(|until| until.as_ms() - 50_000);
        assert_eq!(left(&pause(u64::MAX)), Some(86_400_000), "a day at most, whoever wrote it");
        assert_eq!(left(&pause(0)), None);
        assert_eq!(left(&Request::Over { command: "x".into() }), None);
    }

    #[test]
    fn the_pause_of_a_command_ends_with_the_boot() {
        let Request::Pause { targets, length_ms, given, .. } = pause(1_800_000) else { panic!("a pause") };
        let order = Request::Pause { targets, length_ms, given, command: Some("./deploy".into()) };
        let later = |boot_id| boot_clock_reading(now().at.now, now().at.wall.offset_by(5_000), Some(boot_id));
        assert!(order.pauses_until(&later("boot-1")).is_some());
        assert_eq!(order.pauses_until(&later("boot-2")), None);
    }

    #[test]
    fn a_hundred_may_wait() {
        let (_scene, folder) = temp_state_folder();
        for n in 0..100 {
            put(&folder, pause(n)).unwrap();
        }
        let error = put(&folder, pause(0)).unwrap_err().to_string();
        assert!(error.ends_with("100 orders wait there already; is a watchdog at work?"), "{error}");
        assert_eq!(given(&folder).len(), 100);
    }

    #[test]
    fn damaged_ones_are_told_once() {
        let (_scene, folder) = temp_state_folder();
        let good = put(&folder, pause(1)).unwrap();
        let file = |name: &str| folder.file(ORDERS).join(name);
        fs::write(file("1.json"), "{").unwrap();
        fs::write(file("2.json"), "").unwrap();
        fs::write(file("3.json"), r#"{"order":"explode"}"#).unwrap();
        fs::write(file("4.json"), vec![b' '; 2 << 20]).unwrap();
        symlink("/etc/passwd", file("5.json")).unwrap();
        fs::create_dir(file("6.json")).unwrap();
        let first = list(&folder).unwrap();
        assert_eq!(first.waiting.len(), 1);
        assert_eq!(first.refused.len(), 6, "{:?}", first.refused);
        let second = list(&folder).unwrap();
        assert_eq!((second.waiting.len(), second.refused.len()), (1, 0));
        good.done().unwrap();
        // The latest damaged one, whatever it is, is all that is left.
        assert_eq!(folder.file(ORDERS).read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_refused() {
        let (scene, folder) = temp_state_folder();
        let elsewhere = Folder::open(&scene.path().join("elsewhere")).unwrap();
        put(&elsewhere, pause(1)).unwrap();
        symlink(elsewhere.file(ORDERS), folder.file(ORDERS)).unwrap();
        assert!(list(&folder).is_err());
        assert!(put(&folder, pause(2)).is_err());
        assert_eq!(given(&elsewhere), [pause(1)]);
    }

    #[test]
    fn half_written_orders_go_with_their_writer() {
        let (_scene, folder) = temp_state_folder();
        put(&folder, pause(1)).unwrap();
        let me = folder.file(ORDERS).join(format!("1-{}-000.tmp", std::process::id()));
        let gone = folder.file(ORDERS).join("1-4294967295-000.tmp");
        fs::write(&me, "{").unwrap();
        fs::write(&gone, "{").unwrap();
        assert_eq!(given(&folder), [pause(1)]);
        assert!(me.exists() && !gone.exists());
    }
}
