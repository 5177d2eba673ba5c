//! `holdshort demo`: the first minute, with nothing else installed.
//!
//! A billing server and a scripted agent, processes of this same program, are joined by the real `holdshort run`; this
//! process is the person. It finds the gate's control socket, watches it, shows what is held and decides as the other
//! commands do, so whatever it shows is what anybody sees in their own terminal. It has no way past the gate.

pub(super) mod agent;
mod page;
mod place;
pub(super) mod server;

use std::{
    fs::{self, File},
    io::{self, IsTerminal},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use jsonrpsee::core::client::Subscription;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

use self::{
    agent::Told,
    place::{OwnPlace, Place},
};
use super::{DemoArguments, render};
use crate::{
    control::{
        api::{ControlClient, HoldView, VerificationView, Watched, WatchedEvent},
        client::{self, AskError, GateClient},
        place as gates,
    },
    exit::Exit,
    hold::{State, Verdict},
    store::{HistoryFilter, Store},
};

/// How long the agent may take for what needs no person, and how long it may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether the gate has gone.
const LOOK: Duration = Duration::from_millis(10);

/// Events of the record that are shown; the demo makes fewer.
const EVENTS_SHOWN_MAX: usize = 50;

/// What is said in a rejection where the person gives no reason.
const NO_REASON: &str = "The person at the terminal said no.";

/// What each of the agent's calls is about, in their order.
const TITLES: [&str; 4] = [
    "The agent looks up an order. The policy allows what only reads.",
    "It refunds $20. The policy allows refunds up to $100.",
    "It tries to delete the customer. The policy denies that.",
    "It refunds $950. The policy holds that for a person: you.",
];

pub(super) fn demo(arguments: &DemoArguments) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    let place = match OwnPlace::make() {
        Ok(place) => place,
        Err(error) => return render::failed(&error),
    };
    let told = runtime.block_on(play(&place, arguments));
    drop(place);
    told.unwrap_or_else(|error| render::error_chain(&error))
}

/// The whole demo: the story, an orderly end however the story went, and then the record.
async fn play(place: &Place, arguments: &DemoArguments) -> anyhow::Result<Exit> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut agent = Agent::start(place)?;
    let told = tokio::select! {
        told = story(place, arguments, &mut agent) => told.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
        _ = terminate.recv() => Ok(None),
        _ = hangup.recv() => Ok(None),
    };
    agent.end(place, matches!(told, Ok(Some(_)))).await;
    match told {
        Ok(Some(state)) => the_end(place, state).await,
        Ok(None) => {
            render::line("");
            render::talk("stopped: what waited was withdrawn, and nothing is left behind");
            Ok(Exit::Failed)
        }
        Err(error) => {
            if let Ok(log) = fs::read_to_string(place.log()) {
                render::talk(&log);
            }
            Err(error)
        }
    }
}

/// Everything up to the agent's last answer; gives the state that the held call ended in.
async fn story(place: &Place, arguments: &DemoArguments, agent: &mut Agent) -> anyhow::Result<State> {
    page::heading("An agent, a billing server, and between them a gate. Only the money is not real.");
    render::line("In the agent's settings the server's command has `holdshort run` in front of it:");
    page::command("holdshort run --policy policies/demo.yaml --server billing -- holdshort demo-server");
    let Told::Connected = agent.tells().await? else { bail!("the agent did not begin at the beginning") };
    let gate = find_gate(place).await?;
    let mut news = gate.rpc.watch().await?;
    let mut last = State::Held;
    for (number, title) in (1..).zip(TITLES) {
        page::heading(&format!("{number}. {title}"));
        let Told::Calls { tool, arguments: call } = agent.tells().await? else {
            bail!("the agent did not make its call")
        };
        page::said("calls", &format!("{tool} {call}"));
        if number == TITLES.len() {
            last = held(place, &gate, &mut news, arguments).await?;
        }
        let Told::Reads { text, failed, took } = agent.tells().await? else {
            bail!("the agent did not read an answer")
        };
        page::said(if failed { "reads (refused)" } else { "reads" }, &text);
        if number < TITLES.len() {
            page::said("after", &format!("{:.1} ms", took.as_secs_f64() * 1000.0));
        }
    }
    Ok(last)
}

/// The gate of this demo among all of this user's.
async fn find_gate(place: &Place) -> anyhow::Result<GateClient> {
    let own = gates::live_instances(&place.store());
    let found = client::gates().await.gates.into_iter();
    let mut found = found.filter(|gate| own.contains(&gate.registered.instance));
    found.next().ok_or_else(|| anyhow!("the gate cannot be found among the ones that answer"))
}

