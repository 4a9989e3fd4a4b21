//! One mail to a mail server. What the server says is told apart by what it was said to: only the answer to the mail
//! itself is about this mail; whatever comes before it (greeting, EHLO, login, addresses) may be another one tomorrow.

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

/// How long a server may be silent between two answers.
const SILENCE: Duration = TIMEOUT;
/// How long a server may look at the mail before it says whether it takes it. Content scanners take their time, and a
/// server that is left before it has answered delivers the mail all the same, so it would come again and again.
const SCRUTINY: Duration = Duration::from_secs(300);
/// How long a server may take to say good-bye.
const LEAVE: Duration = Duration::from_secs(1);
/// The port of mail that begins with TLS.
const TLS_PORT: u16 = 465;
/// How long a server may take where it is only asked whether it speaks TLS, or none.
const GREETS_WITHIN: Duration = Duration::from_secs(3);

pub(super) fn deliver(server: &Smtp, mail: &Mail, host: &str, means: &Delivery) -> DeliveryOutcome {
    let failed = |why: String| DeliveryOutcome::Failed(means.sanitize(&why), None);
    let mut connection = match open(server, host) {
        Ok(connection) => connection,
        Err(why) => return failed(why),
    };
    if let Err(why) = address(&mut connection, mail) {
        connection.abort();
        return failed(why);
    }
    hand_over(connection, mail, means)
}

fn hand_over(mut connection: SmtpConnection, mail: &Mail, means: &Delivery) -> DeliveryOutcome {
    let failed = |why: String| DeliveryOutcome::Failed(means.sanitize(&why), None);
    if let Err(error) = connection.set_timeout(Some(SCRUTINY)) {
        connection.abort();
        return failed(outcome::describe_io_error(&error));
    }
    match connection.message(&mail.formatted()) {
        Ok(_) => {
            // It has the mail. How it takes leave does not matter, and is not worth a wait.
            let _ = connection.set_timeout(Some(LEAVE));
            let _ = connection.quit();
            DeliveryOutcome::Delivered
        }
        Err(error) => {
            connection.abort();
            let is_final = error.is_permanent();
            let why = if is_silence(&error) { silent_for(SCRUTINY) } else { in_words(&error) };
            if is_final { DeliveryOutcome::Refused(means.sanitize(&why)) } else { failed(why) }
        }
    }
}

fn address(connection: &mut SmtpConnection, mail: &Mail) -> Result<(), String> {
    let envelope = mail.envelope();
    let mut parameters = Vec::new();
    let is_plain = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
    if !envelope.from().into_iter().chain(envelope.to()).all(is_plain) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err("it takes no address with letters other than a to z (no SMTPUTF8)".into());
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    connection.command(From::new(envelope.from().cloned(), parameters)).map_err(|error| in_words(&error))?;
    for to in envelope.to() {
        connection.command(Rcpt::new(to.clone(), Vec::new())).map_err(|error| in_words(&error))?;
    }
    connection.command(Data).map(|_| ()).map_err(|error| in_words(&error))
}

fn open(server: &Smtp, host: &str) -> Result<SmtpConnection, String> {
    let name = hello(host, server);
    let mut connection = match server.security {
        Security::Tls => connect(server, &name, Some(&tls(server, is_trusted(server))?), SILENCE).map_err(|error| {
            let greets = error.status().is_none() && connect(server, &name, None, GREETS_WITHIN).is_ok();
            let hint = if greets { "it speaks, but no TLS: is this smtp:// (with STARTTLS)? " } else { "" };
            format!("{hint}{}", in_words(&error))
        })?,
        Security::StartTls => connect_plain(server, &name, server.port == TLS_PORT)?,
    };
    let needs_tls = server.credentials.is_some() && !is_near(&server.host);
    if server.security == Security::StartTls && (needs_tls || connection.can_starttls()) {
        let secured = connection.starttls(&tls(server, is_trusted(server))?, &name);
        secured.map_err(|error| in_words(&error))?;
    }
    if let Some((user, password)) = &server.credentials {
        let credentials = Credentials::new(user.0.clone(), password.0.clone());
        connection.auth(DEFAULT_MECHANISMS, &credentials).map_err(|error| in_words(&error))?;
    }
    Ok(connection)
}

