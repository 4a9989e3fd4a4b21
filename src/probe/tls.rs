//! TLS for https targets: which certificates are trusted, and the TLS layer over a connection.
//! It must never read the system's certificates before the first https target is probed, nor a file of certificates
//! that no configuration names.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ureq::Error;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{ConnectionDetails, Connector, RustlsConnector, Transport};

use crate::config::Tls;
use crate::outcome::describe_io_error;

use super::setup::{Setup, limits};
use super::transport::SocketTransport;

/// The trust store, shared by all probes of one configuration and read when the first https target is probed.
#[derive(Clone)]
pub struct Trust {
    system: Arc<Setup>,
    /// Mozilla's certificates as of the build, for a system that has none.
    builtin: Arc<Setup>,
}

impl Default for Trust {
    fn default() -> Self {
        let trusting = |roots| setup(TlsConfig::builder().root_certs(roots).build());
        Trust { system: trusting(RootCerts::PlatformVerifier), builtin: trusting(RootCerts::WebPki) }
    }
}

/// Adds TLS to a connection. The connector caches the certificates that it has read.
#[derive(Debug)]
struct TlsLayer(RustlsConnector);

impl Connector<SocketTransport> for TlsLayer {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        transport: Option<SocketTransport>,
    ) -> Result<Option<Self::Out>, Error> {
        let secured = self.0.connect(details, transport)?;
        Ok(secured.map(|secured| Box::new(secured) as Box<dyn Transport>))
    }
}

/// The setup for an https target, and a fallback for a system that has no certificates of its own.
pub(super) fn setups(tls: &Tls, trust: &Trust) -> Result<(Arc<Setup>, Option<Arc<Setup>>), String> {
    Ok(match tls {
        Tls::Verify => (Arc::clone(&trust.system), Some(Arc::clone(&trust.builtin))),
        Tls::Insecure => (setup(TlsConfig::builder().disable_verification(true).build()), None),
        Tls::Ca(path) => {
            let roots = RootCerts::new_with_certs(&read_certificates(path)?);
            (setup(TlsConfig::builder().root_certs(roots).build()), None)
        }
    })
}

pub(super) fn lacks_certificates(error: &Error) -> bool {
    matches!(error, Error::Rustls(_))
}

fn setup(tls: TlsConfig) -> Arc<Setup> {
    Arc::new(Setup::secure(limits().tls_config(tls).build(), TlsLayer(RustlsConnector::default())))
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|error| format!("{shown}: {}", describe_io_error(&error)))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("{shown}: {error}")),
        }
    }
    if certificates.is_empty() {
        return Err(format!("{shown}: contains no certificate"));
    }
    Ok(certificates)
}
