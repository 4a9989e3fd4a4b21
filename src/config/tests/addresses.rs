//! `http` as a list of addresses.

use super::*;

fn addresses(value: &str) -> Vec<HttpConfig> {
    let config = accepted(&one(&format!("http: {value}")));
    match config.targets.into_iter().next().map(|target| target.probe) {
        Some(Probe::Http(addresses)) => addresses,
        probe => panic!("{probe:?}"),
    }
}

#[test]
fn each_item_is_what_http_alone_may_be() {
    let urls = |value: &str| addresses(value).into_iter().map(|http| http.url.0).collect::<Vec<_>>();
    assert_eq!(urls("[http://h/x]"), ["http://h/x"]);
    assert_eq!(urls("[http://h/x, {url: \"http://${HOST}/y\", json: {/status: ok}}]"), ["http://h/x", "http://h:1/y"]);
    let both = addresses("[http://h/x, {url: http://me:s3cret@h/y, method: HEAD, status: 204, headers: {A: b}}]");
    assert_eq!((both[0].method, both[1].method), (Method::Get, Method::Head));
    assert_eq!((&both[0].status, &both[1].status), (&vec![200..=299], &vec![204..=204]));
    assert_eq!((both[0].headers.len(), both[1].headers.len()), (0, 2));
    assert_eq!(addresses("[http://h/x]"), addresses("http://h/x"));
    // In block style, over several lines.
    assert_eq!(urls("\n  - http://h/x\n  - url: http://h/y\n    contains: ok"), ["http://h/x", "http://h/y"]);
    let most: Vec<String> = (1..=16).map(|port| format!("http://h:{port}")).collect();
    assert_eq!(addresses(&format!("[{}]", most.join(", "))).len(), 16);
    // With other options, the same URL is asked something else.
    assert_eq!(addresses("[http://h/x, {url: http://h/x, headers: {Host: b}}]").len(), 2);
}

#[test]
fn what_is_no_address_is_rejected_with_its_place() {
    let check = |value: &str, expected: &[&str]| rejected(&one(&format!("http: {value}")), expected);
    check("[]", &["w.yaml:3:11: `http` is an empty list", "(targets[0].http, a)"]);
    check("[http://h, [http://h/x]]", &["w.yaml:3:22: `http[1]` must be a URL, not a list"]);
    check("[5000, http://h]", &["w.yaml:3:12: `http[0]` must be a URL, not a number", "{url: …}"]);
    check("[~, http://h]", &["w.yaml:3:12: `http[0]` must be a URL, not nothing"]);
    check("[http://h, '']", &["w.yaml:3:22: `http[1]` is empty"]);
    check(
        "[http://h, http://i, ftp://me:s3cret@j/]",
        &["w.yaml:3:32: `http[2]` starts with neither http:// nor https://", "^^^", "(targets[0].http[2], a)"],
    );
    check(
        "[http://h, {url: 'http://me:s3cret@h:0/'}]",
        &["w.yaml:3:28: `url` has no valid port", "'http://…@h:0/'", "(targets[0].http[1].url, a)"],
    );
    check(
        "[http://h, {url: http://h/x, jsn: {/a: b}}]",
        &["w.yaml:3:40: unknown key `jsn`", "did you mean `json`?", "(targets[0].http[1], a)"],
    );
    check("[http://h, {contains: ok}]", &["w.yaml:3:22: `http[1]` has no `url`"]);
    check("[http://h, 'http://${NOT_SET}/']", &["w.yaml:3:22: `http[1]` needs ${NOT_SET}, which is not set"]);
    // Each item has its errors.
    check(
        "[http://h:0, {url: http://h, status: 2xx}]",
        &["w.yaml:3:12: `http[0]` has", "w.yaml:3:48: `status` is not"],
    );
    check("{url: [http://h/x, http://h/y]}", &["w.yaml:3:17: `url` is a list", "http: [{url: …}, {url: …}]"]);
    check("{urls: [http://h/x, http://h/y]}", &["w.yaml:3:12: unknown key `urls`", "write http: [URL, URL]"]);
    rejected(&one("tcp: h:1\nendpoints: [http://h/x]"), &["w.yaml:4:5: unknown key `endpoints`", "http: [URL, URL]"]);
    let many: Vec<String> = (1..=17).map(|port| format!("http://h:{port}")).collect();
    check(&format!("[{}]", many.join(", ")), &["w.yaml:3:11: `http` has 17 addresses", "at most 16"]);
}

#[test]
fn an_address_that_is_there_already_is_rejected() {
    let check = |value: &str, expected: &str| rejected(&one(&format!("http: {value}")), &[expected]);
    check("[http://h/x, http://h/y, http://h/x]", "w.yaml:3:36: `http[2]` is the same as http[0]");
    // However it is written.
    check("[http://h/x, {url: http://h/x, status: 200-299}]", "w.yaml:3:24: `http[1]` is the same as http[0]");
}

#[test]
fn defaults_may_not_have_addresses_and_all_targets_together_have_few() {
    rejected(
        "defaults: {http: [http://h/x, http://h/y]}\ntargets: [{name: a, tcp: 'h:1'}]",
        &["w.yaml:1:12: `http` is not allowed here", "on each target"],
    );
    let file = |targets: usize, each: usize| {
        let url = |target, item| format!("http://h:{}/{target}", 1_000 + item);
        let urls = |target| (0..each).map(|item| url(target, item)).collect::<Vec<_>>().join(", ");
        let target = |target| format!("  - {{name: t{target}, http: [{}]}}\n", urls(target));
        format!("targets:\n{}", (0..targets).map(target).collect::<String>())
    };
    assert_eq!(accepted(&file(100, 10)).targets.len(), 100);
    rejected(
        &file(101, 10),
        &["w.yaml:102:24: `http` is too much: with these, the targets have more than 1000 addresses", "t100)"],
    );
}

#[test]
fn each_address_has_a_name_of_its_own() {
    #[track_caller]
    fn check(value: &str, expected: &[&str]) {
        assert_eq!(address_names(&addresses(value)), expected);
    }
    check("[http://h/x, http://h/y]", &["http://h/x", "http://h/y"]);
    check("['http://me:s3cret@h/x?token=s3cret', 'http://${HOST}/']", &["http://h/x?…", "http://${HOST}/"]);
    check(
        "['http://h/x?a', http://h/y, {url: 'http://h/x?b', headers: {Host: b}}]",
        &["http://h/x?… (http[0])", "http://h/y", "http://h/x?… (http[2])"],
    );
    let long = format!("http://h/{}/end", "x".repeat(100));
    let shown = format!("http://h/{}…{}/end", "x".repeat(31), "x".repeat(35));
    check(&format!("[{long}, http://h]"), &[&shown, "http://h"]);
    assert_eq!(shown.chars().count(), 80);
}
