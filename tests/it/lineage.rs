//! Who decides where no policy names people: the user, from a terminal of their own; and not what the agent has started as the same user.

use std::{fs, os::unix::fs::symlink, process::Command};

use serde_json::Value;

use crate::support::program::{CLIENT_DECIDES, Home, Wrapped, until};

/// An agent: it starts a gate as `$1 gate` says, makes a call, and then runs each line that it is given as a command of its own.
const AGENT: &str = r#"
mkfifo to from
eval "$1" <to >from &
exec 3>to 4<from
echo '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{}}}' >&3
while read -r line; do eval "$line" >out 2>&1 </dev/null; echo "$?"; done
"#;

/// How the agent starts its gate: as a child of its own.
const DIRECTLY: &str = "exec holdshort run -- sh -c \"$SERVER\"";

/// A server that answers every request.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

struct Agent {
    home: Home,
    process: Wrapped,
    /// The call that it has made.
    id: String,
}

impl Agent {
    /// An agent whose gate was started with `start`, and lets it decide or not.
    fn start(start: &str, may_decide: bool) -> Self {
        let home = Home::new();
        // A shell that goes by another name is a program like any other.
        let program = home.path().join("agent");
        symlink("/bin/sh", &program).unwrap();
        let bin = home.command().get_program().to_owned();
        let bin = std::path::Path::new(&bin).parent().unwrap().display().to_string();
        let mut command = Command::new(program);
        command.args(["-c", AGENT, "agent", start]).current_dir(home.path());
        for (name, value) in home.command().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if !may_decide {
            command.env_remove(CLIENT_DECIDES);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{bin}:{path}")).env("SERVER", ANSWERING);
        let process = Wrapped::start(command);
        let id = home.wait_for_holds(1).remove(0);
        Self { home, process, id }
    }

    /// Runs a command as the agent does; gives its exit code and what it said.
    fn runs(&mut self, command: &str) -> (u8, String) {
        self.process.send(&command.replace("ID", &self.id));
        let code = self.process.line().parse().unwrap();
        (code, fs::read_to_string(self.home.path().join("out")).unwrap())
    }
}

#[test]
fn what_the_agent_has_started_reads_and_does_not_decide() {
    let mut agent = Agent::start(DIRECTLY, false);
    let (code, list) = agent.runs("holdshort holds --json");
    assert_eq!(code, 0, "{list}");
    let attempts = [
        "holdshort approve ID",
        "sh -c 'sh -c \"holdshort approve ID; exit \\$?\"; exit $?'",
        "setsid -w holdshort approve ID",
        "holdshort reject ID --reason no",
        "nohup holdshort approve ID",
    ];
    for attempt in attempts {
        let (code, said) = agent.runs(attempt);
        assert_eq!(code, 3, "{attempt}: {said}");
        assert!(
            said.contains("whoever asks does not decide") && said.contains("--danger-client-decides"),
            "{said}"
        );
    }
    assert_eq!(agent.home.wait_for_holds(1), [agent.id.clone()], "it waits still");
    // The person is in a terminal of their own.
    let output = agent.home.holdshort(["approve", &agent.id]);
    assert!(output.status.success(), "{output:?}");
    let (_, answer) = agent.runs("read -r answer <&4; echo \"$answer\"");
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["result"]["ran"], true, "{answer}");
    // That it was tried is on record.
    let tried = until(|| {
        let export = agent.home.holdshort(["audit", "export"]);
        let text = String::from_utf8(export.stdout).unwrap();
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of_kind = |event: &&Value| event["kind"] == "verdict_refused" && event["hold"] == *agent.id;
        let tried: Vec<Value> = events.iter().filter(of_kind).cloned().collect();
        (tried.len() == attempts.len()).then_some(tried)
    });
    assert!(tried.iter().all(|event| event["who"].as_str().unwrap().starts_with("client-of:")), "{tried:?}");
    agent.home.verify();
}

#[test]
fn a_gate_that_a_script_or_a_copy_of_the_client_has_started_is_the_client_s_all_the_same() {
    let by_script = "exec sh -c 'holdshort run -- sh -c \"$SERVER\"; exit $?'";
    let by_copy = "holdshort run -- sh -c \"$SERVER\"; exit $?";
    for start in [by_script, by_copy] {
        let mut agent = Agent::start(start, false);
        let (code, said) = agent.runs("holdshort approve ID");
        assert_eq!(code, 3, "{start}: {said}");
        assert!(agent.home.holdshort(["approve", &agent.id]).status.success());
    }
}

#[test]
fn whoever_approves_inside_of_the_client_can_say_so() {
    for (start, by_variable) in
        [(DIRECTLY, true), ("holdshort run --danger-client-decides -- sh -c \"$SERVER\"", false)]
    {
        let mut agent = Agent::start(start, by_variable);
        let (code, said) = agent.runs("holdshort approve ID");
        assert_eq!(code, 0, "{said}");
    }
}
