//! Keys that people bring from other tools (PM2, Monit, systemd, supervisor, Docker, Kubernetes), or write in the wrong
//! place: which key does the same here, or which program does it. It must never make such a key work.

/// Keys in lower case and without `_`, as [`advise`] compares them, and what to write instead.
pub(super) type Advice = (&'static [&'static str], &'static str);

/// What to write instead of `key`, if the list has it.
pub(super) fn advise(key: &str, list: &[Advice]) -> Option<&'static str> {
    let plain: String = key.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect();
    list.iter().find(|(keys, _)| keys.contains(&plain.as_str())).map(|(_, advice)| *advice)
}

/// At the top level.
pub(super) const TOP: &[Advice] = &[
    (
        &["name", "http", "tcp", "command", "file", "pm2", "restart"],
        "it belongs in a target: targets: [{name: …, http: …, restart: …}]",
    ),
    (
        &[
            "interval",
            "retryinterval",
            "timeout",
            "failurethreshold",
            "startperiod",
            "cooldown",
            "maxcooldown",
            "stableafter",
            "maxrestarts",
            "restartwindow",
            "restarton",
            "onlyif",
            "dependson",
            "diagnose",
            "slow",
        ],
        "set it on a target, or on all of them: defaults: {…}",
    ),
    (
        &["apps", "processes", "instances", "execmode", "watch"],
        "that is for PM2's ecosystem file; watchdog init writes `targets` for what PM2 runs",
    ),
    (
        &["services", "checks", "monitors", "probes", "healthchecks", "programs", "units", "endpoints", "containers"],
        "write `targets`: a list, one item for each thing that is watched",
    ),
    (
        &["healthcheck", "livenessprobe", "readinessprobe", "startupprobe", "check", "probe", "url", "host", "port"],
        "write it as a target: targets: [{name: …, http: http://localhost:5000/health}]",
    ),
    (&["logfile", "logpath", "logs", "logging", "logger"], "write log: {file: …}"),
    (&["loglevel", "verbosity", "debug"], "write log: {level: debug}"),
    (&["logformat"], "write log: {format: json}"),
    (&["logrotate", "logsize", "maxlogsize"], "write log: {max_size: 1MiB, keep: 4}"),
    (
        &[
            "alert",
            "alerts",
            "alerting",
            "email",
            "mail",
            "mailto",
            "mailserver",
            "webhook",
            "slack",
            "discord",
            "telegram",
            "ntfy",
            "notifications",
            "notifier",
            "notifiers",
            "smtp",
        ],
        "write notify: [{email: …}], [{webhook: …}] or [{command: …}]",
    ),
    (&["statefile", "statepath", "datadir", "workdir"], "write state_dir: FOLDER"),
    (
        &["user", "uid", "group", "gid", "runas"],
        "everything runs as the account that starts the watchdog: use that account's crontab, or User= in its unit",
    ),
    (
        &["daemon", "daemonize", "background", "pidfile", "pid"],
        "`watchdog start` runs in the background; `watchdog status` shows the pid",
    ),
    (
        &["listen", "bind", "httpd", "server", "web", "statuspage", "dashboard"],
        "nothing listens on a port; page: FILE writes a status page",
    ),
    (&["environment", "envs", "variables"], "write env: {NAME: value}"),
    (&["envfiles", "dotenv", "environmentfile"], "write env_file: FILE"),
    (&["include", "includes", "import", "set", "version"], NO_SUCH),
];

