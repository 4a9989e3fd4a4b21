//! Sends one mail to a mail server. An error before the mail's content (greeting, EHLO, login, addresses) must never
//! count as a final rejection, because it may be over tomorrow; only the reply to the content is about this mail.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as From, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::{Address, Message as Mail};

use super::{Delivery, DeliveryOutcome, TIMEOUT};
use crate::config::{Security, Smtp};
use crate::outcome;

const REPLY_TIMEOUT: Duration = TIMEOUT;
/// The time limit for the reply to the mail's content. Content scanners are slow, and a server delivers the mail even
/// if the client disconnects before the reply, so with a shorter limit the mail would be sent again and again.
const ACCEPTANCE_TIMEOUT: Duration = Duration::from_secs(300);
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);
/// The port for SMTP that begins with TLS (smtps).
const TLS_PORT: u16 = 465;
/// The time limit for a connection that only checks whether the server uses TLS from the start.
const PROTOCOL_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn deliver(server: &Smtp, mail: &Mail, host: &str, delivery: &Delivery) -> DeliveryOutcome {
    let failed = |why: String| DeliveryOutcome::Failed(delivery.sanitize(&why), None);
    let mut connection = match open_session(server, host) {
        Ok(connection) => connection,
        Err(why) => return failed(why),
    };
    if let Err(why) = send_envelope(&mut connection, mail) {
        connection.abort();
        return failed(why);
    }
    send_content(connection, mail, delivery)
}

fn send_content(mut connection: SmtpConnection, mail: &Mail, delivery: &Delivery) -> DeliveryOutcome {
    let failed = |why: String| DeliveryOutcome::Failed(delivery.sanitize(&why), None);
    if let Err(error) = connection.set_timeout(Some(ACCEPTANCE_TIMEOUT)) {
        connection.abort();
        return failed(outcome::describe_io_error(&error));
    }
    match connection.message(&mail.formatted()) {
        Ok(_) => {
            // The server has accepted the mail, so errors of QUIT do not matter.
            let _ = connection.set_timeout(Some(QUIT_TIMEOUT));
            let _ = connection.quit();
            DeliveryOutcome::Delivered
        }
        Err(error) => {
            connection.abort();
            let is_final = error.is_permanent();
            let why = if is_timeout(&error) { describe_timeout(ACCEPTANCE_TIMEOUT) } else { describe_error(&error) };
            if is_final { DeliveryOutcome::Refused(delivery.sanitize(&why)) } else { failed(why) }
        }
    }
}

fn send_envelope(connection: &mut SmtpConnection, mail: &Mail) -> Result<(), String> {
    let envelope = mail.envelope();
    let mut parameters = Vec::new();
    let is_plain = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
    if !envelope.from().into_iter().chain(envelope.to()).all(is_plain) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err("the server accepts no addresses with non-ASCII characters (no SMTPUTF8)".into());
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    connection.command(From::new(envelope.from().cloned(), parameters)).map_err(|error| describe_error(&error))?;
    for to in envelope.to() {
        connection.command(Rcpt::new(to.clone(), Vec::new())).map_err(|error| describe_error(&error))?;
    }
    connection.command(Data).map(|_| ()).map_err(|error| describe_error(&error))
}

fn open_session(server: &Smtp, host: &str) -> Result<SmtpConnection, String> {
    let name = client_id(host, server);
    let mut connection = match server.security {
        Security::Tls => {
            connect(server, &name, Some(&tls_parameters(server, accepts_any_certificate(server))?), REPLY_TIMEOUT)
                .map_err(|error| {
                    let greets_plain =
                        error.status().is_none() && connect(server, &name, None, PROTOCOL_CHECK_TIMEOUT).is_ok();
                    let hint =
                        if greets_plain { "the server answers without TLS; use smtp:// (with STARTTLS): " } else { "" };
                    format!("{hint}{}", describe_error(&error))
                })?
        }
        Security::StartTls => connect_plain(server, &name, server.port == TLS_PORT)?,
    };
    let needs_tls = server.credentials.is_some() && !is_loopback(&server.host);
    if server.security == Security::StartTls && (needs_tls || connection.can_starttls()) {
        let secured = connection.starttls(&tls_parameters(server, accepts_any_certificate(server))?, &name);
        secured.map_err(|error| describe_error(&error))?;
    }
    if let Some((user, password)) = &server.credentials {
        let credentials = Credentials::new(user.0.clone(), password.0.clone());
        connection.auth(DEFAULT_MECHANISMS, &credentials).map_err(|error| describe_error(&error))?;
    }
    Ok(connection)
}

