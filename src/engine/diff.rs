//! Running and wanted configuration in, steps out (pure).

use std::collections::BTreeSet;

use super::config::{
    FailoverMode, FlowConfig, MonitorConfig, OUTPUTS_MAX, OutputConfig, SOURCES_MAX, SourceConfig, SourceEndpoint,
};
use super::error::{ApplyError, Cause, Field};
use crate::adapters::Tuning;
use crate::path::health;
use crate::units::{OutputName, SourceName};

/// One change between what runs and what is wanted. Indexes are those of the wanted configuration. Whatever no step
/// names goes on undisturbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Close a source.
    RemoveSource(SourceName),
    /// Close an output.
    RemoveOutput(OutputName),
    /// Open a source.
    AddSource(usize),
    /// Open a source anew, because its settings changed.
    ReplaceSource(usize),
    /// Open an output.
    AddOutput(usize),
    /// Open an output anew, because its settings changed.
    ReplaceOutput(usize),
    /// Change how an output reads: how long it may hold packets back, and what it does when it falls behind.
    Reading(usize),
    /// Change where legs of an output that has several lead; those that stay go on.
    Legs(usize),
    /// Change settings of a source that may change while it is open.
    TuneSource(usize, Tuning),
    /// Change settings of an output that may change while it is open.
    TuneOutput(usize, Tuning),
    /// Change how sources work together.
    Failover,
    /// Change what is watched.
    Monitor,
}

/// The steps from `running` (nothing, if the flow does not run) to `wanted`.
#[must_use]
pub fn diff(running: Option<&FlowConfig>, wanted: &FlowConfig) -> Vec<Step> {
    let (sources, outputs) =
        running.map_or((&[][..], &[][..]), |running| (running.sources.as_slice(), running.outputs.as_slice()));
    let mut steps = Vec::new();
    let gone = sources.iter().filter(|old| !wanted.sources.iter().any(|new| new.name == old.name));
    steps.extend(gone.map(|old| Step::RemoveSource(old.name.clone())));
    let gone = outputs.iter().filter(|old| !wanted.outputs.iter().any(|new| new.name == old.name));
    steps.extend(gone.map(|old| Step::RemoveOutput(old.name.clone())));
    // Outputs first: every one of them gets a new source's first packet.
    for (index, new) in wanted.outputs.iter().enumerate() {
        steps.extend(output_steps(outputs.iter().find(|old| old.name == new.name), new, index));
    }
    for (index, new) in wanted.sources.iter().enumerate() {
        steps.extend(source_step(sources.iter().find(|old| old.name == new.name), new, index));
    }
    let same_choice =
        running.is_some_and(|running| running.failover == wanted.failover && primary(running) == primary(wanted));
    if !same_choice {
        steps.push(Step::Failover);
    }
    let nothing = MonitorConfig::default();
    if running.map_or(&nothing, |running| &running.monitor) != &wanted.monitor {
        steps.push(Step::Monitor);
    }
    steps
}

/// Name of the preferred source.
#[must_use]
pub fn primary(config: &FlowConfig) -> Option<&SourceName> {
    config.failover.primary.as_ref().or_else(|| config.sources.first().map(|source| &source.name))
}

fn source_step(old: Option<&SourceConfig>, new: &SourceConfig, index: usize) -> Option<Step> {
    match old {
        None => Some(Step::AddSource(index)),
        Some(old) if old == new => None,
        Some(old) => {
            let tuning = new.endpoint.tuning_from(&old.endpoint);
            let tuning = tuning.filter(|_| SourceConfig { endpoint: new.endpoint.clone(), ..old.clone() } == *new);
            Some(tuning.map_or(Step::ReplaceSource(index), |tuning| Step::TuneSource(index, tuning)))
        }
    }
}

fn output_steps(old: Option<&OutputConfig>, new: &OutputConfig, index: usize) -> Vec<Step> {
    let Some(old) = old else {
        return vec![Step::AddOutput(index)];
    };
    let tuning = new.endpoint.tuning_from(&old.endpoint);
    let legs = old.endpoint.differs_in_legs_only(&new.endpoint).then_some(Step::Legs(index));
    let endpoint = if tuning.is_some() || legs.is_some() { &new.endpoint } else { &old.endpoint };
    if *new != (OutputConfig { coalesce: new.coalesce, policy: new.policy, endpoint: endpoint.clone(), ..old.clone() })
    {
        return vec![Step::ReplaceOutput(index)];
    }
    let is_same = (old.coalesce, old.policy) == (new.coalesce, new.policy);
    let reading = (!is_same).then_some(Step::Reading(index));
    reading.into_iter().chain(legs).chain(tuning.map(|tuning| Step::TuneOutput(index, tuning))).collect()
}

