//! The HTTP probe: one request on a new connection, and a check of the response against what is expected.
//! It must never follow a redirect, reuse a connection, or wait for a body that no longer matters.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::uri::Scheme;
use ureq::http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::config::{self, HttpConfig, Secrets};
use crate::outcome::Class;

use super::classify;
use super::connect::{self, Endpoint};
use super::deadline::Deadline;
use super::evidence::{self, Observations};
use super::expectations::Expectations;
use super::failure::Failure;
use super::filter::INPUT_SIZE;
use super::resolve::Host;
use super::sanitize::ByteSize;
use super::setup::{MAX_REQUEST_LINE, Setup};
use super::tls::{self, Trust};
use super::trace::SharedTrace;
use super::transport::SocketTransport;

/// A longer body is a failure. In bytes.
const MAX_BODY: u64 = 1 << 20;
/// How long to wait for the beginning of a body after a wrong status: the verdict is known, but the body may say why.
const EXCERPT_WAIT: Duration = Duration::from_millis(250);

/// It has no `Debug`, because the request holds secrets.
pub(super) struct HttpProbe {
    endpoint: Endpoint,
    request: Request<()>,
    /// The size of the output buffer, in bytes: room for the longest line of the request, with a margin.
    output_size: usize,
    expectations: Expectations,
    setup: Arc<Setup>,
    /// For a system that has no certificates of its own.
    fallback: Option<Arc<Setup>>,
}

impl HttpProbe {
    /// Errors: what is wrong with the configuration, without the URL and the values of headers.
    pub(super) fn new(http: &HttpConfig, secrets: &Secrets, trust: &Trust) -> Result<Self, String> {
        let uri: Uri = http.url.0.parse().map_err(|error| format!("invalid URL: {error}"))?;
        let (setup, fallback) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => (Arc::new(Setup::plain()), None),
            Some(scheme) if *scheme == Scheme::HTTPS => tls::setups(&http.tls, trust)?,
            _ => return Err("the URL must begin with http:// or https://".into()),
        };
        let endpoint = match (&http.unix_socket, uri.host()) {
            (Some(path), _) => {
                connect::check_socket_path(path)?;
                Endpoint::Unix(path.clone())
            }
            (None, Some(host)) if !host.is_empty() => Endpoint::Net { host: Host::new(host), port: port_of(&uri)? },
            (None, _) => return Err("the URL has no host".into()),
        };
        let request = build_request(http, uri)?;
        let (output_size, expectations) = (output_size(&request), Expectations::new(http, secrets));
        Ok(HttpProbe { endpoint, request, output_size, expectations, setup, fallback })
    }

    /// The status, if it and the body meet the expectations.
    pub(super) fn probe(&self, deadline: Deadline, observations: &mut Observations) -> Result<String, Failure> {
        let result = match (self.exchange(&self.setup, deadline, observations), &self.fallback) {
            (Err(ExchangeError::NoCertificates(_)), Some(fallback)) => self.exchange(fallback, deadline, observations),
            (result, _) => result,
        };
        match result {
            Ok(status) => Ok(status.to_string()),
            Err(ExchangeError::NoCertificates(failure) | ExchangeError::Failed(failure)) => Err(failure),
        }
    }

    /// Sends the request, checks the status as soon as it is known, then reads the whole body and checks that.
    fn exchange(
        &self,
        setup: &Arc<Setup>,
        deadline: Deadline,
        observations: &mut Observations,
    ) -> Result<u16, ExchangeError> {
        let socket = self.endpoint.connect(deadline, observations)?;
        let trace = SharedTrace::new(deadline.elapsed(), setup.is_secure());
        observations.exchange = Some(trace.clone());
        let transport = SocketTransport::new(socket, deadline, trace.clone(), INPUT_SIZE, self.output_size);
        let classify = |error: ureq::Error| {
            let failure = classify::exchange_failure(&error, &trace.lock(), deadline.elapsed());
            if tls::lacks_certificates(&error) {
                ExchangeError::NoCertificates(failure)
            } else {
                ExchangeError::Failed(failure)
            }
        };
        let response = setup.agent(transport).run(self.request.clone()).map_err(|error| {
            // A wrong status is the better reason, even if ureq's parser rejects another part of the head.
            let status = trace.lock().head.status();
            match status.map(|status| (status, self.expectations.check_status(status))) {
                Some((status, Err(failure))) => {
                    trace.lock().status = Some((status, deadline.elapsed()));
                    failure.into()
                }
                Some((_, Ok(()))) | None => classify(error),
            }
        })?;
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        trace.lock().status = Some((status, deadline.elapsed()));
        let has_body = self.request.method() != Method::HEAD;
        if let Err(failure) = self.expectations.check_status(status) {
            if has_body {
                trace.lock().excerpt_deadline = Some(deadline.at_most(EXCERPT_WAIT));
                // Whatever arrives in time is kept as evidence. An error here does not change the verdict.
                let _ = body.into_reader().take(4 * evidence::MAX_EXCERPT as u64).read_to_end(&mut observations.body);
            }
            return Err(failure.into());
        }
        if !has_body {
            return Ok(status);
        }
        let read = body.into_reader().take(MAX_BODY + 1).read_to_end(&mut observations.body);
        trace.lock().body_bytes = observations.body.len();
        let length = read.map_err(|error| classify(error.into()))?;
        if let Some(failure) = classify::hidden_failure(&trace.lock(), deadline.elapsed()) {
            return Err(failure.into());
        }
        if length as u64 > MAX_BODY {
            return Err(Failure::Unhealthy(Class::Body, format!("body longer than {}", ByteSize(MAX_BODY))).into());
        }
        self.expectations.check_body(&observations.body, &trace.lock().head.codings)?;
        Ok(status)
    }
}

