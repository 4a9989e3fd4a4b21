//! A frozen backend is detected, restarted once, and reported healthy again.

use crate::faults::{Behaviour, Server};
use crate::sandbox::Sandbox;

#[test]
fn a_frozen_backend_is_restarted_once_and_becomes_healthy() {
    let server = Server::start(Behaviour::answer("200 OK", "ok"));
    let sandbox = Sandbox::new(&format!(
        "targets:\n  - name: app\n    http: http://127.0.0.1:{}/\n    interval: 200ms\n    timeout: 300ms\n    \
         restart: echo restarted >> done; touch well\n    cooldown: 5s\n",
        server.port()
    ));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    server.set_behaviour(Behaviour::Silent);
    sandbox.eventually("the target is restarted", || !sandbox.lines("done").is_empty());
    server.set_behaviour(Behaviour::answer("200 OK", "ok"));
    sandbox.eventually("the target is healthy again", || !sandbox.events("up").is_empty());
    assert_eq!(sandbox.lines("done").len(), 1, "{}", sandbox.dump());
    let down = &sandbox.events("down")[0];
    assert_eq!((&down["failures"], &down["class"]), (&3.into(), &"timeout".into()), "{}", sandbox.dump());
}