/// Connects without TLS. A server that expects TLS from the first byte sends no greeting, so after a timeout a second
/// connection checks whether it answers to TLS. Not earlier, because many servers treat a client that sends data before
/// their greeting as an abuser. On a port that is `for_tls`, the check comes first.
fn connect_plain(server: &Smtp, name: &ClientId, for_tls: bool) -> Result<SmtpConnection, String> {
    // A TLS alert is a failure, but it shows that the server speaks TLS.
    let uses_tls =
        || match tls_parameters(server, true).map(|tls| connect(server, name, Some(&tls), PROTOCOL_CHECK_TIMEOUT)) {
            Ok(Err(error)) => describe_error(&error).contains("fatal alert"),
            Ok(Ok(_)) => true,
            Err(_) => false,
        };
    let needs_smtps = || Err("the server expects TLS from the start; use smtps://".into());
    if for_tls && uses_tls() {
        return needs_smtps();
    }
    match connect(server, name, None, REPLY_TIMEOUT) {
        Ok(connection) => Ok(connection),
        Err(error) if (is_timeout(&error) || error.is_response()) && !for_tls && uses_tls() => needs_smtps(),
        Err(error) => Err(describe_error(&error)),
    }
}

fn connect(
    server: &Smtp,
    name: &ClientId,
    tls: Option<&TlsParameters>,
    timeout: Duration,
) -> Result<SmtpConnection, Error> {
    SmtpConnection::connect((server.host.as_str(), server.port), Some(timeout), name, tls, None)
}

fn tls_parameters(server: &Smtp, is_trusted: bool) -> Result<TlsParameters, String> {
    let parameters = TlsParameters::builder(server.host.clone()).dangerous_accept_invalid_certs(is_trusted);
    parameters.build().map_err(|error| format!("cannot set up TLS: {}", describe_error(&error)))
}

/// Whether any certificate is accepted: on loopback and without a password. Nobody can intercept loopback, and the
/// certificate of a local mail server is usually self-signed by its package. A password still needs a valid
/// certificate.
fn accepts_any_certificate(server: &Smtp) -> bool {
    is_loopback(&server.host) && server.credentials.is_none()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The name for EHLO: the full host name, which many servers require, or else the local address as a literal.
fn client_id(host: &str, server: &Smtp) -> ClientId {
    if is_full_name(host) {
        return ClientId::Domain(host.to_owned());
    }
    match local_address(server).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Some(IpAddr::V6(address)) => ClientId::Ipv6(address),
        None => ClientId::Ipv4(Ipv4Addr::LOCALHOST),
    }
}

fn is_full_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_good = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        !label.is_empty() && label.len() <= 63 && label.chars().all(is_good) && !label.starts_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.chars().all(|letter| letter.is_ascii_digit());
    host.contains('.') && host.len() <= 255 && host.split('.').all(is_label) && !is_number
}

