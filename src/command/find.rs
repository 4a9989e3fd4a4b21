//! Finds the program of a command without starting anything. It must never report a program as missing when it cannot
//! determine that.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// What the C library searches if `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// The longest first line of a script, in bytes: the kernel reads no more since Linux 5.1.
const MAX_FIRST_LINE: usize = 256;
/// Characters of `PATH` that an error shows.
const MAX_PATH_SHOWN: usize = 200;
/// Builtins and keywords of shells, which need no program of that name.
const BUILT_IN: &str = ". : [ [[ alias bg break builtin case cd command continue coproc declare dirs do done echo elif \
                        else enable esac eval exit export false fg fi for function getopts hash help history if in \
                        jobs kill let local logout popd printf pushd pwd read readonly return select set shift shopt \
                        source test then time times trap true type typeset ulimit umask unalias unset until wait while";

/// Characters that a shell expands or interprets, so that the word does not name a program literally.
const SPECIAL: &[char] = &['$', '`', '"', '\'', '\\', '*', '?', '[', ']', '{', '}', '~', '#', '!', '(', ')'];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindError {
    CommandNotFound {
        name: String,
        /// `None` if it is not set.
        path_var: Option<OsString>,
    },
    NoSuchFile(String),
    NotExecutable(PathBuf),
    Folder(PathBuf),
    /// We may not search a folder of the path, so whether the program exists is unknown.
    PermissionDenied(PathBuf),
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FindError::CommandNotFound { name, path_var: Some(path) } => {
                let path = path.to_string_lossy();
                let end = path.char_indices().nth(MAX_PATH_SHOWN).map_or(path.len(), |(at, _)| at);
                let ellipsis = if end < path.len() { "…" } else { "" };
                write!(f, "command not found: {name} (PATH={}{ellipsis})", &path[..end])
            }
            FindError::CommandNotFound { name, path_var: None } => {
                write!(f, "command not found: {name} (PATH is not set; searched {DEFAULT_PATH})")
            }
            FindError::NoSuchFile(name) => write!(f, "no such file: {name}"),
            FindError::NotExecutable(path) => write!(f, "not executable: {}", path.display()),
            FindError::Folder(path) => write!(f, "a folder, not a program: {}", path.display()),
            FindError::PermissionDenied(path) => write!(f, "permission denied: {}", path.display()),
        }
    }
}

/// The file that would run if `argv0` were started in `folder`; absolute if `folder` is. A name with a slash is
/// relative to `folder`; another is searched in `path_var`, the value of `PATH`, as the C library does.
/// Errors: the first file found that cannot be run, or that there is none.
pub fn find_program(argv0: &str, folder: &Path, path_var: Option<&OsStr>) -> Result<PathBuf, FindError> {
    if argv0.contains('/') {
        return check_executable(folder.join(argv0)).unwrap_or_else(|| Err(FindError::NoSuchFile(argv0.to_owned())));
    }
    let not_found = FindError::CommandNotFound { name: argv0.to_owned(), path_var: path_var.map(OsStr::to_owned) };
    if argv0.is_empty() {
        return Err(not_found);
    }
    let path_var = path_var.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut refused = None;
    for folder_in_path in std::env::split_paths(path_var) {
        match check_executable(folder.join(folder_in_path).join(argv0)) {
            Some(Ok(found)) => return Ok(found),
            // As the C library does, go on after a folder that we may not search.
            Some(Err(FindError::PermissionDenied(_))) | None => {}
            Some(Err(reason)) => refused = refused.or(Some(reason)),
        }
    }
    Err(refused.unwrap_or(not_found))
}

/// Like [`find_program`], but also requires the interpreter of a script: `pm2` without `node` is of no use.
/// Errors: which of the two cannot be run, and why.
pub fn find_with_interpreter(program: &str, folder: &Path, path_var: Option<&OsStr>) -> Result<PathBuf, String> {
    let found = find_program(program, folder, path_var).map_err(|error| error.to_string())?;
    match interpreter(&found).map(|interpreter| (find_program(&interpreter, folder, path_var), interpreter)) {
        Some((Err(error), interpreter)) => Err(format!("{program} needs {interpreter}: {error}")),
        Some((Ok(_), _)) | None => Ok(found),
    }
}

