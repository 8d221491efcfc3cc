//! `Programs`: what a stream says it carries, kept up to date from its tables.

use std::time::Duration;

use super::packet::Pid;
use super::section::LongSection;
use super::stream::{Media, Stream, format_identifier};
use super::table::{PmtBody, conditional_access, descriptors, read_pat, read_sdt};
use super::text::read_text;
use crate::units::Time;

/// Programs, their streams and names. A table that came before costs a comparison; how often changed ones are read is
/// limited, for a stream may change them with every packet.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    stream_id: Option<u16>,
    programs: Vec<Program>,
    /// By the SDT's section and the program's number: the SDT may come before the PAT.
    services: Vec<(u8, u16, Service)>,
    nit_pid: Option<Pid>,
    /// From the CAT.
    emm_pids: Vec<Pid>,
    /// Sections of PAT, CAT and SDT that have been read, by their CRC.
    read: Vec<ReadSection>,
    window_start: Time,
    window_changes: u32,
    stats: ProgramsStats,
}

/// One program of the PAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its number, also its `service_id`.
    pub number: u16,
    /// Where its PMT is found.
    pub pmt_pid: Pid,
    /// What its PMT says; `None` until that came.
    pub pmt: Option<ProgramMap>,
    /// What the SDT calls it.
    pub service: Option<Service>,
    /// The PAT's section that lists it.
    pat_section: u8,
}

/// What a PMT says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramMap {
    /// Five bits.
    pub version: u8,
    /// Where its clock is found, if it has one.
    pub pcr_pid: Option<Pid>,
    /// Of the program as a whole: where keys are found.
    pub ecm_pid: Option<Pid>,
    /// In the PMT's order.
    pub streams: Vec<Stream>,
    crc: u32,
}

/// What the SDT says of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What viewers know it by.
    pub name: String,
    /// Who provides it.
    pub provider: String,
}

/// Counters of [`Programs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramsStats {
    /// Sections read because they were new.
    pub changes: u64,
    /// New sections left for their next repetition, as too many came within a second.
    pub changes_skipped: u64,
    /// Programs, streams and PIDs that there was no room for.
    pub entries_skipped: u64,
}

#[derive(Clone, Copy, Debug)]
struct ReadSection {
    table_id: u8,
    number: u8,
    crc: u32,
}

impl Programs {
    /// In the PAT's order.
    #[must_use]
    pub fn list(&self) -> &[Program] {
        &self.programs
    }

    /// `transport_stream_id` of the PAT.
    #[must_use]
    pub const fn stream_id(&self) -> Option<u16> {
        self.stream_id
    }

    /// Where the PAT says that the NIT is found.
    #[must_use]
    pub const fn nit_pid(&self) -> Option<Pid> {
        self.nit_pid
    }

    /// PIDs that the CAT refers to.
    #[must_use]
    pub fn emm_pids(&self) -> &[Pid] {
        &self.emm_pids
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> ProgramsStats {
        self.stats
    }

    /// All streams of all programs; one that several share comes several times.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.programs.iter().filter_map(|program| program.pmt.as_ref()).flat_map(|pmt| &pmt.streams)
    }

    /// Takes in a section of `pid`; true if it changed anything.
    pub fn handle_section(&mut self, now: Time, pid: Pid, section: &LongSection<'_>) -> bool {
        let is_known = match (section.table_id, pid) {
            (TABLE_ID_PAT, Pid::PAT) | (TABLE_ID_CAT, Pid::CAT) | (TABLE_ID_SDT, Pid::SDT) => {
                let same = |read: &&ReadSection| (read.table_id, read.number) == (section.table_id, section.number);
                self.read.iter().find(same).is_some_and(|read| read.crc == section.crc)
            }
            (TABLE_ID_PMT, _) => match self.programs.iter().find(|program| is_pmt_of(program, pid, section)) {
                Some(program) => program.pmt.as_ref().is_some_and(|pmt| pmt.crc == section.crc),
                None => true,
            },
            _ => true,
        };
        if is_known || !section.is_current || !self.may_change(now) {
            return false;
        }
        match section.table_id {
            TABLE_ID_PAT => self.read_pat(section),
            TABLE_ID_PMT => self.read_pmt(pid, section),
            TABLE_ID_CAT => {
                self.emm_pids = conditional_access(section.body).take(EMM_PIDS_MAX).collect();
            }
            _ => self.read_sdt(section),
        }
        if section.table_id != TABLE_ID_PMT {
            let key = |read: &ReadSection| (read.table_id, read.number) != (section.table_id, section.number);
            self.read.retain(key);
            self.read.push(ReadSection { table_id: section.table_id, number: section.number, crc: section.crc });
        }
        true
    }