/// The local address for packets to the server. Connecting a UDP socket sends nothing.
fn local_address(server: &Smtp) -> Option<IpAddr> {
    let mut addresses = (server.host.as_str(), server.port).to_socket_addrs().ok()?;
    let local_for = |to: std::net::SocketAddr| {
        let from: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    addresses.find_map(local_for)
}

fn describe_error(error: &Error) -> String {
    if is_timeout(error) {
        return describe_timeout(REPLY_TIMEOUT);
    }
    let mut text = error.to_string();
    for cause in causes(error) {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}

fn describe_timeout(span: Duration) -> String {
    format!("no reply for {} s", span.as_secs())
}

fn is_timeout(error: &Error) -> bool {
    let is_io_timeout = |error: &io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    causes(error).any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_io_timeout))
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;
    use crate::command::Scope;

    /// Starts a mail server that greets after one delay, accepts the mail after another, and answers TLS with an alert.
    /// Returns what each connection sent first. The server runs until the tests end.
    fn start_server(greeting_delay: Duration, acceptance_delay: Duration) -> (Smtp, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let first_bytes = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&first_bytes);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, recorded) = (stream.expect("a connection"), Arc::clone(&recorded));
                thread::spawn(move || serve(stream, &recorded, greeting_delay, acceptance_delay));
            }
        });
        (Smtp { host: "127.0.0.1".into(), port, security: Security::StartTls, credentials: None }, first_bytes)
    }

    /// Serves one connection; `None` if it fails, which the client then sees.
    fn serve(
        mut stream: TcpStream,
        recorded: &Mutex<Vec<String>>,
        greeting_delay: Duration,
        acceptance_delay: Duration,
    ) -> Option<()> {
        stream.set_read_timeout(Some(greeting_delay)).ok()?;
        let is_tls = stream.peek(&mut [0]).is_ok_and(|length| length > 0);
        if is_tls {
            recorded.lock().ok()?.push("TLS".into());
            stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).ok()?; // a fatal alert
            return Some(());
        }
        stream.set_read_timeout(None).ok()?;
        stream.write_all(b"220 x ready\r\n").ok()?;
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
        let first = lines.next()?;
        recorded.lock().ok()?.push(first.chars().take(4).collect());
        stream.write_all(b"250 x\r\n").ok()?;
        while let Some(line) = lines.next() {
            if line == "DATA" {
                stream.write_all(b"354 go on\r\n").ok()?;
                lines.find(|line| line == ".")?;
                thread::sleep(acceptance_delay);
            }
            stream.write_all(b"250 x\r\n").ok()?;
        }
        Some(())
    }

    #[test]
    fn the_reply_to_the_content_has_a_longer_time_limit() {
        let (server, _) = start_server(Duration::from_millis(1), Duration::from_millis(500));
        let mail = Mail::builder().from("a@b.example".parse().expect("one")).to("c@d.example".parse().expect("one"));
        let mail = mail.body("x".to_owned()).expect("a mail");
        let delivery = Delivery {
            folder: "/".into(),
            env: Vec::new(),
            secrets: crate::config::Secrets::default(),
            scope: Scope::default(),
        };
        let mut connection = open_session(&server, "a.example").expect("a greeting");
        send_envelope(&mut connection, &mail).expect("all addresses are accepted");
        connection.set_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        assert_eq!(send_content(connection, &mail, &delivery), DeliveryOutcome::Delivered);
    }

    #[test]
    fn no_byte_is_sent_before_the_greeting_except_on_a_tls_port() {
        let name = ClientId::Domain("a.example".into());
        let (slow, first_bytes) = start_server(PROTOCOL_CHECK_TIMEOUT + Duration::from_secs(1), Duration::ZERO);
        assert!(connect_plain(&slow, &name, false).is_ok(), "the server greets in time");
        assert_eq!(*first_bytes.lock().expect("no panic"), ["EHLO"]);

        let (silent, first_bytes) = start_server(ACCEPTANCE_TIMEOUT, Duration::ZERO);
        let error = connect_plain(&silent, &name, true).err();
        assert_eq!(error.as_deref(), Some("the server expects TLS from the start; use smtps://"));
        assert_eq!(*first_bytes.lock().expect("no panic"), ["TLS"]);
    }

    #[test]
    fn ehlo_uses_a_full_host_name_or_the_address() {
        for name in ["srv412.example.org", "a.b", "x-1.example", "3com.example"] {
            assert!(is_full_name(name), "{name}");
        }
        for name in ["", "srv412", "(none)", ".", "a.", ".a", "a..b", "a_b.example", "10.0.0.1", "-a.b", "é.example"] {
            assert!(!is_full_name(name), "{name}");
        }
        let server = |host: &str| Smtp { host: host.into(), port: 25, security: Security::StartTls, credentials: None };
        assert_eq!(client_id("srv412.example.org", &server("127.0.0.1")).to_string(), "srv412.example.org");
        assert_eq!(client_id("srv412", &server("127.0.0.1")).to_string(), "[127.0.0.1]");
    }

    #[test]
    fn any_certificate_is_accepted_only_on_loopback_without_a_password() {
        let check = |host: &str, has_password: bool, expected: bool| {
            let secret = |text: &str| crate::config::Secret(text.into());
            let credentials = has_password.then(|| (secret("u"), secret("p")));
            let server = Smtp { host: host.into(), port: 25, security: Security::StartTls, credentials };
            assert_eq!(accepts_any_certificate(&server), expected, "{host}");
        };
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"] {
            check(host, false, true);
            check(host, true, false);
        }
        for host in ["mail.example.org", "10.0.0.1", "localhost.example.org"] {
            check(host, false, false);
        }
    }
}
