//! The session itself, and who is believed: rustls without a socket or a clock.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error, InvalidMessage, RootCertStore, ServerConfig,
    ServerConnection,
};

use super::{Failure, SetupError};
use crate::units::Time;

/// Who a server is: its certificate and key.
#[derive(Clone)]
pub(in crate::adapters) struct Identity(Arc<ServerConfig>);

/// Whom a client believes.
#[derive(Clone)]
pub(in crate::adapters) struct Trust(Arc<ClientConfig>);

/// One side of a connection.
pub(in crate::adapters) struct Session {
    connection: Connection,
    deadline: Time,
    failure: Option<Failure>,
}

impl Identity {
    /// From files in PEM: the certificate with those that vouch for it, and its key.
    ///
    /// # Errors
    /// If they cannot be read, or do not belong together.
    pub(in crate::adapters) fn read(certificate: &Path, key: &Path) -> Result<Self, SetupError> {
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key, &error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
        let config = config.map_err(|_| SetupError::Key { path: key.display().to_string() })?;
        Ok(Self(Arc::new(config)))
    }
}

impl Trust {
    /// Those whom browsers believe, as this program was built with them.
    ///
    /// # Errors
    /// None that there is a reason for.
    pub(in crate::adapters) fn public() -> Result<Self, SetupError> {
        static PUBLIC: OnceLock<Option<Trust>> = OnceLock::new();
        let build = || Self::with(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
        let trust = PUBLIC.get_or_init(build).clone();
        trust.ok_or_else(|| SetupError::File { path: "built-in roots".into(), problem: "cannot be used".into() })
    }

    /// Those in a file in PEM and nobody else.
    ///
    /// # Errors
    /// If it cannot be read, or one of them is none.
    pub(in crate::adapters) fn read(authorities: &Path) -> Result<Self, SetupError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities)? {
            roots.add(certificate).map_err(|error| file_error(authorities, &error))?;
        }
        Self::with(roots).ok_or_else(|| file_error(authorities, &"cannot be used"))
    }

    fn with(roots: RootCertStore) -> Option<Self> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().ok()?;
        Some(Self(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl Session {
    /// Of who called `host`, whose certificate must be for that name or address.
    ///
    /// # Errors
    /// If `host` cannot be the name of a server.
    pub(in crate::adapters) fn client(now: Time, trust: &Trust, host: &str) -> Result<Self, SetupError> {
        let wrong = || SetupError::Name(host.to_owned());
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| wrong())?;
        let connection = ClientConnection::new(Arc::clone(&trust.0), name).map_err(|_| wrong())?;
        Ok(Self::new(now, connection.into()))
    }

    /// Of who was called.
    ///
    /// # Errors
    /// None that there is a reason for.
    pub(in crate::adapters) fn server(now: Time, identity: &Identity) -> io::Result<Self> {
        let connection = ServerConnection::new(Arc::clone(&identity.0)).map_err(io::Error::other)?;
        Ok(Self::new(now, connection.into()))
    }

    fn new(now: Time, mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(BUFFER_BYTES));
        Self { connection, deadline: now + HANDSHAKE_MAX, failure: None }
    }

    /// Why nothing more goes, if that is so.
    pub(in crate::adapters) const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Whether nothing waits to be written.
    pub(in crate::adapters) fn is_flushed(&self) -> bool {
        !self.connection.wants_write()
    }

    /// When the handshake must be over; `None` once it is.
    pub(in crate::adapters) fn poll_timeout(&self) -> Option<Time> {
        (self.connection.is_handshaking() && self.failure.is_none()).then_some(self.deadline)
    }

    /// The clock goes on to `now`.
    pub(in crate::adapters) fn handle_timeout(&mut self, now: Time) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.failure = Some(Failure::Slow);
        }
    }

    /// What the peer said, read from `stream` as far as that is needed. Zero bytes are its end, said or not.
    ///
    /// # Errors
    /// As the stream's, `WouldBlock` if there is nothing now; `InvalidData` with a [`Failure`].
    pub(in crate::adapters) fn read(
        &mut self,
        stream: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        for _ in 0..READS_MAX {
            match self.connection.reader().read(buffer) {
                // What was said before something went wrong was said.
                Err(_) if self.failure.is_some() => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Few say that they are done; of a live stream, nothing is taken to be complete that is not.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.connection.read_tls(stream)? == 0 {
                let _ = self.connection.process_new_packets();
                return Ok(0);
            }
            let is_first = self.connection.is_handshaking() && self.connection.protocol_version().is_none();
            let processed = self.connection.process_new_packets();
            // Answers of the handshake, and alerts.
            let pushed = self.flush(stream);
            if let Err(error) = processed {
                self.failure = Some(failure_of(&error, is_first));
            } else if let Err(error) = pushed
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Err(error);
            }
        }
        self.failure.get_or_insert(Failure::Broken);
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Takes bytes for the peer, and how many. They leave at once as far as `stream` takes them, and else with a later
    /// [`Session::flush`].
    ///
    /// # Errors
    /// `WouldBlock` until the handshake is over and while what was taken waits; else the stream's.
    pub(in crate::adapters) fn write(&mut self, stream: &mut impl Write, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(stream)?;
        if self.connection.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.connection.writer().write_vectored(parts)?;
        match self.flush(stream) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// `WouldBlock` if the stream does not take all of it now; else the stream's.
    pub(in crate::adapters) fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Says that nothing more will come, as far as that leaves at once.
    pub(in crate::adapters) fn close(&mut self, stream: &mut impl Write) {
        self.connection.send_close_notify();
        let _ = self.flush(stream);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// What went wrong; `is_first` if nothing of the peer was understood before.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "there are dozens of ways to break the protocol, and no end of them"
)]
fn failure_of(error: &Error, is_first: bool) -> Failure {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::MessageTooLarge,
        ) if is_first => Failure::NotTls,
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => Failure::UnknownIssuer,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Failure::WrongName,
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Failure::Expired,
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Failure::Certificate,
        Error::AlertReceived(_) => Failure::Refused,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::Incompatible,
        _ => Failure::Broken,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain: Vec<_> = read.map_err(|error| file_error(path, &error))?;
    if chain.is_empty() { Err(file_error(path, &"no certificate inside")) } else { Ok(chain) }
}

