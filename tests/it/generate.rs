//! `anabranch gen` with faults, as `anabranch probe` sees them.

use serde_json::Value;

use crate::cli::Cli;
use crate::support::free_port;

#[test]
fn a_fault_is_found_by_who_probes() {
    for (fault, indicator) in
        [("tei", "transport_error"), ("pcr_jitter=20us", "pcr_accuracy_error"), ("rst", "rst_error")]
    {
        let url = format!("udp://127.0.0.1:{}", free_port());
        let arguments = ["gen", "--picture", "--rate", "2M", "--fault", fault, "--seconds", "20", &url];
        let generator = Cli::start(&arguments);
        let (status, lines, stderr) = Cli::start(&["probe", "--json", "--seconds", "4", &url]).finish();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        let found: Value = serde_json::from_str(&lines.concat()).unwrap();
        assert!(found["tr_101_290"][indicator]["errors"].as_u64() > Some(0), "{fault}: {found}");
        generator.signal(libc::SIGINT);
        assert_eq!(generator.finish().0.code(), Some(0));
    }
}

#[test]
fn what_cannot_be_wrong_is_told_in_a_line() {
    let url = format!("udp://127.0.0.1:{}", free_port());
    for (arguments, told) in [
        (&["--fault", "blck"][..], "unknown fault blck, known are black, freeze"),
        (&["--fault", "black"], "fault black needs --picture"),
        (&["--picture", "--fault", "black=5s"], "write always, or how long in how long, as 5s/60s"),
        (&["--picture", "--fps", "24"], "25, 30 or 50"),
        (&["--picture", "--name", "much too long"], "as STUDIO-1"),
    ] {
        let (status, _, stderr) = Cli::start(&[&["gen"], arguments, &[&url]].concat()).finish();
        assert_eq!((status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
}
