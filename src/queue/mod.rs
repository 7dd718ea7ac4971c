//! The queue: what survives a power cut. It keeps letters; it does not deliver them.