/// In a target, and in `defaults`.
pub(super) const TARGET: &[Advice] = &[
    (
        &["memorylimit", "memlimit", "maxmemory", "maxmemoryrestart", "memory", "maxmem"],
        "PM2 limits memory: max_memory_restart in its ecosystem file (systemd: MemoryMax=)",
    ),
    (&["cpu", "cpulimit", "load", "disk", "space", "certificate"], "use Monit for that; this watches one answer"),
    (
        &["url", "uri", "endpoint", "address", "httpget", "healthurl", "healthcheckurl", "httpurl"],
        "write http: http://localhost:5000/health",
    ),
    SEVERAL,
    (
        &["host", "hostname", "port", "tcpsocket", "socket", "ping"],
        "write tcp: HOST:PORT, or http: http://HOST:PORT/PATH",
    ),
    (
        &["path", "healthpath"],
        "write it in the address: http: http://localhost:5000/PATH; of a file: file: {path: …, max_age: …}",
    ),
    (
        &["expect", "expected", "expects", "body", "match", "content", "response", "keyword", "regex", "pattern"],
        "write http: {url: …, contains: TEXT}, json: {/POINTER: VALUE} or status: 200",
    ),
    (
        &[
            "status",
            "statuscode",
            "code",
            "expectedstatus",
            "expectstatus",
            "method",
            "headers",
            "contains",
            "json",
            "tls",
            "unixsocket",
            "httpheaders",
        ],
        "it belongs in `http`: http: {url: …, status: 200, headers: {…}}",
    ),
    (&["maxage", "mtime", "timestamp"], "write file: {path: …, max_age: 2m}"),
    (
        &["cmd", "exec", "test", "checkcommand", "execstart", "program", "checkprogram"],
        "to probe: command: ./healthy.sh; to repair: restart: ./restart.sh",
    ),
    (
        &[
            "script",
            "interpreter",
            "args",
            "instances",
            "execmode",
            "watch",
            "mergelogs",
            "nodeargs",
            "cronrestart",
            "cron",
            "killtimeout",
            "listentimeout",
            "waitready",
            "outfile",
            "errorfile",
        ],
        "PM2 does that, in its ecosystem file; here its process is named: pm2: NAME",
    ),
    (
        &["autorestart", "restartpolicy", "autostart", "respawn"],
        "leave that to what runs the process (PM2: autorestart); this repairs what fails its probe: restart: …",
    ),
    (
        &[
            "healthcheck",
            "livenessprobe",
            "readinessprobe",
            "startupprobe",
            "check",
            "probe",
            "monitor",
            "type",
            "kind",
        ],
        "write the probe's own key in the target: http: URL, tcp: HOST:PORT, command: … or file: {…}",
    ),
    (
        &[
            "retries",
            "retry",
            "attempts",
            "tries",
            "failures",
            "maxfailures",
            "maxretries",
            "unhealthythreshold",
            "cycles",
            "fall",
            "threshold",
        ],
        "write failure_threshold: 3 (failures in a row); max_restarts limits restarts",
    ),
    (
        &["successthreshold", "healthythreshold", "rise"],
        "one healthy probe ends an outage; stable_after says when it counts as cured",
    ),
    (
        &[
            "initialdelayseconds",
            "initialdelay",
            "delay",
            "startsecs",
            "startdelay",
            "graceperiod",
            "grace",
            "startinterval",
            "startuptime",
            "warmup",
            "timeoutstartsec",
        ],
        "write start_period: 30s",
    ),
    (
        &["periodseconds", "period", "every", "frequency", "cycle", "checkinterval", "schedule", "polltime"],
        "write interval: 30s",
    ),
    (
        &["timeoutseconds", "timeoutms", "requesttimeout", "connecttimeout", "deadline"],
        "write timeout: 10s, for the whole probe",
    ),
    (
        &["restartdelay", "restartsec", "backoff", "expbackoffrestartdelay", "wait"],
        "write cooldown: 60s and max_cooldown: 10m",
    ),
    (&["minuptime", "resetafter"], "write stable_after: 10m"),
    (&["startretries", "startlimitburst", "restartlimit", "limit", "ratelimit"], "write max_restarts: 10"),
    (&["startlimitinterval", "startlimitintervalsec", "window"], "write restart_window: 1h"),
    (
        &[
            "start",
            "startcommand",
            "startprogram",
            "stop",
            "stopcommand",
            "stopprogram",
            "action",
            "actions",
            "onfailure",
            "onfail",
            "recover",
            "recovery",
            "repair",
            "fix",
            "restartcommand",
            "restartcmd",
            "then",
            "run",
            "commands",
            "reload",
        ],
        "write restart: COMMAND, or a list of commands, smallest first",
    ),
    (&["stopwaitsecs", "restarttimeout", "timeoutstopsec", "stoptimeout"], "write restart: {run: …, timeout: 60s}"),
    (&["exclude", "condition", "conditions", "unless", "precondition", "if"], "write only_if: COMMAND"),
    (&["depends", "requires", "after", "dependencies", "needs", "wants"], "write depends_on: [NAME]"),
    (
        &["process", "processname", "app", "appname", "home", "pm2home", "config", "ecosystem", "reset"],
        "it belongs in `pm2`: pm2: {process: …, home: …, config: …}",
    ),
    (&["env", "environment", "envfile"], "it belongs at the top level, for all commands"),
    (
        &["cwd", "directory", "dir", "workdir", "workingdirectory"],
        "commands run in the folder of this file: write cd FOLDER && … in the command",
    ),
    (&["user", "uid", "group", "gid", "runas"], "commands run as the account of the watchdog"),
    (
        &["notify", "alert", "alerts", "email", "webhook", "heartbeat", "page", "metrics", "log", "statedir"],
        "it belongs at the top level, for all targets",
    ),
    (&["enabled", "disabled", "active", "paused"], "remove the target, or run watchdog pause NAME"),
    (
        &["id", "title", "label", "description", "service", "container", "containername"],
        "write name: NAME; a comment begins with #",
    ),
    (&["pidfile", "pid", "matching"], "write the probe: http: URL, tcp: HOST:PORT, command: … or pm2: NAME"),
];

