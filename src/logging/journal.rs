//! Recognizes systemd's journal behind a stream. It must never take another stream for it: `JOURNAL_STREAM` is
//! inherited by everything that a service starts, whatever its streams are.

use std::os::fd::AsFd;

use rustix::fs::fstat;

/// Whether the stream is the one that `journal_stream` names, the value of `JOURNAL_STREAM`: device and inode.
pub fn is_journal(stream: impl AsFd, journal_stream: Option<&str>) -> bool {
    let named = journal_stream.and_then(|value| value.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?)));
    match (named, fstat(stream)) {
        (Some(named), Ok(found)) => named == (found.st_dev, found.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn only_the_named_stream_is_the_journal() {
        let stream = File::open("/dev/null").expect("it is there");
        let found = stream.metadata().expect("of an open file");
        let (device, inode) = (found.dev(), found.ino());
        let check = |value: Option<&str>, expected: bool| assert_eq!(is_journal(&stream, value), expected, "{value:?}");
        check(Some(&format!("{device}:{inode}")), true);
        check(Some(&format!("{device}:{}", inode + 1)), false);
        check(Some(&format!("{}:{inode}", device + 1)), false);
        for value in [None, Some(""), Some(":"), Some("x:y"), Some("8"), Some("-1:-1")] {
            check(value, false);
        }
    }
}
