//! `anabranch serve`: the engine with its HTTP API, and the demonstration.

use std::future::Future;
use std::io::{IsTerminal, stdout};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::live::write;
use super::report::{Reporter, Style};
use super::{Failure, cli};
use crate::control::api::Access;
use crate::control::config::{FILE, Format, Level, Settings, environment};
use crate::control::manager::Manager;
use crate::control::model::Flow;
use crate::control::{ServeError, Server, shutdown_signal};

pub(super) fn run(arguments: &cli::Serve) -> Result<(), Failure> {
    let usual = Path::new(FILE);
    let file = arguments.config.as_deref().or_else(|| (!arguments.demo && usual.exists()).then_some(usual));
    let mut settings = Settings::load(file, environment()).map_err(Failure::usage)?;
    settings.api.listen = arguments.listen.as_ref().map_or(settings.api.listen, |listen| listen.0);
    settings.api.insecure_open |= arguments.insecure_open;
    settings.engine.watchers.placement = super::placement();
    if let Some(path) = &arguments.db {
        settings.storage.path.clone_from(path);
    }
    if arguments.check_config {
        Access::new(&settings.api).map_err(Failure::usage)?;
        write(&format!("the configuration is fine; it declares {} flows\n", settings.flows.len()));
        return Ok(());
    }
    let demo = if arguments.demo { Some(Demo::prepare(&mut settings, arguments.db.is_none())?) } else { None };
    log_to_stderr(&settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(CONTROL_THREADS).enable_all().build()?;
    runtime.block_on(serve(&settings, demo.as_ref()))
}

async fn serve(settings: &Settings, demo: Option<&Demo>) -> Result<(), Failure> {
    let server = Server::start(settings).await.map_err(|error| match error {
        ServeError::Config(_) | ServeError::Listen { .. } | ServeError::Flows(_) => Failure::usage(error),
        ServeError::Store(_) | ServeError::Engine(_) | ServeError::Thread(_) => error.into(),
    })?;
    let manager = Arc::clone(server.manager());
    let address = server.address();
    let running = server.run(async {
        // Without signals there is nothing to wait for but kill.
        if shutdown_signal().await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    match demo {
        Some(demo) => while_running(running, demo.show(address, &manager)).await,
        None => running.await,
    }
    Ok(())
}

/// Ends with `running`, whatever the other does.
async fn while_running(running: impl Future<Output = ()>, beside: impl Future<Output = ()>) {
    let beside = async {
        beside.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = running => {}
        () = beside => {}
    }
}

fn log_to_stderr(settings: &Settings) {
    let level = match settings.log.level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // Fails only if the program that embeds us logs already.
    let _ = match settings.log.format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    };
}

/// A test signal to two outputs, and a second flow that takes both in again as primary and backup.
struct Demo {
    /// Deleted at the end.
    database: Option<PathBuf>,
}

impl Demo {
    /// Declares both flows in `settings`, with a database of their own if `temporary`.
    fn prepare(settings: &mut Settings, temporary: bool) -> Result<Self, Failure> {
        let (first, second) = (free_port()?, free_port()?);
        let (first, second) = (format!("udp://127.0.0.1:{first}"), format!("udp://127.0.0.1:{second}"));
        let signal = json!({
            "name": "demo", "description": "test signal to two outputs",
            "sources": [{"name": "signal", "url": "test:picture?rate=5M"}],
            "source_monitor_config": {"thumbnail_enabled": true, "content_quality_enabled": true},
            "outputs": [{"name": "left", "url": first}, {"name": "right", "url": second}],
        });
        let back = json!({
            "name": "demo-back", "description": "both outputs of demo, taken in again as primary and backup",
            "sources": [{"name": "from-left", "url": first}, {"name": "from-right", "url": second}],
        });
        for flow in [back, signal] {
            let flow = Flow::from_json(flow.to_string().as_bytes()).map_err(Failure::usage)?;
            settings.flows.push(flow);
        }
        settings.log.level = Level::Warn;
        let mut database = None;
        if temporary {
            let path = std::env::temp_dir().join(format!("anabranch-demo-{}.db", std::process::id()));
            settings.storage.path.clone_from(&path);
            database = Some(path);
        }
        Ok(Self { database })
    }

    /// Prints what to try, and figures for as long as it is polled.
    async fn show(&self, address: SocketAddr, manager: &Manager) {
        let api = format!("http://{address}");
        let id = loop {
            let running = manager.all_running();
            if let Some(demo) = running.iter().find(|flow| flow.name == "demo") {
                break demo.id.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        write(&format!(
            "\
A test signal goes to two outputs; the flow demo-back takes both in again. Try in another terminal:

  curl {api}/v1/flows
  curl {api}/v1/flows/{id}/metrics
  curl {api}/v1/flows/{id}/thumbnail.jpg -o picture.jpg    # or open it in a browser
  curl {api}/v1/flows/{id}/metadata
  curl {api}/v1/flows/{id}/content-quality
  curl {api}/v1/events
  curl {api}/metrics
  curl -X POST {api}/v1/flows/{id}/outputs -d '{{\"name\": \"third\", \"url\": \"udp://127.0.0.1:7001\"}}'
  curl -X DELETE {api}/v1/flows/{id}/outputs/left     # demo-back fails over to from-right

Every call is in {api}/openapi.json. Ctrl-C ends.

"
        ));
        if stdout().is_terminal() {
            self.show_figures(manager).await;
        }
    }

    async fn show_figures(&self, manager: &Manager) {
        let mut reporter = Reporter::new(Style::Live, NAME_WIDTH);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            let running = manager.all_running();
            reporter.figures_of(running.iter().map(|flow| (flow.name.as_str(), &flow.snapshot)));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(path) = &self.database {
            for suffix in ["", "-wal", "-shm"] {
                let mut path = path.clone().into_os_string();
                path.push(suffix);
                // SQLite removes two of them itself.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn free_port() -> Result<u16, Failure> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Requests are few; packets have threads of their own.
const CONTROL_THREADS: usize = 2;
/// Longest name in the demonstration.
const NAME_WIDTH: usize = 10;
