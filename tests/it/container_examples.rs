//! README's two containers, run as Docker runs them: the command of each Dockerfile in a PID namespace of its own, with
//! `tini` as process 1 where README says `--init`. The backend freezes in both, and the state outlives the container.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::containers::{children, require_container};
use crate::documents::blocks;
use crate::sandbox::{Daemon, Sandbox, free_port, send_signal};

const CONTAINER: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Answers with its pid within the container, and loops forever once `/freeze` is requested.
const SERVER: &str = "require('http').createServer((request, response) => {
  if (request.url === '/freeze') for (;;);
  response.end(`pid=${process.pid};`);
}).listen(Number(process.env.PORT), '127.0.0.1', () => console.log('listening'));
";

struct Image {
    sandbox: Sandbox,
    port: u16,
    command: Vec<String>,
}

impl Image {
    /// From README's Dockerfile with this number and its configuration with this word, with quicker probes.
    fn new(number: usize, configuration: &str) -> Image {
        let port = free_port();
        let yaml = blocks("yaml").into_iter().find(|block| block.contains(configuration)).expect("in README");
        let yaml = ["localhost:5000", "localhost:3000"]
            .iter()
            .fold(yaml, |yaml, address| yaml.replace(address, &format!("localhost:{port}")));
        let quick = "defaults: {interval: 200ms, timeout: 1s, start_period: 30s, cooldown: 1s}\n";
        let sandbox = Sandbox::new(&format!("{quick}{yaml}"));
        sandbox.write("server.js", SERVER);
        let script = blocks("sh").into_iter().find(|block| block.contains("/proc/1/fd/1")).expect("in README");
        sandbox.write("restart.sh", &script);
        fs::set_permissions(sandbox.path("restart.sh"), Permissions::from_mode(0o755)).expect("the test's own file");
        let command =
            blocks("dockerfile")[number].lines().find_map(|line| line.strip_prefix("CMD ").map(str::to_owned));
        let command = serde_json::from_str(&command.expect("in README")).expect("a list of words");
        require_container(&sandbox, &CONTAINER);
        Image { sandbox, port, command }
    }

    /// `docker run`, with these words before the image's command. The output goes through a pipe, as Docker's does.
    fn run(&self, init: &[&str]) -> Daemon<'_> {
        const DOCKER: &str = "PATH=${1%/*}:$PATH; shift; rm -f pipe; mkfifo pipe; (cat pipe >>docker.log &); \
                              exec \"$@\" >pipe 2>&1";
        let mut command = self.sandbox.command_through(&["sh", "-c", DOCKER, "-"], &CONTAINER);
        command.args(init).args(&self.command).env("PORT", self.port.to_string());
        self.sandbox.spawn_daemon_from(command)
    }

    /// The answer of the backend within a second: its pid in the container.
    fn pid(&self) -> Option<String> {
        let mut stream = self.request("/")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split_once("pid=")?.1.split_once(';')?.0.to_owned())
    }

    fn request(&self, path: &str) -> Option<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        Some(stream)
    }

    fn wait_until_healthy(&self) {
        let is_healthy = || self.sandbox.status()["targets"][0]["state"] == "healthy" && self.pid().is_some();
        self.sandbox.eventually("the backend is healthy", is_healthy);
    }

    fn freeze(&self) {
        let connection = self.request("/freeze");
        self.sandbox.eventually("the backend is frozen", || self.pid().is_none());
        drop(connection);
    }
}

#[test]
fn as_process_1_it_starts_and_restarts_the_app() {
    let image = Image::new(0, "restart: ./restart.sh");
    let mut container = image.run(&[]);
    image.wait_until_healthy();
    image.freeze();
    image.sandbox.eventually("it is up again", || !image.sandbox.events("up").is_empty());
    image.wait_until_healthy();
    assert_eq!(image.sandbox.events("restart").len(), 1, "{}", image.sandbox.dump());
    let starts = || image.sandbox.read("docker.log").matches("listening").count();
    image
        .sandbox
        .eventually("the app's output is that of the container, before and after the restart", || starts() == 2);
    // docker stop
    let inits = children(container.pid());
    let [(init, _)] = inits[..] else { panic!("{inits:?}\n{}", image.sandbox.dump()) };
    send_signal(init, Signal::TERM);
    let status = container.child.wait().expect("a child can be waited for");
    image.sandbox.assert(status.success(), &format!("{status:?}"));
    image.sandbox.eventually("the app is gone", || image.sandbox.processes().is_empty());
}

#[test]
fn next_to_the_app_it_has_the_container_started_again() {
    let image = Image::new(1, "app.pid");
    let init = ["tini", "--"];
    let mut container = image.run(&init);
    image.wait_until_healthy();
    image.freeze();
    let status = container.child.wait().expect("a child can be waited for");
    image.sandbox.assert(status.code() == Some(137), &format!("the container ends with the app: {status:?}"));
    image.sandbox.eventually("all is gone", || image.sandbox.processes().is_empty());
    // docker run --restart=unless-stopped
    let _container = image.run(&init);
    image.sandbox.eventually("it is up again", || !image.sandbox.events("up").is_empty());
    image.wait_until_healthy();
    let (down, up) = (image.sandbox.events("down"), image.sandbox.events("up"));
    image.sandbox.assert(down.len() == 1 && up[0]["incident"] == down[0]["incident"], "the incident goes on");
    assert_eq!(image.sandbox.status()["targets"][0]["attempts_in_window"], 1, "{}", image.sandbox.dump());
}

#[test]
fn next_to_the_app_without_init_the_app_cannot_be_ended() {
    let image = Image::new(1, "app.pid");
    let mut container = image.run(&[]);
    image.wait_until_healthy();
    image.freeze();
    image.sandbox.eventually("a restart was tried", || !image.sandbox.events("restart_done").is_empty());
    let ended = container.child.try_wait().expect("the state of a child can be read");
    image.sandbox.assert(ended.is_none() && image.pid().is_none(), &format!("it is still frozen: {ended:?}"));
}
