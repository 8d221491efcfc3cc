//! What ffmpeg and tsreport find in streams and files.

use std::path::Path;
use std::process::Command;

/// The MD5s that an ffmpeg makes of a track, with these options.
pub(crate) fn md5s(ffmpeg: &str, path: &Path, track: &str, options: &[&str]) -> Vec<String> {
    let mut command = Command::new(ffmpeg);
    command.args(["-v", "error", "-i"]).arg(path).args(["-map", track]).args(options);
    let output = command.args(["-f", "framemd5", "-"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // Stream, DTS, PTS, duration, size; data beside the packet may follow.
    lines.map(|line| line.split(',').nth(5).unwrap().trim().to_string()).collect()
}

/// What ffmpeg says about a file: nothing, if it is good.
pub(crate) fn warnings(path: &Path) -> Vec<String> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "warning", "-i"]).arg(path).args(["-map", "0:v?", "-map", "0:a?", "-f", "null", "-"]);
    let output = ffmpeg.output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    // It takes the table of events for a stream, and wonders that it has no time.
    let told = told.lines().filter(|line| !line.is_empty() && !line.contains(NO_TIME_OF_EVENTS));
    told.map(str::to_owned).collect()
}

/// The numbers of each PCR as tsreport lists them, the first of which is when it came; from one to the next it is at most
/// 40 ms.
pub(crate) fn pcrs(path: &Path) -> Vec<Vec<u64>> {
    let output = Command::new("tsreport").args(["-timing", "-err", "stdout"]).arg(path).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    let pcrs = report.lines().filter_map(|line| line.trim_start_matches([' ', '.']).strip_prefix("PCR"));
    let pcrs: Vec<Vec<u64>> =
        pcrs.map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect()).collect();
    assert!(pcrs.len() > 100, "{report}");
    let longest = pcrs.windows(2).map(|pair| pair[1][0] - pair[0][0]).max().unwrap();
    assert!(longest <= 40 * 27_000, "{longest} ticks from PCR to PCR");
    pcrs
}

const NO_TIME_OF_EVENTS: &str = "start time for stream 2 is not set in estimate_timings_from_pts";
