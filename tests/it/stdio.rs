//! The life of a wrapped server: what it is given, how it ends, and that nothing of it is left.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process, test_kill_process},
};

use crate::support::program::{Home, Wrapped, until};

/// The time in which everything has to be over once stdin has ended.
const AFTER_STDIN: Duration = Duration::from_secs(2);

const ALLOW_ALL: &str = "version: 1\ndefault: allow\n";

/// A server in the shell: answers each line with its number as the result's `n`.
const COUNTING: &str = r#"n=0; while read -r line; do n=$((n+1)); echo "{\"jsonrpc\":\"2.0\",\"id\":$n,\"result\":{\"n\":$n}}"; done"#;

/// `holdshort run` over a shell script.
fn wrap(home: &Home, policy: &str, script: &str) -> Command {
    let policy = home.file("policy.yaml", policy);
    let mut command = home.command();
    command.args(["run", "--server", "test", "--policy"]).arg(policy).args(["--", "sh", "-c", script]);
    command
}

/// The number that `script` writes into the file named by `$PID_FILE`.
fn pid_in(file: &Path) -> Pid {
    let text = until(|| fs::read_to_string(file).ok().filter(|text| text.ends_with('\n')));
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

fn is_gone(pid: Pid) -> bool {
    // A zombie that nobody has waited for is gone as well.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_err() || stat.contains(") Z ")
}

fn call(id: u32, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#
    )
}

#[test]
fn a_server_that_ends_with_its_stdin_ends_in_peace() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, ALLOW_ALL, &format!("{COUNTING}; exit 3")));
    assert_eq!(wrapped.ask(&call(1, "safe"))["result"]["n"], 1);
    wrapped.close();
    let (status, took) = wrapped.ends();
    assert_eq!(status.code(), Some(3), "the server's own status");
    assert!(took < AFTER_STDIN, "{took:?}");
    assert!(wrapped.says_no_more());
}

#[test]
fn what_a_server_says_after_the_end_of_its_stdin_is_still_told() {
    let home = Home::new();
    let script = r#"read -r line; while read -r more; do :; done; echo '{"jsonrpc":"2.0","id":1,"result":{"late":true}}'"#;
    let mut wrapped = Wrapped::start(wrap(&home, ALLOW_ALL, script));
    wrapped.send(&call(1, "safe"));
    wrapped.close();
    assert_eq!(wrapped.receive()["result"]["late"], true);
    assert_eq!(wrapped.ends().0.code(), Some(0));
}

#[test]
fn a_server_that_ignores_the_end_of_its_stdin_and_sigterm_is_killed_in_time() {
    let home = Home::new();
    let pid_file = home.path().join("pid");
    let script = "trap '' TERM; echo $$ > \"$PID_FILE\"; while :; do sleep 0.05; done";
    let mut command = wrap(&home, ALLOW_ALL, script);
    command.env("PID_FILE", &pid_file);
    let mut wrapped = Wrapped::start(command);
    let server = pid_in(&pid_file);
    wrapped.close();
    let (status, took) = wrapped.ends();
    assert_eq!(status.code(), Some(128 + 9));
    assert!(took < AFTER_STDIN, "{took:?}");
    assert!(is_gone(server));
}

#[test]
fn a_server_that_does_not_read_cannot_keep_the_wrapper_alive() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, ALLOW_ALL, "exec sleep 300"));
    let filler = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"t":"{}"}}}}"#,
        "x".repeat(300_000)
    );
    wrapped.send(&filler);
    wrapped.close();
    assert!(wrapped.ends().1 < AFTER_STDIN);
}

