//! Finds the program of a command without starting anything. It must never say that one is missing when in truth it
//! cannot tell.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// What the C library searches where `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Longer first lines of scripts are none.
const FIRST_LINE: usize = 256;
/// Words that a shell acts on itself, so that no program of that name has to exist.
const BUILT_IN: &str = ". : [ [[ alias bg break builtin case cd command continue coproc declare dirs do done echo elif \
                        else enable esac eval exit export false fg fi for function getopts hash help history if in \
                        jobs kill let local logout popd printf pushd pwd read readonly return select set shift shopt \
                        source test then time times trap true type typeset ulimit umask unalias unset until wait while";

/// Characters that give a word another meaning than its letters have.
const FANCY: &[char] = &['$', '`', '"', '\'', '\\', '*', '?', '[', ']', '{', '}', '~', '#', '!', '(', ')'];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    Missing(String),
    NotExecutable(PathBuf),
    Folder(PathBuf),
    /// A folder on the way there is closed to us, so nobody can tell.
    Closed(PathBuf),
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotFound::Missing(name) if name.contains('/') => write!(f, "no such file: {name}"),
            NotFound::Missing(name) => write!(f, "no such file: {name} is nowhere in PATH"),
            NotFound::NotExecutable(path) => write!(f, "not executable: {}", path.display()),
            NotFound::Folder(path) => write!(f, "not a program but a folder: {}", path.display()),
            NotFound::Closed(path) => write!(f, "permission denied: {}", path.display()),
        }
    }
}

/// The file that running `argv0` in `folder` would run, absolute if `folder` is: a name with a slash is relative to
/// `folder`, another is searched in `path_var`, which stands for `PATH`, as the C library does.
/// Errors: the first thing found that cannot be run, else that there is none.
pub fn find_program(argv0: &str, folder: &Path, path_var: Option<&OsStr>) -> Result<PathBuf, NotFound> {
    if argv0.contains('/') {
        return judge(folder.join(argv0)).unwrap_or_else(|| Err(NotFound::Missing(argv0.to_owned())));
    }
    let missing = NotFound::Missing(argv0.to_owned());
    if argv0.is_empty() {
        return Err(missing);
    }
    let path_var = path_var.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut refused = None;
    for place in std::env::split_paths(path_var) {
        match judge(folder.join(place).join(argv0)) {
            Some(Ok(found)) => return Ok(found),
            // A place that is closed to us offers us nothing.
            Some(Err(NotFound::Closed(_))) | None => {}
            Some(Err(reason)) => refused = refused.or(Some(reason)),
        }
    }
    Err(refused.unwrap_or(missing))
}

/// Finds a program as [`find_program`] does, and what its first line calls for too: `pm2` without `node` is of no use.
/// Errors: which of the two cannot be run and why, in words.
pub fn locate(program: &str, folder: &Path, path_var: Option<&OsStr>) -> Result<PathBuf, String> {
    let found = find_program(program, folder, path_var).map_err(|error| error.to_string())?;
    match interpreter(&found).map(|interpreter| (find_program(&interpreter, folder, path_var), interpreter)) {
        Some((Err(error), interpreter)) => Err(format!("{program} needs {interpreter}: {error}")),
        Some((Ok(_), _)) | None => Ok(found),
    }
}

/// What runs a script: the program after `#!`, or after `#!/usr/bin/env`.
fn interpreter(script: &Path) -> Option<String> {
    let mut head = [0; FIRST_LINE];
    let length = File::open(script).and_then(|mut file| file.read(&mut head)).ok()?;
    let line = head.get(..length)?.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    if first.rsplit('/').next() != Some("env") {
        return Some(first.to_string());
    }
    words.find(|word| !word.starts_with('-') && !word.contains('=')).map(str::to_string)
}

