//! Sockets, clock and threads around the cores.