/// Writes into the wrapper's stdin until it takes no more, and goes away: a client that dies in mid-stream.
fn flood_and_die(wrapped: &mut Wrapped) {
    let stdin = wrapped.take_stdin();
    let flags = rustix::fs::fcntl_getfl(&stdin).unwrap();
    rustix::fs::fcntl_setfl(&stdin, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{{\"t\":\"{}\"}}}}\n",
        "x".repeat(1000)
    );
    let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    let takes_more = || {
        let mut polled = [PollFd::new(&stdin, PollFlags::OUT)];
        poll(&mut polled, Some(&patience)).unwrap() > 0
    };
    while takes_more() {
        let _ = rustix::io::write(&stdin, line.as_bytes());
    }
}

#[test]
fn a_client_that_dies_behind_a_server_that_does_not_read_is_seen_and_its_call_never_runs() {
    let home = Home::new();
    let seen = home.path().join("seen");
    let go = home.path().join("go");
    let script = "while [ ! -e \"$GO\" ]; do sleep 0.05; done; cat > \"$SEEN\"";
    let policy = "version: 1\ndefault: hold\n";
    let mut command = wrap(&home, policy, script);
    command.env("SEEN", &seen).env("GO", &go);
    let mut wrapped = Wrapped::start(command);
    wrapped.send(&call(1, "danger"));
    let id = home.wait_for_holds(1).remove(0);
    flood_and_die(&mut wrapped);
    let began = Instant::now();
    until(|| (home.holds()[0]["attached"] == false).then_some(()));
    assert!(home.holdshort(["approve", &id]).status.success(), "for whoever comes back");
    wrapped.ends();
    assert!(began.elapsed() < AFTER_STDIN + Duration::from_millis(500), "{:?}", began.elapsed());
    let seen = fs::read_to_string(&seen).unwrap_or_default();
    assert!(!seen.contains("danger"), "the call never ran");
}

#[test]
fn a_slow_client_gets_all_that_a_server_wrote_before_it_ended() {
    let home = Home::new();
    let pid_file = home.path().join("pid");
    let script = r#"echo $$ > "$PID_FILE"; i=0; while [ $i -lt 1500 ]; do i=$((i+1)); printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"n":%s,"t":"%0100d"}}\n' $i 0; done"#;
    let mut command = wrap(&home, ALLOW_ALL, script);
    command.env("PID_FILE", &pid_file);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = process.stdout.take().unwrap();
    // Nothing is read before the server has ended: its output waits in the wrapper.
    let server = pid_in(&pid_file);
    until(|| is_gone(server).then_some(()));
    let mut all = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut all).unwrap();
    assert_eq!(all.lines().count(), 1500);
    assert!(all.ends_with("}\n"), "no line is cut");
    assert!(process.wait().unwrap().success());
}

#[test]
fn programs_that_a_server_leaves_behind_end_with_it() {
    let home = Home::new();
    let pid_file = home.path().join("pid");
    let mut command = wrap(&home, ALLOW_ALL, "sleep 300 & echo $! > \"$PID_FILE\"; read -r line; exit 0");
    command.env("PID_FILE", &pid_file);
    let mut wrapped = Wrapped::start(command);
    let grandchild = pid_in(&pid_file);
    wrapped.close();
    let (status, took) = wrapped.ends();
    assert_eq!(status.code(), Some(0));
    assert!(took < AFTER_STDIN, "{took:?}");
    assert!(is_gone(grandchild));
}

#[test]
fn a_program_that_a_server_has_set_free_keeps_neither_the_client_nor_the_wrapper_waiting() {
    let home = Home::new();
    let go = home.path().join("go");
    // It holds the server's stdout open, and is in no group that anybody here could end.
    let script = r#"setsid sleep 15 2>/dev/null & while [ ! -e "$GO" ]; do sleep 0.02; done; yes '{"jsonrpc":"2.0","method":"notifications/x"}' | head -n 2000; exit 3"#;
    let mut command = wrap(&home, "version: 1\ndefault: hold\n", script);
    command.env("GO", &go);
    let mut wrapped = Wrapped::start(command);
    wrapped.send(&call(1, "danger"));
    home.wait_for_holds(1);
    fs::write(&go, "").unwrap();
    let began = Instant::now();
    for _ in 0..2000 {
        assert_eq!(wrapped.receive()["method"], "notifications/x", "what it has written is told");
    }
    let answer = wrapped.receive();
    assert_eq!(answer["result"]["_meta"]["dev.holdshort/decision"]["state"], "pending", "{answer}");
    assert_eq!(wrapped.ends().0.code(), Some(3));
    assert!(began.elapsed() < AFTER_STDIN, "{:?}", began.elapsed());
    home.verify();
}

#[test]
fn a_wrapper_that_is_killed_leaves_no_orphan() {
    let home = Home::new();
    let (server_file, grandchild_file) = (home.path().join("server"), home.path().join("grandchild"));
    let script = format!(
        "trap '' TERM; echo $$ > \"$SERVER_FILE\"; sleep 300 & echo $! > \"$GRANDCHILD_FILE\"; {COUNTING}; while :; do sleep 0.05; done"
    );
    let mut command = wrap(&home, ALLOW_ALL, &script);
    command.env("SERVER_FILE", &server_file).env("GRANDCHILD_FILE", &grandchild_file);
    let mut wrapped = Wrapped::start(command);
    let (server, grandchild) = (pid_in(&server_file), pid_in(&grandchild_file));
    assert_eq!(wrapped.ask(&call(1, "safe"))["result"]["n"], 1, "the session runs");
    wrapped.process.kill().unwrap();
    until(|| (is_gone(server) && is_gone(grandchild)).then_some(()));
}

#[test]
fn signals_reach_the_server_and_its_status_comes_back() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let home = Home::new();
        let pid_file = home.path().join("pid");
        let script = "trap 'exit 41' TERM; trap 'exit 42' INT; trap 'exit 43' HUP; echo $$ > \"$PID_FILE\"; while :; do sleep 0.05; done";
        let mut command = wrap(&home, ALLOW_ALL, script);
        command.env("PID_FILE", &pid_file);
        let mut wrapped = Wrapped::start(command);
        pid_in(&pid_file);
        let wrapper = Pid::from_raw(i32::try_from(wrapped.process.id()).unwrap()).unwrap();
        kill_process(wrapper, signal).unwrap();
        let expected = match number {
            15 => 41,
            2 => 42,
            _ => 43,
        };
        assert_eq!(wrapped.ends().0.code(), Some(expected), "signal {number}");
    }
}

