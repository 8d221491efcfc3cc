//! Config file and environment to settings.
//!
//! Every key of the file can be given in the environment too, as `ANABRANCH_SECTION__KEY`, and then wins. Whatever is
//! not understood is an error that names the nearest known key; keys of the contract that this version cannot serve
//! yet are errors that say so.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use toml::{Table, Value};

use super::model::{Flow, HealthTimeoutMs, Within};
use super::problem::{Code, Problem, from_value};
use super::wanted::{Defaults, Wanted};
use crate::adapters::watchers::WatchersConfig;

/// The file that is read if it is there and no other is named.
pub const FILE: &str = "anabranch.toml";

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Section `[api]`.
    pub api: Api,
    /// Section `[storage]`.
    pub storage: Storage,
    /// Section `[engine]`.
    pub engine: Engine,
    /// Section `[log]`.
    pub log: Log,
    /// Flows declared as `[[flow]]`, each valid on its own and no two with the same name.
    pub flows: Vec<Flow>,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// File with the token that requests must bring.
    pub token_file: Option<PathBuf>,
    /// Listen beyond this machine without a token; only the command line can say so.
    pub insecure_open: bool,
}

/// The database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The file.
    pub path: PathBuf,
}

/// The engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Worker threads; 0 for as many as there are cores.
    pub workers: usize,
    /// Flows that may exist.
    pub flows_max: usize,
    /// The active source of a flow may be silent for this long, unless the flow says otherwise.
    pub health_timeout: Duration,
    /// How pictures and sound are watched; `decode_cpu` is the budget, and only programs say where.
    pub watchers: WatchersConfig,
}

/// Log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least important ones that are written.
    pub level: Level,
    /// How they look.
    pub format: Format,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// We cannot do our job.
    Error,
    /// Someone should look today.
    Warn,
    /// A state that a user would notice changed.
    #[default]
    Info,
    /// Why it did.
    Debug,
    /// Single datagrams.
    Trace,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the settings cannot be used: one line with where it stands, what is wrong, and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct ConfigError {
    /// File, environment variable or option.
    pub origin: String,
    /// What is wrong.
    pub problem: Problem,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080), token_file: None, insecure_open: false }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { path: "anabranch.db".into() }
    }
}

impl Default for Engine {
    fn default() -> Self {
        let (health_timeout, watchers) = (Defaults::default().health_timeout, WatchersConfig::default());
        Self { workers: 0, flows_max: 1_000, health_timeout, watchers }
    }
}

impl Settings {
    /// Reads `file`, if there is one, and then the environment, which wins.
    ///
    /// # Errors
    /// The first thing that is not understood.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = Table::new();
        if let Some(path) = file {
            let at_file = |problem| ConfigError { origin: path.display().to_string(), problem };
            let text = fs::read_to_string(path).map_err(|error| at_file(unreadable(&error)))?;
            table = parse(&text).map_err(at_file)?;
            Self::from_table(table.clone()).map_err(at_file)?;
        }
        let mut origin = "environment".to_string();
        for (name, value) in environment {
            let Some((section, key)) = name.strip_prefix(ENVIRONMENT_PREFIX).and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            let value = value.parse().map_or_else(|_| Value::String(value), Value::Integer);
            let only = Table::from_iter([(key.clone(), value.clone())]);
            // On its own first, so that an error names the variable.
            let alone = Table::from_iter([(section.clone(), Value::Table(only))]);
            Self::from_table(alone).map_err(|problem| ConfigError { origin: name.clone(), problem })?;
            let in_section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            in_section.as_table_mut().into_iter().for_each(|table| drop(table.insert(key.clone(), value.clone())));
            origin = name;
        }
        Self::from_table(table).map_err(|problem| ConfigError { origin, problem })
    }

    /// Reads settings from the text of a config file.
    ///
    /// # Errors
    /// The first thing that is not understood.
    pub fn from_toml(text: &str) -> Result<Self, Problem> {
        Self::from_table(parse(text)?)
    }

    fn from_table(table: Table) -> Result<Self, Problem> {
        let sections: Sections = from_value(table)?;
        let Sections { api, storage, engine, log, flow: flows, telegram, webhook } = sections;
        refuse("api.tls_cert", api.tls_cert.is_some())?;
        refuse("api.tls_key", api.tls_key.is_some())?;
        refuse("telegram", telegram.is_some())?;
        refuse("webhook", webhook.is_some())?;
        let (no_api, no_storage, no_engine) = (Api::default(), Storage::default(), Engine::default());
        let settings = Self {
            api: Api {
                listen: api.listen.map_or(no_api.listen, |listen| listen.0),
                token_file: api.token_file,
                ..no_api
            },
            storage: Storage { path: storage.path.unwrap_or(no_storage.path) },
            engine: Engine {
                workers: engine.workers.map_or(no_engine.workers, |count| count.value() as usize),
                flows_max: engine.max_flows.map_or(no_engine.flows_max, |count| count.value() as usize),
                health_timeout: (engine.health_timeout_ms)
                    .map_or(no_engine.health_timeout, |ms| Duration::from_millis(ms.value())),
                watchers: WatchersConfig {
                    budget_per_mille: engine.decode_cpu.map_or(no_engine.watchers.budget_per_mille, |cpu| cpu.0),
                    ..no_engine.watchers
                },
            },
            log: Log { level: log.level, format: log.format },
            flows,
        };
        settings.check_flows()?;
        Ok(settings)
    }

    fn check_flows(&self) -> Result<(), Problem> {
        for (index, flow) in self.flows.iter().enumerate() {
            let at = format!("flow[{index}]");
            Wanted::new(flow.clone(), &self.defaults()).map_err(|problem| problem.inside(&at))?;
            if self.flows[..index].iter().any(|other| other.name == flow.name) {
                let message = format!("another [[flow]] is called {} already: names tell them apart", flow.name);
                return Err(Problem::at(format!("{at}.name"), Code::DuplicateName, message));
            }
        }
        Ok(())
    }

    /// What applies where a flow says nothing.
    #[must_use]
    pub const fn defaults(&self) -> Defaults {
        Defaults { health_timeout: self.engine.health_timeout }
    }
}

