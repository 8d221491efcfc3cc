//! What happens to a packet between source and outputs.
