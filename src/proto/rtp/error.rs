//! Why bytes are no RTP or RTCP packet.

/// What is wrong with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than its own header says.
    #[error("truncated")]
    Truncated,
    /// Not version 2.
    #[error("not version 2")]
    Version,
    /// More padding than packet, or none where some is announced.
    #[error("wrong padding")]
    Padding,
    /// A length or count that does not fit what the packet carries.
    #[error("wrong length")]
    Length,
}
