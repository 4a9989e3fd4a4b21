//! The rules of the code that a test can check: sizes, which module may use which, and what no file may contain.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, lines of a function, characters of a line.
const FILE: usize = 430;
const FUNCTION: usize = 70;
const LINE: usize = 120;

/// Each top-level module (room), the rooms that it uses and the crates that are used in it. Each new use is named here.
const ROOMS: [(&str, &str, &str); 19] = [
    ("time", "", "chrono humantime serde"),
    ("outcome", "time", "serde"),
    ("policy", "outcome time", "serde"),
    ("config", "outcome policy time", "humantime log rustix serde serde_json serde_yaml ureq"),
    ("probe", "clock command config outcome pm2 time", "rustix serde_json ureq"),
    ("process", "clock time", "rustix serde"),
    ("command", "clock outcome process", "rustix"),
    ("pm2", "clock command outcome process terminal time", "rustix serde serde_json"),
    ("systemd", "command outcome", "rustix serde serde_json"),
    ("notify", "command config outcome policy terminal time", "lettre rustix serde serde_json ureq"),
    ("store", "notify outcome policy process time", "rustix serde serde_json"),
    ("clock", "time", "chrono rustix"),
    ("signals", "", "signal_hook"),
    ("logging", "clock config outcome terminal time", "fern log rustix serde serde_json"),
    ("terminal", "", ""),
    ("view", "outcome policy process store terminal time", "log serde serde_json"),
    (
        "agent",
        "clock command config logging notify outcome pm2 policy probe process signals store systemd time view",
        "log",
    ),
    (
        "commands",
        "agent cli clock command config logging notify outcome pm2 policy probe process signals store systemd \
         terminal time view",
        "clap clap_complete log rustix serde_json serde_yaml",
    ),
    ("cli", "", "clap clap_complete humantime"),
];

/// The rooms that only compute, from what they are given.
const PURE: [&str; 5] = ["time", "outcome", "policy", "view", "cli"];
const OUTSIDE: [&str; 7] = ["fs", "net", "process", "thread", "env", "os", "sync"];

/// What no file may contain. Split here, so that this file passes too.
const NOWHERE: [(&str, &str); 12] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("XX", "X"),
    ("dbg", "!"),
    ("todo", "!"),
    ("unimplemented", "!"),
    ("#[ig", "nore"),
    ("#[al", "low"),
    ("#![al", "low"),
    ("uns", "afe {"),
    ("uns", "afe fn"),
    ("uns", "afe impl"),
];

struct File {
    /// From the top of the repository.
    path: PathBuf,
    text: String,
}

impl File {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The room that it belongs to; `None` for the files that only connect rooms.
    fn room(&self) -> Option<String> {
        let part = self.path.strip_prefix("src").ok()?.iter().next()?.to_str()?;
        let room = part.trim_end_matches(".rs");
        (!["lib", "link", "main", "testing"].contains(&room)).then(|| room.to_owned())
    }

    /// Whether only tests use it.
    fn is_test(&self, files: &[File]) -> bool {
        let (Some(parent), Some(module)) = (self.path.parent(), self.path.file_stem()) else { return false };
        let declared = format!("#[cfg(test)]\nmod {};", module.display());
        let parents = [parent.with_extension("rs"), parent.join("lib.rs")];
        let within = parent.iter().any(|folder| folder == "tests");
        within || files.iter().any(|file| parents.contains(&file.path) && file.text.contains(&declared))
    }

    /// The folder of its submodules, if it has any.
    fn children(&self) -> PathBuf {
        self.path.with_extension("")
    }

    /// The shipped text, split into statements.
    fn statements(&self) -> impl Iterator<Item = String> {
        let text: String = self.shipped().map(|line| line.trim().to_owned() + " ").collect();
        text.split(';').map(|statement| statement.trim().to_owned()).collect::<Vec<_>>().into_iter()
    }

    /// The shipped lines, without comments and tests.
    fn shipped(&self) -> impl Iterator<Item = &str> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..tests].lines().filter(|line| !line.trim_start().starts_with("//"))
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the program and its tests.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![top().join("src"), top().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("readable");
                let path = path.strip_prefix(top()).expect("found below it").to_path_buf();
                files.push(File { path, text });
            }
        }
    }
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

/// The shipped files with their rooms.
fn shipped(files: &[File]) -> impl Iterator<Item = (String, &File)> {
    files.iter().filter(|file| !file.is_test(files)).filter_map(|file| Some((file.room()?, file)))
}