    fn may_change(&mut self, now: Time) -> bool {
        if now.since(self.window_start) >= Duration::from_secs(1) {
            self.window_start = now;
            self.window_changes = 0;
        }
        self.window_changes += 1;
        let may = self.window_changes <= CHANGES_PER_SECOND_MAX;
        let counter = if may { &mut self.stats.changes } else { &mut self.stats.changes_skipped };
        *counter += 1;
        may
    }

    fn read_pat(&mut self, section: &LongSection<'_>) {
        self.stream_id = Some(section.extension);
        let mut before = std::mem::take(&mut self.programs);
        before.retain(|program| program.pat_section <= section.last_number);
        let (mut same_section, others): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|program| program.pat_section == section.number);
        self.programs = others;
        for (number, pmt_pid) in read_pat(section.body) {
            if number == 0 {
                self.nit_pid = Some(pmt_pid);
                continue;
            }
            if self.programs.len() >= PROGRAMS_MAX || self.programs.iter().any(|program| program.number == number) {
                self.stats.entries_skipped += 1;
                continue;
            }
            let known = same_section.iter().position(|program| (program.number, program.pmt_pid) == (number, pmt_pid));
            let program = known.map(|at| same_section.swap_remove(at));
            let pat_section = section.number;
            self.programs.push(program.unwrap_or(Program { number, pmt_pid, pmt: None, service: None, pat_section }));
        }
        self.name();
    }

    fn read_pmt(&mut self, pid: Pid, section: &LongSection<'_>) {
        let others = self.programs.iter().filter(|program| !is_pmt_of(program, pid, section));
        let used: usize = others.filter_map(|program| program.pmt.as_ref()).map(|pmt| pmt.streams.len()).sum();
        let Some(body) = PmtBody::parse(section.body) else { return };
        let Some(program) = self.programs.iter_mut().find(|program| is_pmt_of(program, pid, section)) else { return };
        let registration = format_identifier(body.descriptors);
        let mut streams: Vec<Stream> = Vec::new();
        for entry in body.streams() {
            if used + streams.len() >= STREAMS_MAX {
                self.stats.entries_skipped += 1;
                continue;
            }
            streams.push(Stream::new(&entry, registration));
        }
        program.pmt = Some(ProgramMap {
            version: section.version,
            pcr_pid: Some(body.pcr_pid).filter(|pid| *pid != Pid::NULL),
            ecm_pid: conditional_access(body.descriptors).next(),
            streams,
            crc: section.crc,
        });
    }

    fn read_sdt(&mut self, section: &LongSection<'_>) {
        self.services.retain(|(number, ..)| *number != section.number && *number <= section.last_number);
        for entry in read_sdt(section.body) {
            let content = descriptors(entry.descriptors).find(|(tag, _)| *tag == TAG_SERVICE);
            let Some(service) = content.and_then(|(_, content)| read_service(content)) else { continue };
            if self.services.len() >= PROGRAMS_MAX {
                self.stats.entries_skipped += 1;
                continue;
            }
            self.services.push((section.number, entry.service_id, service));
        }
        self.name();
    }

    fn name(&mut self) {
        for program in &mut self.programs {
            let service = self.services.iter().find(|(_, id, _)| *id == program.number);
            program.service = service.map(|(.., service)| service.clone());
        }
    }
}

impl ProgramMap {
    /// Whether any of its streams is `media`.
    #[must_use]
    pub fn has(&self, media: Media) -> bool {
        self.streams.iter().any(|stream| stream.media == media)
    }
}

fn is_pmt_of(program: &Program, pid: Pid, section: &LongSection<'_>) -> bool {
    (program.pmt_pid, program.number) == (pid, section.extension)
}

/// EN 300 468 6.2.33: type, then provider and name, each with its length.
fn read_service(content: &[u8]) -> Option<Service> {
    let (len, rest) = content.get(1..)?.split_first()?;
    let (provider, rest) = rest.split_at_checked(usize::from(*len))?;
    let (len, rest) = rest.split_first()?;
    let name = rest.get(..usize::from(*len))?;
    Some(Service { name: read_text(name), provider: read_text(provider) })
}

/// Programs kept. A PAT may list thousands; a multiplex has dozens.
pub const PROGRAMS_MAX: usize = 256;
/// Streams kept, of all programs together. Judgement: four of each.
pub const STREAMS_MAX: usize = 1_024;
/// PIDs kept of a CAT. Judgement: more than there are systems.
const EMM_PIDS_MAX: usize = 64;
/// New sections read within a second. Judgement: a whole multiplex comes up in a few seconds, and a flood costs no more than
/// 1 % of a core.
const CHANGES_PER_SECOND_MAX: u32 = 256;

pub(super) const TABLE_ID_PAT: u8 = 0x00;
pub(super) const TABLE_ID_CAT: u8 = 0x01;
pub(super) const TABLE_ID_PMT: u8 = 0x02;
/// Of this transport stream (EN 300 468 table 2).
pub(super) const TABLE_ID_SDT: u8 = 0x42;
const TAG_SERVICE: u8 = 0x48;
