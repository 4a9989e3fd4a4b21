//! TLS for https targets: which certificates are trusted, and the layer over a connection.
//! It must never read a certificate before the first https target is looked at, or named one in its configuration.

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

/// What the probes of one configuration share: the trust store, read when the first https target is looked at.
#[derive(Clone)]
pub struct Trust {
    /// The system's certificates.
    system: Arc<Setup>,
    /// Mozilla's as they were when this was built, for a system that has none.
    builtin: Arc<Setup>,
}

impl Default for Trust {
    fn default() -> Self {
        let trusting = |roots| setup(TlsConfig::builder().root_certs(roots).build());
        Trust { system: trusting(RootCerts::PlatformVerifier), builtin: trusting(RootCerts::WebPki) }
    }
}

/// Speaks TLS over a connection. It keeps what it read of certificates.
#[derive(Debug)]
struct Layer(RustlsConnector);

impl Connector<SocketTransport> for Layer {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        wire: Option<SocketTransport>,
    ) -> Result<Option<Self::Out>, Error> {
        let transport = self.0.connect(details, wire)?;
        Ok(transport.map(|transport| Box::new(transport) as Box<dyn Transport>))
    }
}

/// The setup for an https target, and another for where the system has no certificates to verify others by.
pub(super) fn setups(asked: &Tls, trust: &Trust) -> Result<(Arc<Setup>, Option<Arc<Setup>>), String> {
    Ok(match asked {
        Tls::Verify => (Arc::clone(&trust.system), Some(Arc::clone(&trust.builtin))),
        Tls::Insecure => (setup(TlsConfig::builder().disable_verification(true).build()), None),
        Tls::Ca(path) => {
            let roots = RootCerts::new_with_certs(&certificates(path)?);
            (setup(TlsConfig::builder().root_certs(roots).build()), None)
        }
    })
}

pub(super) fn lacks_certificates(error: &Error) -> bool {
    matches!(error, Error::Rustls(_))
}

fn setup(tls: TlsConfig) -> Arc<Setup> {
    Arc::new(Setup::secure(limits().tls_config(tls).build(), Layer(RustlsConnector::default())))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|error| format!("{shown}: {}", describe_io_error(&error)))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("{shown}: {error}")),
        }
    }
    if found.is_empty() {
        return Err(format!("{shown}: there is no certificate in it"));
    }
    Ok(found)
}
