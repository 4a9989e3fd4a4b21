//! How ureq is set up: its limits, no proxy, no pool, no resolver of its own, and TLS for those targets only that ask
//! for it. It must never load certificates for a plain request.

use std::sync::{Arc, Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Agent, Error};

use super::wire::Wire;

#[cfg(feature = "tls")]
pub use secure::Trust;

/// Headers longer than this are none: servers refuse requests at a quarter of it.
const MAX_HEADERS: usize = 32 << 10;
/// More than `MAX_HEADERS`, so that the limit is met before the buffer is full.
pub(super) const INPUT: usize = 40 << 10;
/// Every line of a request must fit into it.
pub(super) const OUTPUT: usize = 16 << 10;

/// What the probes of one configuration share: the trust store, read when the first https target is looked at.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug, Default)]
pub struct Trust(());

/// Limits and TLS for the requests of a target, or of many.
#[derive(Debug)]
pub(super) struct Setup {
    config: Config,
    #[cfg(feature = "tls")]
    tls: Option<ureq::unversioned::transport::RustlsConnector>,
}

impl Setup {
    /// For http.
    pub(super) fn plain() -> Self {
        Setup {
            config: limits().build(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Whether requests go over TLS.
    pub(super) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// An agent for one request over `wire`. There is little to it, so nothing of it is kept between looks.
    pub(super) fn agent(self: &Arc<Self>, wire: Wire) -> Agent {
        let handover = Handover { setup: Arc::clone(self), wire: Mutex::new(Some(wire)) };
        Agent::with_parts(self.config.clone(), handover, NoLookUp)
    }

    fn secured(&self, wire: Wire, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let transport = tls.connect(details, Some(wire))?.ok_or(Error::ConnectionFailed)?;
            return Ok(Box::new(transport));
        }
        // Without TLS there is nothing to be had from the details.
        let _ = details;
        Ok(Box::new(wire))
    }
}

/// The limits of every request. A redirect is an answer like any other; the deadline is the wire's.
fn limits() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEADERS)
        .input_buffer_size(INPUT)
        .output_buffer_size(OUTPUT)
        .user_agent(concat!("watchdog-agent/", env!("CARGO_PKG_VERSION")))
}

/// Gives the connection that was made beforehand to the one request it was made for.
#[derive(Debug)]
struct Handover {
    setup: Arc<Setup>,
    wire: Mutex<Option<Wire>>,
}

impl Connector for Handover {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let Some(wire) = self.wire.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(Error::ConnectionFailed);
        };
        let (trace, deadline) = (wire.trace(), wire.deadline());
        let transport = self.setup.secured(wire, details)?;
        trace.lock().ready = Some(deadline.elapsed());
        Ok(Some(transport))
    }
}

/// The name was looked up before ureq comes into it.
#[derive(Debug)]
struct NoLookUp;

impl Resolver for NoLookUp {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Whether the system has no certificates to trust, so that nothing can be verified by them.
pub(super) fn lacks_certificates(error: &Error) -> bool {
    #[cfg(feature = "tls")]
    return matches!(error, Error::Rustls(_));
    #[cfg(not(feature = "tls"))]
    {
        let _ = error;
        false
    }
}

/// The setups for an https target, in the order in which to try them.
#[cfg(not(feature = "tls"))]
pub(super) fn secure(_: &crate::config::Tls, _: &Trust) -> Result<Vec<Arc<Setup>>, String> {
    Err("https: this watchdog was built without TLS".into())
}

#[cfg(feature = "tls")]
pub(super) use secure::secure;

#[cfg(feature = "tls")]
mod secure {
    use std::fs;
    use std::sync::Arc;

    use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
    use ureq::unversioned::transport::RustlsConnector;

    use super::{Setup, limits};
    use crate::config::Tls;
    use crate::outcome::in_words;

    /// What the probes of one configuration share: the trust store, read when the first https target is looked at.
    #[derive(Clone, Debug)]
    pub struct Trust {
        /// The system's certificates.
        system: Arc<Setup>,
        /// Mozilla's as they were when this was built, for a system that has none.
        builtin: Arc<Setup>,
    }

    impl Default for Trust {
        fn default() -> Self {
            let setup = |roots| Arc::new(Setup::over(TlsConfig::builder().root_certs(roots).build()));
            Trust { system: setup(RootCerts::PlatformVerifier), builtin: setup(RootCerts::WebPki) }
        }
    }

    impl Setup {
        fn over(tls: TlsConfig) -> Self {
            Setup { config: limits().tls_config(tls).build(), tls: Some(RustlsConnector::default()) }
        }
    }

    /// The setups for an https target, in the order in which to try them.
    pub(in crate::probe) fn secure(asked: &Tls, trust: &Trust) -> Result<Vec<Arc<Setup>>, String> {
        let own = |tls| Ok(vec![Arc::new(Setup::over(tls))]);
        match asked {
            Tls::Verify => Ok(vec![Arc::clone(&trust.system), Arc::clone(&trust.builtin)]),
            Tls::Insecure => own(TlsConfig::builder().disable_verification(true).build()),
            Tls::Ca(path) => {
                let shown = path.display();
                let pem = fs::read(path).map_err(|error| format!("{shown}: {}", in_words(&error)))?;
                let items: Result<Vec<PemItem<'_>>, _> = parse_pem(&pem).collect();
                let items = items.map_err(|error| format!("{shown}: {error}"))?;
                let certificates: Vec<_> = items
                    .into_iter()
                    .filter_map(|item| match item {
                        PemItem::Certificate(certificate) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    return Err(format!("{shown}: there is no certificate in it"));
                }
                own(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
            }
        }
    }
}