/// Shows the call that is held, and returns when it is decided or has ended otherwise.
async fn held(
    place: &Place,
    gate: &GateClient,
    news: &mut Subscription<Watched>,
    arguments: &DemoArguments,
) -> anyhow::Result<State> {
    // The agent runs ahead: its call may have been held before the news were subscribed to.
    let waiting = client::holds(std::slice::from_ref(gate)).await?;
    let id = match waiting.first() {
        Some(hold) => hold.id,
        None => loop {
            let told = next(news, PATIENCE).await?;
            if let (WatchedEvent::Held, Some(hold)) = (told.event, told.hold) {
                break hold.id;
            }
        },
    };
    let hold = gate.rpc.show(id).await?;
    render::hold_card(&hold);
    let decided = match arguments.verdict() {
        Some(decision) => Some(decision),
        None => {
            let (program, short) = (program(), id.short());
            render::line("decide here, or from another terminal with one of these:");
            page::command(&format!("{program} approve {short}"));
            page::command(&format!("{program} reject {short} --reason TEXT"));
            tokio::select! {
                decision = ask() => Some(decision),
                ended = ended(news, &hold) => {
                    if io::stdin().is_terminal() {
                        // Behind the question that nobody has answered.
                        render::line("");
                    }
                    ended?;
                    None
                }
            }
        }
    };
    if let Some((verdict, comment)) = decided {
        let resolved = gate.rpc.resolve(id, verdict, comment, hold.shown()).await.map_err(AskError::from);
        // An error because somebody was faster, or time was, is none: the record tells who.
        resolved.map(drop).or_else(|error| error.ended().map(drop).ok_or(error))?;
    }
    // The agent is done with its answer, and its gate with it, sooner than news arrive here.
    let record = Store::open(&place.store()).hold(id).await?;
    let ended = record.ok_or_else(|| anyhow!("the hold is not on record"))?;
    page::ended(&ended);
    Ok(ended.state)
}

impl DemoArguments {
    /// The verdict that was given on the command line.
    fn verdict(&self) -> Option<(Verdict, Option<String>)> {
        match (self.approve, self.reject) {
            (true, _) => Some((Verdict::Approve, None)),
            (_, true) => Some((Verdict::Reject, Some(self.reason.clone()))),
            _ => None,
        }
    }
}

/// Waits for the end of `hold`, whoever ends it, or of its gate.
async fn ended(news: &mut Subscription<Watched>, hold: &HoldView) -> anyhow::Result<()> {
    let left = hold.expires_at.duration_until(hold.created_at).unsigned_abs() + PATIENCE;
    loop {
        let told = match timeout(left, news.next()).await.context("the gate tells nothing")? {
            Some(told) => told.context("the gate tells something that cannot be read")?,
            None => return Ok(()),
        };
        if told.event == WatchedEvent::Ended && told.hold.is_some_and(|ended| ended.id == hold.id) {
            return Ok(());
        }
    }
}

async fn next(news: &mut Subscription<Watched>, patience: Duration) -> anyhow::Result<Watched> {
    let news = timeout(patience, news.next()).await.context("the gate tells nothing")?;
    news.ok_or_else(|| anyhow!("the gate has ended"))?.context("the gate tells something that cannot be read")
}

/// Asks at this terminal until there is an answer. Without a terminal, or at the end of input, the answer has to come
/// from elsewhere: this then never returns, and whoever calls it waits for the hold to end.
async fn ask() -> (Verdict, Option<String>) {
    let waits_elsewhere = || async {
        render::talk("nobody can answer here: use the commands above, or run with --approve or --reject");
        std::future::pending().await
    };
    if !io::stdin().is_terminal() {
        return waits_elsewhere().await;
    }
    let mut lines = typed_lines();
    loop {
        render::prompt("Approve this refund? [y]es, [n]o, or type why not: ");
        let Some(line) = lines.recv().await else { return waits_elsewhere().await };
        match Typed::read(&line) {
            Typed::Nothing => {}
            Typed::Yes => return (Verdict::Approve, None),
            Typed::No => {
                render::prompt("Why not? The agent reads it: ");
                let why = lines.recv().await.unwrap_or_default();
                let why = if why.trim().is_empty() { NO_REASON.to_owned() } else { why };
                return (Verdict::Reject, Some(why));
            }
            Typed::WhyNot(why) => return (Verdict::Reject, Some(why)),
        }
    }
}

