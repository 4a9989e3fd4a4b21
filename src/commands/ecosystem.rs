//! PM2's ecosystem files: finds the one that describes a process, and compares the two. It must never run such a file:
//! they are programs.

mod scan;

use std::path::{Path, PathBuf};

use crate::outcome::describe_io_error;
use crate::pm2::App;

use self::scan::{AppEntry, Value, parse_entries};
use super::foreign;

/// The names that PM2 and people use, the most common first.
const FILE_NAMES: [&str; 14] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.json",
    "ecosystem.config.json",
    "ecosystem.yml",
    "ecosystem.yaml",
    "ecosystem.config.yml",
    "ecosystem.config.yaml",
    "process.json",
    "process.yml",
    "pm2.config.js",
    "pm2.config.cjs",
    "pm2.json",
];

/// Common names of the symbolic link to the current release.
const RELEASE_LINKS: [&str; 3] = ["current", "live", "latest"];
/// Bytes. Real files have a few KiB.
const MAX_FILE: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It describes this process, as far as is known without running the file.
    Same,
    /// It has no process of this name.
    Unnamed,
    /// It describes a different process of this name; the text says how they differ.
    Other(String),
    Unreadable(String),
}

/// Finds the file that describes this process. It searches the working folder and the script's folder, and the folders
/// above them: up to the home folder, or two levels up outside of it. It returns the path that a person would write.
pub(super) fn find(app: &App, home: Option<&Path>) -> Option<PathBuf> {
    let script_folder = app.script.parent().unwrap_or(Path::new(""));
    let folders = [app.cwd.as_path(), script_folder].into_iter().filter(|folder| folder.is_absolute());
    let places: Vec<&Path> = folders.flat_map(|folder| search_folders(folder, home)).collect();
    let files = places.into_iter().flat_map(|place| FILE_NAMES.map(|file| place.join(file)));
    files
        .into_iter()
        .find(|file| file.is_file() && compare(file, app) == Match::Same)
        .map(|file| prefer_release_link(&file))
}

/// The path through a link such as `current`, if one leads to the file: the folder of a release is removed some day.
fn prefer_release_link(file: &Path) -> PathBuf {
    let via_link = |folder: &Path| {
        let real = folder.canonicalize().ok()?;
        let parents = folder.ancestors().skip(1).take(2);
        let mut links = parents.flat_map(|parent| RELEASE_LINKS.map(|link| parent.join(link)));
        let link = links.find(|link| link.is_symlink() && link.canonicalize().is_ok_and(|to| to == real))?;
        Some(link.join(file.strip_prefix(folder).ok()?))
    };
    file.ancestors().skip(1).find_map(via_link).unwrap_or_else(|| file.to_owned())
}

/// Compares the file's process of this name with the running one, so that `pm2 start` starts the same process. A script
/// or folder that only running the file could tell counts as equal.
pub(super) fn compare(file: &Path, app: &App) -> Match {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let entries = match read_entries(file) {
        Ok(entries) => entries,
        Err(why) => return Match::Unreadable(why),
    };
    let named = entries.iter().filter(|entry| entry.name == app.name);
    let differences: Vec<Option<String>> = named.map(|entry| describe_difference(entry, folder, app)).collect();
    match differences.first() {
        None => Match::Unnamed,
        Some(_) if differences.contains(&None) => Match::Same,
        Some(first) => Match::Other(first.clone().unwrap_or_default()),
    }
}

/// The same for a process of which only the name is known.
pub(super) fn compare_name(file: &Path, name: &str) -> Match {
    match read_entries(file) {
        Ok(entries) if entries.iter().any(|entry| entry.name == name) => Match::Same,
        Ok(_) => Match::Unnamed,
        Err(why) => Match::Unreadable(why),
    }
}

pub(super) fn environments(file: &Path, name: &str) -> Vec<String> {
    let entries = read_entries(file).unwrap_or_default();
    entries.into_iter().filter(|entry| entry.name == name).flat_map(|entry| entry.environments).collect()
}