#[derive(Debug)]
enum ExchangeError {
    /// The system has no certificates of its own, so the fallback is tried.
    NoCertificates(Failure),
    Failed(Failure),
}

impl From<Failure> for ExchangeError {
    fn from(failure: Failure) -> Self {
        ExchangeError::Failed(failure)
    }
}

/// The URL parser drops an invalid port without an error, so the text is checked too: the probe must not silently go to
/// port 80.
fn port_of(uri: &Uri) -> Result<u16, String> {
    let written = uri.authority().and_then(|authority| {
        let after_user = authority.as_str().rsplit('@').next()?;
        after_user.strip_prefix(authority.host())?.strip_prefix(':')
    });
    match (uri.port_u16(), written) {
        (Some(port @ 1..), _) => Ok(port),
        (None, None) if uri.scheme() == Some(&Scheme::HTTPS) => Ok(443),
        (None, None) => Ok(80),
        _ => Err("the URL's port must be a number from 1 to 65535".into()),
    }
}

/// The margin of 1 KiB is more than the lines take that ureq adds itself, such as Host and User-Agent.
fn output_size(request: &Request<()>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let host = request.uri().host().map_or(0, str::len);
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    (headers.chain([host, path]).max().unwrap_or(0) + 1_024).min(MAX_REQUEST_LINE)
}

fn build_request(http: &HttpConfig, uri: Uri) -> Result<Request<()>, String> {
    let mut request = Request::new(());
    *request.method_mut() = match http.method {
        config::Method::Get => Method::GET,
        config::Method::Head => Method::HEAD,
    };
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    // 32 bytes are enough for the method, the version and the line end.
    if path + 32 > MAX_REQUEST_LINE {
        return Err(format!("the URL is longer than {}", ByteSize(MAX_REQUEST_LINE as u64)));
    }
    *request.uri_mut() = uri;
    for (name, value) in &http.headers {
        let invalid = |what: &str| format!("header {name}: {what}");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("its name is not valid in HTTP"))?;
        let text = HeaderValue::from_bytes(value.0.as_bytes());
        let mut text = text.map_err(|_| invalid("its value contains a control character"))?;
        if name.len() + value.0.len() + 4 > MAX_REQUEST_LINE {
            return Err(invalid(&format!("it is longer than {}", ByteSize(MAX_REQUEST_LINE as u64))));
        }
        text.set_sensitive(true);
        request.headers_mut().append(key, text);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}
