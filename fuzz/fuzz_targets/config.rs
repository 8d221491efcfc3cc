//! Any text as a config file.
#![no_main]

use anabranch::control::config::Settings;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(problem) = Settings::from_toml(text) {
        assert!(!problem.to_string().contains('\n'), "one line: {problem}");
    }
});
