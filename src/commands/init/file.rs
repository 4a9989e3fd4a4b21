//! Renders the text of a configuration, so that loading it yields the same values. It must do no I/O.

use std::fmt::Write as _;

#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    /// Where PM2 was found, as one line of a comment.
    pub(super) source: String,
    pub(super) path: String,
    /// If there are none, the file is an example.
    pub(super) targets: Vec<TargetEntry>,
}

#[derive(Debug, Default)]
pub(super) struct TargetEntry {
    /// If it differs from the process's name.
    pub(super) name: Option<String>,
    pub(super) process: String,
    /// PM2's home, if it is not `~/.pm2`.
    pub(super) home: Option<String>,
    pub(super) config: Option<String>,
    /// The block of variables in that file.
    pub(super) env: Option<String>,
    pub(super) reset: bool,
    pub(super) address: Option<Address>,
}

#[derive(Debug)]
pub(super) enum Address {
    /// The health address; `answer` is what it answered, such as `200`.
    Answers { url: String, answer: String },
    /// The port that the process uses. No health address answers.
    Port(u16),
}

const EXAMPLE_CONFIG: &str = "\
# Written by watchdog init. No PM2 process was found, so this is an example: fill in your own, then run: watchdog check
targets:
  - name: backend                            # letters, digits, . _ and -
    http: http://localhost:3000/health       # must answer 200 to 299 within 10 s; tcp, command and file work too
    restart: systemctl --user restart backend   # or ./restart.sh: run in the folder of this file
    # interval: 30s                          # between two probes; after 3 failures in a row it is restarted
    # with PM2, instead of restart:
    # pm2: backend                           # the name that pm2 list shows
";

pub(super) fn render(file: &ConfigFile) -> String {
    if file.targets.is_empty() {
        return EXAMPLE_CONFIG.into();
    }
    let mut text = format!(
        "# Written by watchdog init for {}. Keys that are not set here have their defaults: see README.\n\
         env:\n  # the folders of pm2 and node, which cron's own PATH lacks\n  PATH: {}\ntargets:\n",
        file.source,
        quote(&file.path.replace('$', "$$")),
    );
    for target in &file.targets {
        push_target(&mut text, target);
    }
    text
}

fn push_target(text: &mut String, target: &TargetEntry) {
    let mut lines = Vec::new();
    if let Some(name) = &target.name {
        lines.push(format!("name: {}", quote(name)));
    }
    let process = quote(&target.process);
    if target.home.is_none() && target.config.is_none() && !target.reset {
        lines.push(format!("pm2: {process}"));
    } else {
        lines.push("pm2:".into());
        lines.push(format!("  process: {process}"));
        lines.extend(target.home.iter().map(|home| format!("  home: {}", quote(home))));
        lines.extend(target.config.iter().map(|config| {
            format!("  config: {}   # used only when neither PM2 nor its saved list has the process", quote(config))
        }));
        lines.extend(target.env.iter().map(|env| format!("  env: {}", quote(env))));
        if target.reset {
            lines.push("  reset: true   # PM2 runs nothing else, so it may be reset when it is stuck".into());
        }
    }
    match &target.address {
        Some(Address::Answers { url, answer }) => lines.push(format!("http: {}   # answered {answer}", quote(url))),
        Some(Address::Port(port)) => {
            lines.push("# To PM2 a frozen process is online too. If the process has a health address, set it:".into());
            lines.push(format!("# http: http://localhost:{port}/health"));
        }
        None => {}
    }
    for (index, line) in lines.iter().enumerate() {
        let mark = if index == 0 { "  - " } else { "    " };
        let _ = writeln!(text, "{mark}{line}"); // writing to a String cannot fail
    }
}