fn read_entries(file: &Path) -> Result<Vec<AppEntry>, String> {
    file.metadata().map_err(|error| describe_io_error(&error))?;
    let text = foreign::read(file, MAX_FILE).ok_or("not a readable file")?;
    let is_yaml = file.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
    Ok(if is_yaml { parse_yaml(&text) } else { parse_entries(&text) })
}

/// The first difference between the file's entry and the process; none if they match.
fn describe_difference(entry: &AppEntry, folder: &Path, app: &App) -> Option<String> {
    let cwd = match &entry.cwd {
        None => Some(folder.to_owned()),
        Some(Value::Text(path) | Value::Below(path)) => Some(folder.join(path)),
        Some(Value::Computed) => None,
    };
    if let Some(cwd) = cwd.as_ref().filter(|cwd| app.cwd.is_absolute() && !is_same_path(cwd, &app.cwd)) {
        let (name, actual) = (&app.name, app.cwd.display());
        return Some(format!("it would run {name} in {}, but {name} runs in {actual}", cwd.display()));
    }
    let script = match (&entry.script, &cwd) {
        (Some(Value::Text(script)), _) if Path::new(script).is_absolute() => PathBuf::from(script),
        (Some(Value::Text(script)), Some(cwd)) => cwd.join(script),
        (Some(Value::Below(script)), _) => folder.join(script),
        (Some(Value::Text(_) | Value::Computed) | None, _) => return None,
    };
    // A command that PM2 finds in PATH, such as npm.
    let is_command = !script.exists() && script.file_name() == app.script.file_name();
    let is_known = app.script.is_absolute() && !is_command;
    let differs = is_known && !is_same_path(&script, &app.script);
    let (name, actual) = (&app.name, app.script.display());
    differs.then(|| format!("as {name} it would run {}, but {name} runs {actual}", script.display()))
}

