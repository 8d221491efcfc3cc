//! `anabranch gen`: the built-in test stream to any output.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use super::report::Style;
use super::{Failure, cli, route};
use crate::engine::{FailoverConfig, FlowConfig, MonitorConfig};
use crate::proto::mpegts::faults::Fault;

pub(super) fn run(generate: &cli::Generate) -> Result<(), Failure> {
    let outputs = generate.outputs.iter().enumerate().map(|(index, text)| route::output(index, text, Duration::ZERO));
    let config = FlowConfig {
        name: "gen".into(),
        sources: vec![route::source(0, &url(generate)?)?],
        outputs: outputs.collect::<Result<_, _>>()?,
        failover: FailoverConfig::default(),
        monitor: MonitorConfig::default(),
    };
    let style = Style::choose(generate.json, None, stdout().is_terminal());
    route::run_flow(config, style, generate.seconds.map(Duration::from_secs))
}

/// The `test:` URL of what the arguments ask for.
fn url(generate: &cli::Generate) -> Result<String, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("rate", &generate.rate);
    for (key, value) in [("size", &generate.size), ("fps", &generate.fps), ("name", &generate.name)] {
        value.iter().for_each(|value| _ = query.append_pair(key, value));
    }
    for text in &generate.faults {
        let (name, schedule) = text.split_once('=').unwrap_or((text, "always"));
        let names = || Fault::ALL.map(Fault::name).join(", ");
        let fault = Fault::by_name(name);
        let fault = fault.ok_or_else(|| Failure::usage(format!("unknown fault {name}, known are {}", names())))?;
        if fault.needs_picture() && !generate.picture {
            return Err(Failure::usage(format!("fault {name} needs --picture: numbered packets have nothing of it")));
        }
        query.append_pair(name, schedule);
    }
    let signal = if generate.picture { "picture" } else { "bars" };
    Ok(format!("test:{signal}?{}", query.finish()))
}