/// `holdshort run` over a shell script, with a record in a database that takes connections and never says a word.
fn wrap_before_silence(home: &Home, script: &str) -> (Command, TcpListener) {
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = wrap(home, ALLOW_ALL, script);
    let port = database.local_addr().unwrap().port();
    command.env("HOLDSHORT_STORE", format!("postgres://holdshort@127.0.0.1:{port}/holdshort"));
    (command, database)
}

#[test]
fn a_record_that_does_not_answer_keeps_nothing_waiting_but_calls_of_tools() {
    let home = Home::new();
    let (command, _database) = wrap_before_silence(&home, COUNTING);
    let mut wrapped = Wrapped::start(command);
    let ping = |id: u32| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    let began = Instant::now();
    assert_eq!(wrapped.ask(&ping(1))["result"]["n"], 1);
    // What was accepted of the tool is not known yet.
    wrapped.send(&call(7, "safe"));
    assert_eq!(wrapped.ask(&ping(2))["result"]["n"], 2, "the call has not passed");
    assert!(began.elapsed() < AFTER_STDIN, "{:?}", began.elapsed());
    wrapped.close();
    let (status, took) = wrapped.ends();
    assert_eq!(status.code(), Some(0));
    assert!(took < AFTER_STDIN, "{took:?}");
}

#[test]
fn a_session_ends_in_time_although_its_record_has_never_answered() {
    let home = Home::new();
    let (command, _database) = wrap_before_silence(&home, COUNTING);
    let mut wrapped = Wrapped::start(command);
    wrapped.close();
    assert!(wrapped.ends().1 < AFTER_STDIN);
    let pid_file = home.path().join("pid");
    let (mut command, _database) = wrap_before_silence(&home, "echo $$ > \"$PID_FILE\"; exec sleep 300");
    command.env("PID_FILE", &pid_file);
    let mut wrapped = Wrapped::start(command);
    pid_in(&pid_file);
    kill_process(Pid::from_child(&wrapped.process), Signal::TERM).unwrap();
    let (status, took) = wrapped.ends();
    assert_eq!(status.code(), Some(128 + 15));
    assert!(took < AFTER_STDIN, "{took:?}");
}

