//! Loom models of pool and ring: every interleaving of a few steps. Run by `scripts/check-bus`.

use loom::future::block_on;
use loom::thread;

use super::{Ended, LagPolicy, Meta, Packet, Pool, PoolLimits, Publisher, Subscriber};

fn pool() -> Pool {
    Pool::new(PoolLimits { small_max: 8, large_max: 0 })
}

/// A packet whose bytes say which one it is.
fn numbered(pool: &Pool, number: u64) -> Packet {
    pool.copy(&number.to_be_bytes(), Meta { sequence: Some(number), ..Meta::default() }).unwrap()
}

fn check(packet: &Packet) -> u64 {
    let number = packet.meta.sequence.unwrap();
    assert_eq!(**packet, number.to_be_bytes(), "bytes of another packet");
    number
}

fn publish(publisher: &mut Publisher, pool: &Pool, numbers: std::ops::Range<u64>) {
    for number in numbers {
        publisher.publish(numbered(pool, number));
        publisher.flush(u64::MAX);
    }
}

/// Reads to the end without waiting; returns how many were read and missed.
fn read_all(subscriber: &mut Subscriber) -> (u64, u64) {
    let (mut read, mut missed, mut last) = (0, 0, None);
    loop {
        match subscriber.try_recv() {
            Ok(Some(packet)) => {
                let number = check(&packet);
                assert!(last < Some(number), "out of order");
                last = Some(number);
                read += 1;
            }
            Ok(None) => thread::yield_now(),
            Err(Ended::Closed) => break,
            Err(Ended::Lagged { .. }) => unreachable!("the policy is to go on"),
        }
        missed += subscriber.take_missed();
    }
    (read, missed + subscriber.take_missed())
}

#[test]
fn two_threads_never_hold_the_same_buffer() {
    loom::model(|| {
        let pool = pool();
        let other = pool.clone();
        let thread = thread::spawn(move || {
            let packet = numbered(&other, 1);
            check(&packet);
        });
        let first = numbered(&pool, 2);
        let second = numbered(&pool, 3);
        check(&first);
        drop(first);
        check(&second);
        thread.join().unwrap();
    });
}

#[test]
fn a_reader_gets_or_misses_every_packet_and_never_a_wrong_one() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(|| {
        let pool = pool();
        let mut publisher = Publisher::new(pool.clone(), 1);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let writer = thread::spawn(move || publish(&mut publisher, &pool, 0..2));
        let (read, missed) = read_all(&mut subscriber);
        assert_eq!(read + missed, 2);
        writer.join().unwrap();
    });
}

#[test]
fn a_lent_packet_stays_whole_while_the_ring_goes_on() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(|| {
        let pool = pool();
        let mut publisher = Publisher::new(pool.clone(), 1);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let writer = thread::spawn(move || publish(&mut publisher, &pool, 0..3));
        let (mut read, mut missed) = (0, 0);
        while let Ok(now) = subscriber.lend(2, |batch| {
            batch
                .map(|packet| {
                    check(&packet);
                    thread::yield_now();
                    check(&packet);
                })
                .count() as u64
        }) {
            read += now;
            missed += subscriber.take_missed();
            if now == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(read + missed + subscriber.take_missed(), 3);
        writer.join().unwrap();
    });
}

#[test]
fn a_packet_lent_to_one_who_just_subscribed_stays_whole() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(|| {
        let pool = pool();
        let mut publisher = Publisher::new(pool.clone(), 1);
        let subscribe = publisher.subscribe();
        let writer = thread::spawn(move || publish(&mut publisher, &pool, 0..3));
        let mut subscriber = subscribe.subscriber(LagPolicy::DropOldest);
        let _ = subscriber.lend(1, |batch| {
            batch.for_each(|packet| {
                check(&packet);
                thread::yield_now();
                check(&packet);
            });
        });
        writer.join().unwrap();
    });
}

#[test]
fn a_waiting_reader_is_woken() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(|| {
        let pool = pool();
        let mut publisher = Publisher::new(pool.clone(), 2);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let writer = thread::spawn(move || publish(&mut publisher, &pool, 0..2));
        block_on(async {
            assert_eq!(subscriber.recv().await.map(|packet| check(&packet)), Ok(0));
            assert_eq!(subscriber.recv().await.map(|packet| check(&packet)), Ok(1));
            assert_eq!(subscriber.recv().await.map(|packet| check(&packet)), Err(Ended::Closed));
        });
        writer.join().unwrap();
    });
}

#[test]
fn nothing_is_dropped_under_a_reader_that_is_just_subscribing() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(|| {
        let pool = pool();
        let mut publisher = Publisher::new(pool.clone(), 4);
        let subscribe = publisher.subscribe();
        let writer = thread::spawn(move || publish(&mut publisher, &pool, 0..2));
        let mut subscriber = subscribe.subscriber(LagPolicy::DropOldest);
        let (_read, missed) = read_all(&mut subscriber);
        assert_eq!(missed, 0);
        writer.join().unwrap();
    });
}