/// A text as YAML: unquoted if that is unambiguous, else in double quotes, whose escapes are those of JSON.
fn quote(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:@+".contains(c))
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // YAML allows Unicode line breaks and characters that are not printable only as escapes.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c)); // writing to a String cannot fail
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Config, Pm2Config, Probe, process_name_problem};

    const NAMES: [&str; 35] = [
        "api",
        "größer als 1: #1",
        "it's \"quoted\"",
        "a\\b",
        "- dash",
        "true",
        "1e3",
        "12",
        "~",
        "a: b",
        "a #b",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "[x]",
        "{x}",
        "x:",
        "?",
        "|",
        ">",
        "日本",
        " x ",
        "$HOME ${HOME}",
        "yes",
        "0x1f",
        "a\u{85}b",
        "null",
        ".inf",
        "2001-01-01",
        "=",
        "<<",
        "a,b",
        "`x`",
    ];

    #[track_caller]
    fn load(text: &str) -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("ours");
        let path = folder.path().join("watchdog.yaml");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        let environment = |name: &str| (name == "HOME").then(|| "/home/user".to_owned());
        Config::load(&path, &environment).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
    }

    #[test]
    fn the_example_is_a_valid_configuration() {
        let config = load(&render(&ConfigFile::default()));
        assert_eq!((config.targets.len(), config.targets[0].ladder.len()), (1, 1));
    }

    #[test]
    fn the_file_for_a_common_setup_is_short_and_valid() {
        let answers = Address::Answers { url: "http://localhost:5000/api/health".into(), answer: "200".into() };
        let target = TargetEntry {
            process: "sav-backend".into(),
            config: Some("/home/user/app/ecosystem.config.js".into()),
            reset: true,
            address: Some(answers),
            ..TargetEntry::default()
        };
        let path = "/opt/node/bin:/usr/local/bin:/usr/bin:/bin".to_owned();
        let text = render(&ConfigFile { source: "PM2 in ~/.pm2".into(), path, targets: vec![target] });
        assert!(text.lines().count() <= 15, "{text}");
        let config = load(&text);
        assert_eq!(config.env[0].1.0, "/opt/node/bin:/usr/local/bin:/usr/bin:/bin");
        let target = &config.targets[0];
        assert_eq!((target.name.as_str(), target.ladder.len()), ("sav-backend", 2));
        assert!(
            matches!(&target.probe, Probe::Http(addresses) if addresses[0].url.0 == "http://localhost:5000/api/health")
        );
        assert_eq!(target.probe.local_ports(), [5_000]);
    }

    #[test]
    fn a_process_without_a_known_port_takes_one_line() {
        let target = TargetEntry { process: "on".into(), ..TargetEntry::default() };
        let text = render(&ConfigFile { source: "PM2".into(), path: "/bin".into(), targets: vec![target] });
        assert!(text.ends_with("targets:\n  - pm2: \"on\"\n"), "{text}");
        let target = &load(&text).targets[0];
        assert_eq!(
            (&target.name, target.pm2.as_ref().map(|pm2| &*pm2.home)),
            (&"on".into(), Some("/home/user/.pm2".as_ref()))
        );
        assert!(matches!(target.probe, Probe::Pm2(_)));
    }

    /// A valid name for a block of variables, made from the process's name.
    fn env_name(process: &str) -> String {
        let name: String = process.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
        name.trim_start_matches('-').to_owned()
    }

    #[test]
    fn unusual_names_of_processes_and_folders_are_loaded_as_they_were_rendered() {
        let mut written = 0;
        for process in NAMES {
            let home = format!("/srv/{process}/.pm2");
            let config = format!("/srv/{process}/eco system.config.js");
            let path = format!("/opt/{process}/bin:/bin");
            let config = Some(config).filter(|_| process_name_problem(process, true).is_none());
            if process_name_problem(process, config.is_some()).is_some() {
                continue;
            }
            for is_found in [true, false] {
                let url = "http://localhost:3000/healthz".to_owned();
                let address = match is_found {
                    true => Address::Answers { url, answer: "204".into() },
                    false => Address::Port(80),
                };
                let target = TargetEntry {
                    name: Some("x".into()),
                    process: process.into(),
                    home: Some(home.clone()),
                    config: config.clone(),
                    env: config.as_ref().map(|_| env_name(process)),
                    reset: true,
                    address: Some(address),
                };
                let read =
                    load(&render(&ConfigFile { source: "PM2".into(), path: path.clone(), targets: vec![target] }));
                assert_eq!(read.env[0].1.0, path);
                let expected = Pm2Config {
                    process: process.into(),
                    home: home.clone().into(),
                    config: config.clone().map(Into::into),
                    env: config.as_ref().map(|_| env_name(process)),
                    reset: true,
                };
                assert_eq!(read.targets[0].pm2.as_ref(), Some(&expected));
                assert_eq!(matches!(read.targets[0].probe, Probe::Http(_)), is_found);
                written += 1;
            }
        }
        assert!(written > 50, "{written}");
        assert_eq!(quote("a\u{85}\n\u{7f}b"), "\"a\\u0085\\u000a\\u007fb\"");
    }
}