/// Connects without TLS. A server that wants TLS from the first byte on lets us wait without a word, so once it has, it
/// is asked on a second connection whether that is what it waits for. Not before: whoever speaks before a server has
/// greeted counts as an abuser to many. Where TLS is what the port is `for_tls`, it is asked first.
fn connect_plain(server: &Smtp, name: &ClientId, for_tls: bool) -> Result<SmtpConnection, String> {
    // An alert is no success, but TLS.
    let speaks_tls = || match tls(server, true).map(|tls| connect(server, name, Some(&tls), GREETS_WITHIN)) {
        Ok(Err(error)) => in_words(&error).contains("fatal alert"),
        Ok(Ok(_)) => true,
        Err(_) => false,
    };
    let is_this_smtps = || Err("it waits for TLS: is this smtps://?".into());
    if for_tls && speaks_tls() {
        return is_this_smtps();
    }
    match connect(server, name, None, SILENCE) {
        Ok(connection) => Ok(connection),
        Err(error) if (is_silence(&error) || error.is_response()) && !for_tls && speaks_tls() => is_this_smtps(),
        Err(error) => Err(in_words(&error)),
    }
}

fn connect(
    server: &Smtp,
    name: &ClientId,
    tls: Option<&TlsParameters>,
    silence: Duration,
) -> Result<SmtpConnection, Error> {
    SmtpConnection::connect((server.host.as_str(), server.port), Some(silence), name, tls, None)
}

fn tls(server: &Smtp, is_trusted: bool) -> Result<TlsParameters, String> {
    let parameters = TlsParameters::builder(server.host.clone()).dangerous_accept_invalid_certs(is_trusted);
    parameters.build().map_err(|error| format!("no TLS: {}", in_words(&error)))
}

/// Whether its certificate does not matter: nobody stands between us and this machine's own mail server, whose
/// certificate is seldom more than one that its package has made. A password is shown to nobody unproven all the same.
fn is_trusted(server: &Smtp) -> bool {
    is_near(&server.host) && server.credentials.is_none()
}

