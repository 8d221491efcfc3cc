//! The product around the engine.