/// Whether a wanted configuration can be one at all.
///
/// # Errors
/// The first part that is wrong.
pub fn check(wanted: &FlowConfig) -> Result<(), ApplyError> {
    let fail = |field, cause| Err(ApplyError { field, cause });
    if wanted.sources.is_empty() {
        return fail(Field::Sources, Cause::NoSource);
    }
    if wanted.sources.len() > SOURCES_MAX {
        return fail(Field::Sources, Cause::TooMany { max: SOURCES_MAX });
    }
    if wanted.outputs.len() > OUTPUTS_MAX {
        return fail(Field::Outputs, Cause::TooMany { max: OUTPUTS_MAX });
    }
    let needs_media = wanted.monitor.thumbnail_every.is_some() || wanted.monitor.content_quality;
    if cfg!(not(feature = "media")) && (needs_media || wanted.failover.switch_on.seen.is_any()) {
        return fail(Field::Flow, Cause::NoMedia);
    }
    if let Some(index) = first_repeated(wanted.sources.iter().map(|source| &source.name)) {
        let name = wanted.sources[index].name.to_string();
        return fail(Field::Source(index), Cause::DuplicateName { name });
    }
    if let Some(index) = first_repeated(wanted.outputs.iter().map(|output| &output.name)) {
        let name = wanted.outputs[index].name.to_string();
        return fail(Field::Output(index), Cause::DuplicateName { name });
    }
    if let Some(primary) = &wanted.failover.primary
        && !wanted.sources.iter().any(|source| source.name == *primary)
    {
        return fail(Field::Failover, Cause::UnknownSource { name: primary.to_string() });
    }
    let result = match wanted.failover.mode {
        FailoverMode::Failover => check_rules(&wanted.failover.switch_on, &wanted.sources),
        FailoverMode::Merge(_) => check_sequences(&wanted.sources),
    };
    result.map_err(|cause| ApplyError { field: Field::Failover, cause })
}

/// Whether sources can be judged by the rules.
///
/// # Errors
/// If no source can tell what is asked for.
pub fn check_rules(rules: &health::Rules, sources: &[SourceConfig]) -> Result<(), Cause> {
    if rules.loss_per_mille.is_some() && !sources.iter().any(|source| source.endpoint.counts_losses()) {
        return Err(Cause::NoLosses);
    }
    Ok(())
}

/// Whether the sources can be merged.
///
/// # Errors
/// The first one that cannot, and what it could be instead.
pub fn check_sequences(sources: &[SourceConfig]) -> Result<(), Cause> {
    let Some(source) = sources.iter().find(|source| !source.endpoint.has_sequence()) else {
        return Ok(());
    };
    let fix = match source.endpoint {
        SourceEndpoint::Srt(_) => "give it a url with payload=rtp if it carries RTP",
        SourceEndpoint::Udp(_)
        | SourceEndpoint::Rtp(_)
        | SourceEndpoint::Rist(_)
        | SourceEndpoint::Rtmp(_)
        | SourceEndpoint::Test(_) => "use rtp or rtp-fec",
    };
    Err(Cause::NoSequence { name: source.name.to_string(), fix })
}

