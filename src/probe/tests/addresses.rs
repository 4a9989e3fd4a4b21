//! Several addresses of one target: real servers, of which some misbehave.

use super::*;

const ALL: [Class; 3] = [Class::Refused, Class::Timeout, Class::Status];

fn url(server: &Server, path: &str) -> String {
    format!("http://127.0.0.1:{}/{path}", server.port())
}

fn probe(addresses: Vec<HttpConfig>, timeout: Duration, curable: &[Class]) -> ProbeResult {
    prober(config::Probe::Http(addresses), timeout).probe(PriorEvidence::default(), curable)
}

#[test]
fn each_address_is_judged_by_its_own_expectations() {
    let (one, other) = (Server::start(Behaviour::answer("200 OK", "a")), Server::start(Behaviour::answer("204 X", "")));
    let with_body = HttpConfig { contains: Some("a".into()), ..http(&url(&one, "a")) };
    let no_content = HttpConfig { status: vec![204..=204], ..http(&url(&other, "b")) };
    let result = probe(vec![with_body.clone(), no_content.clone()], LONG, &ALL);
    assert_like(&result.verdict, "healthy: 200, 204 from all 2");
    assert_eq!(result.evidence, None);
    let verdicts: Vec<String> = result.addresses.iter().map(|found| line(&found.verdict)).collect();
    assert_eq!(verdicts, ["healthy: 200", "healthy: 204"]);
    assert!(one.requests()[0].starts_with("GET /a ") && other.requests()[0].starts_with("GET /b "));

    other.set_behaviour(Behaviour::answer("200 OK", "a"));
    let result = probe(vec![with_body, no_content], LONG, &ALL);
    assert_like(&result.verdict, &format!("status: {}: status 200", url(&other, "b")));
}

#[test]
fn the_evidence_is_that_of_the_address_that_decides() {
    let healthy = Server::start(Behaviour::answer("200 OK", "fine"));
    let wrong = Server::start(Behaviour::answer("503 Service Unavailable", "no database"));
    let closed = ClosedPort::new();
    let refusing = format!("http://127.0.0.1:{}/?token=s3cret", closed.port());
    let addresses = || vec![http(&url(&healthy, "")), http(&url(&wrong, "x")), http(&refusing)];
    let result = probe(addresses(), LONG, &ALL);
    assert_like(&result.verdict, &format!("status: {}: status 503", url(&wrong, "x")));
    let evidence = result.evidence.expect("it failed");
    assert_eq!(evidence.address.as_deref(), Some(url(&wrong, "x").as_str()));
    assert_eq!((evidence.status, evidence.body.as_deref()), (Some(503), Some("no database")));
    assert_eq!(evidence.addresses, result.addresses);
    let classes: Vec<Option<Class>> = evidence.addresses.iter().map(|found| found.verdict.class()).collect();
    assert_eq!(classes, [None, Some(Class::Status), Some(Class::Refused)]);

    // A restart may cure only the other failure.
    let result = probe(addresses(), LONG, &[Class::Refused]);
    let shown = format!("http://127.0.0.1:{}/?…", closed.port());
    assert_like(&result.verdict, &format!("refused: {shown}: refused by 127.0.0.1:{}", closed.port()));
    let evidence = result.evidence.expect("it failed");
    assert_eq!((evidence.address, evidence.status), (Some(shown), None));
}

#[test]
fn addresses_that_hang_end_together_at_the_one_deadline() {
    let servers: Vec<Server> = (0..4).map(|_| Server::start(Behaviour::Silent)).collect();
    let addresses = servers.iter().map(|server| http(&url(server, ""))).collect();
    let timeout = SHORT * 5;
    let result = probe(addresses, timeout, &ALL);
    assert_like(&result.verdict, &format!("timeout: {}: connected in *, then no byte for *", url(&servers[0], "")));
    let arrived: Vec<_> = servers.iter().map(|server| server.timed_requests()[0].0).collect();
    let spread = arrived.iter().max().expect("four").duration_since(*arrived.iter().min().expect("four"));
    assert!(spread < timeout, "one waited for another: {spread:?}");
    let slowest = result.addresses.iter().map(|found| found.latency_ms).max().map(Duration::from_millis);
    assert!(slowest > Some(timeout / 2) && slowest <= Some(result.latency) && result.latency >= timeout, "{result:?}");
}

#[test]
fn a_quick_address_keeps_its_own_latency_next_to_one_that_hangs() {
    let (quick, hung) = (Server::start(Behaviour::answer("200 OK", "")), Server::start(Behaviour::Silent));
    for quick_first in [true, false] {
        let mut addresses = vec![http(&url(&quick, "")), http(&url(&hung, ""))];
        if !quick_first {
            addresses.reverse();
        }
        let result = probe(addresses, SHORT, &ALL);
        let (of_quick, of_hung) = (usize::from(!quick_first), usize::from(quick_first));
        assert_eq!(line(&result.addresses[of_quick].verdict), "healthy: 200");
        assert!(result.addresses[of_quick].latency_ms < result.addresses[of_hung].latency_ms, "{result:?}");
        assert_like(&result.verdict, &format!("timeout: {}: connected in *", url(&hung, "")));
    }
}

#[test]
fn a_list_of_one_is_the_same_as_no_list() {
    let server = Server::start(Behaviour::answer("200 OK", ""));
    let result = probe(vec![http(&url(&server, ""))], LONG, &ALL);
    assert_eq!((line(&result.verdict).as_str(), result.addresses.len()), ("healthy: 200", 0));
    server.set_behaviour(Behaviour::answer("500 Oh", ""));
    let result = probe(vec![http(&url(&server, ""))], LONG, &ALL);
    assert_eq!(line(&result.verdict), "status: status 500");
    assert_eq!(result.evidence.and_then(|evidence| evidence.address), None);
}

#[test]
fn the_configuration_of_each_address_is_checked() {
    let mut bad = http("http://localhost/b");
    bad.headers = vec![("a b".into(), Secret("s3cret".into()))];
    let error = try_prober(config::Probe::Http(vec![http("http://localhost/a"), bad]), LONG).err();
    assert_eq!(error.as_deref(), Some("http://localhost/b: header a b: its name is not valid in HTTP"));
}
