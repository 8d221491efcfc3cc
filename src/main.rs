//! The `anabranch` binary: hands over to `anabranch::ui`.

fn main() {}