/// The variables of this process that [`Settings::load`] looks at. Those without a double underscore are somebody
/// else's: an orchestrator sets `ANABRANCH_PORT` and the like for a service of this name.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let all = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    all.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect()
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "sections")]
struct Sections {
    #[serde(default)]
    api: ApiSection,
    #[serde(default)]
    storage: StorageSection,
    #[serde(default)]
    engine: EngineSection,
    #[serde(default)]
    log: LogSection,
    #[serde(default)]
    flow: Vec<Flow>,
    telegram: Option<IgnoredAny>,
    webhook: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
struct ApiSection {
    listen: Option<Listen>,
    token_file: Option<PathBuf>,
    tls_cert: Option<IgnoredAny>,
    tls_key: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
struct StorageSection {
    path: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
struct EngineSection {
    workers: Option<Within<0, WORKERS_MAX>>,
    max_flows: Option<Within<1, FLOWS_MAX>>,
    health_timeout_ms: Option<HealthTimeoutMs>,
    decode_cpu: Option<Cores>,
}

/// Computing time in cores, as `0.5`; kept in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cores(u32);

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl Visitor {
            fn cores<E: serde::de::Error>(cores: f64) -> Result<Cores, E> {
                if (0.0..=CORES_MAX).contains(&cores) {
                    return Ok(Cores((cores * 1_000.0).round() as u32));
                }
                Err(E::custom(format!("{cores} is not allowed, write cores from 0 to {CORES_MAX}, as 0.5")))
            }
        }

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Cores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of cores, as 0.5")
            }

            fn visit_f64<E: serde::de::Error>(self, cores: f64) -> Result<Cores, E> {
                Self::cores(cores)
            }

            fn visit_i64<E: serde::de::Error>(self, cores: i64) -> Result<Cores, E> {
                Self::cores(cores as f64)
            }

            fn visit_u64<E: serde::de::Error>(self, cores: u64) -> Result<Cores, E> {
                Self::cores(cores as f64)
            }

            // The environment has only text.
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cores, E> {
                let cores = text.parse().map_err(|_| E::invalid_type(serde::de::Unexpected::Str(text), &self))?;
                Self::cores(cores)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
struct LogSection {
    #[serde(default)]
    level: Level,
    #[serde(default)]
    format: Format,
}

/// An address to listen on, as people write it: `127.0.0.1:8080`, `[::]:8080`, `localhost:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(
    /// The address.
    pub SocketAddr,
);

/// Not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address to listen on: write ADDRESS:PORT, as 127.0.0.1:8080")]
pub struct ParseListenError(String);

impl FromStr for Listen {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, ParseListenError> {
        let port_only = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let address = port_only.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        address.or_else(|| text.parse().ok()).map(Self).ok_or_else(|| ParseListenError(text.into()))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ADDRESS:PORT, as 127.0.0.1:8080")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Listen, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

fn parse(text: &str) -> Result<Table, Problem> {
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().replace('\n', ", ");
        Problem::new(Code::InvalidValue, format!("line {line}: {message}"))
    })
}

fn refuse(field: &str, given: bool) -> Result<(), Problem> {
    let message = "is not available in this version: leave it out";
    if given { Err(Problem::at(field, Code::NotAvailable, message)) } else { Ok(()) }
}

fn unreadable(error: &std::io::Error) -> Problem {
    Problem::new(Code::NotFound, format!("cannot be read: {error}"))
}

const ENVIRONMENT_PREFIX: &str = "ANABRANCH_";
/// Judgement: more than any machine of today has cores.
const WORKERS_MAX: u64 = 1_024;
/// Judgement: a hundred times what is measured.
const FLOWS_MAX: u64 = 20_000;
/// Judgement: more than anybody spares for looking.
const CORES_MAX: f64 = 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../anabranch.example.toml");

