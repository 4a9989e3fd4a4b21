//! One page for people without access to the machine: what is up, what was up, how quickly it answers. It is one file
//! without a script, and a browser requests nothing else for it.
//! It must reveal no address, command, header or error text unless `details` is set, and let no text become markup.

mod plot;

use std::time::Duration;

use crate::outcome::short_command;
use crate::policy::{Status, TargetState};
use crate::store::closed_incidents::ClosedIncident;
use crate::store::history::Uptime;
use crate::store::state::{SavedState, TargetView};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, WallTime, Zone, round_age};
use crate::view::log_line::{describe_hold, describe_rest};
use crate::view::{describe_quality, percent, pm2_restarts};

pub const DAYS: i64 = 90;
const DAY: Duration = Duration::from_secs(86_400);
pub const INCIDENTS: usize = 10;
const STYLE: &str = include_str!("page/style.css");

#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    pub saved: &'a SavedState,
    pub closed: &'a [ClosedIncident],
    pub host: &'a str,
    pub details: bool,
    /// The watchdog is ending: this is the last page it writes.
    pub is_last: bool,
    pub at: ClockReading,
    pub zone: Zone,
}

struct Banner {
    class: &'static str,
    text: String,
}

impl Page<'_> {
    pub fn html(&self) -> String {
        let Banner { class, text } = self.banner();
        let (title, style) = (html(&text), STYLE);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             img-src data:\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{style}</style>\n\
             </head>\n<body>\n<main>\n<header class=\"{class}\">\n<h1>{title}</h1>\n{}</header>\n",
            self.age()
        );
        self.saved.targets_in_order().iter().for_each(|(name, shown)| page.push_str(&self.target(name, shown)));
        page.push_str(&self.incidents());
        page.push_str("</main>\n</body>\n</html>\n");
        page
    }

    fn state(&self, name: &str) -> Option<&TargetState> {
        self.saved.policy.targets.get(name)
    }

    fn banner(&self) -> Banner {
        let banner = |class, text: String| Banner { class, text };
        if self.is_last {
            return banner("down", format!("Nobody has been watching since {}", self.day_and_time(self.at.wall)));
        }
        let states: Vec<&TargetState> =
            self.saved.targets_in_order().iter().filter_map(|(name, _)| self.state(name)).collect();
        let count = |status: Status| states.iter().filter(|state| state.status == status).count();
        let all = states.len();
        let some = |count: usize, word: &str| match all {
            1 => format!("The target is {word}"),
            _ => format!("{count} of {all} targets {word}"),
        };
        let down = count(Status::Down) + count(Status::Recovering);
        if down > 0 {
            let is_down = |state: &&&TargetState| matches!(state.status, Status::Down | Status::Recovering);
            let incidents = states.iter().filter(is_down).filter_map(|state| state.incident.as_ref());
            let since = incidents.map(|incident| incident.began).min();
            let since = since.map(|at| format!(" since {}", self.clock_time(at))).unwrap_or_default();
            let text = if all == 1 { "The target has been down".into() } else { some(down, "down") };
            return banner("down", text + &since);
        }
        let others = [
            (Status::Failing, "failing"),
            (Status::Starting, "starting"),
            (Status::Paused, "paused"),
            (Status::Stopped, "stopped"),
        ];
        match others.into_iter().find(|(status, _)| count(*status) > 0) {
            Some((status, word)) => banner("other", some(count(status), word)),
            None => banner("up", "Everything is up".into()),
        }
    }

    /// A dead watchdog writes no page, so a reader must be able to see that this one is stale.
    fn age(&self) -> String {
        let (at, machine) = (self.at.wall.rfc3339(), html(self.host));
        let shown = html(&self.zone.date_time(self.at.wall));
        let targets = match self.saved.targets_in_order().len() {
            1 => "1 target".into(),
            count => format!("{count} targets"),
        };
        let rule = match self.is_last {
            true => "when the watchdog was stopped.",
            false => "and rewritten every minute. If that time is more than a few minutes ago, nobody is watching.",
        };
        format!(
            "<p>{targets} on {machine}. Written at <time datetime=\"{at}\">{shown}</time> {rule}</p>\n\
             <p class=\"old\">This page has been open for five minutes. Reload it.</p>\n"
        )
    }

    fn target(&self, name: &str, shown: &TargetView) -> String {
        let nothing = TargetState::default();
        let state = self.state(name).unwrap_or(&nothing);
        let (status, name_shown) = (state.status.as_str(), html(name));
        let none = Uptime::default();
        let history = self.saved.history.get(name).unwrap_or(&none);
        let restarts = pm2_restarts::describe(&history.restarts().within(DAY, self.at.wall), "in 24 h");
        let notes = self.notes(state, shown).into_iter().chain(restarts);
        let notes: String = notes.map(|note| format!("<p>{}</p>\n", html(&note))).collect();
        format!(
            "<section class=\"{}\">\n<h2>{name_shown} <span class=\"state\">{status}</span></h2>\n\
             {notes}{}{}</section>\n",
            colour(state.status),
            self.days(history),
            self.latency(history)
        )
    }

    fn notes(&self, state: &TargetState, shown: &TargetView) -> Vec<String> {
        let mut notes = Vec::new();
        let since = state.since.map(|at| (self.clock_time(at), round_age(self.at.now.since(at))));
        let since = since.map_or_else(String::new, |(at, span)| format!("since {at} ({span})"));
        let tried = match state.incident.as_ref().map_or(0, |incident| incident.attempts) {
            0 => String::new(),
            1 => ", restarted once".into(),
            times => format!(", restarted {times} times"),
        };
        notes.push(format!("{since}{tried}"));
        if let Some(until) = state.pauses.until() {
            notes.push(format!("paused until {}", self.clock_time(until)));
        } else if let Some(rest) = state.rest {
            notes.push(describe_rest(rest.why).into());
        } else if let Some(waiting) = state.waiting.filter(|_| state.status == Status::Down) {
            let why = describe_hold(waiting.why, &shown.depends_on, None);
            let until = waiting.until.map(|at| format!(" until {}", self.clock_time(at))).unwrap_or_default();
            notes.push(format!("not restarted{until}: {why}"));
        } else if state.status == Status::Down && !shown.has_restart_commands {
            notes.push("watch-only: nothing restarts it".into());
        }
        notes.extend(describe_quality(state, shown));
        if shown.dry_run {
            notes.push("dry run: nothing is restarted".into());
        }
        if self.details
            && let Some(probe) = &state.last_probe
            && !probe.verdict.is_healthy()
        {
            let detail = probe.verdict.detail();
            notes.push(match probe.verdict.class() {
                Some(class) => class.with_detail(detail),
                None => format!("the last probe gave no verdict: {detail}"),
            });
        }
        notes.retain(|note| !note.is_empty());
        notes
    }

    fn days(&self, history: &Uptime) -> String {
        let span = Duration::from_secs(86_400 * u64::try_from(DAYS).expect("it is positive"));
        let uptime = match history.uptime(span, self.at.wall) {
            Some(part) => format!("up {} of the watched time", percent(Some(part))),
            None => "not watched yet".into(),
        };
        let days = history.days(DAYS, self.at.wall);
        let outages = days.iter().filter(|day| day.up.is_some_and(|up| up < 1.0)).count();
        let outages = match outages {
            0 => "no day with an outage".to_owned(),
            1 => "1 day with an outage".to_owned(),
            count => format!("{count} days with an outage"),
        };
        format!(
            "<figure>\n{}<figcaption><span>90 days ago</span><span>{uptime}</span><span>today</span></figcaption>\n\
             </figure>\n",
            plot::bars(&days, self.zone, &format!("Uptime by day over 90 days: {uptime}, {outages}"))
        )
    }

    fn latency(&self, history: &Uptime) -> String {
        let slots = history.latency().slots(self.at.wall);
        match plot::latency(&slots, self.at.wall) {
            None => "<p class=\"none\">No answers in the last 24 h.</p>\n".into(),
            Some(plot::Plot { picture, median, worst }) => format!(
                "<figure>\n{picture}<figcaption><span>24 h ago</span><span>latency: median {median} (lower line), \
                 worst {worst}</span><span>now</span></figcaption>\n</figure>\n"
            ),
        }
    }

    fn incidents(&self) -> String {
        let mut rows = String::new();
        let mut latest: Vec<&ClosedIncident> = self.closed.iter().collect();
        latest.sort_by_key(|closed| std::cmp::Reverse(closed.began));
        for closed in latest.into_iter().take(INCIDENTS) {
            let (at, shown) = (closed.began.rfc3339(), html(&self.day_and_time(closed.began)));
            let (target, lasted) = (html(&closed.target), closed.downtime());
            let end = match (&closed.cured, closed.runs.is_empty()) {
                (Some(run), _) if self.details => format!("cured by {}", short_command(run)),
                (Some(_), _) => "cured by a restart".into(),
                (None, true) => "recovered without a restart".into(),
                (None, false) => "recovered, probably not because of a restart".into(),
            };
            let cause = if self.details { format!("{}: ", closed.class) } else { String::new() };
            let end = html(&format!("{cause}{end}"));
            rows.push_str(&format!(
                "<tr><td><time datetime=\"{at}\">{shown}</time></td><td>{target}</td><td>{lasted}</td>\
                 <td>{end}</td></tr>\n"
            ));
        }
        if rows.is_empty() {
            return "<section>\n<h2>Incidents</h2>\n<p>None in 90 days.</p>\n</section>\n".into();
        }
        format!(
            "<section>\n<h2>Incidents</h2>\n<table>\n<thead><tr><th scope=\"col\">Began</th>\
             <th scope=\"col\">Target</th><th scope=\"col\">Down for</th><th scope=\"col\">End</th></tr></thead>\n\
             <tbody>\n{rows}</tbody>\n</table>\n</section>\n"
        )
    }

    fn clock_time(&self, at: BootTime) -> String {
        let wall = self.at.wall_at(at);
        self.zone.with_day(self.zone.hour_minute(wall), wall, self.at.wall)
    }

    fn day_and_time(&self, at: WallTime) -> String {
        format!("{} {}", self.zone.day(at), self.zone.hour_minute(at))
    }
}

fn colour(status: Status) -> &'static str {
    match status {
        Status::Healthy => "up",
        Status::Down | Status::Recovering => "down",
        Status::Starting | Status::Failing | Status::Stopped | Status::Paused => "other",
    }
}

/// Escapes `text` for an element and for an attribute in double quotes.
fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in escaped(text).chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
