//! A backend that listens where it is not probed: `check` says where.

use super::fixture::Fixture;
use crate::sandbox::free_port;

#[test]
fn the_port_that_the_process_does_listen_on_is_named() {
    for keys in ["", "exec_mode: 'cluster', instances: 1"] {
        let fixture = Fixture::saved(keys);
        fixture.run_init();
        let probed = free_port();
        let text = fixture.sandbox.read("watchdog.yaml").replace(&fixture.port.to_string(), &probed.to_string());
        fixture.sandbox.write("watchdog.yaml", &text);
        let output = fixture.run_from_cron(&["check"]);
        let expected = match keys {
            "" => format!(") listens on port {}, not on {probed}. Fix: the port in its address", fixture.port),
            _ => format!("port {probed} refuses; the processes in cluster mode listen on port {}.", fixture.port),
        };
        let is_reported = output.out.lines().any(|line| line.starts_with("PROBLEM") && line.contains(&expected));
        fixture.sandbox.assert(output.code == Some(1) && is_reported, &format!("{expected}\n{}", output.out));

        // Of several addresses, only the port of the one that refuses is wrong.
        let url = |port: u16| format!("http://localhost:{port}/api/health");
        let written = text.lines().find(|line| line.contains("http: ")).expect("an address");
        let list = format!("    http: [{}, {}]", url(fixture.port), url(probed));
        fixture.sandbox.write("watchdog.yaml", &text.replace(written, &list));
        let output = fixture.run_from_cron(&["check"]);
        let problems: Vec<&str> = output.out.lines().filter(|line| line.starts_with("PROBLEM")).collect();
        let is_only_one = matches!(problems[..], [problem] if problem.contains(&expected));
        fixture.sandbox.assert(output.code == Some(1) && is_only_one, &format!("{expected}\n{}", output.out));
    }
}
