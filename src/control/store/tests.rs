//! The store on real files: whole, damaged, read-only and full.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use tempfile::TempDir;

use super::*;

#[test]
fn flows_come_back_as_they_were_saved() {
    let (directory, store) = store();
    let mut first = record("1");
    store.save(&record("2")).unwrap();
    store.save(&first).unwrap();
    first.flow.name = "renamed".into();
    first.wanted_running = true;
    first.started = Some(UNIX_EPOCH + Duration::from_millis(1_234_567));
    store.save(&first).unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("test.db")).unwrap();
    assert_eq!(store.flows().unwrap(), [first, record("2")]);
    store.delete(&id("2")).unwrap();
    assert_eq!(store.flows().unwrap().len(), 1);
}

#[test]
fn events_are_newest_first_and_pruned_per_flow() {
    let (_directory, store) = store();
    store.save(&record("1")).unwrap();
    store.save(&record("2")).unwrap();
    store.append(&[event("2", "first")]).unwrap();
    let many: Vec<_> = (0..1_100).map(|number| event("1", &number.to_string())).collect();
    store.append(&many[..600]).unwrap();
    store.append(&many[600..]).unwrap();
    let kept = store.events(Some(&id("1")), 10_000).unwrap();
    assert_eq!(kept.len(), 1_000);
    assert_eq!((kept[0].message.as_str(), kept[999].message.as_str()), ("1099", "100"));
    assert_eq!(store.events(None, 10_000).unwrap().len(), 1_001);
    assert_eq!(store.events(None, 3).unwrap()[2].message, "1097");
    assert_eq!(store.events(Some(&id("2")), 10).unwrap()[0].data, json!({ "source": "a" }));
}

#[test]
fn a_removed_flow_takes_its_events_along_and_gets_no_new_ones() {
    let (_directory, store) = store();
    store.save(&record("1")).unwrap();
    store.append(&[event("1", "before")]).unwrap();
    store.delete(&id("1")).unwrap();
    store.append(&[event("1", "after")]).unwrap();
    assert_eq!(store.events(None, 10).unwrap(), []);
}

#[test]
fn a_damaged_file_says_what_to_do() {
    let (directory, store) = store();
    let path = directory.path().join("test.db");
    (0..200).for_each(|number| store.save(&record(&number.to_string())).unwrap());
    drop(store);
    let whole = fs::read(&path).unwrap();
    let cut = whole.len() - 3 * 4_096;
    let damages: [(&str, Vec<u8>); 3] = [
        ("no database", b"this is not a database, whatever its name says".repeat(100)),
        ("cut short", whole[..cut].to_vec()),
        ("overwritten", [&whole[..4_096], &vec![0x55; whole.len() - 4_096][..]].concat()),
    ];
    for (what, bytes) in damages {
        fs::write(&path, bytes).unwrap();
        let error = Store::open(&path).expect_err(what);
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}

#[test]
fn a_flow_that_makes_no_sense_is_named() {
    let (_directory, store) = store();
    store.save(&record("7")).unwrap();
    store.lock().execute("UPDATE flows SET json = '{}'", []).unwrap();
    let error = store.flows().unwrap_err().to_string();
    assert!(error.contains("flow 7: missing field `name`"), "{error}");
}

#[test]
fn a_newer_format_is_left_alone() {
    let (directory, store) = store();
    store.lock().pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let error = Store::open(&directory.path().join("test.db")).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[test]
fn a_full_disk_changes_nothing_and_is_named() {
    let (_directory, store) = store();
    store.save(&record("1")).unwrap();
    let pages: i64 = store.lock().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    store.lock().pragma_update(None, "max_page_count", pages).unwrap();
    let mut large = record("1");
    large.flow.description = Some("x".repeat(100_000));
    assert!(matches!(store.save(&large).unwrap_err(), StoreError::Full { .. }));
    assert_eq!(store.flows().unwrap(), [record("1")]);
    store.lock().pragma_update(None, "max_page_count", 1_000_000).unwrap();
    store.save(&large).unwrap();
}

#[test]
fn a_database_that_may_not_be_written_is_named() {
    let (_directory, store) = store();
    store.fail_writes(true);
    assert!(matches!(store.save(&record("1")).unwrap_err(), StoreError::ReadOnly { .. }));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = Store::open(Path::new("/nonexistent/directory/test.db")).unwrap_err();
    assert!(matches!(error, StoreError::CannotOpen { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/directory/test.db"), "{error}");
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, store) = store();
    store.save(&record("1")).unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("test.db")).unwrap();
    (directory, store)
}

fn id(text: &str) -> FlowId {
    text.parse().unwrap()
}

fn record(text: &str) -> Record {
    let flow = json!({ "name": "n", "sources": [{ "name": "a", "url": "udp://:5000" }] });
    Record {
        id: id(text),
        flow: serde_json::from_value(flow).unwrap(),
        wanted_running: false,
        created: UNIX_EPOCH + Duration::from_secs(1),
        updated: UNIX_EPOCH + Duration::from_secs(2),
        started: None,
        stopped: None,
    }
}

fn event(flow: &str, message: &str) -> EventRecord {
    EventRecord {
        id: 0,
        flow: id(flow),
        type_name: "source_lost".into(),
        message: message.into(),
        severity: "warning".into(),
        at: UNIX_EPOCH + Duration::from_secs(3),
        data: json!({ "source": "a" }),
    }
}