#[test]
fn what_a_server_still_has_to_say_after_a_signal_is_told_and_its_status_comes_back() {
    let home = Home::new();
    let came = home.path().join("came");
    let script = r#"trap 'sleep 0.2; echo "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":1}}"; exit 7' TERM
        read -r line; touch "$CAME"; while :; do sleep 0.05; done"#;
    let mut command = wrap(&home, ALLOW_ALL, script);
    command.env("CAME", &came);
    let mut wrapped = Wrapped::start(command);
    wrapped.send(&call(1, "safe"));
    until(|| came.exists().then_some(()));
    kill_process(Pid::from_raw(i32::try_from(wrapped.process.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(wrapped.receive()["result"]["n"], 1, "the answer comes, as without a proxy");
    assert_eq!(wrapped.ends().0.code(), Some(7));
}

#[test]
fn a_server_that_no_longer_reads_gets_nothing_and_the_client_hears_so() {
    let home = Home::new();
    let closed = home.path().join("closed");
    let mut command = wrap(&home, ALLOW_ALL, "exec <&-; touch \"$CLOSED\"; sleep 20");
    command.env("CLOSED", &closed);
    let mut wrapped = Wrapped::start(command);
    until(|| closed.exists().then_some(()));
    for id in 1..=3 {
        let answer = wrapped.ask(&call(id, "safe"));
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id.into(), &(-32603).into()), "{answer}");
    }
    wrapped.close();
    assert!(wrapped.ends().1 < AFTER_STDIN);
}

/// So much memory the process may have in use, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_client_that_asks_for_large_results_again_and_again_and_reads_none_takes_little_memory() {
    const ASKS: u32 = 80;
    let home = Home::new();
    let script = r#"read -r line; id=$(printf '%s' "$line" | sed 's/.*"id":\("[^"]*"\).*/\1/')
        printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[],"padding":"%04000000d"}}\n' "$id" 0; cat > /dev/null"#;
    let mut command = wrap(&home, "version: 1\ndefault: hold\n", script);
    let mut process =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let mut stdout = BufReader::with_capacity(256, process.stdout.take().unwrap());
    let call =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{},"task":{}}}"#;
    writeln!(stdin, "{call}").unwrap();
    let mut begun = String::new();
    stdout.read_line(&mut begun).unwrap();
    let begun: serde_json::Value = serde_json::from_str(&begun).unwrap();
    let task = begun["result"]["task"]["taskId"].as_str().unwrap();
    let result = |id: u32| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tasks/result\",\"params\":{{\"taskId\":\"{task}\"}}}}\n"
        )
    };
    stdin.write_all(result(2).as_bytes()).unwrap();
    assert!(home.holdshort(["approve", &home.wait_for_holds(1)[0]]).status.success());
    let mut first = Vec::new();
    stdout.read_until(b'\n', &mut first).unwrap();
    assert!(first.len() > 4_000_000);
    for id in 10..10 + ASKS {
        stdin.write_all(result(id).as_bytes()).unwrap();
    }
    // It has read them all once it answers what comes after them.
    let pending =
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"other","arguments":{}}}"#;
    writeln!(stdin, "{pending}").unwrap();
    home.wait_for_holds(1);
    let resident = resident_kib(process.id());
    assert!(resident < 160 * 1024, "{resident} KiB, where {} KiB would be all answers", ASKS * 4000);
    let mut answered = 0;
    while answered < ASKS {
        let mut line = Vec::new();
        stdout.read_until(b'\n', &mut line).unwrap();
        answered += u32::from(line.len() > 4_000_000);
    }
    drop(stdin);
    process.wait().unwrap();
}

#[test]
fn a_server_that_dies_takes_the_session_with_it() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, ALLOW_ALL, "read -r line; kill -9 $$"));
    wrapped.send(&call(1, "safe"));
    assert!(wrapped.says_no_more(), "the client sees the end, as without a proxy");
    assert_eq!(wrapped.ends().0.code(), Some(128 + 9));
}

#[test]
fn when_a_server_dies_a_held_call_is_answered_and_recorded() {
    let home = Home::new();
    let policy = "version: 1\ndefault: hold\n";
    let mut wrapped =
        Wrapped::start(wrap(&home, policy, "while [ ! -e \"$GO\" ]; do sleep 0.02; done; exit 9"));
    drop(wrapped);
    let go = home.path().join("go");
    let mut command = wrap(&home, policy, "while [ ! -e \"$GO\" ]; do sleep 0.02; done; exit 9");
    command.env("GO", &go);
    wrapped = Wrapped::start(command);
    wrapped.send(&call(1, "danger"));
    home.wait_for_holds(1);
    fs::write(&go, "").unwrap();
    let answer = wrapped.receive();
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert_eq!(answer["result"]["_meta"]["dev.holdshort/decision"]["state"], "pending");
    assert_eq!(wrapped.ends().0.code(), Some(9));
    home.verify();
}