/// A word as a shell must be given it: quoted where it has anything special.
pub fn for_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    let is_plain = !word.is_empty() && word.chars().all(plain);
    if is_plain { word.to_string() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The program that the shell text starts first, as far as that can be told without being a shell: assignments and
/// `exec` are skipped; none for whatever a shell does itself, and for all that it would expand.
pub fn first_word(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let end = rest.find(|c: char| c.is_whitespace() || ";&|<>()".contains(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() || word.starts_with('-') || word.contains(FANCY) || after.starts_with('(') {
            return None;
        }
        match word.split_once('=') {
            Some(("PATH", _)) => return None, // it changes where the word that follows is looked up
            Some((name, _)) if is_variable(name) => {}
            _ if word == "exec" => {}
            _ if BUILT_IN.split(' ').any(|own| own == word) => return None,
            _ => return Some(word),
        }
        // Both go on with the next word of the same command only.
        if !after.starts_with([' ', '\t']) {
            return None;
        }
        rest = after;
    }
}

fn is_variable(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether the file may be run by us; none where there is no file.
fn judge(path: PathBuf) -> Option<Result<PathBuf, NotFound>> {
    match path.metadata() {
        Ok(found) if found.is_dir() => Some(Err(NotFound::Folder(path))),
        Ok(_) if access(&path, Access::EXEC_OK).is_ok() => Some(Ok(path)),
        Ok(_) => Some(Err(NotFound::NotExecutable(path))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Err(NotFound::Closed(path))),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn programs_are_found_as_the_system_would() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("bin/tool")).expect("folders");
        fs::create_dir(at("later")).expect("a folder");
        symlink("/bin/sh", at("bin/shell")).expect("a link");
        symlink("/bin/sh", at("later/plain")).expect("a link");
        symlink("/nowhere", at("bin/dangling")).expect("a link");
        fs::write(at("bin/plain"), "text").expect("a file");

        #[track_caller]
        fn check(folder: &Path, argv0: &str, path_var: Option<&str>, expected: Result<&str, &str>) {
            let found = find_program(argv0, folder, path_var.map(OsStr::new)).map_err(|error| error.to_string());
            let place = format!("{}/", folder.display());
            let found = found.map(|path| path.display().to_string().replace(&place, ""));
            let found = found.map_err(|text| text.replace(&place, ""));
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{argv0} in {path_var:?}");
        }
        let both = Some("bin:later");
        check(folder.path(), "shell", both, Ok("bin/shell"));
        check(folder.path(), "plain", both, Ok("later/plain"));
        check(folder.path(), "plain", Some("bin"), Err("not executable: bin/plain"));
        check(folder.path(), "tool", both, Err("not a program but a folder: bin/tool"));
        check(folder.path(), "pm2", both, Err("no such file: pm2 is nowhere in PATH"));
        check(folder.path(), "", both, Err("no such file:  is nowhere in PATH"));
        check(folder.path(), "shell", None, Err("no such file: shell is nowhere in PATH"));
        check(folder.path(), "sh", None, Ok("/bin/sh"));
        check(folder.path(), "bin/shell", None, Ok("bin/shell"));
        check(folder.path(), "./bin/plain", None, Err("not executable: ./bin/plain"));
        check(folder.path(), "bin/dangling", None, Err("no such file: bin/dangling"));
        check(folder.path(), "/bin/sh", Some(""), Ok("/bin/sh"));
        check(folder.path(), "/bin/pm2", Some("/bin"), Err("no such file: /bin/pm2"));
        if !rustix::process::getuid().is_root() {
            fs::set_permissions(at("bin"), fs::Permissions::from_mode(0o000)).expect("our own folder");
            check(folder.path(), "shell", both, Err("no such file: shell is nowhere in PATH"));
            check(folder.path(), "bin/shell", both, Err("permission denied: bin/shell"));
            fs::set_permissions(at("bin"), fs::Permissions::from_mode(0o700)).expect("our own folder");
        }
    }

    #[test]
    fn the_first_program_of_a_shell_text_is_named_or_not_guessed() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(first_word(text), expected, "{text}");
        }
        check("pm2 restart sav-backend", Some("pm2"));
        check("  ./restart.sh", Some("./restart.sh"));
        check("pm2;echo done", Some("pm2"));
        check("pm2>log", Some("pm2"));
        check("\n\npm2 restart x\necho", Some("pm2"));
        check("exec pm2 restart x", Some("pm2"));
        check("A=1 B_2= exec pm2", Some("pm2"));
        check("9=1 pm2", Some("9=1"));
        check("A=1", None);
        check("A=1; pm2", None);
        check("A=1\npm2", None);
        check("A='1 2' pm2", None);
        check("PATH=/opt/bin pm2", None);
        check("exec -a name pm2", None);
        check("cd /srv && pm2 restart x", None);
        check("if true; then pm2; fi", None);
        check("$PM2 restart", None);
        check("\"my pm2\" restart", None);
        check("~/bin/pm2 restart", None);
        check("(pm2 restart x)", None);
        check("restart() { pm2; }; restart", None);
        check("# nothing", None);
        check(">log pm2", None);
        check("", None);
        check("   ", None);
    }

    #[test]
    fn a_script_tells_what_runs_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = |text: &str| {
            let path = folder.path().join("script");
            fs::write(&path, text).expect("written");
            interpreter(&path)
        };
        assert_eq!(told("#!/bin/sh\nexit"), Some("/bin/sh".into()));
        assert_eq!(told("#!/usr/bin/env node\n"), Some("node".into()));
        assert_eq!(told("#! /usr/bin/env -S A=1 node --x\n"), Some("node".into()));
        assert_eq!(told("\x7fELF"), None);
        assert_eq!(told(""), None);
    }

    #[test]
    fn a_script_is_found_with_what_runs_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pm2");
        fs::write(&path, "#!/usr/bin/env node\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our own file");
        let found = || locate("pm2", folder.path(), Some(folder.path().as_os_str()));
        assert_eq!(found(), Err("pm2 needs node: no such file: node is nowhere in PATH".into()));
        symlink("/bin/sh", folder.path().join("node")).expect("a link");
        assert_eq!(found(), Ok(path));
        let missing = locate("pm3", folder.path(), Some(folder.path().as_os_str()));
        assert_eq!(missing, Err("no such file: pm3 is nowhere in PATH".into()));
    }
}
