//! `unit` on a target: what follows from it, and what is rejected.

use super::*;
use crate::policy::Precondition;

fn target(keys: &str) -> Target {
    accepted(&one(&format!("tcp: h:1\n{keys}"))).targets.remove(0)
}

#[track_caller]
fn check_ladder(keys: &str, expected: &[(&str, u64)]) {
    let ladder = target(keys).ladder;
    let rungs: Vec<_> = ladder.iter().map(|rung| (rung.remedy.to_string(), rung.timeout.as_secs())).collect();
    let expected: Vec<_> = expected.iter().map(|(text, timeout)| ((*text).to_owned(), *timeout)).collect();
    assert_eq!(rungs, expected, "{keys}");
}

#[test]
fn a_unit_is_restarted_and_its_rest_is_asked_for() {
    let plain = target("unit: api");
    assert_eq!(plain.unit, Some(UnitConfig { name: "api.service".into(), is_user: false }));
    assert_eq!(plain.limits.preconditions, [Precondition::Stopped]);
    let user = target("unit: {name: api@1.service, user: true}\nonly_if: 'true'");
    assert_eq!(user.unit, Some(UnitConfig { name: "api@1.service".into(), is_user: true }));
    assert_eq!(user.limits.preconditions, [Precondition::Stopped, Precondition::OnlyIf]);
    assert_ne!(plain.limits.repair_id, user.limits.repair_id);
    // Longer than systemd waits for a frozen service.
    check_ladder("unit: api", &[("systemctl restart api.service", 150)]);
    check_ladder("unit: {name: api, user: true}", &[("systemctl --user restart api.service", 150)]);
    check_ladder("unit: api\nrestart: ./own.sh", &[("./own.sh", 60)]);
    check_ladder("unit: pm2-deploy\npm2: x", &[("pm2 restart x", 60)]);
    assert_eq!(target("unit: pm2-deploy\npm2: x").limits.preconditions, [Precondition::Stopped]);
}

#[test]
fn a_unit_is_one_service_and_belongs_to_one_target() {
    let rejected_unit = |value: &str, texts: &[&str]| rejected(&one(&format!("tcp: h:1\nunit: {value}")), texts);
    rejected_unit("api.timer", &["w.yaml:4:11: `unit` is a timer, not a service", "the service that it belongs to"]);
    rejected_unit("'api@'", &["w.yaml:4:", "`unit` is a template", "api@1.service"]);
    rejected_unit("'a*'", &["w.yaml:4:", "`unit` has a character that no unit's name has"]);
    rejected_unit("--now", &["w.yaml:4:", "`unit` is not the name of a service"]);
    rejected_unit("[a, b]", &["w.yaml:4:", "`unit` must be text, not a list"]);
    rejected_unit("{user: true}", &["w.yaml:4:11: `unit` has no `name`"]);
    rejected_unit("{name: a, user: deploy}", &["w.yaml:4:", "`user` must be true or false"]);
    rejected_unit("{nmae: a}", &["w.yaml:4:", "unknown key `nmae`", "`name`?"]);
    rejected("defaults: {unit: a}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:12: ", "`unit`"]);
    let two = |first: &str, second: &str| {
        format!("targets:\n  - {{name: a, tcp: 'h:1', {first}}}\n  - {{name: b, tcp: 'h:2', {second}}}\n")
    };
    let doubled = ["w.yaml:3:33: `unit` is already the unit of `a`; each would double", "one target per unit"];
    rejected(&two("unit: api", "unit: api.service"), &doubled);
    rejected(&two("restart: [{run: [systemctl, restart, api.service]}]", "unit: api"), &doubled);
    accepted(&two("unit: api", "unit: {name: api, user: true}"));
    accepted(&two("unit: api, restart: ./a", "unit: api"));
    accepted(&two("pm2: x, unit: pm2-deploy", "pm2: y, unit: pm2-deploy"));
}
