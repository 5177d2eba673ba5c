//! `holdshort desk`: the web dashboard and REST, and the links and tokens that let people and programs in.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Span, Timestamp};

use super::{
    certificates::Certificates,
    channels, listen_address, process, render,
    shown::{self, Shown},
    store_path, telemetry_address,
};
use crate::{
    config::TelemetryAddress,
    control::place,
    desk::{
        self, Address, Desk, Settings, Wire,
        keys::{Keys, KeysError, Scope},
    },
    exit::Exit,
    hold::Assurance,
    store::Location,
    telemetry::Subject,
    transport::http::tls::{ServerTls, ServerTlsFiles},
};

/// How long a token lasts at most.
const TOKEN_DAYS_MAX: i64 = 366;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "It prints a link that opens it once, in one browser. `holdshort desk link` prints another.

Beyond this machine it listens with TLS (--tls-certificate, --tls-key), or behind a proxy that encrypts: with --public-url and \
                       --danger-plain-http."
)]
pub(super) struct DeskArguments {
    #[command(subcommand)]
    command: Option<DeskCommand>,
    /// Where it listens. Port 0 is any that is free.
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address, default_value_t = SocketAddr::from(([127, 0, 0, 1], desk::PORT_DEFAULT)))]
    listen: SocketAddr,
    /// The https address that a proxy in front gives it.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Speak TLS with this certificate, and those between it and its authority: a file in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The key of that certificate: a file in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Let nobody in without a client certificate from one of these authorities (a file in PEM). Whoever is in it decides, as
    /// `cert:NAME` to `people:` in policies (docs/identity.md).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    client_roots: Option<PathBuf>,
    /// Listen beyond this machine without encryption: only where something else encrypts and nobody can read in between.
    #[arg(long, requires = "public_url", conflicts_with = "tls_certificate")]
    danger_plain_http: bool,
    /// The file that says which channels there are (docs/channels.md); by default $XDG_CONFIG_HOME/holdshort/desk.yaml, if it
    /// is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show numbers for Prometheus (`/metrics`) and health (`/healthz`, `/readyz`) at this address of this machine, such as
    /// 127.0.0.1:9465 (docs/telemetry.md).
    #[arg(long, value_name = "ADDRESS", value_parser = telemetry_address)]
    metrics: Option<TelemetryAddress>,
    /// In a fleet: the policy by which verdicts count that are given here on calls whose callers have gone; by default the usual
    /// one of this user.
    #[arg(long, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// The record that history shows: a file, or `postgres://…`; by default the file of this user.
    #[arg(long, value_name = "FILE|URL", env = "HOLDSHORT_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum DeskCommand {
    /// Print a link that opens the desk once, in one browser.
    Link {
        /// The address under which browsers reach it, as it said when it started; by default that of the desk that runs, where it is
        /// one.
        #[arg(long, value_name = "URL", value_parser = desk::origin_of)]
        url: Option<String>,
    },
    /// Personal access tokens, for REST.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, once.
    Add {
        /// What it is called: letters, digits, `-`, `_` and `.`.
        name: String,
        /// What it may be used for; may be given several times.
        #[arg(long, value_name = "SCOPE", default_value = "read")]
        scope: Vec<Scope>,
        /// How long it is worth something, such as `12h` or `30d`; a year at most.
        #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "30d")]
        expires: SignedDuration,
    },
    /// List the tokens, without their texts.
    List {
        /// Print JSON: an array.
        #[arg(long)]
        json: bool,
    },
    /// Remove a token.
    Revoke {
        /// What it is called.
        name: String,
    },
}

fn lifetime(text: &str) -> Result<SignedDuration, String> {
    // A day of a token has 24 hours.
    let marked = jiff::SpanRelativeTo::days_are_24_hours();
    let time = text.parse().and_then(|span: Span| span.to_duration(marked)).ok();
    let most = SignedDuration::from_hours(24 * TOKEN_DAYS_MAX);
    let time = time.filter(|time| time.is_positive() && *time <= most);
    time.ok_or_else(|| format!("write a time such as 12h or 30d, {TOKEN_DAYS_MAX} days at most"))
}

pub(super) fn desk(arguments: DeskArguments) -> Exit {
    match &arguments.command {
        None => serve(arguments),
        Some(command) => {
            let done = keys().and_then(|keys| manage(&keys, command));
            done.unwrap_or_else(|error| render::error_chain(&error))
        }
    }
}

/// The keys of this user.
fn keys() -> anyhow::Result<Keys> {
    Ok(Keys::at(&own_dir()?.join("desk-keys.json")))
}

/// Where the desks of this user keep what they need.
fn own_dir() -> anyhow::Result<PathBuf> {
    let dir = place::state_dirs().into_iter().next().ok_or(place::PlaceError::NoHome)?;
    place::private_dir(&dir)?;
    Ok(dir)
}

/// Which desk a link is to open, nobody has said.
#[derive(Debug, thiserror::Error)]
enum NotOne {
    /// None is known to run.
    #[error("no desk runs that a link opens: start `holdshort desk`, or say with --url where it is")]
    None,
    /// More than one does.
    #[error("several desks run: say with --url which of them the link is to open: {0}")]
    Several(String),
}

