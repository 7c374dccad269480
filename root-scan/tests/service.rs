//! The real binary, activated as systemd does it, on a real `/proc` and a state directory of the test's.
//!
//! Each test runs itself again in a PID namespace of its own, so that no process of the machine can disturb it (containers
//! have some that even root may not look at, and the scanner rightly refuses then). That needs root, as CI has.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix_root_scan::answer::END;
use nix_root_scan::store_path::{PREFIX, StorePath};

const BINARY: &str = env!("CARGO_BIN_EXE_nix-root-scan");

/// A socket, a state directory, and the scanner between them.
struct Service {
    top: tempfile::TempDir,
    listener: UnixListener,
    child: Child,
}

impl Service {
    fn start() -> Self {
        let top = tempfile::tempdir().unwrap();
        for directory in ["state/gcroots/auto", "state/profiles", "home", "memory"] {
            fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        let listener = UnixListener::bind(top.path().join("socket")).unwrap();
        let child = spawn(&listener, top.path());
        Self { top, listener, child }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.top.path().join("socket")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Asks as the daemon does.
    fn ask(&self) -> Option<BTreeSet<String>> {
        let mut answer = Vec::new();
        self.connect().read_to_end(&mut answer).unwrap();
        as_nix_reads(&answer)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn again(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.child = spawn(&self.listener, self.top.path());
    }

    fn root(&self, name: &str, base: &str) {
        symlink(format!("/nix/store/{base}"), self.top.path().join("state/gcroots").join(name)).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the test of this name alone in a new PID namespace, unless that is where we are. Returns whether the caller is done.
fn isolated(test: &str) -> bool {
    const INSIDE: &str = "NIX_ROOT_SCAN_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    assert_eq!(
        fs::metadata("/proc/self").unwrap().uid(),
        0,
        "this test needs root: the scanner refuses without its capabilities"
    );
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare (util-linux) is needed");
    assert!(status.success(), "{test} failed in its namespace: see above");
    true
}

/// The shell puts the socket at 3 and says so, with the process id that exec keeps.
fn spawn(listener: &UnixListener, top: &Path) -> Child {
    fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let script = format!(
        "exec 3<&{}; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" --state-dir \"$1\" --memory \"$3\" 2>>\"$2\"",
        listener.as_raw_fd()
    );
    let child = Command::new("/bin/sh")
        .args(["-c", &script, BINARY])
        .args([top.join("state"), top.join("log"), top.join("memory")])
        .spawn()
        .unwrap();
    fcntl(listener, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    child
}

fn as_nix_reads(answer: &[u8]) -> Option<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for line in answer.split(|byte| *byte == 0) {
        if line.is_empty() {
            break;
        }
        let path = StorePath::from_base_name(line.strip_prefix(PREFIX)?)?;
        found.insert(String::from_utf8(path.base_name().to_vec()).unwrap());
    }
    Some(found)
}

fn base(number: usize) -> String {
    format!("{number:032}-planted")
}

fn end() -> String {
    String::from_utf8(END[..END.len() - 1].to_vec()).unwrap()
}

/// A process that holds something; it dies with the value.
struct Holder(Child);

impl Holder {
    fn new(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 1];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const READY: &str = "echo; exec /bin/sleep 1000";

#[test]
fn each_kind_of_root_is_reported() {
    if isolated("each_kind_of_root_is_reported") {
        return;
    }
    let service = Service::start();
    let top = service.top.path();
    service.root("direct", &base(1));
    let home = top.join("home");
    symlink(format!("/nix/store/{}", base(2)), home.join("result")).unwrap();
    symlink(home.join("result"), top.join("state/gcroots/auto/x")).unwrap();
    chown(&home, Some(12345), Some(12345)).unwrap();
    fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();

    // Another mount of a store looks like this; it saves the test from writing to the machine's own.
    let store = top.join("mnt/nix/store");
    let inside = |number: usize| -> PathBuf {
        let path = store.join(base(number));
        fs::create_dir_all(&path).unwrap();
        path
    };
    let shell = |script: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    };
    let cwd = Holder::new(shell(READY).current_dir(inside(3)));
    let file = inside(4).join("with space");
    fs::write(&file, "").unwrap();
    let fd = Holder::new(&mut shell(&format!("exec 9<'{}'; {READY}", file.display())));
    fs::remove_file(&file).unwrap();
    let environ = Holder::new(shell(READY).env("X", format!("a:/nix/store/{}/bin:b", base(5))));
    let program = inside(6).join("sh (odd)");
    fs::copy("/bin/sh", &program).unwrap();
    // Waits for input that never comes, so that the shell itself stays.
    let exe = Holder::new(Command::new(&program).args(["-c", "echo; read x"]).stdin(Stdio::piped()));
    fs::remove_file(&program).unwrap();

    // A thread with a directory and files of its own.
    let (directory, file) = (inside(7), inside(8).join("file"));
    fs::write(&file, "").unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_FILES).unwrap();
        std::env::set_current_dir(directory).unwrap();
        let _file = fs::File::open(file).unwrap();
        ready.send(()).unwrap();
        let _ = wait.recv();
    });
    is_ready.recv().unwrap();

    let found = service.ask().expect("an answer without doubt");
    for (number, what) in [
        (1, "direct link"),
        (2, "indirect link behind 0700"),
        (3, "cwd"),
        (4, "fd"),
        (5, "environ"),
        (6, "exe, maps"),
        (7, "cwd of a thread"),
        (8, "fd of a thread"),
    ] {
        assert!(found.contains(&base(number)), "{what} is missing");
    }
    assert!(found.contains(&end()));
    drop(done);
    thread.join().unwrap();
    let found = service.ask().unwrap();
    assert!(!found.contains(&base(7)) && !found.contains(&base(8)), "the thread is gone");

    let listed =
        Command::new(BINARY).args(["--print", "--state-dir"]).arg(top.join("state")).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    for (number, place) in [
        (1, top.join("state/gcroots/direct").display().to_string()),
        (2, format!("{} -> {}", top.join("state/gcroots/auto/x").display(), home.join("result").display())),
        (3, format!("/proc/{}/cwd", cwd.0.id())),
        (4, format!("/proc/{}/fd/9", fd.0.id())),
        (5, format!("/proc/{}/environ", environ.0.id())),
        (6, format!("/proc/{}/exe", exe.0.id())),
        (6, format!("/proc/{}/maps", exe.0.id())),
    ] {
        let line = format!("/nix/store/{}\t{place}\n", base(number));
        assert!(listed.contains(&line), "no line {line:?}");
    }
}

/// A home with a `result` that `auto` knows; returns the link.
fn home_with_result(top: &Path, name: &str, number: usize) -> PathBuf {
    let result = top.join("home").join(name).join("result");
    fs::create_dir_all(result.parent().unwrap()).unwrap();
    symlink(format!("/nix/store/{}", base(number)), &result).unwrap();
    symlink(&result, top.join("state/gcroots/auto").join(name)).unwrap();
    result
}

fn mount_tmpfs(at: &Path) {
    fs::create_dir_all(at).unwrap();
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

#[test]
fn a_root_in_a_home_that_is_not_mounted_stays() {
    if isolated("a_root_in_a_home_that_is_not_mounted_stays") {
        return;
    }
    let mut service = Service::start();
    let top = service.top.path().to_owned();
    let alice = top.join("home/alice");
    mount_tmpfs(&alice);
    home_with_result(&top, "alice", 1);
    let deleted = home_with_result(&top, "bob-project", 2);
    let found = service.ask().unwrap();
    assert!(found.contains(&base(1)) && found.contains(&base(2)));
    umount(&alice).unwrap();
    fs::remove_dir_all(deleted.parent().unwrap()).unwrap();
    assert!(alice.exists(), "the mount point stays, and is empty");
    for what in ["not mounted", "the daemon removed its link", "another process", "no mount point"] {
        match what {
            "the daemon removed its link" => fs::remove_file(top.join("state/gcroots/auto/alice")).unwrap(),
            "another process" => service.again(),
            "no mount point" => fs::remove_dir(&alice).unwrap(),
            _ => {}
        }
        let found = service.ask().unwrap();
        assert!(found.contains(&base(1)), "{what}");
        assert!(!found.contains(&base(2)), "a directory that was removed is no root");
    }
    let memory = fs::read_to_string(top.join("memory/remembered")).unwrap();
    assert!(memory.contains(&base(1)) && !memory.contains(&base(2)), "{memory}");
    let mode = fs::metadata(top.join("memory/remembered")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);

    let run = |arguments: &[&str]| {
        let output =
            Command::new(BINARY).arg("--memory").arg(top.join("memory")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = run(&["--list-remembered"]);
    assert!(listed.starts_with(&format!("/nix/store/{}\tremembered\t0\t", base(1))), "{listed}");
    let all = run(&["--roots", "--state-dir", top.join("state").to_str().unwrap()]);
    assert!(all.contains(&listed), "{all}");
    assert_eq!(run(&["--forget-older-than", "1"]), "0 forgotten\n");
    let memory = fs::read_to_string(top.join("memory/remembered")).unwrap();

    // Mounted again, with another result and without the daemon's link.
    mount_tmpfs(&alice);
    symlink(format!("/nix/store/{}", base(3)), alice.join("result")).unwrap();
    let found = service.ask().unwrap();
    assert!(found.contains(&base(3)) && !found.contains(&base(1)));
    // And deleted by its owner.
    fs::remove_file(alice.join("result")).unwrap();
    assert!(!service.ask().unwrap().contains(&base(3)));
    umount(&alice).unwrap();
    assert!(!service.ask().unwrap().contains(&base(3)));

    fs::write(top.join("memory/remembered"), memory.replace("alice", "alicf")).unwrap();
    assert_eq!(service.ask(), None, "a damaged memory is a doubt");
    fs::write(top.join("memory/remembered"), memory).unwrap();
    assert!(service.ask().unwrap().contains(&base(1)));
    assert_eq!(run(&["--forget", alice.join("result").to_str().unwrap()]), "1 forgotten\n");
    assert!(!service.ask().unwrap().contains(&base(1)), "the administrator let it go");
}

/// As the timer does it.
#[test]
fn started_without_a_client_it_remembers() {
    if isolated("started_without_a_client_it_remembers") {
        return;
    }
    let mut service = Service::start();
    let top = service.top.path().to_owned();
    home_with_result(&top, "alice", 1);
    service.again();
    let end = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(top.join("memory/remembered")).is_ok_and(|text| text.contains(&base(1))) {
        assert!(Instant::now() < end, "{:?}", fs::read_to_string(top.join("log")));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(service.ask().unwrap().contains(&base(1)), "and serves clients");
}

#[test]
fn a_hung_mount_blocks_no_scan() {
    if isolated("a_hung_mount_blocks_no_scan") {
        return;
    }
    let service = Service::start();
    let top = service.top.path();
    for number in 1..=3 {
        let result = top.join(format!("home/alice/{number}"));
        fs::create_dir_all(top.join("home/alice")).unwrap();
        symlink(format!("/nix/store/{}", base(number)), &result).unwrap();
        symlink(&result, top.join(format!("state/gcroots/auto/{number}"))).unwrap();
    }
    home_with_result(top, "bob", 4);
    assert!(service.ask().unwrap().contains(&base(1)));
    // A FUSE file system whose server never says a word.
    let server = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let alice = top.join("home/alice");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", server.as_raw_fd());
    mount(Some("silent"), &alice, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let began = Instant::now();
    let found = service.ask().unwrap();
    let took = began.elapsed();
    assert!((1..=4).all(|number| found.contains(&base(number))), "{found:?}");
    assert!(took < Duration::from_secs(12), "one wait for three roots and two rounds, but {took:?}");
    assert!(took > Duration::from_secs(3), "nothing hung: {took:?}");
    println!("with a hung mount: {took:?}");
    // What was never seen may be anything.
    symlink(alice.join("new"), top.join("state/gcroots/auto/new")).unwrap();
    home_with_result(top, "carol", 5);
    assert_eq!(service.ask(), None);
    let log = fs::read_to_string(top.join("log")).unwrap();
    let new =
        format!("{} points to {}", top.join("state/gcroots/auto/new").display(), alice.join("new").display());
    assert!(log.contains("no answer from") && log.contains(&new) && log.contains("remove "), "{log}");
    let memory = fs::read_to_string(top.join("memory/remembered")).unwrap();
    assert!(memory.contains(&base(5)), "what could be seen is remembered all the same: {memory}");
    drop(server);
    umount2(&alice, MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_helper_that_dies_costs_no_root() {
    if isolated("a_helper_that_dies_costs_no_root") {
        return;
    }
    let service = Service::start();
    let top = service.top.path().to_owned();
    for number in 1..=1000 {
        home_with_result(&top, &format!("u{number}"), number);
    }
    let (mut complete, mut killed) = (0, 0);
    for round in 0..20 {
        let mut stream = service.connect();
        std::thread::sleep(Duration::from_millis(10 * round));
        let children = format!("/proc/{0}/task/{0}/children", service.child.id());
        for pid in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            killed += usize::from(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok());
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        if let Some(found) = as_nix_reads(&answer) {
            complete += 1;
            assert!((1..=1000).all(|number| found.contains(&base(number))), "round {round}");
        }
    }
    println!("{killed} helpers killed, {complete} complete answers of 20");
    assert!(killed > 0 && complete > 0);
}

#[test]
fn a_doubt_refuses_and_does_not_last() {
    if isolated("a_doubt_refuses_and_does_not_last") {
        return;
    }
    let service = Service::start();
    let profiles = service.top.path().join("state/profiles");
    fs::remove_dir(&profiles).unwrap();
    assert_eq!(service.ask(), None);
    let log = fs::read_to_string(service.top.path().join("log")).unwrap();
    assert!(log.contains("state/profiles"), "the log names the cause: {log}");
    fs::create_dir(&profiles).unwrap();
    assert!(service.ask().unwrap().contains(&end()));
}

#[test]
fn without_capabilities_it_refuses() {
    if isolated("without_capabilities_it_refuses") {
        return;
    }
    let service = Service::start();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-all"])
        .args([BINARY, "--print", "--state-dir"])
        .arg(service.top.path().join("state"))
        .output()
        .expect("setpriv (util-linux) is needed");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("CAP_SYS_PTRACE"), "{error}");
}

/// The property that matters: an answer that Nix believes is whole. Kills come at every stage of it.
#[test]
fn killed_at_any_time_it_is_never_believed() {
    if isolated("killed_at_any_time_it_is_never_believed") {
        return;
    }
    let mut service = Service::start();
    let planted: BTreeSet<String> = (1..=1000).map(base).collect();
    for (number, base) in planted.iter().enumerate() {
        service.root(&number.to_string(), base);
    }
    let timed = |_| {
        let began = Instant::now();
        assert!(service.ask().unwrap().is_superset(&planted));
        began.elapsed()
    };
    let whole = (0..5).map(timed).min().unwrap();
    let (mut believed, mut refused) = (0, 0);
    // On a machine that became busy meanwhile, a whole answer takes longer than it did: later and later.
    for round in 0..600 {
        if round >= 150 && believed >= 10 {
            break;
        }
        let mut stream = service.connect();
        let mut answer = vec![0; PREFIX.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, PREFIX, "the connection fails closed from the start");
        std::thread::sleep(whole * round / 75);
        service.signal(nix::sys::signal::Signal::SIGKILL);
        stream.read_to_end(&mut answer).unwrap();
        match as_nix_reads(&answer) {
            Some(found) => {
                believed += 1;
                assert!(found.is_superset(&planted) && found.contains(&end()), "roots were lost");
            }
            None => refused += 1,
        }
        service.again();
    }
    println!("{refused} answers refused, {believed} complete; one takes {whole:?}");
    assert!(refused >= 10 && believed >= 10, "the kills came all too early or too late to show anything");
}

#[test]
fn a_polite_signal_waits_for_the_answer() {
    if isolated("a_polite_signal_waits_for_the_answer") {
        return;
    }
    let mut service = Service::start();
    service.root("direct", &base(1));
    let mut stream = service.connect();
    let mut answer = vec![0; PREFIX.len()];
    stream.read_exact(&mut answer).unwrap();
    service.signal(nix::sys::signal::Signal::SIGTERM);
    stream.read_to_end(&mut answer).unwrap();
    assert!(as_nix_reads(&answer).unwrap().contains(&base(1)));
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(service.child.wait().unwrap().signal(), Some(15));
    // Who comes now waits in the socket's queue for the next scanner.
    let mut waiting = service.connect();
    service.again();
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).unwrap();
    assert!(as_nix_reads(&answer).unwrap().contains(&base(1)));
}

#[test]
fn a_client_that_never_reads_holds_up_no_other_for_long() {
    if isolated("a_client_that_never_reads_holds_up_no_other_for_long") {
        return;
    }
    let service = Service::start();
    for number in 1..=8000 {
        service.root(&number.to_string(), &base(number));
    }
    let mut lazy = service.connect();
    let began = Instant::now();
    assert!(service.ask().unwrap().contains(&base(8000)));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let mut answer = Vec::new();
    lazy.read_to_end(&mut answer).unwrap();
    assert_eq!(as_nix_reads(&answer), None, "the lazy client got a part, and must not believe it");
}

#[test]
fn usage_is_told_and_hostile_arguments_are_escaped() {
    for (arguments, code) in
        [(&["--help"][..], 0), (&[], 2), (&["--state-dir"], 2), (&["--state-dir", "x"], 2), (&["\x1b[2J"], 2)]
    {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let mut text = output.stdout;
        text.write_all(&output.stderr).unwrap();
        assert!(String::from_utf8(text.clone()).unwrap().contains("Usage:"), "{arguments:?}");
        assert!(!text.contains(&0x1b));
    }
}
