//! The probers: one for each target, and those of earlier configurations for as long as something of theirs runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::command::Scope;
use crate::config::{Config, Pm2Config, Probe, Secret, Secrets};
use crate::probe::{Prober, Trust};

pub(super) struct Probers {
    /// By target: its prober, and what that was made from.
    current: HashMap<String, (Arc<Prober>, ProberSpec)>,
    /// Where the commands of replaced ones run, for as long as one does or may begin.
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
    /// Errors: one cannot be made; in words.
    pub(super) fn new(config: &Config) -> Result<Probers, String> {
        let mut probers = Probers { current: HashMap::new(), replaced: Vec::new() };
        probers.reload(config)?;
        Ok(probers)
    }

    /// Takes those of a configuration; what the others run goes on until its deadline, or until we end. One where
    /// nothing about the look has changed is kept: what hangs in it hangs still. Certificates are read anew, so an
    /// https prober is always a new one. Errors: one cannot be made; in words. Nothing was changed then.
    pub(super) fn reload(&mut self, config: &Config) -> Result<(), String> {
        let trust = Trust::default();
        let mut present = HashMap::new();
        for target in &config.targets {
            let asked = ProberSpec {
                probe: target.probe.clone(),
                pm2: target.pm2.clone(),
                timeout: target.limits.timeout,
                env: config.env.clone(),
                secrets: config.secrets.clone(),
                folder: config.folder.clone(),
            };
            let same = self.current.get(&target.name).filter(|(_, old)| *old == asked && !asked.probe.is_https());
            let prober = match same {
                Some((prober, _)) => Arc::clone(prober),
                None => {
                    let ProberSpec { probe, pm2, timeout, env, secrets, folder } = &asked;
                    let prober = Prober::new(probe, pm2.as_ref(), *timeout, folder, env, secrets, &trust);
                    Arc::new(prober.map_err(|error| format!("{}: {error}", target.name))?)
                }
            };
            present.insert(target.name.clone(), (prober, asked));
        }
        for (name, (old, _)) in std::mem::replace(&mut self.current, present) {
            let is_kept = self.current.get(&name).is_some_and(|(new, _)| Arc::ptr_eq(new, &old));
            if let Some(scope) = old.scope().filter(|_| !is_kept) {
                self.replaced.push((Arc::downgrade(&old), scope.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, target: &str) -> Option<(Arc<Prober>, Duration)> {
        self.current.get(target).map(|(prober, asked)| (Arc::clone(prober), asked.timeout))
    }

    pub(super) fn forget_replaced(&mut self) {
        self.replaced.retain(|(prober, scope)| prober.strong_count() > 0 || !scope.is_empty());
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        let present = self.current.values().filter_map(|(prober, _)| prober.scope());
        present.chain(self.replaced.iter().map(|(_, scope)| scope))
    }
}
