//! The configuration of `serve`: a YAML file, read and checked as a whole before anything is started.
//!
//! Used by `cli::serve`. A key that is not known is an error, and so is everything that would listen more widely than it says: each with
//! its place in the file. Secrets are named by a file or a variable rather than written here.

mod telemetry;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    io::Read as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_saphyr::Spanned;

pub use self::telemetry::{NotLoopback, TelemetryAddress};
use crate::{
    digest::Digest,
    hold::Assurance,
    policy::{Diagnostic, Source},
    store::PostgresUrl,
    transport::http::{
        identity::{AgentSettings, TOKEN_BYTES_MIN, agent_named},
        lines::CommandSettings,
        settings::{Headers, HttpLimits, HttpSettings, OAuth, Target, UpstreamSettings},
        tls::{ServerTls, ServerTlsFiles},
    },
    waiting::Wait,
};

/// The largest configuration, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Servers in one configuration.
const UPSTREAMS_MAX: usize = 1000;

/// The names by which this machine calls itself.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// What `serve` is told, checked.
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Policy files and directories.
    pub policy: Vec<PathBuf>,
    /// The file of the record; by default the one of this user.
    pub store: Option<PathBuf>,
    /// How far what is decided here can be trusted at most, by the word of whoever runs it.
    pub assurance: Assurance,
    /// What the proxy does.
    pub http: HttpSettings,
    /// Where numbers and health are shown, if they are.
    pub telemetry: Option<TelemetryAddress>,
    /// Where its certificates are, if it speaks TLS.
    pub tls_files: Option<ServerTlsFiles>,
}

/// What a process keeps as long as it lives, although its configuration may say something else by now: the rest has to go with it.
#[derive(Clone, Copy, Debug)]
pub struct InForce {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How far what is decided there can be trusted at most.
    pub assurance: Assurance,
}

/// Why a configuration is refused: all that was found, rendered with its places.
#[derive(Debug)]
pub struct ConfigError(Vec<Diagnostic>);

