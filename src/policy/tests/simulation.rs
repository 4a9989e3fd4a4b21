//! Runs seeds 1..N over random limits and a world full of faults, checked by the oracle. `SEED=n` replays one.
//! It must be reproducible: all chance comes from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::world::{Backend, Scenario, World};
use crate::outcome::Class;
use crate::policy::{Limits, Precondition};
use crate::testing::count;

/// A random duration between the two; every order of magnitude is equally likely.
fn span(rng: &mut Rng, least_ms: f64, most_ms: f64) -> Duration {
    let ms = least_ms * (most_ms / least_ms).powf(rng.f64());
    Duration::from_millis(ms as u64)
}

fn random_limits(rng: &mut Rng, names: &[String], index: usize, slowest_ms: f64) -> Limits {
    const DAY: f64 = 86_400_000.0;
    let interval = span(rng, (slowest_ms / 20.0).max(100.0), slowest_ms);
    let rungs = rng.usize(0..4);
    let cooldown = if rng.u8(0..8) == 0 { Duration::ZERO } else { span(rng, 1_000.0, 600_000.0) };
    let depends_on = names[..index].iter().filter(|_| rng.usize(0..5.max(names.len())) == 0).cloned().collect();
    let reset = (rungs > 0 && rng.u8(0..3) == 0).then(|| rng.usize(0..rungs));
    let classes = Class::ALL.into_iter().filter(|_| rng.u8(0..10) > 0).collect();
    Limits {
        interval,
        retry_interval: if rng.bool() { interval } else { interval.div_f64(1.0 + rng.f64() * 5.0) },
        retry_in_tick: rng.bool(),
        timeout: interval.mul_f64(0.01 + rng.f64()).max(Duration::from_millis(100)),
        slow: rng.bool().then(|| interval.mul_f64(rng.f64() / 4.0)),
        failure_threshold: rng.u32(1..6),
        start_period: if rng.u8(0..6) == 0 { Duration::ZERO } else { span(rng, 1_000.0, 120_000.0) },
        rungs,
        reset,
        cooldown,
        max_cooldown: cooldown + span(rng, 1.0, 3_600_000.0),
        stable_after: span(rng, 1_000.0, 3_600_000.0),
        max_restarts: rng.u32(1..12),
        restart_window: span(rng, 60_000.0, DAY),
        restart_on: classes,
        depends_on,
        preconditions: [Precondition::Stopped, Precondition::OnlyIf]
            .into_iter()
            .filter(|_| rng.u8(0..4) == 0)
            .collect(),
        diagnose: rng.u8(0..4) == 0,
        reports_pm2: rng.bool(),
        dry_run: rng.u8(0..12) == 0,
        probe_id: 1,
        repair_id: 1,
    }
}

fn random_world(seed: u64) -> World {
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let count = if seed.is_multiple_of(CROWDED) { 100 } else { rng.usize(1..5) };
    let names: Vec<String> = (0..count).map(|index| format!("t{index:02}")).collect();
    let slowest_ms = span(&mut rng, 1_000.0, 86_400_000.0).as_millis() as f64;
    let limits = |(index, name): (usize, &String)| (name.clone(), random_limits(&mut rng, &names, index, slowest_ms));
    let limits: BTreeMap<String, Limits> = names.iter().enumerate().map(limits).collect();
    let scenario = Scenario {
        disturbed: !seed.is_multiple_of(4),
        disk_fails: seed % 4 == 1 && seed.is_multiple_of(3),
        rungs_missing: seed.is_multiple_of(5),
        ticks: seed % 4 == 2,
        pm2: seed % 3 == 1,
        without_boot_id: seed % 7 == 3,
    };
    World::new(seed, scenario, limits, random_limits)
}

/// Seeds that are multiples of this have 100 targets.
const CROWDED: u64 = 101;
const MS_AN_HOUR: i64 = 3_600_000;

/// Returns the simulated milliseconds, the commands run, and the cures.
fn live(seed: u64, steps: u64) -> (i64, u64, u64) {
    let mut world = random_world(seed);
    world.oracle.undisturbed = seed.is_multiple_of(4);
    let began = world.now;
    while world.steps < steps {
        world.advance();
    }
    (world.now - began, world.oracle.attempts, world.oracle.cures)
}

#[test]
fn promises_hold_through_rough_hours() {
    if let Ok(seed) = std::env::var("SEED") {
        live(seed.parse().expect("SEED is a number"), 50_000);
        return;
    }
    let enough = count("HOURS", 200_000) as u64;
    let share = |of_a_million: u64| of_a_million * enough / 1_000_000;
    let (mut hours, mut attempts, mut cures, mut seed) = (0, 0, 0, 0);
    while hours < enough as i64 || seed < share(600) {
        seed += 1;
        let (ms, run, cured) = live(seed, 3_000);
        hours += ms / MS_AN_HOUR;
        attempts += run;
        cures += cured;
    }
    assert!(
        attempts > share(10_000) && cures > share(1_000),
        "the world was too kind: {attempts} commands, {cures} cures"
    );
}

/// Promise 6: the watchdog never gives up. Whatever happened before, a backend that a rung can cure is cured.
#[test]
fn every_curable_backend_is_cured_in_the_end() {
    for seed in (1_u64..200).map(|n| n * 4).filter(|seed| !seed.is_multiple_of(CROWDED)) {
        let mut world = random_world(seed);
        for limits in world.limits.values_mut() {
            limits.depends_on.clear();
        }
        while world.steps < 500 {
            world.advance();
        }
        let names: Vec<String> = world.limits.keys().cloned().collect();
        for name in names {
            assert_cured_eventually(&mut world, &name);
        }
    }
}

fn assert_cured_eventually(world: &mut World, name: &str) {
    let limits = world.limits[name].clone();
    let (class, curable) = (Class::Timeout, limits.rungs > 0 && !limits.dry_run);
    if !curable || !limits.restart_on.contains(&class) {
        return;
    }
    let last = limits.rungs - 1;
    let up_again = |world: &World| world.backends[name].up_at.is_some();
    world.backends.insert(name.to_string(), Backend { up_at: None, class, cured_by: Some(last), boot: 0, flaky: 0 });
    let deadline = world.now + 400 * 86_400_000;
    while !up_again(world) {
        world.advance();
        assert!(world.now < deadline, "{name} is never cured: {}", world.oracle.report());
    }
}
