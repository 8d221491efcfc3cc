//! `anabranch route`: one flow, no database, no API.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use tokio::sync::mpsc;

use super::report::{Reporter, Style};
use super::{Failure, cli};
use crate::adapters::watchers::WatchersConfig;
use crate::bus::LagPolicy;
use crate::control::shutdown_signal;
use crate::engine::{
    Engine, EngineConfig, Event, FailoverConfig, FailoverMode, FlowConfig, MergeConfig, Mode, MonitorConfig,
    OutputConfig, SourceConfig, url,
};
use crate::path::{AllowList, merge};
use crate::units::FlowId;

pub(super) fn run(route: &cli::Route) -> Result<(), Failure> {
    let style = Style::choose(route.json, route.stats, stdout().is_terminal());
    run_flow(flow(route)?, style, None)
}

/// Runs one flow until a signal comes or `span` is over, reports on the way and at the end.
pub(super) fn run_flow(config: FlowConfig, style: Style, span: Option<Duration>) -> Result<(), Failure> {
    let id: FlowId = "route".parse().map_err(Failure::usage)?;
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let watchers = WatchersConfig { placement: super::placement(), ..WatchersConfig::default() };
    let one_worker = EngineConfig { workers: 1, watchers, ..EngineConfig::default() };
    let engine = Engine::start(&one_worker, move |event| {
        // Whoever reads is gone only at the very end.
        let _ = sender.try_send(event);
    })?;
    let mut reporter = Reporter::new(style, name_width(&config));
    engine.apply(&id, config, Mode::Strict).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(&engine, &id, events, &mut reporter, span))?;
    let last = engine.finish(&id);
    engine.shutdown();
    if let Some(last) = last {
        reporter.totals(&last);
    }
    Ok(())
}

async fn watch(
    engine: &Engine,
    id: &FlowId,
    mut events: mpsc::Receiver<Event>,
    reporter: &mut Reporter,
    span: Option<Duration>,
) -> Result<(), Failure> {
    let ended = shutdown_signal();
    tokio::pin!(ended);
    let over = async {
        match span {
            Some(span) => tokio::time::sleep(span).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut ticks = reporter.interval().map(tokio::time::interval);
    loop {
        let tick = async {
            match &mut ticks {
                Some(ticks) => ticks.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, so that signals are caught before the first event is told.
            biased;
            result = &mut ended => return result.map_err(Failure::from),
            () = &mut over => return Ok(()),
            Some(event) = events.recv() => reporter.event(&event),
            _ = tick => {
                if let Some(snapshot) = engine.snapshot(id) {
                    reporter.figures(&snapshot);
                }
            }
        }
    }
}

fn flow(route: &cli::Route) -> Result<FlowConfig, Failure> {
    let sources = route.sources.iter().enumerate().map(|(index, text)| source(index, text));
    let outputs = route.outputs.iter().enumerate().map(|(index, text)| {
        Ok::<_, Failure>(OutputConfig { policy: route.policy(), ..output(index, text, route.coalesce)? })
    });
    let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
    let analysed = outputs.iter().filter(|_| route.analyse_outputs).map(|output| output.name.clone()).collect();
    Ok(FlowConfig {
        name: "route".into(),
        sources: sources.collect::<Result<_, _>>()?,
        outputs,
        failover: FailoverConfig {
            mode: mode(route),
            primary: None,
            health_timeout: Duration::from_millis(route.health_timeout_ms),
            hold_off: Duration::from_millis(route.hold_off_ms),
            switch_on: route.switch_on.unwrap_or_default(),
            switch_at: route.switch_at(),
        },
        monitor: MonitorConfig { ts_analysis: route.analyse, outputs: analysed, ..MonitorConfig::default() },
    })
}

fn mode(route: &cli::Route) -> FailoverMode {
    if !route.merge {
        return FailoverMode::Failover;
    }
    let otherwise = MergeConfig::default();
    FailoverMode::Merge(MergeConfig {
        recovery_window: route.recovery_window.unwrap_or(otherwise.recovery_window),
        release: if route.align { merge::Mode::Align } else { otherwise.release },
    })
}

/// A source named after its place on the command line.
pub(super) fn source(index: usize, text: &str) -> Result<SourceConfig, Failure> {
    Ok(SourceConfig {
        name: format!("source-{}", index + 1).parse().map_err(Failure::usage)?,
        endpoint: url::parse_source(text).map_err(Failure::usage)?,
        allow: AllowList::default(),
        limit: None,
    })
}

/// An output named after its place on the command line.
pub(super) fn output(index: usize, text: &str, coalesce: Duration) -> Result<OutputConfig, Failure> {
    let parsed = url::parse_output(text).map_err(Failure::usage)?;
    Ok(OutputConfig {
        name: format!("output-{}", index + 1).parse().map_err(Failure::usage)?,
        endpoint: parsed.endpoint,
        enabled: true,
        coalesce: parsed.coalesce.unwrap_or(coalesce),
        policy: LagPolicy::default(),
        limit: None,
        allow: AllowList::default(),
    })
}

fn name_width(config: &FlowConfig) -> usize {
    let sources = config.sources.iter().map(|source| source.name.as_str().len());
    let outputs = config.outputs.iter().map(|output| output.name.as_str().len());
    sources.chain(outputs).max().unwrap_or(0)
}

/// Events that may wait for the terminal.
const EVENTS_MAX: usize = 1_024;
