//! What both tests ask ffmpeg and tsreport for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder to work in; `None`, and says so, if a tool is missing.
pub(crate) fn tools(names: &[&str]) -> Option<tempfile::TempDir> {
    for name in names {
        let run = Command::new(name).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if run.is_err() {
            assert!(std::env::var_os("ANABRANCH_REQUIRE_PEERS").is_none(), "{name} is not installed");
            eprintln!("SKIPPED: {name} is not installed");
            return None;
        }
    }
    Some(tempfile::tempdir().unwrap())
}

/// Ten seconds by ffmpeg.
pub(crate) fn make(options: &[&str], to: &Path) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-y", "-nostdin"]);
    ffmpeg.args(options.iter().flat_map(|options| options.split(' '))).args(["-t", "10"]).arg(to);
    assert!(ffmpeg.status().unwrap().success(), "{options:?}");
}

pub(crate) fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// What each decoded frame of a track is, by its MD5.
pub(crate) fn frames(path: &Path, track: &str) -> Vec<String> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(path);
    let output = ffmpeg.args(["-map", track, "-fps_mode", "passthrough", "-f", "framemd5", "-"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().unwrap().trim().to_string()).collect()
}

/// What ffmpeg says about a file: nothing, if it is good.
pub(crate) fn warnings(path: &Path) -> Vec<String> {
    let output = Command::new("ffmpeg").args(["-v", "warning", "-i"]).arg(path).args(["-f", "null", "-"]).output();
    let output = output.unwrap();
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
    assert!(pcrs.len() > 400, "{report}");
    let longest = pcrs.windows(2).map(|pair| pair[1][0] - pair[0][0]).max().unwrap();
    assert!(longest <= 40 * 27_000, "{longest} ticks from PCR to PCR");
    pcrs
}

const NO_TIME_OF_EVENTS: &str = "start time for stream 2 is not set in estimate_timings_from_pts";

pub(crate) const PICTURE: &str = "-f lavfi -i testsrc2=s=640x360:r=25,noise=alls=8:allf=t,format=yuv420p";
pub(crate) const SOUND: &str = "-f lavfi -i sine=1000:r=48000";
