//! The unit of a system instance, run as systemd would: its command line with other places.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use e2e::Site;

/// The words of `ExecStart`.
fn command_line(unit: &str) -> Vec<String> {
    let text = unit.replace("\\\n", " ");
    let line = text.lines().find_map(|l| l.strip_prefix("ExecStart="));
    let words = line.expect("the unit has a command").split_whitespace();
    words.map(str::to_owned).collect()
}

/// What the broker has said so far, until something ends with `end`.
fn listen(socket: &UnixDatagram, end: &str) -> String {
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while !said.lines().any(|line| line.ends_with(end)) {
        let n = socket
            .recv(&mut buffer)
            .expect("the broker goes on to talk");
        said.push_str(&String::from_utf8_lossy(&buffer[..n]));
        said.push('\n');
    }
    said
}

#[test]
fn the_unit_starts_tells_and_stops() {
    let site = Site::new();
    let unit = std::fs::read_to_string(e2e::repository("etc/systemd/flux.service")).unwrap();
    let dir = site.path().display().to_string();
    let place = |word: &String| {
        let word = word.replace("/run/flux", &dir);
        word.replace("/var/lib/flux", &dir)
            .replace("/etc/flux/system", &dir)
    };
    let words: Vec<String> = command_line(&unit).iter().map(place).collect();
    for name in ["conf.d", "cron.d"] {
        std::fs::create_dir(site.path().join(name)).unwrap();
    }
    let path = site.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let command = format!("echo $$ > pid; exec flux {}", words[1..].join(" "));
    let pid = site.path().join("pid");
    let talk = std::thread::spawn(move || {
        let said = listen(&socket, "Running as leader of 1 node Flux instance");
        let pid = std::fs::read_to_string(pid).unwrap().trim().parse();
        let pid = nix::unistd::Pid::from_raw(pid.unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        said + &listen(&socket, "STATUS=Exiting")
    });
    let notify = path.display().to_string();
    let outcome = site.run_with("sh", ["-c", &command], &[("NOTIFY_SOCKET", &notify)]);
    let said = talk.join().unwrap();
    outcome.success();
    for line in [
        "READY=1",
        "STATUS=Waiting for enough brokers",
        "EXTEND_TIMEOUT_USEC=90000000",
        "STATUS=Leaving",
    ] {
        assert!(said.lines().any(|l| l == line), "{line}\n{said}");
    }
}
