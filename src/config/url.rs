//! URLs of http probes and webhooks: their validity, and the secrets in them.
//! It must never put a part of a URL into an error.

use std::net::Ipv6Addr;

use ureq::http::Uri;

/// The URL without `user:password@`, and the text before the `@`.
pub(super) fn split_userinfo(text: &str) -> (String, Option<&str>) {
    let Some((scheme, rest)) = text.split_once("://") else { return (text.to_owned(), None) };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    match authority.rfind('@') {
        Some(at) => (format!("{scheme}://{}", &rest[at + 1..]), Some(&rest[..at])),
        None => (text.to_owned(), None),
    }
}

/// Why `url`, which must not contain a user any more, is invalid, and the advice. Neither quotes the URL, because a
/// part of it may come from a variable.
pub(super) fn find_problem(url: &str) -> Option<(&'static str, &'static str)> {
    const ADVICE: &str = "write it like http://localhost:5000/api/health";
    let Ok(uri) = url.parse::<Uri>() else { return Some(("is not a valid URL", ADVICE)) };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") if cfg!(feature = "tls") => {}
        Some("https") => {
            return Some(("is https, which this build does not support", "build it with the feature `tls`"));
        }
        _ => return Some(("starts with neither http:// nor https://", ADVICE)),
    }
    let (Some(authority), Some(host)) = (uri.authority(), uri.host().filter(|host| !host.is_empty())) else {
        return Some(("has no host", ADVICE));
    };
    let address = host.strip_prefix('[').map(|host| host.trim_end_matches(']'));
    if authority.as_str().contains('@') || address.is_some_and(|address| address.parse::<Ipv6Addr>().is_err()) {
        return Some(("has no valid host", ADVICE));
    }
    let port = authority.as_str().strip_prefix(host).unwrap_or_default();
    let has_port = port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    (!port.is_empty() && !has_port).then_some(("has no valid port", "from 1 to 65535"))
}

/// The host of a valid URL, without brackets, and its port, by default that of the scheme.
pub(super) fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 }),
    };
    Some((host.trim_start_matches('[').trim_end_matches(']'), port))
}

/// What may be a token in the query of a URL: values, items without `=`, and the whole query if it has no `=` at all,
/// each as written and as a server decodes it. Short ones are left out: redacting them would make ordinary words
/// unreadable.
pub(super) fn secrets_of_query(url: &str) -> Vec<String> {
    const TOKEN: usize = 8;
    let address = url.split('#').next().unwrap_or_default();
    let Some((_, query)) = address.split_once('?') else { return Vec::new() };
    let values = query.split(['&', ';']).map(|item| item.split_once('=').map_or(item, |(_, value)| value));
    let whole = Some(query).filter(|query| !query.contains('='));
    let forms = values.chain(whole).flat_map(|text| [text.to_owned(), percent_decode(&text.replace('+', " "), "$")]);
    forms.filter(|text| text.chars().count() >= TOKEN).collect()
}

/// The value of the `Authorization` header for `user:password`.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

/// Replaces `%41` by `A`. A `%` without two hex digits stays, as in browsers and curl. A decoded dollar becomes
/// `dollar`: `$$` if variables are to be replaced in the result.
pub(super) fn percent_decode(text: &str, dollar: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let decoded = after.get(..2).filter(|_| *first == b'%').and_then(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some(digit(pair[0])? * 16 + digit(pair[1])?)
        });
        match decoded {
            Some(b'$') => bytes.extend(dollar.as_bytes()),
            Some(byte) => bytes.push(byte),
            None => bytes.push(*first),
        }
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Written here rather than taken from a crate, because only one header needs it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| three.get(index).copied().map_or(0, usize::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for sixth in 0..4 {
            let letter = ALPHABET[bits >> (18 - 6 * sixth) & 63];
            text.push(if sixth <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        assert_eq!(find_problem(url).map_or("", |(what, _)| what), expected, "{url}");
    }

    #[test]
    fn a_url_has_a_host_and_a_port() {
        assert_eq!(host_and_port("http://localhost:5000/api"), Some(("localhost", 5000)));
        assert_eq!(host_and_port("http://127.0.0.1"), Some(("127.0.0.1", 80)));
        assert_eq!(host_and_port("HTTPS://h/x:9"), Some(("h", 443)));
        assert_eq!(host_and_port("http://[::1]:81?a:b"), Some(("::1", 81)));
        assert_eq!(host_and_port("http://[::1]/"), Some(("::1", 80)));
    }

    #[test]
    fn only_urls_that_can_be_requested_are_valid() {
        check("http://localhost:5000/api/health", "");
        check("HTTP://localhost", "");
        check("http://[::1]:80/x?y=z#f", "");
        check("http://a_b.example:65535?x", "");
        check(
            "https://example.org",
            if cfg!(feature = "tls") { "" } else { "is https, which this build does not support" },
        );
        check("ftp://localhost", "starts with neither http:// nor https://");
        check("localhost:5000/x", "is not a valid URL");
        check("localhost", "starts with neither http:// nor https://");
        check("/api", "starts with neither http:// nor https://");
        check("http://", "is not a valid URL");
        check("http:///x", "is not a valid URL");
        check("http://a b/", "is not a valid URL");
        check("http://localhost:0/", "has no valid port");
        check("http://localhost:65536/", "has no valid port");
        check("http://localhost:/", "has no valid port");
        check("http://localhost:x/", "has no valid port");
        check("http://[::1]:0/", "has no valid port");
        check("http://[zz]/", "has no valid host");
        check("http://:80/", "has no host");
        check("http://a@b/", "has no valid host");
    }

    #[test]
    fn user_and_password_are_split_off() {
        let split = |text| split_userinfo(text);
        assert_eq!(split("http://u:p@h:1/x@y"), ("http://h:1/x@y".into(), Some("u:p")));
        assert_eq!(split("http://u:p@q@h/"), ("http://h/".into(), Some("u:p@q")));
        assert_eq!(split("http://h/?a@b"), ("http://h/?a@b".into(), None));
        assert_eq!(split("${URL}"), ("${URL}".into(), None));
    }

    #[test]
    fn basic_authentication_is_encoded_as_the_rfc_shows() {
        // The example of RFC 7617, and the lengths of RFC 4648's.
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn percent_pairs_are_decoded_and_invalid_ones_stay() {
        assert_eq!(percent_decode("a%40b%3ac", "$"), "a@b:c");
        assert_eq!(percent_decode("100%", "$"), "100%");
        assert_eq!(percent_decode("%zz%4", "$"), "%zz%4");
        assert_eq!(percent_decode("%24{X}", "$$"), "$${X}");
        assert_eq!(percent_decode("%C3%A4", "$"), "ä");
    }
}