impl ConfigError {
    /// Everything, with an empty line between findings.
    pub fn render(&self, color: bool) -> String {
        let rendered: Vec<String> = self.0.iter().map(|found| found.render(color)).collect();
        rendered.join("\n\n")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigError {}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    listen: Spanned<String>,
    upstreams: Spanned<Vec<Upstream>>,
    #[serde(default)]
    policy: Vec<PathBuf>,
    #[serde(default)]
    store: Option<PathBuf>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    #[serde(default)]
    origins: Vec<Spanned<String>>,
    #[serde(default)]
    tls: Option<Spanned<Tls>>,
    #[serde(default)]
    agents: Agents,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    assurance: Option<Spanned<String>>,
    #[serde(default)]
    wait: Option<Spanned<String>>,
    #[serde(default)]
    telemetry: Option<Telemetry>,
    #[serde(default)]
    danger_listen_without_tls: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Telemetry {
    listen: Spanned<String>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    #[serde(default)]
    danger_listen_without_tls: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    client_roots: Option<PathBuf>,
    #[serde(default)]
    client_certificates: ClientCertificates,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ClientCertificates {
    #[default]
    Required,
    Optional,
}

/// How agents show who they are.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agents {
    #[serde(default)]
    tokens: Vec<Spanned<Token>>,
    #[serde(default)]
    header: Option<Spanned<ProxyHeader>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    env: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyHeader {
    name: String,
    from: Vec<IpAddr>,
}

/// What bounds the proxy and each principal; what is not said stays as it is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(default)]
    body_mib: Option<usize>,
    #[serde(default)]
    connections: Option<usize>,
    #[serde(default)]
    held_per_agent: Option<usize>,
    #[serde(default)]
    held_mib_per_agent: Option<usize>,
    #[serde(default)]
    streams_per_agent: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upstream {
    name: Spanned<String>,
    path: Spanned<String>,
    #[serde(default)]
    host: Option<Spanned<String>>,
    #[serde(default)]
    url: Option<Spanned<String>>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    roots: Option<PathBuf>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<Secret>>,
    #[serde(default)]
    headers_of: BTreeMap<String, BTreeMap<String, Spanned<Secret>>>,
    #[serde(default)]
    oauth: OAuthMode,
    #[serde(default)]
    wait: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OAuthMode {
    #[default]
    Off,
    Pass,
    Rewrite,
}

/// A value that should not stand in a file that others read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    env: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
}

impl Upstream {
    /// The host that it is for alone.
    fn own_host(&self) -> Option<String> {
        self.host.as_ref().map(|host| host.value.to_ascii_lowercase())
    }
}

impl Config {
    /// Reads the file at `path`; paths in it are relative to its directory.
    ///
    /// # Errors
    ///
    /// With everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::read(path, None)
    }

    /// The same for a process that runs already and keeps what is `in_force`.
    ///
    /// # Errors
    ///
    /// With everything that is wrong in it, and with what does not go together with that.
    pub fn load_again(path: &Path, in_force: InForce) -> Result<Self, ConfigError> {
        Self::read(path, Some(in_force))
    }

    fn read(path: &Path, in_force: Option<InForce>) -> Result<Self, ConfigError> {
        let read = || -> io::Result<String> {
            let mut text = String::new();
            fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let name = path.display().to_string();
        match read() {
            Ok(text) => {
                Self::parse_beside(Source { name, text }, path.parent().unwrap_or(Path::new("")), in_force)
            }
            Err(error) => {
                let source = Arc::new(Source { name, text: String::new() });
                let message = format!("the configuration cannot be read: {error}");
                Err(ConfigError(vec![Diagnostic::error("C0001", &source, 0..0, message)]))
            }
        }
    }

    /// Reads `source`; paths in it are relative to `dir`.
    ///
    /// # Errors
    ///
    /// With everything that is wrong in it.
    pub fn parse(source: Source, dir: &Path) -> Result<Self, ConfigError> {
        Self::parse_beside(source, dir, None)
    }

    fn parse_beside(source: Source, dir: &Path, in_force: Option<InForce>) -> Result<Self, ConfigError> {
        let source = Arc::new(source);
        let (problems, dir) = (Vec::new(), dir.to_owned());
        let mut reader = Reader { source: Arc::clone(&source), problems, dir, in_force };
        if source.text.len() as u64 > FILE_BYTES_MAX {
            reader.problem(None, "the configuration is larger than 1 MiB", None);
            return Err(ConfigError(reader.problems));
        }
        match serde_saphyr::from_str::<Document>(&source.text) {
            Ok(document) => {
                let config = reader.document(document);
                config.filter(|_| reader.problems.is_empty()).ok_or(ConfigError(reader.problems))
            }
            Err(error) => {
                let place = error.location();
                reader.problem(place, &plain(error.without_snippet()), None);
                Err(ConfigError(reader.problems))
            }
        }
    }
}

/// The first line of what the YAML reader says, which says it all.
fn plain(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

struct Reader {
    source: Arc<Source>,
    problems: Vec<Diagnostic>,
    dir: PathBuf,
    /// What the process keeps that reads it again.
    in_force: Option<InForce>,
}

impl Reader {
    fn problem(&mut self, place: Option<serde_saphyr::Location>, message: &str, hint: Option<&str>) {
        let at = place.map_or(0, |place| self.source.offset(place.line(), place.column()));
        let found = Diagnostic::error("C0002", &self.source, at..at, message);
        self.problems.push(found.hint(hint.map(str::to_owned)));
    }

    fn fail<T>(&mut self, at: &Spanned<T>, message: &str, hint: &str) {
        self.problem(Some(at.referenced), message, Some(hint));
    }

    fn document(&mut self, document: Document) -> Option<Config> {
        let listen = self.listen(&document);
        let telemetry = document.telemetry.as_ref().and_then(|telemetry| self.telemetry(telemetry));
        let hosts = self.hosts(&document, self.in_force.map(|kept| kept.listen).or(listen));
        if document.upstreams.value.is_empty() {
            self.fail(
                &document.upstreams,
                "there is no server to stand before",
                "add one below `upstreams:`",
            );
        }
        if document.upstreams.value.len() > UPSTREAMS_MAX {
            self.fail(&document.upstreams, "there are more than 1,000 servers", "use several processes");
        }
        for origin in &document.origins {
            if !origin.value.starts_with("http://") && !origin.value.starts_with("https://") {
                self.fail(origin, "an origin is a scheme and a host", "write it as https://example.com");
            }
        }
        let tls = document.tls.as_ref().and_then(|tls| self.tls(tls));
        // Read as a URL where it is used: what is wrong with one is shown without its line, which may have a password.
        let is_url = |store: &PathBuf| store.to_str().is_some_and(PostgresUrl::is_one);
        let store =
            document.store.clone().map(|store| if is_url(&store) { store } else { self.dir.join(store) });
        let agents = self.agents(&document);
        let assurance = self.assurance(&document, &agents);
        let (mut upstreams, mut commands) = (Vec::new(), Vec::new());
        self.tell_apart(&document.upstreams.value);
        for upstream in &document.upstreams.value {
            self.named(upstream);
            let wait = self.wait(upstream.wait.as_ref().or(document.wait.as_ref()));
            match (&upstream.url, upstream.command.is_empty()) {
                (Some(url), true) => upstreams.extend(self.upstream(upstream, url, wait, &agents)),
                (None, false) => commands.push(CommandSettings {
                    name: upstream.name.value.as_str().into(),
                    path: upstream.path.value.clone(),
                    host: upstream.own_host(),
                    command: upstream.command.iter().map(Into::into).collect(),
                    wait,
                }),
                _ => self.fail(
                    &upstream.name,
                    "a server has a `url` or a `command`",
                    "write `url: http://127.0.0.1:3000/mcp`, or `command: [npx, -y, SERVER]`",
                ),
            }
        }
        Some(Config {
            listen: listen?,
            policy: document.policy.iter().map(|path| self.dir.join(path)).collect(),
            store,
            assurance,
            http: HttpSettings {
                upstreams,
                commands,
                hosts,
                origins: document.origins.into_iter().map(|origin| origin.value).collect(),
                agents,
                tls: tls.as_ref().map(|(tls, _)| Arc::clone(tls)),
                limits: limits(&document.limits),
            },
            tls_files: tls.map(|(_, files)| files),
            telemetry,
        })
    }

    /// How far what is decided here can be trusted: what is said, if nothing here says otherwise.
    fn assurance(&mut self, document: &Document, agents: &AgentSettings) -> Assurance {
        let level = self.said_assurance(document, agents);
        let kept = self.in_force.map_or(Assurance::L0, |kept| kept.assurance);
        if kept >= Assurance::L2 && level < Assurance::L2 && !agents.is_asked_for() {
            let message = format!(
                "this process stays at `assurance: {kept}`, and would let in whoever comes instead of agents"
            );
            let hint = "leave `agents` and `tls` as they were, or start the process anew: `assurance` counts only then";
            self.problem(document.assurance.as_ref().map(|said| said.referenced), &message, Some(hint));
        }
        level
    }

    fn said_assurance(&mut self, document: &Document, agents: &AgentSettings) -> Assurance {
        let Some(said) = &document.assurance else { return Assurance::L0 };
        let Some(level) = Assurance::from_word(&said.value) else {
            self.fail(
                said,
                "there is no such level",
                "write L0, L2 or L3; docs/identity.md says what they mean",
            );
            return Assurance::L0;
        };
        if level == Assurance::L1 {
            let hint = "leave it out: signatures of security keys are L1 at every gate";
            self.fail(said, "L1 is not a way to deploy a gate", hint);
        }
        if level == Assurance::L4 {
            let hint = "write L3, and ask for two signed approvals in rules: docs/identity.md";
            self.fail(
                said,
                "L4 takes more than this version does: nobody else witnesses the log by itself",
                hint,
            );
        }
        if level >= Assurance::L2 && !agents.is_asked_for() {
            let hint = "give agents tokens or certificates below `agents` or `tls`";
            self.fail(said, "a gate that lets in whoever comes cannot tell agents from approvers", hint);
        }
        if level >= Assurance::L2 && document.policy.is_empty() {
            let hint = "name the policy's files below `policy`";
            self.fail(said, "a gate at this level does not take the policy that happens to be there", hint);
        }
        level
    }

    fn tls(&mut self, tls: &Spanned<Tls>) -> Option<(Arc<ServerTls>, ServerTlsFiles)> {
        let files = ServerTlsFiles {
            certificate: self.dir.join(&tls.value.certificate),
            key: self.dir.join(&tls.value.key),
            client_roots: tls.value.client_roots.as_ref().map(|path| self.dir.join(path)),
            client_certificate_is_optional: tls.value.client_certificates == ClientCertificates::Optional,
            http2: true,
        };
        match ServerTls::load(&files) {
            Ok(loaded) => Some((Arc::new(loaded), files)),
            Err(error) => {
                self.problem(Some(tls.referenced), &error.to_string(), None);
                None
            }
        }
    }

    fn agents(&mut self, document: &Document) -> AgentSettings {
        const TOO_SHORT: &str = "this token is too short to keep anybody out";
        const TOKEN_HINT: &str = "use at least 16 bytes that nobody can guess, as of `openssl rand -hex 32`";
        let client_roots = document.tls.as_ref().and_then(|tls| tls.value.client_roots.as_ref());
        let mut settings =
            AgentSettings { by_certificate: client_roots.is_some(), ..AgentSettings::default() };
        for token in &document.agents.tokens {
            let Some(agent) = agent_named(&token.value.name) else {
                self.fail(
                    token,
                    "this cannot be the name of an agent",
                    "use up to 200 visible characters on one line",
                );
                continue;
            };
            let digest = match &token.value.sha256 {
                Some(digest) if token.value.env.is_none() && token.value.file.is_none() => {
                    Digest::from_hex(digest)
                }
                Some(_) => None,
                None => {
                    let (env, file) = (token.value.env.clone(), token.value.file.clone());
                    let secret = self.value(token, &Secret { value: None, env, file });
                    if secret.as_ref().is_some_and(|secret| secret.len() < TOKEN_BYTES_MIN) {
                        self.fail(token, TOO_SHORT, TOKEN_HINT);
                        continue;
                    }
                    secret.map(|secret| Digest::of(secret.as_bytes()))
                }
            };
            match digest {
                None => self.fail(
                    token,
                    "this token cannot be used",
                    "give `sha256:` (64 hexadecimal digits, of the token without a line end), `env:` or `file:`",
                ),
                Some(digest) if digest == Digest::of(b"") => self.fail(token, TOO_SHORT, TOKEN_HINT),
                Some(digest) if settings.tokens.insert(digest, agent).is_some() => {
                    self.fail(token, "two agents have this token", "give each one of its own");
                }
                Some(_) => {}
            }
        }
        if let Some(header) = &document.agents.header {
            match HeaderName::try_from(header.value.name.as_str()) {
                Ok(name) if !header.value.from.is_empty() => {
                    settings.header =
                        Some((name, header.value.from.iter().map(IpAddr::to_canonical).collect()));
                }
                _ => self.fail(
                    header,
                    "this header cannot be trusted",
                    "it needs a `name`, and the proxies' addresses in `from`",
                ),
            }
        }
        settings
    }

    fn listen(&mut self, document: &Document) -> Option<SocketAddr> {
        let Ok(listen) = document.listen.value.parse::<SocketAddr>() else {
            self.fail(
                &document.listen,
                "this is not an address and a port",
                "write 127.0.0.1:8080, or [::1]:8080",
            );
            return None;
        };
        let hint = "listen on 127.0.0.1, add `tls:`, or set `danger_listen_without_tls: true` where something else encrypts";
        self.reached_at(listen.ip(), document, "this address", hint);
        let kept = self.in_force.map(|kept| kept.listen.ip()).filter(|kept| *kept != listen.ip());
        if let Some(kept) = kept {
            let place = format!("{kept}, where this process goes on listening");
            let hint = "leave `tls:` as it was, or start the process anew: `listen` counts only then";
            self.reached_at(kept, document, &place, hint);
        }
        Some(listen)
    }

    /// Where others can reach `address`, they have to find what they need. `unencrypted`: a hint for who finds no TLS.
    fn reached_at(&mut self, address: IpAddr, document: &Document, place: &str, unencrypted: &str) {
        if address.is_loopback() {
            return;
        }
        if document.tls.is_none() && !document.danger_listen_without_tls {
            let message = format!("others can reach {place}, and nothing is encrypted");
            self.fail(&document.listen, &message, unencrypted);
        }
        if document.hosts.is_empty() && document.upstreams.value.iter().all(|one| one.host.is_none()) {
            let message = format!("the names by which others reach {place} are not known");
            let hint = "list them below `hosts:`; requests for other names are refused";
            self.fail(&document.listen, &message, hint);
        }
    }

    fn telemetry(&mut self, telemetry: &Telemetry) -> Option<TelemetryAddress> {
        let Telemetry { listen, hosts, danger_listen_without_tls } = telemetry;
        let Ok(address) = listen.value.parse::<SocketAddr>() else {
            self.fail(listen, "this is not an address and a port", "write 127.0.0.1:9464, or [::1]:9464");
            return None;
        };
        hosts.iter().for_each(|host| self.host(host));
        let names: Vec<String> = hosts.iter().map(|host| host.value.clone()).collect();
        let address = TelemetryAddress::new(address, &names, *danger_listen_without_tls);
        let hint = "listen on 127.0.0.1, or set `danger_listen_without_tls: true` below `telemetry:`";
        address.map_err(|error| self.fail(listen, &error.to_string(), hint)).ok()
    }

    fn hosts(&mut self, document: &Document, listen: Option<SocketAddr>) -> Vec<String> {
        let mut hosts: Vec<String> = Vec::new();
        if listen.is_none_or(|listen| listen.ip().is_loopback()) {
            hosts.extend(LOOPBACK_NAMES.map(str::to_owned));
        }
        for host in &document.hosts {
            self.host(host);
            hosts.push(host.value.to_ascii_lowercase());
        }
        document.upstreams.value.iter().filter_map(|one| one.host.as_ref()).for_each(|host| self.host(host));
        hosts
    }

    fn host(&mut self, host: &Spanned<String>) {
        let is_name = host.value.parse::<http::uri::Authority>().is_ok_and(|name| name.host() == host.value);
        if !is_name {
            self.fail(host, "this is not the name of a host", "write it without scheme, port and path");
        }
    }

    /// Two servers must differ in name, and in path or host.
    fn tell_apart(&mut self, upstreams: &[Upstream]) {
        for (at, upstream) in upstreams.iter().enumerate() {
            let is_there = |other: &Upstream| {
                other.path.value == upstream.path.value && other.own_host() == upstream.own_host()
            };
            if upstreams[..at].iter().any(is_there) {
                self.fail(
                    &upstream.path,
                    "two servers have this path",
                    "give each a path of its own, or a host",
                );
            }
            if upstreams[..at].iter().any(|other| other.name.value == upstream.name.value) {
                self.fail(&upstream.name, "two servers have this name", "give each a name of its own");
            }
        }
    }

    fn wait(&mut self, written: Option<&Spanned<String>>) -> Option<Wait> {
        let written = written?;
        let wait = written.value.parse();
        wait.map_err(|_| self.fail(written, "this is not a time", "write `45s`, `5m` or `forever`")).ok()
    }

    fn named(&mut self, upstream: &Upstream) {
        let path = &upstream.path;
        let is_path = path.value.starts_with('/')
            && path.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte))
            && !path.value.contains("//")
            && !path.value.split('/').any(|part| part == "." || part == "..");
        if !is_path {
            self.fail(
                path,
                "this is not a path that can be written in one way only",
                "use letters, digits and -._~ between single slashes",
            );
        }
        let name = &upstream.name;
        if name.value.is_empty()
            || name.value.contains(|letter: char| letter.is_control() || letter.is_whitespace())
        {
            self.fail(name, "a name is one word", "rules use it as in `tool: name.tool`");
        }
    }

    fn upstream(
        &mut self,
        upstream: &Upstream,
        url: &Spanned<String>,
        wait: Option<Wait>,
        agents: &AgentSettings,
    ) -> Option<UpstreamSettings> {
        let path = &upstream.path;
        let target = self.target(url, upstream);
        let headers = self.headers(&upstream.headers);
        let headers_of =
            upstream.headers_of.iter().map(|(agent, headers)| (agent.clone(), self.headers(headers)));
        let headers_of = headers_of.collect();
        let oauth = match upstream.oauth {
            OAuthMode::Off => OAuth::Off,
            OAuthMode::Pass => OAuth::Pass,
            OAuthMode::Rewrite => OAuth::Rewrite,
        };
        if oauth != OAuth::Off && !agents.tokens.is_empty() {
            self.fail(
                &upstream.name,
                "`Authorization` cannot both say who an agent is here and go on to the server",
                "use certificates or a proxy's header for agents, or leave `oauth` off",
            );
        }
        Some(UpstreamSettings {
            name: upstream.name.value.as_str().into(),
            path: path.value.clone(),
            host: upstream.own_host(),
            target: target?,
            headers,
            headers_of,
            oauth,
            wait,
        })
    }

    fn headers(&mut self, written: &BTreeMap<String, Spanned<Secret>>) -> Headers {
        let mut headers = Headers::new();
        for (name, written) in written {
            let secret = self.value(written, &written.value);
            let value = secret.and_then(|secret| HeaderValue::try_from(secret).ok());
            match (HeaderName::try_from(name.as_str()), value) {
                (Ok(name), Some(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                _ => self.fail(
                    written,
                    "this header cannot be sent",
                    "it needs a name, and a value on one line",
                ),
            }
        }
        headers
    }

    fn target(&mut self, url: &Spanned<String>, upstream: &Upstream) -> Option<Target> {
        let roots = upstream.roots.as_ref().map(|path| self.dir.join(path));
        let target = Target::parse(&url.value, roots.as_deref());
        target.map_err(|error| self.fail(url, &error, "write it as http://127.0.0.1:3000/mcp")).ok()
    }

    /// The value itself, from wherever it is.
    fn value<T>(&mut self, at: &Spanned<T>, secret: &Secret) -> Option<String> {
        const HINT: &str = "use one of `value:`, `env:` and `file:`";
        let found = match (&secret.value, &secret.env, &secret.file) {
            (Some(value), None, None) => Ok(value.clone()),
            (None, Some(variable), None) => std::env::var(variable).map_err(|error| error.to_string()),
            (None, None, Some(path)) => {
                fs::read_to_string(self.dir.join(path)).map_err(|error| error.to_string())
            }
            _ => Err("it has not exactly one source".to_owned()),
        };
        match found {
            Ok(value) => Some(value.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                self.fail(at, &format!("this value cannot be had: {error}"), HINT);
                None
            }
        }
    }
}

/// The limits, with what is not said as it is by default.
fn limits(limits: &Limits) -> HttpLimits {
    let usual = HttpLimits::default();
    let mib = |said: Option<usize>, usual: usize| said.map_or(usual, |mib| mib.saturating_mul(1 << 20));
    HttpLimits {
        client_frame_bytes_max: mib(limits.body_mib, usual.client_frame_bytes_max),
        connections_max: limits.connections.unwrap_or(usual.connections_max),
        held_per_principal_max: limits.held_per_agent.unwrap_or(usual.held_per_principal_max),
        held_bytes_per_principal_max: mib(limits.held_mib_per_agent, usual.held_bytes_per_principal_max),
        streams_per_principal_max: limits.streams_per_agent.unwrap_or(usual.streams_per_principal_max),
        ..usual
    }
}
