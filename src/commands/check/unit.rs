//! A target's unit in systemd as `check` sees it. It must never try a restart: whether this account may make one is
//! only known when it does.

use rustix::process::geteuid;

use crate::agent::unit_query;
use crate::command;
use crate::config::{CommandLine, Config, Probe, Remedy, Target};
use crate::systemd::{LoadState, UnitEvidence};
use crate::terminal::escaped;

#[derive(Default)]
pub(super) struct UnitFindings {
    pub(super) lines: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// With `offline`, systemd is not asked.
pub(super) fn inspect(config: &Config, target: &Target, offline: bool) -> UnitFindings {
    let mut findings = UnitFindings::default();
    let Some(unit) = &target.unit else { return findings };
    let systemctl = if unit.is_user { "systemctl --user" } else { "systemctl" };
    let name = escaped(&unit.name);
    if offline {
        findings.lines.push(format!("  unit        {name}"));
    } else {
        match unit_query(config, unit).ask(false, false).unit {
            Ok(evidence) => describe(&name, systemctl, &evidence, &mut findings),
            Err(why) => findings.problems.push(format!("systemd cannot be asked about {name}: {}", escaped(&why))),
        }
    }
    let restarts = target.ladder.iter().any(|rung| match &rung.remedy {
        Remedy::Command(CommandLine::Exec(words)) => words.first().is_some_and(|word| word == "systemctl"),
        Remedy::Command(CommandLine::Shell(text)) => command::first_program(text) == Some("systemctl"),
        Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_) => false,
    });
    if restarts && !unit.is_user && !geteuid().is_root() {
        let rule = "the restart is refused unless a polkit rule allows this account to manage the unit";
        findings.lines.push(format!("              not root: {rule}"));
    }
    findings
}

fn describe(name: &str, systemctl: &str, unit: &UnitEvidence, findings: &mut UnitFindings) {
    match unit.load {
        LoadState::NotFound => {
            let advice = format!("{systemctl} list-units --type=service shows the names");
            return findings.problems.push(format!("there is no unit {name} ({advice})"));
        }
        LoadState::Masked => {
            let fix = format!("Fix: {systemctl} unmask {name}");
            findings.problems.push(format!("{name} is masked: nothing can start it. {fix}"));
        }
        LoadState::Invalid => {
            findings.problems.push(format!("the file of {name} has an error: {systemctl} status {name} shows it"));
        }
        LoadState::Loaded => {}
    }
    let (active, sub) = (unit.active, escaped(&unit.sub));
    let enabled = if unit.file_state.is_empty() { String::new() } else { format!(", {}", escaped(&unit.file_state)) };
    findings.lines.push(format!("  unit        {name} is {active} ({sub}){enabled}"));
    if unit.file_state == "disabled" {
        let why = "it does not start after a reboot, and systemd forgets how it ended";
        findings.lines.push(format!("              not enabled: {why}. Fix: {systemctl} enable {name}"));
    }
}

/// The problem of commands that speak to the account's own manager where there is none to be found.
pub(super) fn find_missing_manager(config: &Config) -> Option<String> {
    let env: Vec<(String, String)> = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    if !config.targets.iter().any(uses_user_manager) || command::has_runtime_dir(&env) {
        return None;
    }
    let folder = command::default_runtime_dir();
    Some(format!(
        "systemctl --user reaches no systemd: {} does not exist, so none runs for this account. \
         Fix: loginctl enable-linger (it may need root)",
        folder.display()
    ))
}

fn uses_user_manager(target: &Target) -> bool {
    let is_call = |text: &str| text.contains("systemctl") && text.contains("--user");
    let rungs = target.ladder.iter().filter_map(|rung| match &rung.remedy {
        Remedy::Command(command) => Some(command),
        Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_) => None,
    });
    let probe = match &target.probe {
        Probe::Command(command) => Some(command),
        Probe::Http(_) | Probe::Tcp { .. } | Probe::File { .. } | Probe::Pm2(_) => None,
    };
    let mut commands = rungs.chain(&target.only_if).chain(&target.diagnose).chain(probe);
    target.unit.as_ref().is_some_and(|unit| unit.is_user) || commands.any(|command| is_call(&command.to_string()))
}
