//! Encoder and decoder against each other, and against libsrt's capture.
