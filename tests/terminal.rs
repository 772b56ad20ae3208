//! What people see who sit at a terminal: the real binary behind a pseudo-terminal, its screen read by an emulator.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde_json::json;

use crate::cluster::{Cluster, Outcome, starlift, workspace, write_job};
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::{PATIENCE, binary, output, until};
use crate::standin::Standin;

const ROWS: u32 = 6_000;

const LINES: u16 = 40;

/// What a person has who has set nothing.
const USUAL: [(&str, &str); 3] = [("NO_COLOR", ""), ("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")];

/// `starlift` as the leader of a session of its own, on a terminal of its own. Killed when dropped.
struct Terminal {
    child: Child,
    master: File,
    shown: Arc<Mutex<Shown>>,
}

struct Shown {
    emulator: vt100::Parser,
    /// All that came, as it came.
    bytes: Vec<u8>,
}

impl Terminal {
    /// Starts `starlift` with the arguments; a variable that is empty is not set at all.
    fn start(dir: &Path, columns: u16, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).expect("the system has pseudo-terminals");
        rustix::pty::grantpt(&master).expect("it is ours");
        rustix::pty::unlockpt(&master).expect("it is ours");
        resize(&master, columns);
        let slave = || {
            let side = rustix::pty::ioctl_tiocgptpeer(&master, flags).expect("the other side opens");
            Stdio::from(side)
        };
        // It makes the terminal the controlling one, so that Ctrl-C means what it means.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(binary("starlift")).args(arguments).current_dir(dir);
        for (name, value) in variables {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        command.stdin(slave()).stdout(slave()).stderr(slave());
        let child = command.spawn().expect("setsid of util-linux is there");
        drop(command);

        let emulator = vt100::Parser::new(size(LINES), size(columns), 10_000);
        let shown = Arc::new(Mutex::new(Shown { emulator, bytes: Vec::new() }));
        let master = File::from(master);
        let (mut reader, sink) = (master.try_clone().expect("a handle can be doubled"), Arc::clone(&shown));
        // Ends when nobody holds the other side any more.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let mut shown = sink.lock().expect("no reader panics");
                shown.emulator.process(&buffer[..read]);
                shown.bytes.extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, master, shown }
    }

    fn look<T>(&self, look: impl FnOnce(&mut Shown) -> T) -> T {
        look(&mut self.shown.lock().expect("no reader panics"))
    }

    /// The screen's text; a line that was too long for it is one line all the same.
    fn text(&self) -> String {
        self.look(|shown| shown.emulator.screen().contents())
    }

    /// Everything that was ever shown, as it came.
    fn all(&self) -> String {
        self.look(|shown| String::from_utf8_lossy(&shown.bytes).into_owned())
    }

    /// How many pictures were drawn so far.
    fn pictures(&self) -> usize {
        self.all().matches("\u{1b}[J").count()
    }

    async fn until(&self, what: &str, is_shown: impl Fn(&str) -> bool) -> String {
        until(&format!("the screen to show {what}"), || async { is_shown(&self.text()) }).await;
        self.text()
    }

    fn resize(&self, columns: u16) {
        self.look(|shown| shown.emulator.screen_mut().set_size(size(LINES), size(columns)));
        resize(&self.master, columns);
    }

    fn press_ctrl_c(&mut self) {
        self.master.write_all(b"\x03").expect("the terminal takes keys");
    }

    /// Its exit code, when all it printed is on the screen.
    async fn ended(&mut self) -> Option<i32> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.child.try_wait().expect("a child can be asked");
            // The reader holds the other half of the pair until it has read everything.
            if let Some(status) = status.filter(|_| Arc::strong_count(&self.shown) == 1) {
                return status.code();
            }
            assert!(tokio::time::Instant::now() < deadline, "it does not end:\n{}", self.text());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the screen\n{}", self.text());
        }
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn size(number: u16) -> std::num::NonZeroU16 {
    number.try_into().expect("a terminal has a size")
}

fn resize(master: impl std::os::fd::AsFd, columns: u16) {
    let size = Winsize { ws_row: LINES, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).expect("a terminal has a size");
}