fn is_near(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How we introduce ourselves: by a full name, which many servers want, else by the address that we come from.
fn hello(host: &str, server: &Smtp) -> ClientId {
    if is_full_name(host) {
        return ClientId::Domain(host.to_owned());
    }
    match way_there(server).map(|address| address.to_canonical()) {
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

/// The address from which packets go to the server. Nothing is sent to find out.
fn way_there(server: &Smtp) -> Option<IpAddr> {
    let mut addresses = (server.host.as_str(), server.port).to_socket_addrs().ok()?;
    let of = |to: std::net::SocketAddr| {
        let from: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    addresses.find_map(of)
}

fn in_words(error: &Error) -> String {
    if is_silence(error) {
        return silent_for(SILENCE);
    }
    let mut words = error.to_string();
    for cause in causes(error) {
        let more = cause.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
    }
    words
}

fn silent_for(span: Duration) -> String {
    format!("it was silent for {} s", span.as_secs())
}

fn is_silence(error: &Error) -> bool {
    let is_timeout = |error: &io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    causes(error).any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_timeout))
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

    /// A mail server that greets after one span and takes the mail after another, and to TLS says that it wants none
    /// of it. Each connection's first bytes are kept. It lasts as long as the tests.
    fn fake(greets: Duration, takes: Duration) -> (Smtp, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let begun = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, begun) = (stream.expect("a connection"), Arc::clone(&begun));
                thread::spawn(move || serve(stream, &begun, greets, takes));
            }
        });
        (Smtp { host: "127.0.0.1".into(), port, security: Security::StartTls, credentials: None }, seen)
    }

    /// Ends with the connection, whichever way that ends.
    fn serve(mut stream: TcpStream, begun: &Mutex<Vec<String>>, greets: Duration, takes: Duration) -> Option<()> {
        stream.set_read_timeout(Some(greets)).ok()?;
        let is_tls = stream.peek(&mut [0]).is_ok_and(|length| length > 0);
        if is_tls {
            begun.lock().ok()?.push("TLS".into());
            stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).ok()?; // a fatal alert
            return Some(());
        }
        stream.set_read_timeout(None).ok()?;
        stream.write_all(b"220 x ready\r\n").ok()?;
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
        let first = lines.next()?;
        begun.lock().ok()?.push(first.chars().take(4).collect());
        stream.write_all(b"250 x\r\n").ok()?;
        while let Some(line) = lines.next() {
            if line == "DATA" {
                stream.write_all(b"354 go on\r\n").ok()?;
                lines.find(|line| line == ".")?;
                thread::sleep(takes);
            }
            stream.write_all(b"250 x\r\n").ok()?;
        }
        Some(())
    }

    #[test]
    fn a_server_may_look_at_the_mail_for_longer_than_it_may_be_silent_otherwise() {
        let (server, _) = fake(Duration::from_millis(1), Duration::from_millis(500));
        let mail = Mail::builder().from("a@b.example".parse().expect("one")).to("c@d.example".parse().expect("one"));
        let mail = mail.body("x".to_owned()).expect("a mail");
        let means = Delivery {
            folder: "/".into(),
            env: Vec::new(),
            secrets: crate::config::Secrets::default(),
            scope: Scope::default(),
        };
        let mut connection = open(&server, "a.example").expect("it greets");
        address(&mut connection, &mail).expect("it takes all addresses");
        connection.set_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        assert_eq!(hand_over(connection, &mail, &means), DeliveryOutcome::Delivered);
    }

    #[test]
    fn nobody_is_spoken_to_before_the_greeting_but_where_tls_begins() {
        let name = ClientId::Domain("a.example".into());
        let (slow, seen) = fake(GREETS_WITHIN + Duration::from_secs(1), Duration::ZERO);
        assert!(connect_plain(&slow, &name, false).is_ok(), "it greets in time");
        assert_eq!(*seen.lock().expect("no panic"), ["EHLO"]);

        let (silent, seen) = fake(SCRUTINY, Duration::ZERO);
        let said = connect_plain(&silent, &name, true).err();
        assert_eq!(said.as_deref(), Some("it waits for TLS: is this smtps://?"));
        assert_eq!(*seen.lock().expect("no panic"), ["TLS"]);
    }

    #[test]
    fn only_a_full_name_introduces_us() {
        for name in ["srv412.example.org", "a.b", "x-1.example", "3com.example"] {
            assert!(is_full_name(name), "{name}");
        }
        for name in ["", "srv412", "(none)", ".", "a.", ".a", "a..b", "a_b.example", "10.0.0.1", "-a.b", "é.example"] {
            assert!(!is_full_name(name), "{name}");
        }
        let server = |host: &str| Smtp { host: host.into(), port: 25, security: Security::StartTls, credentials: None };
        assert_eq!(hello("srv412.example.org", &server("127.0.0.1")).to_string(), "srv412.example.org");
        assert_eq!(hello("srv412", &server("127.0.0.1")).to_string(), "[127.0.0.1]");
    }

    #[test]
    fn a_certificate_matters_unless_it_is_this_machines_and_no_password_is_at_stake() {
        let check = |host: &str, password: bool, expected: bool| {
            let hidden = |text: &str| crate::config::Secret(text.into());
            let credentials = password.then(|| (hidden("u"), hidden("p")));
            let server = Smtp { host: host.into(), port: 25, security: Security::StartTls, credentials };
            assert_eq!(is_trusted(&server), expected, "{host}");
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
