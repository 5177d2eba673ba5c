//! The byte streams under HTTP: plain, or with TLS.
//!
//! Used by the listener, by that of a desk, and by the connections to servers. It checks certificates and never looks at what is inside.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::identity::agent_named;
use crate::principal::{Principal, certificate_identity};

/// Bytes up to which several pieces are written as one.
const SMALL_WRITE_BYTES: usize = 1024;

/// A connection, plain or encrypted.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Passes one call on to whichever stream it is.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if let (Self::Plain(stream), true) = (&mut *self, bytes <= SMALL_WRITE_BYTES) {
            // A head and a small body: one buffer costs the system less than several.
            let mut joined = [0; SMALL_WRITE_BYTES];
            let mut end = 0;
            for slice in slices {
                joined[end..end + slice.len()].copy_from_slice(slice);
                end += slice.len();
            }
            return Pin::new(stream).poll_write(cx, &joined[..end]);
        }
        each!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}

/// How a server with TLS is reached.
#[derive(Clone)]
pub struct ClientTls {
    /// What is trusted.
    pub config: Arc<ClientConfig>,
    /// The name that its certificate must have.
    pub name: ServerName<'static>,
}

impl ClientTls {
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<Stream> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

/// What the listener shows, and what it asks to see.
pub struct ServerTls {
    config: ArcSwap<ServerConfig>,
}

/// Where the listener's certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// The certificate and those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The authorities whose clients are let in, in PEM. None: clients need no certificate.
    pub client_roots: Option<PathBuf>,
    /// Whether a client without a certificate may show who it is in another way.
    pub client_certificate_is_optional: bool,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
}

/// Certificates or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("`{}` cannot be used: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// They do not belong together.
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
}

fn file_error(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn unusable(error: impl ToString) -> TlsError {
    TlsError::Unusable(error.to_string())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|error| file_error(path, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(file_error(path, "there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(file_error(path, error)),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| file_error(path, error))?;
    }
    Ok(store)
}

impl ServerTls {
    /// Reads what `files` hold.
    ///
    /// # Errors
    ///
    /// When anything of it is missing, broken or of something else.
    pub fn load(files: &ServerTlsFiles) -> Result<Self, TlsError> {
        Ok(Self { config: ArcSwap::from(server_config(files)?) })
    }

    /// Reads them again, for connections from now on.
    ///
    /// # Errors
    ///
    /// As [`ServerTls::load`]; what was in use stays in use then.
    pub fn reload(&self, files: &ServerTlsFiles) -> Result<(), TlsError> {
        self.config.store(server_config(files)?);
        Ok(())
    }

    /// Shakes hands on `stream`. The client's certificate, if it has shown one.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<ClientCertificate>)> {
        let stream = TlsAcceptor::from(self.config.load_full()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
        Ok((TlsStream::Server(stream), shown.map(ClientCertificate)))
    }
}

/// A certificate that a client has shown, and that the listener has verified.
pub(crate) struct ClientCertificate(CertificateDer<'static>);

impl ClientCertificate {
    /// The agent that it names: by its first URI or DNS name, else by its common name.
    pub(crate) fn agent(&self) -> Option<Arc<Principal>> {
        agent_named(&self.name(|_| None)?)
    }

    /// The identity of the person that it names, for `people:` in policies: by its first mail address, URI or DNS name, else by
    /// its common name. None, if that cannot be an identity.
    pub(crate) fn person(&self) -> Option<String> {
        certificate_identity(&self.name(|name| match name {
            GeneralName::RFC822Name(address) => Some((*address).to_owned()),
            _ => None,
        })?)
    }

    /// The first alternative name that `other` takes, or that is a URI or a DNS name; else the common name.
    fn name(&self, other: impl Fn(&GeneralName<'_>) -> Option<String>) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(&self.0).ok()?;
        let alternative = certificate.subject_alternative_name().ok().flatten().and_then(|names| {
            names.value.general_names.iter().find_map(|name| match name {
                GeneralName::URI(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
                other_name => other(other_name),
            })
        });
        let common = || Some(certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned());
        alternative.or_else(common)
    }
}

fn server_config(files: &ServerTlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file_error(&files.key, error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &files.client_roots {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider);
            let verifier = if files.client_certificate_is_optional {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    let spoken = [files.http2.then_some(&b"h2"[..]), Some(b"http/1.1")];
    config.alpn_protocols = spoken.into_iter().flatten().map(<[u8]>::to_vec).collect();
    Ok(Arc::new(config))
}

impl ClientTls {
    /// Trusts what is in `private_roots`, or what this system trusts, to be the server `name`.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or the system has no roots.
    pub fn new(name: ServerName<'static>, private_roots: Option<&Path>) -> Result<Self, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let config = match private_roots {
            Some(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
            None => {
                let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(unusable)?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
            }
        };
        Ok(Self { config: Arc::new(config), name })
    }
}
