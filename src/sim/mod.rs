//! Virtual time and a virtual network for tests, benches and fuzzing.
