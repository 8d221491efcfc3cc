//! In place of sessions where the feature `tls` is off: there are none.

use std::io::{self, IoSlice, Read, Write};
use std::path::Path;

use super::{Failure, SetupError};
use crate::units::Time;

/// There is none.
#[derive(Clone, Debug)]
pub(in crate::adapters) enum Identity {}

/// There is none.
#[derive(Clone, Debug)]
pub(in crate::adapters) enum Trust {}

/// There is none.
#[derive(Debug)]
pub(in crate::adapters) enum Session {}

impl Identity {
    pub(in crate::adapters) const fn read(_certificate: &Path, _key: &Path) -> Result<Self, SetupError> {
        Err(SetupError::Absent)
    }
}

impl Trust {
    pub(in crate::adapters) const fn public() -> Result<Self, SetupError> {
        Err(SetupError::Absent)
    }

    pub(in crate::adapters) const fn read(_authorities: &Path) -> Result<Self, SetupError> {
        Err(SetupError::Absent)
    }
}

impl Session {
    pub(in crate::adapters) const fn client(_now: Time, trust: &Trust, _host: &str) -> Result<Self, SetupError> {
        match *trust {}
    }

    pub(in crate::adapters) const fn server(_now: Time, identity: &Identity) -> io::Result<Self> {
        match *identity {}
    }

    pub(in crate::adapters) const fn failure(&self) -> Option<Failure> {
        match *self {}
    }

    pub(in crate::adapters) const fn is_flushed(&self) -> bool {
        match *self {}
    }

    pub(in crate::adapters) const fn poll_timeout(&self) -> Option<Time> {
        match *self {}
    }

    pub(in crate::adapters) const fn handle_timeout(&mut self, _now: Time) {
        match *self {}
    }

    pub(in crate::adapters) fn read(&mut self, _: &mut (impl Read + Write), _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(in crate::adapters) fn write(&mut self, _: &mut impl Write, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    pub(in crate::adapters) fn flush(&mut self, _: &mut impl Write) -> io::Result<()> {
        match *self {}
    }

    pub(in crate::adapters) fn close(&mut self, _: &mut impl Write) {
        match *self {}
    }
}
