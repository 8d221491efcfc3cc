//! Body of the fuzz target, which tests call as well.

use std::net::SocketAddr;
use std::time::Duration;

use super::eap::Frame;
use super::{Accounts, Gate, Role, Settings};
use crate::proto::rist::crypto::KeyLength;
use crate::units::Time;

/// Messages and files of users are read or refused; and no sequence of messages, honest ones among them, lets anybody in
/// who does not know the password.
pub fn check_any_bytes(bytes: &[u8]) {
    check_frame(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Accounts>();
    }
    check_any_path(bytes);
}

/// What is read is written back alike.
pub(super) fn check_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::parse(bytes) {
        let written = frame.to_bytes();
        // Of a challenge the other side's name and a group of its own are not kept.
        let again = Frame::parse(&written).map(|again| again.to_bytes());
        assert_eq!(again, Ok(written));
    }
}

/// A client with another password, a server, and what the script does with their messages: passes, loses, doubles,
/// damages or replays them, or makes some up.
fn check_any_path(script: &[u8]) {
    let [server_at, client_at] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
    let gate = |role, password, seed| {
        let Ok(accounts) = Accounts::login("user", password) else { unreachable!("short enough") };
        Gate::new(role, accounts, Settings::new(None, KeyLength::Aes128, 1 << 31), [seed; 32])
    };
    let (mut client, mut server) = (gate(Role::Client, "guess", 1), gate(Role::Server, "secret", 2));
    client.call(None);
    let (mut now, mut kept, mut steps) = (Time::ZERO, Vec::new(), script.chunks(3));
    let mut jobs = 0;
    for _ in 0..STEPS_MAX {
        let &[fate, a, b] = steps.next().and_then(|step| step.first_chunk::<3>()).unwrap_or(&[0, 50, 0]);
        now += Duration::from_millis(u64::from(a));
        for is_server in [false, true] {
            let (from, to) = if is_server { (&mut server, &mut client) } else { (&mut client, &mut server) };
            from.handle_timeout(now);
            // An exchange takes three.
            if jobs < JOBS_MAX
                && let Some(work) = from.poll_work()
            {
                jobs += 1;
                from.handle_done(now, work.run());
            }
            let at = if is_server { server_at } else { client_at };
            while let Some((_, mut bytes)) = from.poll_transmit() {
                match fate % 8 {
                    1 => continue,
                    2 => {
                        let place = usize::from(b) % bytes.len();
                        bytes[place] ^= fate | 1;
                    }
                    3 => kept.push(bytes.clone()),
                    4 => _ = to.handle(now, at, &bytes),
                    5 => bytes.truncate(usize::from(b)),
                    _ => {}
                }
                to.handle(now, at, &bytes);
            }
            if fate % 8 == 6
                && let Some(old) = kept.get(usize::from(b) % kept.len().max(1))
            {
                to.handle(now, at, old);
            }
            if fate % 8 == 7 {
                to.handle(now, at, &[3, 0, 0, 6, b & 3, a, 0, 6, 19, fate >> 3]);
                to.admits(now, at);
            }
            kept.truncate(KEPT_MAX);
        }
        assert!(!server.lets_out(Some(client_at)) && !client.lets_out(None), "let in");
        assert!(!server.admits(now, client_at), "let in");
    }
}

const STEPS_MAX: usize = 40;
const KEPT_MAX: usize = 32;
/// Of some milliseconds each: what else happens is found faster without.
const JOBS_MAX: usize = 7;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn nobody_gets_in_without_the_password(script in prop::collection::vec(any::<u8>(), 0..120)) {
            check_any_bytes(&script);
        }
    }

    #[test]
    fn nobody_gets_in_over_a_good_path_either() {
        check_any_bytes(&[0, 40, 0].repeat(STEPS_MAX));
    }
}