#[test]
fn environment_directory_and_stderr_are_the_clients() {
    let home = Home::new();
    let dir = home.path().join("work");
    fs::create_dir(&dir).unwrap();
    let mut command = wrap(&home, ALLOW_ALL, "pwd >&2; echo \"$SECRET\" >&2; env | sort >&2");
    command.env("SECRET", "s3cr3t").current_dir(&dir).stderr(Stdio::piped()).stdin(Stdio::null());
    // What is said to the gate alone, such as a password of the record.
    command.env("HOLDSHORT_STORE", home.path().join("elsewhere.db")).env("HOLDSHORT_WEBHOOK_SECRET", "0ur5");
    let expected = {
        let mut direct = Command::new("sh");
        direct.args(["-c", "env | sort"]).env("SECRET", "s3cr3t").env("HOME", home.path());
        for variable in ["XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
            direct.env_remove(variable);
        }
        direct.env("XDG_RUNTIME_DIR", home.path()).current_dir(&dir);
        String::from_utf8(direct.output().unwrap().stdout).unwrap()
    };
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let dir = fs::canonicalize(&dir).unwrap();
    assert!(stderr.starts_with(&format!("{}\ns3cr3t\n", dir.display())), "{stderr}");
    let given: Vec<_> = stderr.lines().skip(2).filter(|line| !line.starts_with("_=")).collect();
    let is_wanted = |line: &&str| !line.starts_with("_=") && !line.starts_with("HOLDSHORT_");
    let wanted: Vec<_> = expected.lines().filter(is_wanted).collect();
    assert_eq!(
        given, wanted,
        "nothing is added to the environment, and nothing is taken from it but what is ours"
    );
    assert!(output.stdout.is_empty(), "stdout belongs to the protocol");
}

#[test]
fn a_command_that_does_not_start_is_said_so() {
    let home = Home::new();
    let output = home.holdshort(["run", "--", "/nonexistent/server"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cannot start `/nonexistent/server`"), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_policy_that_cannot_be_read_starts_nothing() {
    let home = Home::new();
    let touched = home.path().join("touched");
    let mut command = wrap(&home, "version: 1\nrules:\n  - nmae: x\n", "touch \"$TOUCHED\"");
    let output = command.env("TOUCHED", &touched).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("policy.yaml:3"), "{stderr}");
    assert!(!touched.exists(), "the server was not started");
}

#[test]
fn without_a_policy_every_call_is_held_and_stderr_says_so() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["run", "--", "sh", "-c", COUNTING]).stderr(Stdio::piped());
    let mut wrapped = Wrapped::start(command);
    wrapped.send(&call(1, "anything"));
    let ids = home.wait_for_holds(1);
    assert!(home.holdshort(["approve", &ids[0]]).status.success());
    assert_eq!(wrapped.receive()["result"]["n"], 1);
    wrapped.close();
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut wrapped.process.stderr.take().unwrap(), &mut stderr).unwrap();
    assert!(stderr.contains("every call is held"), "{stderr}");
}

#[test]
fn what_a_server_prints_by_mistake_goes_to_nobody_and_breaks_nothing() {
    let home = Home::new();
    let script = format!("echo 'Server started'; printf '\\377\\376\\n'; {COUNTING}");
    let mut wrapped = Wrapped::start(wrap(&home, ALLOW_ALL, &script));
    assert_eq!(wrapped.ask(&call(1, "safe"))["result"]["n"], 1);
}

#[test]
fn a_server_that_floods_its_stdout_with_junk_still_gets_its_calls_and_its_end() {
    let home = Home::new();
    let seen = home.path().join("seen");
    let script = format!("yes junk & while read -r line; do echo \"$line\" >> {}; done", seen.display());
    let mut wrapped = Wrapped::start(wrap(&home, ALLOW_ALL, &script));
    for id in 1..=3 {
        wrapped.send(&call(id, "safe"));
        until(|| fs::read_to_string(&seen).ok().filter(|text| text.lines().count() == id as usize));
    }
    wrapped.close();
    let (_, took) = wrapped.ends();
    assert!(took < AFTER_STDIN, "{took:?}");
}

#[test]
fn a_line_longer_than_the_limit_is_refused_and_the_next_one_read() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, ALLOW_ALL, COUNTING));
    let big =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":"{}"}}}}"#, "x".repeat(17 << 20));
    wrapped.send(&big);
    assert_eq!(wrapped.receive()["error"]["code"], -32600);
    assert_eq!(wrapped.ask(&call(1, "safe"))["result"]["n"], 1);
}

