//! A look by HTTP: one request over a connection of its own, and whether the answer is the one that is wanted.
//! It must never follow a redirect, keep a connection, or wait for a body that no longer matters.

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
use super::filter::INPUT;
use super::resolve::Host;
use super::sanitize::ByteSize;
use super::setup::{LONGEST_LINE, Setup};
use super::tls::{self, Trust};
use super::trace::Traced;
use super::transport::SocketTransport;

/// The longest body that is read, in bytes.
const MAX_BODY: u64 = 1 << 20;
/// How long the beginning of a body is waited for that can change nothing any more, but may say why.
const AFTERTHOUGHT: Duration = Duration::from_millis(250);

/// A target that speaks HTTP. Not to be printed: the request has secrets in it.
pub(super) struct HttpProbe {
    place: Endpoint,
    request: Request<()>,
    /// Bytes that the longest line of the request takes, and a margin.
    longest_line: usize,
    wanted: Expectations,
    setup: Arc<Setup>,
    /// For where the first has no certificates to verify others by.
    fallback: Option<Arc<Setup>>,
}

impl HttpProbe {
    /// Errors say what is wrong with the configuration, without the url and the headers' values.
    pub(super) fn new(http: &HttpConfig, secrets: &Secrets, trust: &Trust) -> Result<Self, String> {
        let uri: Uri = http.url.0.parse().map_err(|error| format!("the url is not valid: {error}"))?;
        let (setup, fallback) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => (Arc::new(Setup::plain()), None),
            Some(scheme) if *scheme == Scheme::HTTPS => tls::setups(&http.tls, trust)?,
            _ => return Err("the url begins with neither http:// nor https://".into()),
        };
        let place = match (&http.unix_socket, uri.host()) {
            (Some(path), _) => {
                connect::check_unix(path)?;
                Endpoint::Unix(path.clone())
            }
            (None, Some(host)) if !host.is_empty() => Endpoint::Net { host: Host::new(host), port: port(&uri)? },
            (None, _) => return Err("the url names no host".into()),
        };
        let request = request(http, uri)?;
        let (longest_line, wanted) = (longest_line(&request), Expectations::new(http, secrets));
        Ok(HttpProbe { place, request, longest_line, wanted, setup, fallback })
    }

    /// The status, where it is the wanted one and so is the body.
    pub(super) fn probe(&self, deadline: Deadline, seen: &mut Observations) -> Result<String, Failure> {
        let found = match (self.exchange(&self.setup, deadline, seen), &self.fallback) {
            (Err(Broken::NoCertificates(_)), Some(fallback)) => self.exchange(fallback, deadline, seen),
            (found, _) => found,
        };
        match found {
            Ok(status) => Ok(status.to_string()),
            Err(Broken::NoCertificates(failure) | Broken::Failed(failure)) => Err(failure),
        }
    }

    /// Sends the request, judges the status as soon as it is known, then reads the body to its end and judges that.
    fn exchange(&self, setup: &Arc<Setup>, deadline: Deadline, seen: &mut Observations) -> Result<u16, Broken> {
        let socket = self.place.dial(deadline, seen)?;
        let trace = Traced::new(deadline.elapsed(), setup.is_secure());
        seen.exchange = Some(trace.clone());
        let wire = SocketTransport::new(socket, deadline, trace.clone(), INPUT, self.longest_line);
        let broken = |error: ureq::Error| {
            let failure = classify::exchange(&error, &trace.lock(), deadline.elapsed());
            if tls::lacks_certificates(&error) { Broken::NoCertificates(failure) } else { Broken::Failed(failure) }
        };
        let response = setup.agent(wire).run(self.request.clone()).map_err(|error| {
            // What the parser does not take of a head decides only where its status is the wanted one.
            let status = trace.lock().answer.status();
            match status.map(|status| (status, self.wanted.status(status))) {
                Some((status, Err(failure))) => {
                    trace.lock().head = Some((status, deadline.elapsed()));
                    failure.into()
                }
                Some((_, Ok(()))) | None => broken(error),
            }
        })?;
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        trace.lock().head = Some((status, deadline.elapsed()));
        let has_body = self.request.method() != Method::HEAD;
        if let Err(failure) = self.wanted.status(status) {
            if has_body {
                trace.lock().patience = Some(deadline.within(AFTERTHOUGHT));
                // What comes in time is kept; that no more does says nothing.
                let _ = body.into_reader().take(4 * evidence::KEPT as u64).read_to_end(&mut seen.body);
            }
            return Err(failure.into());
        }
        if !has_body {
            return Ok(status);
        }
        let read = body.into_reader().take(MAX_BODY + 1).read_to_end(&mut seen.body);
        trace.lock().body = seen.body.len();
        let length = read.map_err(|error| broken(error.into()))?;
        if let Some(failure) = classify::hidden_fault(&trace.lock(), deadline.elapsed()) {
            return Err(failure.into());
        }
        if length as u64 > MAX_BODY {
            return Err(Failure::Target(Class::Body, format!("body of more than {}", ByteSize(MAX_BODY))).into());
        }
        self.wanted.body(&seen.body, &trace.lock().answer.codings)?;
        Ok(status)
    }
}

#[derive(Debug)]
enum Broken {
    /// The system has no certificates to verify others by.
    NoCertificates(Failure),
    Failed(Failure),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Broken::Failed(failure)
    }
}

/// A port that is none is taken for no port by the parser, which must not send us to port 80 unasked.
fn port(uri: &Uri) -> Result<u16, String> {
    let written = uri.authority().and_then(|authority| {
        let after_user = authority.as_str().rsplit('@').next()?;
        after_user.strip_prefix(authority.host())?.strip_prefix(':')
    });
    match (uri.port_u16(), written) {
        (Some(port @ 1..), _) => Ok(port),
        (None, None) if uri.scheme() == Some(&Scheme::HTTPS) => Ok(443),
        (None, None) => Ok(80),
        _ => Err("the url's port is not a number from 1 to 65535".into()),
    }
}

/// Host and user agent are written by ureq; a KiB is more than they take.
fn longest_line(request: &Request<()>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let host = request.uri().host().map_or(0, str::len);
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    (headers.chain([host, path]).max().unwrap_or(0) + 1_024).min(LONGEST_LINE)
}

fn request(http: &HttpConfig, uri: Uri) -> Result<Request<()>, String> {
    let mut request = Request::new(());
    *request.method_mut() = match http.method {
        config::Method::Get => Method::GET,
        config::Method::Head => Method::HEAD,
    };
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    // The method, the version and the ends of lines go on top.
    if path + 32 > LONGEST_LINE {
        return Err(format!("the url is longer than {}", ByteSize(LONGEST_LINE as u64)));
    }
    *request.uri_mut() = uri;
    for (name, value) in &http.headers {
        let bad = |what: &str| format!("header {name}: {what}");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("its name is not one that HTTP allows"))?;
        let text = HeaderValue::from_bytes(value.0.as_bytes());
        let mut text = text.map_err(|_| bad("its value has a control character"))?;
        if name.len() + value.0.len() + 4 > LONGEST_LINE {
            return Err(bad(&format!("it is longer than {}", ByteSize(LONGEST_LINE as u64))));
        }
        text.set_sensitive(true);
        request.headers_mut().append(key, text);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}
