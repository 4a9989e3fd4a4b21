//! What stands in the place of TLS in a build without it: https targets are refused.

use std::sync::Arc;

use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Transport};

use crate::config::Tls;

use super::setup::Setup;
use super::wire::Wire;

/// What the probes of one configuration share: nothing in this build.
#[derive(Clone, Default)]
pub struct Trust(());

/// There is none.
#[derive(Debug)]
pub(super) enum Layer {}

impl Layer {
    pub(super) fn over(&self, _: Wire, _: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> {
        match *self {}
    }
}

pub(super) fn setups(_: &Tls, _: &Trust) -> Result<(Arc<Setup>, Option<Arc<Setup>>), String> {
    Err("https: this watchdog was built without TLS".into())
}

pub(super) fn lacks_certificates(_: &Error) -> bool {
    false
}