#[track_caller]
fn demand_none(complaints: &str) {
    assert!(complaints.is_empty(), "{complaints}");
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut complaints = String::new();
    let mut complain = |file: &File, number: usize, what: String| {
        writeln!(complaints, "{}:{number}: {what}", file.name()).expect("a String takes all");
    };
    for file in &files() {
        let lines: Vec<&str> = file.text.lines().collect();
        if lines.len() > FILE {
            complain(file, FILE, format!("{} lines; at most {FILE}", lines.len()));
        }
        for (number, line) in lines.iter().enumerate() {
            let width = line.chars().count();
            if width > LINE {
                complain(file, number + 1, format!("{width} characters; at most {LINE}"));
            }
            let length = function(&lines[number..]);
            if length > FUNCTION {
                complain(file, number + 1, format!("a function of {length} lines; at most {FUNCTION}"));
            }
        }
    }
    demand_none(&complaints);
}

/// The number of lines of the function that begins with the first one, if one does, as rustfmt sets it.
fn function(lines: &[&str]) -> usize {
    let first = lines[0].trim_start();
    let words = first.split_whitespace().take_while(|word| !word.starts_with(['(', '"', '/'])).take(4);
    if !words.into_iter().any(|word| word == "fn") || first.ends_with([';', '}']) {
        return 0;
    }
    let end = format!("{}}}", &lines[0][..lines[0].len() - first.len()]);
    lines.iter().position(|line| *line == end).map_or(0, |last| last + 1)
}

#[test]
fn nothing_that_is_shipped_knows_of_the_feature_for_tests() {
    let files = files();
    let knows = |file: &&File| file.shipped().any(|line| line.contains("full-tests"));
    let named = shipped(&files).map(|(_, file)| file).filter(knows).map(|file| file.name() + "\n");
    demand_none(&named.collect::<String>());
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = files().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.name() + "\n");
    demand_none(&silent.collect::<String>());
}

#[test]
fn nothing_unfinished_stands_anywhere() {
    let mut complaints = String::new();
    for file in &files() {
        for (start, end) in NOWHERE {
            let word = format!("{start}{end}");
            if file.text.contains(&word) {
                writeln!(complaints, "{} has {word}", file.name()).expect("a String takes all");
            }
        }
    }
    demand_none(&complaints);
}

#[test]
fn only_clock_reads_clocks() {
    let files = files();
    let readers: BTreeSet<String> = shipped(&files)
        .filter(|(_, file)| {
            let reads =
                |line: &str| line.replace("clock::now()", "").contains("::now()") || line.contains("clock_gettime(");
            file.shipped().any(reads)
        })
        .map(|(room, _)| room)
        .collect();
    assert_eq!(readers, BTreeSet::from(["clock".to_owned()]));
}

#[test]
fn everything_printed_goes_through_terminal() {
    let files = files();
    let mut complaints = String::new();
    for (_, file) in shipped(&files) {
        // These macros panic when the reader of the output has gone.
        for line in file.shipped().filter(|line| line.contains("print!(") || line.contains("println!(")) {
            writeln!(complaints, "{}: {}", file.name(), line.trim()).expect("a String takes all");
        }
    }
    demand_none(&complaints);
}

#[test]
fn rooms_use_only_the_rooms_and_crates_that_the_table_names() {
    let files = files();
    for (room, rooms, crates) in ROOMS {
        let (mut uses, mut outer) = (BTreeSet::new(), BTreeSet::new());
        for (_, file) in shipped(&files).filter(|(of, _)| of == room) {
            for line in file.shipped() {
                uses.extend(roots(line, "crate::").filter(|used| *used != room));
                outer.extend(dependencies().into_iter().filter(|name| names_crate(line, name)));
                assert!(!line.contains("crate::{"), "{}: write one `use crate::…` a room", file.name());
                assert!(!line.contains("super::super"), "{}: write crate::{room}", file.name());
            }
        }
        let set = |words: &'static str| words.split(' ').filter(|word| !word.is_empty()).collect::<BTreeSet<&str>>();
        assert_eq!(uses, set(rooms), "rooms used by {room}: found, and as the table has it");
        let outer: BTreeSet<&str> = outer.iter().map(String::as_str).collect();
        assert_eq!(outer, set(crates), "crates used by {room}: found, and as the table has it");
    }
    let known: BTreeSet<&str> = ROOMS.iter().map(|(room, ..)| *room).collect();
    let found: BTreeSet<String> = shipped(&files).map(|(room, _)| room).collect();
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<&str>>(), known, "rooms: found, and in the table");
}

#[test]
fn modules_of_one_parent_use_each_other_without_circles() {
    let files = files();
    let mut complaints = String::new();
    for parent in shipped(&files).map(|(_, file)| file).filter(|file| top().join(file.children()).is_dir()) {
        let folder = parent.children();
        let mut uses = modules_in(&folder, parent, &files);
        // A module that uses no other, or only removed ones, is in no circle.
        while let Some(free) = uses.iter().find(|(_, used)| used.iter().all(|used| !uses.contains_key(used))) {
            let free = free.0.clone();
            uses.remove(&free);
        }
        if !uses.is_empty() {
            writeln!(complaints, "{}: {uses:?}", folder.display()).expect("a String takes all");
        }
    }
    demand_none(&complaints);
}