/// A source that is cut in about seven tasks, and a target that takes a while for them.
async fn source_and_slow_target() -> (MariaDb, Standin) {
    let (mut source, target) =
        tokio::join!(MariaDb::start(), Standin::start(&["--be-bytes-per-second", "100000"]));
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    source.claim_rows("orders", 600_000).await;
    (source, target)
}

/// The line with the task strip.
fn strip(text: &str) -> &str {
    let is_strip = |line: &&str| line.len() > 9 && line.chars().all(|letter| "█▓>·✗".contains(letter));
    text.lines().find(is_strip).unwrap_or_default()
}

/// Runs what a person pastes.
async fn paste(dir: &Path, line: &str) -> Outcome {
    let mut command = Command::new("sh");
    command.current_dir(dir).arg("-c").arg(line);
    output(command).await.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_drawn_in_place_and_leaves_its_report() {
    let (source, target) = source_and_slow_target().await;
    let dir = workspace(&datasources(&source, &target));
    let file = write_job(dir.path(), &orders_job(json!({}), json!({}))).display().to_string();
    // Without log lines nothing but the picture is on the screen.
    let variables = [&USUAL[..], &[("STARLIFT_LOG", "error")]].concat();
    let mut terminal = Terminal::start(dir.path(), 100, &variables, &["run", &file, "--slots", "2"]);

    let is_under_way = |text: &str| "█>·".chars().all(|shape| strip(text).contains(shape));
    let text = terminal.until("done, running and waiting tasks", is_under_way).await;
    for part in
        ["RUNNING  job", "✓ plan", "✓ preSql", " transfer", "· commit", "· postSql", "──  ", "%", "/s"]
    {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(text.contains(" rows  ") && text.contains("  tasks "), "{text}");
    assert_eq!(strip(&text).chars().count(), 60, "{text}");
    let worker = text.lines().find(|line| line.contains(" running  ") && line.ends_with("/s"));
    assert!(worker.is_some_and(|line| line.contains(" done") && line.contains(" rows")), "{text}");
    // The same few lines all the time: nothing has been scrolled away, and nothing stands there twice.
    let drawn = terminal.pictures();
    terminal.resize(60);
    until("a few more pictures", || async { terminal.pictures() > drawn + 3 }).await;
    let text = terminal.text();
    assert!(text.starts_with("RUNNING  job") && text.matches("RUNNING").count() == 1, "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 60), "{text}");
    assert_eq!(terminal.look(|shown| shown.emulator.screen().scrollback_len()), 0, "{text}");
    terminal.resize(100);

    assert_eq!(terminal.ended().await, Some(0));
    let text = terminal.text();
    assert!(text.starts_with("job ") && text.contains(": SUCCEEDED\n"), "{text}");
    assert!(!text.contains('─') && !text.contains("RUNNING"), "the picture is still there:\n{text}");
    assert_eq!(target.count("dw.orders").await, u64::from(ROWS));
    assert!(text.contains("Records read        : 6,000\n"), "{text}");
    assert!(text.contains("Rows loaded         : 6,000 in "), "{text}");
    assert!(!terminal.look(|shown| shown.emulator.screen().hide_cursor()));
    assert!(!terminal.all().contains("\u{1b}[?25l"), "the cursor was hidden");
    assert_identical(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_a_run_prints_the_command_that_finishes_the_job() {
    let (source, target) = source_and_slow_target().await;
    let dir = workspace(&datasources(&source, &target));
    target.run(&["CREATE TABLE dw.ran (n INT) DUPLICATE KEY(n)"]).await;
    let script = orders_job(json!({ "preSql": ["insert into dw.ran values (${n})"] }), json!({})).to_string();
    std::fs::write(dir.path().join("Bob's job.json"), script).expect("the test's directory is writable");
    let arguments = ["run", "Bob's job.json", "--param", "n=7", "--state", "his $state", "--slots", "2"];
    let mut terminal =
        Terminal::start(dir.path(), 100, &[&USUAL[..], &[("STARLIFT_LOG", "info")]].concat(), &arguments);
    let is_half_done = |text: &str| strip(text).contains('█') && strip(text).contains('>');
    let text = terminal.until("a committed task", is_half_done).await;
    assert!(text.contains(" INFO "), "log lines stand above the picture:\n{text}");
    assert_eq!(text.matches("RUNNING  Bob's job").count(), 1, "{text}");
    terminal.press_ctrl_c();
    assert_eq!(terminal.ended().await, Some(130));
    let text = terminal.text();
    assert!(!terminal.look(|shown| shown.emulator.screen().hide_cursor()));
    let line = text.split_once("To resume:\n").expect("it says how to resume").1.lines().next();
    let line = line.expect("the command has a line").trim().to_owned();
    assert!(line.ends_with("--slots 2"), "{line}");
    let loaded = target.count("dw.orders").await;
    assert!((1..u64::from(ROWS)).contains(&loaded), "{loaded} rows were loaded before:\n{text}");

    let resumed = paste(dir.path(), &line).await.succeeded();
    assert!(resumed.stderr.contains("resuming job"), "{resumed:?}");
    assert!(resumed.stdout.contains("Records read        : 6,000\n"), "{resumed:?}");
    assert_eq!(target.count("dw.ran WHERE n = 7").await, 1, "a preSql that had completed was run again");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_a_watch_leaves_the_job_alone() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    let mut cluster = Cluster::start(&datasources(&source, &target), 1, 2).await;
    target.fault(json!({ "op": "prepare", "count": null, "do": "hold" })).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    let dir = workspace(&[]);
    // Another locale has other shapes.
    let variables = [("NO_COLOR", ""), ("TERM", "xterm"), ("LC_ALL", "C")];
    let arguments = ["watch", &job_id, "--coordinator", &cluster.url()];
    let mut terminal = Terminal::start(dir.path(), 80, &variables, &arguments);
    let text = terminal.until("both tasks to run", |text| text.contains("> 2 running")).await;
    assert!(text.contains(&">".repeat(60)) && text.contains(" transfer "), "{text}");
    assert!(text.is_ascii(), "{text}");
    cluster.coordinator.kill();
    let text = terminal.until("that it is away", |text| text.contains("no word from the coordinator")).await;
    assert!(text.contains("> 2 running"), "{text}");
    cluster.restart_coordinator().await;
    terminal.until("that it is back", |text| !text.contains("no word from the coordinator")).await;
    terminal.until("both tasks to run still", |text| text.contains("> 2 running")).await;
    terminal.press_ctrl_c();
    assert_eq!(terminal.ended().await, Some(130));
    let text = terminal.text();
    assert!(!text.contains(">>>"), "the picture is still there:\n{text}");
    let line = text.split_once("the job goes on; follow it with: ").expect("it says how to follow").1;
    assert_eq!(cluster.status(&job_id).await["state"], "RUNNING");

    target.clear_faults().await;
    let followed = paste(dir.path(), line.trim()).await.succeeded();
    assert!(followed.stdout.contains(&format!("job {job_id} (job): SUCCEEDED")), "{followed:?}");
    assert_eq!(target.count("dw.orders").await, u64::from(ROWS));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_plain_lines_gets_no_codes() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    fill_source(&source, 500).await;
    create_target(&target).await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(json!({ "preSql": ["truncate table @table"] }), json!({}));
    let file = write_job(dir.path(), &script).display().to_string();
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let variables = [&USUAL[..], &[plain, ("STARLIFT_LOG", "info")]].concat();
        let mut terminal = Terminal::start(dir.path(), 100, &variables, &["run", &file]);
        assert_eq!(terminal.ended().await, Some(0), "{plain:?}");
        let all = terminal.all();
        assert!(!all.contains('\u{1b}'), "{plain:?}: {all:?}");
        assert!(all.contains("SUCCEEDED  500") && all.contains(" INFO "), "{plain:?}: {all}");
    }
    let mut piped = starlift(dir.path());
    piped.env_remove("NO_COLOR").env("TERM", "xterm-256color").args(["run", &file]);
    let piped = Outcome::from(output(piped).await).succeeded();
    assert!(!format!("{}{}", piped.stdout, piped.stderr).contains('\u{1b}'), "{piped:?}");
    assert!(piped.stderr.contains("SUCCEEDED  500") && piped.stderr.contains(" INFO "), "{piped:?}");
}
