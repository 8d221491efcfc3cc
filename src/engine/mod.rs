//! Runs flows: the public handle of the library.
