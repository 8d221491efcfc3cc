//! The `anabranch` binary: hands over to `anabranch::ui`.

use std::process::ExitCode;

fn main() -> ExitCode {
    anabranch::ui::run()
}