/// The interpreter of a script: the program after `#!`, or after `#!/usr/bin/env`.
fn interpreter(script: &Path) -> Option<String> {
    let mut head = [0; MAX_FIRST_LINE];
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

/// Quotes a word for a shell if it needs that.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    let is_plain = !word.is_empty() && word.chars().all(plain);
    if is_plain { word.to_string() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The program that a shell text starts first, as far as that is certain without a shell: assignments and `exec` are
/// skipped; `None` for builtins, keywords and anything that a shell would expand.
pub fn first_program(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let end = rest.find(|c: char| c.is_whitespace() || ";&|<>()".contains(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() || word.starts_with('-') || word.contains(SPECIAL) || after.starts_with('(') {
            return None;
        }
        match word.split_once('=') {
            Some(("PATH", _)) => return None, // it changes where the next word is searched
            Some((name, _)) if is_variable(name) => {}
            _ if word == "exec" => {}
            _ if BUILT_IN.split(' ').any(|builtin| builtin == word) => return None,
            _ => return Some(word),
        }
        // An assignment or `exec` applies only to the next word of the same command.
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

/// Whether we may execute the file; `None` if it does not exist.
fn check_executable(path: PathBuf) -> Option<Result<PathBuf, FindError>> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Some(Err(FindError::Folder(path))),
        Ok(_) if access(&path, Access::EXEC_OK).is_ok() => Some(Ok(path)),
        Ok(_) => Some(Err(FindError::NotExecutable(path))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Err(FindError::PermissionDenied(path))),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn programs_are_found_as_the_system_finds_them() {
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
            let prefix = format!("{}/", folder.display());
            let found = found.map(|path| path.display().to_string().replace(&prefix, ""));
            let found = found.map_err(|text| text.replace(&prefix, ""));
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{argv0} in {path_var:?}");
        }
        let both = Some("bin:later");
        check(folder.path(), "shell", both, Ok("bin/shell"));
        check(folder.path(), "plain", both, Ok("later/plain"));
        check(folder.path(), "plain", Some("bin"), Err("not executable: bin/plain"));
        check(folder.path(), "tool", both, Err("a folder, not a program: bin/tool"));
        check(folder.path(), "pm2", both, Err("command not found: pm2 (PATH=bin:later)"));
        check(folder.path(), "", both, Err("command not found:  (PATH=bin:later)"));
        check(folder.path(), "shell", None, Err("command not found: shell (PATH is not set; searched /bin:/usr/bin)"));
        check(folder.path(), "sh", None, Ok("/bin/sh"));
        check(folder.path(), "bin/shell", None, Ok("bin/shell"));
        check(folder.path(), "./bin/plain", None, Err("not executable: ./bin/plain"));
        check(folder.path(), "bin/dangling", None, Err("no such file: bin/dangling"));
        check(folder.path(), "/bin/sh", Some(""), Ok("/bin/sh"));
        check(folder.path(), "/bin/pm2", Some("/bin"), Err("no such file: /bin/pm2"));
        if !rustix::process::getuid().is_root() {
            fs::set_permissions(at("bin"), fs::Permissions::from_mode(0o000)).expect("our own folder");
            check(folder.path(), "shell", both, Err("command not found: shell (PATH=bin:later)"));
            check(folder.path(), "bin/shell", both, Err("permission denied: bin/shell"));
            fs::set_permissions(at("bin"), fs::Permissions::from_mode(0o700)).expect("our own folder");
        }
    }

    #[test]
    fn the_first_program_of_a_shell_text_is_found_if_it_is_certain() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(first_program(text), expected, "{text}");
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
    fn the_interpreter_is_read_from_the_first_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let interpreter_of = |text: &str| {
            let path = folder.path().join("script");
            fs::write(&path, text).expect("written");
            interpreter(&path)
        };
        assert_eq!(interpreter_of("#!/bin/sh\nexit"), Some("/bin/sh".into()));
        assert_eq!(interpreter_of("#!/usr/bin/env node\n"), Some("node".into()));
        assert_eq!(interpreter_of("#! /usr/bin/env -S A=1 node --x\n"), Some("node".into()));
        assert_eq!(interpreter_of("\x7fELF"), None);
        assert_eq!(interpreter_of(""), None);
    }

    #[test]
    fn a_script_is_found_with_its_interpreter() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pm2");
        fs::write(&path, "#!/usr/bin/env node\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our own file");
        let found = || find_with_interpreter("pm2", folder.path(), Some(folder.path().as_os_str()));
        let path_var = format!("(PATH={})", folder.path().display());
        assert_eq!(found(), Err(format!("pm2 needs node: command not found: node {path_var}")));
        symlink("/bin/sh", folder.path().join("node")).expect("a link");
        assert_eq!(found(), Ok(path));
        let missing = find_with_interpreter("pm3", folder.path(), Some(folder.path().as_os_str()));
        assert_eq!(missing, Err(format!("command not found: pm3 {path_var}")));
    }
}
