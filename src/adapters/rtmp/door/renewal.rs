//! The certificate of a port, which is renewed in its files while the port is open.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use crate::adapters::tls::{Identity, IdentityFiles, SetupError};

/// Who a port says it is.
#[derive(Debug)]
pub(super) struct Certificate {
    files: IdentityFiles,
    identity: Identity,
}

impl Certificate {
    pub(super) fn read(files: &IdentityFiles) -> Result<Self, SetupError> {
        let identity = Identity::read(&files.certificate, &files.key)?;
        Ok(Self { files: files.clone(), identity })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity.clone()
    }
}

/// A thread of its own reads the files again and again, as it may have to wait for them. It ends with what is given back.
pub(super) fn start(name: &str, certificate: &Arc<Mutex<Certificate>>) -> io::Result<SyncSender<Infallible>> {
    let (open, closed) = sync_channel(0);
    let certificate = Arc::clone(certificate);
    std::thread::Builder::new().name(format!("{name}-tls")).spawn(move || {
        let mut problem = None;
        while closed.recv_timeout(RENEWED_APART) == Err(RecvTimeoutError::Timeout) {
            renew(&certificate, &mut problem);
        }
    })?;
    Ok(open)
}

/// As long as the files cannot be used, as while they are being written, what they had before goes on; `problem` is told once.
fn renew(certificate: &Mutex<Certificate>, problem: &mut Option<SetupError>) {
    let files = lock(certificate).files.clone();
    match Certificate::read(&files) {
        Ok(new) => {
            *problem = None;
            let mut certificate = lock(certificate);
            // Whoever came meanwhile may have brought others.
            if certificate.files == files {
                *certificate = new;
            }
        }
        Err(error) if problem.as_ref() != Some(&error) => {
            tracing::warn!(%error, "a certificate cannot be read again, and stays as it was");
            *problem = Some(error);
        }
        Err(_) => {}
    }
}

/// Judgement: certificates are renewed weeks before they end, and whoever replaces one by hand wants to see it soon.
const RENEWED_APART: Duration = Duration::from_secs(60);

#[cfg(test)]
#[cfg(feature = "tls")]
mod tests {
    use std::fs;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::path::{Path, PathBuf};

    use super::super::{Doors, Seat};
    use super::*;
    use crate::adapters::clock;
    use crate::adapters::rtmp::Key;
    use crate::adapters::socket::OpenError;
    use crate::adapters::tls::{Session, Trust};
    use crate::proto::rtmp::Role;

    #[test]
    fn a_renewed_certificate_is_shown_to_whoever_comes_next() {
        let (doors, address, home) = (Doors::new(None), free(), tempfile::tempdir().unwrap());
        let files = IdentityFiles { certificate: home.path().join("cert.pem"), key: home.path().join("key.pem") };
        let write = |certificate: &str, key: &str| {
            fs::copy(pem(certificate), &files.certificate).unwrap();
            fs::copy(pem(key), &files.key).unwrap();
        };
        // What vouches for others is no server's.
        write("ca.pem", "ca-key.pem");
        let seat = join(&doors, address, &files, "one");
        let certificate = seat.door.shared.certificate.as_deref().unwrap();
        let mut problem = None;
        assert!(!is_believed(address));
        write("cert.pem", "ca-key.pem");
        renew(certificate, &mut problem);
        assert!(problem.is_some() && !is_believed(address), "half of it");
        write("cert.pem", "key.pem");
        renew(certificate, &mut problem);
        assert!(problem.is_none() && is_believed(address));
    }

    #[test]
    fn flows_that_share_a_port_can_move_to_other_files() {
        let (doors, address) = (Doors::new(None), free());
        let files = |certificate, key| IdentityFiles { certificate: pem(certificate), key: pem(key) };
        let _one = join(&doors, address, &files("ca.pem", "ca-key.pem"), "one");
        let _two = join(&doors, address, &files("cert.pem", "key.pem"), "two");
        assert!(is_believed(address));
    }

    #[test]
    fn who_finds_no_place_at_a_port_leaves_its_certificate_alone() {
        let (doors, address) = (Doors::new(None), free());
        let files = |certificate, key| IdentityFiles { certificate: pem(certificate), key: pem(key) };
        let _one = join(&doors, address, &files("cert.pem", "key.pem"), "one");
        assert!(try_join(&doors, address, &files("ca.pem", "ca-key.pem"), "one").is_err());
        assert!(is_believed(address));
    }

    fn join(doors: &Doors, address: SocketAddr, files: &IdentityFiles, key: &str) -> Seat {
        try_join(doors, address, files, key).unwrap()
    }

    fn try_join(doors: &Doors, address: SocketAddr, files: &IdentityFiles, key: &str) -> Result<Seat, OpenError> {
        let key = Key::new(key).unwrap();
        doors.join((address, Some(files)), Role::Publisher, ("live", &key))
    }

    /// By one who knows the authority.
    fn is_believed(address: SocketAddr) -> bool {
        let trust = Trust::read(&pem("ca.pem")).unwrap();
        let mut session = Session::client(clock::now(), &trust, "localhost").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        session.flush(&mut stream).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while session.poll_timeout().is_some() {
            let _ = session.read(&mut stream, &mut [0; 10]);
        }
        session.failure().is_none()
    }

    fn free() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
    }

    fn pem(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
    }
}