#[test]
fn a_frame_of_fifteen_mebibytes_passes_and_is_held_whole() {
    let home = Home::new();
    // `head` reads in blocks; the shell's own `read` would ask for each of the bytes.
    let script = r#"bytes=$(head -n 1 | wc -c); printf '{"jsonrpc":"2.0","id":1,"result":{"bytes":%s}}\n' "$((bytes - 1))"; read -r end"#;
    let mut wrapped = Wrapped::start(wrap(&home, "version: 1\n", script));
    let big = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"write","arguments":{{"x":"{}"}}}}}}"#,
        "x".repeat(15 << 20)
    );
    wrapped.send(&big);
    let ids = home.wait_for_holds(1);
    let shown = home.holdshort(["show", &ids[0], "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["frame"].as_str().unwrap(), big);
    assert!(home.holdshort(["approve", &ids[0]]).status.success());
    assert_eq!(wrapped.receive()["result"]["bytes"], big.len());
}

#[test]
fn a_last_line_without_an_end_is_never_forwarded() {
    let home = Home::new();
    let seen = home.path().join("seen");
    let mut command = wrap(&home, ALLOW_ALL, "cat > \"$SEEN\"");
    let mut process = command
        .env("SEEN", &seen)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").unwrap();
    stdin.write_all(call(2, "safe").as_bytes()).unwrap();
    drop(stdin);
    assert!(process.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&seen).unwrap(), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n");
}

/// `command` with a stderr that nobody reads and in which next to nothing has room.
fn with_undrained_stderr(command: &mut Command) -> std::io::PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    command.stderr(writer);
    reader
}

#[test]
fn a_stderr_that_nobody_reads_stops_nothing_when_the_client_sends_junk() {
    let home = Home::new();
    let mut command = wrap(&home, ALLOW_ALL, COUNTING);
    let _undrained = with_undrained_stderr(command.env("HOLDSHORT_LOG", "debug"));
    let mut wrapped = Wrapped::start(command);
    drop(wrapped.ask(&call(1, "safe")));
    for _ in 0..3000 {
        wrapped.send("junk");
        assert_eq!(wrapped.receive()["error"]["code"], -32700);
    }
    assert_eq!(wrapped.ask(&call(2, "safe"))["result"]["n"], 2);
    wrapped.close();
    let (status, took) = wrapped.ends();
    assert_eq!(status.code(), Some(0));
    assert!(took < AFTER_STDIN, "{took:?}");
}

#[test]
fn a_stderr_that_nobody_reads_stops_nothing_when_the_server_answers_unasked() {
    let home = Home::new();
    let script = r#"i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "{\"jsonrpc\":\"2.0\",\"id\":\"u$i\",\"result\":{}}"; echo junk; done; read -r line; echo '{"jsonrpc":"2.0","id":1,"result":{"n":1}}'; trap '' TERM; while :; do sleep 0.05; done"#;
    let mut command = wrap(&home, ALLOW_ALL, script);
    let _undrained = with_undrained_stderr(command.env("HOLDSHORT_LOG", "debug"));
    let mut wrapped = Wrapped::start(command);
    assert_eq!(wrapped.ask(&call(1, "safe"))["result"]["n"], 1);
    wrapped.close();
    let (status, took) = wrapped.ends();
    assert_eq!(status.code(), Some(128 + 9), "even a server that has to be killed");
    assert!(took < AFTER_STDIN, "{took:?}");
}

#[test]
fn repeated_warnings_are_counted_instead_of_written() {
    let home = Home::new();
    let mut command = wrap(&home, ALLOW_ALL, COUNTING);
    command.stderr(Stdio::piped());
    let mut wrapped = Wrapped::start(command);
    for _ in 0..300 {
        wrapped.send("junk");
        wrapped.receive();
    }
    wrapped.close();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut wrapped.process.stderr.take().unwrap(), &mut said).unwrap();
    let written = said.lines().filter(|line| line.contains("was refused")).count();
    assert!((10..300).contains(&written), "{said}");
    let left_out: usize = said
        .lines()
        .filter_map(|line| line.strip_prefix("holdshort: ")?.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!(written + left_out, 300, "{said}");
}
