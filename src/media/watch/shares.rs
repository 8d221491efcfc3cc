//! How much memory each of many streams may take for coded pictures, so that all together keep a bound.

/// Shares [`BYTES_MAX`] among streams that hold so many bytes now: what each may hold. Those that need little leave the
/// rest to others, equally, up to [`STREAM_BYTES_MAX`] each; room to grow is left to everybody.
#[must_use]
pub fn shares(held: &[usize]) -> Vec<usize> {
    let needs: Vec<usize> = held.iter().map(|held| (held * 2 + ROOM).min(STREAM_BYTES_MAX)).collect();
    let mut sorted = needs.clone();
    sorted.sort_unstable();
    let (mut left, mut level) = (BYTES_MAX, usize::MAX);
    for (at, need) in sorted.iter().enumerate() {
        let equal = left / (sorted.len() - at);
        if *need > equal {
            level = equal;
            break;
        }
        left -= need;
    }
    let needed = needs.iter().map(|need| (*need).min(level));
    let over = (BYTES_MAX - needed.clone().sum::<usize>()) / held.len().max(1);
    needed.map(|need| (need + over).min(STREAM_BYTES_MAX)).collect()
}

/// Of all streams together. Those of twenty streams of 20 Mb/s with two seconds between key frames have so many.
pub const BYTES_MAX: usize = 256 << 20;
/// Of one stream: what can be proven at once, and what may have to be.
pub const STREAM_BYTES_MAX: usize = 32 << 20;
/// What a stream's pictures take in the next moment.
const ROOM: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_needs_little_leaves_it_to_others() {
        assert!(shares(&[]).is_empty());
        assert_eq!(shares(&[0, 7, usize::MAX / 4]), [STREAM_BYTES_MAX; 3]);
        // Fifty large ones cannot have what they want; small ones can.
        let mut held = vec![20 << 20; 50];
        held.extend([100_000; 50]);
        let shares = shares(&held);
        assert!(
            shares[..50].iter().all(|share| *share > 3 << 20) && shares[50..].iter().all(|share| *share >= 1 << 20)
        );
    }

    proptest! {
        #[test]
        fn all_together_keep_the_bound(held in proptest::collection::vec(0..64_usize << 20, 0..1_200)) {
            let shares = shares(&held);
            prop_assert!(shares.iter().sum::<usize>() <= BYTES_MAX);
            let equal = BYTES_MAX / held.len().max(1);
            for (share, held) in shares.iter().zip(held) {
                prop_assert!(*share >= equal.min(held).min(STREAM_BYTES_MAX), "its equal share is everybody's");
            }
        }
    }
}
