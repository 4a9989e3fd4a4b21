//! What stands in the place of TLS in a build without it: https targets are refused.

use std::sync::Arc;

use ureq::Error;

use crate::config::Tls;

use super::setup::Setup;

/// What the probes of one configuration share: nothing in this build.
#[derive(Clone, Default)]
pub struct Trust(());

pub(super) fn setups(_: &Tls, _: &Trust) -> Result<(Arc<Setup>, Option<Arc<Setup>>), String> {
    Err("https: this watchdog was built without TLS".into())
}

pub(super) fn lacks_certificates(_: &Error) -> bool {
    false
}
