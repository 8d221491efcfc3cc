//! The scanner against what TSDuck published about streams in `tests/data/ts`: every figure that both have must be equal.

use std::collections::BTreeMap;
use std::path::Path;

use super::section::{LongSection, SectionError};
use super::table::{PmtBody, descriptors, read_pat, read_sdt};
use super::text::read_text;
use super::*;
use crate::units::{Ticks27M, Ticks90k, Time};

/// Of each PID: packets, breaks of its counter, repetitions, PES packets, clock references and what lies between them.
#[test]
fn figures_of_each_pid_are_those_of_tsduck() {
    let report = read_text_file("test-026.analyze.txt");
    let mut counts = Counts::default();
    let mut scanner = Scanner::default();
    for (n, piece) in (0..).zip(read("test-026.ts").chunks(1_316)) {
        scanner.push(Time::from_ns(n * 1_471_000), piece, &mut counts);
    }
    let blocks: Vec<&str> = report.split("|  PID: 0x").skip(1).filter(|block| block.contains("Transport:")).collect();
    assert_eq!(blocks.len(), 9);
    for block in blocks {
        let pid = Pid::from_low_bits(u16::from_str_radix(&block[..4], 16).unwrap());
        let found = scanner.pid(pid).unwrap();
        // Transport, and behind it that of PES.
        assert_eq!(Some(found.packets), figure(block, "Packets:", 0), "{pid:?}");
        assert_eq!(Some(found.duplicates), figure(block, "Duplicated:", 0), "{pid:?}");
        assert_eq!(Some(found.discontinuities), figure(block, "Expected:", 0), "{pid:?}");
        assert_eq!(Some(found.continuity_errors), figure(block, "Unexpect:", 0), "{pid:?}");
        assert_eq!(found.scrambled, 0);
        assert!(block.contains("Access: .......... Clear"));
        let starts = counts.starts.get(&pid).copied().unwrap_or_default();
        if block.contains("PES:") {
            assert_eq!(Some(found.pes_packets), figure(block, "Packets:", 1), "{pid:?}");
            assert_eq!(Some(starts), figure(block, "Packets:", 1), "{pid:?}");
        } else {
            assert_eq!(Some(starts), figure(block, "Unit start:", 0), "{pid:?}");
        }
        let (pcrs, stamps) = (counts.pcrs.get(&pid), counts.stamps.get(&pid));
        assert_eq!((found.pcrs > 0).then_some(found.pcrs), figure(block, "PCR:", 0), "{pid:?}");
        assert_eq!(stamps.map(|stamps| stamps.len() as u64), figure(block, "PTS:", 0), "{pid:?}");
        // "from" and "to" of PCR stand before those of PTS.
        let first = usize::from(pcrs.is_some());
        if let Some(pcrs) = pcrs {
            assert_eq!((pcrs.first().copied(), pcrs.last().copied()), span(block, 0), "{pid:?}");
        }
        if let Some(stamps) = stamps {
            assert_eq!((stamps.first().copied(), stamps.last().copied()), span(block, first), "{pid:?}");
        }
    }
    // TSDuck takes the mean of the rates between PCRs, we that from the first of the last 64 to the last: 1 % apart.
    let (ours, theirs) =
        (scanner.pcr_rate().unwrap().as_bps(), figure(&report, "Estimated based on PCR's:", 0).unwrap());
    assert!(ours.abs_diff(theirs) * 100 < theirs, "{ours} {theirs}");
}

/// Every table of each PID and each change of it, with programs, streams, languages and names. Between PIDs the order may
/// differ: TSDuck reads those that a PAT names only once it has seen that PAT, and again when it is named again.
#[test]
fn tables_and_their_changes_are_those_of_tsduck() {
    for (stream, report) in [("test-026.ts", "test-026.psi.txt"), ("test-103-tables.ts", "test-103.txt")] {
        let mut tables = Tables::default();
        let mut scanner = Scanner::default();
        scanner.push(Time::ZERO, &read(stream), &mut tables);
        assert_eq!(by_pid(&tables.lines), by_pid(&told(&read_text_file(report))), "{stream}");
        assert_eq!(scanner.stats().crc_errors, 0);
    }
}

#[derive(Default)]
struct Counts {
    starts: BTreeMap<Pid, u64>,
    pcrs: BTreeMap<Pid, Vec<u64>>,
    stamps: BTreeMap<Pid, Vec<u64>>,
}

impl Observer for Counts {
    fn handle_packet(&mut self, _now: Time, packet: &Seen<'_>) {
        *self.starts.entry(packet.pid).or_default() += u64::from(packet.unit_start);
    }

    fn handle_pcr(&mut self, _now: Time, pid: Pid, reading: &PcrReading) {
        let Ticks27M(pcr) = reading.pcr;
        self.pcrs.entry(pid).or_default().push(pcr);
    }

    fn handle_pes(&mut self, _now: Time, pid: &PidStats, header: &PesHeader) {
        if let Some(Ticks90k(pts)) = header.pts {
            self.stamps.entry(pid.pid).or_default().push(pts);
        }
    }
}

/// What a stream's tables say, in lines that [`told`] makes of TSDuck's report as well.
#[derive(Default)]
struct Tables {
    lines: Vec<String>,
    newest: BTreeMap<(u16, u8, u16), u32>,
}