fn file_error(path: &Path, problem: &dyn fmt::Display) -> SetupError {
    SetupError::File { path: path.display().to_string(), problem: problem.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// How long a handshake may take. Judgement: two round trips over the worst path, and some lost packets.
const HANDSHAKE_MAX: Duration = Duration::from_secs(8);
/// What waits to be written, before and after encryption. Judgement: four records of the longest.
const BUFFER_BYTES: usize = 64 << 10;
/// Reads without anything for us, of 4 KiB each: a record has at most 16 KiB and a handshake 64 KiB, so who needs more
/// sends empty records without end.
const READS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn bytes_go_both_ways_in_pieces_of_any_size() {
        for step in [1, 7, 1_000, 100_000] {
            let (mut client, mut server) = pair("localhost", &own());
            let mut pipe = Pipe { step, ..Pipe::default() };
            let there: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
            let (mut sent, mut came, mut back) = (0, Vec::new(), Vec::new());
            let mut answered = 0;
            while came.len() < there.len() || back.len() < 1_000 {
                let (mut left, mut right) = pipe.ends();
                sent += taken(client.write(&mut left, &[IoSlice::new(&there[sent..]), IoSlice::new(&[])]));
                let mut buffer = [0; 3_000];
                let read = taken(server.read(&mut right, &mut buffer));
                came.extend_from_slice(&buffer[..read]);
                answered += taken(server.write(&mut right, &[IoSlice::new(&[9; 1_000][answered..])]));
                let read = taken(client.read(&mut left, &mut buffer));
                back.extend_from_slice(&buffer[..read]);
                assert!(left.out.len() <= step && right.out.len() <= step);
                pipe.pass();
            }
            assert!(came == there && back == [9; 1_000], "{step}");
            assert_eq!((client.poll_timeout(), server.poll_timeout()), (None, None));
            let (mut left, _) = pipe.ends();
            client.close(&mut left);
            for _ in 0..200 {
                let (mut left, _) = pipe.ends();
                let _ = client.flush(&mut left);
                pipe.pass();
            }
            let (_, mut right) = pipe.ends();
            assert_eq!(server.read(&mut right, &mut [0; 10]).unwrap(), 0, "the end is said");
        }
    }

    #[test]
    fn whoever_is_not_the_one_that_was_called_is_refused_on_both_sides() {
        for (host, trust, expected) in [
            ("localhost", Trust::public().unwrap(), Failure::UnknownIssuer),
            ("elsewhere.example", own(), Failure::WrongName),
            ("127.0.0.2", own(), Failure::WrongName),
        ] {
            let (mut client, mut server) = pair(host, &trust);
            let mut pipe = Pipe { step: 100_000, ..Pipe::default() };
            for _ in 0..6 {
                let (mut left, mut right) = pipe.ends();
                let _ = client.write(&mut left, &[IoSlice::new(b"secret")]);
                let _ = client.read(&mut left, &mut [0; 100]);
                let read = server.read(&mut right, &mut [0; 100]);
                assert!(!matches!(read, Ok(1..)), "nothing was sent to it");
                pipe.pass();
            }
            assert_eq!((client.failure(), server.failure()), (Some(expected), Some(Failure::Refused)), "{host}");
            assert_eq!((client.poll_timeout(), server.poll_timeout()), (None, None));
        }
        for host in ["localhost", "127.0.0.1"] {
            let (mut client, mut server) = pair(host, &own());
            shake_hands(&mut client, &mut server);
            assert_eq!((client.poll_timeout(), client.failure()), (None, None), "{host}");
        }
    }

    #[test]
    fn what_was_said_before_an_alert_is_heard() {
        let (mut client, mut server) = pair("localhost", &own());
        let mut pipe = shake_hands(&mut client, &mut server);
        let (mut left, _) = pipe.ends();
        assert_eq!(taken(client.write(&mut left, &[IoSlice::new(b"last words")])), 10);
        pipe.pass();
        // A record that nobody can decrypt.
        pipe.to_server.extend([23, 3, 3, 0, 32]);
        pipe.to_server.extend([0; 32]);
        let (_, mut right) = pipe.ends();
        let mut buffer = [0; 100];
        assert_eq!(server.read(&mut right, &mut buffer).unwrap(), 10);
        assert_eq!(server.read(&mut right, &mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(server.failure(), Some(Failure::Broken));
    }

    #[test]
    fn slow_and_foreign_callers_are_told_apart() {
        let (_, mut server) = pair("localhost", &own());
        assert_eq!(server.poll_timeout(), Some(Time::ZERO + HANDSHAKE_MAX));
        server.handle_timeout(Time::ZERO + HANDSHAKE_MAX);
        assert_eq!(server.failure(), Some(Failure::Slow));
        // An RTMP client that knows no TLS; a web browser that does not, either.
        for first in [&[3; 1_537][..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let (_, mut server) = pair("localhost", &own());
            let mut pipe = Pipe { step: 100_000, ..Pipe::default() };
            pipe.to_server.extend(first);
            let (_, mut right) = pipe.ends();
            assert_eq!(server.read(&mut right, &mut [0; 10]).unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(server.failure(), Some(Failure::NotTls), "{first:?}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let missing = Identity::read(&at("none.pem"), &at("key.pem")).unwrap_err().to_string();
        assert!(missing.contains("none.pem"), "{missing}");
        let other = Identity::read(&at("cert.pem"), &at("ca-key.pem")).unwrap_err();
        assert_eq!(other, SetupError::Key { path: at("ca-key.pem").display().to_string() });
        let none = Trust::read(&at("key.pem")).unwrap_err().to_string();
        assert!(none.contains("key.pem: no certificate inside"), "{none}");
        assert_eq!(
            Session::client(Time::ZERO, &Trust::public().unwrap(), "a b").unwrap_err(),
            SetupError::Name("a b".into())
        );
    }

    /// Two ends with bytes between them that go on step by step.
    #[derive(Default)]
    struct Pipe {
        step: usize,
        to_server: VecDeque<u8>,
        to_client: VecDeque<u8>,
        from_client: Vec<u8>,
        from_server: Vec<u8>,
    }

    struct End<'a> {
        input: &'a mut VecDeque<u8>,
        out: &'a mut Vec<u8>,
        room: usize,
    }

    impl Pipe {
        fn ends(&mut self) -> (End<'_>, End<'_>) {
            let Self { step, to_server, to_client, from_client, from_server } = self;
            let left = End { input: to_client, out: from_client, room: *step };
            (left, End { input: to_server, out: from_server, room: *step })
        }

        fn pass(&mut self) {
            self.to_server.extend(self.from_client.drain(..));
            self.to_client.extend(self.from_server.drain(..));
        }
    }

    impl Read for End<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.input.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.input.read(buffer)
        }
    }

    impl Write for End<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room - self.out.len());
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.out.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn taken(result: io::Result<usize>) -> usize {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other.unwrap(),
        }
    }

    fn shake_hands(client: &mut Session, server: &mut Session) -> Pipe {
        let mut pipe = Pipe { step: 100_000, ..Pipe::default() };
        for _ in 0..6 {
            let (mut left, mut right) = pipe.ends();
            let _ = client.read(&mut left, &mut [0; 100]);
            let _ = server.read(&mut right, &mut [0; 100]);
            let _ = client.flush(&mut left);
            pipe.pass();
        }
        pipe
    }

    fn own() -> Trust {
        Trust::read(&at("ca.pem")).unwrap()
    }

    fn pair(host: &str, trust: &Trust) -> (Session, Session) {
        let identity = Identity::read(&at("cert.pem"), &at("key.pem")).unwrap();
        let client = Session::client(Time::ZERO, trust, host).unwrap();
        (client, Session::server(Time::ZERO, &identity).unwrap())
    }

    /// An authority of our own, and a certificate of it for this machine.
    fn at(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
    }
}
