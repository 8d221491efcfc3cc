//! What the multiplexer counts.

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Access units taken in.
    pub units: u64,
    /// TS packets given out.
    pub ts_packets: u64,
    /// Null packets among them.
    pub nulls: u64,
    /// Access units that were none of their format, or for a track that does not exist.
    pub malformed: u64,
    /// Access units longer than a track may have.
    pub too_long: u64,
    /// Access units dropped because those before them had not gone out yet: the rate is too low, or nobody takes packets.
    pub overflow: u64,
    /// Access units dropped for having waited too long, with a constant rate.
    pub stale: u64,
    /// Pictures dropped because they build on others that were: up to the next random access point.
    pub undecodable: u64,
    /// Access units that came, or of which the last byte went out, after the moment they are decoded at.
    pub late: u64,
    /// Times that a track's clock jumped, or its access units came too late for too long: the times of all that follows
    /// were moved.
    pub rebased: u64,
    /// Access units whose times were mended: DTS not above the one before, PTS before DTS or far after it.
    pub mended: u64,
    /// Packets that no buffer could be had for.
    pub no_buffer: u64,
    /// Packets left out after a span without calls, with a constant rate.
    pub left_out: u64,
}

/// Why an access unit is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is none of its format.
    Malformed,
    /// There is no picture inside, so that nothing builds on it.
    NoPicture,
    /// It would be longer than any may be.
    TooLong,
}