/// The modules in a folder, each with the sibling modules that it uses, including what their parent re-exports.
fn modules_in(folder: &Path, parent: &File, files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let below = |file: &File| file.path.strip_prefix(folder).ok()?.iter().next()?.to_str().map(str::to_owned);
    let module = |file: &File| below(file).map(|name| name.trim_end_matches(".rs").to_owned());
    let handed_on = parent.statements().filter(|statement| statement.starts_with("pub")).flat_map(|statement| {
        let path = statement.split_once(" use ").map_or("", |(_, path)| path).trim_start_matches("self::");
        let from = path.split("::").next().unwrap_or_default().to_owned();
        words(path).map(|name| (name.to_owned(), from.clone())).collect::<Vec<_>>()
    });
    let handed_on: BTreeMap<String, String> = handed_on.collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, file) in shipped(files).filter(|(_, file)| file.path.starts_with(folder)) {
        let Some(own) = module(file) else { continue };
        let is_child = file.path.parent() == Some(folder);
        let path = folder.strip_prefix("src").expect("shipped").iter().map(|part| part.to_str().expect("ASCII"));
        let absolute = format!("crate::{}::", path.collect::<Vec<_>>().join("::"));
        let used = file.statements().flat_map(|statement| {
            let roots = [(absolute.as_str(), true), ("super::", is_child)].into_iter().filter(|(_, counts)| *counts);
            let after = roots.flat_map(|(root, _)| statement.split(root).skip(1).map(first_names).collect::<Vec<_>>());
            after.flatten().collect::<Vec<_>>()
        });
        let used = used.map(|name| handed_on.get(&name).cloned().unwrap_or(name)).filter(|name| *name != own);
        uses.entry(own.clone()).or_default().extend(used);
    }
    let known: BTreeSet<String> = uses.keys().cloned().collect();
    uses.values_mut().for_each(|used| used.retain(|name| known.contains(name)));
    uses
}

/// The names that a path begins with: one, or those in its braces.
fn first_names(path: &str) -> Vec<String> {
    let Some(inner) = path.strip_prefix('{') else { return words(path).take(1).map(str::to_owned).collect() };
    let mut depth = 0;
    let items = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0 && c == ','
    });
    items.filter_map(|item| words(item).next().map(str::to_owned)).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The words that follow `root` in a line.
fn roots<'a>(line: &'a str, root: &'a str) -> impl Iterator<Item = &'a str> {
    line.split(root)
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

/// What Cargo.toml names under `[dependencies]`, as it is called in code.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).expect("readable");
    let own = manifest.split("\n[dependencies]\n").nth(1).expect("there are some");
    let lines = own.lines().take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_"))).collect()
}

fn names_crate(line: &str, name: &str) -> bool {
    let path = format!("{name}::");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn rooms_that_compute_do_nothing_else() {
    let files = files();
    let mut complaints = String::new();
    for (room, file) in shipped(&files).filter(|(room, _)| PURE.contains(&room.as_str())) {
        for line in file.shipped() {
            let outside = OUTSIDE.iter().any(|part| line.contains(&format!("std::{part}")));
            if outside {
                writeln!(complaints, "{room} is to compute only: {}: {}", file.name(), line.trim())
                    .expect("a String takes all");
            }
        }
    }
    demand_none(&complaints);
}

/// A pattern that matches nothing has no effect, so a renamed module would go unnoticed.
#[test]
fn the_order_of_functions_names_modules_that_are_there() {
    let order = fs::read_to_string(top().join("src/link/order.ld")).expect("readable");
    let patterns = order.split("*(.text.*").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let mut own = 0;
    for pattern in patterns.filter(|pattern| pattern.contains("watchdog")) {
        own += 1;
        let (name, path) = place(pattern);
        let parent = fs::read_to_string(path.with_extension("rs")).unwrap_or_default();
        let is_there = path.join(&name).with_extension("rs").exists() || parent.contains(&format!("fn {name}("));
        assert!(is_there, "{pattern}: no {name} in {}", path.display());
    }
    assert!(own > 10, "only {own} patterns of ours");
}

/// What a pattern of mangled names stands for: `*8watchdog8commands5check*` is `check` in `src/commands`.
fn place(pattern: &str) -> (String, PathBuf) {
    let mut names = vec![String::from("src")];
    for mut rest in pattern.split(['.', '*']) {
        while !rest.is_empty() {
            let (length, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
            let (name, others) = after.split_at(length.parse().unwrap_or(after.len()));
            names.extend((!["watchdog", "Deserialize"].contains(&name)).then(|| name.to_owned()));
            rest = others;
        }
    }
    (names.pop().expect("src at the least"), top().join(names.join("/")))
}
