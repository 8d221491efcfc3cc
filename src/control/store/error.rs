//! Why the database cannot be used, and what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::sqlite::{Failure, SCHEMA_VERSION};
use crate::control::problem::{Code, Problem};

/// Why the database cannot be used. The text is one line with the file and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not what SQLite wrote.
    #[error(
        "database {} is damaged ({detail}): put a backup in its place, or move it away to start with no flows",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite or the parser says.
        detail: String,
    },
    /// May be read but not written.
    #[error(
        "database {} is read-only: let this user write the file and its directory, or choose another storage.path",
        path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// No space left.
    #[error("no space left for database {}: free some on its disk", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Cannot be opened at all.
    #[error("database {} cannot be opened ({detail}): check that its directory exists and may be written", path.display())]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system says.
        detail: String,
    },
    /// Another process holds on to it.
    #[error("database {} is locked by another program: stop that, or choose another storage.path", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer version.
    #[error(
        "database {} has format {found}, this version knows up to {SCHEMA_VERSION}: use the newer version or a backup",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// Anything else.
    #[error("database {}: {detail}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
}

impl StoreError {
    pub(super) fn new(path: &Path, failure: Failure) -> Self {
        let path = path.to_path_buf();
        let error = match failure {
            Failure::Sqlite(error) => error,
            Failure::Row { id, problem } => return Self::Damaged { path, detail: format!("flow {id}: {problem}") },
            Failure::TooNew { found } => return Self::TooNew { path, found },
            Failure::Create(error) if error.kind() == std::io::ErrorKind::StorageFull => return Self::Full { path },
            Failure::Create(error) => return Self::CannotOpen { path, detail: error.to_string() },
        };
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { path, detail },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Self::CannotOpen { path, detail },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            _ => Self::Other { path, detail },
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Storage, error.to_string())
    }
}