fn manage(keys: &Keys, command: &DeskCommand) -> anyhow::Result<Exit> {
    match command {
        DeskCommand::Link { url } => {
            let url = match url {
                Some(url) => url.clone(),
                None => match place::live_desks(&own_dir()?).as_slice() {
                    [one] => one.clone(),
                    [] => return Ok(render::failed(&NotOne::None)),
                    several => return Ok(render::usage(&NotOne::Several(several.join(", ")))),
                },
            };
            render::line(&desk::sign_in_link(keys, &url)?);
            render::talk(&format!("it opens the desk once, within {} minutes", desk::SIGN_IN_MINUTES));
        }
        DeskCommand::Token(TokenCommand::Add { name, scope, expires }) => {
            let until = Timestamp::now().checked_add(*expires)?;
            let token = match keys.add_token(name, scope.clone(), until) {
                Err(error @ KeysError::BadName(_)) => return Ok(render::usage(&error)),
                token => token?,
            };
            render::line(&token);
            render::talk(&format!("valid until {until}; it is not shown again"));
        }
        DeskCommand::Token(TokenCommand::List { json }) => render::tokens(&keys.tokens()?, *json),
        DeskCommand::Token(TokenCommand::Revoke { name }) => keys.revoke(name)?,
    }
    Ok(Exit::Done)
}

fn serve(arguments: DeskArguments) -> Exit {
    let files = tls_files(&arguments);
    let DeskArguments { listen, public_url, danger_plain_http, config, store, policy, metrics, .. } =
        arguments;
    let wire = match (&files, danger_plain_http) {
        (Some(_), _) => Wire::Tls,
        (None, true) => Wire::DangerPlain,
        (None, false) => Wire::Plain,
    };
    let address = match Address::new(listen, public_url.as_deref(), wire) {
        Ok(address) => address,
        Err(error) => return render::usage(&error),
    };
    let tls = match files.as_ref().map(ServerTls::load).transpose() {
        Ok(tls) => tls.map(Arc::new),
        Err(error) => return render::usage(&error),
    };
    let channels = match channels::load(config.as_deref()) {
        Ok(channels) => channels,
        Err(error) => return render::settings_errors(&error),
    };
    let store = match store_path(store.as_deref()) {
        Ok(store) => store,
        Err(error) => return render::ask_failed(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    let asks_certificates = files.as_ref().is_some_and(|files| files.client_roots.is_some());
    let served = runtime.block_on(async {
        let gate = match in_fleet(&store, policy).await? {
            Ok(gate) => gate,
            Err(exit) => return Ok(exit),
        };
        let certificates = Certificates::of(tls.clone(), files);
        let desk = Desk::open(Settings {
            address,
            tls,
            store,
            keys: keys()?,
            channels,
            link_key: own_dir()?.join("links.key"),
        })
        .await?;
        let (otlp, _) = shown::collector(desk.name(), desk.store().meter());
        let record = desk.store().clone();
        let mut shown = Shown::new(Subject::store(record.clone()), otlp);
        // Before anybody is told that it listens: that address may be another's.
        shown.listen(metrics).await?;
        // (A desk that asks for certificates is opened by no link.)
        let _found = if asks_certificates { None } else { be_found(&desk) };
        tell(&desk, asks_certificates)?;
        let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let served = desk.serve(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = ended.recv() => {}
            }
        });
        tokio::select! {
            () = served => {}
            never = certificates.keep_looking() => match never {},
        }
        shown.end().await;
        match gate {
            Some(gate) => gate.close().await,
            None => process::settle(&record).await,
        }
        anyhow::Ok(Exit::Done)
    });
    served.unwrap_or_else(|error| render::error_chain(&error))
}

/// Where the listener's certificates are, if it is to speak TLS.
fn tls_files(arguments: &DeskArguments) -> Option<ServerTlsFiles> {
    Some(ServerTlsFiles {
        certificate: arguments.tls_certificate.clone()?,
        key: arguments.tls_key.clone()?,
        client_roots: arguments.client_roots.clone(),
        client_certificate_is_optional: false,
        http2: false,
    })
}

/// Lets `desk link` find this desk. Without that one has to say where it is.
fn be_found(desk: &Desk) -> Option<place::DeskShown> {
    own_dir()
        .and_then(|dir| Ok(place::show_desk(&dir, &desk.address().origin)?))
        .inspect_err(|error| {
            tracing::warn!(
                error = format!("{error:#}"),
                "`holdshort desk link` does not find this desk: give it --url"
            );
        })
        .ok()
}

/// Says where the desk is, and how it is opened.
fn tell(desk: &Desk, asks_certificates: bool) -> anyhow::Result<()> {
    let origin = &desk.address().origin;
    if asks_certificates {
        render::line(&format!("{origin}/"));
        render::talk(&format!(
            "the desk is at {origin}, for whoever has a certificate that a policy lists; end with Ctrl-C"
        ));
        return Ok(());
    }
    render::line(&desk.sign_in_link()?);
    render::talk(&format!(
        "the desk is at {origin}; the link above opens it once, within {} minutes; end with Ctrl-C",
        desk::SIGN_IN_MINUTES
    ));
    Ok(())
}

/// In a fleet a desk has a gate of its own, at which nothing arrives: through it, what waits at all the others is seen and decided.
/// Not where a file is the record: there the gates of this machine are asked.
async fn in_fleet(
    record: &Location,
    policy: Vec<PathBuf>,
) -> anyhow::Result<Result<Option<process::GateProcess>, Exit>> {
    if record.file().is_some() {
        return Ok(Ok(None));
    }
    let loaded = match process::load_policy(&policy, Assurance::L0) {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(Err(exit)),
    };
    let servers = Vec::new();
    let gate = process::GateProcess::open(loaded, policy, Some(record.clone()), servers, Assurance::L0, None)
        .await?;
    Ok(Ok(Some(gate)))
}
