//! Medians over the runs, the table people read and the JSON that machines read.

use serde_json::{Map, Value, json};

use crate::run::Sample;

/// What one peer showed in one scenario.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) is_anabranch: bool,
    pub(crate) command: String,
    pub(crate) runs: Vec<Sample>,
    /// Why it was skipped, or what went wrong.
    pub(crate) troubles: Vec<String>,
}

/// One scenario with everybody in it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) about: String,
    pub(crate) baselines: Vec<Sample>,
    pub(crate) entries: Vec<Entry>,
}

/// Figures where a median would hide the bad run: the worst one counts.
const WORST: [&str; 9] = [
    "lost",
    "worst_socket_lost",
    "duplicates",
    "reordered",
    "strays",
    "reshaped",
    "sink_drops",
    "feed_late_max_us",
    "foreign_cpu_percent",
];

/// Head, figure and digits after the point.
const COLUMNS: [(&str, &str, usize); 12] = [
    ("us/dgram", COST, 3),
    ("s/Gbit", "cpu_s_per_gbit", 4),
    ("lost", "lost", 0),
    ("dup", "duplicates", 0),
    ("reord", "reordered", 0),
    ("p50 us", "latency_p50_us", 1),
    ("p99 us", "latency_p99_us", 1),
    ("jit99 us", "jitter_p99_us", 1),
    ("+p50 us", "added_p50_us", 1),
    ("+p99 us", "added_p99_us", 1),
    ("RSS MB", "rss_peak_mb", 1),
    ("switch/s", "switches_per_s", 0),
];

const COST: &str = "cpu_us_per_datagram";

/// Above this the table warns that something else ran on the subject's CPU.
const FOREIGN_PERCENT: f64 = 5.0;
/// Above this the feed itself was held up: latency is not touched by that, but datagrams came in bursts.
const FEED_LATE_US: f64 = 1000.0;

impl Outcome {
    pub(crate) fn print(&self) {
        println!("\n{}: {}", self.name, self.about);
        let baseline = summary(&self.baselines);
        if let Some(p50) = baseline.get("latency_p50_us") {
            println!(
                "  feed to sink without anybody between: p50 {p50:.1} us, p99 {:.1} us",
                baseline["latency_p99_us"]
            );
        }
        if self.entries.iter().any(|entry| entry.runs.iter().any(|run| run.contains_key(COST))) {
            self.print_table();
        } else {
            self.print_list();
        }
        for entry in &self.entries {
            for trouble in &entry.troubles {
                println!("  !! {}: {trouble}", entry.name);
            }
            let median = summary(&entry.runs);
            let figure = |name| median.get(name).copied().unwrap_or(0.0);
            if figure("foreign_cpu_percent") > FOREIGN_PERCENT {
                println!(
                    "  !! {}: noisy, others used up to {:.0} % of its CPU",
                    entry.name,
                    figure("foreign_cpu_percent")
                );
            }
            if figure("feed_late_max_us") > FEED_LATE_US {
                println!("  !! {}: noisy, the feed was up to {:.0} us late", entry.name, figure("feed_late_max_us"));
            }
            if figure("sink_drops") > 0.0 {
                println!("  !! {}: {:.0} of the lost were lost by the sink", entry.name, figure("sink_drops"));
            }
        }
    }

    fn print_table(&self) {
        let heads: String = COLUMNS.iter().map(|(head, ..)| format!(" {head:>8}")).collect();
        println!("  {:<18}{heads}  anabranch/peer", "peer");
        for entry in self.entries.iter().filter(|entry| !entry.runs.is_empty()) {
            let median = summary(&entry.runs);
            let figure = |name: &str| median.get(name).copied().unwrap_or(f64::NAN);
            let ratio = self.ratio(entry).map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
            let cells: String =
                COLUMNS.iter().map(|&(_, name, digits)| format!(" {:>8.digits$}", figure(name))).collect();
            println!("  {:<18}{cells}  {ratio}", entry.name);
        }
    }

    fn print_list(&self) {
        for entry in &self.entries {
            for (name, value) in summary(&entry.runs) {
                println!("  {} {name} {value:.2}", entry.name);
            }
        }
    }

    /// What the engine costs for each datagram, in shares of what this peer costs in the same runs.
    fn ratio(&self, entry: &Entry) -> Option<f64> {
        let ours = self.entries.iter().find(|entry| entry.is_anabranch && !entry.runs.is_empty())?;
        Some(summary(&ours.runs).get(COST)? / summary(&entry.runs).get(COST)?)
    }

    pub(crate) fn json(&self) -> Value {
        let peers: Vec<_> = self.entries.iter().map(|entry| self.entry_json(entry)).collect();
        json!({
            "name": self.name,
            "about": self.about,
            "baseline": summary(&self.baselines),
            "peers": peers,
        })
    }

    fn entry_json(&self, entry: &Entry) -> Value {
        json!({
            "name": entry.name,
            "command": entry.command,
            "result": summary(&entry.runs),
            "anabranch_ratio": self.ratio(entry),
            "runs": entry.runs,
            "troubles": entry.troubles,
        })
    }
}

/// Median of each figure over the runs, or the worst where a median would hide something.
pub(crate) fn summary(runs: &[Sample]) -> Sample {
    let names = runs.first().map(|run| run.keys().copied().collect::<Vec<_>>()).unwrap_or_default();
    let figure = |name| {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| run.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        let at = if WORST.contains(&name) { values.len() - 1 } else { values.len() / 2 };
        (name, values[at])
    };
    names.into_iter().map(figure).collect()
}

/// Where and how it was measured.
pub(crate) fn machine() -> Map<String, Value> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let figures = [
        ("cpus", json!(cpus)),
        ("cpu_model", json!(model.trim_start_matches([' ', '\t', ':']))),
        ("kernel", json!(read("/proc/sys/kernel/osrelease").trim())),
        ("rmem_max_bytes", json!(read("/proc/sys/net/core/rmem_max").trim())),
        ("load_average", json!(read("/proc/loadavg").trim())),
    ];
    figures.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
