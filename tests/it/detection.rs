//! A backend that freezes is found, restarted, and seen to be well again.

use crate::faults::{Server, Ways};
use crate::place::Place;

#[test]
fn a_frozen_backend_is_restarted_once_and_seen_to_be_well() {
    let server = Server::start(Ways::answer("200 OK", "ok"));
    let place = Place::with(&format!(
        "targets:\n  - name: app\n    http: http://127.0.0.1:{}/\n    interval: 200ms\n    timeout: 300ms\n    \
         restart: echo restarted >> done; touch well\n    cooldown: 5s\n",
        server.port()
    ));
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    server.turn(Ways::Silent);
    place.eventually("it is restarted", || !place.lines("done").is_empty());
    server.turn(Ways::answer("200 OK", "ok"));
    place.eventually("it is healthy again", || !place.events("up").is_empty());
    assert_eq!(place.lines("done").len(), 1, "{}", place.story());
    let down = &place.events("down")[0];
    assert_eq!((&down["failures"], &down["class"]), (&3.into(), &"timeout".into()), "{}", place.story());
}
