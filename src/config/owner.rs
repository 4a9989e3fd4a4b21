//! The owner of a configuration and that account's home: root finds another account's watchdog in the home of that
//! account. It must never guess a home that `/etc/passwd` does not name.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const PASSWD: &str = "/etc/passwd";

/// The owner of the file, if that is neither this account nor root.
pub fn other_owner(path: &Path) -> Option<u32> {
    let owner = fs::metadata(path).ok()?.uid();
    (owner != 0 && owner != rustix::process::geteuid().as_raw()).then_some(owner)
}

/// The home of an account in `/etc/passwd`. `None` if there is none or the folder does not exist: its watchdog then
/// uses another home, which only its own environment names.
pub(super) fn home_of(uid: u32) -> Option<PathBuf> {
    home_in(&fs::read(PASSWD).ok()?, uid).filter(|home| home.is_dir())
}

/// The name of this account in `/etc/passwd`; none if another database has it.
pub fn account_name() -> Option<String> {
    name_in(&fs::read(PASSWD).ok()?, rustix::process::geteuid().as_raw())
}

fn name_in(passwd: &[u8], uid: u32) -> Option<String> {
    let [name, ..] = account(passwd, uid)?;
    String::from_utf8(name.to_vec()).ok()
}

fn home_in(passwd: &[u8], uid: u32) -> Option<PathBuf> {
    let [.., home, _shell] = account(passwd, uid)?;
    Some(PathBuf::from(OsStr::from_bytes(home))).filter(|home| home.is_absolute())
}

/// The fields of an account. Its first line counts, as in the C library.
fn account(passwd: &[u8], uid: u32) -> Option<[&[u8]; 7]> {
    let mut lines = passwd.split(|&byte| byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        <[&[u8]; 7]>::try_from(fields).ok()
    });
    lines.find(|[_name, _password, number, ..]| str::from_utf8(number).is_ok_and(|text| text.parse() == Ok(uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uid: u32, expected: Option<&str>) {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\n\
            # a comment\n\
            1000:x:1001:1000:,,,:/home/1000:/bin/sh\n\
            jane:x:1000:1002:Jane D\xf6e,,1001,:/home/jane d:/bin/sh\n\
            again:x:1000:1000::/home/again:/bin/sh\n\
            none:x:7:7:::/bin/sh\n\
            relative:x:8:8::home:/bin/sh\n\
            short:x:9:9:/home/short\n\
            +::::::\n\
            last:x:10:10::/home/last:";
        assert_eq!(home_in(passwd, uid).as_deref(), expected.map(Path::new), "{uid}");
    }

    #[test]
    fn the_name_is_the_first_field() {
        assert_eq!(name_in(b"root:x:0:0:root:/root:/bin/sh\njane:x:7:7::/x:", 7).as_deref(), Some("jane"));
        assert_eq!(name_in(b"", 7), None);
    }

    #[test]
    fn the_home_is_the_sixth_field_of_the_first_line_of_an_account() {
        check(0, Some("/root"));
        check(1000, Some("/home/jane d"));
        check(1001, Some("/home/1000"));
        check(1002, None);
        check(7, None);
        check(8, None);
        check(9, None);
        check(10, Some("/home/last"));
        assert_eq!(home_in(b"", 0), None);
    }
}
