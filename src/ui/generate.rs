//! `anabranch gen`: the built-in test stream to any output.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use super::report::Style;
use super::{Failure, cli, route};
use crate::engine::{FailoverConfig, FlowConfig, MonitorConfig};

pub(super) fn run(generate: &cli::Generate) -> Result<(), Failure> {
    let outputs = generate.outputs.iter().enumerate().map(|(index, text)| route::output(index, text, Duration::ZERO));
    let signal = if generate.picture { "picture" } else { "bars" };
    let config = FlowConfig {
        name: "gen".into(),
        sources: vec![route::source(0, &format!("test:{signal}?rate={}", generate.rate))?],
        outputs: outputs.collect::<Result<_, _>>()?,
        failover: FailoverConfig::default(),
        monitor: MonitorConfig::default(),
    };
    let style = Style::choose(generate.json, None, stdout().is_terminal());
    route::run_flow(config, style, generate.seconds.map(Duration::from_secs))
}