fn first_repeated<N: Ord>(names: impl Iterator<Item = N>) -> Option<usize> {
    let mut seen = BTreeSet::new();
    names.enumerate().find_map(|(index, name)| (!seen.insert(name)).then_some(index))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::bus::LagPolicy;
    use crate::engine::config::{FailoverConfig, MergeConfig};
    use crate::engine::url;
    use crate::path::AllowList;

    fn source(name: u8, port: u16) -> SourceConfig {
        source_at(name, &format!("udp://127.0.0.1:{port}"))
    }

    fn output(name: u8, port: u16, coalesce_ms: u64) -> OutputConfig {
        output_at(name, &format!("udp://127.0.0.1:{port}"), coalesce_ms)
    }

    fn source_at(name: u8, url: &str) -> SourceConfig {
        SourceConfig {
            name: format!("s{name}").parse().unwrap(),
            endpoint: url::parse_source(url).unwrap(),
            allow: AllowList::default(),
            limit: None,
        }
    }

    fn output_at(name: u8, url: &str, coalesce_ms: u64) -> OutputConfig {
        OutputConfig {
            name: format!("o{name}").parse().unwrap(),
            endpoint: url::parse_output(url).unwrap().endpoint,
            enabled: true,
            coalesce: Duration::from_millis(coalesce_ms),
            policy: LagPolicy::default(),
            limit: None,
            allow: AllowList::default(),
        }
    }

    fn flow(sources: Vec<SourceConfig>, outputs: Vec<OutputConfig>) -> FlowConfig {
        FlowConfig {
            name: "a".into(),
            sources,
            outputs,
            failover: FailoverConfig::default(),
            monitor: MonitorConfig::default(),
        }
    }

    /// What a supervisor would have after the steps.
    fn carry_out(running: Option<&FlowConfig>, wanted: &FlowConfig, steps: &[Step]) -> FlowConfig {
        let mut result = running.cloned().unwrap_or_else(|| flow(Vec::new(), Vec::new()));
        for step in steps {
            match step {
                Step::RemoveSource(name) => result.sources.retain(|source| source.name != *name),
                Step::RemoveOutput(name) => result.outputs.retain(|output| output.name != *name),
                Step::AddSource(index) => result.sources.push(wanted.sources[*index].clone()),
                Step::AddOutput(index) => result.outputs.push(wanted.outputs[*index].clone()),
                Step::ReplaceSource(index) | Step::TuneSource(index, _) => {
                    let new = &wanted.sources[*index];
                    result.sources.iter_mut().find(|source| source.name == new.name).unwrap().clone_from(new);
                }
                Step::ReplaceOutput(index) | Step::Reading(index) | Step::Legs(index) | Step::TuneOutput(index, _) => {
                    let new = &wanted.outputs[*index];
                    result.outputs.iter_mut().find(|output| output.name == new.name).unwrap().clone_from(new);
                }
                Step::Failover => result.failover = wanted.failover.clone(),
                Step::Monitor => result.monitor = wanted.monitor.clone(),
            }
        }
        result.sources.sort_by(|a, b| a.name.cmp(&b.name));
        result.outputs.sort_by(|a, b| a.name.cmp(&b.name));
        result
    }

    fn flows() -> impl Strategy<Value = FlowConfig> {
        let source = urls().prop_filter("only outputs have legs and a TTL", |url| !url.starts_with("rtp"));
        let sources = prop::collection::btree_map(0..4_u8, source, 1..4);
        let outputs = prop::collection::btree_map(0..6_u8, (urls(), 0..2_u64), 0..6);
        (sources, outputs).prop_map(|(sources, outputs)| {
            flow(
                sources.into_iter().map(|(name, url)| source_at(name, &url)).collect(),
                outputs.into_iter().map(|(name, (url, coalesce_ms))| output_at(name, &url, coalesce_ms)).collect(),
            )
        })
    }

    fn urls() -> impl Strategy<Value = String> {
        let udp = (1..4_u16).prop_map(|port| format!("udp://127.0.0.1:{port}"));
        let srt = (1..3_u16, 1..3_u8, 1..3_u8, 1..3_u8).prop_map(|(port, latency, loss, rate)| {
            format!("srt://127.0.0.1:{port}?latency={latency}&lossmaxttl={loss}&maxbw={rate}000")
        });
        let rtp = (1..3_u16, 0..3_u16, 1..3_u8).prop_map(|(port, legs, ttl)| {
            let legs: String = (0..legs).map(|leg| format!("&leg=127.0.0.1:{}", 10 + leg)).collect();
            format!("rtp://127.0.0.1:{port}?ttl={ttl}{legs}")
        });
        prop_oneof![udp, srt, rtp]
    }

    /// All that counts of two ends that differ: whether one may become the other while it is open.
    fn is_opened_anew(steps: &[Step]) -> bool {
        steps.iter().any(|step| matches!(step, Step::ReplaceSource(_) | Step::ReplaceOutput(_)))
    }

    proptest! {
        #[test]
        fn the_steps_lead_from_running_to_wanted(running in prop::option::of(flows()), wanted in flows()) {
            let steps = diff(running.as_ref(), &wanted);
            prop_assert_eq!(carry_out(running.as_ref(), &wanted, &steps), wanted);
        }

        #[test]
        fn nothing_is_touched_when_nothing_differs(wanted in flows()) {
            prop_assert!(diff(Some(&wanted), &wanted).is_empty());
        }
    }

    #[test]
    fn one_changed_output_is_one_step() {
        let before = flow(vec![source(0, 1)], vec![output(0, 1, 0), output(1, 2, 0)]);
        let moved = flow(vec![source(0, 1)], vec![output(0, 1, 0), output(1, 3, 0)]);
        let held = flow(vec![source(0, 1)], vec![output(0, 1, 0), output(1, 2, 2)]);
        assert_eq!(diff(Some(&before), &moved), [Step::ReplaceOutput(1)]);
        assert_eq!(diff(Some(&before), &held), [Step::Reading(1)]);
    }

    #[test]
    fn what_srt_can_change_on_a_connection_opens_nothing_anew() {
        let plain = "srt://127.0.0.1:1";
        let of = |url: &str| flow(vec![source_at(0, url)], vec![output_at(0, url, 0)]);
        let steps = |query: &str| diff(Some(&of(plain)), &of(&format!("{plain}?{query}")));
        for live in [
            "maxbw=1000000",
            "maxbw=0&inputbw=1000000&oheadbw=40",
            "lossmaxttl=7",
            "peeridletimeo=9000",
            "conntimeo=900",
            "kmrefreshrate=5000&kmpreannounce=900",
        ] {
            let steps = steps(live);
            assert!(matches!(steps[..], [Step::TuneOutput(0, _), Step::TuneSource(0, _)]), "{live}: {steps:?}");
        }
        for anew in [
            "latency=300",
            "passphrase=a-secret-of-ours",
            "streamid=a",
            "mode=listener",
            "port=7",
            "cryptomode=2",
            "packetfilter=fec",
            "mss=1400",
            "payloadsize=1000",
            "tlpktdrop=0",
            "nakreport=0",
            "dscp=46",
        ] {
            assert_eq!(steps(anew), [Step::ReplaceOutput(0), Step::ReplaceSource(0)], "{anew}");
            assert!(is_opened_anew(&steps(&format!("{anew}&maxbw=1000000"))), "{anew}, and the rate");
        }
    }

    #[test]
    fn what_a_publisher_need_not_notice_opens_nothing_anew() {
        let steps = |old: &str, new: &str| {
            let of = |url: &str| flow(vec![source_at(0, &format!("rtmp://{url}"))], Vec::new());
            diff(Some(&of(old)), &of(new))
        };
        let (listens, calls) = ("@127.0.0.1:1/live/a?rate=5M", "10.0.0.1/live/a");
        for (old, new) in [
            (listens, "@127.0.0.1:1/live/a"),
            (listens, "@127.0.0.1:1/live/a?rate=5M&takeover=1"),
            (listens, "@127.0.0.1:1/live/a?rate=6M&takeover=1&absent=slate&grace=5"),
            (calls, "10.0.0.1/live/a?rate=6M"),
        ] {
            let steps = steps(old, new);
            assert!(matches!(steps[..], [Step::TuneSource(0, _)]), "{new}: {steps:?}");
        }
        for (old, new) in [
            (listens, "@127.0.0.1:1/live/b?rate=5M"),
            (listens, "@127.0.0.1:1/other/a?rate=6M"),
            (listens, "@127.0.0.1:2/live/a?rate=5M&takeover=1"),
            (calls, "10.0.0.1/live/a?rate=6M&timeout=7"),
            (calls, listens),
        ] {
            assert_eq!(steps(old, new), [Step::ReplaceSource(0)], "{new}");
        }
    }

    #[test]
    fn legs_change_alone_where_there_are_several() {
        let steps = |old: &str, new: &str| {
            let of = |query: &str| flow(vec![source(0, 1)], vec![output_at(0, &format!("rtp://{query}"), 0)]);
            diff(Some(&of(old)), &of(new))
        };
        let two = "10.0.0.1:1?leg=10.1.0.1:1";
        for new in [
            "10.0.0.1:1?leg=10.1.0.1:2",
            "10.0.0.1:1?leg=10.1.0.1:1&leg=10.2.0.1:1",
            "10.0.0.9:1?iface=eth1&leg=10.1.0.1:1",
        ] {
            assert_eq!(steps(two, new), [Step::Legs(0)], "{new}");
        }
        // One leg alone has no queue of its own, a name must be looked up, and the rest is the sender's or every leg's.
        for new in [
            "10.0.0.1:1",
            "host:1?leg=10.1.0.1:1",
            "10.0.0.1:1?leg=10.1.0.1:2&ttl=3",
            "10.0.0.1:1?leg=10.1.0.1:2&ssrc=3",
        ] {
            assert_eq!(steps(two, new), [Step::ReplaceOutput(0)], "{new}");
        }
        assert_eq!(steps("host:1?leg=10.1.0.1:1", "host:1?leg=10.1.0.1:2"), [Step::Legs(0)]);
    }

    #[test]
    fn what_is_no_setting_of_the_protocol_still_opens_anew() {
        let srt = |rate: u32| output_at(0, &format!("srt://127.0.0.1:1?maxbw={rate}"), 0);
        let one = |output: OutputConfig| flow(vec![source(0, 1)], vec![output]);
        let before = one(srt(1_000));
        let held = OutputConfig { coalesce: Duration::from_millis(2), ..srt(2_000) };
        let steps = diff(Some(&before), &one(held));
        assert!(matches!(steps[..], [Step::Reading(0), Step::TuneOutput(0, _)]), "{steps:?}");
        let disabled = OutputConfig { enabled: false, ..srt(2_000) };
        assert_eq!(diff(Some(&before), &one(disabled)), [Step::ReplaceOutput(0)]);
        let allow = AllowList::new(vec!["10.0.0.0/8".parse().unwrap()]).unwrap();
        let fenced = OutputConfig { allow, ..srt(2_000) };
        assert_eq!(diff(Some(&before), &one(fenced)), [Step::ReplaceOutput(0)]);
    }

    #[test]
    fn impossible_wishes_name_the_part() {
        let field = |config: FlowConfig| check(&config).unwrap_err().field.to_string();
        assert_eq!(field(flow(Vec::new(), Vec::new())), "sources");
        assert_eq!(field(flow(vec![source(0, 1); 2], Vec::new())), "sources[1]");
        assert_eq!(field(flow((0..9).map(|n| source(n, 1)).collect(), Vec::new())), "sources");
        let outputs =
            (0..=255).map(|n| output(n, 1, 0)).chain([OutputConfig { name: "x".parse().unwrap(), ..output(0, 1, 0) }]);
        assert_eq!(field(flow(vec![source(0, 1)], outputs.collect())), "outputs");
        let mut config = flow(vec![source(0, 1)], Vec::new());
        config.failover.primary = Some("gone".parse().unwrap());
        assert_eq!(field(config), "source_failover_config");
    }

    #[test]
    fn only_sources_with_sequence_numbers_are_merged() {
        let check = |urls: &[&str]| {
            let sources = (1..).zip(urls).map(|(name, url)| source_at(name, url));
            let mut config = flow(sources.collect(), Vec::new());
            config.failover.mode = FailoverMode::Merge(MergeConfig::default());
            check(&config)
        };
        assert_eq!(check(&["rtp://:5000", "rtp-fec://:5010", "srt://:5020?payload=rtp", "rist://@:5030"]), Ok(()));
        assert_eq!(check(&["rtp://:5000"]), Ok(()), "one source is itself");
        for (urls, fix) in [
            (["rtp://:5000", "udp://:5002"], "use rtp or rtp-fec"),
            (["rtp://:5000", "test:"], "use rtp or rtp-fec"),
            (["rtp://:5000", "srt://:5002"], "give it a url with payload=rtp if it carries RTP"),
        ] {
            let expected = Cause::NoSequence { name: "s2".into(), fix };
            assert_eq!(check(&urls), Err(ApplyError { field: Field::Failover, cause: expected }));
        }
    }
}