pub(super) const HTTP: &[Advice] = &[
    SEVERAL,
    (
        &["host", "hostname", "port", "path", "uri", "scheme", "address", "endpoint", "query"],
        "write it all in url: http://localhost:5000/health",
    ),
    (
        &["expect", "expected", "body", "match", "content", "response", "keyword", "text", "regex", "pattern"],
        "write contains: TEXT or json: {/POINTER: VALUE}",
    ),
    (
        &["code", "codes", "statuscode", "statuscodes", "expectedstatus", "expectstatus", "expectedcodes"],
        "write status: 200-299",
    ),
    (&["header", "httpheaders"], "write headers: {NAME: value}"),
    (
        &["auth", "authorization", "user", "username", "password", "basicauth", "bearer", "token"],
        "write url: https://USER:${PASSWORD}@…, or headers: {Authorization: …}",
    ),
    (
        &[
            "insecure",
            "verify",
            "verifyssl",
            "sslverify",
            "skipverify",
            "insecureskipverify",
            "rejectunauthorized",
            "ca",
            "cacert",
            "cafile",
            "ssl",
        ],
        "write tls: verify, insecure or the path of a CA file",
    ),
    (&["socket", "unix", "socketpath"], "write unix_socket: PATH"),
    (
        &["followredirects", "redirects", "redirect", "maxredirects"],
        "redirects are not followed: probe the last address, or write status: 301",
    ),
    (&["data", "payload", "post", "form"], "a probe is GET or HEAD and sends no body; use command: curl …"),
    (&["proxy"], "probes use no proxy"),
    ELSEWHERE,
];

pub(super) const FILE: &[Advice] = &[
    (&["file", "name", "filename"], "write path: PATH"),
    (&["age", "mtime", "stale", "timestamp"], "write max_age: 2m"),
    ELSEWHERE,
];

pub(super) const PM2: &[Advice] = &[
    (&["name", "app", "appname", "id", "pmid"], "write process: NAME, as `pm2 list` shows it"),
    (&["pm2home", "dir", "folder"], "write home: ~/.pm2"),
    (&["ecosystem", "ecosystemfile", "file", "configfile", "script"], "write config: ecosystem.config.js"),
    (&["environment", "envname"], "write env: production"),
    (
        &[
            "memorylimit",
            "maxmemory",
            "maxmemoryrestart",
            "autorestart",
            "instances",
            "execmode",
            "watch",
            "cronrestart",
            "minuptime",
            "maxrestarts",
            "restartdelay",
            "killtimeout",
            "args",
            "cwd",
            "listentimeout",
        ],
        "PM2 does that, in its ecosystem file",
    ),
    ELSEWHERE,
];

/// In an item of `restart`.
pub(super) const RUNG: &[Advice] = &[
    (&["command", "cmd", "exec", "script", "shell", "sh", "start", "program"], "write run: COMMAND"),
    (&["args", "arguments", "argv"], "write run: [PROGRAM, ARGUMENT]"),
    (
        &["cwd", "directory", "dir", "workdir"],
        "commands run in the folder of this file: write cd FOLDER && … in the command",
    ),
    (&["env", "environment"], "env: {…} at the top level is for all commands; for one: NAME=value COMMAND"),
    (&["user", "runas"], "commands run as the account of the watchdog"),
    (&["delay", "wait", "sleep", "cooldown", "after"], "the target's cooldown is the time between attempts"),
    (&["retries", "attempts", "times"], "the next attempt begins with the next command; max_restarts limits them"),
];

pub(super) const LOG: &[Advice] = &[
    (&["path", "name", "filename", "output", "dir", "folder"], "write file: watchdog.log"),
    (&["maxfiles", "backups", "maxbackups", "count", "files", "rotate", "rotations", "retain"], "write keep: 4"),
    (&["maxbytes", "limit", "rotatesize"], "write max_size: 1MiB"),
    (&["type", "json", "style"], "write format: json"),
    (&["verbosity", "loglevel"], "write level: debug"),
    (&["color", "colour", "colors", "timestamp", "timezone", "compress", "maxage", "syslog", "journal"], NO_SUCH),
];

/// Several addresses.
const SEVERAL: Advice = (&["urls", "uris", "endpoints", "addresses", "hosts"], "write http: [URL, URL]");

/// The key of a target in one of its probes.
const ELSEWHERE: Advice = (
    &[
        "interval",
        "retryinterval",
        "timeout",
        "retries",
        "failurethreshold",
        "startperiod",
        "restart",
        "slow",
        "periodseconds",
        "timeoutseconds",
        "initialdelayseconds",
    ],
    "it belongs next to the probe, in the target: interval, timeout, failure_threshold, start_period, restart",
);

const NO_SUCH: &str = "there is nothing like it here; remove the key";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::config::{file, pm2, probes, reader::Keys, targets};

    /// An entry that is written otherwise would never be found, and one for a key that is allowed never shown.
    #[test]
    fn every_entry_can_be_found() {
        let all = [&file::TOP, &file::LOG, &targets::TARGET, &targets::RUNG, &probes::HTTP, &probes::FILE, &pm2::PM2];
        for Keys { known, elsewhere, .. } in all {
            let mut seen = HashSet::new();
            let known: Vec<String> = known.concat().iter().map(|key| key.replace('_', "")).collect();
            for key in elsewhere.iter().flat_map(|(keys, _)| keys.iter()) {
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{key}");
                assert!(seen.insert(key) && !known.contains(&(*key).to_owned()), "{key}");
            }
        }
    }
}
