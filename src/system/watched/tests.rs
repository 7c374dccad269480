use std::io::Seek;

use super::*;
use crate::system::command::clean;

const SHORT: Duration = Duration::from_millis(300);

fn said(script: &str, input: &[u8], limits: Limits<'_>) -> Result<String, ChildError> {
    let answer = answer(clean("sh").args(["-c", script]), input.to_vec(), limits)?;
    Ok(String::from_utf8(answer).unwrap())
}

fn kind(result: Result<String, ChildError>) -> io::ErrorKind {
    match result {
        Err(ChildError::Ended(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

fn is_there(marker: &str) -> bool {
    clean("pgrep").args(["-fx", marker]).stdout(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_child_that_hangs_or_floods_or_is_not_wanted_is_ended() {
    let began = Instant::now();
    let minutes = Limits::of_time(Duration::from_secs(300));
    assert_eq!(kind(said("sleep 300", b"", Limits::of_time(SHORT))), io::ErrorKind::TimedOut);
    assert_eq!(kind(said("exec >&- 2>&-; sleep 300", b"", Limits::of_time(SHORT))), io::ErrorKind::TimedOut);
    let flood = "trap '' PIPE; while :; do echo yes; done";
    assert_eq!(kind(said(flood, b"", Limits { output: 100, ..minutes })), io::ErrorKind::FileTooLarge);
    let complaints = "while :; do echo no >&2; done";
    assert_eq!(kind(said(complaints, b"", Limits::of_time(SHORT))), io::ErrorKind::TimedOut);
    let cancelled = AtomicBool::new(true);
    assert_eq!(kind(said("sleep 300", b"", minutes.until(&cancelled))), io::ErrorKind::Interrupted);
    // More than a pipe holds, and nobody reads it.
    let question = vec![b'x'; 1 << 20];
    assert_eq!(kind(said("sleep 300", &question, Limits::of_time(SHORT))), io::ErrorKind::TimedOut);
    assert_eq!(kind(said("exit 0", &question, minutes)), io::ErrorKind::BrokenPipe);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&question).unwrap();
    file.rewind().unwrap();
    let stuck = answer(clean("sleep").arg("300"), file.try_clone().unwrap(), Limits::of_time(SHORT));
    assert!(
        matches!(&stuck, Err(ChildError::Ended(error)) if error.kind() == io::ErrorKind::TimedOut),
        "{stuck:?}"
    );
    // From where it is: what the pipe holds is gone.
    let rest = answer(clean("wc").arg("-c"), file, minutes).unwrap();
    let rest: usize = String::from_utf8(rest).unwrap().trim().parse().unwrap();
    assert!(rest < question.len() && rest > 0, "{rest}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn only_the_beginning_of_what_a_child_complains_is_kept() {
    let limits = Limits::of_time(Duration::from_secs(60));
    let mut child = clean("sh");
    child.args(["-c", "head -c 3000000 /dev/zero >&2; echo end"]).stderr(Stdio::piped());
    let (output, _) = Watched::start(&mut child, Vec::new(), limits.output).unwrap().end(limits).unwrap();
    assert_eq!((output.stderr.len(), output.stdout.as_slice()), (COMPLAINT_LIMIT, &b"end\n"[..]));
}

#[test]
fn an_answer_is_whole_and_a_refusal_is_printable() {
    let limits = Limits::of_time(Duration::from_secs(60));
    let question = "question\n".repeat(100_000);
    assert_eq!(said("cat", question.as_bytes(), limits).unwrap(), question);
    let error = said(r"printf 'no: \033[2Jx\007y\nmore\n' >&2; exit 3", b"", limits).unwrap_err();
    assert_eq!(error.to_string(), "no: x?y\nmore");
    assert_eq!(said("exit 3", b"", limits).unwrap_err().to_string(), "exit status: 3");
}

/// What the child makes of half its input is not what is wrong.
#[test]
fn an_input_that_cannot_be_read_is_told() {
    let limits = Limits::of_time(Duration::from_secs(60));
    // As a disk's error: reading a directory fails.
    for script in ["cat >/dev/null", "cat >/dev/null; echo damaged >&2; exit 1"] {
        let unread = answer(clean("sh").args(["-c", script]), File::open("/").unwrap(), limits).unwrap_err();
        assert!(unread.to_string().contains("Is a directory"), "{unread}");
    }
}

/// The pipe of one that is killed would end what writes to it.
#[test]
fn what_is_to_end_by_itself_writes_to_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let words = dir.path().join("words");
    let run = |script: &str| to_the_end(clean("sh").args(["-c", script]), &words);
    run("test -f /proc/self/fd/2 && test ! -p /proc/self/fd/1").unwrap();
    assert_eq!(run("echo unheard; echo no >&2; exit 3").unwrap_err().to_string(), "no");
    assert_eq!(run("exit 3").unwrap_err().to_string(), "exit status: 3");
}

#[test]
fn one_that_serves_is_asked_to_end_and_one_that_does_not_is_heard() {
    let start = |script: &str| {
        Watched::start(clean("sh").args(["-c", script]).stderr(Stdio::piped()), Vec::new(), 0).unwrap()
    };
    let mut serves = start("while :; do echo busy; done");
    assert_eq!(serves.ended(), None);
    serves.terminate();
    let mut fails = start(r"printf 'no \033[2Jsocket\n' >&2; exit 3");
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match fails.ended() {
            Some(status) => break status,
            None if Instant::now() > deadline => panic!("it goes on"),
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    assert_eq!((status.code(), fails.complaint().as_str()), (Some(3), "no socket"));
    fails.terminate();
}

#[test]
fn what_a_child_leaves_running_is_ended_with_it() {
    for (leaves_nothing, seconds) in [(true, 3101), (false, 3102)] {
        let marker = format!("sleep {seconds}{}", std::process::id());
        let limits = Limits { leaves_nothing, ..Limits::of_time(Duration::from_secs(60)) };
        let pid = said(&format!("{marker} >&- 2>&- & echo $!"), b"", limits).unwrap();
        // A killed process is in the table until it is reaped, by whoever adopted it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_there(&marker) && leaves_nothing && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(is_there(&marker), !leaves_nothing, "{marker}");
        if !leaves_nothing {
            nix::sys::signal::kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        }
    }
}
