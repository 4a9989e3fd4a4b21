//! Ecosystem files: where one may lie that describes a process, and whether it does. It must never run one: they are
//! programs.

mod scan;

use std::path::{Path, PathBuf};

use crate::outcome::describe_io_error;
use crate::pm2::App;

use self::scan::{AppEntry, Value, entries};
use super::foreign;

/// What PM2 and people call them, the usual ones first.
const NAMES: [&str; 14] = [
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

/// What people call the link to the release that runs.
const LINKS: [&str; 3] = ["current", "live", "latest"];
/// More than any such file has.
const LONGEST: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It describes this very process, as far as can be told without running it.
    Same,
    /// It describes none of this name.
    Unnamed,
    /// It describes one of this name, which is another: in these words.
    Other(String),
    Unreadable(String),
}

/// The file that describes this very process: in the folder that it runs in, in its script's, or above them, in the
/// home folder at the highest; outside of it up to two folders above. By the path that a person would write.
pub(super) fn find(app: &App, home: Option<&Path>) -> Option<PathBuf> {
    let script_folder = app.script.parent().unwrap_or(Path::new(""));
    let folders = [app.cwd.as_path(), script_folder].into_iter().filter(|folder| folder.is_absolute());
    let places: Vec<&Path> = folders.flat_map(|folder| above(folder, home)).collect();
    let files = places.into_iter().flat_map(|place| NAMES.map(|file| place.join(file)));
    files.into_iter().find(|file| file.is_file() && compare(file, app) == Match::Same).map(|file| lasting(&file))
}

/// The same file by way of a link such as `current` that leads to its release: the release behind it is gone some day.
fn lasting(file: &Path) -> PathBuf {
    let through = |folder: &Path| {
        let real = folder.canonicalize().ok()?;
        let above = folder.ancestors().skip(1).take(2);
        let links = above.flat_map(|above| LINKS.map(|link| above.join(link)));
        let mut leading = links.filter(|link| link.is_symlink() && link.canonicalize().is_ok_and(|to| to == real));
        Some(leading.next()?.join(file.strip_prefix(folder).ok()?))
    };
    file.ancestors().skip(1).find_map(through).unwrap_or_else(|| file.to_owned())
}

/// Compares what a file says of a process of this name with the process: pm2 is to start that and no other. A script or
/// folder that only running the file could tell is no difference.
pub(super) fn compare(file: &Path, app: &App) -> Match {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let described = match described(file) {
        Ok(described) => described,
        Err(why) => return Match::Unreadable(why),
    };
    let differences: Vec<Option<String>> =
        described.iter().filter(|one| one.name == app.name).map(|one| difference(one, folder, app)).collect();
    match differences.first() {
        None => Match::Unnamed,
        Some(_) if differences.contains(&None) => Match::Same,
        Some(first) => Match::Other(first.clone().unwrap_or_default()),
    }
}

/// The same where nothing is known of the process but its name.
pub(super) fn compare_name(file: &Path, name: &str) -> Match {
    match described(file) {
        Ok(described) if described.iter().any(|one| one.name == name) => Match::Same,
        Ok(_) => Match::Unnamed,
        Err(why) => Match::Unreadable(why),
    }
}

pub(super) fn environments(file: &Path, name: &str) -> Vec<String> {
    let described = described(file).unwrap_or_default();
    described.into_iter().filter(|one| one.name == name).flat_map(|one| one.environments).collect()
}

fn described(file: &Path) -> Result<Vec<AppEntry>, String> {
    file.metadata().map_err(|error| describe_io_error(&error))?;
    let text = foreign::read(file, LONGEST).ok_or("it is no file that can be read")?;
    let is_yaml = file.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
    Ok(if is_yaml { in_yaml(&text) } else { entries(&text) })
}

/// What is not as in the file; none where nothing is.
fn difference(entry: &AppEntry, folder: &Path, app: &App) -> Option<String> {
    let cwd = match &entry.cwd {
        None => Some(folder.to_owned()),
        Some(Value::Text(path) | Value::Below(path)) => Some(folder.join(path)),
        Some(Value::Computed) => None,
    };
    if let Some(cwd) = cwd.as_ref().filter(|cwd| app.cwd.is_absolute() && !is_same(cwd, &app.cwd)) {
        return Some(format!(
            "from it, {} would run in {}, and runs in {}",
            app.name,
            cwd.display(),
            app.cwd.display()
        ));
    }
    let script = match (&entry.script, &cwd) {
        (Some(Value::Text(script)), _) if Path::new(script).is_absolute() => PathBuf::from(script),
        (Some(Value::Text(script)), Some(cwd)) => cwd.join(script),
        (Some(Value::Below(script)), _) => folder.join(script),
        (Some(Value::Text(_) | Value::Computed) | None, _) => return None,
    };
    // A command that is looked up in PATH, such as npm.
    let is_command = !script.exists() && script.file_name() == app.script.file_name();
    let is_known = app.script.is_absolute() && !is_command;
    let differs = is_known && !is_same(&script, &app.script);
    differs.then(|| format!("from it, {} would run {}, and runs {}", app.name, script.display(), app.script.display()))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

fn in_yaml(text: &str) -> Vec<AppEntry> {
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

/// The folder and those above it that may have to do with it.
fn above<'f>(folder: &'f Path, home: Option<&Path>) -> Vec<&'f Path> {
    let is_mine = |path: &&Path| home.is_some_and(|home| path.starts_with(home));
    if is_mine(&folder) {
        return folder.ancestors().take_while(is_mine).collect();
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
    fn a_file_is_for_a_process_only_if_it_describes_this_very_one() {
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
            "from it, api would run app/src/server.js, and runs app/server.js",
        );
        check(
            "eco.config.js",
            "x = {name: 'api', script: 'app/server.js'}",
            &format!("from it, api would run in {}, and runs in app", root.display()),
        );
        check(
            yaml,
            "- {name: api, script: server.js, cwd: ../other}",
            "from it, api would run in app/../other, and runs in app",
        );
        check(yaml, "{", "unnamed");
        assert_eq!(compare(&root.join("gone.js"), &app), Match::Unreadable("no such file or directory".into()));
        let npm = self::app("api", Path::new("/usr/bin/npm"), &root.join("app"));
        fs::write(root.join(eco), "x = {name: 'api', script: 'npm', args: 'start'}").expect("written");
        assert_eq!(compare(&root.join(eco), &npm), Match::Same, "a command of PATH");
    }

    #[test]
    fn it_is_looked_for_above_the_script_up_to_the_home_folder() {
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
