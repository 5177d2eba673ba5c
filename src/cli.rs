//! The command line: what can be typed, and which command it becomes.
//!
//! Data goes to stdout, talk to stderr. Each command is a file below; `render` is the only one that writes to stdout.

mod audit;
mod certificates;
mod channels;
mod demo;
mod desk;
mod doctor;
mod edit;
mod evidence;
mod events;
mod holds;
mod housekeeping;
mod policy;
mod process;
mod reach;
mod render;
mod run;
mod serve;
mod shown;
mod sign;
mod tools;
mod watch;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, builder::NonEmptyStringValueParser};

use self::audit::store_path;
use crate::{
    config::TelemetryAddress, control::client::AskError, exit, exit::Exit, hold::Same, telemetry,
    waiting::Wait,
};

/// Holds an agent's risky tool calls until people approve them.
///
/// A transparent proxy for the Model Context Protocol. Put `holdshort run --` in front of a server's command in the
/// settings of your agent; the calls that your policy names then wait, and you decide on them with `holdshort holds`,
/// `approve` and `reject` from another terminal.
#[derive(Debug, Parser)]
#[command(name = "holdshort", version, after_help = exit::HELP, max_term_width = 100)]
struct Arguments {
    /// In which form the log on stderr is written.
    #[arg(
        long,
        global = true,
        // Behind what each command is about.
        display_order = 900,
        value_name = "FORMAT",
        value_enum,
        env = "HOLDSHORT_LOG_FORMAT",
        hide_env_values = true,
        default_value_t
    )]
    log_format: telemetry::LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wrap a stdio MCP server: allowed calls pass, denied ones are refused, held ones wait for people.
    Run(RunArguments),
    /// Stand as a reverse proxy before MCP servers that speak HTTP.
    Serve {
        /// The configuration: where to listen, which servers, which policy.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// List the calls that wait, of all gates of this user.
    Holds(HoldsArguments),
    /// A terminal UI on what waits: read a call whole, approve, reject, look back.
    Watch,
    /// Show one hold, whole: everything that will run if it is approved.
    Show(ShowArguments),
    /// Approve a call: exactly the bytes that were shown go to the server.
    Approve(ApproveArguments),
    /// List the approvals that count for further calls, and take them back.
    Remembered(RememberedArguments),
    /// Reject a call: it does not run, and the agent reads the reason.
    Reject(RejectArguments),
    /// Say whether a call ran of which nobody knows; until then the same call is refused.
    Resolve(ResolveArguments),
    /// Show who decided what, and when.
    History(HistoryArguments),
    /// Serve the desk: a web dashboard and REST, on this machine.
    Desk(desk::DeskArguments),
    /// Try the channels of the desk: where people hear of what waits.
    #[command(subcommand)]
    Channels(ChannelsCommand),
    /// Read and prove the record.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Tools that servers have listed: what they are, what has changed, and whether that is accepted.
    #[command(subcommand)]
    Tools(ToolsCommand),
    /// Check, test, explain, compare and convert policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Say how far decisions here can be trusted, why, and what is not in order.
    Doctor(DoctorArguments),
    /// See it work: an agent, a billing server and the real gate, and you decide. Needs nothing else.
    Demo(DemoArguments),
    /// The demo's billing server, for `demo` and for examples.
    #[command(hide = true)]
    DemoServer {
        /// Where it writes down what it does.
        #[arg(long, value_name = "FILE")]
        ledger: Option<PathBuf>,
    },
    /// The demo's agent.
    #[command(hide = true)]
    DemoAgent {
        /// The demo's directory.
        dir: PathBuf,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "Example: holdshort run --policy policy.yaml -- npx -y @modelcontextprotocol/server-filesystem /srv

Where no --policy is given: $XDG_CONFIG_HOME/holdshort/policy.yaml or policy.d/*.yaml; where there is none, every call is
held, and stderr says so."
)]
struct RunArguments {
    /// A policy file, or a directory of them; may be given several times. The strictest matching rule wins.
    #[arg(long, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// The server's name in rules, lists and the record; by default it comes from the command.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    server: Option<String>,
    /// The record: a file, or `postgres://…` for that of a fleet (docs/fleet.md); by default one file for all of this user's gates.
    #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
    /// Show numbers for Prometheus (`/metrics`) and health (`/healthz`, `/readyz`) at this address of this machine, such as
    /// 127.0.0.1:9464 (docs/telemetry.md).
    #[arg(long, value_name = "ADDRESS", value_parser = telemetry_address)]
    metrics: Option<TelemetryAddress>,
    /// How long the client is kept waiting for people before it is told to make the call again later: a time such as `45s`
    /// or `5m`, or `forever`. By default what is known of the client's own patience (docs/clients.md).
    #[arg(long, value_name = "TIME")]
    wait: Option<Wait>,
    /// Let the client, and what it has started, decide on its own calls: for editors that are the client and have the terminal in
    /// which one approves. Without it such a verdict is refused (SECURITY.md).
    #[arg(long, env = "HOLDSHORT_DANGER_CLIENT_DECIDES", hide_env_values = true)]
    danger_client_decides: bool,
    /// Instead of a command: the URL of a server that speaks Streamable HTTP, for clients that only speak stdio.
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    url: Option<String>,
    /// With --url: a header of every request, with its value from the environment, as authorization=BILLING_TOKEN.
    // (`requires` alone says nothing where a command is given, which `url` conflicts with.)
    #[arg(long, value_name = "NAME=VARIABLE", requires = "url", conflicts_with = "command")]
    header: Vec<String>,
    /// With --url: the authorities that vouch for the server, in PEM; by default those of the system.
    #[arg(long, value_name = "FILE", requires = "url", conflicts_with = "command")]
    roots: Option<PathBuf>,
    /// The server's command and its arguments, started as they are, without a shell.
    #[arg(required_unless_present = "url", last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Where holds are looked for.
#[derive(Debug, Args)]
struct RecordArguments {
    /// The record: a file, or `postgres://…` for that of a fleet, from which each of its gates is reached. Only what is on it is looked
    /// at then; by default, what is at the gates of this user.
    #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HoldsArguments {
    #[command(flatten)]
    record: RecordArguments,
    /// Follow live: print each call that is held and each hold that ends, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Also list what has ended, the newest first.
    #[arg(long, conflicts_with = "watch")]
    all: bool,
    /// Print JSON: an array, or with --watch one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArguments {
    #[command(flatten)]
    record: RecordArguments,
    /// The hold's id, or any unique beginning of it.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ApproveArguments {
    #[command(flatten)]
    record: RecordArguments,
    /// The hold's id, or any unique beginning of it.
    id: String,
    /// A comment for the record, at most 500 characters.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Sign it with this SSH key: a file as `ssh-keygen` makes it; of a key in an agent, its `.pub` file. The key has to be one of
    /// yours under `people:` in the policy. OpenSSH asks for the passphrase, or for a touch of the security key.
    #[arg(long, value_name = "KEY", env = "HOLDSHORT_SIGN", hide_env_values = true, conflicts_with_all = ["remember_for", "edit"])]
    sign: Option<PathBuf>,
    /// Remember it, for a time such as `15m`: calls like this one then run without asking. Only where the rule says `remember`,
    /// so long and so often as it says.
    #[arg(long = "for", value_name = "TIME", value_parser = time_ahead, conflicts_with = "edit")]
    remember_for: Option<jiff::SignedDuration>,
    /// With --for, which calls: those of the same tool with the same arguments, or with any arguments.
    #[arg(long, value_name = "WHAT", requires = "remember_for", default_value = "arguments")]
    same: SameWord,
    /// Change the arguments first: those in this file, or `-` for stdin; without a value, in your editor ($VISUAL, $EDITOR).
    /// What runs is what you wrote, and the agent is told. Only where the rule says `edit: true`.
    #[arg(long, value_name = "FILE")]
    edit: Option<Option<PathBuf>>,
    /// With --edit: do not ask whether the difference is meant.
    #[arg(long, requires = "edit")]
    yes: bool,
}

/// How alike calls have to be for which an approval is remembered.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SameWord {
    /// The same tool with the same arguments.
    Arguments,
    /// The same tool.
    Tool,
}

impl From<SameWord> for Same {
    fn from(word: SameWord) -> Self {
        match word {
            SameWord::Arguments => Self::Arguments,
            SameWord::Tool => Self::Tool,
        }
    }
}

#[derive(Debug, Args)]
struct RememberedArguments {
    #[command(flatten)]
    record: RecordArguments,
    #[command(subcommand)]
    command: Option<RememberedCommand>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RememberedCommand {
    /// Take one back: from now on people are asked again.
    Revoke {
        /// The id of the hold whose approval it is, or any unique beginning of it.
        id: String,
    },
}

#[derive(Debug, Args)]
struct RejectArguments {
    #[command(flatten)]
    record: RecordArguments,
    /// The hold's id, or any unique beginning of it.
    id: String,
    /// Why, at most 500 characters: the agent reads it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Sign it with this SSH key; see `holdshort approve --help`.
    #[arg(long, value_name = "KEY", env = "HOLDSHORT_SIGN", hide_env_values = true)]
    sign: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("found").required(true).args(["ran", "did_not_run"]))]
struct ResolveArguments {
    #[command(flatten)]
    record: RecordArguments,
    /// The hold's id, or any unique beginning of it.
    id: String,
    /// It ran: the call, made again, is a new one.
    #[arg(long)]
    ran: bool,
    /// It did not run: the call can be made again, and people are asked.
    #[arg(long)]
    did_not_run: bool,
    /// How that was found out, at most 500 characters, for the record.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_long_help = "Exits with 0 if nothing is wrong that matters, with 1 if something is.")]
struct DoctorArguments {
    /// Look at what `serve` with this configuration would use, instead of what `run` would.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "store"])]
    config: Option<PathBuf>,
    /// A policy file, or a directory of them, as for `run`; may be given several times.
    #[arg(long, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// The record: a file, or `postgres://…`; by default the file of this user.
    #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct HistoryArguments {
    /// How many holds to show.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = one_or_more)]
    limit: usize,
    /// The record: a file, or `postgres://…`; by default the file of this user.
    #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Prove that the record was not altered, and say what cannot be proved.
    Verify {
        /// A checkpoint that an earlier `audit verify` printed: proves that nothing before it was cut off or rewritten.
        #[arg(long, value_name = "CHECKPOINT")]
        against: Option<String>,
        /// The record: a file, or `postgres://…`; by default the file of this user.
        #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
        store: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write what proves a decision: each signed statement, its signature and its key, for `ssh-keygen -Y verify`.
    Evidence {
        /// The hold's id, or any unique beginning of it.
        id: String,
        /// The directory to write to; it is made, and must not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The record: a file, or `postgres://…`; by default the file of this user.
        #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
        store: Option<PathBuf>,
    },
    /// Print the newest events as JSON Lines, and go on if asked to.
    Tail(TailArguments),
    /// Print the record's events as JSON Lines, the oldest first.
    Export(ExportArguments),
}

#[derive(Debug, Args)]
struct TailArguments {
    /// How many of the newest events.
    #[arg(long, default_value_t = 10, value_name = "N")]
    lines: usize,
    /// Go on with each event that is recorded, until interrupted.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    events: EventsArguments,
}

#[derive(Debug, Args)]
struct ExportArguments {
    /// Only events since this time, such as `2026-11-21T10:00:00Z`, or since so long ago, such as `24h`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<jiff::Timestamp>,
    #[command(flatten)]
    events: EventsArguments,
}

#[derive(Debug, Args)]
struct EventsArguments {
    /// As the record has them (`jsonl`), or as CloudEvents 1.0 with the exact bytes of the calls (`cloudevents`).
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: EventFormat,
    /// The record: a file, or `postgres://…`; by default the file of this user.
    #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
}

/// In which form events are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum EventFormat {
    /// The lines of the record, which its hashes are over.
    #[default]
    Jsonl,
    /// CloudEvents 1.0, one a line.
    Cloudevents,
}

/// How long something is to last.
fn time_ahead(text: &str) -> Result<jiff::SignedDuration, String> {
    let time = text.parse().ok().filter(jiff::SignedDuration::is_positive);
    time.ok_or_else(|| "write a time such as 15m or 2h".to_owned())
}

/// A moment.
fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| "write a time such as 2026-11-23T10:00:00+01:00".to_owned())
}

/// How many rows of a list are wanted.
fn one_or_more(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| "write a number from 1 on, such as 50".to_owned())
}

/// A time, or how long ago it was.
fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago: jiff::SignedDuration =
        text.parse().map_err(|_| "write a time such as 2026-11-21T10:00:00Z, or 24h".to_owned())?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

#[derive(Debug, Subcommand)]
enum ChannelsCommand {
    /// List the channels, and what they still have to send.
    List {
        /// The configuration of the desk; by default $XDG_CONFIG_HOME/holdshort/desk.yaml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The record: a file, or `postgres://…`; by default the file of this user.
        #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
        store: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send a message that says that it is a test.
    Test {
        /// The channel's name.
        name: String,
        /// The configuration of the desk; by default $XDG_CONFIG_HOME/holdshort/desk.yaml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ToolsCommand {
    /// List the tools that servers have listed, and which of them have changed.
    List {
        /// Only those of this server.
        #[arg(value_name = "SERVER")]
        server: Option<String>,
        /// Only those that have changed and wait for somebody to accept that.
        #[arg(long)]
        changed: bool,
        /// The record: a file, or `postgres://…`; by default the file of this user.
        #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
        store: Option<PathBuf>,
        /// Print JSON: an array.
        #[arg(long)]
        json: bool,
    },
    /// Show the definition of a tool, and how it differs from what was accepted.
    Show {
        /// The server's name, as `tools list` shows it.
        #[arg(value_name = "SERVER")]
        server: String,
        /// The tool's name.
        #[arg(value_name = "TOOL")]
        tool: String,
        /// The record: a file, or `postgres://…`; by default the file of this user.
        #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
        store: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Accept a definition of a tool: its calls are no longer held because it has changed.
    ///
    /// Calls that wait already go on waiting.
    Accept {
        /// The server's name, as `tools list` shows it.
        #[arg(value_name = "SERVER")]
        server: String,
        /// The tool's name.
        #[arg(value_name = "TOOL")]
        tool: String,
        /// The digest of the definition, or its first 8 characters or more, as `tools show` prints it: you accept what you
        /// have read. That of the accepted one says that the change is not wanted.
        #[arg(value_name = "SHA256")]
        sha256: String,
        /// The record: a file, or `postgres://…`; by default the file of this user.
        #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
        store: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Read policies and say all that is wrong with them.
    Check {
        /// Policy files, or directories of them.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// The configuration of the desk, whose channels `notify` names; by default $XDG_CONFIG_HOME/holdshort/desk.yaml, if it
        /// is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Run the cases of a test file against policies.
    Test {
        /// Policy files, or directories of them.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// The file of cases; by default the `*.test.yaml` beside each policy.
        #[arg(long, value_name = "FILE")]
        cases: Vec<PathBuf>,
    },
    /// Say why a call would be decided so, rule by rule. Nothing is sent and nothing is held.
    Explain(ExplainArguments),
    /// Print a policy of another form as a native one, on stdout.
    ///
    /// Other forms are lists of tools under `approval:`, rules with `match:`, and rules with `action: escalate`. They load as
    /// they are; the native one says all that they leave unsaid, and can say more.
    Convert {
        /// The policy file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Propose a policy from the calls that the mode `audit` has recorded, or say what a policy would have done to them.
    ///
    /// Without --policy: a first policy on stdout, for you to read and change. With it: what it would have said of each
    /// recorded call.
    Learn {
        /// The policy to try on the recorded calls; may be given several times.
        #[arg(long, value_name = "PATH")]
        policy: Vec<PathBuf>,
        /// The record: a file, or `postgres://…`; by default the file of this user.
        #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
        store: Option<PathBuf>,
        /// Print JSON: with --policy, one object a call.
        #[arg(long, requires = "policy")]
        json: bool,
    },
    /// Have the gates that run read their policies again. They do so by themselves when a file changes.
    ///
    /// A policy with a mistake is not used: the last good one stays, and this says what is wrong.
    Reload,
    /// Print the JSON Schema of policies, for editors.
    ///
    /// With a language server for YAML, put its place into the first line of a policy:
    /// `# yaml-language-server: $schema=policy.schema.json`
    Schema,
    /// Say what becomes wider and what stricter from one policy to another.
    ///
    /// Rules are compared by their names, for all calls and on the safe side: what cannot be told is `unknown`. Exits with 0
    /// if it is certain that no call becomes wider, else with 1.
    Diff {
        /// The policy as it is: a file, or a directory of them.
        #[arg(value_name = "OLD")]
        older: PathBuf,
        /// The policy as it will be.
        #[arg(value_name = "NEW")]
        newer: PathBuf,
        /// Also compare the decisions on the cases of this `*.test.yaml`; may be given several times.
        #[arg(long, value_name = "FILE")]
        cases: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "Example: holdshort policy explain --policy policy.yaml --server billing --tool send_refund \
--args '{\"amount\": 9500}'

Exits with 0 whatever the decision is; `holdshort policy test` is for checks."
)]
struct ExplainArguments {
    /// A policy file, or a directory of them; may be given several times.
    #[arg(long, required = true, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// The server's name, as `run --server` gives it.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The tool that is called.
    #[arg(long, value_name = "TOOL", required_unless_present = "method")]
    tool: Option<String>,
    /// Instead of a tool: the method of another request, such as `resources/read`.
    #[arg(long, value_name = "METHOD", conflicts_with = "tool")]
    method: Option<String>,
    /// The call's arguments, as a JSON object; by default there are none.
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// The name that the client gives itself.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Who asks.
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// What the server says of the tool, such as `readOnlyHint=true`; may be given several times.
    #[arg(long = "hint", value_name = "HINT=BOOL")]
    hints: Vec<String>,
    /// When it happens, such as `2026-11-23T10:00:00+01:00`; by default now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<jiff::Timestamp>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Approve the refund without asking.
    #[arg(long, conflicts_with = "reject")]
    approve: bool,
    /// Reject the refund without asking.
    #[arg(long)]
    reject: bool,
    /// Why, at most 500 characters: the agent reads it.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "reject",
        default_value = "Ask the customer for the invoice first."
    )]
    reason: String,
}

/// An address to listen at.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:4653".to_owned())
}

/// An address of this machine, as `--metrics` names it.
fn telemetry_address(text: &str) -> Result<TelemetryAddress, String> {
    let address =
        text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:9464".to_owned())?;
    TelemetryAddress::new(address, &[], false).map_err(|error| error.to_string())
}

/// Reads the command line and does what it says.
pub fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    // Kept to the end: dropping it writes the last lines.
    let _log = telemetry::init(arguments.log_format);
    match arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Serve { config } => serve::serve(&config),
        Command::Holds(arguments) => holds::list(&arguments),
        Command::Watch => watch::watch(),
        Command::Show(arguments) => holds::show(&arguments),
        Command::Approve(arguments) => holds::approve(&arguments),
        Command::Remembered(arguments) => holds::remembered(&arguments),
        Command::Reject(arguments) => holds::reject(&arguments),
        Command::Resolve(arguments) => holds::resolve_unknown(&arguments),
        Command::History(arguments) => audit::history(&arguments),
        Command::Desk(arguments) => desk::desk(arguments),
        Command::Channels(command) => channels::channels(&command),
        Command::Audit(command) => audit::audit(&command),
        Command::Tools(command) => tools::tools(&command),
        Command::Policy(command) => policy::policy(&command),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::DemoServer { ledger } => demo::server::run(ledger.as_deref()),
        Command::DemoAgent { dir } => demo::agent::run(&dir),
        Command::Completions { shell } => {
            render::completions(&mut Arguments::command(), shell);
            Exit::Done
        }
    }
}

/// Runs what a command asks of gates or of the record.
fn block_on(command: impl Future<Output = Result<Exit, AskError>>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    runtime.block_on(command).unwrap_or_else(|error| render::ask_failed(&error))
}