/// What the person means. Only a plain yes approves.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Nothing,
    Yes,
    No,
    WhyNot(String),
}

impl Typed {
    fn read(line: &str) -> Self {
        let text = line.trim();
        match &*text.to_ascii_lowercase() {
            "" => Self::Nothing,
            "y" | "yes" => Self::Yes,
            "n" | "no" => Self::No,
            _ => Self::WhyNot(text.to_owned()),
        }
    }
}

/// What is typed, line by line. A thread of its own reads, because nothing can end a read from a terminal.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// How this program is started from another terminal: by its name if it was found by its name, else by its path.
fn program() -> String {
    let name = std::env::args().next().unwrap_or_default();
    if !name.is_empty() && !name.contains('/') {
        return name;
    }
    let path = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or(name);
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+".contains(letter);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// What the billing server did, and what the record says.
async fn the_end(place: &Place, state: State) -> anyhow::Result<Exit> {
    page::heading("5. What the billing server did, by its own ledger:");
    let ledger = fs::read_to_string(place.ledger()).context("the billing server has no ledger")?;
    ledger.lines().for_each(|entry| page::said("did", entry));

    page::heading("6. What is on record:");
    let store = Store::open(&place.store());
    let holds = store.history(HistoryFilter { limit: 10, ..HistoryFilter::default() }).await?;
    let holds: Vec<_> = holds.iter().map(HoldView::listed).collect();
    render::history(&holds, false);
    render::line("");
    page::audit_lines(&store.audit_events(0, EVENTS_SHOWN_MAX).await?);
    render::line("");
    let verification = VerificationView::from(&store.verify(None).await?);
    render::verification(&verification);
    render::line("");
    render::line("The demo's record goes with it. Of your own gates the same is shown by these:");
    page::command("holdshort history");
    page::command("holdshort audit export");
    page::command("holdshort audit verify");

    page::heading("Next: in your agent's settings, put `holdshort run --` in front of a server's command:");
    page::command(
        "holdshort run --policy policy.yaml -- npx -y @modelcontextprotocol/server-filesystem /srv",
    );
    render::line("Without --policy every call waits for you. `holdshort holds` shows what waits.");
    Ok(match state {
        _ if !verification.sound => Exit::Failed,
        State::Expired => Exit::Gone,
        State::Forwarding | State::Answered | State::Rejected => Exit::Done,
        _ => Exit::Failed,
    })
}

/// The agent's process.
struct Agent {
    process: Child,
    /// Ends the agent when it is dropped, also when this process is killed.
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    fn start(place: &Place) -> anyhow::Result<Self> {
        let log = File::create(place.log()).context("the log cannot be written")?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("demo-agent")
            .arg(place.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Its own group: an interrupt from the keyboard is for this process, which then ends the agent in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("the agent does not start")?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or_else(|| anyhow!("the agent has no stdout"))?;
        Ok(Self { process, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// What the agent tells next.
    async fn tells(&mut self) -> anyhow::Result<Told> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.context("the agent tells nothing")??;
        let line = line.ok_or_else(|| anyhow!("the agent has ended"))?;
        serde_json::from_str(&line).context("the agent tells something that cannot be read")
    }

    /// Waits until the agent has gone and its gate after it. One that has told all ends by itself, once the gate has put
    /// everything on record; one that has not is made to.
    async fn end(mut self, place: &Place, has_told_all: bool) {
        if has_told_all {
            let _ = timeout(PATIENCE, self.process.wait()).await;
        }
        drop(self.stdin.take());
        let _ = timeout(PATIENCE, self.process.wait()).await;
        let _ = self.process.start_kill();
        let gate_has_gone = async {
            while !gates::live_instances(&place.store()).is_empty() {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(PATIENCE, gate_has_gone).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_approves() {
        for yes in ["y", "Y\n", " yes ", "YES\r\n"] {
            assert_eq!(Typed::read(yes), Typed::Yes, "{yes:?}");
        }
        assert_eq!(Typed::read("No\n"), Typed::No);
        assert_eq!(Typed::read(" \n"), Typed::Nothing);
        for other in ["yes but ask first", "yeah", "ye", "ok", "approve"] {
            assert_eq!(Typed::read(other), Typed::WhyNot(other.to_owned()), "{other:?}");
        }
    }
}
