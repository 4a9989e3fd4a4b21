//! The probers: one for each target, and those of earlier configurations while their commands run.
//! A reload must not end a running probe, nor replace a prober whose settings are unchanged.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::command::Scope;
use crate::config::{Config, Pm2Config, Probe, Secret, Secrets};
use crate::probe::{Prober, Trust};

pub(super) struct Probers {
    /// By target: its prober, and the settings it was made from.
    current: HashMap<String, (Arc<Prober>, ProberSpec)>,
    /// Replaced probers, with the scopes of their commands, while a command runs or may still start.
    replaced: Vec<(Weak<Prober>, Scope)>,
}

#[derive(Clone, PartialEq)]
struct ProberSpec {
    probe: Probe,
    pm2: Option<Pm2Config>,
    timeout: Duration,
    env: Vec<(String, Secret)>,
    secrets: Secrets,
    folder: PathBuf,
}

impl Probers {
    /// Errors: a prober cannot be made.
    pub(super) fn new(config: &Config) -> Result<Probers, String> {
        let mut probers = Probers { current: HashMap::new(), replaced: Vec::new() };
        probers.reload(config)?;
        Ok(probers)
    }

    /// Makes the probers of a new configuration. Commands of replaced probers run on until their deadline, or until the
    /// watchdog ends. A prober whose settings are unchanged is kept, with any probe that hangs in it; an https prober
    /// is always made again, since certificates are read again. Errors: a prober cannot be made; then nothing is
    /// changed.
    pub(super) fn reload(&mut self, config: &Config) -> Result<(), String> {
        let trust = Trust::default();
        let mut current = HashMap::new();
        for target in &config.targets {
            let spec = ProberSpec {
                probe: target.probe.clone(),
                pm2: target.pm2.clone(),
                timeout: target.limits.timeout,
                env: config.env.clone(),
                secrets: config.secrets.clone(),
                folder: config.folder.clone(),
            };
            let same = self.current.get(&target.name).filter(|(_, old)| *old == spec && !spec.probe.is_https());
            let prober = match same {
                Some((prober, _)) => Arc::clone(prober),
                None => {
                    let ProberSpec { probe, pm2, timeout, env, secrets, folder } = &spec;
                    let prober = Prober::new(probe, pm2.as_ref(), *timeout, folder, env, secrets, &trust);
                    Arc::new(prober.map_err(|error| format!("{}: {error}", target.name))?)
                }
            };
            current.insert(target.name.clone(), (prober, spec));
        }
        for (name, (old, _)) in std::mem::replace(&mut self.current, current) {
            let is_kept = self.current.get(&name).is_some_and(|(new, _)| Arc::ptr_eq(new, &old));
            if let Some(scope) = old.scope().filter(|_| !is_kept) {
                self.replaced.push((Arc::downgrade(&old), scope.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, target: &str) -> Option<(Arc<Prober>, Duration)> {
        self.current.get(target).map(|(prober, spec)| (Arc::clone(prober), spec.timeout))
    }

    pub(super) fn forget_replaced(&mut self) {
        self.replaced.retain(|(prober, scope)| prober.strong_count() > 0 || !scope.is_empty());
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        let current = self.current.values().filter_map(|(prober, _)| prober.scope());
        current.chain(self.replaced.iter().map(|(_, scope)| scope))
    }
}
