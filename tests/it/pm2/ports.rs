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
    }
}
