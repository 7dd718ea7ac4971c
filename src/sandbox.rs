//! The embedded relay for trying things out.
