//! Replaces the TLS module in a build without TLS. It must refuse every https target.

use std::sync::Arc;

use ureq::Error;

use crate::config::Tls;

use super::setup::Setup;

/// Empty in this build; with TLS, the certificates that the probes of one configuration share.
#[derive(Clone, Default)]
pub struct Trust(());

pub(super) fn setups(_: &Tls, _: &Trust) -> Result<(Arc<Setup>, Option<Arc<Setup>>), String> {
    Err("https: this watchdog was built without TLS".into())
}

pub(super) fn lacks_certificates(_: &Error) -> bool {
    false
}
