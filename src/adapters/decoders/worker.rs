//! The process that decodes: reads jobs, writes outcomes, and can do nothing else.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use crate::media::watch::wire::MESSAGE_BYTES_MAX;

/// Runs as a decoder for the process that started this one, until that closes the connection; for programs that were started
/// with [`WORKER_ARGUMENT`](crate::adapters::watchers::WORKER_ARGUMENT).
///
/// The connection is the standard input. Before anything is read from there the process gives up what it does not
/// need: memory beyond 1 GiB, new files, new privileges, and where the system can filter them, most system calls. Then it
/// says that it is ready, with a message of no bytes.
#[must_use]
pub fn run_decode_worker() -> ExitCode {
    #[cfg(target_os = "linux")]
    {
        match imp::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(super) use imp::{connection, serve};

#[cfg(target_os = "linux")]
mod imp {
    use std::fs::File;
    use std::io;
    use std::mem::ManuallyDrop;
    use std::os::fd::AsFd;

    use super::super::pool::{Bench, InProcess};
    use super::super::system::{confine, filter_system_calls, lower_priority};
    use super::{READY, TESTS, read_message, write_message};
    use crate::media::watch::Examiners;
    use crate::media::watch::wire::Request;

    pub(super) fn run() -> io::Result<()> {
        let connection = connection()?;
        let tests = std::env::var_os(TESTS).is_some();
        std::panic::set_hook(Box::new(|_| {}));
        lower_priority(true);
        confine()?;
        // Where it does not work, as in some containers, the other limits have to do.
        let _without_is_allowed = filter_system_calls();
        serve(connection, tests)
    }

    /// Never closed: that is a system call which is not allowed any more.
    pub(in super::super) fn connection() -> io::Result<ManuallyDrop<File>> {
        Ok(ManuallyDrop::new(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// Does jobs until there are no more.
    pub(in super::super) fn serve(mut connection: ManuallyDrop<File>, tests: bool) -> io::Result<()> {
        let mut bench = InProcess::new(Examiners::apart());
        let mut message = Vec::new();
        write_message(&mut *connection, READY)?;
        while read_message(&mut *connection, &mut message)? {
            match Request::decode(&message).map_err(|_| io::ErrorKind::InvalidData)? {
                Request::Do(stream, job) => {
                    if tests && let Some(unit) = job.units.first() {
                        misbehave(&unit.bytes);
                    }
                    write_message(&mut *connection, &bench.run(stream, job).encode())?;
                }
                Request::Forget(stream) => bench.forget(stream),
            }
        }
        Ok(())
    }

    /// What hostile units might bring a decoder to do, for tests.
    fn misbehave(bytes: &[u8]) {
        match bytes {
            b"abort" => std::process::abort(),
            b"open" => drop(File::open("/etc/hostname")),
            b"fill" => drop(vec![1_u8; 2 << 30]),
            _ => {}
        }
    }
}

/// Reads a message: its length in four bytes, and so many. False at the end.
pub(super) fn read_message(from: &mut impl Read, message: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.clear();
    message.resize(length, 0);
    from.read_exact(message)?;
    Ok(true)
}

/// Writes a message.
pub(super) fn write_message(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    to.write_all(&(message.len() as u32).to_le_bytes())?;
    to.write_all(message)
}

/// What it sends before anything else.
pub(super) const READY: &[u8] = &[];
/// If this is set in the environment units may say what is to go wrong.
const TESTS: &str = "ANABRANCH_DECODE_WORKER_TESTS";
