//! What a tick has complained of already, so that cron mails the same trouble once a day and not at every tick.

use std::fs;
use std::time::Duration;

use super::{Folder, files};
use crate::time::Wall;

const COMPLAINT: &str = "complaint";
const MAX_SIZE: u64 = 64 << 10;
/// The same complaint is news again after this.
const NEWS_AFTER: Duration = Duration::from_secs(86_400);

/// Whether `text` is to be said at `wall`: it is another complaint than the last one, or that one is a day old.
/// Where this cannot be kept, it is: better too often than never.
pub fn is_news(folder: &Folder, text: &str, wall: Wall) -> bool {
    let path = folder.file(COMPLAINT);
    let told = fs::symlink_metadata(&path).map(|metadata| files::modified(&metadata));
    let is_same = files::read(&path, MAX_SIZE).is_ok_and(|last| last == text.as_bytes());
    let is_recent = told.is_ok_and(|told| wall.since(told) < NEWS_AFTER && told.since(wall) < NEWS_AFTER);
    if is_same && is_recent {
        return false;
    }
    // Not kept, it is said again: nothing is lost by that.
    let _ = folder.ensure().map(|()| files::replace(&path, text.as_bytes(), false));
    true
}

/// The trouble is over: should it come again, it is news.
pub fn forget(folder: &Folder) {
    // Where it stays, the same trouble is told a day later: too rare to be worth a word.
    let _ = files::remove(&folder.file(COMPLAINT));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_once_a_day() {
        let scene = tempfile::tempdir().expect("a folder");
        let folder = Folder::at(&scene.path().join("state"));
        let kept = |folder: &Folder| {
            let metadata = fs::symlink_metadata(folder.file(COMPLAINT)).expect("it was kept");
            files::modified(&metadata)
        };
        let now = Wall::from_ms(1_795_313_530_123);
        assert!(is_news(&folder, "bad", now));
        let told = kept(&folder);
        assert!(!is_news(&folder, "bad", told.shifted(60_000)));
        assert!(is_news(&folder, "worse", told.shifted(60_000)));
        assert!(is_news(&folder, "worse", kept(&folder).shifted(86_400_001)));
        forget(&folder);
        assert!(is_news(&folder, "worse", now));
    }

    #[test]
    fn where_it_cannot_be_kept_it_is_told() {
        let folder = Folder::at(std::path::Path::new("/proc/nowhere"));
        assert!(is_news(&folder, "bad", Wall::default()) && is_news(&folder, "bad", Wall::default()));
    }
}