    fn load(environment: &[(&str, &str)]) -> Result<Settings, String> {
        let owned = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Settings::load(None, owned).map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        Settings::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_states_the_defaults() {
        assert_eq!(Settings::from_toml(EXAMPLE), Ok(Settings::default()));
    }

    #[test]
    fn the_example_has_every_key() {
        let (available, later) = EXAMPLE.split_once("# Not in this version").unwrap();
        let all: String =
            available.lines().map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line))).collect();
        // What was a comment with a space is one no more; those lines go.
        let keys: String =
            (all.lines().filter(|line| !line.starts_with(' '))).map(|line| format!("{line}\n")).collect();
        let settings = Settings::from_toml(&keys).unwrap();
        assert_eq!(settings.flows.len(), 1);
        assert_eq!(settings.api.token_file.as_deref(), Some(Path::new("/etc/anabranch/token")));
        for key in [
            "listen",
            "token_file",
            "path",
            "workers",
            "max_flows",
            "health_timeout_ms",
            "decode_cpu",
            "level",
            "format",
            "thumbnail_enabled",
            "thumbnail_interval_sec",
            "content_quality_enabled",
            "ts_analysis_enabled",
        ] {
            assert!(keys.contains(&format!("\n{key} = ")), "{key}");
        }
        for key in ["tls_cert", "tls_key", "bot_token", "chat_id", "url", "events"] {
            assert!(later.contains(&format!("\n#{key} = ")), "{key}");
        }
    }

    #[test]
    fn the_environment_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.toml");
        fs::write(&path, "[api]\nlisten = '127.0.0.1:1'\n[engine]\nworkers = 3\n").unwrap();
        let environment =
            [("ANABRANCH_API__LISTEN", "localhost:2"), ("ANABRANCH_ENGINE__MAX_FLOWS", "7"), ("PATH", "/bin")];
        let owned = environment.map(|(name, value)| (name.to_string(), value.to_string()));
        let settings = Settings::load(Some(&path), owned).unwrap();
        assert_eq!(settings.api.listen.to_string(), "127.0.0.1:2");
        assert_eq!((settings.engine.workers, settings.engine.flows_max), (3, 7));
    }

    #[test]
    fn the_budget_for_decoding_is_in_cores() {
        let budget = |text: &str| Settings::from_toml(text).map(|settings| settings.engine.watchers.budget_per_mille);
        assert_eq!(budget("[engine]\ndecode_cpu = 0.25"), Ok(250));
        assert_eq!((budget("[engine]\ndecode_cpu = 0"), budget("[engine]\ndecode_cpu = 2")), (Ok(0), Ok(2_000)));
        let from_environment = load(&[("ANABRANCH_ENGINE__DECODE_CPU", "1.5")]).unwrap();
        assert_eq!(from_environment.engine.watchers.budget_per_mille, 1_500);
        for wrong in ["-1", "65", "nan", "'much'", "true"] {
            let told = refusal(&format!("[engine]\ndecode_cpu = {wrong}"));
            assert!(told.starts_with("engine.decode_cpu: "), "{told}");
        }
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        assert_eq!(refusal("[api]\nlisen = ':1'"), "api.lisen: unknown field, did you mean listen?");
        assert_eq!(refusal("[engin]"), "engin: unknown field, did you mean engine?");
        assert_eq!(
            refusal("[[flow]]\nname = 'n'\nsorces = []"),
            "flow[0].sorces: unknown field, did you mean sources?"
        );
        assert_eq!(
            load(&[("ANABRANCH_API__TOKENFILE", "x")]),
            Err("ANABRANCH_API__TOKENFILE: api.tokenfile: unknown field, did you mean token_file?".into())
        );
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        assert_eq!(load(&[("ANABRANCH_PORT", "tcp://10.0.0.1:8080")]), Ok(Settings::default()));
    }

    #[test]
    fn wrong_values_say_what_is_allowed() {
        let cases = [
            ("[engine]\nworkers = -1", "a whole number from 0 to 1024"),
            ("[api]\nlisten = 8080", "expected ADDRESS:PORT, as 127.0.0.1:8080"),
            ("[api]\nlisten = '8080'", "8080 is no address to listen on"),
            ("[log]\nlevel = 'loud'", "log.level: unknown variant loud, expected one of error, warn"),
            ("[[flow]]\nname = 'n'", "flow[0].sources: a flow needs at least one source"),
            ("[api]\nlisten = 'a'\nlisten = 'b'", "line 3: "),
            ("[api", "line 1: "),
            ("[telegram]\nbot_token = 'x'", "telegram: is not available in this version"),
            ("[api]\ntls_cert = 'x'", "api.tls_cert: is not available in this version"),
        ];
        for (text, expected) in cases {
            let refusal = refusal(text);
            assert!(refusal.contains(expected) && !refusal.contains('\n'), "{text}: {refusal}");
        }
        let flow = "[[flow]]\nname = 'n'\nsource = { name = 'a', url = 'test:' }\n";
        assert!(refusal(&flow.repeat(2)).starts_with("flow[1].name: another [[flow]]"));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let error = Settings::load(Some(Path::new("/nonexistent.toml")), []).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent.toml: cannot be read"), "{error}");
    }
}