fn is_same_path(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

fn parse_yaml(text: &str) -> Vec<AppEntry> {
    let Ok(whole) = serde_yaml::from_str::<serde_yaml::Value>(text) else { return Vec::new() };
    let apps = whole.get("apps").unwrap_or(&whole);
    let list = apps.as_sequence().cloned().unwrap_or_else(|| vec![apps.clone()]);
    let entry = |app: &serde_yaml::Value| {
        let text = |key: &str| app.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let environments = app.as_mapping().into_iter().flat_map(|keys| keys.keys());
        let environments = environments.filter_map(|key| key.as_str()?.strip_prefix("env_").map(str::to_owned));
        Some(AppEntry {
            name: text("name")?,
            script: text("script").map(Value::Text),
            cwd: text("cwd").map(Value::Text),
            environments: environments.collect(),
        })
    };
    list.iter().filter_map(entry).collect()
}

/// The folder and those above it that may belong to the same project.
fn search_folders<'f>(folder: &'f Path, home: Option<&Path>) -> Vec<&'f Path> {
    let is_in_home = |path: &&Path| home.is_some_and(|home| path.starts_with(home));
    if is_in_home(&folder) {
        return folder.ancestors().take_while(is_in_home).collect();
    }
    folder.ancestors().take(3).filter(|path| path.parent().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn app(name: &str, script: &Path, cwd: &Path) -> App {
        let list = serde_json::json!([{"name": name, "pm_exec_path": script, "pm_cwd": cwd}]).to_string();
        crate::pm2::parse_list(list.as_bytes()).expect("a list").remove(0)
    }

    #[test]
    fn a_file_matches_a_process_only_if_it_describes_the_same_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it is there");
        fs::create_dir_all(root.join("app/src")).expect("made");
        fs::create_dir(root.join("other")).expect("made");
        for script in ["app/server.js", "app/src/server.js", "other/server.js"] {
            fs::write(root.join(script), "").expect("written");
        }
        let app = app("api", &root.join("app/server.js"), &root.join("app"));
        let check = |file: &str, text: &str, expected: &str| {
            let path = root.join(file);
            fs::write(&path, text).expect("written");
            let found = match compare(&path, &app) {
                Match::Same => "same".to_owned(),
                Match::Unnamed => "unnamed".to_owned(),
                Match::Other(why) => why.replace(&format!("{}/", root.display()), ""),
                Match::Unreadable(why) => why,
            };
            assert_eq!(found, expected, "{text}");
            fs::remove_file(path).expect("it was written");
        };
        let (eco, yaml) = ("app/eco.config.js", "app/eco.yml");
        check(eco, "module.exports = {apps: [{name: 'api', script: './server.js'}]}", "same");
        check(eco, "module.exports = {apps: [{name: 'api', script: 'server.js', cwd: __dirname}]}", "same");
        check(eco, "module.exports = {apps: [{name: 'api', script: start, cwd: process.cwd()}]}", "same");
        check("eco.config.js", "x = {name: 'api', script: 'server.js', cwd: './app'}", "same");
        check(yaml, "apps:\n  - name: api\n    script: ./server.js\n", "same");
        check("app/eco.json", "{\"apps\": [{\"name\": \"api\", \"script\": \"server.js\"}]}", "same");
        check(
            eco,
            "module.exports = {apps: [{name: 'web', namespace: 'api', script: './server.js'}], deploy: {production: \
             {'post-deploy': 'pm2 reload eco.config.js --only api'}}}",
            "unnamed",
        );
        check(eco, "// {name: 'api', script: './server.js'}", "unnamed");
        check(
            eco,
            "x = {name: 'api', script: 'src/server.js'}",
            "as api it would run app/src/server.js, but api runs app/server.js",
        );
        check(
            "eco.config.js",
            "x = {name: 'api', script: 'app/server.js'}",
            &format!("it would run api in {}, but api runs in app", root.display()),
        );
        check(
            yaml,
            "- {name: api, script: server.js, cwd: ../other}",
            "it would run api in app/../other, but api runs in app",
        );
        check(yaml, "{", "unnamed");
        assert_eq!(compare(&root.join("gone.js"), &app), Match::Unreadable("no such file or directory".into()));
        let npm = self::app("api", Path::new("/usr/bin/npm"), &root.join("app"));
        fs::write(root.join(eco), "x = {name: 'api', script: 'npm', args: 'start'}").expect("written");
        assert_eq!(compare(&root.join(eco), &npm), Match::Same, "a command in PATH");
    }

    #[test]
    fn a_file_is_found_above_the_script_up_to_the_home_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it is there");
        let home = root.join("home");
        let deep = home.join("app/dist/src");
        fs::create_dir_all(&deep).expect("made");
        let api = app("api", &deep.join("server.js"), &home.join("app"));
        let found = || find(&api, Some(&home));
        assert_eq!(found(), None);
        let describes =
            format!("x = {{name: 'api', script: '{0}/server.js', cwd: '{1}/app'}}", deep.display(), home.display());
        for (place, text, expected) in [
            ("ecosystem.config.js", &describes, None), // above the home folder
            ("home/app/ecosystem.config.js", &"x = {name: 'other'}".to_owned(), None),
            ("home/ecosystem.config.cjs", &describes, Some("home/ecosystem.config.cjs")),
            ("home/app/ecosystem.config.mjs", &describes, Some("home/app/ecosystem.config.mjs")),
        ] {
            fs::write(root.join(place), text).expect("written");
            assert_eq!(found(), expected.map(|path| root.join(path)), "after {place}");
        }
        fs::create_dir_all(root.join("srv/releases/7")).expect("made");
        symlink("releases/7", root.join("srv/current")).expect("linked");
        let release = root.join("srv/releases/7");
        fs::write(release.join("ecosystem.config.js"), "x = {name: 'api', script: 'server.js'}").expect("written");
        let deployed = app("api", &release.join("server.js"), &release);
        assert_eq!(find(&deployed, Some(&home)), Some(root.join("srv/current/ecosystem.config.js")));
    }
}
