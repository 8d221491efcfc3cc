//! What both tests need of ffmpeg and tsreport.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::judge::md5s;
pub(crate) use super::judge::{pcrs, warnings};

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
    md5s("ffmpeg", path, track, &["-fps_mode", "passthrough"])
}

pub(crate) const PICTURE: &str = "-f lavfi -i testsrc2=s=640x360:r=25,noise=alls=8:allf=t,format=yuv420p";
pub(crate) const SOUND: &str = "-f lavfi -i sine=1000:r=48000";
