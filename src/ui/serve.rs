//! stub
use super::{Failure, cli};
pub(super) fn run(_s: cli::Serve) -> Result<(), Failure> {
    Ok(())
}