impl Observer for Tables {
    fn handle_section(&mut self, _now: Time, pid: Pid, _id: u8, section: Result<LongSection<'_>, SectionError>) {
        // TDT and TOT have no long form, and are not in the reports.
        let Ok(section) = section else { return };
        let key = (pid.value(), section.table_id, section.extension);
        if self.newest.insert(key, section.crc) == Some(section.crc) {
            return;
        }
        let name = match section.table_id {
            0x00 => "PAT",
            0x01 => "CAT",
            0x02 => "PMT",
            0x40 => "NIT Actual",
            0x42 => "SDT Actual",
            other => panic!("table {other}"),
        };
        self.lines.push(format!("{name} {} {}", pid.value(), section.version));
        match section.table_id {
            0x00 => self
                .lines
                .extend(read_pat(section.body).map(|(program, pid)| format!("program {program} {}", pid.value()))),
            0x02 => {
                let pmt = PmtBody::parse(section.body).unwrap();
                let clock = if pmt.pcr_pid == Pid::NULL { "none".into() } else { pmt.pcr_pid.value().to_string() };
                self.lines.push(format!("clock {} {clock}", section.extension));
                for stream in pmt.streams() {
                    self.lines.push(format!("stream {:02X} {}", stream.stream_type, stream.pid.value()));
                    let languages = descriptors(stream.descriptors).filter_map(|(tag, content)| match (tag, content) {
                        (0x0a | 0x59, code) => code.get(..3),
                        (0x7f, [6, _, code @ ..]) => code.get(..3),
                        _ => None,
                    });
                    self.lines.extend(languages.map(|code| format!("language {}", String::from_utf8_lossy(code))));
                }
            }
            0x42 => {
                for service in read_sdt(section.body) {
                    self.lines.push(format!("service {} {}", service.service_id, service.has_present_following));
                    for (_, content) in descriptors(service.descriptors).filter(|(tag, _)| *tag == 0x48) {
                        let (provider, name) = content[2..].split_at(usize::from(content[1]));
                        self.lines.push(format!("name \"{}\" \"{}\"", read_text(&name[1..]), read_text(provider)));
                    }
                }
            }
            _ => {}
        }
    }
}

/// TSDuck's report of tables, as [`Tables`] writes it.
fn told(report: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut table = String::new();
    for line in report.lines().map(str::trim) {
        // What stands in brackets is the number in its other base.
        let numbers = |line: &str| -> Vec<String> {
            let parts = line.split('(').skip(1).filter_map(|part| part.split(')').next());
            parts.filter(|part| part.parse::<u32>().is_ok()).map(Into::into).collect()
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(rest) = line.strip_prefix("* ") {
            table = format!("{} {}", rest.split(',').next().unwrap(), numbers(rest).last().unwrap());
        } else if let Some(rest) = line.strip_prefix("Version: ") {
            lines.push(format!("{table} {}", rest.split(',').next().unwrap()));
        } else if line.starts_with("NIT:") || (line.starts_with("Program:") && table.starts_with("PAT")) {
            lines.push(format!("program {} {}", words[1], words[4]));
        } else if line.starts_with("Program: ") {
            let clock = numbers(line);
            lines.push(format!("clock {} {}", clock[0], clock.get(1).map_or("none", |pid| pid)));
        } else if let Some(rest) = line.strip_prefix("Elementary stream: type 0x") {
            lines.push(format!("stream {} {}", &rest[..2], numbers(line)[0]));
        } else if let Some(rest) = line.strip_prefix("Language: ") {
            lines.push(format!("language {}", &rest[..3]));
        } else if line.starts_with("Service Id: ") {
            lines.push(format!("service {} {}", numbers(line)[0], line.contains("EITp/f: yes")));
        } else if let Some(rest) = line.strip_prefix("Service: ") {
            lines.push(format!("name {}", rest.replace(", Provider:", "")));
        }
    }
    lines
}

/// Tables of each PID, without those that only came again.
fn by_pid(lines: &[String]) -> BTreeMap<&str, Vec<&[String]>> {
    let is_table = |line: &str| ["PAT", "CAT", "PMT", "NIT", "SDT"].iter().any(|name| line.starts_with(name));
    let mut pids: BTreeMap<&str, Vec<&[String]>> = BTreeMap::new();
    let starts: Vec<usize> = (0..lines.len()).filter(|at| is_table(&lines[*at])).collect();
    for (n, start) in starts.iter().enumerate() {
        let table = &lines[*start..starts.get(n + 1).copied().unwrap_or(lines.len())];
        pids.entry(table[0].rsplit(' ').nth(1).unwrap()).or_default().push(table);
    }
    pids.values_mut().for_each(|tables| tables.dedup());
    pids
}

/// The number behind the `n`-th `label`, its dots and its commas.
fn figure(text: &str, label: &str, n: usize) -> Option<u64> {
    let rest = text.split(label).nth(n + 1)?;
    let digits: String = rest.trim_start_matches([' ', '.']).chars().take_while(|c| *c != ' ' && *c != '\n').collect();
    digits.replace(',', "").parse().ok()
}

/// What stands in the `n`-th columns of the lines "from" and "to".
fn span(block: &str, n: usize) -> (Option<u64>, Option<u64>) {
    (figure(block, " from ", n), figure(block, " to ", n))
}

fn read_text_file(name: &str) -> String {
    String::from_utf8(read(name)).unwrap()
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ts").join(name)).unwrap()
}
